"""The letters of a phrase graph: what a model may write for its words, whatever its style.

In: a graph of words. Out: an automaton over letters and digits, made as far as it is walked. Case,
punctuation, accents and spaces say nothing, so "Turn on the kitchen light." is "turn on the kitchen
light", and "what's" is "whats"; a run of number words may be written in digits ("5 minutes"), and
the other way round. Pure; used by one thread at a time.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Protocol

from harkd.recognizer.phrase_numbers import NUMBER_WORDS, number_of, words_of

SPOKEN = {"%": "percent", "&": "and", "°": "degrees", "+": "plus"}
"""What a sign is read as."""
NUMBER_WORDS_MOST = 8
"""The most words of one number; "nine hundred and ninety nine thousand …" has more."""
LOOKED_THROUGH_MOST = 20_000
"""Nodes that are looked at for the longest phrase: a second."""
LETTERS_MOST = 10_000
"""More than any phrase has."""
STATES_MOST = 50_000
"""States that are kept; then those of this search are made anew."""


class Arc(Protocol):
    """A step of the graph."""

    @property
    def ident(self) -> int:
        """Unique in the graph."""

    @property
    def word(self) -> str:
        """One spoken word in lower case; empty for a step without one."""

    @property
    def to(self) -> int:
        """The node that it leads to."""


class PhraseGraph(Protocol):
    """What can be said; acyclic."""

    @property
    def start(self) -> int:
        """The first node."""

    def arcs(self, node: int, /) -> Sequence[Arc]:
        """Return the steps from a node, those to be preferred first."""

    def ends(self, node: int, /) -> bool:
        """Tell whether a phrase may end here."""


@functools.lru_cache(maxsize=100_000)
def letters_of(text: str) -> str:
    """Return the letters and digits of a text, in one case and without accents."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return "".join(SPOKEN.get(each, each) for each in plain if each.isalnum() or each in SPOKEN)


Entry = tuple[str, int, tuple[int, ...]]
"""Letters, the node after them, and the arcs on the way."""
Items = frozenset[tuple[str, int]]
"""Letters that are to come, 1 or more, and the node after them: each a way to go on."""
State = tuple[Items, bool, bool]
"""How it goes on; whether a phrase may end here, and whether a word may."""


class LetterAutomaton:
    """A deterministic automaton over letters.

    Args:
        graph: The words; must not change.
    """

    START = 0

    def __init__(self, graph: PhraseGraph) -> None:
        self._graph = graph
        self._entries: dict[int, tuple[Entry, ...]] = {}
        self._ends: dict[int, bool] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all states but the first: numbers of others mean nothing any more."""
        self._numbers: dict[State, int] = {}
        self._states: list[State] = []
        self._next: list[dict[str, int] | None] = []
        self._number(self._closed({("", self._graph.start)}))

    def __len__(self) -> int:
        return len(self._states)

    def ends(self, state: int) -> bool:
        """Tell whether a phrase may end here."""
        return self._states[state][1]

    def between(self, state: int) -> bool:
        """Tell whether a word may be whole here."""
        return self._states[state][2]

    def next(self, state: int) -> dict[str, int]:
        """Return the states that follow, by letter."""
        found = self._next[state]
        if found is None:
            groups: dict[str, set[tuple[str, int]]] = {}
            for rest, node in self._states[state][0]:
                groups.setdefault(rest[0], set()).add((rest[1:], node))
            found = {each: self._number(self._closed(group)) for each, group in groups.items()}
            self._next[state] = found
        return found

    def path(self, letters: str) -> tuple[int, ...] | None:
        """Return the arcs of the first phrase of these letters, or None if there is none."""
        failed: set[tuple[int, int]] = set()

        def go_on(node: int, at: int) -> tuple[int, ...] | None:
            if at == len(letters) and self._graph.ends(node):
                return ()
            if (node, at) in failed:
                return None
            for entry, to, idents in self.entries(node):
                if letters.startswith(entry, at):
                    rest = go_on(to, at + len(entry))
                    if rest is not None:
                        return (*idents, *rest)
            failed.add((node, at))
            return None

        return go_on(self._graph.start, 0)

    def longest(self) -> int:
        """Return the letters of the longest phrase; for a very large graph, more."""
        known: dict[int, int] = {}
        waiting = [self._graph.start]
        while waiting:
            node = waiting[-1]
            arcs = self._graph.arcs(node)
            unknown = [arc.to for arc in arcs if arc.to not in known]
            if unknown:
                waiting += unknown
                if len(known) > LOOKED_THROUGH_MOST:
                    return LETTERS_MOST
                continue
            known[node] = max(
                (len(letters_of(arc.word)) + known[arc.to] for arc in arcs), default=0
            )
            waiting.pop()
        return known[self._graph.start]

    def entries(self, node: int) -> tuple[Entry, ...]:
        """Return what may be written next at a node, with at least a letter, but for empty arcs."""
        found = self._entries.get(node)
        if found is None:
            made: list[Entry] = []
            for arc in self._graph.arcs(node):
                letters = letters_of(arc.word)
                made.append((letters, arc.to, (arc.ident,)))
                if letters.isdecimal():
                    spelled = (letters_of(each) for each in words_of(int(letters)))
                    made += [(each, arc.to, (arc.ident,)) for each in spelled]
            made += self._in_digits(node)
            found = self._entries[node] = tuple(made)
        return found

    def _in_digits(self, node: int) -> Iterator[Entry]:
        """Return the numbers that number words from here on make, in digits."""
        waiting: list[tuple[int, tuple[int, ...], tuple[str, ...]]] = [(node, (), ())]
        while waiting:
            at, idents, words = waiting.pop()
            value = number_of(words)
            if value is not None:
                yield str(value), at, idents
            if len(words) >= NUMBER_WORDS_MOST:
                continue
            for arc in self._graph.arcs(at):
                said = arc.word.replace("-", " ").split()
                if all(each in NUMBER_WORDS for each in said) and (said or words):
                    waiting.append((arc.to, (*idents, arc.ident), (*words, *said)))

    def _closed(self, items: set[tuple[str, int]]) -> State:
        """Go on to what can be written next wherever all letters are written."""
        closed, ends, seen = set(), False, set()
        waiting = list(items)
        while waiting:
            rest, node = waiting.pop()
            if rest:
                closed.add((rest, node))
            elif node not in seen:
                seen.add(node)
                ends = ends or self._graph.ends(node)
                waiting += [(letters, to) for letters, to, _ in self.entries(node)]
        return frozenset(closed), ends, bool(seen)

    def _number(self, state: State) -> int:
        number = self._numbers.get(state)
        if number is None:
            number = self._numbers[state] = len(self._states)
            self._states.append(state)
            self._next.append(None)
        return number
