"""The lean decoder's loop over a made-up graph: a draft changes the cost, never the text."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from harkd.recognizer.lean_decoder import (
    PROPOSED_MOST,
    REJOIN_TOKENS,
    DecoderState,
    LeanDecoder,
    rejoined,
)
from harkd.recognizer.moonshine_tokens import TOKEN_END, TOKEN_START, Decoded

Language = Callable[[tuple[int, ...]], tuple[int, float]]
"""All tokens so far, with the mark of begin → the next, and its log-probability."""
ENOUGH = 60
STOP = 9


class ScriptedState(DecoderState):
    """A cache whose graph is a function. What is in it counts, as it does in a real one."""

    def __init__(self, language: Language, capacity: int = ENOUGH + 1) -> None:
        self.language = language
        self.held: list[int] = []
        """The token at each place."""
        self.counts: list[int] = []
        """Tokens in each call."""
        self._capacity = self.intact = capacity

    def _run(
        self, current: int, proposed: Sequence[int], place: int
    ) -> tuple[list[int], list[float]]:
        assert place <= len(self.held), "a place was left out"
        assert place + 1 + len(proposed) <= self._capacity, "written beyond the cache"
        self.held[place:] = [current, *proposed]
        self.counts.append(1 + len(proposed))
        rows = [self.language(tuple(self.held[: i + 1])) for i in range(place, len(self.held))]
        return [token for token, _ in rows], [log_prob for _, log_prob in rows]


def saying(text: Sequence[int], seed: int = 0) -> Language:
    """One that says this text, and something erratic after any token that is not in place."""

    def language(held: tuple[int, ...]) -> tuple[int, float]:
        so_far = held[1:]
        if so_far == tuple(text[: len(so_far)]):
            token = text[len(so_far)] if len(so_far) < len(text) else TOKEN_END
        else:
            token = 2 + hash((seed, held)) % 8
        return token, -(hash((seed, token, held)) % 1000) / 100

    return language


def greedy(language: Language, most: int, prefix: Sequence[int] = ()) -> Decoded:
    """Token by token, as it is meant."""
    result = Decoded()
    while len(prefix) + len(result.tokens) < most:
        token, log_prob = language((TOKEN_START, *prefix, *result.tokens))
        result.log_probs.append(log_prob)
        if token == TOKEN_END:
            result.ended = True
            break
        result.tokens.append(token)
    return result


def drafted(tokens: Sequence[int]) -> Decoded:
    """A draft; its log-probabilities are unlike any that `saying` gives."""
    return Decoded(list(tokens), [7.0 + i for i in range(len(tokens))], ended=True)


def same(found: Decoded, wanted: Decoded) -> bool:
    return (found.tokens, found.log_probs, found.ended) == (
        wanted.tokens,
        wanted.log_probs,
        wanted.ended,
    )


def long_text(length: int) -> list[int]:
    """Without repeats, and without the stop."""
    return list(range(100, 100 + length))


tokens = st.lists(st.integers(3, 8), max_size=45)
mosts = st.integers(1, ENOUGH)


@st.composite
def edited(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """A text, and one that is it but for some tokens."""
    text = draw(tokens)
    other = list(text)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(other)))
        other[at : at + draw(st.integers(0, 3))] = draw(st.lists(st.integers(3, 8), max_size=3))
    return text, other


# ------------------------------------------------------------------------------- the result


@given(edited(), mosts, st.integers())
def test_any_draft_gives_what_none_gives(
    texts: tuple[list[int], list[int]], most: int, seed: int
) -> None:
    text, draft = texts
    language = saying(text, seed)
    found = ScriptedState(language).decode(drafted(draft), most)
    assert same(found, greedy(language, most))


@given(tokens, st.lists(st.integers(1, 9), max_size=70), mosts, st.integers())
def test_so_does_one_that_has_nothing_to_do_with_it_or_holds_the_marks(
    text: list[int], draft: list[int], most: int, seed: int
) -> None:
    language = saying(text, seed)
    found = ScriptedState(language).decode(drafted(draft), most)
    assert same(found, greedy(language, most))


@given(edited(), mosts, mosts, st.integers(0, 50), st.integers())
def test_trusted_tokens_stay_and_the_rest_is_as_decoded_after_them(
    texts: tuple[list[int], list[int]], first_most: int, most: int, trusted: int, seed: int
) -> None:
    """Also after other audio has been decoded in the same cache, as it is between two partials."""
    before, now = texts
    state = ScriptedState(saying(before, seed))
    draft = state.decode(Decoded(), first_most)
    state.language = saying(now, seed + 1)
    found = state.decode(draft, most, trusted=trusted)
    taken = min(trusted, len(draft.tokens), most)
    prefix = draft.tokens[:taken]
    wanted = greedy(state.language, most, prefix)
    assert found.tokens == prefix + wanted.tokens
    assert found.log_probs == draft.log_probs[:taken] + wanted.log_probs
    assert found.ended == wanted.ended


@given(st.lists(edited(), min_size=2, max_size=5), st.integers(0, 6), mosts, st.integers())
def test_a_cache_is_right_after_any_row_of_hypotheses(
    rounds: list[tuple[list[int], list[int]]], trusted: int, most: int, seed: int
) -> None:
    """The last one trusts in nothing, as a final: it must not see what came before."""
    state = ScriptedState(saying([]))
    latest = Decoded()
    for text, _ in rounds:
        state.language = saying(text, seed)
        latest = state.decode(latest, most, trusted=trusted, closing=frozenset({STOP}))
    last = state.decode(latest, most)
    assert same(last, greedy(state.language, most))


def test_a_draft_is_left_as_it_was() -> None:
    draft = drafted([3, 4, 5])
    state = ScriptedState(saying([3, 4, 5]))
    state.decode(draft, ENOUGH)
    state.language = saying([3, 4, 6])
    assert state.decode(draft, ENOUGH, trusted=2).tokens == [3, 4, 6]
    assert draft == drafted([3, 4, 5])


def test_decoding_stops_at_the_limit_even_within_a_draft() -> None:
    state = ScriptedState(saying(long_text(30)))
    found = state.decode(drafted(long_text(30)), 10)
    assert found.tokens == long_text(10)
    assert not found.ended
    assert found.rows == 10


@pytest.mark.parametrize("capacity", [1, 2, 8])
def test_decoding_stops_before_the_cache_is_full(capacity: int) -> None:
    state = ScriptedState(saying(long_text(30)), capacity)
    found = state.decode(drafted(long_text(30)), 1000)
    assert found.tokens == long_text(capacity - 1)
    assert not found.ended


def test_a_draft_that_fills_the_limit_and_is_trusted_costs_nothing() -> None:
    state = ScriptedState(saying([]))
    found = state.decode(drafted([3, 4, 5]), 2, trusted=9)
    assert (found.tokens, found.passes, found.ended) == ([3, 4], 0, False)


# --------------------------------------------------------------------------------- the cost


def passes(text: Sequence[int], draft: Sequence[int]) -> int:
    found = ScriptedState(saying(text)).decode(drafted(draft), ENOUGH)
    assert found.tokens == list(text)
    return found.passes


def test_without_a_draft_each_token_is_a_pass_and_so_is_the_end() -> None:
    found = ScriptedState(saying(long_text(12))).decode(Decoded(), ENOUGH)
    assert (found.passes, found.rows) == (13, 13)


@pytest.mark.parametrize("length", [1, PROPOSED_MOST, PROPOSED_MOST + 1, 40])
def test_a_right_draft_is_verified_a_stretch_at_a_time(length: int) -> None:
    state = ScriptedState(saying(long_text(length)))
    found = state.decode(drafted(long_text(length)), ENOUGH)
    assert found.tokens == long_text(length)
    assert found.passes <= 1 + length // (PROPOSED_MOST + 1) + 1
    assert found.rows == sum(state.counts) == length + 1
    assert max(state.counts) <= PROPOSED_MOST + 1


@pytest.mark.parametrize("at", [0, 5, 17])
def test_after_a_difference_it_meets_the_draft_again(at: int) -> None:
    """Over the whole draft, also if the difference lies in its first stretch."""
    text, right = long_text(36), passes(long_text(36), long_text(36))
    replaced = [*text[:at], 3, *text[at + 1 :]]
    inserted = [*text[:at], 3, 4, *text[at:]]
    removed = text[:at] + text[at + REJOIN_TOKENS - 1 :]
    assert passes(text, replaced) <= right + 3
    assert passes(text, inserted) <= right + 3
    assert passes(text, removed) <= right + REJOIN_TOKENS + 1


def test_what_follows_the_draft_costs_a_pass_for_each_token() -> None:
    assert passes(long_text(12), long_text(8)) == 1 + 3 + 1


@given(edited(), st.integers())
def test_no_draft_costs_more_passes_than_none(
    texts: tuple[list[int], list[int]], seed: int
) -> None:
    text, draft = texts
    language = saying(text, seed)
    without = ScriptedState(language).decode(Decoded(), ENOUGH)
    assert ScriptedState(language).decode(drafted(draft), ENOUGH).passes <= without.passes


def test_a_draft_is_rejoined_near_where_it_was_left_only() -> None:
    rest = long_text(REJOIN_TOKENS + 3)
    assert rejoined(rest, rest[0]) == (rest[1:], rest[1:])
    assert rejoined(rest, rest[REJOIN_TOKENS - 1]) == (rest[REJOIN_TOKENS:],) * 2
    assert rejoined(rest, rest[REJOIN_TOKENS]) == (rest, [])
    assert rejoined(rest[:2], rest[0]) == (rest[1:2], []), "one token is not worth a proposal"
    assert rejoined([], 5) == ([], [])


# ------------------------------------------------------------------------------ full stops


def closed(text: Sequence[int], draft: Sequence[int]) -> Decoded:
    state = ScriptedState(saying(text))
    return state.decode(drafted(draft), ENOUGH, closing=frozenset({STOP}))


def test_a_new_stop_is_taken_for_the_end() -> None:
    found = closed([3, 4, STOP, 5], [3, 4])
    assert (found.tokens, found.passes, found.ended) == ([3, 4, STOP], 1, True)
    assert len(found.log_probs) == 3


def test_a_stop_that_was_there_before_is_looked_behind() -> None:
    assert closed([3, 4, STOP, 5, 6], [3, 4, STOP]).tokens == [3, 4, STOP, 5, 6]
    assert closed([3, 4, STOP, 5, 6], [3, 4, STOP, 5]).tokens == [3, 4, STOP, 5, 6]


def test_a_stop_within_the_draft_is_none_wherever_a_stretch_of_it_ends() -> None:
    for before in range(1, 2 * PROPOSED_MOST + 3):
        text = [*long_text(before), STOP, 50]
        assert closed(text, text).tokens == text


def test_a_stop_at_which_the_draft_is_met_again_is_looked_behind() -> None:
    assert closed([3, 5, STOP, 6, 7], [3, 4, STOP, 6]).tokens == [3, 5, STOP, 6, 7]


def test_without_closing_tokens_a_stop_is_a_token() -> None:
    found = ScriptedState(saying([3, STOP, 4])).decode(drafted([3]), ENOUGH)
    assert found.tokens == [3, STOP, 4]


# ---------------------------------------------------------------------- unlikely tokens


def hesitant(text: Sequence[int], unlikely: set[int]) -> Language:
    """One that says this text, and is unsure of what stands at these places."""
    says = saying(text)
    return lambda held: (says(held)[0], -2.0 if len(held) - 1 in unlikely else -0.1)


def test_a_drafted_token_may_be_unlikely_where_a_stretch_of_the_draft_ends() -> None:
    text = long_text(PROPOSED_MOST + 1)
    state = ScriptedState(hesitant(text, {PROPOSED_MOST}))
    assert state.decode(drafted(text), ENOUGH, unsure=-1.0).tokens == text


@given(st.lists(st.integers(3, 300), min_size=1, max_size=40), st.data())
def test_a_hypothesis_ends_before_the_first_new_token_that_is_unlikely(
    text: list[int], data: st.DataObject
) -> None:
    """Whether it is found alone, behind the draft, or in the place of a drafted one."""
    kept = data.draw(st.integers(0, len(text)))
    changed = data.draw(st.booleans())
    draft = [*text[:kept], *([301] if changed else [])]
    unlikely = data.draw(st.sets(st.integers(0, len(text))))
    new = [at for at in unlikely if at >= max(kept, 1)]
    found = ScriptedState(hesitant(text, unlikely)).decode(drafted(draft), ENOUGH, unsure=-1.0)
    end = min([*new, len(text)])
    assert found.tokens == text[:end]
    assert found.ended
    assert found.cut_short == bool(new)
    assert len(found.log_probs) == end + (not new)
    sure = ScriptedState(hesitant(text, unlikely)).decode(drafted(draft), ENOUGH)
    assert (sure.tokens, sure.cut_short) == (text, False)


# ------------------------------------------------------------------ too many new tokens


@given(st.lists(st.integers(3, 300), min_size=1, max_size=40, unique=True), st.data())
def test_a_hypothesis_ends_after_so_many_tokens_that_the_draft_did_not_have(
    text: list[int], data: st.DataObject
) -> None:
    kept, most = data.draw(st.integers(0, len(text))), data.draw(st.integers(1, 8))
    found = ScriptedState(saying(text)).decode(drafted(text[:kept]), ENOUGH, most_new=most)
    assert found.tokens == text[: kept + most]
    assert found.ended
    assert found.cut_short == (len(text) - kept >= most)
    assert len(found.log_probs) == len(found.tokens) + (not found.cut_short)


def test_the_end_of_a_loop_is_left_out_but_for_its_first_turn() -> None:
    text = [3, 4, *[5, 6, 7] * 9]
    found = ScriptedState(saying(text)).decode(drafted([3, 4]), ENOUGH, most_new=8)
    assert found.tokens == [3, 4, 5, 6, 7]
    assert found.ended
    assert len(found.log_probs) == 5


def test_of_what_the_draft_had_nothing_is_left_out() -> None:
    text = [5, 6, 7] * 9
    found = ScriptedState(saying(text)).decode(drafted(text[:9]), ENOUGH, most_new=4)
    assert found.tokens == text[:9]


# ---------------------------------------------------------------------------- memory


class RecordingBinding:
    """Knows the addresses, as onnxruntime's does."""

    def __init__(self) -> None:
        self.bound: dict[str, tuple[int, int]] = {}
        """Name → address, and bytes that may be touched there."""

    def bind_input(
        self, name: str, device: str, number: int, dtype: Any, shape: Sequence[int], address: int
    ) -> None:
        assert (device, number) == ("cpu", 0)
        self.bound[name] = address, int(np.prod(shape)) * np.dtype(dtype).itemsize

    bind_output = bind_input


