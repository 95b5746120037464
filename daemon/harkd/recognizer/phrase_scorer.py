"""Which of the phrases that can be said explains a segment best, and how well next to open text.

In: a graph of phrases, and what a stream has recognized openly. Out: the best phrases and the open
text's log-probability, of the same model for the same audio. Open text that is itself a phrase
costs no search, nor does one that is far too long; for other text the search gives up as soon as
all phrases are much less likely. Runs on the thread that uses the stream; one scorer is used by one
thread at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from harkd.recognizer.phrase_candidates import (
    FOR_EACH_STEP,
    Candidate,
    Scores,
    best_of,
    candidates_of,
)
from harkd.recognizer.phrase_letters import PhraseGraph, letters_of
from harkd.recognizer.phrase_nearest import (
    NearestPhrases,
    distance_of,
    far_from_nothing,
    sounds_of,
)
from harkd.recognizer.phrase_scores import (
    Arcs,
    Judge,
    Listener,
    OpenText,
    PhraseScores,
    Quiet,
    ScoredPhrase,
    Tokens,
)
from harkd.recognizer.phrase_search import Searched, Width, search
from harkd.recognizer.phrase_tokens import TokenAutomaton, Vocabulary
from harkd.recognizer.protocol import Stream

__all__ = [
    "MATCH_EVIDENCE_LEAST",
    "MATCH_MARGIN_MOST",
    "MATCH_MARGIN_MOST_CTC",
    "OpenText",
    "PhraseRecognizer",
    "PhraseScorer",
    "PhraseScores",
    "PhraseStream",
    "Scope",
    "ScoredPhrase",
    "matched",
]

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
MATCH_MARGIN_MOST_CTC = 0.2
MATCH_EVIDENCE_LEAST = 6.0
"""What a phrase must reach to be a match; docs/accuracy.md has how these were chosen."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a scorer looks for."""

    width: Width = field(default_factory=Width)
    """Of the search"""
    near: int = 12
    """The most phrases near to the open text that are scored before the search; 0 for none"""
    sure: float = 0.1
    """One of them that has this margin or less ends it: nothing else is searched for"""
    clear: float = 0.75
    """Open text of this mean probability of a token or more, exp(mean log-probability), is not
    searched behind: it is a phrase, sounds like one, or is none"""
    exhaustive: bool = False
    """Whether to go on until the best phrase is found, however unlikely; for measurements"""


