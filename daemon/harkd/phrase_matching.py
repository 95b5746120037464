"""Is what was heard one of the phrases, and which?

In: the phrases in force, and a segment that a stream has recognized. Out: `Matched`. A model that
can score phrases is asked how well each explains the audio; of others, the text alone is looked at.
Any thread; a model is asked by one at a time.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal
from weakref import WeakValueDictionary

from harkd.errors import ModelError
from harkd.events import PhraseMatch, RejectReason
from harkd.phrases.graph import PhraseGraph
from harkd.phrases.loading import PhraseSet
from harkd.phrases.tables import Match
from harkd.recognizer.phrase_scorer import (
    PhraseRecognizer,
    PhraseScorer,
    PhraseStream,
    matched,
)
from harkd.recognizer.protocol import Hypothesis, Recognizer, Stream

log = logging.getLogger(__name__)

Mode = Literal["open", "prefer", "only"]
MENDED = (RejectReason.LOW_CONFIDENCE, RejectReason.PHANTOM)
"""Free text that is not to be believed says nothing against a phrase that has evidence."""


@dataclass(frozen=True, slots=True)
class Matched:
    """A phrase that was said."""

    match: PhraseMatch
    """Which."""
    text: str
    """It as the model writes it."""
    confidence: float
    """exp(mean token log-probability) of that, 0…1."""
    exact: bool
    """Whether free text says the same."""


class PhraseMatching:
    """Finds phrases in what a recognizer hears.

    Args:
        graph: What can be said.
        recognizer: The loaded model.
        mode: `phrases.mode`; with ``open`` make none of these.
    """

    def __init__(self, graph: PhraseGraph, recognizer: Recognizer, mode: Mode = "prefer") -> None:
        self.only = mode == "only"
        """Whether nothing else is to be heard."""
        self._graph = graph
        self._asking = asking_of(graph, recognizer)

    def look(self, stream: Stream, hypothesis: Hypothesis) -> Matched | None:
        """Return the phrase that was said, or None.

        Args:
            stream: What has heard the segment.
            hypothesis: What it made of all of it.

        Raises:
            RecognitionError: The model failed on this audio.
        """
        asking = self._asking
        if asking is None or not isinstance(stream, PhraseStream):
            return self._in_text(hypothesis)
        with asking.lock:
            scores = stream.phrases(asking.scorer)
        if (best := matched(scores)) is None:
            return None
        meant = self._graph.interpret(best.arcs)
        score = math.exp(best.per_token)
        match = phrase_match(meant, score, best.margin)
        if scores.exact:
            return Matched(match, hypothesis.text, hypothesis.confidence, exact=True)
        return Matched(match, best.text, score, exact=False)

    def judge(
        self, reason: RejectReason | None, look: Callable[[], Matched | None]
    ) -> tuple[RejectReason | None, Matched | None]:
        """Return why a segment gives no final, or None, and the phrase that was said, if one was.

        Args:
            reason: Why its free text is none.
            look: Looks for phrases; asked only where they count.
        """
        found = look() if reason in (None, *MENDED) else None
        if found:
            return None, found
        return RejectReason.NO_PHRASE if reason is None and self.only else reason, None

    def _in_text(self, hypothesis: Hypothesis) -> Matched | None:
        if (meant := self._graph.match(hypothesis.text)) is None:
            return None
        match = phrase_match(meant, hypothesis.confidence, 0.0)
        return Matched(match, hypothesis.text, hypothesis.confidence, exact=True)


def matching_for(
    known: PhraseSet | None, mode: Mode, recognizer: Recognizer
) -> PhraseMatching | None:
    """Return what finds the phrases that are known; None where none are looked for.

    Takes up to a second.
    """
    if known is None or mode == "open":
        return None
    return PhraseMatching(known.graph, recognizer, mode)


def phrase_match(meant: Match, score: float, margin: float) -> PhraseMatch:
    """Return a match as finals carry it."""
    return PhraseMatch(meant.phrase, meant.intent, dict(meant.slots), score, margin)


@dataclass(eq=False)
class Asking:
    """What asks a model for phrases, for all microphones that hear the same ones."""

    scorer: PhraseScorer
    """Its automaton grows while it is walked."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """So one walks at a time."""


_making = threading.Lock()
_asking: WeakValueDictionary[tuple[int, int], Asking] = WeakValueDictionary()


def asking_of(graph: PhraseGraph, recognizer: Recognizer) -> Asking | None:
    """Return what asks the model, ready for the first segment; None where it cannot be asked."""
    with _making:
        key = id(graph), id(recognizer)  # what is kept here holds the graph
        if kept := _asking.get(key):
            return kept
        if scorer := scorer_for(graph, recognizer):
            made = _asking[key] = Asking(scorer)
            return made
    return None


def scorer_for(graph: PhraseGraph, recognizer: Recognizer) -> PhraseScorer | None:
    """Return a scorer; None where the model cannot be asked."""
    if not isinstance(recognizer, PhraseRecognizer):
        log.info(
            "%s cannot be asked how well phrases fit: only text that is a phrase is one",
            recognizer.name,
        )
        return None
    try:
        vocabulary = recognizer.vocabulary()
    except ModelError as error:
        log.warning("only text that is a phrase is one: %s", error)
        return None
    scorer = PhraseScorer(graph, vocabulary)
    scorer.automaton.choices(scorer.automaton.begin())  # takes up to a second
    return scorer
