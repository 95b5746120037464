"""A range of numbers as a graph of words, without writing the numbers out. Pure.

In: from, to, step. Out: a node from which every number of the range leads on, "two hundred and
five" and "205"; its arcs add up what is said. What can follow is looked at by hundreds and
thousands, and equal remainders are one node, so 0…999,999 takes some 300 arcs.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from harkd.phrases.builder import LISTED, Builder
from harkd.phrases.spoken import LARGEST, TENS, UNITS

MOST_DIGITS: Final = 1001
"""Numbers of a range up to which it can be heard as digits too: each is a word of its own."""
Fractions = Literal["halves", "tenths"]
FRACTIONS: Final = {"halves": (5,), "tenths": tuple(range(1, 10))}
"""The tenths that may follow a number."""


@dataclass(frozen=True, kw_only=True)
class NumberRange:
    """Numbers that can be said."""

    low: int
    """The first, −999,999…999,999."""
    high: int
    """None is above it."""
    step: int = 1
    """From one to the next, from 1."""
    multiplier: float | None = None
    """The slot's value is the number times this."""
    fractions: Fractions | None = None
    """Whether ".5", or ".1" to ".9", may follow."""
    digits: bool = True
    """Whether they are heard as "25"."""
    words: bool = True
    """Whether they are heard as "twenty five"."""

    def numbers(self) -> range:
        """All of them, without fractions."""
        return range(self.low, self.high + 1, self.step)


@dataclass(frozen=True)
class _Speaker:
    """Builds for one slot."""

    builder: Builder
    slot: str

    def add(self, word: str, number: float, to: int) -> int:
        action = self.builder.action("add", self.slot, number)
        return self.builder.step(word, to, action)

    def begin(self, word: str, to: int) -> int:
        return self.builder.step(word, to, self.builder.action("minus", self.slot))

    def below_hundred(self, numbers: Collection[int], to: int) -> Iterator[int]:
        """Yield nodes for numbers of 1…99."""
        small = [number for number in numbers if number < 20]
        yield from (self.add(UNITS[number], number, to) for number in small)
        for tens in range(2, 10):
            ones = {number % 10 for number in numbers if number // 10 == tens}
            if ones:
                after = [self.add(UNITS[one], one, to) for one in sorted(ones - {0})]
                rest = self.builder.union([*after, *([to] if 0 in ones else [])])
                yield self.add(TENS[tens], tens * 10, rest)

    def below_thousand(self, numbers: Collection[int], to: int) -> Iterator[int]:
        """Yield nodes for numbers of 1…999."""
        yield from self.below_hundred([number for number in numbers if number < 100], to)
        for hundreds in range(1, 10):
            rests = frozenset(number % 100 for number in numbers if number // 100 == hundreds)
            if rests:
                after = self.behind(rests, to, self.below_hundred)
                action = self.builder.action("hundred", self.slot)
                hundred = self.builder.step("hundred", after, action)
                yield self.add(UNITS[hundreds], hundreds, hundred)
                if hundreds == 1:
                    yield self.add("a", 1, hundred)

    def behind(self, rests: Collection[int], to: int, more: object) -> int:
        """Return the node behind "hundred" or "thousand"."""
        found = [to] if 0 in rests else []
        spoken = sorted(set(rests) - {0})
        if more == self.below_hundred:
            found.extend(self.below_hundred(spoken, to))
        else:
            found.extend(self.below_thousand(spoken, to))
        if low := [rest for rest in spoken if rest < 100]:
            anded = self.builder.union(list(self.below_hundred(low, to)))
            found.append(self.builder.step("and", anded, LISTED))
        return self.builder.union(found)

    def positive(self, numbers: range, to: int) -> Iterator[int]:
        """Yield nodes for numbers of 1…999,999."""
        if not numbers:
            return
        by_rest: dict[frozenset[int], list[int]] = {}
        known: dict[tuple[int, int], frozenset[int]] = {}
        for thousands in range(numbers[0] // 1000, numbers[-1] // 1000 + 1):
            base = thousands * 1000
            first = max(numbers[0], base + (numbers[0] - base) % numbers.step)
            last = min(numbers[-1], base + 999)
            key = (first - base, last - base)
            if key not in known:
                known[key] = frozenset(range(key[0], key[1] + 1, numbers.step))
            if known[key]:
                by_rest.setdefault(known[key], []).append(thousands)
        action = self.builder.action("thousand", self.slot)
        for rests, thousands_of in by_rest.items():
            if 0 in thousands_of:
                yield from self.below_thousand(sorted(rests - {0}), to)
            if large := [each for each in thousands_of if each]:
                after = self.behind(rests, to, self.below_thousand)
                thousand = self.builder.step("thousand", after, action)
                yield from self.below_thousand(large, thousand)
                if 1 in large:
                    yield self.add("a", 1, thousand)


def number_node(builder: Builder, slot: str, numbers: NumberRange, to: int) -> int | None:
    """Return the node at which a number of the range begins; None where there is no way to say it.

    `to` is what follows the number; `slot` gets its value.
    """
    if numbers.multiplier is not None:
        to = builder.step("", to, builder.action("times", slot, numbers.multiplier))
    speaker = _Speaker(builder, slot)
    every = numbers.numbers()
    found: list[int] = []
    if numbers.words:
        after = _fractions(speaker, numbers, to)
        signed = [number for number in (every[0], every[-1]) if number < 0] if every else []
        if 0 in every:
            found.append(speaker.add("zero", 0, after))
        found.extend(speaker.positive(_above_zero(every), after))
        if signed:
            below = _above_zero(range(-every[-1], -every[0] + 1, every.step))
            size = builder.union(list(speaker.positive(below, after)))
            found.extend(speaker.begin(word, size) for word in ("minus", "negative"))
    if numbers.digits:
        found.extend(_digits(speaker, every, numbers.fractions, to))
    return builder.union(found) if found else None


def _above_zero(numbers: range) -> range:
    """The part of an ascending range in 1…999,999."""
    skipped = max(0, -(-(1 - numbers.start) // numbers.step))
    return range(numbers.start + skipped * numbers.step, numbers.stop, numbers.step)


def _digits(
    speaker: _Speaker, numbers: range, fractions: Fractions | None, to: int
) -> Iterator[int]:
    tenths = (0, *FRACTIONS[fractions]) if fractions else (0,)
    if len(numbers) * len(tenths) > MOST_DIGITS:
        return
    negative = []
    for number, tenth in itertools.product(numbers, tenths):
        size = abs(number) + tenth / 10 if tenth else abs(number)
        node = speaker.add(str(size), size, to)
        if number < 0:
            negative.append(node)
        else:
            yield node
    if negative:
        yield speaker.begin("minus", speaker.builder.union(negative))


def _fractions(speaker: _Speaker, numbers: NumberRange, to: int) -> int:
    """Return what may follow a number in words: nothing, "point five", "and a half"."""
    if not numbers.fractions:
        return to
    ways = [to, _point(speaker, numbers.fractions, to)]
    if numbers.fractions == "halves":
        half = speaker.builder.step("a", speaker.add("half", 0.5, to), LISTED)
        ways.append(speaker.builder.step("and", half, LISTED))
    return speaker.builder.union(ways)


def _point(speaker: _Speaker, fractions: Fractions, to: int) -> int:
    tenths = [speaker.add(UNITS[tenth], tenth / 10, to) for tenth in FRACTIONS[fractions]]
    return speaker.builder.step("point", speaker.builder.union(tenths), LISTED)


def in_reach(number: int) -> bool:
    """Whether it can be spoken."""
    return -LARGEST <= number <= LARGEST
