"""Final or rejection: whether a finished segment is worth a transcript. Pure."""

from __future__ import annotations

from harkd.events import RejectReason
from harkd.recognizer.protocol import Hypothesis


def too_short(voiced_ms: int, min_speech_ms: int) -> bool:
    """Tell whether a segment has too little voiced audio to be recognized at all."""
    return voiced_ms < min_speech_ms


def rejection(hypothesis: Hypothesis, min_confidence: float) -> RejectReason | None:
    """Return why a hypothesis is no final, or None where it is one."""
    if not any(character.isalnum() for character in hypothesis.text):
        return RejectReason.NO_SPEECH
    if hypothesis.looped:
        return RejectReason.REPETITION
    if not hypothesis.confidence >= min_confidence:  # nor is NaN, of a model that overflowed
        return RejectReason.LOW_CONFIDENCE
    return None
