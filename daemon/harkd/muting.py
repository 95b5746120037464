"""Muting of sources that cannot be closed and opened again: a file, or stdin.

In: what the source yields. Out: the same, without the audio that comes while it is muted; a file
goes on meanwhile, as a room does. Runs on the thread that iterates; `mute` on any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from harkd.audio import AudioBlock, FrameSource, SourceEvent, SourceMuted, SourceOpened


class MutableSource(FrameSource, Protocol):
    """A source that can be told to deliver nothing."""

    def mute(self, on: bool) -> None:
        """Deliver nothing from now on, or audio again. Any thread; `SourceMuted` tells when."""


class DroppingSource:
    """Drops the audio of a source while it is muted.

    Args:
        source: Where the audio comes from.
        muted: Whether it begins muted.
    """

    def __init__(self, source: FrameSource, *, muted: bool = False) -> None:
        self._source = source
        self._muted = muted
        self.lossless = source.lossless
        """As the source's."""

    def events(self) -> Iterator[SourceEvent]:
        """Yield what the source does; muting is noticed at its next audio."""
        opened: SourceOpened | None = None
        dropping = False
        for event in self._source.events():
            if isinstance(event, SourceOpened):
                opened = event
            if isinstance(event, AudioBlock):
                muted = self._muted
                if muted and not dropping:
                    yield SourceMuted()
                elif dropping and not muted and opened:
                    yield opened
                dropping = muted
                if dropping:
                    continue
            yield event

    def mute(self, on: bool) -> None:
        """Drop audio from now on, or no more. Any thread."""
        self._muted = on

    def close(self) -> None:
        """Make `events()` return soon."""
        self._source.close()
