"""What a wake word lets through, by audio alone: nothing is said of real detectors here.

A letter is a frame of 20 ms: ``#`` speech, ``w`` speech of a wake word, ``.`` silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import Int16, frames_of, is_loud, split
from harkd.audio import RATE_HZ
from harkd.counters import Counters
from harkd.events import Final, Rejected, RejectReason
from harkd.segmenter import (
    FRAME_SAMPLES,
    Cause,
    CutAnnounced,
    SpeechEnded,
    SpeechStarted,
)
from harkd.settings import EndpointSettings, VadSettings, WakeSettings
from harkd.wake_gate import WakeGate
from harkd.wake_word import DELAY_SAMPLES, Reading
from harkd.waking import Awake, WakeWordSaid, WakingEvent, WakingSegmenter

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
FINAL = Final("id", 1, "lights on", 0.9, NOW, NOW, 1.0, 0, 0, "en", "fake")
MARK = -1001
"""A sample that the fake detector knows; no noise of `frames_of` has it."""
DELAY = DELAY_SAMPLES // FRAME_SAMPLES
"""Frames by which a detector is late."""
VAD = VadSettings(pre_roll_ms=100, start_ms=60)
ENDPOINT = EndpointSettings(silence_ms=600, pause_ms=300, max_utterance_s=15)


def heard(pattern: str) -> Int16:
    """The audio of a pattern."""
    audio = frames_of([mark != "." for mark in pattern]).reshape(-1, FRAME_SAMPLES)
    audio[[mark == "w" for mark in pattern], 1] = MARK
    return audio.reshape(-1)


class FakeDetector:
    """A word is likely where its last frame was `DELAY` before, give or take two frames."""

    def __init__(self) -> None:
        self.heard = 0
        self.rest = np.empty(0, np.int16)
        self.marked: list[bool] = []

    def push(self, samples: Int16) -> list[Reading]:
        self.heard += len(samples)
        held = np.concatenate([self.rest, samples])
        whole = len(held) - len(held) % FRAME_SAMPLES
        self.rest = held[whole:]
        return [self.reading(frame) for frame in held[:whole].reshape(-1, FRAME_SAMPLES)]

    def reading(self, frame: Int16) -> Reading:
        self.marked.append(MARK in frame)
        n, marked = len(self.marked), self.marked
        ends = range(max(1, n - DELAY - 2), n - DELAY + 3)
        likely = any(marked[end - 1] and not marked[end] for end in ends)
        return Reading("jarvis", n * FRAME_SAMPLES, float(likely), 0.5)

    def reset(self) -> None:
        self.rest, self.marked = np.empty(0, np.int16), []


class Ear:
    """A waking segmenter, and what it has told."""

    def __init__(self, endpoint: EndpointSettings = ENDPOINT, listen_s: float = 6.0) -> None:
        self.gate, self.detector, self.counters = WakeGate(), FakeDetector(), Counters()
        wake = WakeSettings(word="jarvis", listen_s=listen_s)
        self.segmenter = WakingSegmenter(
            VAD, endpoint, wake, self.detector, self.gate, is_loud, self.counters
        )
        self.events: list[WakingEvent] = []
        self.audio = np.empty(0, np.int16)

    def hear(self, pattern: str, pieces: Sequence[int] = ()) -> Ear:
        audio = heard(pattern)
        self.audio = np.concatenate([self.audio, audio])
        for piece in split(audio, pieces) if pieces else audio.reshape(-1, FRAME_SAMPLES):
            self.events += self.segmenter.push(piece)
        return self

    @property
    def segments(self) -> list[tuple[int, int, int, Cause]]:
        """First frame of the audio and of speech, the frame after speech, and why it ended."""
        found, start = [], None
        for event in self.events:
            if isinstance(event, SpeechStarted):
                assert start is None, "a segment began within another"
                start = event
            elif isinstance(event, SpeechEnded):
                assert start, "a segment ended that never began"
                first = start.audio_start // FRAME_SAMPLES, start.speech_start // FRAME_SAMPLES
                found.append((*first, event.speech_end // FRAME_SAMPLES, event.cause))
                start = None
        return found

    @property
    def spoken(self) -> list[str]:
        """Of each segment, the marks of its audio."""
        marks = "".join(
            "w" if MARK in frame else "#" if is_loud(frame.tobytes()) else "."
            for frame in self.audio.reshape(-1, FRAME_SAMPLES)
        )
        return [marks[first:end] for first, _, end, _ in self.segments]

    @property
    def words(self) -> list[int]:
        """Frames at which a wake word was told."""
        said = (each for each in self.events if isinstance(each, WakeWordSaid))
        return [each.position // FRAME_SAMPLES for each in said]

    @property
    def awake(self) -> list[bool]:
        return [each.awake for each in self.events if isinstance(each, Awake)]


SILENCE = "." * 40
SPEECH = "#" * 50
WORD = "w" * 30


def test_without_a_wake_word_nothing_is_told_but_that_it_sleeps() -> None:
    ear = Ear().hear(SILENCE + SPEECH + SILENCE + SPEECH + SILENCE)
    assert ear.events == [Awake(False)]
    assert ear.counters.snapshot().unwoken == 2


def test_what_follows_in_the_same_breath_is_a_segment_without_the_word() -> None:
    ear = Ear().hear(SILENCE + WORD + SPEECH + SILENCE)
    assert ear.spoken == [SPEECH]
    assert ear.segments[0][3] is Cause.SILENCE
    assert len(ear.words) == 1
    counted = ear.counters.snapshot()
    assert (counted.wakes, counted.unwoken) == (1, 0)


def test_a_pause_after_the_word_makes_no_segment_of_its_own() -> None:
    for pause in range(1, 60, 7):
        ear = Ear().hear(SILENCE + WORD + "." * pause + SPEECH + SILENCE)
        assert [each.lstrip(".") for each in ear.spoken] == [SPEECH], pause


@pytest.mark.parametrize("rest", [3, 8, 14])
def test_the_rest_of_the_word_is_no_utterance_and_uses_nothing_up(rest: int) -> None:
    ear = Ear().hear(SILENCE + WORD + "#" * rest + "." * 60 + SPEECH + SILENCE)
    assert [each.lstrip(".") for each in ear.spoken] == [SPEECH]
    assert ear.counters.snapshot().unwoken == 0


@pytest.mark.parametrize("pattern", ["#" * 16, "." * 10 + "#" * 5, "#" * 5 + "." * 8 + "#" * 9])
def test_a_short_command_is_not_taken_for_the_rest_of_the_word(pattern: str) -> None:
    ear = Ear().hear(SILENCE + WORD + pattern + "." * 60)
    assert [each.lstrip(".") for each in ear.spoken] == [pattern.lstrip(".")]


def test_speech_before_the_word_is_not_told() -> None:
    ear = Ear().hear(SILENCE + SPEECH + WORD + SPEECH + SILENCE)
    assert ear.spoken == [SPEECH]
    assert ear.counters.snapshot().unwoken == 0


def test_after_the_word_alone_the_next_utterance_counts_and_no_other() -> None:
    ear = Ear().hear(SILENCE + WORD + "." * 200 + SPEECH + SILENCE + SPEECH + SILENCE)
    assert [each.lstrip(".") for each in ear.spoken] == [SPEECH]
    assert ear.counters.snapshot().unwoken == 1


def test_it_sleeps_again_after_a_while() -> None:
    ear = Ear(listen_s=2.0).hear(SILENCE + WORD)
    ear.hear("." * 120 + SPEECH + SILENCE)
    assert ear.spoken == []
    assert ear.awake == [False, True, False]


def test_awake_is_told_with_the_word_and_until_the_utterance_is_over() -> None:
    ear = Ear().hear(SILENCE + WORD + SPEECH)
    assert ear.awake == [False, True]
    assert ear.segmenter.in_speech
    ear.hear(SILENCE)
    assert ear.awake == [False, True, False]
    assert not ear.segmenter.in_speech


def test_what_is_asleep_is_no_speech_to_others() -> None:
    ear = Ear().hear(SILENCE + SPEECH)
    assert not ear.segmenter.in_speech
    assert ear.segmenter.voiced_ms == 0
    assert ear.segmenter.voiced_frames == len(SPEECH)


def test_no_frame_is_counted_twice() -> None:
    ear = Ear().hear(SILENCE + WORD + SPEECH + SILENCE)
    assert ear.segmenter.voiced_frames == len(WORD + SPEECH)


def test_an_utterance_that_is_cut_for_its_length_goes_on() -> None:
    ear = Ear(EndpointSettings(max_utterance_s=2)).hear(SILENCE + WORD + "#" * 250 + SILENCE)
    assert "".join(ear.spoken) == "#" * 250
    assert [cause for *_, cause in ear.segments][:2] == [Cause.LENGTH] * 2
    assert any(isinstance(event, CutAnnounced) for event in ear.events)


def test_the_word_said_again_makes_what_was_said_before_void() -> None:
    ear = Ear().hear(SILENCE + WORD + "." * 50 + "#" * 10 + WORD + SPEECH + SILENCE)
    assert [cause for *_, cause in ear.segments] == [Cause.WAKE_WORD, Cause.SILENCE]
    assert ear.spoken[-1] == SPEECH


def test_the_word_said_again_and_nothing_after_it_is_not_recognized() -> None:
    ear = Ear(EndpointSettings(silence_ms=300, pause_ms=100))
    ear.hear(SILENCE + WORD + "." * 50 + WORD + SILENCE)
    assert [cause for *_, cause in ear.segments] == [Cause.WAKE_WORD]
    assert ear.awake[-1] is True
    ear.hear(SPEECH + SILENCE)
    assert ear.spoken[-1].lstrip(".") == SPEECH


def test_late_in_an_utterance_the_word_is_a_word() -> None:
    ear = Ear().hear(SILENCE + WORD + "#" * 150 + WORD + SPEECH + SILENCE)
    assert ear.spoken == ["#" * 150 + WORD + SPEECH]


def test_a_word_is_noticed_after_an_utterance_that_a_short_silence_has_ended() -> None:
    ear = Ear(EndpointSettings(silence_ms=100, pause_ms=60))
    ear.hear(SILENCE + WORD + SILENCE)
    assert len(ear.words) == 1
    ear.hear(SPEECH + SILENCE)
    assert [each.lstrip(".") for each in ear.spoken] == [SPEECH]


def test_a_word_is_noticed_also_where_silence_ends_the_utterance_before() -> None:
    ear = Ear(EndpointSettings(silence_ms=100, pause_ms=60))
    ear.hear(SILENCE + WORD + "." * 8 + SPEECH + SILENCE)
    assert [each.lstrip(".") for each in ear.spoken] == [SPEECH]


@pytest.mark.parametrize("reason", [RejectReason.NO_SPEECH, RejectReason.TOO_SHORT])
def test_a_cough_does_not_use_up_what_was_listened_for(reason: RejectReason) -> None:
    ear = Ear().hear(SILENCE + WORD + SILENCE + "#####" + SILENCE)
    ear.gate.hear(Rejected("id", reason, NOW, 0.1))
    ear.hear(SPEECH + SILENCE)
    assert [each.strip(".") for each in ear.spoken] == ["#####", SPEECH]
    ear.gate.hear(FINAL)
    ear.hear(SPEECH + SILENCE)
    assert len(ear.spoken) == 2


def test_a_rejection_that_comes_late_still_counts_for_what_is_being_said() -> None:
    ear = Ear().hear(SILENCE + WORD + SILENCE + "#####" + SILENCE + SPEECH)
    ear.gate.hear(Rejected("id", RejectReason.NO_SPEECH, NOW, 0.1))
    ear.hear(SPEECH + SILENCE)
    assert ear.spoken[-1].lstrip(".") == SPEECH + SPEECH


def test_after_text_a_cough_opens_nothing() -> None:
    ear = Ear().hear(SILENCE + WORD + SPEECH + SILENCE)
    ear.gate.hear(FINAL)
    ear.hear("...")
    ear.gate.hear(Rejected("id", RejectReason.NO_SPEECH, NOW, 0.1))
    ear.hear(SPEECH + SILENCE)
    assert len(ear.spoken) == 1


def test_a_command_listens_to_the_next_utterance() -> None:
    ear = Ear().hear(SILENCE)
    ear.gate.listen()
    ear.hear(SILENCE + SPEECH + SILENCE + SPEECH + SILENCE)
    assert [each.lstrip(".") for each in ear.spoken] == [SPEECH]


def test_a_command_while_somebody_speaks_hears_a_second_of_what_was_said() -> None:
    ear = Ear().hear(SILENCE + "#" * 100)
    ear.gate.listen()
    ear.hear("#" * 20 + SILENCE)
    assert ear.spoken == ["#" * 70]


def test_while_a_session_is_open_all_is_heard() -> None:
    ear = Ear().hear(SILENCE + SPEECH + SILENCE)
    ear.gate.session(True)
    ear.hear(SPEECH + SILENCE + SPEECH + SILENCE + "." * 400 + SPEECH + SILENCE)
    ear.gate.session(False)
    ear.hear(SPEECH + SILENCE)
    assert [each.lstrip(".") for each in ear.spoken] == [SPEECH] * 3


def test_the_end_of_the_stream_ends_what_is_heard_and_forgets_the_word() -> None:
    ear = Ear().hear(SILENCE + WORD + SPEECH)
    ear.events += ear.segmenter.flush()
    assert ear.segments[-1][3] is Cause.STREAM_END
    assert ear.awake[-1] is False
    ear.hear(SPEECH + SILENCE)
    assert len(ear.segments) == 1


def test_a_word_from_before_the_end_of_the_stream_opens_nothing_after_it() -> None:
    for left in range(0, 30, 3):  # the detector is late: it may hear of it only after the end
        ear = Ear().hear(SILENCE + WORD + "." * left)
        ear.events += ear.segmenter.flush()
        ear.hear(SPEECH + SILENCE)
        assert ear.spoken == []
        assert ear.awake[-1] is False


def test_the_detector_hears_only_speech_and_a_second_before_it() -> None:
    ear = Ear().hear("." * 1000)
    assert ear.detector.heard == 0
    ear.hear(SPEECH + SILENCE + "." * 1000)
    assert RATE_HZ < ear.detector.heard <= RATE_HZ + (len(SPEECH) + 31) * FRAME_SAMPLES


def test_in_what_is_heard_it_hears_only_the_beginning() -> None:
    ear = Ear().hear(SILENCE + WORD + "#" * 400 + SILENCE)
    # The word with its delay, and 2 s of what follows with what was before it.
    assert ear.detector.heard <= 4.5 * RATE_HZ


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(["." * 5, SILENCE, "#", SPEECH, WORD, "w" * 4]), max_size=12),
    st.lists(st.integers(1, 3000), max_size=80),
)
def test_any_split_into_pieces_gives_the_same(parts: list[str], pieces: list[int]) -> None:
    pattern = SILENCE + WORD + "".join(parts) + SILENCE
    whole, cut = Ear().hear(pattern), Ear().hear(pattern, pieces)
    assert whole.events == cut.events
    assert whole.segmenter.position == cut.segmenter.position == len(whole.audio)
    assert whole.counters.snapshot() == cut.counters.snapshot()
    # No wake word is recognized that was said at the beginning.
    ends = [cause for *_, cause in whole.segments]
    assert not any(
        "#" + WORD[:20] in each[:60]
        for each, cause in zip(whole.spoken, ends, strict=True)
        if cause is Cause.SILENCE
    )
