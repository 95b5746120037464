"""English numbers: words → digits, digits → words. Pure.

In: a text as a recognizer writes it. Out: the same with its numbers written otherwise. What is no
plain number (ordinals, parts of names such as A4) stays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

UNITS: Final = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
)
TENS: Final = {
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
    "eighty": 80,
    "ninety": 90,
}
SMALL: Final = {word: number for number, word in enumerate(UNITS)}
SCALES: Final = {"thousand": 1000, "million": 1_000_000}
MOST: Final = 999_999_999
POINT: Final = "point"
ORDINALS: Final = frozenset(
    {"first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"}
)
BEFORE_PRONOUN: Final = frozenset(
    {"the", "this", "that", "which", "each", "every", "any", "no", "another", "some", "other"}
    | {"only", "last", "next", "right", "wrong"}
    | ORDINALS
)
"""After these, and before the next, "one" counts nothing."""
AFTER_PRONOUN: Final = frozenset({"of", "another", "day", "by"})
BEFORE_TIME: Final = frozenset(
    {"at", "until", "till", "by", "from", "to", "around", "about", "before", "after"}
)
AFTER_TIME: Final = frozenset(["am", "pm", "a.m", "p.m"])
_WORD = re.compile(r"[A-Za-z]+(?:\.[A-Za-z])?|[^A-Za-z]+")
_JOINT = re.compile(r" |-")
_NUMBER = re.compile(
    r"(?<![\w.,:/-])(?P<minus>[-−])?(?P<money>\$)?(?P<whole>\d{1,3}(?:,\d{3})+|\d+)"
    r"(?:\.(?P<decimals>\d+)|:(?P<minutes>[0-5]\d))?"
    r"(?P<unit> ?%| ?°[CF]?)?(?![\w/]|[.,:-]\d|-\w)"
)


def in_digits(text: str) -> str:
    """Return a text with the numbers that it spells in digits."""
    parts = _WORD.findall(text)
    written, at = [], 0
    while at < len(parts):
        if parts[at].lower() not in SMALL and parts[at].lower() not in (*TENS, "a"):
            written.append(parts[at])
            at += 1
            continue
        found, end = _number_at(parts, at)
        written.append(found if found else parts[at])
        at = end if found else at + 1
    return "".join(written)


def in_words(text: str) -> str:
    """Return a text with its numbers spelled, those of the clock and with units, too."""

    def spelled(found: re.Match[str]) -> str:
        said = _said(found)
        return said[:1].upper() + said[1:] if not text[: found.start()].strip() else said

    return _NUMBER.sub(spelled, text)


def cardinal(number: int) -> str:
    """Return a number from 0 to `MOST` in words."""
    for word, size in sorted(SCALES.items(), key=lambda each: -each[1]):
        if number >= size:
            rest = number % size
            return f"{cardinal(number // size)} {word}" + (f" {cardinal(rest)}" if rest else "")
    if number >= 100:
        rest = number % 100
        return f"{UNITS[number // 100]} hundred" + (f" {cardinal(rest)}" if rest else "")
    if number < len(UNITS):
        return UNITS[number]
    tens = next(word for word, size in TENS.items() if size == number // 10 * 10)
    return tens + (f"-{UNITS[number % 10]}" if number % 10 else "")


def _said(found: re.Match[str]) -> str:
    whole = found["whole"].replace(",", "")
    plain = int(whole) <= MOST and (whole == "0" or not whole.startswith("0"))
    said = cardinal(int(whole)) if plain else " ".join(UNITS[int(digit)] for digit in whole)
    if found["minutes"]:
        minutes = int(found["minutes"])
        said += " o'clock" if not minutes else " oh" * (minutes < 10) + f" {cardinal(minutes)}"
    if found["decimals"]:
        said += f" {POINT} " + " ".join(UNITS[int(digit)] for digit in found["decimals"])
    if found["minus"]:
        said = f"minus {said}"
    if found["money"]:
        said += " dollar" if whole == "1" and not found["decimals"] else " dollars"
    unit = (found["unit"] or "").strip()
    if unit == "%":
        said += " percent"
    elif unit:
        said += " degree" if whole == "1" and not found["decimals"] else " degrees"
        said += {"C": " Celsius", "F": " Fahrenheit"}.get(unit[1:], "")
    return said


def _number_at(parts: Sequence[str], at: int) -> tuple[str, int]:
    """Return the digits of the number that begins at a part, and where it ends; "" for none.

    Parts are words, and what is between them, in turn.
    """
    words: list[str] = []
    for i in range(at, len(parts), 2):
        if i > at and not _JOINT.fullmatch(parts[i - 1]):
            break
        words.append(parts[i].lower())
    before = parts[at - 2].lower() if at > 1 and parts[at - 1] == " " else ""
    value, count = _cardinal_of(words)
    if not count:
        return "", at + 1
    following = words[count] if len(words) > count else ""
    if words[:count] == ["one"] and (before in BEFORE_PRONOUN or following in AFTER_PRONOUN):
        return "", at + 1
    if words[count - 1] in TENS | {"hundred": 0} | SCALES and following in ORDINALS:
        return "".join(parts[at : at + 2 * count - 1]), at + 2 * count - 1
    written, more = _followed(value, words, count, before)
    return written, at + 2 * (count + more) - 1


def _followed(value: int, words: Sequence[str], count: int, before: str) -> tuple[str, int]:
    """Return a number with what belongs to it of what follows, and how many words that is.

    That may be minutes, the end of a year, or decimals.
    """
    rest = words[count:]
    minutes, more = _cardinal_of(rest)
    after = rest[more] if len(rest) > more else ""
    if count == 1 and more in (1, 2) and 10 <= minutes <= 99:
        timely = before in BEFORE_TIME or after in AFTER_TIME
        if 1 <= value <= 12 and minutes < 60 and timely:
            return f"{value}:{minutes}", more
        if 16 <= value <= 20 and after not in ORDINALS:
            return f"{value}{minutes}", more
    if list(rest[:1]) == [POINT]:
        digits = [SMALL.get(word, 10) for word in rest[1:]]
        end = next((i for i, digit in enumerate(digits) if digit > 9), len(digits))
        if end:
            return f"{value}." + "".join(map(str, digits[:end])), 1 + end
    return str(value), 0


def _cardinal_of(words: Sequence[str]) -> tuple[int, int]:
    """Return the number with which words begin, and how many words it is; 0 words for none."""
    total, at, scale = 0, 0, MOST + 1
    while True:
        skip = 1 if total and list(words[at : at + 1]) == ["and"] else 0
        value, count = _below_thousand(words[at + skip :])
        if not count:
            return total, at
        here = at + skip + count
        size = SCALES.get(words[here], 0) if here < len(words) else 0
        if size and size < scale and value:
            total, at, scale = total + value * size, here + 1, size
            continue
        if size and total:
            return total, at  # that is another number
        if total and (scale == MOST + 1 or (skip and value > 99) or not value):
            return total, at
        return total + value, here


def _below_thousand(words: Sequence[str]) -> tuple[int, int]:
    value, at = _below_hundred(words)
    if not at and list(words[:1]) == ["a"] and words[1:2] and words[1] in ("hundred", *SCALES):
        value, at = 1, 1
    if not at or not 1 <= value <= 99 or list(words[at : at + 1]) != ["hundred"]:
        return value, at
    value, at = value * 100, at + 1
    skip = 1 if list(words[at : at + 1]) == ["and"] else 0
    rest, count = _below_hundred(words[at + skip :])
    if list(words[at + skip + count :][:1]) == ["hundred"]:
        rest = 0  # that is another number
    return (value + rest, at + skip + count) if rest else (value, at)


def _below_hundred(words: Sequence[str]) -> tuple[int, int]:
    if not words:
        return 0, 0
    if words[0] in TENS:
        unit = SMALL.get(words[1], 0) if len(words) > 1 else 0
        return (TENS[words[0]] + unit, 2) if 0 < unit < 10 else (TENS[words[0]], 1)
    return (SMALL[words[0]], 1) if words[0] in SMALL else (0, 0)
