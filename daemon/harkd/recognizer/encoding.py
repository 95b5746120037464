"""What a decoder with attention needs of the encoder's state, however its audio is encoded.

In: audio in pieces of any length. Out: the decoder's keys and values. Runs on the thread that uses
the stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an encoding has led to."""

    passes: int
    """Calls of the encoder"""
    encoded_s: float
    """Seconds of audio that went through it"""
    heard: int
    """Where it is as it was at the last hypothesis, a partial would hear nothing more"""
    anew: bool = False
    """Whether all of the audio was encoded, so that nothing is as it was"""


class Encoding(Protocol):
    """The encoder's state of one segment."""

    @property
    def samples(self) -> int:
        """Samples taken so far."""

    @property
    def frames(self) -> int:
        """So many frames `cross` has now."""

    def accept(self, audio: Float32) -> None:
        """Take the next audio: float32, shape (n,), 16 kHz mono, -1…1."""

    def encode(self, *, exact: bool, incremental: bool) -> Encoded:
        """Encode what has come.

        Args:
            exact: For a final, as if the audio ended here; else for a partial.
            incremental: Whether a partial may leave as it is what was encoded before.
        """

    def listen_again(self) -> Encoded | None:
        """Encode everything once more for a final, in another way; None where there is none."""

    def listen_on(self) -> None:
        """Go back to what `encode` has led to."""

    def cross(self) -> list[NDArray[Any]]:
        """Return the decoder's keys and values, in turn: each (1, heads, frames, head)."""
