"""What is said of phrases, and by whom: plain values, and what a scorer needs of a model. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harkd.recognizer.phrase_search import Continuations

Arcs = tuple[int, ...]
Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OpenText:
    """What was recognized without phrases."""

    text: str
    """As the model writes it"""
    written: tuple[int, ...]
    """Its tokens"""
    log_prob: float
    """Of all of them, and of the end where it was reached"""


@dataclass(frozen=True, slots=True)
class ScoredPhrase:
    """A phrase, and how likely it is."""

    arcs: tuple[int, ...]
    """Of the graph, from its start to an end"""
    written: tuple[int, ...]
    """The tokens of the likeliest way to write it"""
    text: str
    """What they say"""
    log_prob: float
    """Of that way, with the end"""
    evidence: float
    """By how much the audio makes it likelier than silence does, as a log-probability. What a model
    says of noise has none, however likely it is"""
    margin: float
    """How much likelier the open text is, as a part of the evidence: 0 or less where it is not
    likelier, infinite where there is no evidence"""

    @property
    def per_token(self) -> float:
        """The mean log-probability of a token."""
        return self.log_prob / (len(self.written) + 1)


@dataclass(frozen=True, slots=True)
class PhraseScores:
    """What a scorer says of a segment."""

    open: OpenText
    """What the phrases are held against"""
    phrases: tuple[ScoredPhrase, ...] = ()
    """The best first; empty where nothing comes near"""
    exact: bool = False
    """Whether the open text is a phrase; nothing else was looked for then"""
    as_a_whole: bool = False
    """Whether whole texts were judged, as CTC does: its log-probabilities differ more"""
    passes: int = 0
    """Calls of the decoder that the search took"""
    rows: int = 0
    """Hypotheses in them"""


class Quiet(Protocol):
    """A model that knows what silence says."""

    def silence(self, tokens: tuple[int, ...]) -> float:
        """Return the log-probability of tokens and the end where nothing is heard."""


class Judge(Quiet, Protocol):
    """A model that has heard a segment, and can tell how likely whole texts are."""

    def log_probs(self, texts: Sequence[tuple[int, ...]]) -> list[float]:
        """Return the log-probability of each."""


class Listener(Quiet, Protocol):
    """A model that has heard a segment, token by token."""

    def continuations(self, paths: int) -> Continuations:
        """Return a decoder for so many hypotheses of what it has heard."""

    def rows(self, tokens: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the log-probabilities at each of some tokens, by themselves, and after them.

        float32, shape (tokens + 1, all tokens).
        """
