"""Moonshine's encoder as it runs in passes, for many utterances and all their passes at once.

In: audio of a batch, then a plan. Out: hidden states of all frames, as the streaming package's
graphs give them pass by pass. The stem's two first convolutions are linear before the norm, so they
run once for all plans, and for a teacher that hears the whole utterance. Runs on the caller's
thread, on the device of the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from harkd.model_package import PRIOR_TAPS, PRIOR_VARIANCE
from harkd_convert.checkpoint import STEM, frames_of
from harkd_convert.distil.passes import PAST, Block, Passes, Past, Plan
from harkd_convert.moonshine import Encoder
from harkd_convert.moonshine_layers import EncoderLayer, Rotation, rotation

TAPS_PER_FRAME, TAPS_BEYOND = 6, 7
"""The frames 0 … e-1 hear the taps 0 … 6e + 6."""


@dataclass(frozen=True)
class Stem:
    """What the stem makes of a batch before the norm."""

    rows: Tensor
    """float32, (batch, 2 · width, rows): the second convolution, without bias, of the first's taps
    times the norm's weight"""
    sums: Tensor
    """float64, (batch, taps): of a tap's features, over this tap and all before"""
    squares: Tensor
    """float64, (batch, taps): likewise of their squares"""
    taps: list[int]
    """Of each utterance"""
    frames: list[int]
    """Of each utterance"""


class PassLayer(nn.Module):
    """An encoder's layer whose frames see what their passes let them see.

    Args:
        layer: Its weights; they stay where they are.
    """

    def __init__(self, layer: EncoderLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, turn: Rotation, passes: Passes) -> Tensor:
        """Map (batch, places, width) to the same."""
        layer, attention = self.layer, self.layer.self_attn
        y = layer.input_layernorm(x)
        keys, values = attention.keys_values(y, turn)
        sizes = [(each.end - each.first) * passes.width for each in passes.blocks]
        queries = torch.split(attention.queries(y, turn), sizes, 2)
        own = [torch.split(each, sizes, 2) for each in (keys, values)]
        chunks = [_chunks(each, passes) for each in (keys, values)]
        seen = []
        for number, block in enumerate(passes.blocks):
            visible = [
                torch.cat((*_seen(kept, block), new[number]), 2)
                for kept, new in zip(chunks, own, strict=True)
            ]
            seen.append(
                functional.scaled_dot_product_attention(
                    queries[number], visible[0], visible[1], attn_mask=block.mask
                )
            )
        x = x + attention.output(torch.cat(seen, 2))
        out: Tensor = x + layer.mlp(layer.post_attention_layernorm(x))
        return out


def _seen(chunks: Tensor, block: Block) -> tuple[Tensor, Tensor]:
    """Return what a block sees of the passes before it, (batch, heads, frames, …) twice."""
    begun, latest = chunks[:, :, : block.begun], chunks[:, :, block.oldest : block.first]
    return begun.flatten(2, 3), latest.flatten(2, 3)


def _chunks(x: Tensor, passes: Passes) -> Tensor:
    """Return what passes keep, (batch, heads, passes, chunk, …), of (batch, heads, places, …)."""
    batch, heads, _, width = x.shape
    by_pass = x.view(batch, heads, passes.count, passes.width, width)
    return by_pass[:, :, :, : passes.chunk]


