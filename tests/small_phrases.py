"""Graphs of phrases, built by hand: enough of the template syntax to try a search with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harkd.recognizer.phrase_numbers import words_of

Slots = dict[str, str | int]
Values = Mapping[str, Sequence[str] | range]


@dataclass(frozen=True)
class SmallArc:
    """A step."""

    ident: int
    word: str
    to: int
    told: tuple[str, str | int] | None = None
    """Which slot has which value, once it is walked."""


@dataclass
class SmallGraph:
    """A graph that grows, template by template."""

    steps: list[list[SmallArc]] = field(default_factory=lambda: [[]])
    last: set[int] = field(default_factory=set)
    all: list[SmallArc] = field(default_factory=list)
    start: int = 0

    def arcs(self, node: int) -> Sequence[SmallArc]:
        return self.steps[node]

    def ends(self, node: int) -> bool:
        return node in self.last

    def slots(self, arcs: Sequence[int]) -> Slots:
        """What the arcs tell; the intent is one of them."""
        return dict(told for arc in arcs if (told := self.all[arc].told))

    def words(self, arcs: Sequence[int]) -> str:
        return " ".join(self.all[arc].word for arc in arcs if self.all[arc].word)

    def add(self, template: str, intent: str = "", values: Values | None = None) -> None:
        """Add ``turn (on|off) [the] {name}``."""
        parts = re.findall(r"[()\[\]|]|\{\w+\}|[^\s()\[\]|{}]+", template)
        begin = self._step(self.start, "", told=("intent", intent))
        end, left = self._choice(begin, parts, values or {})
        assert not left, f"{template}: what does {left[0]} close?"
        self.last.add(end)

    def sentences(self, node: int | None = None) -> Iterator[tuple[int, ...]]:
        """The arcs of each sentence."""
        at = self.start if node is None else node
        if at in self.last:
            yield ()
        for arc in self.steps[at]:
            for rest in self.sentences(arc.to):
                yield (arc.ident, *rest)

    def _node(self) -> int:
        self.steps.append([])
        return len(self.steps) - 1

    def _step(
        self, at: int, word: str, to: int | None = None, told: tuple[str, str | int] | None = None
    ) -> int:
        arc = SmallArc(len(self.all), word, self._node() if to is None else to, told)
        self.all.append(arc)
        self.steps[at].append(arc)
        return arc.to

    def _choice(self, at: int, parts: list[str], values: Values) -> tuple[int, list[str]]:
        """Read alternatives up to what closes them."""
        end, here = self._node(), at
        while parts and parts[0] not in (")", "]"):
            part, *parts = parts
            if part == "|":
                self._step(here, "", end)
                here = at
            elif part in ("(", "["):
                before = here
                here, parts = self._choice(self._step(here, ""), parts, values)
                if part == "[":
                    self._step(before, "", here)
                parts = parts[1:]
            elif part[0] == "{":
                here = self._value(here, part[1:-1], values[part[1:-1]])
            else:
                here = self._step(here, part)
        self._step(here, "", end)
        return end, parts

    def _value(self, at: int, slot: str, values: Sequence[str] | range) -> int:
        end = self._node()
        for value in values:
            said = words_of(value)[0] if isinstance(value, int) else value
            here = at
            for word in said.split():
                here = self._step(here, word)
            self._step(here, "", end, told=(slot, value))
        return end


def small_graph(*templates: str, **values: Sequence[str] | range) -> SmallGraph:
    """A graph of templates without intents."""
    graph = SmallGraph()
    for template in templates:
        graph.add(template, values=values)
    return graph
