"""The compiled phrases: which words can follow, and what a sentence means. Pure.

In: `Tables`. Out: `PhraseGraph`. Its nodes are deterministic: from each, a word leads to one other
node, and there are no empty steps, so that a search has one hypothesis for one beginning of a
sentence. They are sets of the tables' nodes, found when they are first asked for, since a search
sees few of them. `interpret` reads the words again by the tables' own arcs, which have the slots.
Any thread; what was found is shared under a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from random import Random
from typing import Final, NamedTuple

from harkd.phrases.spoken import readings, tokens
from harkd.phrases.tables import Match, Phrase, Tables

MAX_READINGS: Final = 256
"""Ways to say a text that are tried; each number and acronym doubles them."""


class Arc(NamedTuple):
    """A word that may follow."""

    ident: int
    """Its number, unique in the graph."""
    word: str
    """In lower case, without punctuation, but for an apostrophe, and the point in 21.5."""
    to: int
    """The node behind it."""


class PhraseGraph:
    """What can be said, word by word. See the module."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        """What it was made of."""
        self.start: int = 0
        """Where each sentence begins."""
        self._lock = threading.Lock()
        self._closures: dict[int, frozenset[int]] = {}
        self._nodes: list[frozenset[int]] = []
        self._numbers: dict[frozenset[int], int] = {}
        self._arcs: list[tuple[Arc, ...] | None] = []
        self._words: list[str] = []
        self._word_numbers = {word: number for number, word in enumerate(tables.words)}
        self._counts: list[int] = []
        self._number(self._closure(tables.start))

    @property
    def phrases(self) -> tuple[Phrase, ...]:
        """The templates, in the order in which they were written."""
        return self.tables.phrases

    def arcs(self, node: int) -> Sequence[Arc]:
        """Return the words that may follow, each once."""
        found = self._arcs[node]
        if found is None:
            with self._lock:
                found = self._arcs[node]
                if found is None:
                    found = self._arcs[node] = self._expanded(node)
        return found

    def ends(self, node: int) -> bool:
        """Whether a sentence may end here."""
        return any(self.tables.ends[each] for each in self._nodes[node])

    def interpret(self, path: Sequence[int]) -> Match:
        """Return what the sentence means that these arcs, from the start to an end, spell.

        Where several templates have it, the one with the most words of its own, which are not of a
        list, then the first.

        Raises:
            ValueError: They are no whole sentence.
        """
        words = [self._words[ident] for ident in path]
        found = self.best(words)
        if found is None:
            raise ValueError(f"no whole sentence: {' '.join(words)!r}")
        return found

    def match(self, text: str) -> Match | None:
        """Return what a text means, read word by word; None where it is no sentence of these.

        Case and punctuation do not matter, and numbers may be digits or words.
        """
        ways: list[list[str]] = [[]]
        for token in tokens(text):
            more = [[*way, *said] for way in ways for said in readings(token)]
            ways = more[:MAX_READINGS]
        found = (self.best(way) for way in ways)
        return next((match for match in found if match), None)

    def best(self, words: Sequence[str]) -> Match | None:
        """Return what these words mean; None where they are no sentence."""
        numbers = [self._word_numbers.get(word, -1) for word in words]
        if -1 in numbers or not numbers:
            return None
        return self.tables.best(numbers)

    def expansions(self, intent: str | None = None) -> int:
        """Return how many sentences there are, of one intent or of all; one with two ways is two.

        They are counted, not written out.
        """
        if intent is None:
            return self._paths()[self.tables.start]
        return sum(count for phrase, count in self.counts() if phrase.intent == intent)

    def counts(self) -> list[tuple[Phrase, int]]:
        """Return each template with the number of its sentences."""
        paths, tables = self._paths(), self.tables
        found = dict.fromkeys(range(len(tables.phrases)), 0)
        for arc, phrase in self.tables.roots:
            found[phrase] = paths[tables.to[arc]]
        before = paths[tables.start] // (sum(found.values()) or 1)  # ways to say "please" first
        found = {phrase: before * count for phrase, count in found.items()}
        return [(tables.phrases[phrase], count) for phrase, count in found.items()]

    def sample(self, random: Random, phrase: Phrase | None = None) -> Match:
        """Return a random sentence of a template (None: of any), each as likely.

        Raises:
            ValueError: It has none, since a list is empty.
        """
        paths, tables = self._paths(), self.tables
        roots = [
            arc
            for arc, number in self.tables.roots
            if paths[tables.to[arc]] and (phrase is None or phrase is tables.phrases[number])
        ]
        if not roots:
            raise ValueError("there is no sentence")
        walked = [random.choice(roots)]
        while True:
            node = tables.to[walked[-1]]
            chosen = random.randrange(paths[node])
            if tables.ends[node]:
                if chosen == 0:
                    return self.tables.told(walked)
                chosen -= 1
            for arc in tables.arcs(node):
                chosen -= paths[tables.to[arc]]
                if chosen < 0:
                    walked.append(arc)
                    break

    def sentences(self) -> Iterator[Match]:
        """Yield every sentence. For small sets."""

        def paths(node: int, walked: list[int]) -> Iterator[list[int]]:
            if self.tables.ends[node]:
                yield walked
            for arc in self.tables.arcs(node):
                yield from paths(self.tables.to[arc], [*walked, arc])

        return map(self.tables.told, paths(self.tables.start, []))

    def size(self) -> tuple[int, int]:
        """Return the number of nodes and arcs that were compiled."""
        return len(self.tables.ends), len(self.tables.to)

    def seen(self) -> tuple[int, int]:
        """Return the number of deterministic nodes and arcs that were found so far."""
        return len(self._nodes), len(self._words)

    def _closure(self, node: int) -> frozenset[int]:
        """The nodes that empty steps lead to, without those that only have empty steps."""
        known = self._closures.get(node)
        if known is not None:
            return known
        tables, found = self.tables, set()
        if tables.ends[node]:
            found.add(node)
        for arc in tables.arcs(node):
            if tables.word[arc]:
                found.add(node)
            else:
                found |= self._closure(tables.to[arc])
        known = self._closures[node] = frozenset(found)
        return known

    def _number(self, nodes: frozenset[int]) -> int:
        number = self._numbers.setdefault(nodes, len(self._nodes))
        if number == len(self._nodes):
            self._nodes.append(nodes)
            self._arcs.append(None)
        return number

    def _expanded(self, node: int) -> tuple[Arc, ...]:
        tables = self.tables
        behind: dict[int, set[int]] = {}
        for each in self._nodes[node]:
            for arc in tables.arcs(each):
                if tables.word[arc]:
                    behind.setdefault(tables.word[arc], set()).update(self._closure(tables.to[arc]))
        found = []
        for word, nodes in sorted(behind.items()):
            to = self._number(frozenset(nodes))
            found.append(Arc(len(self._words), tables.words[word], to))
            self._words.append(tables.words[word])
        return tuple(found)

    def _paths(self) -> list[int]:
        """How many sentences' rests begin at each of the builder's nodes."""
        if not self._counts:
            tables = self.tables
            counts: list[int] = []
            for node in range(len(tables.ends)):  # arcs lead to smaller numbers only
                counts.append(
                    tables.ends[node] + sum(counts[tables.to[arc]] for arc in tables.arcs(node))
                )
            self._counts = counts
        return self._counts
