"""Phrases under streaming models: CTC judges texts, a transducer's open text is one or not."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from harkd.model_package import load_manifest
from harkd.recognizer.ctc import StreamingCtc
from harkd.recognizer.ctc_phrases import CtcJudge, KeepingCtc
from harkd.recognizer.factory import load_recognizer
from harkd.recognizer.phrase_scorer import OpenText, PhraseScorer, matched
from harkd.recognizer.phrase_tokens import Vocabulary
from harkd.recognizer.search import GreedyCtc
from small_phrases import small_graph
from spoken import SENTENCES, TRAINED, say

BLANK = 0


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    """What frames say."""
    return tuple(token for token, _ in itertools.groupby(path) if token != BLANK)


@pytest.mark.parametrize("seed", range(3))
def test_a_text_is_as_likely_as_all_ways_to_say_it(seed: int) -> None:
    frames = np.random.default_rng(seed).normal(size=(5, 3)).astype(np.float32)
    logs = frames - np.log(np.exp(frames).sum(axis=1, keepdims=True))
    by_text: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(3), repeat=5):
        score = math.exp(sum(float(logs[i, token]) for i, token in enumerate(path)))
        by_text[collapsed(path)] = by_text.get(collapsed(path), 0.0) + score
    judge = CtcJudge([frames[:2], frames[2:]], BLANK)
    texts = [(1,), (1, 1), (1, 2, 1), (2, 2, 2), (1, 2)]
    for text, found in zip(texts, judge.log_probs(texts), strict=True):
        assert math.exp(found) == pytest.approx(by_text[text], rel=1e-5)
    assert judge.silence((1,)) == pytest.approx(float(logs[:, BLANK].sum()), rel=1e-5)


def test_more_tokens_than_frames_are_impossible() -> None:
    judge = CtcJudge([np.zeros((2, 3), np.float32)], BLANK)
    assert judge.log_probs([(1, 2, 1)])[0] < -1e6


def test_what_was_gone_over_is_kept_by_each_branch_for_itself() -> None:
    search = KeepingCtc(GreedyCtc(BLANK))
    buffer = np.zeros((2, 3), np.float32)
    buffer[:, 1] = 5
    search.advance(buffer)
    other = search.branch()
    buffer[:, 1], buffer[:, 2] = 0, 5
    other.advance(buffer)
    assert (search.found.tokens, other.found.tokens) == ([1], [1, 2])
    assert [int(each[0].argmax()) for each in other.outputs] == [1, 2]
    assert len(search.outputs) == 1


def test_open_text_of_a_model_that_tells_no_more_is_a_phrase_or_none() -> None:
    scorer = PhraseScorer(small_graph("turn on the light"), Vocabulary([" light"]))
    said = scorer.exact(OpenText("Turn on the light.", (0,), -2.0))
    assert said.exact
    assert (best := matched(said)) is not None
    assert (best.text, best.margin, best.log_prob) == ("Turn on the light.", 0.0, -2.0)
    assert matched(scorer.exact(OpenText("Turn on the lights.", (0,), -2.0))) is None
    assert matched(scorer.exact(OpenText("", (), 0.0))) is None


@pytest.fixture(scope="module")
def trained() -> StreamingCtc:
    """A small model of digits, letters and commands."""
    model = load_recognizer(TRAINED, load_manifest(TRAINED), threads=1)
    assert isinstance(model, StreamingCtc)
    return model


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_trained_model_hears_which_of_the_phrases_was_said(
    trained: StreamingCtc, sentence: str
) -> None:
    scorer = PhraseScorer(small_graph(*SENTENCES), trained.vocabulary())
    stream = trained.stream()
    stream.accept(say(sentence))
    before = stream.finish()
    best = matched(stream.phrases(scorer))
    assert best is not None
    assert best.text == sentence
    assert stream.finish() == before


def test_what_is_no_phrase_is_none_of_them(trained: StreamingCtc) -> None:
    scorer = PhraseScorer(small_graph(*SENTENCES[:5]), trained.vocabulary())
    for sentence in SENTENCES[5:]:
        stream = trained.stream()
        stream.accept(say(sentence))
        assert matched(stream.phrases(scorer)) is None


def test_nothing_heard_is_no_phrase(trained: StreamingCtc) -> None:
    scorer = PhraseScorer(small_graph(*SENTENCES), trained.vocabulary())
    assert trained.stream().phrases(scorer).phrases == ()