class Made:
    """A state over a graph of two layers that is not there."""

    def __init__(self, capacity: int = 8) -> None:
        self.binding = RecordingBinding()
        self.runs = 0
        session = SimpleNamespace(io_binding=lambda: self.binding, run_with_iobinding=self._ran)
        graph = SimpleNamespace(
            session=session,
            capacity=capacity,
            layers=2,
            scores="",
            tokens=16,
            real=np.float32,
            cache_shape=(1, 2, capacity, 4),
            on_gpu=False,
        )
        self.state = DecoderState(cast("LeanDecoder", graph))

    def _ran(self, _: object) -> None:
        self.runs += 1
        self.check()

    def check(self) -> None:
        """All that is bound lies in arrays that the state holds."""
        gc.collect()
        held = [*vars(self.state).values(), self.state._caches.values()]
        listed = [each for some in held if isinstance(some, list) for each in some]
        arrays = [each for each in [*held, *listed] if isinstance(each, np.ndarray)]
        spans = [(each.ctypes.data, each.ctypes.data + each.nbytes) for each in arrays]
        for name, (address, size) in self.binding.bound.items():
            assert any(begin <= address and address + size <= end for begin, end in spans), name


def cross(frames: int) -> list[NDArray[np.float32]]:
    return [np.zeros((1, 2, frames, 4), np.float32) for _ in range(4)]


