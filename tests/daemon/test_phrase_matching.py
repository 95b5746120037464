"""Finals that are phrases: when one counts, what its final says, and what becomes of the rest."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from fakes import FakeRecognizer, FakeStream, ScriptedSource, frames_of, is_loud
from harkd import phrase_matching
from harkd.audio import AudioBlock, SourceOpened
from harkd.errors import ModelError, RecognitionError
from harkd.events import Event, Final, Partial, PhraseMatch, Rejected, RejectReason
from harkd.hotword_list import Hotwords
from harkd.phrase_matching import Mode, PhraseMatching
from harkd.recognizer.phrase_scorer import OpenText, PhraseScorer, PhraseScores, ScoredPhrase
from harkd.recognizer.phrase_tokens import Vocabulary
from harkd.recognizer.protocol import Hypothesis
from harkd.settings import (
    AudioSettings,
    EndpointSettings,
    RecognizerSettings,
    Settings,
    TextSettings,
    VadSettings,
)
from harkd.virtual_time import run_in_virtual_time
from phrasing import compiled, walk

SETTINGS = Settings(
    audio=AudioSettings(block_ms=20),
    vad=VadSettings(pre_roll_ms=100, start_ms=60, min_speech_ms=120),
    endpoint=EndpointSettings(pause_ms=100, silence_ms=200, max_utterance_s=15),
    recognizer=RecognizerSettings(partial_interval_ms=500, partial_share=0, min_confidence=0.35),
)
HOUSE = compiled("""
intents:
  cancel: [cancel all timers]
  dim: ['set [the] {lamp} to {level}']
lists:
  lamp: [{in: bed light, out: light.bed}]
  level: {range: {from: 0, to: 100}}
