"""The compiled phrases as arrays, and what a walk through them means. Pure.

In: what `Builder` made. Out: `Match`, for arcs or for words.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harkd.phrases.builder import Action, Builder, SlotValue


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """A template, as it was compiled."""

    intent: str
    """What it stands for."""
    template: str
    """Its text."""
    slots: Mapping[str, SlotValue] = field(default_factory=dict)
    """Slots that are the same in all of its sentences."""
    metadata: Mapping[str, SlotValue] = field(default_factory=dict)
    """What its writer added."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """What a sentence means."""

    phrase: str
    """Its words."""
    intent: str
    """What is wanted."""
    slots: dict[str, SlotValue]
    """Of what, and how much."""
    template: str = ""
    """The template that it is a sentence of."""
    metadata: Mapping[str, SlotValue] = field(default_factory=dict)
    """What the template's writer added."""


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The builder's nodes in arrays; numbers of arcs by node, from `first[node]` on."""

    phrases: tuple[Phrase, ...]
    words: tuple[str, ...]
    actions: tuple[Action, ...]
    start: int
    first: array[int]
    word: array[int]
    action: array[int]
    to: array[int]
    ends: bytes

    @classmethod
    def of(cls, builder: Builder, phrases: Sequence[Phrase], start: int) -> Tables:
        """Put a builder's nodes into arrays."""
        first = array("I", [0])
        word, action, to = array("I"), array("I"), array("I")
        for arcs, _ in builder.nodes:
            for arc in arcs:
                word.append(arc[0])
                action.append(arc[1])
                to.append(arc[2])
            first.append(len(to))
        return cls(
            phrases=tuple(phrases),
            words=tuple(builder.words),
            actions=tuple(action for action, _ in builder.actions),
            start=start,
            first=first,
            word=word,
            action=action,
            to=to,
            ends=bytes(ends for _, ends in builder.nodes),
        )

    def arcs(self, node: int) -> range:
        """Return the numbers of a node's arcs."""
        return range(self.first[node], self.first[node + 1])

    @functools.cached_property
    def roots(self) -> Sequence[tuple[int, int]]:
        """The arc at which each template begins, and the template's number."""
        told = ((arc, self.actions[action]) for arc, action in enumerate(self.action))
        return [(arc, int(action.value)) for arc, action in told if action.kind == "phrase"]

    @functools.cached_property
    def openings(self) -> Mapping[int, Mapping[int, Sequence[int]]]:
        """The arcs at which templates begin, by their node and by a word that can be the first."""
        found: dict[int, dict[int, list[int]]] = {}
        for node in range(len(self.ends)):
            for arc in self.arcs(node):
                if self.actions[self.action[arc]].kind == "phrase":
                    by_word = found.setdefault(node, {})
                    for word in self._first_words(self.to[arc]):
                        by_word.setdefault(word, []).append(arc)
        return found

    def _first_words(self, node: int) -> set[int]:
        words = set[int]()
        for arc in self.arcs(node):
            if self.word[arc]:
                words.add(self.word[arc])
            else:
                words |= self._first_words(self.to[arc])
        return words

    def told(self, walked: Sequence[int]) -> Match:
        """Return what the sentence of these arcs means."""
        words, slots = [], dict[str, SlotValue]()
        negative = set()
        phrase = self.phrases[0]
        for arc in walked:
            if word := self.words[self.word[arc]]:
                words.append(word)
            action = self.actions[self.action[arc]]
            match action.kind:
                case "phrase":
                    phrase = self.phrases[int(action.value)]
                case "set":
                    slots[action.slot] = action.value
                case "minus":
                    negative.add(action.slot)
                case "add" | "hundred" | "thousand" | "times":
                    slots[action.slot] = _spoken_on(slots.get(action.slot, 0), action)
        for slot in negative:
            slots[slot] = -slots[slot]  # type: ignore[operator]
        return Match(
            phrase=" ".join(words),
            intent=phrase.intent,
            slots={**phrase.slots, **slots},
            template=phrase.template,
            metadata=phrase.metadata,
        )

    def best(self, words: Sequence[int]) -> Match | None:
        """Return the best meaning of words, by their numbers; None where they are no sentence."""
        found = _Reading(self, words).best(self.start, 0)
        return self.told(found[1]) if found else None


def _spoken_on(number: Any, action: Action) -> int | float:
    """The number so far, and what one more word makes of it."""
    value: Any = action.value
    if action.kind == "hundred":
        return int(number // 1000 * 1000 + number % 1000 * 100)
    if action.kind == "thousand":
        return int(number * 1000)
    total = number * value if action.kind == "times" else number + value
    if isinstance(total, float):
        total = round(total, 6)
        return int(total) if total.is_integer() else total
    return int(total)


class _Reading:
    """All ways through the builder's arcs that spell the same words."""

    def __init__(self, tables: Tables, words: Sequence[int]) -> None:
        self._tables = tables
        self._words = words
        self._known: dict[tuple[int, int], tuple[int, list[int]] | None] = {}

    def best(self, node: int, at: int) -> tuple[int, list[int]] | None:
        """Return the best way from a node to the end: words of no list, and its arcs."""
        key = (node, at)
        if key in self._known:
            return self._known[key]
        tables = self._tables
        found: tuple[int, list[int]] | None = None
        if tables.ends[node] and at == len(self._words):
            found = (0, [])
        arcs: Sequence[int] = tables.arcs(node)
        if node in tables.openings:
            arcs = tables.openings[node].get(self._words[at], ()) if at < len(self._words) else ()
        for arc in arcs:
            word = tables.word[arc]
            if word and (at == len(self._words) or word != self._words[at]):
                continue
            rest = self.best(tables.to[arc], at + 1 if word else at)
            if rest is None:
                continue
            own = 1 if word and tables.action[arc] == 0 else 0
            if found is None or rest[0] + own > found[0]:
                found = (rest[0] + own, [arc, *rest[1]])
        self._known[key] = found
        return found
