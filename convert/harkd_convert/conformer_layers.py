"""The layers of a streaming Conformer in PyTorch, with WeNet's names and arithmetic.

In: frames, what they may look at, and caches. Out: frames and the next caches. Each layer takes a
whole utterance with no cache, or one chunk with the cache of what came before. Everything runs on
the caller's thread.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from harkd_convert.conformer_shape import ConformerShape


def _norm(shape: ConformerShape) -> nn.LayerNorm:
    return nn.LayerNorm(shape.width, eps=shape.norm_epsilon)


@dataclass(slots=True)
class LayerCache:
    """What a layer keeps of the frames before a chunk."""

    keys_values: Tensor
    """float32, (batch, heads, frames, 2 × head width): keys, then values"""
    convolved: Tensor
    """float32, (batch, width, kernel - 1): what went into the convolution module"""


class Attention(nn.Module):
    """Self-attention with a learned bias for each position of the keys.

    As in WeNet, positions are the keys' own, not their distances: "rel_shift is useless in speech
    recognition, and it requires special attention for streaming" (wenet/transformer/attention.py).
    """

    def __init__(self, shape: ConformerShape) -> None:
        super().__init__()
        self.heads, self.head_width = shape.heads, shape.head_width
        width = shape.width
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(shape.heads, shape.head_width))
        self.pos_bias_v = nn.Parameter(torch.zeros(shape.heads, shape.head_width))

    def _split(self, x: Tensor) -> Tensor:
        """Map (batch, frames, width) to (batch, heads, frames, head width)."""
        return x.view(*x.shape[:2], self.heads, self.head_width).transpose(1, 2)

    def forward(
        self, x: Tensor, mask: Tensor, positions: Tensor, cached: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            x: (batch, frames, width).
            mask: bool, (batch or 1, frames or 1, keys); True where a frame may look.
            positions: (1, keys, width).
            cached: (batch, heads, cached, 2 × head width), or None.

        Returns:
            (batch, frames, width), and keys and values (batch, heads, keys, 2 × head width).
        """
        queries = self._split(self.linear_q(x))
        both = torch.cat([self._split(self.linear_k(x)), self._split(self.linear_v(x))], dim=-1)
        both = both if cached is None else torch.cat([cached, both], dim=2)
        keys, values = both.chunk(2, dim=-1)
        places = self._split(self.linear_pos(positions))  # (1, heads, keys, head width)
        content = (queries + self.pos_bias_u[:, None]) @ keys.transpose(-2, -1)
        place = (queries + self.pos_bias_v[:, None]) @ places.transpose(-2, -1)
        scores = (content + place) / self.head_width**0.5  # (batch, heads, frames, keys)
        seen = scores.masked_fill(~mask[:, None], -torch.inf).softmax(dim=-1) @ values
        return self.linear_out(seen.transpose(1, 2).flatten(2)), both


class Convolution(nn.Module):
    """The causal convolution module."""

    def __init__(self, shape: ConformerShape) -> None:
        super().__init__()
        width = shape.width
        self.past_frames = shape.kernel - 1
        self.by_frame = shape.conv_norm == "layer_norm"
        self.pointwise_conv1 = nn.Conv1d(width, 2 * width, 1)
        self.depthwise_conv = nn.Conv1d(width, width, shape.kernel, groups=width)
        kind = nn.LayerNorm if self.by_frame else nn.BatchNorm1d
        self.norm = kind(width, eps=shape.norm_epsilon)
        self.pointwise_conv2 = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor, cached: Tensor | None) -> tuple[Tensor, Tensor]:
        """Convolve (batch, frames, width), after (batch, width, kernel - 1), which also returns."""
        x = x.transpose(1, 2)  # (batch, width, frames)
        # The padding goes through the first convolution and its bias, as WeNet's does.
        x = (
            functional.pad(x, (self.past_frames, 0))
            if cached is None
            else torch.cat([cached, x], 2)
        )
        past = x[:, :, -self.past_frames :]
        x = functional.glu(self.pointwise_conv1(x), dim=1)
        x = self.depthwise_conv(x)
        x = self.norm(x.transpose(1, 2)).transpose(1, 2) if self.by_frame else self.norm(x)
        x = self.pointwise_conv2(functional.silu(x))
        return x.transpose(1, 2), past


class FeedForward(nn.Module):
    """Two products with a swish between them."""

    def __init__(self, shape: ConformerShape, dropout: float) -> None:
        super().__init__()
        self.w_1 = nn.Linear(shape.width, shape.ffn)
        self.w_2 = nn.Linear(shape.ffn, shape.width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, width) to the same."""
        out: Tensor = self.w_2(self.dropout(functional.silu(self.w_1(x))))
        return out


class ConformerLayer(nn.Module):
    """Half a feed-forward part, attention, convolution, and the other half; a norm before each."""

    def __init__(self, shape: ConformerShape, dropout: float) -> None:
        super().__init__()
        self.feed_forward_macaron = FeedForward(shape, dropout)
        self.self_attn = Attention(shape)
        self.conv_module = Convolution(shape)
        self.feed_forward = FeedForward(shape, dropout)
        self.norm_ff_macaron = _norm(shape)
        self.norm_mha = _norm(shape)
        self.norm_conv = _norm(shape)
        self.norm_ff = _norm(shape)
        self.norm_final = _norm(shape)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, mask: Tensor, positions: Tensor, cache: LayerCache | None
    ) -> tuple[Tensor, LayerCache]:
        """Map (batch, frames, width) to the same; arguments as in `Attention.forward`."""
        x = x + 0.5 * self.dropout(self.feed_forward_macaron(self.norm_ff_macaron(x)))
        seen, keys_values = self.self_attn(
            self.norm_mha(x), mask, positions, cache.keys_values if cache else None
        )
        x = x + self.dropout(seen)
        heard, past = self.conv_module(self.norm_conv(x), cache.convolved if cache else None)
        x = x + self.dropout(heard)
        x = x + 0.5 * self.dropout(self.feed_forward(self.norm_ff(x)))
        return self.norm_final(x), LayerCache(keys_values, past)
