"""Prefix beam search over CTC, with hotwords."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from harkd.recognizer import ctc_beam
from harkd.recognizer.ctc_beam import BeamCtc
from harkd.recognizer.hotwords import Hotwords
from harkd.recognizer.search import GreedyCtc

Float32 = NDArray[np.float32]
BLANK = 0


def rows(seed: int, frames: int, tokens: int, sharp: float) -> Float32:
    return np.random.default_rng(seed).normal(0, sharp, (frames, tokens)).astype(np.float32)


def likeliest(logits: Float32) -> tuple[int, ...]:
    """The tokens with the greatest sum over all ways to write them."""
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    sums: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        said = tuple(key for key, _ in itertools.groupby(path) if key != BLANK)
        score = float(sum(logs[i, token] for i, token in enumerate(path)))
        sums[said] = sums.get(said, 0.0) + math.exp(score)
    return max(sums, key=lambda each: sums[each])


@pytest.mark.parametrize("seed", range(10))
def test_it_finds_what_all_ways_together_make_likeliest(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctc_beam, "PATHS", 1000)
    logits = rows(seed, 5, 4, 1.0)
    search = BeamCtc(BLANK, Hotwords([]))
    search.advance(logits)
    assert tuple(search.found.tokens) == likeliest(logits)


@pytest.mark.parametrize("seed", range(5))
def test_where_the_model_is_sure_it_is_greedy(seed: int) -> None:
    logits = rows(seed, 40, 20, 12.0)
    greedy, search = GreedyCtc(BLANK), BeamCtc(BLANK, Hotwords([]))
    greedy.advance(logits)
    search.advance(logits)
    assert search.found.tokens == greedy.found.tokens
    assert search.found.frames == greedy.found.frames
    assert search.found.heard == 40


def spoken(*probabilities: dict[int, float]) -> Float32:
    return np.log([[each.get(i, 1e-4) for i in range(8)] for each in probabilities]).astype(
        np.float32
    )


HEARD = spoken({1: 0.9}, {2: 0.6, 3: 0.3}, {0: 0.9}, {4: 0.9}, {0: 1.0})


def test_a_hotword_is_heard_rather() -> None:
    search = BeamCtc(BLANK, Hotwords([((1, 3, 4), 1.0)]))
    search.advance(HEARD)
    assert search.found.tokens == [1, 3, 4]


def test_what_only_begins_as_a_hotword_gains_nothing() -> None:
    search = BeamCtc(BLANK, Hotwords([((1, 3, 5), 1.0), ((1, 3, 4, 6), 1.0)]))
    search.advance(HEARD)
    assert search.found.tokens == [1, 2, 4]


@pytest.mark.parametrize("seed", range(3))
def test_no_split_and_no_branch_changes_what_is_heard(seed: int) -> None:
    logits = rows(seed, 30, 12, 3.0)
    hotwords = Hotwords([((1, 2), 1.0), ((3, 4, 5), 2.0)])
    whole, pieces = BeamCtc(BLANK, hotwords), BeamCtc(BLANK, hotwords)
    whole.advance(logits)
    for at in range(0, 30, 7):
        pieces.branch().advance(rows(9, 5, 12, 3.0))
        pieces.advance(logits[at : at + 7])
    assert pieces.found == whole.found
