"""A streaming Moonshine's encoder in PyTorch, at once: what its passes are held against.

In: a Moonshine, audio and a plan. Out: hidden states. No cache and no state: each frame is there
once for each pass that encodes it, normalized as in that pass, and a mask says which copies see
which. Runs on the caller's thread, on the device that the module is on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from harkd.model_package import Streaming
from harkd_convert.checkpoint import frames_of
from harkd_convert.moonshine import Encoder
from harkd_convert.moonshine_layers import rotation


@dataclass(frozen=True, slots=True)
class Pass:
    """Frames that are encoded together."""

    begin: int
    """The first"""
    kept: int
    """One past the last that is encoded for good"""
    end: int
    """One past the last"""


def passes_of(frames: int, plan: Streaming) -> list[Pass]:
    """Return the passes over so many frames; the last one keeps all that is left."""
    passes, begin = list[Pass](), 0
    while begin + plan.chunk_frames + plan.look_ahead_frames <= frames:
        kept = begin + plan.chunk_frames
        passes.append(Pass(begin, kept, kept + plan.look_ahead_frames))
        begin = kept
    if begin < frames:
        passes.append(Pass(begin, frames, frames))
    return passes


def encode_in_passes(encoder: Encoder, audio: Tensor, plan: Streaming) -> Tensor:
    """Encode audio as a stream would.

    Args:
        encoder: The encoder.
        audio: float32, (1, n), 16 kHz, -1…1, one frame at least.
        plan: How it listens.

    Returns:
        float32, (1, frames, width).
    """
    passes = passes_of(frames_of(audio.shape[1]), plan)
    taps = torch.tanh(encoder.conv1(audio[:, None, :]))  # (1, width, n / 64)
    x = torch.cat([_stem(encoder, taps, each, plan) for each in passes], 1)  # (1, copies, width)
    frame = torch.cat([torch.arange(each.begin, each.end) for each in passes])
    number = torch.cat([torch.full((p.end - p.begin,), i) for i, p in enumerate(passes)])
    begin = torch.tensor([each.begin for each in passes])[number]
    kept = frame < torch.tensor([each.kept for each in passes])[number]
    together = number[:, None] == number[None, :]
    earlier = (number[None, :] < number[:, None]) & kept[None, :]
    in_reach = frame[None, :] >= begin[:, None] - plan.left_context_frames
    in_reach |= frame[None, :] < plan.first_frames
    mask = together | (earlier & in_reach)  # (copies, copies)
    turn = rotation(frame.to(x.device), encoder.shape)
    for layer in encoder.layers:
        x = layer(x, turn, mask.to(x.device))
    hidden: Tensor = encoder.layer_norm(x)
    return hidden[:, kept.to(x.device)]


def _stem(encoder: Encoder, taps: Tensor, each: Pass, plan: Streaming) -> Tensor:
    """Return a pass' frames, normalized by all that was heard until its end: (1, s, width)."""
    norm, width = encoder.groupnorm, taps.shape[1]
    heard = taps[:, :, : 6 * each.end + 7].double()
    count = (heard.shape[2] + plan.prior_taps) * width
    mean = heard.sum() / count
    squares = heard.square().sum() + plan.prior_taps * width * plan.prior_variance
    spread = (squares / count - mean * mean + norm.eps).sqrt()
    own = taps[:, :, 6 * each.begin : 6 * each.end + 7]
    y = (own - mean.float()) / spread.float()
    y = y * norm.weight[None, :, None] + norm.bias[None, :, None]
    y = functional.gelu(encoder.conv2(y))
    return functional.gelu(encoder.conv3(y)).transpose(1, 2)
