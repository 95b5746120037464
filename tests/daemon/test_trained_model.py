"""A streaming model with trained weights hears what is said, as sherpa-onnx does."""

from __future__ import annotations

import itertools

import jiwer
import numpy as np
import pytest
import sherpa_onnx
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fakes import ScriptedSource, silence, split
from harkd.audio import RATE_HZ, AudioBlock, SourceOpened
from harkd.events import Event, Final, Partial
from harkd.model_package import load_manifest, verify_files
from harkd.recognizer.factory import load_recognizer
from harkd.recognizer.protocol import Recognizer
from harkd.settings import Settings
from harkd.virtual_time import run_in_virtual_time
from spoken import SENTENCES, TRAINED, VOICES, say

Int16 = NDArray[np.int16]

ALL = list(itertools.product(SENTENCES, VOICES))
ERRORS_MOST = 0.2
"""Of the words of synthetic voices; measured: 14 of 82. People fare better (docs/models.md)."""


@pytest.fixture(scope="module")
def model() -> Recognizer:
    return load_recognizer(TRAINED, load_manifest(TRAINED), threads=1)


def heard(model: Recognizer, audio: Int16) -> str:
    stream = model.stream()
    stream.accept(audio)
    return stream.finish().text


def test_the_package_is_whole() -> None:
    assert not verify_files(TRAINED, load_manifest(TRAINED), quick=False)


def test_it_understands_voices_that_it_has_never_heard(model: Recognizer) -> None:
    texts = [heard(model, say(text, voice)) for text, voice in ALL]
    print([f"{voice}: {text} → {got}" for (text, voice), got in zip(ALL, texts, strict=True)])
    assert jiwer.wer([text for text, _ in ALL], texts) <= ERRORS_MOST


def test_it_hears_what_sherpa_onnx_hears(model: Recognizer) -> None:
    """Which is given as much silence as it may need: it adds none by itself."""
    peer = sherpa_onnx.OnlineRecognizer.from_wenet_ctc(
        tokens=str(TRAINED / "tokens.txt"),
        model=str(TRAINED / "model.onnx"),
        chunk_size=16,
        num_left_chunks=4,
        num_threads=1,
    )
    for text, voice in ALL:
        audio = np.concatenate([say(text, voice), silence(1500)])
        stream = peer.create_stream()
        stream.accept_waveform(RATE_HZ, audio.astype(np.float32) / 32768)
        while peer.is_ready(stream):
            peer.decode_stream(stream)
        assert heard(model, audio) == peer.get_result(stream).strip(), (text, voice)


def test_the_last_word_is_heard_without_any_silence_after_it(model: Recognizer) -> None:
    for text, voice in ALL:
        audio = say(text, voice)
        after = np.concatenate([audio, silence(1500)])
        assert heard(model, audio) == heard(model, after), (text, voice)


@example_settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30_000), min_size=1, max_size=30),
    asked=st.sets(st.integers(0, 30)),
)
def test_no_split_of_the_audio_and_no_question_changes_the_text(
    model: Recognizer, sizes: list[int], asked: set[int]
) -> None:
    audio = say(SENTENCES[3])
    wanted = heard(model, audio)
    assert wanted
    stream = model.stream()
    for number, piece in enumerate(split(audio, sizes)):
        stream.accept(piece)
        if number in asked:
            (stream.prepare if number % 2 else stream.hypothesis)()
    assert stream.finish().text == wanted


def test_a_restart_hears_as_a_fresh_stream_does(model: Recognizer) -> None:
    stream = model.stream()
    stream.accept(say(SENTENCES[0]))
    stream.prepare()
    stream.restart()
    stream.accept(say(SENTENCES[1]))
    fresh = model.stream()
    fresh.accept(say(SENTENCES[1]))
    assert stream.finish() == fresh.finish()


def test_partials_grow_while_it_is_being_said(model: Recognizer) -> None:
    audio = np.concatenate([silence(500), say(SENTENCES[3]), silence(1500)])
    events: list[Event] = []
    source = ScriptedSource([SourceOpened("test", RATE_HZ, 1), AudioBlock(audio, 0)])
    run_in_virtual_time(source, model, Settings(), lambda event, _: events.append(event))
    partials = [event.text for event in events if isinstance(event, Partial)]
    finals = [event.text for event in events if isinstance(event, Final)]
    assert len(partials) >= 3
    assert len(finals) == 1
    for before, after in itertools.pairwise([*partials, *finals]):
        assert after.startswith(before)
    assert jiwer.wer(SENTENCES[3], finals[0]) <= 0.2
