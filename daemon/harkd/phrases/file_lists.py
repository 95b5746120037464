"""One list of a phrases file: texts, or a range of numbers. Pure."""

from __future__ import annotations

import contextlib
from typing import Any, Final, get_args

import yaml

from harkd.phrases.builder import SlotValue
from harkd.phrases.checking import near
from harkd.phrases.file_nodes import Nodes
from harkd.phrases.numbers import Fractions, NumberRange, in_reach
from harkd.phrases.source import AnyList, TextList, TextValue, Written
from harkd.phrases.spoken import LARGEST
from harkd.phrases.template import TemplateFault, parse, plainest

NOTHING: Final = TextList(values=())
RANGE: Final = frozenset({"from", "to", "step", "multiplier", "fractions", "digits", "words"})
RANGE_WITHOUT_EFFECT: Final = frozenset({"type", "words_language"})
VALUE: Final = frozenset({"in", "out"})
VALUE_WITHOUT_EFFECT: Final = frozenset({"context", "metadata"})


def read_list(nodes: Nodes, name: str, node: yaml.Node) -> AnyList:
    """Return a list; an empty one, and a fault, where it cannot be read."""
    if isinstance(node, yaml.SequenceNode):
        return _values(nodes, node)
    parts = {key: (place, part) for key, place, part in nodes.entries(node, "lists")}
    if "wildcard" in parts:
        return NOTHING  # free text is what open transcription is for
    unknown = [key for key in parts if key not in ("values", "range")]
    for key in unknown:
        nodes.fault(parts[key][0], f'unknown key "{key}"; write "values:" or "range:"')
    if "values" in parts and "range" in parts:
        nodes.fault(node, f'"{name}" has both values and a range; delete one of them')
    elif "values" in parts:
        return _values(nodes, parts["values"][1])
    elif "range" in parts:
        return _range(nodes, parts["range"][1]) or NOTHING
    elif not unknown:
        nodes.fault(node, f'"{name}" has no values; write them as [kitchen, bath], or [] for none')
    return NOTHING


def _values(nodes: Nodes, node: yaml.Node) -> TextList:
    found = []
    for item in nodes.items(node, "values, each on a line with a dash"):
        value = _value(nodes, item)
        if value is not None:
            found.append(value)
    return TextList(values=tuple(found))


def _value(nodes: Nodes, node: yaml.Node) -> TextValue | None:
    if not isinstance(node, yaml.MappingNode):
        said = nodes.text(node, "a text")
        return _text_value(said, nodes.value(node)) if said else None
    parts: dict[str, yaml.Node] = {}
    for name, key, part in nodes.entries(node, "values"):
        if name in VALUE:
            parts[name] = part
        elif name not in VALUE_WITHOUT_EFFECT:
            nodes.fault(key, f'unknown key "{name}"; a value has "in" and "out"')
    if "in" not in parts:
        nodes.fault(node, 'has no "in:"; write how it is said')
        return None
    said = nodes.text(parts["in"], "a text")
    if "out" in parts:
        out = nodes.value(parts["out"])
        if out is None:
            nodes.fault(parts["out"], '"out" is one text or number')
        return _text_value(said, out) if said else None
    return _text_value(said, None) if said else None


def _text_value(said: Written, out: SlotValue | None) -> TextValue:
    """Return a value; where nothing is said of what the slot gets, the plainest way to say it."""
    if out is None or out == said.text:
        with contextlib.suppress(TemplateFault):  # told when everything is checked
            out = " ".join(plainest(parse(said.text)).split()) or said.text
    return TextValue(said=said, out=said.text if out is None else out)


def _range(nodes: Nodes, node: yaml.Node) -> NumberRange | None:
    given: dict[str, Any] = {}
    sound = True
    for name, key, part in nodes.entries(node, "a range's options"):
        if name in RANGE:
            given[name] = nodes.scalar(part)
            wrong = _wrong(name, given[name])
        elif name in RANGE_WITHOUT_EFFECT:
            continue
        else:
            wrong = f'unknown key "{name}"{near(name, RANGE, "range")}'
        if wrong:
            nodes.fault(key, wrong)
            sound = False
    missing = [name for name in ("from", "to") if name not in given]
    if sound and missing:
        nodes.fault(node, f'a range has no "{missing[0]}:"; write its first and its last number')
        sound = False
    if not sound:
        return None
    if given["from"] > given["to"]:
        nodes.fault(node, f"{given['from']} is more than {given['to']}; exchange them")
        return None
    if given.get("words") is False and given.get("digits") is False:
        nodes.fault(node, "neither digits nor words can be heard; delete one of the two lines")
        return None
    return NumberRange(
        low=given["from"],
        high=given["to"],
        step=given.get("step", 1),
        multiplier=given.get("multiplier"),
        fractions=given.get("fractions"),
        digits=given.get("digits", True),
        words=given.get("words", True),
    )


def _wrong(name: str, value: object) -> str:
    """Return what is wrong with one option of a range, and the mend; else ""."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    match name:
        case "from" | "to":
            fits = whole and in_reach(value)  # type: ignore[arg-type]
            wanted = f"a whole number, −{LARGEST}…{LARGEST}"
        case "step":
            fits, wanted = whole and value >= 1, "a whole number from 1"  # type: ignore[operator]
        case "multiplier":
            fits = isinstance(value, int | float) and not isinstance(value, bool)
            wanted = "a number"
        case "fractions":
            fits, wanted = value in get_args(Fractions), " or ".join(get_args(Fractions))
        case _:
            fits, wanted = isinstance(value, bool), "true or false"
    return "" if fits else f'"{name}" is {wanted}; correct it'
