"""Phrases that a beam search should rather hear: an Aho-Corasick automaton over tokens.

In: phrases as token ids, and how much each token of one is worth. Out: for a token in a state, a
score and the next state. What a beginning of a phrase was given is taken back when it does not go
on. The scores are those of sherpa-onnx (context-graph.cc, not strict). Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

DEFAULT_SCORE = 1.5
"""sherpa-onnx's, for each token, as a log-probability."""


@dataclass(eq=False, slots=True)
class Place:
    """A state: so much of a phrase was heard."""

    token_score: float = 0.0
    """For the last of its tokens"""
    score: float = 0.0
    """For all of them"""
    ends: bool = False
    """Whether they are a phrase"""
    said: float = 0.0
    """More than 0 where they end in a phrase: what all that end here are worth"""
    next: dict[int, Place] = field(default_factory=dict)
    """By the token that follows"""
    fail: Place | None = None
    """The longest beginning of a phrase that they end in; None at the root"""
    shorter: Place | None = None
    """The longest phrase that they end in, and are not"""


class Hotwords:
    """Phrases.

    Args:
        phrases: Token ids of each, and its score; that for all if it is 0.
        score: For each token of a phrase that has none of its own.
    """

    def __init__(
        self, phrases: Iterable[tuple[Sequence[int], float]], score: float = DEFAULT_SCORE
    ) -> None:
        self.root = Place()
        for tokens, own in phrases:
            self._add(tokens, own or score)
        self._link()

    def step(self, place: Place, token: int) -> tuple[float, Place]:
        """Return what a token is worth in a state, and the state after it.

        After a phrase it is the root again: a phrase is worth its score once.
        """
        if token in place.next:
            found = place.next[token]
            score = found.token_score
        else:
            found = self._fallen(place, token)
            score = found.score - place.score
        if not found.said:
            return score, found
        phrase = found if found.ends else found.shorter
        worth = phrase.score if phrase else found.score
        return score + worth - found.score, self.root

    def _fallen(self, place: Place, token: int) -> Place:
        """Return where a token leads from the longest beginning that it continues."""
        at: Place | None = place.fail
        while at is not None:
            if token in at.next:
                return at.next[token]
            at = at.fail
        return self.root.next.get(token, self.root)

    def _add(self, tokens: Sequence[int], score: float) -> None:
        at = self.root
        for token in tokens:
            found = at.next.setdefault(token, Place())
            found.token_score = max(found.token_score, score)
            found.score = at.score + found.token_score
            at = found
        if at is not self.root:
            at.ends = True

    def _link(self) -> None:
        waiting = deque(self.root.next.values())
        for place in waiting:
            place.fail = self.root
        while waiting:
            at = waiting.popleft()
            at.said = (at.score if at.ends else 0.0) + (at.shorter.said if at.shorter else 0.0)
            for token, place in at.next.items():
                place.fail = self._fallen(at, token)
                fail = place.fail
                place.shorter = fail if fail.ends else fail.shorter
                waiting.append(place)
