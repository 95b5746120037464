"""What a phrases file says, each part with its place. Pure.

In: nothing; these are the values that `phrases.file` reads and `phrases.compiling` compiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harkd.phrases.builder import SlotValue
from harkd.phrases.numbers import NumberRange
from harkd.settings_file import Place


@dataclass(frozen=True, kw_only=True)
class Written:
    """A text, and where it stands."""

    text: str
    """The text."""
    place: Place
    """Where it begins."""
    exact: bool = True
    """Whether each character of it is one of its line, so that a column can be told."""

    def at(self, offset: int) -> Place:
        """Return the place of one of its characters."""
        return replace(self.place, column=self.place.column + offset) if self.exact else self.place


@dataclass(frozen=True, kw_only=True)
class TextValue:
    """One value of a list."""

    said: Written
    """How it is said; a template."""
    out: SlotValue
    """What the slot gets."""


@dataclass(frozen=True, kw_only=True)
class TextList:
    """Values that can be said."""

    values: tuple[TextValue, ...]
    """In the order in which they were written; none where they will come later."""


AnyList = TextList | NumberRange


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Lists and rules by name."""

    lists: Mapping[str, AnyList] = field(default_factory=dict)
    """What ``{name}`` means."""
    rules: Mapping[str, Written] = field(default_factory=dict)
    """What ``<name>`` means."""

    def with_lists(self, lists: Mapping[str, AnyList]) -> Scope:
        """Return the same with others in place of those of its lists that have their names."""
        own = {name: lists.get(name, found) for name, found in self.lists.items()}
        return replace(self, lists=own)


@dataclass(frozen=True, kw_only=True)
class Template:
    """One sentence template with what it stands for."""

    intent: str
    """What is wanted."""
    written: Written
    """Its text."""
    slots: Mapping[str, SlotValue] = field(default_factory=dict)
    """Slots that it has anyway."""
    metadata: Mapping[str, SlotValue] = field(default_factory=dict)
    """What goes along with a match."""
    own: Scope = field(default_factory=Scope)
    """Lists and rules that only its block has."""


@dataclass(frozen=True, kw_only=True)
class PhraseSource:
    """All that was read."""

    templates: tuple[Template, ...] = ()
    """In the order of the files."""
    scope: Scope = field(default_factory=Scope)
    """Lists and rules of all templates."""
    skip_words: tuple[Written, ...] = ()
    """What may be said before or after a sentence: "please"."""
    english: bool = True
    """Whether numbers are spoken in English; else they are heard as digits only."""

    def with_lists(self, lists: Mapping[str, AnyList]) -> PhraseSource:
        """Return the same with other lists in place of those with their names."""
        if not lists:
            return self
        scope = replace(self.scope, lists={**self.scope.lists, **lists})
        # The templates of a block share its scope, which is compiled once.
        owns = {id(template.own): template.own for template in self.templates}
        new = {key: own.with_lists(lists) for key, own in owns.items()}
        templates = tuple(replace(each, own=new[id(each.own)]) for each in self.templates)
        return replace(self, scope=scope, templates=templates)


def text_list(name: str, values: Sequence[SlotValue | Mapping[str, Any]]) -> TextList:
    """Return a list whose values came from elsewhere, over MQTT.

    Each is a text, or has ``in`` and ``out``.

    Raises:
        ValueError: One is neither; says which.
    """
    found = []
    for number, value in enumerate(values, 1):
        said = value.get("in") if isinstance(value, Mapping) else value
        out = value.get("out", said) if isinstance(value, Mapping) else value
        if not isinstance(said, str | int | float) or not isinstance(out, str | int | float):
            raise ValueError(
                f'value {number} of the list "{name}" is neither a text nor has "in" and "out"'
            )
        place = Place(source=f'list "{name}", value {number}', column=1)
        found.append(TextValue(said=Written(text=str(said), place=place), out=out))
    return TextList(values=tuple(found))
