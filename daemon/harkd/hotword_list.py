"""Words that are likelier here: as they are written down, and what is wrong with them.

In: the settings' text, a file that it names, or a JSON list. Out: `Hotwords`, or a ValueError whose
words say how to mend it. Pure, but for `resolved`, which reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

MOST: Final = 200
"""Hotwords."""
LONGEST: Final = 64
"""Characters of one."""
MOST_BYTES: Final = 16 * 1024
"""Of a file or a message."""
DEFAULT_BOOST: Final = 2.0
MOST_BOOST: Final = 10.0
SHOWN: Final = 40
"""So many characters of a wrong one are repeated in the words for it."""
_FORBIDDEN = re.compile(r"[^\w\s'’.&/-]|_")


@dataclass(frozen=True, slots=True)
class Hotword:
    """A word, or several in a row."""

    phrase: str
    """With one space between words."""
    boost: float = DEFAULT_BOOST
    """How much likelier each of its tokens is, as a log-probability, 0…10."""


Hotwords: TypeAlias = tuple[Hotword, ...]


def from_text(text: str) -> Hotwords:
    """Return what ``Siobhan:2.5, Ikea`` says. Raises ValueError."""
    return _checked(_entry(part) for part in text.replace("\n", ",").split(",") if part.strip())


def from_lines(text: str) -> Hotwords:
    """Return what a file says: one hotword a line, # begins a comment. Raises ValueError."""
    found: list[Hotword] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].strip()
        try:
            if words:
                found.append(_entry(words))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    return _checked(found)


def from_json(payload: bytes) -> Hotwords:
    """Return what a list of words, or of ``{"word", "boost"}``, says. Raises ValueError."""
    mend = 'send a list such as ["Ikea", {"word": "Siobhan", "boost": 2.5}]'
    try:
        body = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError(f"this is not JSON; {mend}") from None
    if not isinstance(body, list):
        raise ValueError(f"this is no list; {mend}")
    return _checked(_entry_of(each, mend) for each in body)


def to_text(hotwords: Iterable[Hotword]) -> str:
    """Return what `from_text` reads."""
    return ", ".join(
        each.phrase if each.boost == DEFAULT_BOOST else f"{each.phrase}:{each.boost:g}"
        for each in hotwords
    )


def to_json(hotwords: Sequence[Hotword]) -> str:
    """Return what `from_json` reads."""
    listed = [{"word": each.phrase, "boost": each.boost} for each in hotwords]
    return msgspec.json.encode(listed).decode()


def resolved(text: str, base: Path | None = None) -> str:
    """Return the hotwords of a settings' text, or of the file that it names after an @, as text.

    Args:
        text: As in the settings.
        base: Where a relative path begins; the working directory if omitted.

    Raises:
        ValueError: They are not all hotwords, or the file cannot be read.
    """
    if not text.strip().startswith("@"):
        return to_text(from_text(text))
    path = Path(text.strip()[1:].strip()).expanduser()
    path = base / path if base else path
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        lines = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"{path} cannot be read ({why}); check the path and its rights") from None
    if len(data) > MOST_BYTES:
        raise ValueError(f"{path} is larger than {MOST_BYTES} bytes; shorten it")
    try:
        return to_text(from_lines(lines))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _entry(text: str) -> Hotword:
    phrase, colon, boost = text.rpartition(":")
    if not colon:
        return _hotword(text, DEFAULT_BOOST)
    try:
        return _hotword(phrase, float(boost))
    except ValueError as error:
        if str(error).startswith("could not convert"):
            raise ValueError(
                f'"{boost.strip()[:SHOWN]}" is no boost; write a number from 0 to {MOST_BOOST:g} '
                "after the colon, as in Siobhan:2.5"
            ) from None
        raise


def _entry_of(value: object, mend: str) -> Hotword:
    if isinstance(value, str):
        return _hotword(value, DEFAULT_BOOST)
    if isinstance(value, dict) and value.keys() <= {"word", "boost"}:
        word, boost = value.get("word"), value.get("boost", DEFAULT_BOOST)
        if isinstance(word, str) and type(boost) in (int, float):
            return _hotword(word, float(boost))
    raise ValueError(f"{msgspec.json.encode(value).decode()[:SHOWN]} is no hotword; {mend}")


def _hotword(phrase: str, boost: float) -> Hotword:
    phrase = " ".join(phrase.split())
    shown = '"' + "".join(c if c.isprintable() else "�" for c in phrase[:SHOWN]) + '"'
    if not 0 <= boost <= MOST_BOOST:
        raise ValueError(f"the boost of {shown} is {boost:g}; take one from 0 to {MOST_BOOST:g}")
    if len(phrase) > LONGEST:
        raise ValueError(f"{shown} … has {len(phrase)} characters; take {LONGEST} at most")
    if _FORBIDDEN.search(phrase) or not any(map(str.isalpha, phrase)):
        raise ValueError(
            f"{shown} is no word; write letters, digits, spaces and ' - . & /, numbers as words"
        )
    return Hotword(phrase, boost)


def _checked(found: Iterable[Hotword]) -> Hotwords:
    hotwords = {each.phrase: each for each in found}  # of twice the same, the last counts
    if len(hotwords) > MOST:
        raise ValueError(f"these are {len(hotwords)} hotwords; take {MOST} at most")
    return tuple(hotwords.values())
