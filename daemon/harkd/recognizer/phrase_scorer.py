"""Which of the phrases that can be said explains a segment best, and how well next to open text.

In: a graph of phrases, and what a stream has recognized openly. Out: the best phrases and the open
text's log-probability, of the same model for the same audio. Open text that is itself a phrase
costs no search, nor does one that is far too long; for other text the search gives up as soon as
all phrases are much less likely. Runs on the thread that uses the stream; one scorer is used by one
thread at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from harkd.recognizer.phrase_candidates import FOR_EACH_STEP, Scores, best_of, candidates_of
from harkd.recognizer.phrase_letters import PhraseGraph, letters_of
from harkd.recognizer.phrase_nearest import (
    NearestPhrases,
    distance_of,
    far_from_nothing,
    sounds_of,
)
from harkd.recognizer.phrase_search import Continuations, Searched, Width, search
from harkd.recognizer.phrase_tokens import TokenAutomaton, Vocabulary
from harkd.recognizer.protocol import Stream

BEHIND_FOR_EACH = 1.6
BEHIND_MOST = 18.0
"""Nothing is looked for that is less likely than the open text by so much for each of its tokens,
and at most; docs/accuracy.md has what it costs."""
NEAR_ENOUGH = 0.5
"""Phrases that are farther from the open text than this part of what leaving it out costs are not
scored before the search."""
PRIOR_PART = 0.5
"""How much of a phrase's log-probability in silence is taken off where phrases are compared."""
MATCH_MARGIN_MOST = 0.6
MATCH_EVIDENCE_LEAST = 6.0
"""What a phrase must reach to be a match; docs/accuracy.md has how these were chosen."""

Arcs = tuple[int, ...]
Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scope:
    """What a scorer looks for."""

    width: Width = field(default_factory=Width)
    """Of the search"""
    near: int = 12
    """The most phrases near to the open text that are scored before the search; 0 for none"""
    sure: float = 0.1
    """One of them that has this margin or less ends it: nothing else is searched for"""
    exhaustive: bool = False
    """Whether to go on until the best phrase is found, however unlikely; for measurements"""


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
    passes: int = 0
    """Calls of the decoder that the search took"""
    rows: int = 0
    """Hypotheses in them"""


