"""A finished segment is worth a transcript, or there is a reason why not."""

from __future__ import annotations

import math

import pytest

from harkd.events import RejectReason
from harkd.recognizer.protocol import Hypothesis
from harkd.verdict import Limits, Voice, has_voice, rejection, too_short


@pytest.mark.parametrize(
    ("voiced_ms", "min_speech_ms", "verdict"),
    [(0, 0, False), (20, 0, False), (119, 120, True), (120, 120, False), (140, 120, False)],
)
def test_speech_below_the_minimum_is_too_short(
    voiced_ms: int, min_speech_ms: int, verdict: bool
) -> None:
    assert too_short(voiced_ms, min_speech_ms) is verdict


@pytest.mark.parametrize("text", ["Yes.", "5", "é", "はい", "- a"])
def test_any_letter_or_digit_of_any_script_is_a_final(text: str) -> None:
    assert rejection(Hypothesis(text, 0.5), 0.0) is None


@pytest.mark.parametrize("text", ["", " ", ".", "… - !", "♪♪", "\ufffd"])
def test_a_text_without_letters_or_digits_is_no_speech(text: str) -> None:
    assert rejection(Hypothesis(text, 1.0), 0.0) is RejectReason.NO_SPEECH


def test_a_loop_is_a_repetition_whatever_its_confidence() -> None:
    assert rejection(Hypothesis("no no no", 1.0, looped=True), 0.0) is RejectReason.REPETITION
    assert rejection(Hypothesis("no no no", 0.1, looped=True), 0.5) is RejectReason.REPETITION


def test_an_empty_loop_is_no_speech() -> None:
    assert rejection(Hypothesis("...", 1.0, looped=True), 0.0) is RejectReason.NO_SPEECH


@pytest.mark.parametrize(
    ("confidence", "minimum", "reason"),
    [
        (0.0, 0.0, None),
        (0.4, 0.4, None),
        (0.39, 0.4, RejectReason.LOW_CONFIDENCE),
        (math.nan, 0.0, RejectReason.LOW_CONFIDENCE),
    ],
)
def test_a_confidence_below_the_minimum_is_rejected(
    confidence: float, minimum: float, reason: RejectReason | None
) -> None:
    assert rejection(Hypothesis("word", confidence), minimum) is reason


# ------------------------------------------------------------------- what the second look tells

CLEAR = Voice(strength=0.99, voice_s=1.5, audio_s=2.0)
FAINT = Voice(strength=0.97, voice_s=1.5, audio_s=2.0)


@pytest.mark.parametrize(
    ("voice", "verdict"),
    [
        (Voice(0.6, 1.0, 2.0), True),
        (Voice(0.59, 1.0, 2.0), False),
        (Voice(0.99, 0.45, 15.0), True),
        (Voice(0.99, 0.44, 15.0), False),
    ],
)
def test_a_voice_must_be_likely_and_not_a_burst_in_long_noise(voice: Voice, verdict: bool) -> None:
    assert has_voice(voice, 0.6) is verdict


@pytest.mark.parametrize(
    ("letters", "voice_s", "reason"),
    [
        (36, 0.9, None),
        (37, 0.9, RejectReason.TOO_MUCH_TEXT),
        (3, 0.0, None),
        (4, 0.0, RejectReason.TOO_MUCH_TEXT),
    ],
)
def test_more_letters_than_a_voice_can_say_are_made_up(
    letters: int, voice_s: float, reason: RejectReason | None
) -> None:
    """Spaces and punctuation are not said."""
    text = " ".join("x" * letters) + ", …!"
    assert rejection(Hypothesis(text, 0.9), 0.3, Voice(0.99, voice_s, 15.0)) is reason


@pytest.mark.parametrize("text", ["You", "Thank you.", "Mm-hmm.", "THANK YOU FOR WATCHING!", "So?"])
def test_what_noise_is_known_to_give_needs_a_clear_voice_and_a_sure_recognizer(text: str) -> None:
    assert rejection(Hypothesis(text, 0.5), 0.3, CLEAR) is None
    assert rejection(Hypothesis(text, 0.49), 0.3, CLEAR) is RejectReason.PHANTOM
    assert rejection(Hypothesis(text, 0.9), 0.3, FAINT) is RejectReason.PHANTOM


@pytest.mark.parametrize("text", ["You and me.", "Thank you, stop.", "Lights so bright.", "Stop."])
def test_other_texts_need_no_more_than_the_settings_say(text: str) -> None:
    assert rejection(Hypothesis(text, 0.3), 0.3, FAINT) is None


@pytest.mark.parametrize("text", ["♪ I'm sorry, I'm sorry ♪", "♫ la la"])
def test_a_text_with_notes_needs_as_much_for_somebody_may_speak_over_music(text: str) -> None:
    assert rejection(Hypothesis(text, 0.9), 0.3, CLEAR) is None
    assert rejection(Hypothesis(text, 0.4), 0.3, CLEAR) is RejectReason.PHANTOM
    assert rejection(Hypothesis(text, 0.9), 0.3, FAINT) is RejectReason.PHANTOM


def test_without_a_second_look_only_the_text_decides() -> None:
    assert rejection(Hypothesis("You", 0.4), 0.3) is None
    assert rejection(Hypothesis("x" * 1000, 0.4), 0.3) is None


def test_limits_may_be_others() -> None:
    """Calibration tries them with this same function."""
    loose = Limits(phantoms=frozenset(), most_letters_per_s=1000.0)
    assert rejection(Hypothesis("You", 0.3), 0.3, FAINT, loose) is None
    assert rejection(Hypothesis("x" * 500, 0.3), 0.3, FAINT, loose) is None
