"""How a recognized text is written: its numbers, capitals and punctuation. Pure.

In: a text as the recognizer writes it, and `TextSettings`. Out: the text that is told, of partials
and finals alike. To style a text twice is to style it once. English: numbers of other languages
stay.
"""

from __future__ import annotations

import re

from harkd.number_words import in_digits, in_words
from harkd.settings import TextSettings

_WITHIN = re.compile(r"(?<=\w)['’](?=\w)|(?<=\d)[.,:/](?=\d)|(?<=\w)&(?=\w)|[%°$€£]|[-−](?=\d)")
"""What stays of what is neither letter nor digit: it's, 3.5, 6:30, 50%, -5."""
_MARK = re.compile(r"[^\w\s]|_")


def styled(text: str, style: TextSettings, language: str = "en") -> str:
    """Return a text as it is to be written.

    Args:
        text: As the recognizer writes it.
        style: How it is to be.
        language: ISO 639-1 code.
    """
    # What a mark kept from being a number ("F-16") may be one without it, so one time is not
    # enough. It ends: each time has fewer digits, number words, capitals or marks.
    while (written := _styled_once(text, style, language)) != text:
        text = written
    return text


def _styled_once(text: str, style: TextSettings, language: str) -> str:
    if style.numbers != "as_is" and language == "en":
        text = (in_digits if style.numbers == "digits" else in_words)(text)
    if not style.punctuation:
        text = unpunctuated(text)
    if style.casing == "lower":
        text = text.lower()
    return text


def unpunctuated(text: str) -> str:
    """Return the words of a text, one space between them; marks within numbers and words stay."""
    kept = {found.start() for found in _WITHIN.finditer(text)}
    # A hyphen between words joins what is said as two; between a word and a number, too.
    kept -= {found.start() for found in re.finditer(r"(?<=\w)[-−](?=\d)", text)}
    bare = _MARK.sub(lambda found: found[0] if found.start() in kept else " ", text)
    return " ".join(bare.split())
