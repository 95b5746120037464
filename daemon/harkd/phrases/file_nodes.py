"""Nodes of a YAML file as texts and values with their places; what does not fit is told. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from harkd.phrases.builder import SlotValue
from harkd.phrases.source import Written
from harkd.settings_file import Fault, Place, plain


class Nodes:
    """Reads the nodes of one file."""

    def __init__(self, path: Path, text: str, faults: list[Fault]) -> None:
        self._source = str(path)
        self._text = text
        self._faults = faults

    def place(self, node: yaml.Node) -> Place:
        """Return where a node begins."""
        mark = node.start_mark
        return Place(source=self._source, line=mark.line + 1, column=mark.column + 1)

    def fault(self, node: yaml.Node, text: str) -> None:
        """Note a fault."""
        self._faults.append(Fault(place=self.place(node), text=text))

    def entries(
        self, node: yaml.Node | None, what: str
    ) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        """Yield the names of a mapping, each with the node of its name and of its value."""
        if node is None or _is_null(node):
            return
        if not isinstance(node, yaml.MappingNode):
            self.fault(node, f'{what} are lines of "name: …"; write the name and a colon')
            return
        known: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.fault(
                    key,
                    "brackets stand where a name belongs; put a template that begins with a "
                    "bracket in quotes",
                )
            elif key.value in known:
                line = known[key.value].start_mark.line + 1
                self.fault(key, f'"{key.value}" is there twice, first in line {line}; join them')
            else:
                known[key.value] = key
                yield key.value, key, value

    def items(self, node: yaml.Node | None, what: str) -> Iterator[yaml.Node]:
        """Yield the items of a list."""
        if node is None or _is_null(node):
            return
        if not isinstance(node, yaml.SequenceNode):
            self.fault(node, f"here belong {what}")
            return
        yield from node.value

    def text(self, node: yaml.Node, what: str) -> Written | None:
        """Return a text with its place; None, and a fault, where there is none."""
        if not isinstance(node, yaml.ScalarNode) or _is_null(node):
            words = f"here belongs {what}"
            if isinstance(node, yaml.SequenceNode | yaml.MappingNode):
                words += '; text that begins with a bracket, or has ": " in it, needs quotes'
            self.fault(node, words)
            return None
        start, end = node.start_mark, node.end_mark
        raw = self._text[start.index : end.index] if start.line == end.line else ""
        place = self.place(node)
        value: str = node.value
        if node.style in ("'", '"') and raw[1:-1] == value:
            place = Place(source=place.source, line=place.line, column=place.column + 1)
            return Written(text=value, place=place)
        return Written(text=value, place=place, exact=raw.rstrip() == value)

    def value(self, node: yaml.Node) -> SlotValue | None:
        """Return a plain value; what YAML takes for true or a date is the text that was written."""
        if not isinstance(node, yaml.ScalarNode) or _is_null(node):
            return None
        if node.style is None:
            found = plain(node.value)
            if isinstance(found, int | float) and not isinstance(found, bool):
                return found
        return str(node.value)

    def scalar(self, node: yaml.Node) -> object:
        """Return a plain value as YAML has it; None where a list or a section stands."""
        if not isinstance(node, yaml.ScalarNode):
            return None
        return plain(node.value) if node.style is None else node.value


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"