""")
UTTERANCE = "." * 12 + "#" * 60 + "." * 20
TIRES = Hypothesis("Pencil all tires.", 0.4, (1,))
Score = tuple[list[str], float, float]
"""The words of a phrase, its margin and its evidence."""


class ScoringStream(FakeStream):
    """One that can be held against phrases."""

    def __init__(self, recognizer: ScoringRecognizer) -> None:
        super().__init__(recognizer)
        self._scoring = recognizer

    def phrases(self, scorer: PhraseScorer) -> PhraseScores:
        del scorer
        self._scoring.asked.append(self.samples)
        return self._scoring.scores()


@dataclass
class ScoringRecognizer(FakeRecognizer):
    """Answers as is scripted how well a phrase fits."""

    scores: Callable[[], PhraseScores] = lambda: PhraseScores(OpenText("", (), 0.0))
    asked: list[int] = field(default_factory=list)
    """Samples that had been heard each time."""
    older: bool = False
    """Whether its package cannot score phrases."""

    def stream(self, hotwords: Hotwords = ()) -> FakeStream:
        del hotwords
        self.streams.append(ScoringStream(self))
        return self.streams[-1]

    def vocabulary(self) -> Vocabulary:
        if self.older:
            raise ModelError("the package is of an older version", "make it again")
        return Vocabulary(["can", "cel", " all", " timers"])


def scored(words: str, *, margin: float = 0.2, evidence: float = 20.0) -> PhraseScores:
    """A phrase that a search has found, with log-probability −1 for each token."""
    phrase = ScoredPhrase(
        arcs=tuple(walk(HOUSE, words.split())),
        written=(1, 2, 3),
        log_prob=-4.0,
        evidence=evidence,
        text=words.capitalize() + ".",
        margin=margin,
    )
    return PhraseScores(OpenText(TIRES.text, (1,), -3.0), (phrase,))


def hear(
    recognizer: FakeRecognizer, mode: Mode = "prefer", settings: Settings = SETTINGS
) -> list[Event]:
    """What comes of an utterance, but for states."""
    found: list[Event] = []
    run_in_virtual_time(
        ScriptedSource([SourceOpened("desk", 16000, 1), AudioBlock(frames_of(UTTERANCE), 0)]),
        recognizer,
        settings,
        lambda event, _: found.append(event),
        is_speech=is_loud,
        phrases=PhraseMatching(HOUSE, recognizer, mode),
    )
    return [event for event in found if isinstance(event, Partial | Final | Rejected)]


def end_of(recognizer: FakeRecognizer, *args: Any, **options: Any) -> Final | Rejected:
    *_, end = hear(recognizer, *args, **options)
    assert isinstance(end, Final | Rejected)
    return end


def final_of(recognizer: FakeRecognizer, *args: Any, **options: Any) -> Final:
    end = end_of(recognizer, *args, **options)
    assert isinstance(end, Final)
    return end


def reason_of(recognizer: FakeRecognizer, *args: Any, **options: Any) -> RejectReason:
    end = end_of(recognizer, *args, **options)
    assert isinstance(end, Rejected)
    return end.reason


def saying(text: str, confidence: float = 0.9) -> Callable[[int], Hypothesis]:
    return lambda _: Hypothesis(text, confidence, (1,))


# ----------------------------------------------------------------------- a phrase is found


def test_a_phrase_that_fits_nearly_as_well_stands_in_place_of_free_text() -> None:
    final = final_of(
        ScoringRecognizer(script=lambda _: TIRES, scores=lambda: scored("cancel all timers"))
    )
    assert final.text == "Cancel all timers."
    assert final.open_text == "Pencil all tires."
    assert final.match == PhraseMatch("cancel all timers", "cancel", {}, math.exp(-1), 0.2)
    assert final.confidence == math.exp(-1)


def test_the_slots_are_what_the_lists_put_out() -> None:
    said = "set the bed light to thirty"
    final = final_of(ScoringRecognizer(script=lambda _: TIRES, scores=lambda: scored(said)))
    assert final.match
    assert final.match.slots == {"lamp": "light.bed", "level": 30}


def test_it_is_written_as_the_settings_say() -> None:
    style = replace(SETTINGS, text=TextSettings(casing="lower", punctuation=False))
    recognizer = ScoringRecognizer(
        script=lambda _: TIRES, scores=lambda: scored("cancel all timers")
    )
    final = final_of(recognizer, settings=style)
    assert (final.text, final.open_text) == ("cancel all timers", "pencil all tires")


def test_where_the_open_text_is_the_phrase_it_stays_with_its_confidence_and_words() -> None:
    exact = replace(scored("cancel all timers", margin=0.0), exact=True)
    recognizer = ScoringRecognizer(script=saying("Cancel ALL timers!", 0.7), scores=lambda: exact)
    final = final_of(recognizer)
    assert (final.text, final.open_text, final.confidence) == (
        "Cancel ALL timers!",
        "Cancel ALL timers!",
        0.7,
    )


@pytest.mark.parametrize(
    "far", [{"margin": 3.0}, {"evidence": 1.0}, {"margin": math.inf, "evidence": -2.0}]
)
def test_a_phrase_that_does_not_explain_the_audio_leaves_the_open_text_as_it_is(
    far: dict[str, float],
) -> None:
    recognizer = ScoringRecognizer(
        script=lambda _: TIRES, scores=lambda: scored("cancel all timers", **far)
    )
    final = final_of(recognizer)
    assert (final.text, final.match, final.open_text) == (TIRES.text, None, "")


def test_it_is_looked_for_in_the_pause_so_that_the_final_need_not_wait() -> None:
    recognizer = ScoringRecognizer(
        script=lambda _: TIRES, scores=lambda: scored("cancel all timers")
    )
    assert final_of(recognizer).match
    (stream,) = recognizer.streams
    assert recognizer.asked == stream.prepared_at
    assert stream.new_in_finish == 0


def test_a_model_that_fails_at_phrases_still_gives_its_free_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> PhraseScores:
        raise RecognitionError("the decoder failed", "…")

    final = final_of(ScoringRecognizer(script=lambda _: TIRES, scores=broken))
    assert (final.text, final.match) == (TIRES.text, None)
    assert "the decoder failed" in caplog.text


# ----------------------------------------------------------------------- what is rejected


@pytest.mark.parametrize(
    ("heard", "reason"),
    [
        (Hypothesis("Oh", 0.2, (1,)), RejectReason.LOW_CONFIDENCE),
        (Hypothesis("", 0.0), RejectReason.NO_SPEECH),
        (Hypothesis("oh oh oh oh", 0.9, (1,), looped=True), RejectReason.REPETITION),
    ],
)
def test_only_low_confidence_is_mended_by_a_phrase(heard: Hypothesis, reason: RejectReason) -> None:
    found = ScoringRecognizer(script=lambda _: heard, scores=lambda: scored("cancel all timers"))
    none = ScoringRecognizer(script=lambda _: heard)
    assert reason_of(none) == reason
    end = end_of(found)
    if reason is RejectReason.LOW_CONFIDENCE:
        assert isinstance(end, Final)
        assert end.match
    else:
        assert isinstance(end, Rejected)
        assert end.reason == reason


def test_with_only_nothing_but_phrases_is_told_not_even_partly() -> None:
    free = ScoringRecognizer(script=lambda _: TIRES)
    assert [type(event) for event in hear(free)] == [Partial, Final]
    (end,) = hear(free, "only")
    assert isinstance(end, Rejected)
    assert end.reason == RejectReason.NO_PHRASE
    phrase = ScoringRecognizer(script=lambda _: TIRES, scores=lambda: scored("cancel all timers"))
    (final,) = hear(phrase, "only")
    assert isinstance(final, Final)


# ----------------------------------------------------------------------- models that cannot


@pytest.mark.parametrize(
    "recognizer",
    [
        FakeRecognizer(script=saying("Set bed light to 30!", 0.8)),
        ScoringRecognizer(script=saying("Set bed light to 30!", 0.8), older=True),
    ],
)
def test_of_a_model_that_cannot_be_asked_only_text_that_is_a_phrase_counts(
    recognizer: FakeRecognizer,
) -> None:
    final = final_of(recognizer)
    assert final.text == final.open_text == "Set bed light to 30!"
    assert final.match
    assert final.match.slots == {"lamp": "light.bed", "level": 30}
    assert (final.match.score, final.match.margin) == (0.8, 0.0)


def test_a_package_that_is_too_old_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    PhraseMatching(HOUSE, ScoringRecognizer(older=True))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "make it again" in record.getMessage().lower()


def test_microphones_that_hear_the_same_phrases_share_what_asks_the_model() -> None:
    recognizer = ScoringRecognizer()
    one, other = (PhraseMatching(HOUSE, recognizer, mode) for mode in ("prefer", "only"))
    assert one._asking is other._asking is not None
    assert PhraseMatching(HOUSE, ScoringRecognizer())._asking is not one._asking
    key = id(HOUSE), id(recognizer)
    assert key in phrase_matching._asking
    del one, other
    gc.collect()
    assert key not in phrase_matching._asking, "it is kept as long as it is used"


def test_other_text_of_such_a_model_is_no_phrase() -> None:
    assert final_of(FakeRecognizer(script=saying("Pencil all tires."))).match is None
