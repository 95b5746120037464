"""The phrases of a graph that are nearest to a text, by what their letters sound like.

In: a graph of words, and the letters of a text. Out: the nearest phrases, by a weighted edit
distance in which letters of like sound are near. The graph is laid out once, with a state for each
letter that may come; how far each state is from an end, for each part of the text, then takes a few
hundred operations on arrays, and no phrase is written out. As these distances are exact, as many
beginnings as phrases are wanted need to be followed. Pure; any thread.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harkd.recognizer.phrase_letters import PhraseGraph, letters_of
from harkd.recognizer.phrase_numbers import NUMBER_WORDS, words_of

VOWELS = "aeiou"
ALIKE = ("bpfv", "ckgqxsjz", "dt", "mn", "lr", "wuovy", "iyj", "th")
"""Consonants that are written for each other when a word is misheard."""
VOWEL, NEAR, FAR, ACROSS = 2, 2, 4, 5
"""To write one letter for another: vowels, those of `ALIKE`, other consonants, a vowel for a
consonant."""
LEFT_OUT = {"h": 1, **dict.fromkeys("aeiouywy", 2)}
LEFT_OUT_ELSE = 3
"""To leave a letter out, or to put one in."""
NEVER = 16_000
EDGES_MOST = 400_000
"""A larger graph is not laid out; its phrases are found by the search alone."""
TEXT_MOST = 200
"""Letters; no phrase is as long."""
DIGITS = re.compile(r"\d+")

Int16 = NDArray[np.int16]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Near:
    """A phrase, and how far it is from the text."""

    arcs: tuple[int, ...]
    """Of the graph, from its start to an end"""
    words: tuple[str, ...]
    """What they say"""
    distance: int
    """0 for the same letters"""


@functools.lru_cache(maxsize=100_000)
def sounds_of(word: str) -> str:
    """Return the letters of a text, with its numbers spelled: "50%" is "fiftypercent"."""

    def spelled(digits: re.Match[str]) -> str:
        said = words_of(int(digits[0])) if len(digits[0]) <= 6 else ()
        return said[0] if said else digits[0]

    return letters_of(DIGITS.sub(spelled, word))


class NearestPhrases:
    """All phrases of a graph, laid out.

    Args:
        graph: The words; must not change.
    """

    def __init__(self, graph: PhraseGraph) -> None:
        layout = _Layout(graph)
        self._words = layout.words
        self._codes = {letter: i for i, letter in enumerate(layout.letters, 1)}  # 0: any other
        letters = ["", *layout.letters]
        self._left_out = np.array([_left_out(each) for each in letters], np.int16)
        rank = layout.ranks()
        order = sorted(range(len(rank)), key=rank.__getitem__)
        number = np.empty(len(order), np.int64)
        number[order] = np.arange(len(order))
        edges = np.array(
            [(number[a], number[b], self._codes[c], w) for a, b, c, w in layout.edges], np.int64
        ).reshape(-1, 4)
        edges = edges[np.argsort(edges[:, 0], kind="stable")]
        self._from, self._to, self._letter, self._word = edges.T.copy()
        self._first = np.searchsorted(self._from, np.arange(len(order) + 1))
        """Where the edges from each state begin"""
        self._start = int(number[0]) if len(number) else 0
        self._ends = np.zeros(len(order), bool)
        self._ends[number[list(layout.ends)]] = True
        self._layers = _bounds(np.array(sorted(rank)))

    def nearest(self, letters: str, most: int) -> list[Near]:
        """Return the nearest phrases, the nearest first, each of other letters than those before.

        Args:
            letters: As of `sounds_of`.
            most: So many phrases at most.
        """
        if not letters or len(letters) > TEXT_MOST or not len(self._from):
            return []
        text = np.array([self._codes.get(each, 0) for each in letters])
        put_in = np.array([_left_out(each) for each in letters], np.int16)
        # Measured as if all of the text not yet used had to be put in: then putting in is free.
        instead = self._costs(letters)[:, : len(text)] - put_in
        before = np.concatenate([[0], np.cumsum(put_in)]).astype(np.int16)
        to_end = self._to_end(instead, int(before[-1]))
        return self._followed(instead, to_end, int(before[-1]), most)

    def _costs(self, letters: str) -> Int16:
        """Return what it costs to write each letter for each of the text: (codes, text)."""
        return np.array(
            [[_instead(own, each) for each in letters] for own in ["", *self._codes]], np.int16
        )

    def _to_end(self, instead: Int16, whole: int) -> Int16:
        """Return how far each state is from an end, by the letters of the text before it.

        int16, shape (states, text + 1), each more by what putting in the letters before costs.
        """
        found = np.full((len(self._ends), instead.shape[1] + 1), NEVER, np.int16)
        for low, high in self._layers:
            first, last = self._first[low], self._first[high]
            if first == last:
                found[low:high][self._ends[low:high]] = whole
                continue
            letters = self._letter[first:last]
            after = found[self._to[first:last]]
            ways = after + self._left_out[letters][:, None]
            np.minimum(ways[:, :-1], after[:, 1:] + instead[letters], out=ways[:, :-1])
            best = np.minimum.reduceat(ways, self._first[low:high] - first, axis=0)
            best[self._ends[low:high]] = np.minimum(best[self._ends[low:high]], whole)
            found[low:high] = np.minimum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
        return found

    def _followed(self, instead: Int16, to_end: Int16, whole: int, most: int) -> list[Near]:
        """Follow the phrases whose distance is least: a beginning's least one is known."""
        states = np.array([self._start])
        rows = np.zeros((1, instead.shape[1] + 1), np.int16)
        walked: list[tuple[int, ...]] = [()]
        done: list[tuple[int, tuple[int, ...]]] = []
        while len(states):
            ended = np.flatnonzero(self._ends[states])
            done += [(int(rows[i, -1]) + whole, walked[i]) for i in ended if walked[i]]
            counts = self._first[states + 1] - self._first[states]
            parents = np.repeat(np.arange(len(states)), counts)
            within = np.arange(len(parents)) - np.repeat(np.cumsum(counts) - counts, counts)
            edges = self._first[states][parents] + within
            if not len(edges):
                break
            letters, rows = self._letter[edges], rows[parents]
            grown = rows + self._left_out[letters][:, None]
            np.minimum(grown[:, 1:], rows[:, :-1] + instead[letters], out=grown[:, 1:])
            grown = np.minimum.accumulate(grown, axis=1)
            least = (grown + to_end[self._to[edges]]).min(axis=1)
            kept = np.argsort(least, kind="stable")[:most]
            done = sorted(done)[:most]
            if len(done) == most:
                kept = kept[least[kept] <= done[-1][0]]
            states, rows = self._to[edges[kept]], grown[kept]
            words = self._word[edges[kept]]
            walked = [
                (*walked[parent], int(word)) if word >= 0 else walked[parent]
                for parent, word in zip(parents[kept], words, strict=True)
            ]
        return self._named(sorted(done)[:most])

    def _named(self, done: list[tuple[int, tuple[int, ...]]]) -> list[Near]:
        found: dict[str, Near] = {}
        for distance, walked in done:
            words = tuple(word for number in walked for word in self._words[number][0])
            arcs = tuple(arc for number in walked for arc in self._words[number][1])
            found.setdefault("".join(map(sounds_of, words)), Near(arcs, words, distance))
        return list(found.values())


