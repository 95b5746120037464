"""Our PyTorch Moonshine: that it is the published one, and what it promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from harkd.model_package import load_manifest
from harkd.recognizer.moonshine import Moonshine as Published
from harkd_convert.checkpoint import Float32, Shape, Source, tensor_shapes
from harkd_convert.errors import ConvertError
from harkd_convert.moonshine import STEM_SAMPLES, TOKEN_START, Moonshine
from harkd_convert.moonshine_layers import rotated, rotation
from harkd_convert.sources import open_source

SMALL = Shape(
    width=24,
    heads=2,
    encoder_layers=2,
    decoder_layers=3,
    encoder_ffn=40,
    decoder_ffn=32,
    vocabulary=50,
    rotary_dims=8,
)


def random_source(shape: Shape = SMALL) -> Source:
    rng = np.random.default_rng(5)
    weights = {
        name: rng.normal(1.0 if "norm" in name else 0.0, 0.3, dims).astype(np.float32)
        for name, dims in tensor_shapes(shape).items()
    }
    return Source("small", shape, weights, {}, b"", "MIT", "", ("en",), {}, "a test")


def noise(samples: int = 16_000, batch: int = 1) -> Tensor:
    return torch.randn(batch, samples, generator=torch.Generator().manual_seed(1)) * 0.1


@pytest.fixture
def small() -> Moonshine:
    return Moonshine.from_source(random_source())


# ----------------------------------------------------------------------------- from_source


def test_its_weights_are_exactly_those_of_a_source() -> None:
    source = random_source()
    state = Moonshine.from_source(source).state_dict()
    assert state.keys() == source.weights.keys()
    for name, values in source.weights.items():
        np.testing.assert_array_equal(state[name].numpy(), values)


def test_training_it_leaves_the_source_alone() -> None:
    source = random_source()
    model = Moonshine.from_source(source)
    before = source.weights["decoder.norm.weight"].copy()
    with torch.no_grad():
        model.decoder.norm.weight.zero_()
    np.testing.assert_array_equal(source.weights["decoder.norm.weight"], before)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_weights_that_do_not_fit_are_all_listed() -> None:
    source = random_source()
    weights = dict(source.weights)
    del weights["decoder.norm.weight"]
    weights["encoder.conv4.weight"] = np.zeros(3, np.float32)
    weights["encoder.conv2.bias"] = np.zeros(7, np.float32)
    with pytest.raises(ConvertError) as refused:
        Moonshine.from_source(replace(source, weights=weights))
    message = refused.value.message
    assert "missing: decoder.norm.weight" in message
    assert "unexpected: encoder.conv4.weight" in message
    assert "misshaped: encoder.conv2.bias (7,) instead of (48,)" in message


# ----------------------------------------------------------------------------- the network


def test_rotation_keeps_lengths_and_depends_on_distance_only() -> None:
    rng = torch.Generator().manual_seed(2)
    query, key = torch.randn(2, 1, 1, 1, SMALL.head_width, generator=rng)

    def product(at: int, other: int) -> float:
        turned = rotated(query, rotation(torch.tensor([at]), SMALL))
        return float((turned * rotated(key, rotation(torch.tensor([other]), SMALL))).sum())

    assert product(3, 5) == pytest.approx(product(103, 105), abs=1e-5)
    assert product(3, 5) != pytest.approx(product(3, 9), abs=1e-3)
    turned = rotated(query, rotation(torch.tensor([40]), SMALL))
    assert float(turned.norm()) == pytest.approx(float(query.norm()), abs=1e-5)
    torch.testing.assert_close(turned[..., 8:], query[..., 8:])


@pytest.mark.parametrize(("samples", "frames"), [(895, 1), (1278, 1), (1279, 2), (16_000, 40)])
def test_one_frame_is_384_samples(small: Moonshine, samples: int, frames: int) -> None:
    assert small.encode(noise(samples)).shape == (1, frames, 24)


@pytest.mark.parametrize("shape", [(STEM_SAMPLES,), (1, STEM_SAMPLES - 1), (1, 1, 2000)])
def test_audio_that_cannot_be_encoded_is_refused(small: Moonshine, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConvertError, match="cannot be encoded"):
        small.encode(torch.zeros(shape))


def test_a_mask_says_who_may_look_at_whom(small: Moonshine) -> None:
    """With the past alone, a change in the late frames leaves the early ones as they were.

    The group norm, which looks at all of the audio, is why this compares layers and not `encode`.
    """
    full = torch.ones(40, 40, dtype=torch.bool)
    torch.testing.assert_close(small.encode(noise(), full), small.encode(noise()))
    assert not torch.allclose(small.encode(noise(), full.tril()), small.encode(noise()))
    frames = small.encoder.stem(noise())
    changed = torch.cat((frames[:, :30], torch.zeros(1, 10, 24)), 1)
    turn = rotation(torch.arange(40), SMALL)
    layer = small.encoder.layers[0]
    before, after = (layer(x, turn, full.tril())[:, :30] for x in (frames, changed))
    torch.testing.assert_close(before, after)


def test_a_token_depends_on_earlier_ones_alone(small: Moonshine) -> None:
    hidden = small.encode(noise())
    ids = torch.tensor([[TOKEN_START, 7, 8, 9], [TOKEN_START, 7, 30, 31]])
    one, other = small.logits(ids, hidden.expand(2, -1, -1))
    torch.testing.assert_close(one[:2], other[:2])
    assert not torch.allclose(one[2:], other[2:])


def test_token_by_token_is_the_same_as_all_at_once(small: Moonshine) -> None:
    hidden = small.encode(noise())
    tokens = small.greedy(hidden, 12)
    ids = torch.tensor([[TOKEN_START, *tokens]])
    likeliest = small.logits(ids, hidden)[0].argmax(-1).tolist()
    assert likeliest[: len(tokens)] == tokens
    assert small.greedy(hidden, 3) == tokens[:3]
    assert small.greedy(hidden, 0) == []


def test_gradients_reach_every_weight(small: Moonshine) -> None:
    logits = small.logits(torch.tensor([[TOKEN_START, 5, 6]]), small.encode(noise()))
    logits.logsumexp(-1).sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in small.parameters())


# ----------------------------------------------------------------------------- the real models


def relative(wanted: Float32, found: Float32) -> float:
    return float(np.linalg.norm(wanted - found) / np.linalg.norm(wanted))


@pytest.fixture(params=["model_dir", "base_model_dir"])
def both(request: pytest.FixtureRequest) -> tuple[Published, Moonshine, Float32]:
    """onnxruntime with the published files; PyTorch with their weights; ten seconds of speech."""
    folder: Path = request.getfixturevalue(request.param)
    published = Published(folder, load_manifest(folder), 2)
    audio, _ = soundfile.read(folder / "samples" / "beckett.wav", dtype="float32")
    return published, Moonshine.from_source(open_source(folder)), audio


@pytest.mark.model
def test_it_hears_what_the_published_files_hear(
    both: tuple[Published, Moonshine, Float32],
) -> None:
    """Base's graph computes in float32. Tiny's rounds the input of each matrix to 8 bits.

    That is all that differs: rounded in the same way, the first queries are within 0.06 %, not 1.2.
    """
    published, model, audio = both
    wanted = published.encode(audio)
    with torch.inference_mode():
        hidden = model.encode(torch.from_numpy(audio)[None])
    most = 0.06 if model.shape.width == 288 else 1e-4  # measured: 0.041 and 1.5e-5
    assert relative(wanted, hidden.numpy()) < most
    tokens = published.decode(wanted, len(audio)).tokens
    assert model.greedy(hidden, 100) == tokens
    text = published.tokenizer.text(tokens).lower().replace(",", "").replace(".", "")
    assert text == "ever tried ever failed no matter try again fail again fail better"


@pytest.mark.model
def test_it_gives_each_token_the_published_probability(
    both: tuple[Published, Moonshine, Float32],
) -> None:
    published, model, audio = both
    hidden = published.encode(audio)
    decoded = published.decode(hidden, len(audio))
    with torch.inference_mode():
        ids = torch.tensor([[TOKEN_START, *decoded.tokens]])
        logits = model.logits(ids, torch.from_numpy(hidden))[0, :, : len(published.tokenizer)]
    targets = torch.tensor([*decoded.tokens, 2])
    found = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    most = 0.1 if model.shape.width == 288 else 1e-4  # measured: 0.044 and 6e-6
    assert np.abs(found.numpy() - np.array(decoded.log_probs)).max() < most
