"""Phrases under Moonshine, lean and published: several hypotheses at once are as each by itself."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from harkd.errors import ModelError
from harkd.model_package import load_manifest
from harkd.recognizer.factory import load_recognizer
from harkd.recognizer.moonshine import Moonshine
from harkd.recognizer.moonshine_continuations import MoonshineHeard, log_softmax
from harkd.recognizer.moonshine_lean import MoonshineLean
from harkd.recognizer.moonshine_tokens import TOKEN_END, TOKEN_START
from harkd.recognizer.phrase_scorer import PhraseScorer, Scope
from harkd.recognizer.phrase_search import Width
from harkd_convert.conversion import convert
from harkd_convert.graph import Precision
from harkd_convert.package import Options
from small_moonshine import WORDS, write_directory
from small_phrases import small_graph
from speech import plain

pytestmark = pytest.mark.model
Int16 = NDArray[np.int16]
WIDE = Scope(Width(paths=40, first=40, found=40, within=1e9), exhaustive=True)
TREES = small_graph("(alder|birch) [cedar] (elm|fir)", "oak", "pine pine")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> MoonshineLean:
    """One of random weights, in float32."""
    folder = tmp_path_factory.mktemp("small")
    target = folder / "package"
    convert(write_directory(folder / "small"), target, Options(precision=Precision.FP32))
    model = load_recognizer(target, load_manifest(target), threads=1)
    assert isinstance(model, MoonshineLean)
    return model


def noise(seed: int) -> Int16:
    """Two seconds."""
    return np.random.default_rng(seed).normal(0, 3000, 32_000).astype(np.int16)


def loaded(folder: Path) -> Moonshine | MoonshineLean:
    """A real model."""
    model = load_recognizer(folder, load_manifest(folder), threads=1)
    assert isinstance(model, Moonshine | MoonshineLean)
    return model


def ever_tried(model_dir: Path) -> Int16:
    """The first 2.6 s of a recording: "Ever tried, ever failed"."""
    sample = next(s for s in load_manifest(model_dir).samples if s.path.endswith("beckett.wav"))
    audio, rate_hz = soundfile.read(model_dir / sample.path, dtype="int16")
    assert rate_hz == 16_000
    cut: Int16 = audio[: int(2.6 * rate_hz)]
    return cut


@pytest.mark.parametrize("seed", range(3))
def test_a_small_model_finds_what_scoring_each_phrase_by_itself_finds(
    small: MoonshineLean, seed: int
) -> None:
    stream = small.stream()
    stream.accept(noise(seed))
    found = stream.phrases(PhraseScorer(TREES, small.vocabulary(), TOKEN_END, WIDE))
    sentences = {TREES.words(arcs) for arcs in TREES.sentences()}
    assert {TREES.words(each.arcs) for each in found.phrases} == sentences
    continuations = small.continuations.take(1)
    continuations.attend_to(stream._encoder.cross())
    for each in found.phrases:
        tokens = tuple(3 + WORDS.index(word) for word in TREES.words(each.arcs).split())
        assert each.written == tokens
        assert each.log_prob == pytest.approx(
            continuations.log_prob_of(tokens, TOKEN_END), abs=1e-3
        )
    small.continuations.give_back(continuations)
    scores = [each.log_prob for each in found.phrases]
    assert scores == sorted(scores, reverse=True)


def test_hypotheses_that_grow_together_are_as_each_by_itself(small: MoonshineLean) -> None:
    stream = small.stream()
    stream.accept(noise(7))
    stream.prepare()
    many, one = small.continuations.take(4), small.continuations.take(1)
    for each in (many, one):
        each.attend_to(stream._encoder.cross())
    many.begin()
    many.advance([0, 0, 0, 0], [3, 4, 5, 6])
    rows = many.advance([3, 1, 1], [7, 8, 9]).copy()
    for row, tokens in zip(rows, [(6, 7), (4, 8), (4, 9)], strict=True):
        assert row[TOKEN_END] + one_by_one(one, tokens) == pytest.approx(
            one.log_prob_of(tokens, TOKEN_END), abs=1e-3
        )


def one_by_one(one: object, tokens: tuple[int, ...]) -> float:
    """The log-probability of tokens without the end."""
    total, row = 0.0, one.begin()  # type: ignore[attr-defined]
    for token in tokens:
        total += float(row[0, token])
        row = one.advance([0], [token])  # type: ignore[attr-defined]
    return total


def test_phrases_change_nothing_of_the_open_text(small: MoonshineLean) -> None:
    scorer = PhraseScorer(TREES, small.vocabulary(), TOKEN_END, WIDE)
    plain, asked = small.stream(), small.stream()
    for stream in (plain, asked):
        stream.accept(noise(1)[:16_000])
    asked.phrases(scorer)
    for stream in (plain, asked):
        stream.accept(noise(1)[16_000:])
    before = asked.phrases(scorer)
    assert asked.finish().tokens == plain.finish().tokens
    assert asked.phrases(scorer) == before


def test_nothing_heard_has_no_phrase(small: MoonshineLean) -> None:
    scorer = PhraseScorer(TREES, small.vocabulary(), TOKEN_END, WIDE)
    assert small.stream().phrases(scorer).phrases == ()


def test_the_cost_is_counted(small: MoonshineLean) -> None:
    stream = small.stream()
    stream.accept(noise(1))
    stream.finish()
    before = small.work.snapshot()
    found = stream.phrases(PhraseScorer(TREES, small.vocabulary(), TOKEN_END, WIDE))
    work = small.work.since(before)
    assert (work.decoder_passes, work.decoder_rows) == (found.passes, found.rows)
    assert work.encoder_passes == 0


def test_a_package_of_an_older_version_says_so(
    small: MoonshineLean, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small.decoder, "takes_several", False)
    with pytest.raises(ModelError, match="Make it again"):
        small.vocabulary()


@pytest.mark.parametrize("kind", ["model_dir", "lean_model_dir"])
def test_a_real_model_finds_the_phrase_that_was_said_among_others(
    kind: str, request: pytest.FixtureRequest, model_dir: Path
) -> None:
    """The same recording, cut: "Ever tried, ever failed", of which phrases differ in a word."""
    model = loaded(request.getfixturevalue(kind))
    graph = small_graph("(ever|never) (cried|tied) ever (sailed|fail)", "turn on the light")
    stream = model.stream()
    stream.accept(ever_tried(model_dir))
    open_text = stream.finish().text
    found = stream.phrases(
        PhraseScorer(graph, model.vocabulary(), TOKEN_END, Scope(exhaustive=True))
    )
    best = found.phrases[0]
    assert graph.words(best.arcs).startswith("ever ")
    assert best.evidence > 0
    assert found.open.text == open_text
    exact = stream.phrases(
        PhraseScorer(small_graph(plain(open_text)), model.vocabulary(), TOKEN_END)
    )
    assert exact.exact
    assert exact.phrases[0].margin == 0.0


def test_the_published_decoder_goes_on_from_its_first_pass(model_dir: Path) -> None:
    """A text's log-probabilities are those of one pass over all of it, but for int8's rounding."""
    model = load_recognizer(model_dir, load_manifest(model_dir), threads=1)
    assert isinstance(model, Moonshine)
    hidden = model.encode((noise(3) / 32768).astype(np.float32))
    tokens = tuple(model.tokenizer.spelled("Set a timer for five minutes."))
    rows = MoonshineHeard(model, hidden, 32_000).rows(tokens)
    ids = np.array([[TOKEN_START, *tokens]], np.int64)
    logits, _ = model.run_decoder(ids, (hidden, 32_000), None)
    whole = log_softmax(logits[0])
    full = [*tokens, TOKEN_END]
    assert rows.shape == whole.shape
    at = range(len(full))
    np.testing.assert_allclose(rows[at, full], whole[at, full], atol=1.5)


@pytest.mark.parametrize("kind", ["model_dir", "lean_model_dir"])
def test_a_real_model_finds_what_it_would_never_begin_with(
    kind: str, request: pytest.FixtureRequest, model_dir: Path
) -> None:
    """No search of one hypothesis gets past a first word that is wrong; sounding like it does."""
    model = loaded(request.getfixturevalue(kind))
    stream = model.stream()
    stream.accept(ever_tried(model_dir))
    graph = small_graph("clever tried ever failed", "ever so many lights", "turn on the light")
    narrow = Width(paths=1, first=1)
    by_sound = PhraseScorer(graph, model.vocabulary(), scope=Scope(narrow, sure=-math.inf, clear=2))
    searched = PhraseScorer(graph, model.vocabulary(), scope=Scope(narrow, near=0, clear=2))
    found = [
        [graph.words(each.arcs) for each in stream.phrases(scorer).phrases[:1]]
        for scorer in (by_sound, searched)
    ]
    assert found[0] == ["clever tried ever failed"]
    assert found[1] != found[0]


def test_behind_a_clear_open_text_only_what_sounds_like_it_is_tried(
    lean_model_dir: Path, model_dir: Path
) -> None:
    """A search over all phrases costs the most, and finds nothing there."""
    model = loaded(lean_model_dir)
    stream = model.stream()
    stream.accept(ever_tried(model_dir))
    graph = small_graph("clever tried ever failed", "turn on the light")
    scorers = [
        PhraseScorer(graph, model.vocabulary(), scope=Scope(clear=clear)) for clear in (0.01, 1.1)
    ]
    clear, unclear = map(stream.phrases, scorers)
    for each in (clear, unclear):
        assert graph.words(each.phrases[0].arcs) == "clever tried ever failed"
    assert clear.passes < unclear.passes
