"""Hotwords: a phrase is worth its score once, a beginning of one nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harkd.recognizer.hotwords import Hotwords

TOKENS = st.integers(1, 4)
PHRASES = st.lists(st.lists(TOKENS, min_size=1, max_size=4), min_size=1, max_size=5)


def worth(hotwords: Hotwords, tokens: Sequence[int]) -> tuple[float, float]:
    """What tokens are worth, and what of it is for a beginning that is still open."""
    place, total = hotwords.root, 0.0
    for token in tokens:
        score, place = hotwords.step(place, token)
        total += score
    return total, place.score


def test_a_phrase_is_worth_its_tokens() -> None:
    hotwords = Hotwords([((5, 6, 7), 0.0), ((8,), 4.0)], score=1.5)
    assert worth(hotwords, [5, 6, 7]) == (4.5, 0.0)
    assert worth(hotwords, [1, 5, 6, 7, 2, 5, 6, 7]) == (9.0, 0.0)
    assert worth(hotwords, [8]) == (4.0, 0.0)
    assert worth(hotwords, [1, 2, 3]) == (0.0, 0.0)


def test_a_beginning_is_taken_back() -> None:
    hotwords = Hotwords([((5, 6, 7), 0.0), ((6, 9), 0.0)], score=1.0)
    assert worth(hotwords, [5, 6]) == (2.0, 2.0)
    assert worth(hotwords, [5, 6, 1]) == (0.0, 0.0)
    assert worth(hotwords, [5, 6, 9]) == (2.0, 0.0), "the other phrase begins within it"


def test_a_phrase_within_another_counts() -> None:
    hotwords = Hotwords([((1, 2, 3, 4), 0.0), ((2, 3), 0.0)], score=1.0)
    assert worth(hotwords, [1, 2, 3])[0] == 2.0


@given(PHRASES, st.lists(TOKENS, max_size=20))
def test_only_phrases_are_worth_anything_in_the_end(
    phrases: list[list[int]], tokens: list[int]
) -> None:
    hotwords = Hotwords([(phrase, 0.0) for phrase in phrases], score=1.0)
    total, open_score = worth(hotwords, tokens)
    said = sum(tokens[i : i + len(p)] == p for p in phrases for i in range(len(tokens)))
    if said:
        assert total > 0
    else:
        assert total == pytest.approx(open_score)


@given(PHRASES, st.lists(TOKENS, max_size=20))
def test_an_open_beginning_is_the_longest_that_the_tokens_end_in(
    phrases: list[list[int]], tokens: list[int]
) -> None:
    """Counted from where the last phrase ended."""
    hotwords = Hotwords([(phrase, 0.0) for phrase in phrases], score=1.0)
    place, since = hotwords.root, 0
    for number, token in enumerate(tokens, 1):
        _, place = hotwords.step(place, token)
        if place is hotwords.root:
            since = number
    open_tokens = tokens[since:]
    begun = [
        length
        for length in range(1, len(open_tokens) + 1)
        if any(phrase[:length] == open_tokens[-length:] for phrase in phrases)
    ]
    assert place.score == max(begun, default=0)
