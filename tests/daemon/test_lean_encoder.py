"""The lean encoder's state: what is kept never changes what an encoding of everything gives."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harkd.recognizer import lean_encoder
from harkd.recognizer.lean_encoder import (
    FRAME_SAMPLES,
    LOOK_AHEAD_FRAMES,
    ROW_SAMPLES,
    ROW_WINDOW_SAMPLES,
    TAP_SAMPLES,
    TAP_WINDOW_SAMPLES,
    EncoderState,
    LeanEncoder,
    with_room,
)
from harkd.recognizer.moonshine_tokens import STEM_SAMPLES

if TYPE_CHECKING:
    from harkd_convert.checkpoint import Source

Float32 = NDArray[np.float32]
ROUNDING = 1e-4
"""Relative; sums in another order differ by 1e-6."""


@pytest.fixture(scope="module")
def encoder(published_source: Source, tmp_path_factory: pytest.TempPathFactory) -> LeanEncoder:
    """The default model in float32: in int8, a rounded bit can move by a step of the scale."""
    import onnx

    from harkd_convert.graph import Precision
    from harkd_convert.moonshine_graphs import encoder_graph, stem_graph

    folder = tmp_path_factory.mktemp("float")
    onnx.save(stem_graph(published_source), folder / "stem.onnx")
    onnx.save(encoder_graph(published_source, Precision.FP32), folder / "encoder.onnx")
    return LeanEncoder(folder / "stem.onnx", folder / "encoder.onnx", 1)


def buzz(samples: int, seed: int = 0) -> Float32:
    """A gliding tone with noise: float32, (n,)."""
    at = np.arange(samples) / 16000
    tone = np.sin(2 * np.pi * (200 + 100 * np.sin(3 * at)) * at) * np.sin(5 * at) ** 2
    noise = np.random.default_rng(seed).normal(size=samples)
    sound: Float32 = (0.3 * tone + 0.03 * noise).astype(np.float32)
    return sound


def error(wanted: list[NDArray[Any]], found: list[NDArray[Any]]) -> float:
    """The worst distance of two lists of arrays, as a part of the first's lengths."""
    return max(
        float(np.linalg.norm(a - b) / np.linalg.norm(a)) for a, b in zip(wanted, found, strict=True)
    )


def at_once(encoder: LeanEncoder, audio: Float32) -> EncoderState:
    state = EncoderState(encoder, 6.0)
    state.accept(audio)
    state.encode(None)
    return state


def test_the_steps_and_windows_are_those_of_the_three_convolutions() -> None:
    assert ROW_SAMPLES == 3 * TAP_SAMPLES
    assert ROW_WINDOW_SAMPLES == 6 * TAP_SAMPLES + TAP_WINDOW_SAMPLES
    assert FRAME_SAMPLES == 2 * ROW_SAMPLES
    assert STEM_SAMPLES == 2 * ROW_SAMPLES + ROW_WINDOW_SAMPLES


@pytest.mark.model
@pytest.mark.parametrize("samples", [895, 896, 1278, 1279, 1280, 16000, 16001])
def test_each_step_of_the_window_is_a_frame(encoder: LeanEncoder, samples: int) -> None:
    state = at_once(encoder, buzz(samples))
    assert state.samples == samples
    assert state.frames == (samples - STEM_SAMPLES) // FRAME_SAMPLES + 1
    assert {each.shape[2] for each in state.cross()} == {state.frames}


@pytest.mark.model
@pytest.mark.parametrize("seed", range(4))
def test_any_split_with_encodings_in_between_ends_the_same(encoder: LeanEncoder, seed: int) -> None:
    """Pieces of a few samples, too, after which nothing but the norm's sums is new."""
    audio = buzz(5 * 16000 + 777, seed)
    wanted = at_once(encoder, audio)
    rng = np.random.default_rng(seed)
    state = EncoderState(encoder, 0.0)
    state.accept(audio[:STEM_SAMPLES])
    while state.samples < len(audio):
        state.encode(int(rng.integers(0, 40)) if rng.random() < 0.9 else None)
        size = int(rng.choice([1, 63, 64, 100, 384, 5000, 20_000]))
        state.accept(audio[state.samples : state.samples + size])
    state.encode(None)
    assert error(wanted.cross(), state.cross()) < ROUNDING


@pytest.mark.model
@pytest.mark.parametrize("more", [1, 63, 64, 65, 127, 128, 190, 191, 192, 193, 383])
def test_the_norm_counts_the_last_samples_however_few_came_after_the_last_pass(
    encoder: LeanEncoder, more: int
) -> None:
    """Loud ones, so that the sums would tell. They make no new row up to 191, but new frames."""
    loud = 0.9 * np.sign(np.sin(np.arange(more) / 3)).astype(np.float32)
    audio = np.concatenate([buzz(STEM_SAMPLES), loud])
    state = EncoderState(encoder, 0.0)
    state.accept(audio[:STEM_SAMPLES])
    state.encode(LOOK_AHEAD_FRAMES)
    state.accept(audio[STEM_SAMPLES:])
    state.encode(None)
    assert error(at_once(encoder, audio).cross(), state.cross()) < ROUNDING


@pytest.mark.model
def test_an_encoding_without_new_frames_changes_nothing(encoder: LeanEncoder) -> None:
    state = at_once(encoder, buzz(32000))
    before = [each.copy() for each in state.cross()]
    assert state.encode(LOOK_AHEAD_FRAMES) == LOOK_AHEAD_FRAMES * FRAME_SAMPLES / 16000
    assert error(before, state.cross()) < ROUNDING
    assert state.encode(0) == 0, "nor one of no frames at all"
    assert error(before, state.cross()) < ROUNDING


