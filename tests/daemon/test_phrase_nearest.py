"""Phrases near to a text: those of an exhaustive comparison, scored as seldom as possible."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from harkd.recognizer.phrase_candidates import (
    Candidate,
    best_of,
    candidates_of,
    with_digits,
    written_like,
)
from harkd.recognizer.phrase_nearest import (
    NearestPhrases,
    distance_of,
    far_from_nothing,
    sounds_of,
)
from harkd.recognizer.phrase_tokens import Vocabulary
from small_phrases import small_graph

END = 0
HOUSE = small_graph(
    "cancel all timers",
    "set [a] timer for (one|five|twenty five) (minute|minutes)",
    "turn (on|off) [the] (kitchen|bathroom) light",
    "pause",
)
SAID = {"".join(map(sounds_of, HOUSE.words(arcs).split())) for arcs in HOUSE.sentences()}


@pytest.mark.parametrize(
    ("heard", "meant"),
    [
        ("Pencil all tires", "cancel all timers"),
        ("I've said it right before five minutes", "set a timer for five minutes"),
        ("Set timer for 25 minutes.", "set timer for twenty five minutes"),
        ("Turn of the chicken light", "turn off the kitchen light"),
    ],
)
def test_what_was_misheard_is_near_to_what_was_said(heard: str, meant: str) -> None:
    found = NearestPhrases(HOUSE).nearest(sounds_of(heard), 1)
    assert [" ".join(each.words) for each in found] == [meant]
    assert HOUSE.words(found[0].arcs) == meant


@given(text=st.text(alphabet="aeikntscmrfol", min_size=1, max_size=25), most=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_they_are_those_that_comparing_each_would_find(text: str, most: int) -> None:
    found = NearestPhrases(HOUSE).nearest(text, most)
    distances = [each.distance for each in found]
    assert distances == sorted(distance_of(each, text) for each in SAID)[:most]
    for each in found:
        assert each.distance == distance_of("".join(map(sounds_of, each.words)), text)


@given(st.text(alphabet="abcdhmnt", max_size=8), st.text(alphabet="abcdhmnt", max_size=8))
@settings(max_examples=60, deadline=None)
def test_a_distance_is_the_same_both_ways_and_none_for_the_same(one: str, other: str) -> None:
    assert distance_of(one, one) == 0
    assert distance_of(one, other) == distance_of(other, one)
    assert distance_of(one, "") == far_from_nothing(one)


def test_like_letters_are_nearer_than_others() -> None:
    assert distance_of("bit", "pit") < distance_of("bit", "kit") < distance_of("bit", "")


def test_letters_that_no_phrase_has_are_far_from_all() -> None:
    (found,) = NearestPhrases(HOUSE).nearest("пауза", 1)
    assert found.distance > 0


@pytest.mark.parametrize("text", ["", "a" * 1000])
def test_nothing_is_near_to_nothing_and_to_what_is_far_too_long(text: str) -> None:
    assert NearestPhrases(HOUSE).nearest(text, 3) == []


def test_a_graph_of_nothing_has_nothing_near() -> None:
    assert NearestPhrases(small_graph()).nearest("pause", 3) == []


def test_a_number_is_compared_as_it_is_said() -> None:
    assert sounds_of("50%") == "fiftypercent"
    (found,) = NearestPhrases(small_graph("dim to (50|15)")).nearest(sounds_of("Dim to fifty"), 1)
    assert (found.words, found.distance) == (("dim", "to", "50"), 0)


@pytest.mark.parametrize(
    ("words", "text", "written"),
    [
        ("launch firefox", "Lunch Firefox.", "Launch Firefox"),
        ("dim it to fifty percent", "Dim at two 50%", "Dim it to 50%"),
        ("what's the date", "what's the lead?", "what's the date"),
        ("turn it on", "On, turn it", "On turn it"),
    ],
)
def test_a_phrase_is_written_as_the_text_is(words: str, text: str, written: str) -> None:
    said = words.split() if written != "On turn it" else ["on", "turn", "it"]
    assert written_like(said, text) == written


def test_numbers_are_also_written_in_digits() -> None:
    said = ("dim", "to", "twenty", "five", "percent", "in", "two", "minutes")
    assert with_digits(said, "Dim") == "Dim to 25% in 2 minutes"


# ------------------------------------------------------------------------------ scoring


def spelled(text: str) -> Sequence[int]:
    """A token for each word, by what it says."""
    return [10 + sum(map(ord, word)) % 80 for word in text.lower().split()]


VOCABULARY = Vocabulary([None, *[".", "?"], *[f" w{i}" for i in range(96)]], spelled, END)


def test_the_ways_to_write_a_phrase_end_as_the_text_does_first() -> None:
    near = NearestPhrases(HOUSE).nearest("pause", 1)
    endings = [each.written[1:] for each in candidates_of(near, "Pose?", VOCABULARY)]
    assert endings[0] == (VOCABULARY.token("?"),)
    assert set(endings) == {(), (VOCABULARY.token("."),), (VOCABULARY.token("?"),)}


class Hearing:
    """Log-probabilities that depend on all tokens before; counts what is asked."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.asked: list[tuple[int, ...]] = []

    def rows(self, tokens: tuple[int, ...]) -> NDArray[np.float32]:
        self.asked.append(tokens)
        return np.stack([self._row(tokens[:i]) for i in range(len(tokens) + 1)])

    def log_prob(self, tokens: tuple[int, ...]) -> float:
        full = (*tokens, END)
        return sum(float(self._row(full[:i])[each]) for i, each in enumerate(full))

    def _row(self, before: tuple[int, ...]) -> NDArray[np.float32]:
        logits = 3 * np.random.default_rng([self.seed, *before]).normal(size=6)
        row: NDArray[np.float32] = (logits - np.log(np.exp(logits).sum())).astype(np.float32)
        return row


ALL = [
    Candidate(tokens, tokens, sum(tokens))
    for length in (1, 2)
    for tokens in itertools.product((1, 2, 3), repeat=length)
]


@pytest.mark.parametrize("seed", range(5))
def test_the_best_is_found_without_scoring_all(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harkd.recognizer.phrase_candidates.PASSES_MOST", 100)
    hearing = Hearing(seed)
    scores = best_of(ALL, hearing.rows, END, -100.0, 0.0)
    best = next(iter(scores.log_probs))
    likeliest = max(ALL, key=lambda each: hearing.log_prob(each.written))
    assert best == likeliest
    assert scores.log_probs[best] == pytest.approx(hearing.log_prob(best.written), abs=1e-4)
    assert scores.passes == len(hearing.asked) < len(ALL)


def test_no_more_than_a_few_are_scored() -> None:
    hearing = Hearing(0)
    assert best_of(ALL, hearing.rows, END, -100.0, 100.0).passes == len(hearing.asked) <= 6


def test_nothing_to_score_costs_nothing() -> None:
    assert best_of([], Hearing(0).rows, END, -100.0, 0.0).passes == 0
