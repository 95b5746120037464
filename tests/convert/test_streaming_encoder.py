"""The encoder in passes, all at once, against the same pass by pass; as the daemon runs it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from harkd.model_package import PRIOR_TAPS, PRIOR_VARIANCE
from harkd_convert.checkpoint import STEM, Shape, frames_of
from harkd_convert.distil.passes import PAST, Passes, Past, Plan, parse_weighted
from harkd_convert.distil.streaming_encoder import StreamingEncoder
from harkd_convert.errors import ConvertError
from harkd_convert.moonshine import Encoder, Moonshine
from harkd_convert.moonshine_layers import EncoderLayer, rotation
from small_moonshine import random_source

SHAPE = Shape(48, 3, 2, 1, 64, 64, 29, 8)
FRAME_SAMPLES, WINDOW = 384, 895


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Moonshine.from_source(random_source(SHAPE)).encoder.requires_grad_(False)


def sound(frames: int, seed: int = 1) -> Tensor:
    """So many frames of sound that grows loud, and some samples more."""
    random = np.random.default_rng(seed)
    samples = FRAME_SAMPLES * (frames - 1) + WINDOW + int(random.integers(FRAME_SAMPLES))
    loudness = np.linspace(0.02, 0.6, samples)
    return torch.from_numpy((random.normal(size=samples) * loudness).astype(np.float32))


def spans(frames: int, plan: Plan) -> Iterator[tuple[int, int, int]]:
    """Each pass: its first frame, the one after its last, and the one after the last it keeps."""
    first = 0
    while first + plan.chunk + plan.look_ahead <= frames:
        yield first, first + plan.chunk + plan.look_ahead, first + plan.chunk
        first += plan.chunk
    if first < frames:
        yield first, frames, frames


def taps_of(encoder: Encoder, audio: Tensor) -> Tensor:
    return torch.tanh(encoder.conv1(audio[None, None]))  # (1, width, taps)


def stem_of_a_pass(encoder: Encoder, audio: Tensor, first: int, end: int) -> Tensor:
    """Frames `first` … `end` - 1, under the norm of all that was heard up to `end`."""
    taps = taps_of(encoder, audio)[..., : 6 * end + 7].double()
    count = (taps.shape[2] + PRIOR_TAPS) * taps.shape[1]
    mean = taps.sum() / count
    squares = taps.square().sum() + PRIOR_TAPS * taps.shape[1] * PRIOR_VARIANCE
    variance = squares / count - mean**2
    normed = ((taps - mean) / (variance + encoder.shape.norm_epsilon).sqrt()).float()
    norm = encoder.groupnorm
    normed = normed * norm.weight[:, None] + norm.bias[:, None]
    rows = functional.gelu(encoder.conv2(normed))[..., 2 * first : 2 * end + 1]
    frames: Tensor = functional.gelu(encoder.conv3(rows)).transpose(1, 2)
    assert frames.shape[1] == end - first
    return frames


def pass_by_pass(encoder: Encoder, audio: Tensor, plan: Plan, past: Past) -> Tensor:
    """What the daemon does: keys and values are kept, and the look-ahead's are thrown away."""
    caches: list[tuple[Tensor, Tensor] | None] = [None] * len(encoder.layers)
    out = []
    for first, end, kept in spans(frames_of(len(audio)), plan):
        x = stem_of_a_pass(encoder, audio, first, end)
        turn = rotation(torch.arange(first, end), encoder.shape)
        for number, layer in enumerate(encoder.layers):
            assert isinstance(layer, EncoderLayer)
            y = layer.input_layernorm(x)
            keys, values = new = layer.self_attn.keys_values(y, turn)
            before = caches[number]
            if before is not None:
                far = first - past.latest  # what is farther away is forgotten, but the first frames
                near = [i for i in range(first) if i >= far or i < past.first]
                keys, values = (
                    torch.cat((old[:, :, near], now), 2)
                    for old, now in zip(before, new, strict=True)
                )
                new = torch.cat((before[0], new[0]), 2), torch.cat((before[1], new[1]), 2)
            x = x + layer.self_attn(y, (keys, values), turn)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
            caches[number] = new[0][:, :, :kept], new[1][:, :, :kept]
        out.append(x[:, : kept - first])
    hidden: Tensor = encoder.layer_norm(torch.cat(out, 1))
    return hidden[0]


def at_once(encoder: Encoder, sounds: list[Tensor], plan: Plan, past: Past) -> list[Tensor]:
    running = StreamingEncoder(encoder, past)
    batch = torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True, padding_value=0.5)
    stem = running.stem(batch, [len(each) for each in sounds])
    hidden = running.in_passes(stem, plan)
    return [each[:count] for each, count in zip(hidden, stem.frames, strict=True)]


