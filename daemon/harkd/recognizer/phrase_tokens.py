"""A phrase graph as an automaton over a model's own tokens, in any way that they write its words.

In: the texts of all tokens, and a graph. Out: for a state, the tokens that may follow and the
states after them. Made as far as it is walked, and kept. Pure; used by one thread at a time.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harkd.recognizer.phrase_letters import (
    STATES_MOST,
    LetterAutomaton,
    PhraseGraph,
    letters_of,
)

JOINTS = frozenset({"", "'", "’", "-"})
"""Tokens that say nothing, and may stand anywhere, one at a time."""
MARKS = frozenset({".", ",", "!", "?", ":", "...", '"'})
"""The same, but behind whole words only."""
SILENT_MOST = 2
"""Longer tokens of spaces are of the layout of texts."""


class Vocabulary:
    """A model's tokens by their letters.

    Args:
        texts: Of each token by its id, with spaces where words begin; None for one that is no text.
        spelled: Returns the tokens that the model writes a text with; without it, only what a
            search finds is scored.
        end: The id of the token that ends a text.
    """

    def __init__(
        self,
        texts: Sequence[str | None],
        spelled: Callable[[str], Sequence[int]] | None = None,
        end: int = -1,
    ) -> None:
        self.end = end
        """The id of the token that ends a text, where there is one"""
        self._spelled = spelled
        self._texts = texts
        self._ids = {text.strip(): token for token, text in enumerate(texts) if text}
        lettered: list[tuple[str, int]] = []
        joints: list[int] = []
        marks: list[int] = []
        for token, text in enumerate(texts):
            if text is None:
                continue
            letters = letters_of(text)
            if letters:
                lettered.append((letters, token))
            elif text and text.strip() in JOINTS and len(text) <= SILENT_MOST:
                joints.append(token)
            elif text.strip() in MARKS:
                marks.append(token)
        lettered.sort()
        self._by_id = {token: letters for letters, token in lettered}
        self._letters = [letters for letters, _ in lettered]
        self._tokens = np.array([token for _, token in lettered], np.int64)
        self._joints = np.array(joints, np.int64)
        self._silent = np.array(joints + marks, np.int64)

    def silent(self, *, between: bool) -> NDArray[np.int64]:
        """Return the tokens that say nothing: int64, shape (n,).

        Args:
            between: Whether a word may be whole before them.
        """
        return self._silent if between else self._joints

    def letters(self, tokens: Sequence[int]) -> str:
        """Return what tokens write."""
        return "".join(self._by_id.get(token, "") for token in tokens)

    def spelled(self, text: str) -> tuple[int, ...]:
        """Return the tokens that the model writes a text with; none where that is not known."""
        return tuple(self._spelled(text)) if self._spelled else ()

    def token(self, text: str) -> int | None:
        """Return the last token of just this text, but for spaces."""
        return self._ids.get(text)

    def text(self, tokens: Sequence[int]) -> str:
        """Return tokens as text."""
        return "".join(self._texts[token] or "" for token in tokens).strip()

    def all(self) -> tuple[int, int]:
        """Return where the tokens that begin with nothing lie: all of them."""
        return 0, len(self._letters)

    def narrowed(self, within: tuple[int, int], beginning: str) -> tuple[int, int]:
        """Return where those that begin with some letters lie, within those of one letter less."""
        low = bisect.bisect_left(self._letters, beginning, *within)
        return low, bisect.bisect_left(self._letters, beginning + "\U0010ffff", low, within[1])

    def exactly(self, within: tuple[int, int], letters: str) -> NDArray[np.int64]:
        """Return the tokens of just these letters: int64, shape (n,)."""
        return self._tokens[within[0] : bisect.bisect_right(self._letters, letters, *within)]


@dataclass(frozen=True, slots=True)
class Choices:
    """What may follow a state."""

    tokens: NDArray[np.int64]
    """Ids, shape (n,)"""
    states: NDArray[np.int64]
    """The state after each, shape (n,)"""


class TokenAutomaton:
    """The automaton.

    Args:
        graph: The words; must not change.
        vocabulary: The model's tokens.
    """

    START = LetterAutomaton.START

    def __init__(self, graph: PhraseGraph, vocabulary: Vocabulary) -> None:
        self.letters = LetterAutomaton(graph)
        self._vocabulary = vocabulary
        self._choices: dict[int, Choices] = {}

    def begin(self) -> int:
        """Return the first state; those of an earlier search may mean nothing any more."""
        if len(self.letters) > STATES_MOST:
            self.letters.reset()
            self._choices.clear()
        return self.START

    def ends(self, state: int) -> bool:
        """Tell whether a phrase may end here."""
        return self.letters.ends(state)

    def silent(self, state: int) -> NDArray[np.int64]:
        """Return the tokens that may stand here and change nothing: int64, shape (n,)."""
        return self._vocabulary.silent(between=self.letters.between(state))

    def choices(self, state: int) -> Choices:
        """Return the tokens with letters that may follow."""
        found = self._choices.get(state)
        if found is None:
            found = self._choices[state] = self._look(state)
        return found

    def _look(self, state: int) -> Choices:
        tokens: list[NDArray[np.int64]] = []
        states: list[NDArray[np.int64]] = []
        waiting = [(state, "", self._vocabulary.all())]
        while waiting:
            at, written, within = waiting.pop()
            for letter, to in self.letters.next(at).items():
                longer = written + letter
                inside = self._vocabulary.narrowed(within, longer)
                if inside[0] == inside[1]:
                    continue
                exact = self._vocabulary.exactly(inside, longer)
                if len(exact):
                    tokens.append(exact)
                    states.append(np.full(len(exact), to, np.int64))
                waiting.append((to, longer, inside))
        if not tokens:
            return Choices(np.empty(0, np.int64), np.empty(0, np.int64))
        return Choices(np.concatenate(tokens), np.concatenate(states))
