"""The parts of Moonshine's layers in PyTorch: rotation, attention, feed-forward, and the layers.

Modules and their weights have the names of Hugging Face's `MoonshineForConditionalGeneration`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from harkd_convert.checkpoint import Shape

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines: float32, (positions, rotary_dims) each."""


def rotation(positions: Tensor, shape: Shape) -> Rotation:
    """Return the rotation of each position: neighbouring features turn together.

    Args:
        positions: int64, (n,).
        shape: Gives the number of rotated features and the base.

    Source: https://arxiv.org/abs/2104.09864, equation 34, with features 2i and 2i+1 as a pair.
    """
    steps = torch.arange(0, shape.rotary_dims, 2, device=positions.device, dtype=torch.float32)
    inverse = 1.0 / shape.rotary_base ** (steps / shape.rotary_dims)
    angles = positions.to(torch.float32)[:, None] * inverse[None, :]  # (n, rotary_dims / 2)
    angles = angles.repeat_interleave(2, dim=-1)  # (n, rotary_dims)
    return angles.cos(), angles.sin()


def rotated(x: Tensor, turn: Rotation) -> Tensor:
    """Rotate the first features of each head, and leave the rest.

    Args:
        x: float32, (batch, heads, n, head width).
        turn: From `rotation`, for n positions.
    """
    cosines, sines = turn
    dims = cosines.shape[-1]
    near, rest = x[..., :dims], x[..., dims:]
    turned = torch.stack((-near[..., 1::2], near[..., 0::2]), dim=-1).flatten(-2)
    return torch.cat((near * cosines + turned * sines, rest), dim=-1)


class Attention(nn.Module):
    """Attention with several heads, without biases."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.k_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.v_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.o_proj = nn.Linear(shape.width, shape.width, bias=False)

    def keys_values(self, x: Tensor, turn: Rotation | None = None) -> tuple[Tensor, Tensor]:
        """Return what `x` (batch, n, width) offers: (batch, heads, n, head width), twice."""
        keys, values = self._heads(self.k_proj(x)), self._heads(self.v_proj(x))
        return keys if turn is None else rotated(keys, turn), values

    def forward(
        self,
        x: Tensor,
        keys_values: tuple[Tensor, Tensor],
        turn: Rotation | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Attend.

        Args:
            x: float32, (batch, n, width): who looks.
            keys_values: From `keys_values`, over m positions: what is looked at.
            turn: Rotates the queries.
            mask: bool, broadcast to (batch, heads, n, m); True where looking is allowed.
            causal: Position i looks at 0…i; n = m, and no mask.

        Returns:
            float32, (batch, n, width).
        """
        keys, values = keys_values
        seen = functional.scaled_dot_product_attention(
            self.queries(x, turn), keys, values, attn_mask=mask, is_causal=causal
        )
        return self.output(seen)

    def queries(self, x: Tensor, turn: Rotation | None = None) -> Tensor:
        """Return what `x` (batch, n, width) looks for: (batch, heads, n, head width)."""
        queries = self._heads(self.q_proj(x))
        return queries if turn is None else rotated(queries, turn)

    def output(self, seen: Tensor) -> Tensor:
        """Return (batch, n, width) of what each head saw, (batch, heads, n, head width)."""
        out: Tensor = self.o_proj(seen.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        batch, n, _ = x.shape
        split = x.reshape(batch, n, self.shape.heads, self.shape.head_width)
        return split.transpose(1, 2)  # (batch, heads, n, head width)


class EncoderMLP(nn.Module):
    """Two matrices with GELU between them."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.fc1 = nn.Linear(shape.width, shape.encoder_ffn)
        self.fc2 = nn.Linear(shape.encoder_ffn, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, width) to (…, width)."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class DecoderMLP(nn.Module):
    """SwiGLU (https://arxiv.org/abs/2002.05202): value first, gate second."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.fc1 = nn.Linear(shape.width, 2 * shape.decoder_ffn)
        self.fc2 = nn.Linear(shape.decoder_ffn, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, width) to (…, width)."""
        value, gate = self.fc1(x).chunk(2, dim=-1)
        out: Tensor = self.fc2(functional.silu(gate) * value)
        return out


def norm(shape: Shape) -> nn.LayerNorm:
    """Return a layer norm, which in Moonshine has no bias."""
    return nn.LayerNorm(shape.width, eps=shape.norm_epsilon, bias=False)


class EncoderLayer(nn.Module):
    """Attention among frames, then the feed-forward part."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = EncoderMLP(shape)
        self.input_layernorm = norm(shape)
        self.post_attention_layernorm = norm(shape)

    def forward(self, x: Tensor, turn: Rotation, mask: Tensor | None = None) -> Tensor:
        """Map (batch, frames, width) to the same; `mask` as in `Attention.forward`."""
        y = self.input_layernorm(x)
        x = x + self.self_attn(y, self.self_attn.keys_values(y, turn), turn, mask)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Memory:
    """What one decoder layer keeps from token to token: keys and values.

    Args:
        encoder: Those of the hidden states: (batch, heads, frames, head width) each.
        mask: bool, (batch, 1, 1, frames): the frames that an utterance has; None: all.
    """

    def __init__(self, encoder: tuple[Tensor, Tensor], mask: Tensor | None = None) -> None:
        self.encoder = encoder
        self.mask = mask
        self._own: tuple[Tensor, Tensor] | None = None

    def extended(self, new: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Append those of new tokens, and return all: (batch, heads, tokens, head width) each."""
        if self._own is not None:
            new = torch.cat((self._own[0], new[0]), 2), torch.cat((self._own[1], new[1]), 2)
        self._own = new
        return new


class DecoderLayer(nn.Module):
    """Attention among tokens, attention to the audio, then the feed-forward part."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.encoder_attn = Attention(shape)
        self.mlp = DecoderMLP(shape)
        self.input_layernorm = norm(shape)
        self.post_attention_layernorm = norm(shape)
        self.final_layernorm = norm(shape)

    def memory(self, hidden: Tensor, mask: Tensor | None = None) -> Memory:
        """Begin with hidden states (batch, frames, width) and no tokens; `mask` as in `Memory`."""
        return Memory(self.encoder_attn.keys_values(hidden), mask)

    def forward(self, x: Tensor, turn: Rotation, memory: Memory) -> Tensor:
        """Map (batch, tokens, width) to the same: all tokens at once, or one after the others."""
        y = self.input_layernorm(x)
        keys_values = memory.extended(self.self_attn.keys_values(y, turn))
        x = x + self.self_attn(y, keys_values, turn, causal=x.shape[1] > 1)
        y = self.post_attention_layernorm(x)
        x = x + self.encoder_attn(y, memory.encoder, mask=memory.mask)
        out: Tensor = x + self.mlp(self.final_layernorm(x))
        return out