class StreamingEncoder:
    """Runs an encoder's weights in passes.

    Args:
        encoder: The weights. Gradients flow into its layers and the third convolution, not into
            what is before.
        past: Which frames before a pass are seen.
        dtype: Of the products in the layers.
    """

    def __init__(
        self, encoder: Encoder, past: Past = PAST, dtype: torch.dtype = torch.float32
    ) -> None:
        self.encoder = encoder
        self.past = past
        self.dtype = dtype
        layers = cast("Iterable[EncoderLayer]", encoder.layers)
        self._layers = [PassLayer(each) for each in layers]

    @torch.no_grad()
    def stem(self, audio: Tensor, samples: Sequence[int]) -> Stem:
        """Run what does not depend on a plan.

        Args:
            audio: float32, (batch, n), 16 kHz, -1…1.
            samples: Of each utterance, `STEM_SAMPLES` at least; what comes after is not heard.
        """
        encoder, (kernel, stride) = self.encoder, STEM["conv1"]
        taps = torch.tanh(encoder.conv1(audio[:, None, :]))  # (batch, width, taps)
        weight = encoder.conv2.weight * encoder.groupnorm.weight[:, None]
        return Stem(
            functional.conv1d(taps, weight, stride=STEM["conv2"][1]),
            taps.sum(1, dtype=torch.float64).cumsum(1),
            taps.square().sum(1, dtype=torch.float64).cumsum(1),
            [(each - kernel) // stride + 1 for each in samples],
            [frames_of(each) for each in samples],
        )

    def at_once(self, stem: Stem) -> Tensor:
        """Encode as the original does: one pass, and a norm of the whole utterance, no prior.

        Returns:
            float32, (batch, most frames, width); anything beyond an utterance's last frame.
        """
        heard = torch.tensor(stem.taps, device=stem.rows.device)[:, None]
        return self._encode(stem, Plan(0), heard, prior=0)

    def in_passes(self, stem: Stem, plan: Plan) -> Tensor:
        """Encode as a streaming package does.

        Returns:
            float32, (batch, most frames, width); anything beyond an utterance's last frame.
        """
        return self._encode(stem, plan, None, prior=PRIOR_TAPS)

    def _encode(self, stem: Stem, plan: Plan, taps: Tensor | None, prior: int) -> Tensor:
        passes = Passes(stem.frames, plan, self.past, stem.rows.device)
        if taps is None:
            taps = TAPS_PER_FRAME * passes.ends + TAPS_BEYOND
        scale, shift = self._norm(stem, taps, prior)
        x = self._frames(stem.rows, scale, shift, passes)  # (batch, count · width, features)
        turn = rotation(passes.positions, self.encoder.shape)
        x, turn = x.to(self.dtype), (turn[0].to(self.dtype), turn[1].to(self.dtype))
        for layer in self._layers:
            x = self._run(layer, x, turn, passes)
        places = passes.kept[..., None].expand(-1, -1, x.shape[-1])
        out: Tensor = self.encoder.layer_norm(x.gather(1, places).float())
        return out

    def _run(self, layer: PassLayer, x: Tensor, turn: Rotation, passes: Passes) -> Tensor:
        out: Tensor
        if self.dtype is torch.float32:
            out = layer(x, turn, passes)
            return out
        weights = {name: each.to(self.dtype) for name, each in layer.named_parameters()}
        out = torch.func.functional_call(layer, weights, (x, turn, passes))
        return out

    @torch.no_grad()
    def _norm(self, stem: Stem, taps: Tensor, prior: int) -> tuple[Tensor, Tensor]:
        """Return what the rows are multiplied with, and what is added, in each pass.

        Args:
            stem: Of the batch.
            taps: int64, (batch, passes): so many are heard in a pass.
            prior: So many taps of mean 0 and `PRIOR_VARIANCE` are heard before them.

        Returns:
            float32, (batch, passes, 1, 1) and (batch, passes, 2 · width, 1).
        """
        encoder = self.encoder
        width = encoder.shape.width
        last = (taps - 1).clamp(max=stem.sums.shape[1] - 1)
        count = (taps + prior) * width
        mean = stem.sums.gather(1, last) / count
        squares = stem.squares.gather(1, last) + prior * width * PRIOR_VARIANCE
        variance = squares / count - mean.square()
        scale = (variance + encoder.shape.norm_epsilon).rsqrt()
        offset = (-mean * scale).float()[..., None]  # (batch, passes, 1)
        kernels, bias = encoder.conv2.weight, encoder.get_parameter("conv2.bias")
        lifted = (kernels * encoder.groupnorm.weight[:, None]).sum((1, 2))
        based = (kernels * encoder.groupnorm.bias[:, None]).sum((1, 2)) + bias
        return scale.float()[..., None, None], (offset * lifted + based)[..., None]

    def _frames(self, rows: Tensor, scale: Tensor, shift: Tensor, passes: Passes) -> Tensor:
        stride = STEM["conv3"][1]
        window = stride * passes.width + 1
        step = stride * passes.chunk
        needed = step * (passes.count - 1) + window
        rows = functional.pad(rows, (0, max(0, needed - rows.shape[2])))[..., :needed]
        windows = rows.unfold(2, window, step).transpose(1, 2)  # (batch, passes, 2 width, window)
        normed = functional.gelu(windows * scale + shift).flatten(0, 1)
        x = functional.gelu(self.encoder.conv3(normed))  # (batch · passes, width, places)
        return x.transpose(1, 2).reshape(rows.shape[0], passes.count * passes.width, -1)
