"""What the pipeline needs of a recognizer, whatever the model's family.

A stream is fed one segment's audio chunk by chunk and asked for its hypothesis now and then. A
family with state (transducer, CTC) does its work in `accept` and answers from its state; a family
with full context (Moonshine) only gathers there, and does its work in `hypothesis`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harkd.events import Word


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


class Stream(Protocol):
    """Recognition of one segment. Used by one thread at a time."""

    def accept(self, samples: NDArray[np.int16]) -> None:
        """Take the next audio: int16, shape (n,), 16 kHz mono, any n."""

    def hypothesis(self) -> Hypothesis:
        """Return the best text for all audio so far. Free when nothing came since the last call.

        Raises:
            RecognitionError: The model failed on this audio.
        """

    def finish(self) -> Hypothesis:
        """Return the final text; no audio may follow.

        Costs nothing after a `hypothesis` of the same audio in a family with full context, and
        one padded chunk in a family with state.

        Raises:
            RecognitionError: The model failed on this audio.
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

    def stream(self) -> Stream:
        """Begin a segment."""

    def rest(self) -> None:
        """Give back memory: a segment is done, and no other waits."""
