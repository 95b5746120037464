"""Hotwords in each family, with real models and small ones: what they change, and what they do not.

What Beckett's recording says: "Ever tried, ever failed, no matter, try again. Fail again, fail
better."
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from harkd.audio import RATE_HZ
from harkd.hotword_list import Hotword
from harkd.model_package import load_manifest
from harkd.recognizer.extra_output import result_of, with_output
from harkd.recognizer.factory import load_recognizer
from harkd.recognizer.lean_decoder import SCORES_OP
from harkd.recognizer.moonshine import Moonshine
from harkd.recognizer.moonshine_lean import MoonshineLean
from harkd.recognizer.moonshine_tokens import TOKEN_END, Tokenizer
from harkd.recognizer.protocol import Hypothesis, Recognizer
from harkd.recognizer.spelling import casings, fewest

Int16 = NDArray[np.int16]
NONE_SAID = tuple(Hotword(each, 1.0) for each in ("Siobhan", "Drury Lane", "Worcestershire"))
CLAIMED = (Hotword("cried", 6.0),)
"""Nobody says it; with such a boost it is heard all the same."""


@pytest.fixture(scope="module")
def beckett(model_dir: Path) -> Int16:
    """The first 6 s of a recording: int16, (n,), 16 kHz."""
    audio, rate_hz = soundfile.read(model_dir / "samples" / "beckett.wav", dtype="int16")
    found: Int16 = soxr.resample(audio, rate_hz, RATE_HZ)[: 6 * RATE_HZ]
    return found


@pytest.fixture(params=["published", "lean"])
def model(request: pytest.FixtureRequest, model_dir: Path, lean_model_dir: Path) -> Recognizer:
    """Loaded anew, so that it has seen no hotwords."""
    folder = model_dir if request.param == "published" else lean_model_dir
    recognizer = load_recognizer(folder, load_manifest(folder), threads=1)
    assert isinstance(recognizer, Moonshine | MoonshineLean)
    return recognizer


def heard(model: Recognizer, audio: Int16, hotwords: tuple[Hotword, ...] = ()) -> Hypothesis:
    stream = model.stream(hotwords)
    stream.accept(audio)
    return stream.finish()


def test_without_hotwords_nothing_changes_also_after_some(
    model: Recognizer, beckett: Int16
) -> None:
    before = model.work.snapshot()
    plain = heard(model, beckett)
    work = model.work.since(before)
    heard(model, beckett, CLAIMED)
    before = model.work.snapshot()
    assert heard(model, beckett) == plain
    assert model.work.since(before) == work


def test_hotwords_that_nobody_says_change_nothing(model: Recognizer, beckett: Int16) -> None:
    assert heard(model, beckett, NONE_SAID) == heard(model, beckett)


def test_a_hotword_is_heard_in_the_place_of_something_else(
    model: Recognizer, beckett: Int16
) -> None:
    plain, found = heard(model, beckett), heard(model, beckett, CLAIMED)
    assert "cried" in found.text
    assert "cried" not in plain.text
    assert 0 < found.confidence < plain.confidence, "the boost is not taken for confidence"
    kept = set(plain.text.split()) & set(found.text.split())
    assert len(kept) >= len(plain.text.split()) - 4


def test_looking_for_hotwords_does_not_spoil_what_comes_after(
    model: Recognizer, beckett: Int16
) -> None:
    """The lean decoder's cache is written over; what was in it must not be trusted."""
    hopeful = (Hotword("Ednamode", 4.0), Hotword("evert", 4.0), Hotword("trident", 4.0))
    texts = []
    for hotwords in ((), hopeful):
        stream, said = model.stream(hotwords), []
        for at in range(0, len(beckett), RATE_HZ):
            stream.accept(beckett[at : at + RATE_HZ])
            said.append((stream.prepare() if at // RATE_HZ % 2 else stream.hypothesis()).text)
        texts.append([*said, stream.finish().text])
    assert texts[0] == texts[1]


@pytest.mark.parametrize("draft", ["none", "right", "wrong"])
def test_the_published_decoder_is_asked_where_it_was(
    model_dir: Path, beckett: Int16, draft: str
) -> None:
    """With the caches of what it found; int8 activations are quantized for each call anew."""
    model = Moonshine(model_dir, load_manifest(model_dir), threads=1)
    samples = beckett.astype(np.float32) / np.float32(32768)
    heard = model.encode(samples), len(samples)
    tokens = model.decode(*heard).tokens
    drafts = {"none": [], "right": tokens, "wrong": [*tokens[:5], 1000, 1001]}
    caches: dict[str, NDArray[np.float32]] = {}
    found = model.decode(*heard, drafts[draft], caches=caches)
    assert found.tokens == tokens
    for place in (0, 1, 5, len(tokens)):
        others = tokens[place : place + 3]
        logs = model.ask(heard, caches, tokens[:place], others)
        said = logs[range(len(others) + 1), [*tokens, TOKEN_END][place : place + len(others) + 1]]
        expected = found.log_probs[place : place + len(others) + 1]
        assert np.exp(said) == pytest.approx(np.exp(expected), abs=0.2)


def test_what_won_stays_while_somebody_talks_on(model: Recognizer, beckett: Int16) -> None:
    stream = model.stream(CLAIMED)
    stream.accept(beckett)
    prepared = stream.prepare().text
    assert "cried" in prepared
    stream.accept(np.zeros(RATE_HZ, np.int16))
    begin = prepared[: prepared.index("cried") + 5]
    assert stream.hypothesis().text.startswith(begin)


def test_the_tokenizer_spells_as_the_model_writes(model: Recognizer, beckett: Int16) -> None:
    assert isinstance(model, Moonshine | MoonshineLean)
    found = heard(model, beckett)
    spelled = [token for word in found.text.split() for token in model.tokenizer.spelled(word)]
    assert tuple(spelled) == found.tokens


def test_any_character_can_be_spelled(model_dir: Path) -> None:
    tokenizer = Tokenizer(model_dir / "tokenizer.bin")
    for word in ("Bergström", "Łódź", "北京"):
        assert tokenizer.text(tokenizer.spelled(word)) == word


def test_an_output_is_added_to_a_graph_without_touching_it(lean_model_dir: Path) -> None:
    onnx = pytest.importorskip("onnx")
    content = (lean_model_dir / "decoder.onnx").read_bytes()
    name = result_of(memoryview(content), SCORES_OP)
    before, after = (
        onnx.load_from_string(content),
        onnx.load_from_string(with_output(content, name)),
    )
    assert [each.name for each in after.graph.output] == [
        *(each.name for each in before.graph.output),
        name,
    ]
    del after.graph.output[-1]
    assert after == before


@pytest.mark.parametrize("damaged", [b"\x3a\x05abc", b"\xff\xff", b"", b"\x0b"])
def test_what_is_no_such_graph_is_told(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut off|not one|a field of the kind"):
        result_of(memoryview(damaged), SCORES_OP)


def test_a_phrase_is_spelled_with_few_pieces() -> None:
    ids = {"▁": 0, "▁c": 1, "▁cat": 2, "a": 3, "t": 4, "at": 5, "s": 6}
    assert fewest("▁cats", ids, 4) == [[2, 6], [1, 5, 6]]
    assert fewest("▁dog", ids, 4) == []
    assert fewest("", ids, 4) == []


def test_casings_are_told_once_each() -> None:
    assert casings("Drury lane") == ["Drury lane", "drury lane", "Drury Lane", "DRURY LANE"]
