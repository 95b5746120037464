"""A streaming Conformer with a CTC head in PyTorch: mel features to log-probabilities of tokens.

In: features, whole or by chunks with caches. Out: log-probabilities. Names of modules and weights,
and the arithmetic, are those of WeNet (wenet/transformer/encoder.py), whose checkpoints load as
they are. Everything runs on the caller's thread, on the device that the module is on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harkd_convert.conformer_layers import ConformerLayer, LayerCache
from harkd_convert.conformer_shape import POSITIONS, Chunking, ConformerShape, position_table


class Cmvn(nn.Module):
    """Moves and scales each mel bin."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.istd: Tensor
        self.register_buffer("mean", torch.zeros(bins))
        self.register_buffer("istd", torch.ones(bins))

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, bins) to the same."""
        return (x - self.mean) * self.istd


class Subsampling(nn.Module):
    """Two convolutions of stride 2 over time and bins, and a product."""

    def __init__(self, shape: ConformerShape) -> None:
        super().__init__()
        width = shape.width
        self.conv = nn.Sequential(
            nn.Conv2d(1, width, 3, 2), nn.ReLU(), nn.Conv2d(width, width, 3, 2), nn.ReLU()
        )
        self.out = nn.Sequential(nn.Linear(width * shape.stem_bins, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, feature frames, bins) to (batch, frames, width)."""
        x = self.conv(x[:, None])  # (batch, width, frames, stem bins)
        out: Tensor = self.out(x.transpose(1, 2).flatten(2))
        return out


class Encoder(nn.Module):
    """Features to frames."""

    def __init__(self, shape: ConformerShape, dropout: float) -> None:
        super().__init__()
        self.global_cmvn = Cmvn(shape.bins)
        self.embed = Subsampling(shape)
        self.encoders = nn.ModuleList(ConformerLayer(shape, dropout) for _ in range(shape.layers))
        self.after_norm = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)
        self.dropout = nn.Dropout(dropout)
        self.scale = shape.width**0.5
        self.table: Tensor
        table = torch.from_numpy(position_table(shape.width))
        self.register_buffer("table", table, persistent=False)

    def forward(
        self, x: Tensor, mask: Tensor, first: int, caches: list[LayerCache] | None
    ) -> tuple[Tensor, list[LayerCache]]:
        """Map (batch, feature frames, bins) to (batch, frames, width), and the caches to the next.

        Args:
            x: Features.
            mask: As in `Attention.forward`.
            first: Position of the first key.
            caches: One for each layer, or None.
        """
        x = self.dropout(self.embed(self.global_cmvn(x)) * self.scale)
        keys = x.shape[1] + (caches[0].keys_values.shape[2] if caches else 0)
        first = min(first, POSITIONS - keys)
        positions = self.dropout(self.table[None, first : first + keys])
        kept = []
        for number, layer in enumerate(self.encoders):
            x, cache = layer(x, mask, positions, caches[number] if caches else None)
            kept.append(cache)
        return self.after_norm(x), kept


class Head(nn.Module):
    """Frames to log-probabilities of tokens."""

    def __init__(self, shape: ConformerShape) -> None:
        super().__init__()
        self.ctc_lo = nn.Linear(shape.width, shape.vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, width) to (…, vocabulary)."""
        out: Tensor = self.ctc_lo(x).log_softmax(dim=-1)
        return out


@dataclass(slots=True)
class State:
    """What is carried from one chunk to the next."""

    keys_values: Tensor
    """float32, (layers, heads, cached frames, 2 × head width)"""
    convolved: Tensor
    """float32, (layers, 1, width, kernel - 1)"""
    step: int = 0
    """Chunks so far"""


class Conformer(nn.Module):
    """The whole model. Its `state_dict` has WeNet's keys.

    Args:
        shape: The sizes.
        dropout: Share of what is left out in training.
    """

    def __init__(self, shape: ConformerShape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(shape, dropout)
        self.ctc = Head(shape)

    def forward(self, features: Tensor, mask: Tensor, first: int = 0) -> Tensor:
        """Recognize whole utterances.

        Args:
            features: float32, (batch, feature frames, bins).
            mask: bool, (batch or 1, frames, frames): what each frame (row) may look at.
            first: The position of the first frame. In streaming as sherpa-onnx does it, that is
                `Chunking.cached_frames`.

        Returns:
            Log-probabilities, float32, (batch, frames, vocabulary).
        """
        x, _ = self.encoder(features, mask, first, None)
        out: Tensor = self.ctc(x)
        return out

    def initial(self, chunking: Chunking) -> State:
        """Return the state before the first chunk."""
        shape, device = self.shape, self.encoder.table.device
        cached = (shape.layers, shape.heads, chunking.cached_frames, 2 * shape.head_width)
        past = (shape.layers, 1, shape.width, shape.kernel - 1)
        return State(torch.zeros(cached, device=device), torch.zeros(past, device=device))

    def step(self, features: Tensor, state: State, chunking: Chunking) -> tuple[Tensor, State]:
        """Recognize one chunk.

        Args:
            features: float32, (1, `chunking.window_frames`, bins).
            state: From `initial` or the step before.
            chunking: The same in all steps.

        Returns:
            Log-probabilities, float32, (1, frames, vocabulary), and the next state.
        """
        mask = torch.from_numpy(chunking.step_mask(state.step)).to(features.device)
        caches = [
            LayerCache(each[None], past)
            for each, past in zip(state.keys_values, state.convolved, strict=True)
        ]
        x, kept = self.encoder(features, mask, state.step * chunking.frames, caches)
        keys_values = torch.cat([cache.keys_values for cache in kept])
        convolved = torch.stack([cache.convolved for cache in kept])
        return self.ctc(x), State(keys_values[:, :, chunking.frames :], convolved, state.step + 1)
