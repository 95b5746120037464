"""English number words and the numbers that they mean. Pure."""

from __future__ import annotations

from collections.abc import Sequence

# fmt: off
ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
# fmt: on
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
SMALL = {word: value for value, word in enumerate(ONES)}
TENS_OF = {word: 20 + 10 * i for i, word in enumerate(TENS)}
NUMBER_WORDS = frozenset([*SMALL, *TENS_OF, "hundred", "thousand", "and"])
"""All that a number may hold."""
MOST = 999_999


def number_of(words: Sequence[str]) -> int | None:
    """Return what number words mean, 0…999,999; None where they are not one whole number."""
    if "thousand" in words:
        at = list(words).index("thousand")
        before, after = words[:at], words[at + 1 :]
        thousands = _below_thousand(before) if before else None
        if thousands is None or not thousands:
            return None
        if not after:
            return 1000 * thousands
        rest = _below_thousand(after[1:] if after[0] == "and" else after)
        return None if rest is None else 1000 * thousands + rest
    return _below_thousand(words)


def _below_thousand(words: Sequence[str]) -> int | None:
    if len(words) >= 2 and words[1] == "hundred":
        hundreds = SMALL.get(words[0], 0)
        if not 1 <= hundreds <= 9:
            return None
        rest = words[2:]
        if rest and rest[0] == "and":
            rest = rest[1:]
            if not rest:
                return None
        value = _below_hundred(rest) if rest else 0
        return None if value is None else 100 * hundreds + value
    return _below_hundred(words)


def _below_hundred(words: Sequence[str]) -> int | None:
    if len(words) == 1:
        return SMALL.get(words[0], TENS_OF.get(words[0]))
    if len(words) == 2 and words[0] in TENS_OF and 1 <= SMALL.get(words[1], 0) <= 9:
        return TENS_OF[words[0]] + SMALL[words[1]]
    return None


def words_of(number: int) -> tuple[str, ...]:
    """Return how a number is said, with and without "and"; nothing beyond 999,999."""
    if not 0 <= number <= MOST:
        return ()
    plain, joined = _said(number, ""), _said(number, " and")
    return (plain,) if plain == joined else (plain, joined)


def _said(number: int, link: str) -> str:
    if number < 20:
        return ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return TENS[tens - 2] + (f" {ONES[ones]}" if ones else "")
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return f"{ONES[hundreds]} hundred" + (f"{link} {_said(rest, link)}" if rest else "")
    thousands, rest = divmod(number, 1000)
    between = link if rest < 100 else ""
    return f"{_said(thousands, '')} thousand" + (f"{between} {_said(rest, link)}" if rest else "")
