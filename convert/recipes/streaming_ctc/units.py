"""Texts to units and back: characters, and pieces of words that are heard often. Pure.

Pieces are merged as byte-pair encoding does (https://arxiv.org/abs/1508.07909), but only while a
pair is frequent enough to be learned: with half an hour of digits and letters, "▁seven" is a unit
of its own, and a word that occurs once is spelled.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

START = "▁"
"""Begins a word, as in sentencepiece and sherpa-onnx."""
BLANK, UNKNOWN, END = "<blank>", "<unk>", "<sos/eos>"
LETTERS = "abcdefghijklmnopqrstuvwxyz'"


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, with letters and apostrophes only."""
    return re.sub(r"[^a-z' ]+", " ", text.lower().replace("’", "'")).split()


def _letters(word: str) -> tuple[str, ...]:
    return (START + word[0], *word[1:])


@dataclass(frozen=True)
class Units:
    """The units of a model."""

    names: list[str]
    """By number; 0 is the blank"""
    merges: list[tuple[str, str]] = field(default_factory=list)
    """In the order in which they are applied"""

    def encode(self, text: str) -> list[int]:
        """Return the numbers of a text's units."""
        numbers = {name: number for number, name in enumerate(self.names)}
        pieces = [piece for word in words_of(text) for piece in self._pieces(word)]
        return [numbers[piece] for piece in pieces]

    def decode(self, numbers: Iterable[int]) -> str:
        """Return the text of units."""
        return "".join(self.names[number] for number in numbers).replace(START, " ").strip()

    def _pieces(self, word: str) -> tuple[str, ...]:
        pieces = _letters(word)
        for pair in self.merges:
            pieces = _merged(pieces, pair)
        return pieces

    def write(self, path: Path) -> None:
        """Write WeNet's `units.txt`, which sherpa-onnx reads as well."""
        lines = (f"{name} {number}\n" for number, name in enumerate(self.names))
        path.write_text("".join(lines), encoding="utf-8")


def learn_units(texts: Iterable[str], least: int, most_of_a_text: int = 30) -> Units:
    """Make units of the texts that a model learns.

    Args:
        texts: One for each recording.
        least: A pair that occurs less often is not merged.
        most_of_a_text: A text that is recorded more often counts so many times.
    """
    words = Counter[tuple[str, ...]]()
    for text, count in Counter(texts).items():
        for word in words_of(text):
            words[_letters(word)] += min(count, most_of_a_text)
    merges = list[tuple[str, str]]()
    while True:
        pairs = Counter[tuple[str, str]]()
        for pieces, count in words.items():
            for pair in pairwise(pieces):
                pairs[pair] += count
        best = max(sorted(pairs), key=lambda pair: pairs[pair], default=None)
        if best is None or pairs[best] < least:
            break
        merges.append(best)
        before, words = words, Counter()
        for pieces, count in before.items():
            words[_merged(pieces, best)] += count
    letters = [START + letter for letter in LETTERS] + list(LETTERS)
    joined = [one + other for one, other in merges]
    return Units([BLANK, UNKNOWN, *letters, *dict.fromkeys(joined), END], merges)


def _merged(pieces: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out = list[str]()
    for piece in pieces:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return tuple(out)
