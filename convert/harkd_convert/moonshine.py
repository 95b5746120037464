"""Moonshine in PyTorch: an encoder of audio, and a decoder of tokens that looks at it.

In: a `Source`, then audio. Out: hidden states, logits, tokens. The model:
https://arxiv.org/abs/2410.15608; module and weight names are those of Hugging Face's
`MoonshineForConditionalGeneration`. Only `moonshine_layers` and `reference` import PyTorch besides.
Everything runs on the caller's thread, on the device that the module is on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from harkd_convert.checkpoint import STEM, Shape, Source, check_weights
from harkd_convert.errors import ConvertError
from harkd_convert.moonshine_layers import DecoderLayer, EncoderLayer, Memory, norm, rotation

TOKEN_START, TOKEN_END = 1, 2
STEM_SAMPLES = 895
"""The stem's window: (((3 - 1) · 3 + 7) - 1) · 64 + 127 samples give the first frame."""


class Encoder(nn.Module):
    """Audio to hidden states: a convolutional stem (one frame each 384 samples), then layers."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.conv1 = nn.Conv1d(1, width, *STEM["conv1"], bias=False)
        self.groupnorm = nn.GroupNorm(1, width, eps=shape.norm_epsilon)
        self.conv2 = nn.Conv1d(width, 2 * width, *STEM["conv2"])
        self.conv3 = nn.Conv1d(2 * width, width, *STEM["conv3"])
        self.layers = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.encoder_layers))
        self.layer_norm = norm(shape)

    def stem(self, audio: Tensor) -> Tensor:
        """Map audio (batch, n) to (batch, frames, width)."""
        x = torch.tanh(self.conv1(audio[:, None, :]))  # (batch, width, n / 64)
        x = functional.gelu(self.conv2(self.groupnorm(x)))  # (batch, 2 width, n / 192)
        x = functional.gelu(self.conv3(x))  # (batch, width, frames)
        return x.transpose(1, 2)

    def forward(self, audio: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map audio (batch, n) to (batch, frames, width); `mask` as in `Attention.forward`."""
        x = self.stem(audio)
        turn = rotation(torch.arange(x.shape[1], device=x.device), self.shape)
        for layer in self.layers:
            x = layer(x, turn, mask)
        out: Tensor = self.layer_norm(x)
        return out


class Decoder(nn.Module):
    """Tokens to logits; the head is the embedding once more."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.decoder_layers))
        self.norm = norm(shape)

    def memories(self, hidden: Tensor, mask: Tensor | None = None) -> list[Memory]:
        """Begin decoding of hidden states (batch, frames, width); `mask` as in `Memory`."""
        layers = cast("Iterable[DecoderLayer]", self.layers)
        return [layer.memory(hidden, mask) for layer in layers]

    def forward(self, ids: Tensor, memories: list[Memory], first: int = 0) -> Tensor:
        """Map ids (batch, tokens), at positions from `first`, to logits (…, vocabulary)."""
        x = self.embed_tokens(ids)  # (batch, tokens, width)
        positions = torch.arange(first, first + ids.shape[1], device=ids.device)
        turn = rotation(positions, self.shape)
        for layer, memory in zip(self.layers, memories, strict=True):
            x = layer(x, turn, memory)
        return functional.linear(self.norm(x), self.embed_tokens.weight)


class Moonshine(nn.Module):
    """The whole model. Its `state_dict` has the keys of `harkd_convert.checkpoint.tensor_shapes`.

    Args:
        shape: The sizes.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape)

    @classmethod
    def from_source(cls, source: Source) -> Moonshine:
        """Build the model with a copy of a source's weights, float32, on the CPU, to evaluate.

        Raises:
            ConvertError: The weights are not exactly those of the shape; the message lists them.
        """
        check_weights(source.name, source.shape, source.weights)
        with torch.device("meta"):
            model = cls(source.shape)
        state = {name: torch.tensor(values) for name, values in source.weights.items()}
        model.load_state_dict(state, strict=True, assign=True)
        return model.eval()

    def encode(self, audio: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode audio.

        Args:
            audio: float32, (batch, n), 16 kHz, -1…1, n ≥ `STEM_SAMPLES`.
            mask: bool, broadcast to (batch, heads, frames, frames); True where a frame (row) may
                look at another. None lets all look at all.

        Returns:
            float32, (batch, frames, width).

        Raises:
            ConvertError: The audio has another shape, or is too short.
        """
        if audio.ndim != 2 or audio.shape[1] < STEM_SAMPLES:
            raise ConvertError(
                f"audio of shape {tuple(audio.shape)} cannot be encoded",
                f"give (batch, samples), and {STEM_SAMPLES} samples at least",
            )
        hidden: Tensor = self.encoder(audio, mask)
        return hidden

    def logits(self, ids: Tensor, hidden: Tensor) -> Tensor:
        """Return the logits after each token.

        Args:
            ids: int64, (batch, tokens), with `TOKEN_START` first.
            hidden: float32, (batch, frames, width), from `encode`.

        Returns:
            float32, (batch, tokens, vocabulary).
        """
        logits: Tensor = self.decoder(ids, self.decoder.memories(hidden))
        return logits

    @torch.inference_mode()
    def greedy(self, hidden: Tensor, max_tokens: int) -> list[int]:
        """Return the likeliest token after each, up to `TOKEN_END`, which is not returned.

        Args:
            hidden: float32, (1, frames, width), from `encode`.
            max_tokens: No more than these.
        """
        memories = self.decoder.memories(hidden)
        token, tokens = TOKEN_START, list[int]()
        while len(tokens) < max_tokens:
            ids = torch.tensor([[token]], device=hidden.device)
            token = int(self.decoder(ids, memories, len(tokens))[0, -1].argmax())
            if token == TOKEN_END:
                break
            tokens.append(token)
        return tokens