class Listener(Protocol):
    """A model that has heard a segment."""

    def continuations(self, paths: int) -> Continuations:
        """Return a decoder for so many hypotheses of what it has heard."""

    def rows(self, tokens: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the log-probabilities at each of some tokens, by themselves, and after them.

        float32, shape (tokens + 1, all tokens).
        """

    def silence(self, tokens: tuple[int, ...]) -> float:
        """Return the same where nothing is heard."""


@runtime_checkable
class PhraseStream(Stream, Protocol):
    """Recognition of a segment that can be held against phrases."""

    def phrases(self, scorer: PhraseScorer) -> PhraseScores:
        """Return which phrases explain the audio so far; before or after `finish`.

        Raises:
            RecognitionError: The model failed on this audio.
        """


@runtime_checkable
class PhraseRecognizer(Protocol):
    """A loaded model of a family that can score phrases."""

    def vocabulary(self) -> Vocabulary:
        """Return the tokens by their letters. Raises ModelError where this package cannot."""


class PhraseScorer:
    """Scores the phrases of a graph under one model.

    Args:
        graph: The phrases; must not change.
        vocabulary: The model's tokens.
        end: The id of the token that ends a text.
        scope: What to look for.
    """

    def __init__(
        self, graph: PhraseGraph, vocabulary: Vocabulary, end: int, scope: Scope | None = None
    ) -> None:
        self.automaton = TokenAutomaton(graph, vocabulary)
        self.scope = scope or Scope()
        self._vocabulary = vocabulary
        self._end = end
        self._letters_most = self.automaton.letters.longest()
        self._nearest = NearestPhrases(graph)

    def score(self, open_text: OpenText, listener: Listener) -> PhraseScores:
        """Return the best phrases.

        Args:
            open_text: What the listener has recognized openly.
            listener: Who has heard the segment.
        """
        letters = letters_of(open_text.text)
        if letters and (arcs := self.automaton.letters.path(letters)) is not None:
            phrase = self._phrase(arcs, open_text.written, open_text.log_prob, open_text, listener)
            return PhraseScores(open_text, (phrase,), exact=True)
        if len(letters) > self._letters_most and not self.scope.exhaustive:
            return PhraseScores(open_text)
        behind = min(BEHIND_FOR_EACH * (len(open_text.written) + 1), BEHIND_MOST)
        least = -math.inf if self.scope.exhaustive else open_text.log_prob - behind
        tried = self._tried(open_text, listener, least)
        passes, rows = tried.passes, tried.rows
        scored: dict[Arcs, tuple[float, Tokens]] = {}
        for each, log_prob in tried.log_probs.items():  # the best first
            scored.setdefault(each.arcs, (log_prob, each.written))
        if not self._sure(scored, open_text, listener):
            if scored and not self.scope.exhaustive:
                least = max(least, max(scored.values())[0] - self.scope.width.within)
            searched = self._searched(listener, least)
            passes, rows = passes + searched.passes, rows + searched.rows
            for arcs, written in self._by_phrase(searched).items():
                if all(written != tokens for _, tokens in scored.values()):
                    log_prob = log_prob_of(listener, written, self._end)
                    scored[arcs] = max((log_prob, written), scored.get(arcs, (-math.inf, ())))
                    passes, rows = passes + 1, rows + len(written) + 1
        phrases = self._best(scored, open_text, listener)
        return PhraseScores(open_text, phrases, passes=passes, rows=rows)

    def _tried(self, open_text: OpenText, listener: Listener, least: float) -> Scores:
        """Score the phrases that are nearest to the open text."""
        letters = sounds_of(open_text.text)
        near = self._nearest.nearest(letters, self.scope.near) if self.scope.near else []
        most = NEAR_ENOUGH * far_from_nothing(letters)
        candidates = candidates_of(
            [each for each in near if each.distance <= most], open_text.text, self._vocabulary
        )
        within = self.scope.width.within
        return best_of(candidates, listener.rows, self._end, least, within)

    def _sure(
        self, scored: dict[Arcs, tuple[float, Tokens]], open_text: OpenText, listener: Listener
    ) -> bool:
        """Tell whether one is as likely as the open text, or nearly so."""
        if not scored or self.scope.exhaustive:
            return False
        log_prob, written = max(scored.values())
        return self._phrase((), written, log_prob, open_text, listener).margin <= self.scope.sure

    def _searched(self, listener: Listener, least: float) -> Searched:
        width = self.scope.width
        decoder = listener.continuations(max(width.paths, width.first))
        return search(self.automaton, decoder, self._end, width, least)

    def _by_phrase(self, searched: Searched) -> dict[Arcs, Tokens]:
        """Return the best way to write each of the best phrases."""
        found: dict[Arcs, Tokens] = {}
        for sentence in searched.sentences:  # the best first
            arcs = self.automaton.letters.path(self._vocabulary.letters(sentence.tokens))
            if arcs is not None and len(found) < self.scope.width.found:
                found.setdefault(arcs, sentence.tokens)
        return found

    def _best(
        self, scored: dict[Arcs, tuple[float, Tokens]], open_text: OpenText, listener: Listener
    ) -> tuple[ScoredPhrase, ...]:
        """Return the likeliest, in the order in which they explain what was heard.

        A short phrase is likely whatever is heard, so part of what silence says is taken off; and
        of two that are as likely, the one that is nearer to the open text is the better.
        """
        ordered = sorted(scored.items(), key=lambda pair: -pair[1][0])
        if not self.scope.exhaustive:
            least = ordered[0][1][0] - self.scope.width.within if ordered else 0.0
            ordered = [pair for pair in ordered if pair[1][0] >= least][: self.scope.width.found]
        found = [
            self._phrase(arcs, written, log_prob, open_text, listener)
            for arcs, (log_prob, written) in ordered
        ]
        heard = sounds_of(open_text.text)
        if len(found) > 1 and not self.scope.exhaustive:
            found.sort(
                key=lambda each: (
                    (PRIOR_PART - 1) * each.log_prob
                    - PRIOR_PART * each.evidence
                    + FOR_EACH_STEP * distance_of(sounds_of(each.text), heard)
                )
            )
        return tuple(found)

    def _phrase(
        self,
        arcs: Arcs,
        written: Tokens,
        log_prob: float,
        open_text: OpenText,
        listener: Listener,
    ) -> ScoredPhrase:
        evidence = log_prob - listener.silence(written)
        margin = (open_text.log_prob - log_prob) / evidence if evidence > 0 else math.inf
        text = self._vocabulary.text(written)
        return ScoredPhrase(arcs, written, text, log_prob, evidence, margin)


def log_prob_of(listener: Listener, tokens: Tokens, end: int) -> float:
    """Return the log-probability of tokens and the end, by themselves."""
    rows = listener.rows(tokens)
    return float(rows[range(len(tokens) + 1), [*tokens, end]].sum())


def matched(scores: PhraseScores) -> ScoredPhrase | None:
    """Return the phrase that a segment is; None where it is none, or too little tells so."""
    for best in scores.phrases[:1]:
        if best.margin <= MATCH_MARGIN_MOST and best.evidence >= MATCH_EVIDENCE_LEAST:
            return best
    return None
