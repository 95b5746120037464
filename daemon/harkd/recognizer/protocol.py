"""What the pipeline needs of a recognizer, whatever the model's family.

A stream is fed one segment's audio chunk by chunk and asked for its hypothesis now and then. A
family with state (transducer, CTC) does its work in `accept` and answers from its state; a family
with full context (Moonshine) only gathers there, and does its work in `hypothesis`.

A stream is used by one thread at a time; different streams of one recognizer may be used by
different threads at the same time.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harkd.events import Word
from harkd.hotword_list import Hotwords


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What the recognizer takes the audio to say."""

    text: str
    """Without surrounding white space; empty where it heard no words."""
    confidence: float
    """exp(mean token log-probability), 0…1; 0 for no tokens at all."""
    tokens: tuple[int, ...] = ()
    """Token ids, without the marks of begin and end."""
    looped: bool = False
    """True where the decoder ran into a loop and was stopped."""
    words: tuple[Word, ...] = ()
    """Times of words, where the model gives them."""
    log_probs: tuple[float, ...] = field(default=(), compare=False)
    """Of each token, and of the end where it was reached; empty where the model gives none."""


NEVER_UNSURE = -math.inf
"""For a log-probability: any other is above it."""


def as_log_prob(probability: float) -> float:
    """Return a limit of 0…1 as a log-probability; nothing is below that of 0."""
    return math.log(probability) if probability else NEVER_UNSURE


@dataclass(frozen=True, slots=True)
class Effort:
    """What a recognizer may leave out while a segment grows; each part can be switched off."""

    incremental: bool = True
    """Encode only what is new, and what it changes."""
    draft: bool = True
    """Verify the last hypothesis instead of decoding it again."""
    partial_confidence: float = 0.4
    """End a `Stream.hypothesis` before the first new token that is less likely than this, 0…1."""

    @property
    def unsure(self) -> float:
        """The same as a log-probability."""
        return as_log_prob(self.partial_confidence)


EVERYTHING = Effort()
"""All that can be left out is."""


@dataclass(slots=True)
class Work:
    """What a recognizer has computed since it was loaded. What something cost is a difference.

    A stream gathers its own counts while it works and gives them to the recognizer's with `add`,
    so that several threads lose none.
    """

    encoder_passes: int = 0
    """Calls of the encoder."""
    encoded_s: float = 0.0
    """Seconds of audio that went through it; what is encoded again counts again."""
    decoder_passes: int = 0
    """Calls of the decoder."""
    decoder_rows: int = 0
    """Token positions computed in them."""
    tokens: int = 0
    """Tokens in the results."""
    _lock: threading.Lock = field(
        default_factory=threading.Lock, init=False, repr=False, compare=False
    )

    def add(self, more: Work) -> None:
        """Count more work. Any thread."""
        with self._lock:
            self.encoder_passes += more.encoder_passes
            self.encoded_s += more.encoded_s
            self.decoder_passes += more.decoder_passes
            self.decoder_rows += more.decoder_rows
            self.tokens += more.tokens

    def since(self, earlier: Work) -> Work:
        """Return the work that came after `earlier`. Any thread."""
        with self._lock:
            return Work(
                self.encoder_passes - earlier.encoder_passes,
                # To 0.1 µs: else a difference of floats would depend on all that came before.
                round(self.encoded_s - earlier.encoded_s, 7),
                self.decoder_passes - earlier.decoder_passes,
                self.decoder_rows - earlier.decoder_rows,
                self.tokens - earlier.tokens,
            )

    def snapshot(self) -> Work:
        """Return a copy, to be the `earlier` of a later `since`. Any thread."""
        return self.since(Work())


class Stream(Protocol):
    """Recognition of one segment. Used by one thread at a time."""

    def accept(self, samples: NDArray[np.int16]) -> None:
        """Take the next audio: int16, shape (n,), 16 kHz mono, any n."""

    def hypothesis(self) -> Hypothesis:
        """Return the text for the audio so far. Free when nothing came since the last call.

        May be approximate: a family may leave out work here that `prepare` and `finish` do.

        Raises:
            RecognitionError: The model failed on this audio.
        """

    def prepare(self) -> Hypothesis:
        """Return what `finish` would return if no more audio came; audio may still follow.

        Free when nothing came since the last `prepare`.

        Raises:
            RecognitionError: The model failed on this audio.
        """

    def finish(self) -> Hypothesis:
        """Return the final text; no audio may follow.

        Free after a `prepare` of the same audio.

        Raises:
            RecognitionError: The model failed on this audio.
        """

    def restart(self) -> None:
        """Forget all audio: it comes again, with less at its end.

        What was recognized may save work, as a draft; it decides nothing.
        """


class Recognizer(Protocol):
    """A loaded model."""

    name: str
    """The model's name, as in the messages."""
    language: str
    """ISO 639-1 code of its first language."""
    provider: str
    """The execution provider that really runs it: cpu or cuda."""
    max_segment_s: float
    """The longest audio that one stream takes well, in seconds."""
    effort: Effort
    """What it may leave out; may be replaced between two segments."""
    work: Work
    """All that it has computed so far."""

    def stream(self, hotwords: Hotwords = ()) -> Stream:
        """Begin a segment. Any thread, also while other streams are at work.

        Args:
            hotwords: Words that are likelier in it. Without any, nothing is done for them.
        """

    def rest(self) -> None:
        """Give back memory: a segment is done, and no other waits."""
