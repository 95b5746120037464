"""One segment's recognition: what its final says of times."""

from __future__ import annotations

from datetime import UTC, datetime

from fakes import FakeRecognizer, silence
from harkd.events import Event, Word
from harkd.recognition import SegmentRecognition
from harkd.recognizer.protocol import Hypothesis
from harkd.segment import Segment


def test_the_words_of_a_final_count_from_where_speech_begins() -> None:
    """A stream's count from its first sample, which is before that by the pre-roll."""
    words = (Word("turn", 0.12, 0.36), Word("on", 0.4, 0.52))
    recognizer = FakeRecognizer(script=lambda _: Hypothesis("turn on", 0.9, (1, 2), words=words))
    segment = Segment("A", 1000, 1000 + 3200, datetime(2026, 11, 22, tzinfo=UTC), capacity=16_000)
    segment.extend(silence(1000))
    events: list[Event] = []
    recognition = SegmentRecognition(segment, recognizer, events.append)
    final = recognition.final(recognition.finish(16_000))
    assert final.words == (Word("turn", 0.0, 0.16), Word("on", 0.2, 0.32))
