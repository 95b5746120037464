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

from harkd.recognizer.phrase_letters import PhraseGraph, letters_of
from harkd.recognizer.phrase_search import Continuations, Searched, Width, search
from harkd.recognizer.phrase_tokens import TokenAutomaton, Vocabulary
from harkd.recognizer.protocol import Stream

BEHIND_FOR_EACH = 1.6
BEHIND_MOST = 18.0
"""Nothing is looked for that is less likely than the open text by so much for each of its tokens,
and at most; docs/accuracy.md has what it costs."""

MATCH_MARGIN_MOST = 0.5
MATCH_EVIDENCE_LEAST = 6.0


@dataclass(frozen=True, slots=True)
class Scope:
    """What a scorer looks for."""

    width: Width = field(default_factory=Width)
    """Of the search"""
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
    log_prob: float
    """Of that way, with the end"""
    evidence: float
    """By how much the audio makes it likelier than silence does, as a log-probability. What a model
    says of noise has none, however likely it is"""
    text: str
    """It as the model would write it"""
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


def matched(scores: PhraseScores) -> ScoredPhrase | None:
    """Return the phrase that explains the audio nearly as well as free text, or None."""
    best = scores.phrases[0] if scores.phrases else None
    if best and best.margin <= MATCH_MARGIN_MOST and best.evidence >= MATCH_EVIDENCE_LEAST:
        return best
    return None


class Listener(Protocol):
    """A model that has heard a segment."""

    def continuations(self, paths: int) -> Continuations:
        """Return a decoder for so many hypotheses of what it has heard."""

    def log_prob(self, tokens: tuple[int, ...]) -> float:
        """Return the log-probability of tokens and the end, by themselves."""

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

    def score(self, open_text: OpenText, listener: Listener) -> PhraseScores:
        """Return the best phrases.

        Args:
            open_text: What the listener has recognized openly.
            listener: Who has heard the segment.
        """
        letters = letters_of(open_text.text)
        if letters and (arcs := self.automaton.letters.path(letters)) is not None:
            phrase = self._scored(
                arcs, open_text.written, open_text.log_prob, open_text.log_prob, listener
            )
            return PhraseScores(open_text, (phrase,), exact=True)
        if len(letters) > self._letters_most and not self.scope.exhaustive:
            return PhraseScores(open_text)
        behind = min(BEHIND_FOR_EACH * (len(open_text.written) + 1), BEHIND_MOST)
        width = self.scope.width
        searched = search(
            self.automaton,
            listener.continuations(max(width.paths, width.first)),
            self._end,
            width,
            -math.inf if self.scope.exhaustive else open_text.log_prob - behind,
        )
        phrases = [
            self._scored(arcs, written, listener.log_prob(written), open_text.log_prob, listener)
            for arcs, written in self._by_phrase(searched).items()
        ]
        phrases.sort(key=lambda each: -each.log_prob)
        return PhraseScores(
            open_text,
            tuple(phrases),
            passes=searched.passes + len(phrases),
            rows=searched.rows + sum(len(each.written) + 1 for each in phrases),
        )

    def _by_phrase(self, searched: Searched) -> dict[tuple[int, ...], tuple[int, ...]]:
        """Return the best way to write each of the best phrases."""
        found: dict[tuple[int, ...], tuple[int, ...]] = {}
        for sentence in searched.sentences:  # the best first
            arcs = self.automaton.letters.path(self._vocabulary.letters(sentence.tokens))
            if arcs is not None and len(found) < self.scope.width.found:
                found.setdefault(arcs, sentence.tokens)
        return found

    def _scored(
        self,
        arcs: tuple[int, ...],
        written: tuple[int, ...],
        log_prob: float,
        open_log_prob: float,
        listener: Listener,
    ) -> ScoredPhrase:
        evidence = log_prob - listener.silence(written)
        margin = (open_log_prob - log_prob) / evidence if evidence > 0 else math.inf
        return ScoredPhrase(
            arcs, written, log_prob, evidence, self._vocabulary.text(written), margin
        )
