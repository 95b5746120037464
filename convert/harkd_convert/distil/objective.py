"""What is learned: the hidden states, and so the words, of a teacher that hears all at once.

In: a batch. Out: losses, and what agrees. Runs on the caller's thread.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from harkd_convert.distil.batches import Batch
from harkd_convert.distil.decoding import forced, logits_after
from harkd_convert.distil.passes import Passes, Plan
from harkd_convert.distil.streaming_encoder import Stem, StreamingEncoder
from harkd_convert.moonshine import Moonshine


@dataclass(frozen=True, slots=True)
class Losses:
    """Of a batch."""

    hidden: Tensor
    """The squared error of the last hidden states, as a part of their square"""
    divergence: Tensor
    """Of the decoder's distributions, Kullback and Leibler's, in nats for each token"""
    agreement: float
    """So many of the teacher's likeliest tokens are the student's"""
    tokens: int
    """Those counted"""

    @property
    def figures(self) -> tuple[float, float, float]:
        """Return the first three as numbers."""
        return float(self.hidden.detach()), float(self.divergence.detach()), self.agreement


@dataclass(frozen=True, slots=True)
class Taught:
    """What the teacher makes of a batch."""

    hidden: Tensor
    """float32, (batch, frames, width)"""
    heard: Tensor
    """bool, (batch, frames)"""
    ids: Tensor
    """int64, (batch, tokens + 1)"""
    known: Tensor
    """bool, (batch, tokens + 1): a token of the text, or its end, comes after this one"""
    log_probs: Tensor
    """float32, (known tokens, vocabulary)"""


class Teacher:
    """The original weights, which hear the whole utterance.

    Args:
        model: The weights; they are not changed.
        dtype: Of the products in the layers.
    """

    def __init__(self, model: Moonshine, dtype: torch.dtype = torch.float32) -> None:
        self.model = model.requires_grad_(False)
        self.encoder = StreamingEncoder(model.encoder, dtype=dtype)
        self.device = next(model.parameters()).device
        """Where everything is computed"""

    def stem(self, audio: Tensor, batch: Batch) -> Stem:
        """Run the stem, which the student shares."""
        return self.encoder.stem(audio.to(self.device), batch.samples)

    @torch.no_grad()
    def teach(self, batch: Batch, stem: Stem) -> Taught:
        """Hear a batch, and say how likely each token of its text is."""
        hidden = self.encoder.at_once(stem)
        heard = Passes(stem.frames, Plan(0), device=hidden.device).heard
        ids, known = forced(batch.tokens, hidden.device)
        logits = logits_after(self.model.decoder, hidden, heard, ids)[known]
        return Taught(hidden, heard, ids, known, logits.log_softmax(-1))

    def losses(self, taught: Taught, hidden: Tensor) -> Losses:
        """Compare a student's hidden states, (batch, frames, width), with what was taught."""
        wanted = taught.hidden[taught.heard]
        error = functional.mse_loss(hidden[taught.heard], wanted) / wanted.square().mean()
        logits = logits_after(self.model.decoder, hidden, taught.heard, taught.ids)[taught.known]
        found = logits.log_softmax(-1)
        divergence = functional.kl_div(found, taught.log_probs, log_target=True, reduction="sum")
        alike = (found.detach().argmax(-1) == taught.log_probs.argmax(-1)).float().mean()
        return Losses(error, divergence / len(found), float(alike), len(found))
