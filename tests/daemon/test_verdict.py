"""A finished segment is worth a transcript, or there is a reason why not."""

from __future__ import annotations

import math

import pytest

from harkd.events import RejectReason
from harkd.recognizer.protocol import Hypothesis
from harkd.verdict import rejection, too_short


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
