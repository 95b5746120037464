"""Words that are likelier here, for a decoder that goes token by token: which of them win.

In: what greedy decoding gave, and a way to ask the model how likely other tokens are in its place.
Out: the same, or with hotwords where they, with their boost, are likelier than what was heard. It
is shallow fusion with a beam that opens only where a hotword can win: a boost counts for a whole
word or not at all, so what does not complete leaves no trace. Pure but for what it asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harkd.hotword_list import Hotwords
from harkd.recognizer.moonshine_tokens import TOKEN_END, Decoded, Tokenizer
from harkd.recognizer.spelling import casings, sentence_casings

REPLACED_WORDS = 4
"""A hotword takes the place of so many words at most, or of as many as it has itself."""
SUFFIX_TOKENS = 6
"""So many tokens after a hotword are asked for again: is the rest still what was said?"""
BEAM = 3.0
"""A hotword is looked at where its first other token, with its boost, is no less likely than what
was heard by more than this, as a log-probability."""
TRIED_SHARE = 0.25
"""So many alternatives are tried for each token heard,"""
TRIED_LEAST = 3
"""but so many at least."""

Float32 = NDArray[np.float32]
Ask = Callable[[int, Sequence[int]], Float32]
"""After so many of the tokens heard, others: log-probabilities before the first, after each, of all
tokens: float32, shape (1 + others, tokens). Asked from the end of the text to its beginning."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to write a hotword."""

    tokens: tuple[int, ...]
    """Ids"""
    boost: float
    """For each of them, as a log-probability"""
    words: int = 1
    """Words in it"""
    casings: tuple[tuple[int, ...], ...] = ()
    """It in all casings: where one is heard, nothing needs to be replaced"""

    @property
    def bonus(self) -> float:
        """What it is worth as a whole."""
        return self.boost * len(self.tokens)


@dataclass(frozen=True, slots=True)
class Replacement:
    """A hotword in the place of tokens that were heard."""

    begin: int
    """The first of them"""
    heard: tuple[int, ...]
    """What was heard, from the first token of all to the last of them"""
    variant: Variant
    """Which hotword"""
    log_probs: tuple[float, ...]
    """Of its tokens"""
    gain: float
    """By how much it is likelier, its bonus counted"""

    @property
    def end(self) -> int:
        """After the last of the tokens that were heard."""
        return len(self.heard)


class Variants:
    """All ways to write the hotwords.

    Args:
        variants: Those.
    """

    def __init__(self, variants: Sequence[Variant]) -> None:
        self.variants = tuple(variants)
        self.tokens = np.array(sorted({at for each in variants for at in each.tokens}), np.int64)
        """Their tokens, in order"""
        self._column = {int(token): i for i, token in enumerate(self.tokens)}
        self._firsts = np.array([self._column[each.tokens[0]] for each in variants], np.int64)
        self._boosts = np.array([each.boost for each in variants], np.float32)

    def plausible(self, plain: Decoded, begins: Sequence[bool]) -> list[tuple[int, Variant]]:
        """Return where which hotword may win, the last place first.

        Where a hotword begins as what was heard, it is judged by its first other token.

        Args:
            plain: What was heard, with what it saw of `tokens`.
            begins: Whether each of its tokens, and the end, begins a word or a mark.
        """
        found: list[tuple[float, int, Variant]] = []
        for place in (i for i in range(len(plain.tokens)) if begins[i]):
            behind = plain.watched[place][self._firsts] + self._boosts - plain.log_probs[place]
            for number in np.flatnonzero(behind > -BEAM).tolist():
                variant = self.variants[number]
                if any(starts_with(plain.tokens, place, each) for each in variant.casings):
                    continue
                same = _common(plain.tokens[place:], variant.tokens)
                seen = plain.watched[place + same][self._column[variant.tokens[same]]]
                chance = float(seen) + variant.boost - plain.log_probs[place + same]
                if chance > -BEAM:
                    found.append((chance, place, variant))
        found.sort(key=lambda each: -each[0])
        most = max(TRIED_LEAST, int(TRIED_SHARE * len(plain.tokens)))
        return [each[1:] for each in sorted(found[:most], key=lambda each: -each[1])]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many leading tokens are the same."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def variants_of(hotwords: Hotwords, tokenizer: Tokenizer) -> Variants:
    """Return the ways in which a model may write hotwords."""
    found: dict[tuple[int, ...], Variant] = {}
    for each in hotwords:
        every = tuple(tuple(tokenizer.spelled(form)) for form in casings(each.phrase))
        for form in sentence_casings(each.phrase):
            tokens = tuple(tokenizer.spelled(form))
            found[tokens] = Variant(tokens, each.boost, len(form.split()), every)
    return Variants(list(found.values()))


