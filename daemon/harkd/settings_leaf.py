"""One option: what it may hold, whether a value fits, and words for what is wrong.

In: the settings' classes, and an `Entry` from the file or the environment. Out: the judged value,
or the words of a `Fault`. Runs where `settings_file` does.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

import msgspec
from msgspec import inspect

from harkd.settings_file import (
    ENVIRONMENT,
    INPUTS,
    Entry,
    Fault,
    Keys,
    Kind,
    Shape,
    plain,
    quoted,
)


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """One option: what its type in the settings' classes says of it."""

    keys: Keys
    """Its path."""
    hint: Any
    """Its annotation, which msgspec checks."""
    kind: Kind
    """What it holds."""
    allowed: str
    """Its range or choices, in words."""
    default: object
    """Its value where nothing is set."""
    secret: bool
    """Whether its value must not be shown."""
    number_as_text: bool
    """Whether a number that YAML sees is meant as the text that was written."""


def leaves_of(section: type, above: Keys = ()) -> dict[Keys, Leaf]:
    """Returns the options of a dataclass of sections, in the order of its fields."""
    leaves: dict[Keys, Leaf] = {}
    hints = get_type_hints(section, include_extras=True)
    info = inspect.type_info(section)
    for entry in info.fields if isinstance(info, inspect.DataclassType) else ():
        keys = (*above, entry.name)
        if isinstance(entry.type, inspect.DataclassType):
            leaves |= leaves_of(entry.type.cls, keys)
            continue
        if isinstance(entry.type, inspect.DictType):  # see `settings_inputs`
            continue
        bare, words, extra = entry.type, "", {}
        if isinstance(bare, inspect.Metadata):
            words = (bare.extra_json_schema or {}).get("description", "")
            extra = bare.extra or {}
            bare = bare.type
        leaves[keys] = Leaf(
            keys=keys,
            hint=hints[entry.name],
            kind=_kind(bare),
            allowed=words or _allowed(bare, hints[entry.name]),
            default=entry.default,
            secret=extra.get("secret", False),
            number_as_text=extra.get("number_as_text", False),
        )
    return leaves


def _kind(info: inspect.Type) -> Kind:
    match info:
        case inspect.StrType():
            return "text"
        case inspect.IntType():
            return "whole number"
        case inspect.FloatType():
            return "number"
        case inspect.BoolType():
            return "true or false"
        case _:
            return "choice"


def _allowed(info: inspect.Type, hint: Any) -> str:
    match info:
        case inspect.IntType(ge=low, le=high) | inspect.FloatType(ge=low, le=high):
            return f"{low}…{high}"
        case inspect.LiteralType():  # its `values` are sorted; the annotation has our order
            plain_hint = get_args(hint)[0] if get_origin(hint) is Annotated else hint
            *others, last = map(str, get_args(plain_hint))
            return f"{', '.join(others)} or {last}" if others else last
        case inspect.UnionType(types=types):
            return " or ".join(map(_allowed, types, get_args(hint)))
        case inspect.BoolType():
            return "true or false"
        case _:
            return "text"


def judge(leaf: Leaf, entry: Entry) -> tuple[Any, str]:
    """Returns the value to use and, where the entry has a fault, words for it (else "")."""
    value = entry.value
    if isinstance(value, Shape):
        what, mend = value.value
        return None, f"{what} stands where one plain value belongs ({leaf.allowed}); {mend}"
    if value is None:
        # `password: #1234` is a comment to YAML: silently no password.
        quotes = '; text that begins with "#" needs quotes' if leaf.kind == "text" else ""
        return None, f"has no value ({leaf.allowed}); write one, or delete the line{quotes}"
    if leaf.number_as_text and isinstance(value, int | float) and not isinstance(value, bool):
        value = entry.raw
    if leaf.kind == "choice" and isinstance(value, bool):
        value = entry.raw  # to YAML, `off` without quotes is false
    if (converted := _converted(leaf, value)) is None:
        return None, _words_for(leaf, entry)
    if isinstance(converted, str) and any(c < " " or c == "\x7f" or _lone(c) for c in converted):
        return None, "holds a line break or another character that is no text; delete it"
    return converted, ""


def _converted(leaf: Leaf, value: object) -> Any:
    if leaf.kind == "whole number" and isinstance(value, float):
        return None  # msgspec would take 1.0 for 1; "1.000" may have meant a thousand
    try:
        return msgspec.convert(value, leaf.hint, strict=True)
    except (msgspec.ValidationError, UnicodeEncodeError):  # the latter: half a surrogate pair
        return None


def _lone(character: str) -> bool:
    """Whether this is half a surrogate pair: a byte of the environment that is not UTF-8."""
    return "\ud800" <= character <= "\udfff"


