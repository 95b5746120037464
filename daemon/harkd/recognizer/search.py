"""What a chunked stream needs of a search, and greedy search over CTC.

In: an encoder's output, chunk by chunk. Out: tokens with their frames and log-probabilities. Runs
on the thread that uses the stream.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(slots=True)
class Found:
    """What a search has found so far."""

    tokens: list[int] = field(default_factory=list)
    """Ids"""
    frames: list[int] = field(default_factory=list)
    """The encoder's frame of each token, from the segment's first"""
    log_probs: list[float] = field(default_factory=list)
    """Of each token"""
    heard: int = 0
    """The encoder's frames so far"""
    passes: int = 0
    """Calls of a graph by the search"""
    rows: int = 0
    """Frames in them"""

    def add(self, token: int, frame: int, log_prob: float) -> None:
        """Add the next token."""
        self.tokens.append(token)
        self.frames.append(frame)
        self.log_probs.append(log_prob)

    def copy(self) -> Found:
        """Return one that goes on by itself."""
        return Found(
            self.tokens.copy(),
            self.frames.copy(),
            self.log_probs.copy(),
            self.heard,
            self.passes,
            self.rows,
        )

    @property
    def quiet(self) -> int:
        """Frames since the last token."""
        return self.heard - 1 - self.frames[-1] if self.frames else self.heard


class Search(Protocol):
    """A search over one segment."""

    @property
    def found(self) -> Found:
        """The best so far."""

    def advance(self, output: Float32) -> None:
        """Go on over an encoder's output: float32, shape (frames, width)."""

    def branch(self) -> Search:
        """Return a search that goes on from here by itself."""


class GreedyCtc:
    """The likeliest token of each frame; again, without a blank between, it is no new one.

    Args:
        blank: The blank's id.
    """

    def __init__(self, blank: int) -> None:
        self._blank = blank
        self._last = blank
        self.found = Found()

    def advance(self, output: Float32) -> None:
        """Go on over logits or log-probabilities: float32, shape (frames, tokens)."""
        for row, token in enumerate(output.argmax(axis=1).tolist()):
            if token not in (self._blank, self._last):
                self.found.add(token, self.found.heard + row, log_prob(output[row], token))
            self._last = token
        self.found.heard += len(output)

    def branch(self) -> GreedyCtc:
        """Return a search that goes on from here by itself."""
        other = GreedyCtc(self._blank)
        other._last = self._last
        other.found = self.found.copy()
        return other


def log_softmax(logits: Float32) -> Float32:
    """Return log-probabilities of logits: float32, shape (rows, tokens)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs: Float32 = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


def log_prob(row: Float32, token: int) -> float:
    """Return the log-probability of the likeliest token from its row of logits: (tokens,)."""
    return -float(np.log(np.exp(row - row[token]).sum()))