class _Layout:
    """The states of a graph: its nodes, and within a word what is left of it and where it leads."""

    def __init__(self, graph: PhraseGraph) -> None:
        self._graph = graph
        self.edges: list[tuple[int, int, str, int]] = []
        """From, to, letter, and the number of the word that begins with it, or -1"""
        self.words: list[tuple[tuple[str, ...], tuple[int, ...]]] = []
        """What is said, and its arcs"""
        self.ends: set[int] = set()
        self._numbers: dict[tuple[str, int], int] = {("", graph.start): 0}
        self._waiting = [graph.start]
        while self._waiting:
            self._lay_out(self._waiting.pop())
            if len(self.edges) > EDGES_MOST:
                self.edges, self.words, self.ends = [], [], set()
                break
        self.letters = sorted({letter for _, _, letter, _ in self.edges})

    def ranks(self) -> list[int]:
        """Return the most letters that may follow each state."""
        after: dict[int, set[int]] = {}
        for source, to, _, _ in self.edges:
            after.setdefault(source, set()).add(to)
        found: dict[int, int] = {}
        waiting = [0]
        while waiting:
            state = waiting[-1]
            unknown = [each for each in after.get(state, ()) if each not in found]
            if unknown:
                waiting += unknown
                continue
            found[state] = max((found[to] + 1 for to in after.get(state, ())), default=0)
            waiting.pop()
        return [found.get(state, 0) for state in range(len(self._numbers))]

    def _lay_out(self, node: int) -> None:
        source = self._numbers["", node]
        said = list(self._said(node, ()))
        if any(to is None for _, to, _ in said):
            self.ends.add(source)
        spelled = any(word in NUMBER_WORDS for word, _, _ in said)
        for word, to, arcs in said:
            if to is None or (spelled and word.isdecimal()):
                continue  # the same number is there in words
            letters = sounds_of(word)
            self.words.append(((word,), arcs))
            number, at = len(self.words) - 1, source
            for i, letter in enumerate(letters, 1):
                key = (letters[i:], to)
                known = key in self._numbers
                after = self._numbers.setdefault(key, len(self._numbers))
                self.edges.append((at, after, letter, number if i == 1 else -1))
                at = after
                if known:
                    break
                if i == len(letters):
                    self._waiting.append(to)

    def _said(
        self, node: int, before: tuple[int, ...]
    ) -> Iterator[tuple[str, int | None, tuple[int, ...]]]:
        """Yield the words that may follow, through arcs without any; None for an end."""
        if self._graph.ends(node):
            yield "", None, before
        for arc in self._graph.arcs(node):
            if sounds_of(arc.word):
                yield arc.word, arc.to, (*before, arc.ident)
            else:
                yield from self._said(arc.to, (*before, arc.ident))


