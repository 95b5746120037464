"""A whole sentence ends after less silence, an open one after more, and nothing ends by mistake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from fakes import FakeRecognizer, ScriptedSource, frames_of, is_loud
from harkd.audio import AudioBlock, SourceOpened
from harkd.errors import RecognitionError
from harkd.events import Event, Final, Partial
from harkd.listening import Listening, SystemClock
from harkd.recognizer.protocol import Hypothesis
from harkd.recognizing import Recognizing
from harkd.segment import Backlog, Segment, Task
from harkd.segmenter import FRAME_SAMPLES as FRAME
from harkd.settings import (
    AudioSettings,
    EndpointSettings,
    RecognizerSettings,
    Settings,
    VadSettings,
)
from harkd.virtual_time import run_in_virtual_time

SETTINGS = Settings(
    audio=AudioSettings(block_ms=20),
    vad=VadSettings(pre_roll_ms=100, start_ms=60, min_speech_ms=120),
    endpoint=EndpointSettings(
        pause_ms=200, silence_ms=600, adaptive=True, min_silence_ms=400, max_silence_ms=1000
    ),
    recognizer=RecognizerSettings(partial_interval_ms=500),
)
"""In frames: a block is one; the pause is told after 10, ends after 20, 30 or 50."""
PRE, PAUSE = 5, 10
MIN, NORMAL, MAX = 20, 30, 50
OPENED = SourceOpened("desk", 16000, 1)
SPEECH = 40
"""Frames: one update at 25, then the pause."""

Script = Callable[[int], Hypothesis]


def always(text: str) -> Script:
    return lambda _: Hypothesis(text, 0.9)


def run(
    pattern: str, script: Script, settings: Settings = SETTINGS
) -> tuple[list[tuple[Event, int]], FakeRecognizer]:
    found: list[tuple[Event, int]] = []
    recognizer = FakeRecognizer(script)
    run_in_virtual_time(
        ScriptedSource([OPENED, AudioBlock(frames_of(pattern), 0)]),
        recognizer,
        settings,
        lambda event, position: found.append((event, position // FRAME)),
        is_speech=is_loud,
    )
    return found, recognizer


def silences(
    script: Script, settings: Settings = SETTINGS, pattern: str = "#" * SPEECH + "." * 60
) -> list[int]:
    """Frames of silence after which each final came."""
    found, _ = run(pattern, script, settings)
    return [
        at - event.speech_end_ns // 20_000_000 for event, at in found if isinstance(event, Final)
    ]


def test_a_sentence_that_stays_what_it_was_ends_after_min_silence_ms() -> None:
    assert silences(always("Turn it on.")) == [MIN]


def test_a_comma_waits_for_max_silence_ms() -> None:
    assert silences(always("Turn it on,")) == [MAX]


def test_a_sentence_that_has_just_changed_waits_for_silence_ms() -> None:
    def grows(samples: int) -> Hypothesis:
        return Hypothesis("Turn it." if samples < 35 * FRAME else "Turn it on.", 0.9)

    assert silences(grows) == [NORMAL]


def test_a_segments_first_hypothesis_is_not_stable() -> None:
    assert silences(always("On."), pattern="#" * 15 + "." * 60) == [NORMAL]


def test_without_partials_too_the_first_hypothesis_is_not_stable() -> None:
    quiet = replace(SETTINGS, recognizer=RecognizerSettings(partials=False))
    assert silences(always("Turn it on."), quiet) == [NORMAL]
    assert silences(always("Turn it on,"), quiet) == [MAX]


def test_another_segments_hypothesis_makes_nothing_stable() -> None:
    pattern = "#" * SPEECH + "." * 60 + "#" * 15 + "." * 60
    assert silences(always("Turn it on."), pattern=pattern) == [MIN, NORMAL]


def test_switched_off_it_changes_nothing() -> None:
    fixed = replace(SETTINGS, endpoint=replace(SETTINGS.endpoint, adaptive=False))
    for text in ("Turn it on.", "Turn it on,"):
        assert silences(always(text), fixed) == [NORMAL]


def test_the_final_was_prepared_whenever_it_ends() -> None:
    for text in ("Turn it on.", "Turn it on,"):
        _, recognizer = run("#" * SPEECH + "." * 60, always(text))
        (stream,) = recognizer.streams
        assert stream.prepared_at == [(SPEECH + PAUSE) * FRAME]
        assert stream.new_in_finish == 0


def test_a_pause_that_failed_to_be_prepared_ends_after_silence_ms() -> None:
    def fails(samples: int) -> Hypothesis:
        if samples == (SPEECH + PAUSE) * FRAME and not failed:
            failed.append(samples)
            raise RecognitionError("it failed")
        return Hypothesis("Turn it on.", 0.9)

    failed: list[int] = []
    assert silences(fails) == [NORMAL]
    assert failed


@pytest.mark.parametrize("text", ["Turn it on.", "Turn it on,"])
def test_when_speech_resumes_the_next_pause_is_judged_anew(text: str) -> None:
    """15 frames of pause, 20 of speech; then come more words, which make a sentence."""

    def later(samples: int) -> Hypothesis:
        return Hypothesis(text if samples < 80 * FRAME else "Turn it on now.", 0.9)

    pattern = "#" * SPEECH + "." * 15 + "#" * 20 + "." * 60
    assert silences(later, pattern=pattern) == [NORMAL]
    found, _ = run(pattern, later)
    assert len({event.id for event, _ in found if isinstance(event, Partial | Final)}) == 1


# --------------------------------------------------- a recognizer that is late with its judgement


class Halves:
    """Listening and recognizing without threads, and each moved by the test."""

    def __init__(self, script: Script, settings: Settings = SETTINGS) -> None:
        self.events: list[Event] = []
        self.backlog = Backlog.of(settings.recognizer)
        self.listening = Listening(
            settings,
            self.backlog,
            self.events.append,
            clock=SystemClock(),
            new_id=lambda: "A",
            may_wait=False,
            is_speech=is_loud,
        )
        self.recognizing = Recognizing(
            settings,
            FakeRecognizer(script),
            self.backlog,
            self.events.append,
            spent_ns=lambda: 0,
            fail=lambda _: None,
        )
        self.listening.take(OPENED)

    def hear(self, pattern: str) -> None:
        for frame in frames_of(pattern).reshape(-1, FRAME):
            self.listening.take(AudioBlock(frame, 0))

    def poll(self) -> tuple[Segment, Task, int] | None:
        return self.backlog.poll(self.recognizing.progress)

    def catch_up(self) -> None:
        while work := self.poll():
            self.recognizing.do(*work)

    @property
    def ended(self) -> bool:
        """Whether the segment has ended: its end is due, or told."""
        work = self.poll()
        return bool(work and work[1] is Task.FINISH)

    def prepared(self, pattern: str) -> tuple[Segment, Task, int]:
        """Hear speech, know it, hear the rest, and return the task of preparing the pause."""
        self.hear("#" * SPEECH)
        self.catch_up()
        self.hear(pattern)
        work = self.poll()
        assert work
        assert work[1] is Task.PREPARE
        return work


def test_a_judgement_that_comes_late_ends_the_segment_with_the_next_frame() -> None:
    halves = Halves(always("Turn it on."))
    work = halves.prepared("." * (MIN + 5))
    assert not halves.ended
    halves.recognizing.do(*work)
    assert not halves.ended
    halves.hear(".")
    assert halves.ended


def test_a_judgement_that_comes_after_the_end_changes_nothing() -> None:
    halves = Halves(always("Turn it on,"))
    work = halves.prepared("." * PAUSE)
    halves.hear("." * (NORMAL - PAUSE))
    halves.recognizing.do(*work)
    assert work[0].end_silence is None
    halves.catch_up()
    assert len([event for event in halves.events if isinstance(event, Final)]) == 1


def test_a_judgement_of_a_pause_that_is_over_is_ignored() -> None:
    """While it was prepared, the speaker went on, and paused again."""
    halves = Halves(always("Turn it on."))
    stale = halves.prepared("." * 15)
    halves.hear("#" * 10 + "." * 15)
    halves.recognizing.do(*stale)
    assert stale[0].end_silence is None
    halves.hear("." * (MIN - 15))
    assert not halves.ended, "ended by the judgement of another pause"


def test_a_judgement_is_not_used_for_the_next_segment() -> None:
    halves = Halves(always("Turn it on."))
    first = halves.prepared("." * PAUSE)
    halves.recognizing.do(*first)
    halves.hear("." * (MIN - PAUSE) + "#" * SPEECH + "." * (MIN + 5))
    assert halves.ended
    work = halves.poll()
    assert work
    assert work[0] is not first[0]
    assert work[0].ended is None


def test_in_a_longer_block_too_the_next_pause_has_its_own_judgement() -> None:
    """Speech and the next pause arrive at once, as after a stall of the microphone."""
    halves = Halves(always("Turn it on."))
    halves.recognizing.do(*halves.prepared("." * PAUSE))
    halves.listening.take(AudioBlock(frames_of("...##" + "." * (MIN + 5)), 0))
    assert not halves.ended


# ------------------------------------------------------------------ an announced cut is no pause

SHORT = replace(SETTINGS, endpoint=replace(SETTINGS.endpoint, max_utterance_s=2))
"""In frames: cut at 100, announced at 75."""


def announced(text: str) -> tuple[Halves, tuple[Segment, Task, int]]:
    """Hear speech until a cut is announced; return the task of preparing it, too."""
    halves = Halves(always(text), SHORT)
    halves.hear("#" * 74)
    halves.catch_up()
    assert halves.poll() is None
    halves.hear("#")
    work = halves.poll()
    assert work
    assert work[1] is Task.PREPARE
    assert work[2] < 75 * FRAME
    return halves, work


@pytest.mark.parametrize("text", ["Turn it on.", "Turn it on,"])
def test_an_announced_cut_is_not_judged_as_a_pause(text: str) -> None:
    halves, work = announced(text)
    halves.recognizing.do(*work)
    assert work[0].end_silence is None
    halves.hear("#" * 24)
    assert not halves.ended
    halves.hear("#")
    assert halves.ended


@pytest.mark.parametrize("late", [True, False])
def test_a_pause_after_an_announced_cut_has_its_own_judgement(late: bool) -> None:
    """Until then it ends as ever, also where the cut was prepared only when the pause was told."""
    halves, work = announced("Turn it on.")
    if not late:
        halves.recognizing.do(*work)
    halves.hear("." * PAUSE)
    if late:
        halves.recognizing.do(*work)
    assert work[0].paused
    assert work[0].end_silence is None
    halves.hear("." * (MIN - PAUSE))
    assert not halves.ended, "ended by the judgement of a cut"
    halves.catch_up()
    assert work[0].end_silence is not None