def test_all_that_is_bound_lives_as_long_as_the_state() -> None:
    """onnxruntime up to 1.23 does not keep even an OrtValue alive."""
    made = Made()
    made.check()
    for frames, draft in ((5, []), (9, [3, 4, 5]), (2, [3] * 7), (2, [])):
        made.state.attend_to(cross(frames))
        made.check()
        made.state.decode(drafted(draft), 7)
        made.check()
    assert made.runs
    names = {f"{kind}_{i}" for kind in ("key", "value") for i in range(2)}
    names |= {f"{prefix}{name}" for prefix in ("new_", "cross_") for name in names}
    assert set(made.binding.bound) == names | {"ids", "last", "total", "token", "log_prob"}


def test_the_cache_is_written_in_place() -> None:
    bound = Made().binding.bound
    for name in ("key_0", "value_0", "key_1", "value_1"):
        assert bound[name] == bound[f"new_{name}"]
    assert len({address for address, _ in bound.values()}) == 4 + 2, "shared by no others"


def test_keys_and_values_that_do_not_lie_in_one_piece_are_copied() -> None:
    made = Made()
    wide = [np.zeros((1, 2, 9, 4), np.float32)[:, :, :5] for _ in range(4)]
    assert not wide[0].flags.c_contiguous
    made.state.attend_to(wide)
    made.check()
    assert made.binding.bound["cross_key_0"][1] == 2 * 5 * 4 * 4


def test_what_it_attended_to_can_be_given_back() -> None:
    made = Made()
    made.state.attend_to(cross(50))
    made.state.let_go()
    made.check()
    assert made.binding.bound["cross_value_1"][1] == 0
