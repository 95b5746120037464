"""One template, as it is written, becomes a tree. Pure.

In: text such as ``turn on [the] (lights|lamps) in <area>``. Out: `Expression`, or a `TemplateFault`
that says at which character. The syntax is that of Home Assistant's intents (hassil):
https://github.com/OHF-Voice/hassil/blob/main/docs/template_syntax.md
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

CLOSERS: Final = {"(": ")", "[": "]", "{": "}", "<": ">"}
SPECIAL: Final = frozenset("()[]{}<>|;\\")
NAME: Final = re.compile(r"[\w-]+", re.UNICODE)
INLINE_RANGE: Final = re.compile(r"(-?\d+)\.\.(-?\d+)(?:,(\d+))?")
MAX_DEPTH: Final = 30
"""Brackets within brackets; nobody writes more, and the parser is recursive."""
MAX_PERMUTED: Final = 6
"""Parts that may stand in any order; what is left to say has 64 states for 6."""


class TemplateFault(Exception):  # noqa: N818
    """A template cannot be read; `offset` says where, in characters from 0."""

    def __init__(self, offset: int, text: str) -> None:
        super().__init__(text)
        self.offset = offset
        self.text = text


@dataclass(frozen=True)
class Text:
    """Words, or parts of words, with the white space around them."""

    text: str


@dataclass(frozen=True)
class ListUse:
    """``{name}`` or ``{name:slot}``: one value of a list."""

    name: str
    slot: str
    offset: int
    numbers: tuple[int, int, int] | None = None
    """From, to and step, where it is written as ``{1..10,2:slot}``."""


@dataclass(frozen=True)
class RuleUse:
    """``<name>``: an expansion rule."""

    name: str
    offset: int


@dataclass(frozen=True)
class Sequence:
    """All of these, one after another."""

    items: tuple[Expression, ...]


@dataclass(frozen=True)
class Choice:
    """One of these; an optional part has an empty sequence among them."""

    items: tuple[Expression, ...]


@dataclass(frozen=True)
class AnyOrder:
    """All of these, in any order."""

    items: tuple[Expression, ...]


Expression = Text | ListUse | RuleUse | Sequence | Choice | AnyOrder
NOTHING: Final = Sequence(())


def parse(text: str) -> Expression:
    """Return the tree of a template.

    Raises:
        TemplateFault: It cannot be read.
    """
    if not text.strip():
        raise TemplateFault(0, "is empty; write a sentence, or delete it")
    return _Parser(text).whole()


def plainest(tree: Expression) -> str:
    """Return the first way to say a tree: the first of alternatives, and nothing that is optional.

    Lists and rules are left out.
    """
    match tree:
        case Text(text):
            return text
        case Sequence(items) | AnyOrder(items):
            return "".join(map(plainest, items))
        case Choice(items):
            return "" if items[-1] == NOTHING else plainest(items[0])
        case _:
            return ""


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def whole(self) -> Expression:
        tree = self.group(0)
        if self.at < len(self.text):
            extra = self.text[self.at]
            raise TemplateFault(
                self.at, f'"{extra}" closes nothing; delete it, or write \\{extra} to have it said'
            )
        return tree

    def group(self, depth: int) -> Expression:
        """Read up to a closing bracket, not over it."""
        if depth > MAX_DEPTH:
            raise TemplateFault(self.at, f"has more than {MAX_DEPTH} brackets in brackets")
        parts: list[list[Expression]] = [[]]
        separators: dict[str, int] = {}
        start = self.at
        while self.at < len(self.text):
            character = self.text[self.at]
            if character in "|;":
                separators.setdefault(character, self.at)
                parts.append([])
                self.at += 1
            elif character in ")]}>":
                break
            else:
                parts[-1].append(self.item(depth))
        if len(separators) > 1:
            raise TemplateFault(
                max(separators.values()),
                'has "|" and ";" side by side; put one of the two parts in ( )',
            )
        items = tuple(part[0] if len(part) == 1 else Sequence(tuple(part)) for part in parts)
        if len(items) == 1:
            return items[0]
        if "|" in separators:
            return Choice(items)
        if len(items) > MAX_PERMUTED:
            raise TemplateFault(
                start, f"has {len(items)} parts in any order; {MAX_PERMUTED} are the most"
            )
        return AnyOrder(items)

    def item(self, depth: int) -> Expression:
        character = self.text[self.at]
        if character not in CLOSERS:
            return self.words()
        opened, self.at = self.at, self.at + 1
        if character in "{<":
            return self.use(character, opened)
        inner = self.group(depth + 1)
        self.close(character, opened)
        if character == "[":
            options = inner.items if isinstance(inner, Choice) else (inner,)
            return Choice((*options, NOTHING))
        return inner

    def close(self, opener: str, opened: int) -> None:
        closer = CLOSERS[opener]
        if self.at >= len(self.text):
            raise TemplateFault(opened, f'"{opener}" is never closed; write the "{closer}"')
        if self.text[self.at] != closer:
            raise TemplateFault(
                self.at,
                f'"{self.text[self.at]}" stands where "{closer}" closes the "{opener}" of '
                f"character {opened + 1}",
            )
        self.at += 1

    def words(self) -> Text:
        read = []
        while self.at < len(self.text) and (self.text[self.at] not in SPECIAL or self.escape()):
            read.append(self.text[self.at])
            self.at += 1
        return Text("".join(read))

    def escape(self) -> bool:
        """Step over a backslash; what follows is text."""
        if self.text[self.at] != "\\":
            return False
        if self.at + 1 == len(self.text):
            raise TemplateFault(self.at, "ends in a backslash; delete it")
        self.at += 1
        return True

    def use(self, opener: str, opened: int) -> Expression:
        end = self.text.find(CLOSERS[opener], opened)
        if end < 0:
            raise TemplateFault(
                opened, f'"{opener}" is never closed; write the "{CLOSERS[opener]}"'
            )
        inside = self.text[opened + 1 : end].strip()
        self.at = end + 1
        if opener == "<":
            if not NAME.fullmatch(inside):
                raise TemplateFault(opened, f'"<{inside}>" is no name of a rule; as in <area>')
            return RuleUse(inside, opened)
        name, colon, slot = (part.strip() for part in inside.partition(":"))
        if name.startswith("@") or slot.startswith("@"):
            raise TemplateFault(opened, '"@" belongs in responses; delete it')
        numbers = INLINE_RANGE.fullmatch(name)
        if numbers and not slot:
            raise TemplateFault(
                opened, f'"{{{inside}}}" has no name; write it behind, as in {{{name}:number}}'
            )
        if (not numbers and not NAME.fullmatch(name)) or (colon and not NAME.fullmatch(slot)):
            raise TemplateFault(
                opened, f'"{{{inside}}}" is no name of a list; as in {{area}} or {{area:room}}'
            )
        if not numbers:
            return ListUse(name, slot or name, opened)
        low, high, step = (int(part or 1) for part in numbers.groups())
        if low > high or step < 1:
            raise TemplateFault(opened, f'"{{{inside}}}" has no number; write the smaller first')
        return ListUse(name, slot, opened, (low, high, step))
