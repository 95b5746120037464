"""Prefix beam search over CTC, with hotwords.

In: an encoder's output, chunk by chunk. Out: the best hypothesis so far. Hypotheses that write the
same tokens are one (https://arxiv.org/abs/1408.2873). Runs on the thread that uses the stream.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harkd.recognizer.hotwords import Hotwords, Place
from harkd.recognizer.search import Found, log_softmax

PATHS = 8
"""Hypotheses that are kept."""
TOKENS = 10
"""The likeliest tokens of a frame that are looked at."""
CERTAIN = math.log(0.999)
"""A blank that is likelier than this ends the frame."""
NEVER = -math.inf

Float32 = NDArray[np.float32]


@dataclass(slots=True)
class Prefix:
    """A hypothesis."""

    tokens: tuple[int, ...]
    """Ids"""
    place: Place
    """In the hotwords"""
    bonus: float = 0.0
    """What its hotwords are worth"""
    blank: float = NEVER
    """Log-probability of all ways to it that end in a blank"""
    token: float = NEVER
    """… that end in its last token"""
    frames: tuple[int, ...] = ()
    """Of each token"""
    log_probs: tuple[float, ...] = ()
    """Of each token, in its frame"""

    @property
    def total(self) -> float:
        """Log-probability of all ways to it."""
        return added(self.blank, self.token)

    @property
    def score(self) -> float:
        """That and what its hotwords are worth, one that is begun, too."""
        return self.total + self.bonus


class BeamCtc:
    """A search over one segment.

    Args:
        blank: The blank's id.
        hotwords: What is likelier.
    """

    def __init__(self, blank: int, hotwords: Hotwords) -> None:
        self._blank = blank
        self._hotwords = hotwords
        self._prefixes = [Prefix((), hotwords.root, blank=0.0)]
        self.found = Found()

    def advance(self, output: Float32) -> None:
        """Go on over logits or log-probabilities: float32, shape (frames, tokens)."""
        for row in log_softmax(output):
            self._step(row)
            self.found.heard += 1
        # What is begun is not yet heard: its worth does not count.
        best = max(self._prefixes, key=lambda each: each.score - each.place.score)
        self.found.tokens = list(best.tokens)
        self.found.frames = list(best.frames)
        self.found.log_probs = list(best.log_probs)

    def branch(self) -> BeamCtc:
        """Return a search that goes on from here by itself."""
        other = BeamCtc(self._blank, self._hotwords)
        other._prefixes = list(self._prefixes)  # each step makes new ones
        other.found = self.found.copy()
        return other

    def _step(self, row: Float32) -> None:
        """Go on over one frame's log-probabilities: float32, shape (tokens,)."""
        blank = float(row[self._blank])
        tokens: list[int] = []
        if blank < CERTAIN:
            tokens = np.argpartition(-row, min(TOKENS, len(row) - 1))[:TOKENS].tolist()
        after: dict[tuple[int, ...], Prefix] = {}
        for each in self._prefixes:
            same = self._at(after, each.tokens, each)
            same.blank = added(same.blank, each.total + blank)
            for token in tokens:
                if token == self._blank:
                    continue
                log_prob = float(row[token])
                before = each.total
                if each.tokens and token == each.tokens[-1]:
                    same.token = added(same.token, each.token + log_prob)
                    before = each.blank  # said again only after a blank
                if before > NEVER:
                    longer = self._longer(after, each, token, log_prob)
                    longer.token = added(longer.token, before + log_prob)
        self._prefixes = sorted(after.values(), key=lambda each: -each.score)[:PATHS]

    def _at(
        self, after: dict[tuple[int, ...], Prefix], tokens: tuple[int, ...], like: Prefix
    ) -> Prefix:
        if tokens not in after:
            after[tokens] = Prefix(
                tokens, like.place, like.bonus, frames=like.frames, log_probs=like.log_probs
            )
        return after[tokens]

    def _longer(
        self, after: dict[tuple[int, ...], Prefix], each: Prefix, token: int, log_prob: float
    ) -> Prefix:
        tokens = (*each.tokens, token)
        if tokens not in after:
            worth, place = self._hotwords.step(each.place, token)
            frames = (*each.frames, self.found.heard)
            log_probs = (*each.log_probs, log_prob)
            after[tokens] = Prefix(
                tokens, place, each.bonus + worth, frames=frames, log_probs=log_probs
            )
        return after[tokens]


def added(one: float, other: float) -> float:
    """Return the logarithm of the sum of what two logarithms stand for."""
    if one < other:
        one, other = other, one
    return one if other == NEVER else one + math.log1p(math.exp(other - one))