def _words_for(leaf: Leaf, entry: Entry) -> str:
    value = entry.value
    text = isinstance(value, str)
    raw = entry.raw.strip()  # the environment may have a line break after a number
    shown = "what is written" if leaf.secret else quoted(entry.raw) if text else raw[:40]
    if leaf.kind == "text" and not text:
        return f"{shown} is {_read_as(value)} to YAML, not text; put it in quotes"
    mend = _mend(leaf, entry.raw) if text else ""
    if leaf.kind in ("text", "choice"):
        return f"{shown} is not allowed ({leaf.allowed}){mend}"
    if leaf.kind == "true or false":
        return f"{shown} is neither true nor false{mend}"
    if (
        text
        or isinstance(value, bool)
        or (leaf.kind == "whole number" and isinstance(value, float))
    ):
        return f"{shown} is not a {leaf.kind} ({leaf.allowed}){mend}"
    return f"{shown} is out of range ({leaf.allowed})"


def _read_as(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "a number"


def _mend(leaf: Leaf, raw: str) -> str:
    """Returns "; write …" where it is plain what was meant: 1883 in quotes, 600ms, 2,5, warn."""
    unit = leaf.keys[-1].rpartition("_")[2]
    bare = raw.strip(" \"'").removesuffix(unit if unit in ("ms", "s") else "").strip()
    if leaf.kind == "number":
        bare = bare.replace(",", ".")
    value = plain(bare)
    if not isinstance(value, str | None) and _converted(leaf, value) is not None:
        return f"; write {bare} without quotes" if bare in raw else f"; write {bare}"
    choices = leaf.allowed.replace(" or ", ", ").split(", ") if leaf.kind == "choice" else []
    near = difflib.get_close_matches(raw[:40].lower(), choices, 1)
    return f'; did you mean "{near[0]}"?' if near else ""


def unknown(keys: Keys, entry: Entry, leaves: Mapping[Keys, Leaf]) -> str:
    """Returns words for an entry of the file that is no option, or "" where it is no fault."""
    sections = {leaf_keys[0] for leaf_keys in leaves if len(leaf_keys) > 1}
    if len(keys) == 1 and keys[0] in sections:
        if entry.value is None or entry.value is Shape.SECTION:
            return ""
        return (
            "is a section, not a value; write its options on the lines below it, indented by two "
            "spaces"
        )
    if keys[:-1] and keys[0] not in sections:
        return ""  # its section is the fault
    siblings = {one[len(keys) - 1] for one in leaves if one[: len(keys) - 1] == keys[:-1]}
    name = keys[-1][:80]
    section, _, option = name.rpartition(".")
    elsewhere = [one for one in leaves if one[-1] == option]
    under = [one[0] for one in elsewhere if len(one) > 1]
    under = [section] if section in under else under
    if under:
        places = " or ".join(f'"{one}:"' for one in under)
        return f'unknown key; "{option}" belongs under {places}'
    if elsewhere:
        return f'unknown key; "{option}" belongs at the left margin, under no section'
    near = difflib.get_close_matches(name.lower(), siblings, 1)
    if near:
        return f'unknown key; did you mean "{near[0]}"?'
    return f"unknown key (known: {', '.join(sorted(siblings))})"


RESERVED: Final = frozenset({"HARKD_CONFIG", "HARKD_MODELS"})
"""Variables with a meaning that is no option of the file."""
_SERVICE_LINK: Final = re.compile(
    r"HARKD_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
"""Kubernetes and Docker set these in every container beside a service called harkd-something.

https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""


def read_environment(
    environ: Mapping[str, str], leaves: Mapping[Keys, Leaf]
) -> tuple[dict[Keys, Entry], list[Fault]]:
    """Returns the entries of the ``HARKD_<SECTION>__<KEY>`` variables, and the names unknown."""
    options = {"HARKD_" + "__".join(keys).upper(): keys for keys in leaves}
    entries: dict[Keys, Entry] = {}
    faults: list[Fault] = []
    for name, raw in sorted(environ.items()):
        if keys := options.get(name):
            leaf = leaves[keys]
            value = raw if leaf.kind == "text" else plain(raw.strip())
            entries[keys] = Entry(place=ENVIRONMENT, name=name, value=value, raw=raw)
        elif name.startswith("HARKD_") and name not in RESERVED and not _is_service_link(name, raw):
            known = [one.removeprefix("HARKD_") for one in [*options, *sorted(RESERVED)]]
            near = difflib.get_close_matches(name.removeprefix("HARKD_").upper(), known, 1)
            words = f"did you mean HARKD_{near[0]}?" if near else "unset it"
            if name.upper().startswith(f"HARKD_{INPUTS.upper()}"):
                words = "inputs can be set in the settings file only"
            faults.append(Fault(place=ENVIRONMENT, name=name, text=f"unknown variable; {words}"))
    return entries, faults


def _is_service_link(name: str, value: str) -> bool:
    if "__" in name:
        return False
    return bool(_SERVICE_LINK.fullmatch(name)) or (name.endswith("_PORT") and "://" in value)