def _bounds(ranks: Ints) -> list[tuple[int, int]]:
    """Return where each rank lies among sorted ones."""
    most = int(ranks[-1]) if len(ranks) else -1
    places = np.searchsorted(ranks, np.arange(most + 2)).tolist()
    return list(itertools.pairwise(places))


def distance_of(letters: str, others: str) -> int:
    """Return how far two texts are from each other, by their letters."""
    row = np.concatenate([[0], np.cumsum([_left_out(each) for each in others])]).astype(np.int64)
    whole = row.copy()
    for letter in letters:
        grown = row + _left_out(letter)
        instead = np.array([_instead(letter, each) for each in others], np.int64)
        grown[1:] = np.minimum(grown[1:], row[:-1] + instead)
        row = np.minimum.accumulate(grown - whole) + whole
    return int(row[-1])


def far_from_nothing(letters: str) -> int:
    """Return the distance of some letters from none."""
    return sum(map(_left_out, letters))


def _left_out(letter: str) -> int:
    return LEFT_OUT.get(letter, LEFT_OUT_ELSE)


@functools.lru_cache(maxsize=10_000)
def _instead(letter: str, other: str) -> int:
    """Return what it costs to write one letter for another."""
    if letter == other:
        return 0
    vowels = (letter in VOWELS) + (other in VOWELS)
    if any(letter and letter in each and other in each for each in ALIKE):
        return NEAR
    return (FAR, ACROSS, VOWEL)[vowels] if letter else FAR
