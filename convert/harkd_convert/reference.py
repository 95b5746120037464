"""A source run through PyTorch in float32: what a converted model is held against.

In: a `Source`, then audio as numpy arrays. Out: numpy arrays. Runs on the caller's thread, on the
CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harkd.model_package import Streaming
from harkd_convert.checkpoint import Float32, Source
from harkd_convert.moonshine import STEM_SAMPLES, TOKEN_END, TOKEN_START, Moonshine
from harkd_convert.streaming_reference import encode_in_passes

__all__ = ["STEM_SAMPLES", "TOKEN_END", "TOKEN_START", "Heard", "Reference"]


@dataclass(frozen=True, slots=True)
class Heard:
    """What PyTorch makes of some audio."""

    hidden: Float32
    """float32, (1, frames, width)"""
    cross: list[Float32]
    """The decoder's keys and values of the hidden states, in turn: (heads, frames, head) each"""
    tokens: list[int]
    """The likeliest after each other, without the end's"""


class Reference:
    """The source as a PyTorch module.

    Args:
        source: The model.
        tokens: So many of the vocabulary can be written; the others are never chosen.
        streaming: How it listens; None for all of the audio at once.

    Raises:
        ConvertError: The weights are not those of the shape.
    """

    def __init__(self, source: Source, tokens: int, streaming: Streaming | None = None) -> None:
        self._streaming = streaming
        self._model = Moonshine.from_source(source)
        self._tokens = tokens

    @torch.inference_mode()
    def hear(self, audio: Float32, most_tokens: int, guess: Sequence[int] = ()) -> Heard:
        """Recognize.

        Args:
            audio: float32, (n,), 16 kHz, -1…1; padded with zeros to one frame.
            most_tokens: No more than these.
            guess: Tokens that are probably right, which saves time and changes nothing.
        """
        padded = np.pad(audio, (0, max(0, STEM_SAMPLES - len(audio))))
        hidden: Float32 = self._encode(torch.from_numpy(padded)[None]).numpy()
        tokens = self._greedy(hidden, most_tokens, list(guess)[:most_tokens])
        return Heard(hidden, self.cross(hidden), tokens)

    @torch.inference_mode()
    def cross(self, hidden: Float32) -> list[Float32]:
        """Return the decoder's keys and values of hidden states (1, frames, width), in turn."""
        memories = self._model.decoder.memories(torch.from_numpy(hidden))
        return [each[0].numpy() for memory in memories for each in memory.encoder]

    @torch.inference_mode()
    def log_probs(self, hidden: Float32, tokens: list[int]) -> Float32:
        """Return the log-probabilities after the start and after each of some tokens.

        Args:
            hidden: float32, (1, frames, width).
            tokens: n of them.

        Returns:
            float32, (n + 1, tokens that can be written).
        """
        ids = torch.tensor([[TOKEN_START, *tokens]])
        logits = self._model.logits(ids, torch.from_numpy(hidden))[0, :, : self._tokens]
        found: Float32 = logits.log_softmax(-1).numpy()
        return found

    def _encode(self, audio: Tensor) -> Tensor:
        if self._streaming is None:
            return self._model.encode(audio)
        return encode_in_passes(self._model.encoder, audio, self._streaming)

    def _greedy(self, hidden: Float32, most: int, draft: list[int]) -> list[int]:
        """Decode; each pass checks the whole draft, and settles one token more at least."""
        while True:
            best = self.log_probs(hidden, draft).argmax(-1).tolist()  # n + 1 tokens
            pairs = enumerate(zip(draft, best, strict=False))
            right = next((i for i, (a, b) in pairs if a != b), len(draft))
            if best[right] == TOKEN_END or right >= most:
                return draft[:right]
            going_on = best[right:]
            if TOKEN_END in going_on:
                going_on = going_on[: going_on.index(TOKEN_END)]
            draft = [*draft[:right], *going_on][:most]
