"""How a model writes a word: as which tokens, in which casings. Pure.

In: what each token is written as. Out: token ids. A list from byte-pair encoding is merged as it
was made, the pair with the least id first; where the way a list was made is unknown, fewest pieces
are taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

BOUNDARY = "▁"
"""Begins a word."""
LONGEST_PIECE = 32
"""Characters of a token; longer ones are runs of spaces."""


def casings(phrase: str) -> list[str]:
    """Return a phrase as it was written, in lower case, with capitals, and in upper case."""
    words = phrase.split()
    forms = [
        " ".join(words),
        phrase.lower(),
        " ".join(word[:1].upper() + word[1:].lower() for word in words),
        " ".join(word[:1].upper() + word[1:] for word in words),
        phrase.upper(),
    ]
    return list(dict.fromkeys(" ".join(form.split()) for form in forms))


def sentence_casings(phrase: str) -> list[str]:
    """Return a phrase as it was written, and as it begins a sentence."""
    words = " ".join(phrase.split())
    return list(dict.fromkeys((words, words[:1].upper() + words[1:])))


def written(phrase: str) -> str:
    """Return a phrase as its tokens write it, each word with its boundary before it."""
    return "".join(BOUNDARY + word for word in phrase.split())


def merged(text: str, ids: Mapping[bytes, int], byte_ids: Sequence[int]) -> list[int]:
    """Return the tokens of byte-pair encoding.

    Args:
        text: With its boundaries.
        ids: Of each token.
        byte_ids: Tokens that stand for one byte each, where a character has no token; may be empty.

    Raises:
        KeyError: A character cannot be written.
    """
    pieces = [character.encode() for character in text]
    while True:
        pairs = [
            (found, i)
            for i in range(len(pieces) - 1)
            if (found := ids.get(pieces[i] + pieces[i + 1])) is not None
        ]
        if not pairs:
            break
        _, i = min(pairs)
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
    tokens: list[int] = []
    for piece in pieces:
        if piece in ids:
            tokens.append(ids[piece])
        elif byte_ids:
            tokens += (byte_ids[byte] for byte in piece)
        else:
            raise KeyError(piece.decode())
    return tokens


def fewest(text: str, ids: Mapping[str, int], most: int) -> list[list[int]]:
    """Return the ways to write a text with fewest tokens, up to `most`; none where none is."""
    ways: list[list[list[int]]] = [[[]]]
    for end in range(1, len(text) + 1):
        found = [
            [*way, ids[piece]]
            for begin in range(max(0, end - LONGEST_PIECE), end)
            if (piece := text[begin:end]) in ids
            for way in ways[begin]
        ]
        ways.append(sorted(found, key=len)[:most])
    least = min(map(len, ways[-1]), default=0)
    return [way for way in ways[-1] if len(way) <= least + 1] if text else []
