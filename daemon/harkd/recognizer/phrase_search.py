"""Beam search for the likeliest phrases under a decoder that goes token by token.

In: the automaton of what can be said, and a decoder that continues several hypotheses at once. Out:
the best phrases with their log-probabilities. Runs on the thread that uses the stream.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harkd.recognizer.phrase_tokens import TokenAutomaton

Float32 = NDArray[np.float32]
FIRST_TOKENS = 2


class Continuations(Protocol):
    """A decoder over hypotheses that grow by a token each."""

    most_tokens: int
    """The most tokens of one hypothesis."""

    def begin(self) -> Float32:
        """Return the log-probabilities of the first token: (1, tokens)."""

    def advance(self, parents: list[int], tokens: list[int]) -> Float32:
        """Replace the hypotheses by some of them, each with a token more.

        Args:
            parents: Of each new hypothesis, the number of the one that it continues.
            tokens: What is added to each.

        Returns:
            Log-probabilities of the token after each: (hypotheses, tokens).
        """


@dataclass(frozen=True, slots=True)
class Width:
    """How far a search looks."""

    paths: int = 4
    """Hypotheses at a time, 1 or more"""
    first: int = 16
    """The same for the first `FIRST_TOKENS`, of which a model is least sure"""
    found: int = 3
    """The most phrases that are returned"""
    within: float = 1.5
    """Phrases that are less likely than the best by no more than this, as a log-probability, are
    found too"""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A phrase as the model would write it."""

    tokens: tuple[int, ...]
    """Without the end"""
    log_prob: float
    """Of all tokens and the end"""


@dataclass(slots=True)
class Searched:
    """What a search found, and what it took."""

    sentences: list[Sentence]
    """The best first; several may be one phrase, in other letters"""
    passes: int = 0
    """Calls of the decoder"""
    rows: int = 0
    """Hypotheses in them"""


@dataclass(frozen=True, slots=True)
class Growing:
    """A hypothesis."""

    tokens: tuple[int, ...]
    state: int
    score: float
    silent: bool
    """Whether its last token says nothing: another such may not follow"""


def search(
    automaton: TokenAutomaton,
    decoder: Continuations,
    end: int,
    width: Width,
    least: float = -math.inf,
) -> Searched:
    """Search for the likeliest phrases.

    Args:
        automaton: What can be said.
        decoder: What is heard.
        end: The id of the token that ends a text.
        width: How far to look.
        least: A log-probability; what falls below it is given up.
    """
    result = Searched([])
    growing = [Growing((), automaton.begin(), 0.0, True)]
    log_probs = decoder.begin()
    result.passes, result.rows = 1, 1
    while True:
        for path, row in zip(growing, log_probs, strict=True):
            if path.tokens and automaton.ends(path.state):
                result.sentences.append(Sentence(path.tokens, path.score + float(row[end])))
        result.sentences.sort(key=lambda each: -each.log_prob)
        if result.sentences:
            least = max(least, result.sentences[0].log_prob - width.within)
        most = width.first if result.passes <= FIRST_TOKENS else width.paths
        grown = _grown(automaton, growing, log_probs, most, least)
        if not grown or len(grown[0][1].tokens) >= decoder.most_tokens:
            break
        growing = [path for _, path in grown]
        log_probs = decoder.advance(
            [parent for parent, _ in grown], [path.tokens[-1] for path in growing]
        )
        result.passes += 1
        result.rows += len(growing)
    result.sentences = [each for each in result.sentences if each.log_prob >= least]
    return result


def _grown(
    automaton: TokenAutomaton,
    growing: list[Growing],
    log_probs: Float32,
    most: int,
    least: float,
) -> list[tuple[int, Growing]]:
    """Return the best hypotheses of one token more, each with the number of what it continues."""
    parents, tokens, states, scores = [], [], [], []
    for number, (path, row) in enumerate(zip(growing, log_probs, strict=True)):
        choices = automaton.choices(path.state)
        options = [(choices.tokens, choices.states)]
        if not path.silent:
            quiet = automaton.silent(path.state)
            options.append((quiet, np.full(len(quiet), path.state, np.int64)))
        for ids, to in options:
            parents.append(np.full(len(ids), number, np.int64))
            tokens.append(ids)
            states.append(to)
            scores.append(path.score + row[ids])
    score = np.concatenate(scores)
    order = np.flatnonzero(score >= least)
    if len(order) > most:
        order = order[np.argpartition(-score[order], most - 1)[:most]]
    order = order[np.argsort(-score[order], kind="stable")]
    parent, token, state = map(np.concatenate, (parents, tokens, states))
    found = []
    for at in order.tolist():
        number = int(parent[at])
        path, same = growing[number], int(state[at])
        found.append(
            (
                number,
                Growing(
                    (*path.tokens, int(token[at])),
                    same,
                    float(score[at]),
                    same == path.state,
                ),
            )
        )
    return found
