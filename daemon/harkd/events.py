"""What happened, as frozen values in the past tense.

Produced by the pipeline, turned into MQTT messages by `harkd.messages`. Nothing here does I/O.
Times: `…_at` is a `datetime` in UTC; `…_ns` is `time.monotonic_ns()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class State(StrEnum):
    """What the daemon is doing, as on the `state` topic."""

    STARTING = "starting"
    LISTENING = "listening"
    SPEECH = "speech"
    MUTED = "muted"
    NO_MICROPHONE = "no_microphone"
    FAILED = "failed"


class RejectReason(StrEnum):
    """Why a segment gave no final, as on the `transcript/rejected` topic."""

    NO_VOICE = "no_voice"
    """The second look heard no voice in it; it was not recognized."""
    NO_SPEECH = "no_speech"
    """The recognizer heard no words."""
    TOO_SHORT = "too_short"
    """Less voiced audio than `vad.min_speech_ms`."""
    LOW_CONFIDENCE = "low_confidence"
    """Confidence below `recognizer.min_confidence`."""
    REPETITION = "repetition"
    """The text is one phrase over and over: a decoder's loop, not speech."""
    TOO_MUCH_TEXT = "too_much_text"
    """More words than the voice in it can have said."""
    PHANTOM = "phantom"
    """A text that the model is known to make of noise, without good evidence for it."""
    OVERLOADED = "overloaded"
    """Recognition is so far behind that the segment could not be queued."""
    FAILED = "failed"
    """The recognizer raised an error; the log has it."""
    NO_PHRASE = "no_phrase"
    """It is none of the phrases, and `phrases.mode` is only."""
    WAKE_WORD = "wake_word"
    """A wake word was said in it, so that only what follows counts."""
    PRIVATE = "private"
    """It was understood, but is no phrase, and `mqtt.open_text` is off."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a final, where the model gives times."""

    word: str
    """The word as written in the text."""
    start_s: float
    """Seconds from the segment's start."""
    end_s: float
    """Seconds from the segment's start."""


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The daemon's state changed."""

    state: State
    """The new state."""
    since: datetime
    """UTC."""
    reason: str = ""
    """Why, in words for a person; empty where the state says it all."""
    audio_device: str = ""
    """Name of the open input; empty while none is open."""
    device_rate_hz: int = 0
    """Rate at which the input is open, in Hz; 0 while none is open."""
    problem: str = ""
    """What is wrong with the microphone, in one word for programs; empty where nothing is."""


@dataclass(frozen=True, slots=True)
class Partial:
    """What has been understood so far of a segment that is still being spoken."""

    id: str
    """ULID of the segment."""
    rev: int
    """Counts up from 1 over the segment's partials and its final."""
    text: str
    """The whole hypothesis so far."""
    confidence: float
    """exp(mean token log-probability), 0…1."""
    started_at: datetime
    """When speech began, UTC."""
    duration_s: float
    """Seconds of speech that the text covers."""
    language: str
    """ISO 639-1 code."""
    model: str
    """Name of the model."""
    stable_chars: int = 0
    """Characters at its start that the segment's previous hypothesis had, too; whole words."""
    audio_end_ns: int = 0
    """Monotonic time of the last sample that the text covers; 0 where that is not known."""


@dataclass(frozen=True, slots=True)
class PhraseMatch:
    """A phrase that explains what was said nearly as well as free text, or better."""

    phrase: str
    """Its words as they are spoken, in lower case, without punctuation."""
    intent: str
    """What it stands for."""
    slots: Mapping[str, str | int | float]
    """Values by name, those that were said and those that the template sets."""
    score: float
    """exp(mean token log-probability) of the phrase, 0…1."""
    margin: float
    """By how much free text is likelier, as a part of the evidence for the phrase; 0 where it is
    the same, below 0 where the phrase is likelier."""


@dataclass(frozen=True, slots=True)
class Final:
    """What was said in a segment. Exactly one of Final and Rejected ends each segment."""

    id: str
    """ULID of the segment."""
    rev: int
    """One more than the last partial's."""
    text: str
    """The whole text."""
    confidence: float
    """exp(mean token log-probability), 0…1."""
    started_at: datetime
    """When speech began, UTC."""
    ended_at: datetime
    """When the last speech sample was captured, UTC."""
    duration_s: float
    """Seconds from started_at to ended_at."""
    speech_end_ns: int
    """Monotonic time of the last speech sample, in nanoseconds: latencies count from here."""
    endpoint_ns: int
    """Monotonic time at which the segment's end was decided."""
    language: str
    """ISO 639-1 code."""
    model: str
    """Name of the model."""
    words: tuple[Word, ...] = ()
    """Times of words, where the model gives them."""
    test: bool = False
    """Whether nobody said it: it was asked for, to try automations."""
    match: PhraseMatch | None = None
    """Which phrase it is; `text` is that phrase as the model writes it."""
    open_text: str = ""
    """With a match, what was heard without phrases."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A segment that gave no final."""

    id: str
    """ULID of the segment."""
    reason: RejectReason
    """Why."""
    started_at: datetime
    """When the segment began, UTC."""
    duration_s: float
    """Seconds from the first to the last speech sample."""


@dataclass(frozen=True, slots=True)
class Woken:
    """A wake word was said."""

    word: str
    """Its name."""
    score: float
    """How sure the detector is, 0…1."""
    at: datetime
    """When the word had been heard, UTC."""


@dataclass(frozen=True, slots=True)
class AwakeChanged:
    """From now on what is said is recognized, or is not, because of a wake word."""

    awake: bool
    """Whether it is."""


Event = StateChanged | Partial | Final | Rejected | Woken | AwakeChanged
