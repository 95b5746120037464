"""How written text is said: words as a recognizer hears them. Pure.

In: text as people write it, "Set the TV to 50%". Out: words in lower case without punctuation, and
every way to say each: "t v" beside "tv", "fifty" beside "50". An apostrophe stays in its word.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Final

Words = tuple[str, ...]

UNITS: Final = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
)
TENS: Final = (
    *("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"),
)
LARGEST: Final = 999_999
"""The largest number that is spoken."""
MAX_ACRONYM: Final = 4
"""Letters of a word in capitals that may be spelled: TV, LED, HDMI."""

_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
_SYMBOLS: Final = str.maketrans(
    {"%": " percent ", "&": " and ", "°": " degrees ", "+": " plus ", "’": "'", "ʼ": "'"}
)


def number_words(number: int) -> Words:
    """Return an English number in words, without "and"; 0…999,999."""
    if number < 20:
        return (UNITS[number],)
    if number < 100:
        return (TENS[number // 10], *(number_words(number % 10) if number % 10 else ()))
    size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    rest = number_words(number % size) if number % size else ()
    return (*number_words(number // size), name, *rest)


@functools.lru_cache(maxsize=20_000)
def tokens(text: str) -> Words:
    """Return the words and numbers of a text, in the case in which they are written."""
    text = unicodedata.normalize("NFC", text)
    text = re.sub(r"(?<!\w)[-−](?=\d)", " minus ", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text).translate(_SYMBOLS)
    found: list[str] = []
    for part in text.split():
        found.extend(_split(part))
    return tuple(found)


def _split(part: str) -> list[str]:
    """Split at punctuation, and where digits meet letters."""
    found: list[str] = []
    at = 0
    while at < len(part):
        if number := _NUMBER.match(part, at):
            found.append(number.group())
            at = number.end()
            continue
        end = at
        while end < len(part) and not part[end].isdecimal() and (_letter(part[end])):
            end += 1
        word = part[at:end].strip("'")
        if word:
            found.append(word)
        at = max(end, at + 1)
    return found


def _letter(character: str) -> bool:
    return character == "'" or unicodedata.category(character)[0] in "LMN"


@functools.lru_cache(maxsize=20_000)
def readings(token: str, english: bool = True) -> tuple[Words, ...]:
    """Return every way to say one of `tokens`; the usual one first."""
    if _NUMBER.fullmatch(token) and token.isascii():
        spoken = _number_readings(token) if english else ()
        return (*spoken, (token,))
    lower = token.lower()
    if token.isascii() and token.isalpha() and token.isupper() and 2 <= len(token) <= MAX_ACRONYM:
        return ((lower,), tuple(lower))
    return ((lower,),)


def _number_readings(token: str) -> tuple[Words, ...]:
    whole, _, fraction = token.partition(".")
    if (len(whole) > 1 and whole[0] == "0") or int(whole) > LARGEST:
        said = tuple(UNITS[int(digit)] for digit in whole)
    else:
        said = number_words(int(whole))
    if fraction:
        said = (*said, "point", *(UNITS[int(digit)] for digit in fraction))
    return (said,)
