"""Where the sound server has us hear, and whether that is what was asked for. Pure.

In: the capture process's reports (`harkd.sound_server`). Out: `SourceLost` where what comes must
not be listened to. On the thread that supervises the capture process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harkd.audio import SourceLost
from harkd.capture_errors import NO_MICROPHONE_LEFT

MOVED = "moved"


class Following:
    """Judges reports.

    Args:
        device: `audio.device`.
        follow: `audio.follow`: ``name`` or ``server``.
    """

    def __init__(self, device: str, follow: str) -> None:
        self._named = device != "default"
        self._follow = follow
        self._had_microphone = False
        self._moved: SourceLost | None = None
        self.server = False
        """Whether a sound server was there."""
        self.no_monitor = False
        """Whether what a loudspeaker plays is no input: a microphone was there before."""

    def judge(self, wanted: str, report: Mapping[str, Any]) -> SourceLost | None:
        """Return what is wrong with the source that a report names; None where nothing is.

        Args:
            wanted: The source that was asked for; empty for the server's default.
            report: The report; empty where there is no server.
        """
        if not report:
            return None
        self.server = True
        name = report["source"]
        if wanted and name != wanted and self._follow == "name":
            self._moved = SourceLost(
                MOVED,
                f'the sound server moved harkd from "{wanted}" to "{name}", which is not listened '
                f'to; harkd is back when "{wanted}" is (or set audio.follow to server)',
            )
            return self._moved
        if not report["monitor"]:
            self._had_microphone = True
            # A part of a headset's name is also in that of its loudspeaker's monitor.
            self.no_monitor = self._named
        elif self._had_microphone and not report["microphones"] and name != wanted:
            self.no_monitor = True
            return SourceLost("no_device", f"{NO_MICROPHONE_LEFT}; plug one in")
        self._moved = None
        return None

    def reword(self, lost: SourceLost) -> SourceLost:
        """Return the loss, or why the device is not there any more, where that is known."""
        if self._moved and lost.kind == "no_such_device":
            return self._moved
        return lost
