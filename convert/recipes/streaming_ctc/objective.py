"""What training makes small, and what tells how far it has come: CTC losses, and word errors.

In: the model, and a batch or recordings. Out: a loss to go back from, or a rate. Runs on the
caller's thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from harkd.audio import RATE_HZ
from harkd_convert.conformer import Conformer
from harkd_convert.conformer_run import greedy
from harkd_convert.conformer_shape import Chunking, encoded_frames
from harkd_convert.mel_features import mel_features
from harkd_convert.verify import edit_distance
from recipes.streaming_ctc.speech import Batch, Recording
from recipes.streaming_ctc.units import Units, words_of

MIDDLE_SHARE = 0.4
"""Of the loss is that of the middle layer's frames, through the same head, so that the lower layers
learn sooner: https://arxiv.org/abs/2102.03216."""


def mask_of(batch: Batch, chunking: Chunking) -> Tensor:
    """Return what each frame may look at, bool (batch, frames, frames)."""
    most = encoded_frames(batch.features.shape[1])
    own = np.array([encoded_frames(int(frames)) for frames in batch.frames])
    there = np.arange(most)[None, None, :] < own[:, None, None]  # (batch, 1, frames)
    # A frame of the padding looks at itself, since a softmax of nothing is no number.
    return torch.from_numpy((chunking.mask(most)[None] & there) | np.eye(most, dtype=bool)[None])


def loss_of(
    model: Conformer, batch: Batch, chunking: Chunking, first: int, *, halved: bool = False
) -> Tensor:
    """Return the CTC loss of a batch for each unit."""
    # In 16 bits where that is asked for: 1.6 times as fast on a CPU with AMX.
    with torch.autocast("cpu", torch.bfloat16, enabled=halved):
        middle = list[Tensor]()
        layer = model.encoder.encoders[len(model.encoder.encoders) // 2 - 1]
        hook = layer.register_forward_hook(lambda _layer, _given, out: middle.append(out[0]))
        logs = model(torch.from_numpy(batch.features), mask_of(batch, chunking), first)
        hook.remove()
        logs_of_middle = model.ctc(model.encoder.after_norm(middle[0]))
    frames = torch.tensor([encoded_frames(int(each)) for each in batch.frames])
    targets = torch.tensor([unit for each in batch.units for unit in each])
    lengths = torch.tensor([len(each) for each in batch.units])
    losses = []
    for each in (logs, logs_of_middle):
        by_frame = each.float().transpose(0, 1)  # (frames, batch, vocabulary)
        total = functional.ctc_loss(
            by_frame, targets, frames, lengths, reduction="sum", zero_infinity=True
        )
        losses.append(total / lengths.sum())
    return (1 - MIDDLE_SHARE) * losses[0] + MIDDLE_SHARE * losses[1]


@torch.inference_mode()
def word_error_rate(
    model: Conformer, recordings: Sequence[Recording], units: Units, chunking: Chunking
) -> float:
    """Return the word errors of greedy decoding with the chunks' masks, per word."""
    errors = words = 0
    for recording in recordings:
        samples = np.concatenate([recording.samples, np.zeros(RATE_HZ // 2, np.int16)])
        features = torch.from_numpy(mel_features(samples))[None]
        mask = torch.from_numpy(chunking.mask(encoded_frames(features.shape[1])))[None]
        log_probs = model(features, mask, chunking.cached_frames)[0].numpy()
        heard = units.decode(greedy(log_probs)).split()
        wanted = words_of(recording.text)
        errors, words = errors + edit_distance(wanted, heard), words + len(wanted)
    return errors / max(words, 1)