PLANS = ["4:4", "8:0", "3:5", "5:2", "1:7", "16:16"]


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("frames", [1, 8, 9, 41])
@pytest.mark.parametrize("past", [PAST, Past(7, 0), Past(5, 3), Past(4, 20)])
def test_all_passes_at_once_give_what_one_after_the_other_gives(
    encoder: Encoder, plan: str, frames: int, past: Past
) -> None:
    audio, passes = sound(frames), Plan.parse(plan)
    wanted = pass_by_pass(encoder, audio, passes, past)
    (found,) = at_once(encoder, [audio], passes, past)
    assert wanted.shape == (frames, SHAPE.width)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("plan", [*PLANS, "full"])
def test_an_utterance_does_not_depend_on_those_beside_it(encoder: Encoder, plan: str) -> None:
    sounds = [sound(frames, seed=frames) for frames in (30, 1, 7, 16, 21, 29)]
    together = at_once(encoder, sounds, Plan.parse(plan), Past(9, 2))
    for alone, found in zip(sounds, together, strict=True):
        (wanted,) = at_once(encoder, [alone], Plan.parse(plan), Past(9, 2))
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_full_attention_is_one_pass(encoder: Encoder) -> None:
    audio = sound(20)
    (found,) = at_once(encoder, [audio], Plan.parse("full"), PAST)
    wanted = pass_by_pass(encoder, audio, Plan(1000, 0), PAST)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_the_teacher_hears_what_the_original_model_hears(encoder: Encoder) -> None:
    sounds = [sound(30), sound(17, seed=2)]
    running = StreamingEncoder(encoder)
    batch = torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True)
    hidden = running.at_once(running.stem(batch, [len(each) for each in sounds]))
    for found, audio in zip(hidden, sounds, strict=True):
        wanted = encoder(audio[None])[0]
        torch.testing.assert_close(found[: len(wanted)], wanted, atol=1e-4, rtol=1e-4)


def test_what_comes_after_a_pass_changes_nothing_in_it(encoder: Encoder) -> None:
    one, other = sound(40), sound(40)
    end = 16  # the second pass of 4:8 ends here, and hears the samples below
    other[FRAME_SAMPLES * (end - 1) + WINDOW :] = 0.3
    heard = [at_once(encoder, [each], Plan(4, 8), PAST)[0][:8] for each in (one, other)]
    torch.testing.assert_close(heard[0], heard[1], atol=0, rtol=0)
    late = [at_once(encoder, [each], Plan(4, 9), PAST)[0][:8] for each in (one, other)]
    assert not torch.equal(late[0], late[1])


def test_in_half_precision_it_is_nearly_the_same_and_still_learns(encoder: Encoder) -> None:
    halved = StreamingEncoder(encoder, dtype=torch.bfloat16)
    audio = sound(40)
    stem = halved.stem(audio[None], [len(audio)])
    weight = encoder.get_parameter("layers.0.mlp.fc1.weight").requires_grad_(True)
    found = halved.in_passes(stem, Plan(8, 8))
    wanted = StreamingEncoder(encoder).in_passes(stem, Plan(8, 8))
    error = float((found - wanted).detach().norm() / wanted.detach().norm())
    assert 0 < error < 0.03
    torch.autograd.backward(found.square().sum())
    assert weight.grad is not None
    assert weight.grad.dtype is torch.float32
    weight.requires_grad_(False).grad = None


@pytest.mark.parametrize("samples", [895, 896, 1278, 1279, 16_000, 160_000])
def test_frames_are_counted_as_the_convolutions_make_them(encoder: Encoder, samples: int) -> None:
    stem = STEM.values()
    taps = samples
    for kernel, stride in stem:
        taps = (taps - kernel) // stride + 1
    assert frames_of(samples) == taps == encoder.stem(torch.zeros(1, samples)).shape[1]


# ----------------------------------------------------------------------------- passes


@pytest.mark.parametrize("plan", [*PLANS, "full"])
def test_every_frame_is_kept_once(plan: str) -> None:
    frames = list(range(1, 60))
    passes = Passes(frames, Plan.parse(plan))
    for row, count in enumerate(frames):
        places = passes.kept[row, :count]
        assert passes.positions[places].tolist() == list(range(count))
        assert torch.equal(passes.main[row].nonzero().flatten(), places.sort().values)
    assert passes.heard.sum(1).tolist() == frames


@pytest.mark.parametrize(
    "text", ["", "16", "16:", ":16", "0:4", "-1:4", "a:b", "fully", "16:16:16", "1.5:2"]
)
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ConvertError, match="is no plan"):
        Plan.parse(text)


def test_plans_have_weights() -> None:
    assert parse_weighted("16:16=2, 8:8,full=0.5") == {
        Plan(16, 16): 2.0,
        Plan(8, 8): 1.0,
        Plan(0): 0.5,
    }
    assert str(Plan.parse("12:20")) == "12:20"
    assert str(Plan.parse("full")) == "full"
    assert Plan(16, 16).latency_ms == 768
    assert Plan(0).latency_ms is None
    for faulty in ("16:16=0", "16:16=x", "16:16=inf", "8:8,8:8"):
        with pytest.raises(ConvertError):
            parse_weighted(faulty)
