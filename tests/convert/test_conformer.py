"""The streaming Conformer in PyTorch: chunks give what the whole gives, and the past is bounded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from harkd_convert.checkpoint import Float32
from harkd_convert.conformer import Conformer
from harkd_convert.conformer_run import greedy, streamed_log_probs, text_of, whole_log_probs
from harkd_convert.conformer_shape import (
    POSITIONS,
    Chunking,
    ConformerShape,
    encoded_frames,
    position_table,
)
from small_conformer import SHAPES, TOKENS, random_conformer

CHUNKINGS = [Chunking(16, 4), Chunking(4, 2), Chunking(5, 7), Chunking(1, 3)]


def random_features(frames: int, seed: int = 1) -> Float32:
    rng = np.random.default_rng(seed)
    return rng.normal(10.0, 3.0, (frames, 80)).astype(np.float32)


@pytest.mark.parametrize("norm", SHAPES)
@pytest.mark.parametrize("chunking", CHUNKINGS, ids=str)
def test_chunks_with_caches_give_what_the_whole_gives_under_the_same_mask(
    norm: str, chunking: Chunking
) -> None:
    model, features = random_conformer(SHAPES[norm]), random_features(330)
    whole = whole_log_probs(model, features, chunking)
    streamed = streamed_log_probs(model, features, chunking)
    assert len(whole) >= 64
    np.testing.assert_allclose(streamed, whole, atol=2e-4)
    assert len(set(greedy(whole))) > 5, "the test shows nothing"


def test_another_mask_gives_something_else() -> None:
    model, features = random_conformer(SHAPES["layer_norm"]), random_features(330)
    whole = torch.from_numpy(features)[None]
    masks = [Chunking(4, left).mask(encoded_frames(330))[None] for left in (4, 2)]
    one, other = (model(whole, torch.from_numpy(mask))[0].detach().numpy() for mask in masks)
    np.testing.assert_allclose(one[:12], other[:12], atol=2e-4)
    assert np.abs(one[12:] - other[12:]).max() > 0.1


def test_a_chunk_hears_nothing_of_what_comes_after_it() -> None:
    model, chunking = random_conformer(SHAPES["layer_norm"]), Chunking(4, 2)
    features = random_features(200)
    changed = features.copy()
    changed[80:] = 0
    one, other = (streamed_log_probs(model, each, chunking) for each in (features, changed))
    unchanged = (80 - chunking.window_frames) // chunking.shift_frames * chunking.frames
    np.testing.assert_array_equal(one[:unchanged], other[:unchanged])
    assert np.abs(one[unchanged + 4 :] - other[unchanged + 4 :]).max() > 0.1


@pytest.mark.parametrize("frames", [0, 6, 7, 10, 11, 67, 100])
def test_the_stem_makes_as_many_frames_as_is_said(frames: int) -> None:
    model = random_conformer(SHAPES["layer_norm"])
    if encoded_frames(frames):
        out = model.encoder.embed(torch.zeros(1, frames, 80))
        assert out.shape[1] == encoded_frames(frames)
    else:
        assert frames < 7


def test_a_chunk_of_a_window_is_a_chunk() -> None:
    for chunking in CHUNKINGS:
        assert encoded_frames(chunking.window_frames) == chunking.frames


def test_positions_are_sines_and_cosines_by_turns() -> None:
    table = position_table(8)
    assert table.shape == (POSITIONS, 8)
    np.testing.assert_array_equal(table[0], [0, 1] * 4)
    np.testing.assert_allclose(table[7, :2], [np.sin(7), np.cos(7)], rtol=1e-6)
    np.testing.assert_allclose(table[7, 6:], [np.sin(0.007), np.cos(0.007)], rtol=1e-5)


def test_after_the_last_position_it_goes_on() -> None:
    model, chunking = random_conformer(SHAPES["layer_norm"]), Chunking(4, 2)
    state = replace(model.initial(chunking), step=POSITIONS)
    window = torch.from_numpy(random_features(chunking.window_frames))[None]
    out, after = model.step(window, state, chunking)
    assert torch.isfinite(out).all()
    assert after.step == POSITIONS + 1


def test_the_names_of_its_weights_are_wenets() -> None:
    names = set(Conformer(SHAPES["batch_norm"]).state_dict())
    layer = "encoder.encoders.2"
    assert {
        "encoder.global_cmvn.mean",
        "encoder.embed.conv.2.weight",
        "encoder.embed.out.0.bias",
        f"{layer}.self_attn.linear_pos.weight",
        f"{layer}.self_attn.pos_bias_u",
        f"{layer}.feed_forward_macaron.w_1.weight",
        f"{layer}.conv_module.pointwise_conv1.weight",
        f"{layer}.conv_module.norm.running_mean",
        f"{layer}.norm_final.bias",
        "encoder.after_norm.weight",
        "ctc.ctc_lo.weight",
    } <= names
    assert not any("table" in name for name in names)


def test_repeats_and_blanks_say_nothing() -> None:
    best = [0, 3, 3, 0, 3, 4, 4, 0, 0, 5]
    assert greedy(np.eye(6, dtype=np.float32)[best]) == [3, 3, 4, 5]
    assert text_of([2, 22, 1, 3], TOKENS) == "w0a w1"


def test_impossible_sizes_are_named() -> None:
    shape = ConformerShape(80, 50, 3, 64, 2, 1, 20, "group_norm")
    assert len(shape.faults()) == 3
    assert ConformerShape(80, 48, 0, 64, 2, 8, 20).faults() == ["heads is 0"]
