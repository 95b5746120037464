"""Phrases files: what stands in them, and on which line and column.

In: YAML of the form that Home Assistant's sentences have, or a shorter one. Out: `PhraseSource`,
and a `Fault` for everything that cannot be meant. Any thread; reads no file itself.

::

    intents:
      light_on:                       # its templates,
        - turn on [the] {lamp}
        - sentences: [lights on]      # or a block of them with what they share
          slots: {lamp: all}
    lists:
      lamp: [desk lamp, {in: (tv|telly) light, out: light.tv}]
      percent: {range: {from: 0, to: 100}}
    expansion_rules:
      area: "[the] {area}"
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from harkd.phrases.builder import SlotValue
from harkd.phrases.checking import near
from harkd.phrases.file_lists import read_list
from harkd.phrases.file_nodes import Nodes
from harkd.phrases.source import AnyList, PhraseSource, Scope, Template, Written
from harkd.settings_file import Fault, Place, compose
from harkd.settings_phrases import OPTIONS, SECTION

WITHOUT_EFFECT: Final = frozenset({"settings", "responses"})
"""What Home Assistant's files have too, and harkd has no use for."""
IN_BLOCK: Final = frozenset({"sentences", "slots", "metadata", "lists", "expansion_rules"})
BLOCK_WITHOUT_EFFECT: Final = frozenset(
    {
        *("response", "requires_context", "excludes_context", "required_keywords", "settings"),
        *("inferred_domain", "name_domains", "example_sentence"),
    }
)
LONGEST_INTENT: Final = 100
"""Characters of an intent's name."""
MOST_TEMPLATES: Final = 20_000
"""More are not written by people, and would take minutes."""


