"""Everything that is wrong with phrases, all at once. Pure.

In: `PhraseSource`. Out: a `Fault` for each template, rule and value that cannot be compiled, with
the place and the mend; and the trees of those that can.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from harkd.phrases.source import PhraseSource, Scope, TextList, Written
from harkd.phrases.spoken import tokens
from harkd.phrases.template import (
    AnyOrder,
    Choice,
    Expression,
    ListUse,
    RuleUse,
    Sequence,
    TemplateFault,
    Text,
    parse,
)
from harkd.settings_file import Fault, Place, quoted


@dataclass(frozen=True)
class _Inside:
    """What a tree has in it."""

    slots: frozenset[str] = frozenset()
    """Slots that it can fill."""
    silent: bool = False
    """Whether it can be said without a word."""


@dataclass
class Checked:
    """Trees that were parsed, and what is wrong."""

    faults: list[Fault] = field(default_factory=list)
    trees: dict[str, Expression | None] = field(default_factory=dict)
    """By text; None where it has a fault."""

    def tree(self, written: Written) -> Expression | None:
        """Return the tree of a text, once parsed; a fault is told for each place that has it."""
        if written.text in self.trees and self.trees[written.text] is not None:
            return self.trees[written.text]
        try:
            found: Expression | None = parse(written.text)
        except TemplateFault as fault:
            found = None
            self.fault(written.at(fault.offset), f"{quoted(written.text)} {fault.text}")
        self.trees[written.text] = found
        return found

    def fault(self, place: Place, text: str) -> None:
        """Note one fault, once."""
        fault = Fault(place=place, text=text)
        if fault not in self.faults:
            self.faults.append(fault)


def check(source: PhraseSource) -> Checked:
    """Return the trees of everything that can be said, and all faults."""
    checked = Checked()
    scopes: dict[int, _ScopeCheck] = {}
    everywhere = _ScopeCheck(checked, source.scope)
    everywhere.all()
    for template in source.templates:
        own = scopes.get(id(template.own))
        if own is None:
            own = everywhere
            if template.own.lists or template.own.rules:
                own = _ScopeCheck(checked, joined(source.scope, template.own), template.own)
                own.all()
            scopes[id(template.own)] = own
        tree = checked.tree(template.written)
        if tree is None:
            continue
        inside = own.inside(tree, template.written)
        if inside.silent:
            checked.fault(
                template.written.place,
                f"{quoted(template.written.text)} can be said without a word, since all of it is "
                "optional; take one word out of the [ ]",
            )
        for slot in sorted(inside.slots & set(template.slots)):
            checked.fault(
                template.written.place,
                f'{quoted(template.written.text)} fills the slot "{slot}", which its block sets '
                "too; delete one of them",
            )
    for skipped in source.skip_words:
        tree = checked.tree(skipped)
        if tree is not None:
            everywhere.inside(tree, skipped)
    return checked


def joined(wide: Scope, own: Scope) -> Scope:
    """Return both scopes' lists and rules; those of `own` go first."""
    return Scope(lists={**wide.lists, **own.lists}, rules={**wide.rules, **own.rules})


class _ScopeCheck:
    """What can be said in one scope."""

    def __init__(self, checked: Checked, scope: Scope, only: Scope | None = None) -> None:
        self._checked = checked
        self._scope = scope
        self._only = only or scope
        self._rules: dict[str, _Inside] = {}
        self._open: list[str] = []

    def all(self) -> None:
        """Check the lists and rules that this scope adds."""
        for found in self._only.lists.values():
            for value in found.values if isinstance(found, TextList) else ():
                tree = self._checked.tree(value.said)
                if tree is None:
                    continue
                inside = self.inside(tree, value.said)
                if inside.slots:
                    self._checked.fault(
                        value.said.place,
                        f"{quoted(value.said.text)} is a value of a list and uses another list; "
                        "write the words",
                    )
                elif inside.silent:
                    self._checked.fault(
                        value.said.place,
                        f"{quoted(value.said.text)} has no word that must be said; write one",
                    )
        for name in self._only.rules:
            self._rule(name)

    def inside(self, tree: Expression, written: Written) -> _Inside:
        """Return what a tree has in it, and note its faults."""
        match tree:
            case Text(text):
                return _Inside(silent=not tokens(text))
            case ListUse(name, slot, offset, numbers):
                if numbers is None and name not in self._scope.lists:
                    self._checked.fault(
                        written.at(offset),
                        f'there is no list "{name}"' + near(name, self._scope.lists, "lists"),
                    )
                return _Inside(frozenset({slot}))
            case RuleUse(name, offset):
                return self._used_rule(name, offset, written)
            case Choice(items):
                parts = [self.inside(item, written) for item in items]
                slots = frozenset().union(*(part.slots for part in parts))
                return _Inside(slots, any(part.silent for part in parts))
            case Sequence(items) | AnyOrder(items):
                slots = frozenset()
                silent = True
                for item in items:
                    part = self.inside(item, written)
                    for slot in sorted(slots & part.slots):
                        self._checked.fault(
                            written.place,
                            f'{quoted(written.text)} fills the slot "{slot}" twice; name one of '
                            f"them differently, as in {{{slot}:other}}",
                        )
                    slots |= part.slots
                    silent = silent and part.silent
                return _Inside(slots, silent)

    def _used_rule(self, name: str, offset: int, written: Written) -> _Inside:
        if name not in self._scope.rules:
            self._checked.fault(
                written.at(offset),
                f'there is no rule "{name}"' + near(name, self._scope.rules, "expansion_rules"),
            )
            return _Inside()
        if name in self._open:
            circle = " → ".join([*self._open[self._open.index(name) :], name])
            self._checked.fault(
                written.at(offset), f"a rule uses itself ({circle}); take one of the uses out"
            )
            return _Inside()
        return self._rule(name)

    def _rule(self, name: str) -> _Inside:
        if name not in self._rules:
            written = self._scope.rules[name]
            tree = self._checked.tree(written)
            self._open.append(name)
            self._rules[name] = self.inside(tree, written) if tree else _Inside()
            self._open.pop()
        return self._rules[name]


def near(name: str, known: Mapping[str, object] | Iterable[str], section: str) -> str:
    """Return what to do about a name that is not known."""
    found = difflib.get_close_matches(name, list(known), 1)
    if found:
        return f'; did you mean "{found[0]}"?'
    return f'; write it under "{section}:", or correct the name'
