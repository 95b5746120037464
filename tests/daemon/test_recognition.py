"""One segment's recognition: what its final says of times."""

from __future__ import annotations

from datetime import UTC, datetime

from fakes import FakeRecognizer, silence
from harkd.events import Event, Final, Partial, Word
from harkd.hotword_list import Hotword
from harkd.recognition import SegmentRecognition
from harkd.recognizer.protocol import Hypothesis
from harkd.segment import Segment
from harkd.settings import TextSettings


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


def recognized(
    script: dict[int, str], style: TextSettings, hotwords: tuple[Hotword, ...] = ()
) -> tuple[list[Event], FakeRecognizer]:
    """The partials and the final of a segment, in which so many samples say so."""
    words = (Word("twenty", 0.0, 0.5),)
    recognizer = FakeRecognizer(
        script=lambda samples: Hypothesis(script[samples], 0.9, (1,), words=words)
    )
    segment = Segment("A", 0, 0, datetime(2026, 11, 22, tzinfo=UTC), capacity=16_000)
    segment.extend(silence(1000))
    events: list[Event] = []
    recognition = SegmentRecognition(
        segment, recognizer, events.append, hotwords=hotwords, style=style
    )
    for limit in script:
        recognition.update(limit, prepare=False, tell=True)
    events.append(recognition.final(recognition.finish(max(script))))
    return events, recognizer


def test_partials_and_final_are_written_in_the_same_style() -> None:
    script = {1000: "Set", 2000: "Set it to twenty,", 3000: "Set it to twenty degrees."}
    style = TextSettings(numbers="digits", casing="lower", punctuation=False)
    events, _ = recognized(script, style)
    told = [
        (each.text, each.stable_chars if isinstance(each, Partial) else None)
        for each in events
        if isinstance(each, Partial | Final)
    ]
    assert told == [
        ("set", 0),
        ("set it to 20", 3),
        ("set it to 20 degrees", 12),
        ("set it to 20 degrees", None),
    ]
    assert isinstance(events[-1], Final)
    assert events[-1].words == (Word("twenty", 0.0, 0.5),), "times are of what was said"


def test_a_partial_that_differs_in_punctuation_alone_is_not_told_without_it() -> None:
    events, _ = recognized({1000: "Stop", 2000: "Stop."}, TextSettings(punctuation=False))
    assert [type(each).__name__ for each in events] == ["Partial", "Final"]


def test_a_segment_is_recognized_with_the_hotwords_of_its_beginning() -> None:
    hotwords = (Hotword("Ikea"),)
    _, recognizer = recognized({1000: "a", 2000: "b"}, TextSettings(), hotwords)
    assert recognizer.hotwords == [hotwords]
