"""Final or rejection: whether a finished segment is worth a transcript. Pure.

docs/accuracy.md says which limits bench/calibrate.py found on recordings, and which were set by
hand.
"""

from __future__ import annotations

from dataclasses import dataclass

from harkd.events import RejectReason
from harkd.recognizer.protocol import Hypothesis

PHANTOMS = frozenset(
    {
        *("you", "thank you", "thank you very much", "thanks", "thank you for watching"),
        *("thanks for watching", "transcript emily beynon", "bye", "bye bye", "so", "and", "but"),
        *("oh", "um", "uh", "hmm", "mm", "mm hmm", "mhm", "yeah", "well", "the", "i'm sorry"),
    }
)
"""What models make of noise, as `spoken` has it: here, and as is known of such models."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is not a setting."""

    min_voice_share: float = 0.03
    """Of a segment's audio, so much is voice at least: half a second in 15 s."""
    most_letters_per_s: float = 36.0
    """Nobody says more letters and digits in a second of voice; music makes hundreds."""
    slack_s: float = 0.1
    """A voice sounds so much longer than is heard of it: counts in short texts."""
    phantom_voice: float = 0.98
    """How strong the voice must be for such a text; said aloud, it mostly is."""
    phantom_confidence: float = 0.5
    """And how sure the recognizer."""
    phantoms: frozenset[str] = PHANTOMS
    """Texts that take more to be believed."""
    music: str = "♪♫"
    """What models that learnt from subtitles write where they hear music; also takes more."""


CALIBRATED = Limits()


@dataclass(frozen=True, slots=True)
class Voice:
    """What the second look heard in a segment's audio."""

    strength: float
    """How likely a voice is where it is likeliest, 0…1."""
    voice_s: float
    """Seconds of voice: the sum of all probabilities."""
    audio_s: float
    """Seconds of audio."""


def too_short(voiced_ms: int, min_speech_ms: int) -> bool:
    """Tell whether a segment has too little voiced audio to be recognized at all."""
    return voiced_ms < min_speech_ms


def has_voice(voice: Voice, min_voice: float, limits: Limits = CALIBRATED) -> bool:
    """Tell whether a segment has enough of a voice to be recognized at all."""
    return voice.strength >= min_voice and voice.voice_s >= limits.min_voice_share * voice.audio_s


def rejection(
    hypothesis: Hypothesis,
    min_confidence: float,
    voice: Voice | None = None,
    limits: Limits = CALIBRATED,
) -> RejectReason | None:
    """Return why a hypothesis is no final, or None where it is one.

    Args:
        hypothesis: Over all of the segment's audio.
        min_confidence: The least confidence of a final.
        voice: What the second look heard; None where there was none.
        limits: What is not a setting.
    """
    letters = sum(character.isalnum() for character in hypothesis.text)
    if not letters:
        return RejectReason.NO_SPEECH
    if hypothesis.looped:
        return RejectReason.REPETITION
    if not hypothesis.confidence >= min_confidence:  # nor is NaN, of a model that overflowed
        return RejectReason.LOW_CONFIDENCE
    if voice is None:
        return None
    if letters > limits.most_letters_per_s * (voice.voice_s + limits.slack_s):
        return RejectReason.TOO_MUCH_TEXT
    sure = hypothesis.confidence >= limits.phantom_confidence
    if not (sure and voice.strength >= limits.phantom_voice) and (
        spoken(hypothesis.text) in limits.phantoms
        or any(note in hypothesis.text for note in limits.music)
    ):
        return RejectReason.PHANTOM
    return None


def spoken(text: str) -> str:
    """Return a text's words in lower case, without punctuation but for apostrophes."""
    kept = (each if each.isalnum() or each == "'" else " " for each in text.lower())
    return " ".join("".join(kept).split())
