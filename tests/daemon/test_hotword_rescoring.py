"""Hotwords in the place of what was heard: which win, at which cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from harkd.recognizer.hotword_rescoring import Variant, Variants, winners, with_winners
from harkd.recognizer.moonshine_tokens import TOKEN_END, Decoded

TOKENS = 40
CALL, SHE, VON, NOW, SIO, BHAN = range(10, 16)
Float32 = NDArray[np.float32]
Next = dict[tuple[int, ...], dict[int, float]]
"""After tokens: the likely ones and their probabilities."""
CALLED: Next = {
    (): {CALL: 0.9},
    (CALL,): {SHE: 0.7, SIO: 0.2},
    (CALL, SHE): {VON: 0.5},
    (CALL, SHE, VON): {NOW: 0.9},
    (CALL, SHE, VON, NOW): {TOKEN_END: 0.9},
    (CALL, SIO): {BHAN: 0.6},
    (CALL, SIO, BHAN): {NOW: 0.9},
    (CALL, SIO, BHAN, NOW): {TOKEN_END: 0.9},
}


def row(model: Next, before: tuple[int, ...]) -> Float32:
    """Log-probabilities of all tokens after some: float32, shape (tokens,)."""
    likely = model.get(before, {})
    rest = (1 - sum(likely.values())) / (TOKENS - len(likely))
    return np.log([likely.get(token, rest) for token in range(TOKENS)]).astype(np.float32)


class Asked:
    """A model that is asked, and counts how often."""

    def __init__(self, model: Next, heard: Sequence[int]) -> None:
        self.model, self.heard, self.places = model, tuple(heard), list[int]()

    def __call__(self, place: int, others: Sequence[int]) -> Float32:
        self.places.append(place)
        before = self.heard[:place]
        return np.stack(
            [row(self.model, before + tuple(others[:i])) for i in range(len(others) + 1)]
        )


def heard(model: Next, variants: Variants) -> Decoded:
    """What greedy decoding gives."""
    tokens: list[int] = []
    result = Decoded()
    while True:
        logs = row(model, tuple(tokens))
        best = int(logs.argmax())
        result.log_probs.append(float(logs[best]))
        result.watched.append(logs[variants.tokens])
        if best == TOKEN_END:
            result.tokens, result.ended = tokens, True
            return result
        tokens.append(best)


def told(
    variants: Variants, model: Next = CALLED, joined: frozenset[int] = frozenset({VON, BHAN})
) -> tuple[list[int], Asked, Decoded]:
    plain = heard(model, variants)
    ask = Asked(model, plain.tokens)
    begins = [token not in joined for token in plain.tokens] + [True]
    result = with_winners(plain, winners(plain, variants, begins, ask, 1000))
    return result.tokens, ask, result


def hot(boost: float, *tokens: int) -> Variants:
    return Variants([Variant(tokens, boost, casings=(tokens,))])


def test_a_hotword_wins_where_its_boost_makes_it_likelier() -> None:
    assert told(hot(0.0, SIO, BHAN))[0] == [CALL, SHE, VON, NOW]
    tokens, _, result = told(hot(1.5, SIO, BHAN))
    assert tokens == [CALL, SIO, BHAN, NOW]
    assert len(result.log_probs) == 5
    assert result.log_probs[1:3] == pytest.approx([math.log(0.2), math.log(0.6)])


def test_the_boost_that_decides_is_the_difference_of_both() -> None:
    """0.7 × 0.5 against 0.2 × 0.6, over two tokens."""
    least = math.log(0.35 / 0.12) / 2
    assert told(hot(least - 0.01, SIO, BHAN))[0] == [CALL, SHE, VON, NOW]
    assert told(hot(least + 0.01, SIO, BHAN))[0] == [CALL, SIO, BHAN, NOW]


def test_what_begins_as_a_hotword_and_does_not_go_on_gains_nothing() -> None:
    assert told(hot(2.0, SIO, 30, 31))[0] == [CALL, SHE, VON, NOW]


def test_what_is_far_from_likely_is_not_even_asked_for() -> None:
    _, ask, _ = told(hot(1.0, 30, 31))
    assert ask.places == []


def test_a_hotword_that_was_heard_is_left_as_it_is() -> None:
    variants = Variants([Variant((SHE, 31), 2.0, casings=((SHE, VON), (SHE, 31)))])
    tokens, ask, _ = told(variants)
    assert tokens == [CALL, SHE, VON, NOW]
    assert ask.places == []


def test_a_hotword_must_leave_the_rest_as_likely_as_it_was() -> None:
    worse = {**CALLED, (CALL, SIO, BHAN, NOW): {30: 0.999}}
    assert told(hot(1.5, SIO, BHAN), worse)[0] == [CALL, SHE, VON, NOW]


def test_it_is_asked_from_the_end_to_the_beginning() -> None:
    """So what is asked for never overwrites what a later question needs."""
    variants = Variants([Variant((SIO, BHAN), 1.5), Variant((30,), 6.0)])
    _, ask, _ = told(variants)
    assert len(set(ask.places)) > 1
    assert ask.places == sorted(ask.places, reverse=True)


@pytest.mark.parametrize(
    ("later", "wanted"),
    [
        ([CALL, SHE, VON, NOW, 20], [CALL, SIO, BHAN, NOW, 20]),
        ([CALL, SHE, VON], [CALL, SIO, BHAN]),
        ([CALL, SHE, NOW], [CALL, SHE, NOW]),
        ([20, SHE, VON], [20, SHE, VON]),
    ],
)
def test_what_won_stays_in_later_partials_that_begin_the_same(
    later: list[int], wanted: list[int]
) -> None:
    variants = hot(1.5, SIO, BHAN)
    plain = heard(CALLED, variants)
    begins = [True, True, False, True, True]
    won = winners(plain, variants, begins, Asked(CALLED, plain.tokens), 1000)
    assert with_winners(Decoded(later, [-0.1] * len(later)), won).tokens == wanted