@dataclass
class FileReader:
    """Reads one file after another into one set."""

    faults: list[Fault] = field(default_factory=list)
    """What is wrong so far."""
    _templates: list[Template] = field(default_factory=list)
    _lists: dict[str, AnyList] = field(default_factory=dict)
    _rules: dict[str, Written] = field(default_factory=dict)
    _places: dict[tuple[str, str], Place] = field(default_factory=dict)
    _skip_words: list[Written] = field(default_factory=list)
    _english: bool = True

    def read(self, path: Path, text: str, *, inline: bool = False) -> None:
        """Read a phrases file; or, where `inline`, what a settings file has under `SECTION`."""
        before = len(self.faults)
        root = compose(path, text, self.faults)
        nodes = Nodes(path, text, self.faults)
        if inline and isinstance(root, yaml.MappingNode):
            sections = [value for key, value in root.value if key.value == SECTION]
            if not sections or not isinstance(sections[0], yaml.MappingNode):
                return
            root = sections[0]
        if root is None:
            if not inline and len(self.faults) == before:
                place = Place(source=str(path))
                self.faults.append(Fault(place=place, text='is empty; write "intents:" and some'))
            return
        self.read_node(nodes, root, also=OPTIONS if inline else frozenset())

    def read_node(self, nodes: Nodes, root: yaml.Node, also: Collection[str]) -> None:
        """Read what `read` has composed; names in `also` mean something elsewhere."""
        parts: dict[str, Callable[[Nodes, yaml.Node], None]] = {
            "language": self._language,
            "intents": self._intents,
            "lists": lambda nodes, node: self._take_lists(nodes, node),
            "expansion_rules": lambda nodes, node: self._take_rules(nodes, node),
            "skip_words": self._skipped,
        }
        for name, key, node in nodes.entries(root, "phrases files"):
            if name in parts:
                parts[name](nodes, node)
            elif name not in WITHOUT_EFFECT and name not in also:
                nodes.fault(key, f'unknown key "{name}"{near(name, parts, "intents")}')

    def place_of_list(self, name: str) -> Place:
        """Return where a list was defined."""
        return self._places["lists", name]

    def source(self) -> PhraseSource:
        """Return what was read."""
        return PhraseSource(
            templates=tuple(self._templates),
            scope=Scope(lists=self._lists, rules=self._rules),
            skip_words=tuple(self._skip_words),
            english=self._english,
        )

    def _language(self, nodes: Nodes, node: yaml.Node) -> None:
        language = nodes.text(node, "a language, as in: language: en")
        if language is not None:
            self._english = language.text.partition("-")[0].lower() == "en"

    def _intents(self, nodes: Nodes, node: yaml.Node) -> None:
        for name, key, blocks in nodes.entries(node, "intents"):
            if words := _no_topic_level(name):
                nodes.fault(key, f"an intent's name is in topics; {words}")
                continue
            for template in self._templates_of(nodes, name, blocks):
                self._templates.append(template)
                if len(self._templates) == MOST_TEMPLATES + 1:
                    nodes.fault(key, f"more than {MOST_TEMPLATES} templates; write fewer")
                    return

    def _templates_of(self, nodes: Nodes, intent: str, node: yaml.Node) -> Iterator[Template]:
        if isinstance(node, yaml.MappingNode):  # as Home Assistant has it
            for name, key, data in nodes.entries(node, "intents"):
                if name == "data" and not isinstance(data, yaml.MappingNode):
                    yield from self._templates_of(nodes, intent, data)
                elif name != "description":
                    nodes.fault(key, f'unknown key "{name}"; write "data:", or a list of templates')
            return
        for item in nodes.items(node, "templates, each on a line with a dash"):
            if isinstance(item, yaml.MappingNode):
                yield from self._block(nodes, intent, item)
            elif written := nodes.text(item, "a template"):
                yield Template(intent=intent, written=written)

    def _block(self, nodes: Nodes, intent: str, node: yaml.MappingNode) -> Iterator[Template]:
        parts = dict[str, yaml.Node]()
        for name, key, part in nodes.entries(node, "templates"):
            if name in IN_BLOCK:
                parts[name] = part
            elif name not in BLOCK_WITHOUT_EFFECT:
                words = f'unknown key "{name}"{near(name, IN_BLOCK, "sentences")}'
                nodes.fault(key, words + '; a template with ": " in it needs quotes')
        if "sentences" not in parts:
            nodes.fault(node, 'has no "sentences:"; write the templates below that')
            return
        slots = self._plain_values(nodes, parts.get("slots"), "slots")
        metadata = self._plain_values(nodes, parts.get("metadata"), "metadata")
        own = self._own_scope(nodes, parts)
        sentences = parts["sentences"]
        texts = [sentences] if isinstance(sentences, yaml.ScalarNode) else None
        for item in texts or nodes.items(sentences, "templates, each on a line with a dash"):
            if written := nodes.text(item, "a template"):
                yield Template(
                    intent=intent, written=written, slots=slots, metadata=metadata, own=own
                )

    def _plain_values(
        self, nodes: Nodes, node: yaml.Node | None, what: str
    ) -> dict[str, SlotValue]:
        found: dict[str, SlotValue] = {}
        for name, key, part in nodes.entries(node, what):
            value = nodes.value(part)
            if value is None:
                nodes.fault(key, f'"{name}" has no plain value; write one text or number')
            else:
                found[name] = value
        return found

    def _own_scope(self, nodes: Nodes, parts: dict[str, yaml.Node]) -> Scope:
        own = FileReader(self.faults)
        own._take_lists(nodes, parts.get("lists"))
        own._take_rules(nodes, parts.get("expansion_rules"))
        return Scope(lists=own._lists, rules=own._rules)

    def _new(self, nodes: Nodes, section: str, name: str, key: yaml.Node) -> bool:
        place = nodes.place(key)
        first = self._places.setdefault((section, name), place)
        if first is not place:
            nodes.fault(key, f'"{name}" is defined twice, first in {first}; delete one of them')
        return first is place

    def _take_lists(self, nodes: Nodes, node: yaml.Node | None) -> None:
        for name, key, part in nodes.entries(node, "lists"):
            if self._new(nodes, "lists", name, key):
                # A faulty list is there, so that its uses are no faults of their own.
                self._lists[name] = read_list(nodes, name, part)

    def _take_rules(self, nodes: Nodes, node: yaml.Node | None) -> None:
        for name, key, part in nodes.entries(node, "expansion_rules"):
            if self._new(nodes, "expansion_rules", name, key):
                written = nodes.text(part, "a template")
                place = nodes.place(key)
                self._rules[name] = written or Written(text="x", place=place)

    def _skipped(self, nodes: Nodes, node: yaml.Node) -> None:
        for item in nodes.items(node, "words, as in [please, now]"):
            if written := nodes.text(item, "words"):
                self._skip_words.append(written)


def _no_topic_level(name: str) -> str:
    """Return why a name can be no level of a topic, and the mend; else ""."""
    if not name.strip():
        return "write one"
    # Brokers may refuse control characters and what is no character (MQTT 5, 1.5.4).
    if any(letter in "/#+" or not letter.isprintable() for letter in name):
        return 'use no "/", "#" or "+" in it, and nothing that cannot be seen'
    if len(name) > LONGEST_INTENT:
        return f"write one of {LONGEST_INTENT} characters at most"
    return ""
