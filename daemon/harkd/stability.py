"""What two texts of one utterance agree on, word by word. Pure.

Words are compared without case and without the punctuation around them: a recognizer that hears
more of a sentence capitalizes and punctuates anew what it has long understood.
"""

from __future__ import annotations

import re
import unicodedata


def stable_chars(previous: str, text: str) -> int:
    """Return how many leading characters of `text` are words with which `previous` begins, too.

    Counts code points up to the end of the last such word, without the punctuation after it.
    """
    end = 0
    for (before, _), (now, now_end) in zip(_words(previous), _words(text), strict=False):
        if before != now:
            break
        end = now_end
    return end


def same_words(one: str, other: str) -> bool:
    """Tell whether two texts have the same words."""
    return [word for word, _ in _words(one)] == [word for word, _ in _words(other)]


def has_words(text: str) -> bool:
    """Tell whether there is anything but punctuation in a text."""
    return bool(_words(text))


def _words(text: str) -> list[tuple[str, int]]:
    """Return each word, folded and without the punctuation around it, and where it ends."""
    words = []
    for match in re.finditer(r"\S+", text):
        start, end = match.span()
        while start < end and _is_punctuation(text[end - 1]):
            end -= 1
        while start < end and _is_punctuation(text[start]):
            start += 1
        if start < end:
            words.append((text[start:end].casefold(), end))
    return words


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"
