"""What a capture process has opened, and what its records mean. Pure.

In: records of `harkd.capture`. Out: events of `harkd.audio`. On the thread that supervises the
capture process.
"""

from __future__ import annotations

from typing import Any

from harkd import all_zero, capture
from harkd.audio import AudioBlock, MonoConverter, SourceLost, SourceOpened


class Stream:
    """What a capture process has opened.

    Args:
        opened: Its OPENED record.
        channel: `audio.channel`.
    """

    def __init__(self, opened: dict[str, Any], channel: str) -> None:
        self._device = opened["device"]
        self._channels = opened["channels"]
        self.converter = MonoConverter(opened["rate_hz"], opened["channels"], channel)
        self.wanted = opened.get("wanted", "")
        """The sound server's source that was asked for; empty for its default."""
        self.report: dict[str, Any] = opened.get("source", {})
        """What the sound server says of it, see `harkd.sound_server`; empty without one."""
        self.told: SourceOpened | None = None
        """What was last said of it."""

    @property
    def opened(self) -> SourceOpened:
        """What is open now."""
        source = self.report.get("source", "")
        return SourceOpened(source or self._device, self.converter.rate_hz, self._channels, source)

    def block(self, flags: int, stamp_ns: int, payload: bytes, zeros_s: float) -> AudioBlock:
        """Return an AUDIO record as a block."""
        mono, behind_s = self.converter.convert(payload)
        gap = bool(flags & capture.FLAG_OVERFLOW)
        return AudioBlock(mono, stamp_ns - int(behind_s * 1e9), gap, zeros_s)

    @property
    def all_zero(self) -> SourceLost:
        """Nothing but zeros come, and why."""
        return SourceLost(all_zero.KIND, all_zero.reason(self.opened.device, self.report))


def lost_by(report: dict[str, Any]) -> SourceLost:
    """Turn the capture process's error report into an event."""
    mend = f"; {report['mend']}" if report.get("mend") else ""
    return SourceLost(report["kind"], report["message"] + mend)
