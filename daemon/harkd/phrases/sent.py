"""Phrases that were sent over MQTT: YAML or JSON in the form of a phrases file. Pure.

In: the payload of ``phrases/set``. Out: `Sent`, or `PhrasesError` with a place in the payload for
each fault. Any thread.

With ``intents`` it stands for itself, in place of all phrases of the settings; else its lists
take the place of those with their names. Its ``mode`` goes before that of the settings.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

import yaml

from harkd.errors import PhrasesError
from harkd.phrases.checking import near
from harkd.phrases.compiling import faulty
from harkd.phrases.file import FileReader
from harkd.phrases.file_nodes import Nodes
from harkd.phrases.source import PhraseSource
from harkd.settings_file import Fault, compose, quoted

Scope = Literal["all", "lists", "nothing"]
Mode = Literal["open", "prefer", "only"]

SOURCE: Final = Path("phrases/set")
"""Where it came from, in the places of its faults."""
MOST_BYTES: Final = 255 * 1024
"""2,000 templates have some 200 kB; a broker sends 256 KiB in all at most."""
KNOWN: Final = ("intents", "lists", "mode")
ONLY_WITH_INTENTS: Final = frozenset({"language", "expansion_rules", "skip_words"})
_ESCAPE: Final = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|.)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What was sent, but for the mode alone."""

    text: str
    """As it came."""
    scope: Scope
    """What of the settings' phrases it takes the place of."""
    mode: Mode | Literal[""] = ""
    """What phrases are for; empty where the settings say."""
    root: yaml.Node | None = field(default=None, compare=False, repr=False)
    """Its nodes, where they are at hand."""

    def read(self, faults: list[Fault]) -> FileReader:
        """Return what has read it; what is wrong is added to `faults`."""
        text = as_yaml(self.text)
        root = self.root or compose(SOURCE, text, faults)
        reader = FileReader(faults)
        if root is not None:
            reader.read_node(Nodes(SOURCE, text, faults), root, also={"mode"})
        return reader


def read_sent(payload: bytes) -> Sent | None:
    """Return what was sent; None for an empty object, which goes back to the settings.

    Raises:
        PhrasesError: It is too large, or no object in this form. Its templates are not looked at.
    """
    text = decoded(payload)
    faults: list[Fault] = []
    root = compose(SOURCE, as_yaml(text), faults)
    if faults:
        raise faulty(faults)
    if not isinstance(root, yaml.MappingNode):
        raise PhrasesError(
            f'{SOURCE}: it is no object; send {{"intents": …}}, {{"lists": …}}, or {{}} for the '
            "phrases of the settings"
        )
    nodes = Nodes(SOURCE, text, faults)
    if twice := next(_twice(root), None):
        nodes.fault(twice, "aliases (*) are not read here; write it out")
        raise faulty(faults)
    mode, scope = _mode_and_scope(nodes, root)
    if faults:
        raise faulty(faults)
    return Sent(text=text, scope=scope, mode=mode, root=root) if root.value else None


def _mode_and_scope(nodes: Nodes, root: yaml.Node) -> tuple[Mode | Literal[""], Scope]:
    """Return what holds for all of it, and tell of parts that do not belong there."""
    parts = {name: (key, value) for name, key, value in nodes.entries(root, "phrases")}
    mode: Mode | Literal[""] = ""
    if "mode" in parts:
        key, value = parts["mode"]
        said = nodes.scalar(value)
        mode = next((known for known in get_args(Mode) if said == known), "")
        if not mode:
            nodes.fault(key, '"mode" is open, prefer or only; correct it')
    if "intents" in parts:
        return mode, "all"
    for name, (key, _) in parts.items():
        if name in ONLY_WITH_INTENTS:
            nodes.fault(key, f'"{name}" is for the "intents" beside it; send those, too')
        elif name not in KNOWN:
            nodes.fault(key, f'unknown key "{name}"{near(name, KNOWN, "intents")}')
    return mode, "lists" if "lists" in parts else "nothing"


def decoded(payload: bytes) -> str:
    """Return the text of a payload. Raises PhrasesError."""
    if len(payload) > MOST_BYTES:
        raise PhrasesError(
            f"{SOURCE}: {len(payload)} bytes are more than {MOST_BYTES}; write the phrases into a "
            "file that phrases.file names"
        )
    try:
        return payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = payload.count(b"\n", 0, error.start) + 1
        byte = payload[error.start]
        raise PhrasesError(
            f"{SOURCE}:{line}: is not UTF-8 text (byte 0x{byte:02x}); send UTF-8"
        ) from error


def as_yaml(text: str) -> str:
    """Return the text as the YAML reader takes it, each character in its place where that can be.

    JSON may have tabs between its values, and writes a character beyond U+FFFF as two escapes;
    YAML has neither.
    """
    if not text.lstrip().startswith("{") or ("\t" not in text and "\\u" not in text):
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    # No text of a JSON document has a tab in it.
    return _ESCAPE.sub(_as_one, text.replace("\t", " "))


def _as_one(escape: re.Match[str]) -> str:
    found = escape.group()
    return str(json.loads(f'"{found}"')) if len(found) > 2 else found


def _twice(root: yaml.Node) -> Iterator[yaml.Node]:
    """Yield the nodes that stand in several places, which could make a short text very long."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            yield node
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def placed(sent: FileReader, known: PhraseSource) -> PhraseSource:
    """Return the known phrases with the lists that were sent in place of those with their names.

    A list that takes no other one's place is added to the reader's faults.
    """
    lists = sent.source().scope.lists
    names = {*known.scope.lists}.union(*(template.own.lists for template in known.templates))
    for name in lists:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            mend = f'did you mean "{close[0]}"?' if close else "send templates that use it, too"
            text = f"the phrases of the settings have no list {quoted(name)}; {mend}"
            sent.faults.append(Fault(place=sent.place_of_list(name), text=text))
    return known.with_lists(lists)
