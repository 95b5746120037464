"""The likeliest of some phrases, by as few passes of the decoder as it takes to know.

In: phrases that are near to the open text, and a model that has heard the segment. Out: those that
were scored. A pass tells the log-probability of each token of one way to write one phrase, and so
of all beginnings that others share with it: what cannot become the best any more is never scored.
Runs on the thread that uses the stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harkd.recognizer.phrase_nearest import Near, sounds_of
from harkd.recognizer.phrase_numbers import NUMBER_WORDS, number_of
from harkd.recognizer.phrase_tokens import Vocabulary

MARKS = (".", "?")
PASSES_MOST = 6
"""As the likeliest come first, more find nothing (docs/accuracy.md)."""
FOR_EACH_STEP = 0.2
"""A log-probability, to choose what is scored next: for each step of distance."""

Float32 = NDArray[np.float32]
Rows = Callable[[tuple[int, ...]], Float32]
"""Returns the log-probabilities of what comes at each of some tokens and after them: float32, shape
(tokens + 1, all tokens)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to write a phrase."""

    arcs: tuple[int, ...]
    """Of the graph, from its start to an end"""
    written: tuple[int, ...]
    """Its tokens"""
    distance: int
    """From the open text"""


@dataclass(slots=True)
class Scores:
    """What was scored."""

    log_probs: dict[Candidate, float]
    """With the end; the best first"""
    passes: int = 0
    """Calls of the decoder"""
    rows: int = 0
    """Tokens in them"""


def candidates_of(near: list[Near], text: str, vocabulary: Vocabulary) -> list[Candidate]:
    """Return the ways to write phrases, those that are most like the open text first."""
    marks = sorted(
        ("", *MARKS), key=lambda mark: text[-1:] != mark if mark else bool(text[-1:] in MARKS)
    )
    found: dict[tuple[int, ...], Candidate] = {}
    for each in near:
        for line in dict.fromkeys((written_like(each.words, text), with_digits(each.words, text))):
            written = vocabulary.spelled(line)
            for mark in marks:
                ending = vocabulary.token(mark) if mark else None
                if written and (ending is not None or not mark):
                    tokens = (*written, ending) if ending is not None else written
                    found.setdefault(tokens, Candidate(each.arcs, tokens, each.distance))
    return list(found.values())


def with_digits(words: tuple[str, ...], text: str) -> str:
    """Return words as the text would write them, with all numbers in digits."""
    said, at = [], 0
    while at < len(words):
        runs = range(len(words), at, -1)
        end = next((e for e in runs if number_of(words[at:e]) is not None), at)
        if end > at and words[at] in NUMBER_WORDS:
            percent = end < len(words) and words[end] == "percent"
            said.append(f"{number_of(words[at:end])}{'%' * percent}")
            at = end + percent
        else:
            said.append(words[at])
            at += 1
    return written_like(tuple(said), text)


def written_like(words: Sequence[str], text: str) -> str:
    """Return words as the text would write them, without a mark at the end.

    What is the same in the text is written as there ("50%", "Firefox"), and the first letter is a
    capital where the text's is.
    """
    known: dict[str, str] = {}
    parts = text.split()
    for place, part in enumerate(parts):
        plain = part.strip(".,!?\"'")
        known.setdefault(sounds_of(part), plain[:1].lower() + plain[1:] if not place else plain)
    written, at = [], 0
    while at < len(words):
        runs = range(min(len(words), at + 6), at, -1)
        end = next((end for end in runs if "".join(map(sounds_of, words[at:end])) in known), at)
        if end > at:
            written.append(known["".join(map(sounds_of, words[at:end]))])
            at = end
        else:
            written.append(words[at])
            at += 1
    line = " ".join(written)
    return line[:1].upper() + line[1:] if text[:1].isupper() else line


def best_of(
    candidates: list[Candidate], rows_of: Rows, end: int, least: float, within: float
) -> Scores:
    """Score candidates until no other can be the best.

    Args:
        candidates: Those to be tried first, first.
        rows_of: The decoder.
        end: The id of the token that ends a text.
        least: A log-probability; what falls below it is given up.
        within: So much less likely than the best may be what is scored yet.
    """
    scores = Scores({})
    bounds = dict.fromkeys(candidates, 0.0)
    while bounds and scores.passes < PASSES_MOST:
        chosen = max(bounds, key=lambda each: bounds[each] - FOR_EACH_STEP * each.distance)
        del bounds[chosen]
        rows = rows_of(chosen.written)
        scores.passes += 1
        scores.rows += len(rows)
        full = (*chosen.written, end)
        sums = np.concatenate([[0.0], np.cumsum(rows[range(len(full)), full], dtype=np.float64)])
        scores.log_probs[chosen] = float(sums[-1])
        least = max(least, float(sums[-1]))
        for each in bounds:
            other = (*each.written, end)
            pairs = zip(other, full, strict=False)
            same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(full))
            if same < min(len(other), len(full)):
                known = float(sums[same]) + float(rows[same, other[same]])
                bounds[each] = min(bounds[each], known)
        bounds = {each: bound for each, bound in bounds.items() if bound > least - within}
    ordered = sorted(scores.log_probs.items(), key=lambda pair: -pair[1])
    scores.log_probs = {each: score for each, score in ordered if score > -math.inf}
    return scores