def starts_with(tokens: Sequence[int], at: int, others: Sequence[int]) -> bool:
    """Tell whether other tokens stand there."""
    return tuple(tokens[at : at + len(others)]) == tuple(others)


def winners(
    plain: Decoded, variants: Variants, begins: Sequence[bool], ask: Ask, most: int
) -> list[Replacement]:
    """Return the hotwords that are likelier than what was heard, the last place first.

    Args:
        plain: What was heard, up to its end.
        variants: The hotwords.
        begins: As in `Variants.plausible`.
        ask: Asks the model.
        most: So many tokens can be asked for, from the first on.
    """
    found = [
        each
        for begin, variant in variants.plausible(plain, begins)
        if begin + len(variant.tokens) + SUFFIX_TOKENS <= most
        and (each := _tried(plain, begin, variant, begins, ask))
    ]
    taken: list[Replacement] = []
    for each in sorted(found, key=lambda each: -each.gain):
        if all(each.end <= other.begin or other.end <= each.begin for other in taken):
            taken.append(each)
    return sorted(taken, key=lambda each: -each.begin)


def with_winners(plain: Decoded, won: Sequence[Replacement]) -> Decoded:
    """Return what was heard with hotwords in it, as far as it was the same up to their end.

    Args:
        plain: What was heard.
        won: What `winners` returned, of this or of an earlier hypothesis.
    """
    result = Decoded(
        plain.tokens, plain.log_probs, plain.ended, plain.cut_short, plain.passes, plain.rows
    )
    for each in won:
        if not starts_with(plain.tokens, 0, each.heard):
            continue
        begin, end = each.begin, each.end
        result.tokens = [
            *result.tokens[:begin],
            *each.variant.tokens,
            *result.tokens[end:],
        ]
        result.log_probs = [
            *result.log_probs[:begin],
            *each.log_probs,
            *result.log_probs[end:],
        ]
    return result


def _tried(
    plain: Decoded, begin: int, variant: Variant, begins: Sequence[bool], ask: Ask
) -> Replacement | None:
    """Return a hotword in the best place that begins there, or None where it is less likely."""
    tokens = [*plain.tokens, TOKEN_END]
    count = len(variant.tokens)
    logs = ask(begin, variant.tokens)
    own = [float(logs[k, token]) for k, token in enumerate(variant.tokens)]
    ends = [j for j in range(begin + 1, len(tokens)) if begins[j]]
    ends = ends[: max(REPLACED_WORDS, variant.words + 1)]
    sums = np.concatenate([[0.0], np.cumsum(plain.log_probs)])
    worth = sum(own) + variant.bonus

    # Of the places where the text may go on, the likeliest; of the same tokens, the next one.
    end = max(ends, key=lambda end: float(logs[count, tokens[end]]))
    if worth + float(logs[count, tokens[end]] - (sums[end + 1] - sums[begin])) <= 0:
        return None
    suffix = tokens[end : end + SUFFIX_TOKENS]
    logs = ask(begin, [*variant.tokens, *suffix[:-1]])
    own = [float(logs[k, token]) for k, token in enumerate(variant.tokens)]
    after = sum(float(logs[count + k, token]) for k, token in enumerate(suffix))
    won = sum(own) + variant.bonus + after - float(sums[end + len(suffix)] - sums[begin])
    return Replacement(begin, tuple(tokens[:end]), variant, tuple(own), won) if won > 0 else None