class _Nothing:
    """Silence of which nothing is known: it says nothing at all."""

    def silence(self, tokens: tuple[int, ...]) -> float:  # noqa: ARG002
        """Return that nothing can be said."""
        return -math.inf


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
        end: The id of the token that ends a text; the vocabulary's if omitted.
        scope: What to look for.
    """

    def __init__(
        self,
        graph: PhraseGraph,
        vocabulary: Vocabulary,
        end: int | None = None,
        scope: Scope | None = None,
    ) -> None:
        self.automaton = TokenAutomaton(graph, vocabulary)
        self.scope = scope or Scope()
        self._vocabulary = vocabulary
        self._end = vocabulary.end if end is None else end
        self._letters_most = self.automaton.letters.longest()
        self._nearest = NearestPhrases(graph)

    def score(self, open_text: OpenText, listener: Listener) -> PhraseScores:
        """Return the best phrases.

        Args:
            open_text: What the listener has recognized openly.
            listener: Who has heard the segment.
        """
        exact = self.exact(open_text, listener)
        if exact.phrases:
            return exact
        if self._too_long(open_text):
            return PhraseScores(open_text)
        behind = min(BEHIND_FOR_EACH * (len(open_text.written) + 1), BEHIND_MOST)
        least = -math.inf if self.scope.exhaustive else open_text.log_prob - behind
        tried = self._tried(open_text, listener, least)
        passes, rows = tried.passes, tried.rows
        scored: dict[Arcs, tuple[float, Tokens]] = {}
        for each, log_prob in tried.log_probs.items():  # the best first
            scored.setdefault(each.arcs, (log_prob, each.written))
        if not (self._clear(open_text) or self._sure(scored, open_text, listener)):
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

    def exact(self, open_text: OpenText, quiet: Quiet | None = None) -> PhraseScores:
        """Return the phrase that an open text is.

        Args:
            open_text: What was recognized openly.
            quiet: Who knows what silence says; without, the evidence is infinite.
        """
        letters = letters_of(open_text.text)
        arcs = self.automaton.letters.path(letters) if letters else None
        if arcs is None:
            return PhraseScores(open_text)
        phrase = self._phrase(
            arcs, open_text.written, open_text.log_prob, open_text, quiet or _Nothing()
        )
        return PhraseScores(open_text, (replace(phrase, text=open_text.text.strip()),), exact=True)

    def judged(self, open_text: OpenText, judge: Judge) -> PhraseScores:
        """Return the best of the phrases that are near to an open text, without a search.

        Args:
            open_text: What was recognized openly; its log-probability is asked for anew.
            judge: Who has heard the segment.
        """
        if not open_text.written or self._too_long(open_text):
            return PhraseScores(open_text)
        (log_prob,) = judge.log_probs([open_text.written])
        open_text = replace(open_text, log_prob=log_prob)
        exact = self.exact(open_text, judge)
        candidates = [] if exact.phrases else self._candidates(open_text)
        if not candidates:
            return exact
        scored: dict[Arcs, tuple[float, Tokens]] = {}
        log_probs = judge.log_probs([each.written for each in candidates])
        for each, found in zip(candidates, log_probs, strict=True):
            scored[each.arcs] = max((found, each.written), scored.get(each.arcs, (-math.inf, ())))
        return PhraseScores(open_text, self._best(scored, open_text, judge), as_a_whole=True)

    def _too_long(self, open_text: OpenText) -> bool:
        letters = letters_of(open_text.text)
        return len(letters) > self._letters_most and not self.scope.exhaustive

    def _tried(self, open_text: OpenText, listener: Listener, least: float) -> Scores:
        """Score the phrases that are nearest to the open text."""
        candidates = self._candidates(open_text)
        within = self.scope.width.within
        return best_of(candidates, listener.rows, self._end, least, within)

    def _candidates(self, open_text: OpenText) -> list[Candidate]:
        """Return the ways to write the phrases that are nearest to the open text."""
        letters = sounds_of(open_text.text)
        near = self._nearest.nearest(letters, self.scope.near) if self.scope.near else []
        most = NEAR_ENOUGH * far_from_nothing(letters)
        near = [each for each in near if each.distance <= most]
        return candidates_of(near, open_text.text, self._vocabulary)

    def _clear(self, open_text: OpenText) -> bool:
        """Tell whether the open text is so likely that no phrase unlike it was said."""
        if self.scope.exhaustive:
            return False
        return open_text.log_prob >= math.log(self.scope.clear) * (len(open_text.written) + 1)

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
        self, scored: dict[Arcs, tuple[float, Tokens]], open_text: OpenText, quiet: Quiet
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
            self._phrase(arcs, written, log_prob, open_text, quiet)
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
        quiet: Quiet,
    ) -> ScoredPhrase:
        evidence = log_prob - quiet.silence(written)
        margin = (open_text.log_prob - log_prob) / evidence if evidence > 0 else math.inf
        text = self._vocabulary.text(written)
        return ScoredPhrase(arcs, written, text, log_prob, evidence, margin)


def log_prob_of(listener: Listener, tokens: Tokens, end: int) -> float:
    """Return the log-probability of tokens and the end, by themselves."""
    rows = listener.rows(tokens)
    return float(rows[range(len(tokens) + 1), [*tokens, end]].sum())


def matched(scores: PhraseScores) -> ScoredPhrase | None:
    """Return the phrase that a segment is; None where it is none, or too little tells so."""
    most = MATCH_MARGIN_MOST_CTC if scores.as_a_whole else MATCH_MARGIN_MOST
    for best in scores.phrases[:1]:
        if best.margin <= most and best.evidence >= MATCH_EVIDENCE_LEAST:
            return best
    return None
