"""Files and pipes are muted by dropping what they deliver."""

from __future__ import annotations

import numpy as np
import pytest

from fakes import ScriptedSource
from harkd.audio import AudioBlock, SourceEvent, SourceLost, SourceMuted, SourceOpened
from harkd.muting import DroppingSource

OPENED = SourceOpened("song.wav", 44100, 2)


def block(number: int) -> AudioBlock:
    return AudioBlock(np.full(3, number, np.int16), number)


def told(events: list[SourceEvent]) -> list[object]:
    """The events, with the number of a block in its place."""
    return [event.captured_ns if isinstance(event, AudioBlock) else event for event in events]


def test_unmuted_everything_comes_through() -> None:
    lost = SourceLost("ended", "gone")
    source = DroppingSource(ScriptedSource([OPENED, block(1), lost, OPENED, block(2)]))
    assert told(list(source.events())) == [OPENED, 1, lost, OPENED, 2]


def test_what_comes_while_it_is_muted_is_dropped_and_told_once() -> None:
    inner = ScriptedSource([OPENED, block(1), lambda: source.mute(True), block(2), block(3)])
    inner.then(lambda: source.mute(False), block(4), block(5))
    source = DroppingSource(inner)
    assert told(list(source.events())) == [OPENED, 1, SourceMuted(), OPENED, 4, 5]


def test_muted_from_the_start_nothing_is_heard() -> None:
    inner = ScriptedSource([OPENED, block(1), block(2)])
    assert told(list(DroppingSource(inner, muted=True).events())) == [OPENED, SourceMuted()]


@pytest.mark.parametrize("lossless", [True, False])
def test_it_can_wait_where_its_source_can(lossless: bool) -> None:
    assert DroppingSource(ScriptedSource([], lossless=lossless)).lossless is lossless


def test_closing_closes_the_source() -> None:
    inner = ScriptedSource([OPENED, lambda: source.close(), block(1)])
    source = DroppingSource(inner)
    assert told(list(source.events())) == [OPENED]