@pytest.mark.model
@pytest.mark.parametrize("look_ahead", [0, 7, LOOK_AHEAD_FRAMES])
def test_an_update_encodes_what_is_new_and_the_look_ahead_no_more(
    encoder: LeanEncoder, look_ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lean_encoder, "ANEW_FACTOR", math.inf)
    audio = buzz(6 * 16000)
    state = EncoderState(encoder, 1.0)
    state.accept(audio[:16000])
    state.encode(look_ahead)
    for begin in range(16000, len(audio), 8000):
        before = state.frames
        state.accept(audio[begin : begin + 8000])
        encoded_s = state.encode(look_ahead)
        new = state.frames - before
        assert encoded_s == (new + look_ahead) * FRAME_SAMPLES / 16000
        assert abs(new * FRAME_SAMPLES - 8000) < FRAME_SAMPLES


@pytest.mark.model
def test_all_is_encoded_anew_each_time_that_it_has_doubled(encoder: LeanEncoder) -> None:
    audio = buzz(9 * 16000)
    state = EncoderState(encoder, 1.0)
    whole = []
    for begin in range(0, len(audio), 8000):
        state.accept(audio[begin : begin + 8000])
        state.encode(LOOK_AHEAD_FRAMES)
        if state.anew:
            whole.append(begin / 16000 + 0.5)
    assert whole == [0.5, 1.0, 2.0, 4.0, 8.0] or whole == [0.5, 1.0, 2.5, 5.0]


@pytest.mark.model
def test_frames_that_were_not_kept_see_all_that_was(encoder: LeanEncoder) -> None:
    """With a look-ahead over everything, an update is as good as an encoding of everything."""
    audio = buzz(3 * 16000)
    state = EncoderState(encoder, 1.0)
    for piece in np.array_split(audio, 5):
        state.accept(piece)
        state.encode(1000)
    assert error(at_once(encoder, audio).cross(), state.cross()) < ROUNDING


@pytest.mark.model
@pytest.mark.parametrize(
    "audio",
    [
        np.zeros(48_000, np.float32),
        np.full(48_000, 32767 / 32768, np.float32),
        np.full(48_000, 1 / 32768, np.float32),
        np.sign(np.sin(np.arange(48_000) / 9)).astype(np.float32),
        np.clip(0.9 + buzz(48_000), -1, 1).astype(np.float32),
    ],
    ids=["silence", "largest", "smallest", "square", "offset"],
)
def test_audio_without_variance_or_range_has_numbers_too(
    encoder: LeanEncoder, audio: Float32
) -> None:
    wanted = at_once(encoder, audio)
    assert all(np.isfinite(each).all() for each in wanted.cross())
    state = EncoderState(encoder, 0.0)
    for piece in np.array_split(audio, 7):
        state.accept(piece)
        state.encode(LOOK_AHEAD_FRAMES)
    assert all(np.isfinite(each).all() for each in state.cross())
    state.encode(None)
    assert error(wanted.cross(), state.cross()) < ROUNDING


@pytest.mark.model
def test_keys_and_values_stay_as_they_were_given_until_the_next_encoding(
    encoder: LeanEncoder,
) -> None:
    state = at_once(encoder, buzz(32000))
    given = state.cross()
    before = [each.copy() for each in given]
    state.accept(buzz(32000, seed=1))
    assert error(before, given) == 0
    assert all(each.flags.c_contiguous for each in given)


@pytest.mark.model
def test_after_a_failed_pass_the_next_one_is_right(
    encoder: LeanEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever graph fails, and whatever was kept."""
    audio = buzz(48_000)
    wanted = at_once(encoder, audio).cross()

    class Failing:
        def run(self, *_: object) -> None:
            raise MemoryError("out of memory")

    for name in ("stem", "session"):
        for look_ahead in (LOOK_AHEAD_FRAMES, None):
            state = EncoderState(encoder, 0.0)
            state.accept(audio[:32000])
            state.encode(LOOK_AHEAD_FRAMES)
            state.accept(audio[32000:])
            with monkeypatch.context() as patch:
                patch.setattr(encoder, name, Failing())
                with pytest.raises(MemoryError):
                    state.encode(look_ahead)
            state.encode(LOOK_AHEAD_FRAMES)
            state.encode(None)
            assert error(wanted, state.cross()) < ROUNDING


@pytest.mark.parametrize(
    ("size", "wanted", "room"), [(4, 4, 4), (4, 5, 6), (0, 3, 3), (10, 40, 40)]
)
def test_room_grows_by_half_at_least_and_what_is_there_stays(
    size: int, wanted: int, room: int
) -> None:
    array = np.arange(6 * size, dtype=np.float32).reshape(2, size, 3)
    longer = with_room(array, wanted, axis=1)
    assert longer.shape == (2, room, 3)
    assert np.array_equal(longer[:, :size], array)
    assert (longer is array) == (wanted <= size)


def test_a_file_that_is_no_stem_is_damaged(tmp_path: Path) -> None:
    from harkd.errors import ModelDamagedError

    (tmp_path / "stem.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelDamagedError, match="stem"):
        LeanEncoder(tmp_path / "stem.onnx", tmp_path / "stem.onnx", 1)
