"""A microphone that gives nothing but zeros: muted, or dead. Even a quiet room hisses.

In: the length of each block and whether all of it is zero. Out: whether that is told, why as far
as the sound server knows, and when the input is worth opening anew. Pure; on the thread that
supervises the capture process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KIND = "all_zero"
REPLACE_FIRST_S, REPLACE_MOST_S = 30.0, 600.0
"""Some USB devices only wake up when they are opened anew; after so long, and at most."""


class ZeroSpell:
    """Counts zeros.

    Args:
        after_s: So many seconds of them count as a fault; 0 for never.
    """

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self.reset()

    def reset(self) -> None:
        """Something else came, or nothing does."""
        self.seconds = 0.0
        """So long there were nothing but zeros."""
        self.told = False
        """Whether that is a fault."""
        self._replace_after_s = REPLACE_FIRST_S
        self._until_replaced_s = REPLACE_FIRST_S

    def add(self, length_s: float, *, zero: bool) -> None:
        """Count a block."""
        if not zero:
            if self.seconds:
                self.reset()
            return
        self.seconds += length_s
        if self.told:
            self._until_replaced_s -= length_s
        elif self._after_s and self.seconds >= self._after_s:
            self.told = True

    def replace_now(self) -> bool:
        """Tell, once each time, that the input should be opened anew; ever more rarely."""
        if not self.told or self._until_replaced_s > 0:
            return False
        self._replace_after_s = min(2 * self._replace_after_s, REPLACE_MOST_S)
        self._until_replaced_s = self._replace_after_s
        return True


def is_explained(report: Mapping[str, Any]) -> bool:
    """Tell whether the sound server knows why there are zeros."""
    return bool(report and (report["muted"] or report["stream_muted"] or not report["volume"]))


def reason(device: str, report: Mapping[str, Any]) -> str:
    """Say what is wrong and how to mend it.

    Args:
        device: Name of the input.
        report: What the sound server knows, see `harkd.sound_server`; empty without one.
    """
    if report and report["muted"]:
        return f'"{device}" is muted in the sound server; pactl set-source-mute {device} 0'
    if report and report["stream_muted"]:
        return (
            f'what harkd records of "{device}" is muted in the sound server; '
            f"pactl set-source-output-mute {report['stream']} 0"
        )
    if report and not report["volume"]:
        return (
            f'the volume of "{device}" is 0 in the sound server; '
            f"pactl set-source-volume {device} 100%"
        )
    return (
        f'"{device}" gives nothing but zeros: it is muted, or dead; look for a switch on it, '
        "unmute it (alsamixer, F4), or plug it in anew; if it is so in each silence, set "
        "audio.zeros_s to 0"
    )
