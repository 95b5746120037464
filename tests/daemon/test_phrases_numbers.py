"""Numbers in phrases: all of a range, no others, in words and digits, in few arcs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phrasing import compiled, of, ranged, sentences, slots, spelled

MILLION = ranged(0, 999_999)


@pytest.mark.parametrize(
    ("low", "high", "step"), [(0, 100, 5), (1, 12, 1), (-20, 20, 4), (7, 5000, 7), (990, 1010, 1)]
)
def test_a_range_has_its_numbers_and_no_others(low: int, high: int, step: int) -> None:
    graph = of(f"n {{{low}..{high},{step}:n}}") if low >= 0 else ranged(low, high, step)
    inside = set(range(low, high + 1, step))
    for number in range(low - 30, high + 30):
        found = graph.best(f"n {spelled(number)}".split())
        assert (found is not None) == (number in inside), number
        if found:
            assert found.slots == {"n": number}
            assert type(found.slots["n"]) is int


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 999_999))
def test_any_number_to_a_million_is_read_back(number: int) -> None:
    assert slots(MILLION, f"n {spelled(number)}") == {"n": number}
    assert slots(MILLION, f"n {number:,}") == {"n": number}


@settings(max_examples=25, deadline=None)
@given(
    st.integers(-3_000, 999_000),
    st.integers(0, 300_000),
    st.integers(1, 5_000),
    st.lists(st.integers(0, 300_000), max_size=20),
)
def test_any_range_has_its_numbers_and_no_others(
    low: int, span: int, step: int, offsets: list[int]
) -> None:
    high = min(low + span, 999_999)
    graph, inside = ranged(low, high, step, ", digits: false"), range(low, high + 1, step)
    tried = {inside[0], inside[-1], inside[-1] + step, low + 1, low - 1}
    for number in tried | {low + offset for offset in offsets}:
        if abs(number) <= 999_999:
            found = graph.best(f"n {spelled(number)}".split())
            assert (found and found.slots) == ({"n": number} if number in inside else None)


def test_a_million_numbers_take_few_arcs() -> None:
    assert MILLION.size()[1] < 500


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("a hundred", 100),
        ("one hundred and five", 105),
        ("one hundred five", 105),
        ("two thousand and five", 2005),
        ("a thousand two hundred", 1200),
        ("nine hundred and ninety nine thousand nine hundred and ninety nine", 999_999),
        ("zero", 0),
        ("12,345", 12_345),
    ],
)
def test_numbers_are_said_in_these_ways(said: str, value: int) -> None:
    assert slots(MILLION, f"n {said}") == {"n": value}


@pytest.mark.parametrize(
    "said", ["hundred", "twenty eleven", "five twenty", "one thousand thousand", "and five", ""]
)
def test_these_are_no_numbers(said: str) -> None:
    assert MILLION.match(f"n {said}") is None


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("twenty one point five", 21.5),
        ("twenty one and a half", 21.5),
        ("21.5", 21.5),
        ("-3", -3),
        ("minus three point five", -3.5),
        ("twenty", 20),
    ],
)
def test_halves_may_follow(said: str, value: float) -> None:
    found = slots(ranged(-5, 25, 1, ", fractions: halves"), f"n {said}")["n"]
    assert found == value
    assert type(found) is type(value)


def test_tenths_may_follow() -> None:
    graph = ranged(0, 5, 1, ", fractions: tenths")
    assert slots(graph, "n two point seven") == {"n": 2.7}
    assert graph.match("n two and a half") is None


def test_a_multiplier_makes_the_value_of_the_number() -> None:
    assert slots(ranged(1, 60, 1, ", multiplier: 60"), "n five") == {"n": 300}
    assert slots(ranged(0, 100, 1, ", multiplier: 2.55"), "n 50") == {"n": 127.5}


def test_a_number_with_a_fraction_is_one_word_in_digits() -> None:
    graph = ranged(-1, 1, 1, ", fractions: halves, words: false")
    assert sentences(graph) == [
        *("n 0", "n 0.5", "n 1", "n 1.5", "n minus 1", "n minus 1.5"),
    ]
    found = graph.best(["n", "minus", "1.5"])
    assert found
    assert found.slots == {"n": -1.5}


def test_numbers_can_be_heard_as_digits_only_or_words_only() -> None:
    digits, words = ranged(1, 5, 1, ", words: false"), ranged(1, 5, 1, ", digits: false")
    assert digits.best(["n", "5"])
    assert not digits.best(["n", "five"])
    assert words.best(["n", "five"])
    assert not words.best(["n", "5"])


def test_numbers_of_another_language_are_digits() -> None:
    graph = compiled("language: de\nintents: {x: ['auf {0..30:n} Grad']}\n")
    assert slots(graph, "auf 21 grad") == {"n": 21}
    assert graph.expansions() == 31
