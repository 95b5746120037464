"""Runs a streaming Conformer over features, in PyTorch or as the exported graph; greedy CTC.

In: features of an utterance. Out: log-probabilities by frame, tokens, text. Chunks are taken as
sherpa-onnx takes them (csrc/online-recognizer-ctc-impl.h): one when its window and one frame more
are there; what does not fill a window at the end is not heard. Runs on the caller's thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harkd.audio import RATE_HZ
from harkd.recognizer.onnx import open_session
from harkd_convert.checkpoint import Float32
from harkd_convert.conformer import Conformer
from harkd_convert.conformer_graph import INPUTS
from harkd_convert.conformer_shape import Chunking, ConformerShape, encoded_frames

BLANK = 0
TAIL_S = 1.0
"""Silence after an utterance, so that its end fills a window."""
WORD = "▁"


def windows(features: Float32, chunking: Chunking) -> Iterator[Float32]:
    """Yield the windows of an utterance, (1, `window_frames`, bins), of (frames, bins)."""
    first = 0
    while first + chunking.window_frames < len(features):
        yield features[None, first : first + chunking.window_frames]
        first += chunking.shift_frames


def with_tail(samples: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return int16 (n,) with the silence that lets its end be heard."""
    return np.concatenate([samples, np.zeros(int(TAIL_S * RATE_HZ), np.int16)])


class ExportedConformer:
    """An exported graph.

    Args:
        path: The file.
        shape: Its sizes.
        chunking: What is encoded at once.
    """

    def __init__(self, path: Path, shape: ConformerShape, chunking: Chunking) -> None:
        self.session = open_session(path, 1, arena=True)
        self.shape, self.chunking = shape, chunking

    def initial(self) -> tuple[Float32, Float32]:
        """Return the caches before the first chunk."""
        shape, cached = self.shape, self.chunking.cached_frames
        return (
            np.zeros((shape.layers, shape.heads, cached, 2 * shape.head_width), np.float32),
            np.zeros((shape.layers, 1, shape.width, shape.kernel - 1), np.float32),
        )

    def steps(self, features: Float32, more: Sequence[str] = ()) -> Iterator[list[Any]]:
        """Yield what each chunk gives: log-probabilities, both caches, and the outputs `more`."""
        cached, frames = self.chunking.cached_frames, self.chunking.frames
        names = [each.name for each in self.session.get_outputs()][:3]
        caches = self.initial()
        for step, window in enumerate(windows(features, self.chunking)):
            values = (
                window,
                np.array([cached + step * frames], np.int64),
                np.array([cached], np.int64),
                *caches,
                self.chunking.step_mask(step),
            )
            found = self.session.run([*names, *more], dict(zip(INPUTS, values, strict=True)))
            caches = (found[1], found[2])
            yield found

    def log_probs(self, features: Float32) -> Float32:
        """Return (frames, vocabulary) of an utterance (feature frames, bins)."""
        found = [step[0][0] for step in self.steps(features)]
        return np.concatenate(found) if found else np.empty((0, self.shape.vocabulary), np.float32)


@torch.inference_mode()
def streamed_log_probs(model: Conformer, features: Float32, chunking: Chunking) -> Float32:
    """Return what PyTorch gives chunk by chunk: (frames, vocabulary) of (feature frames, bins)."""
    state, found = model.initial(chunking), []
    for window in windows(features, chunking):
        out, state = model.step(torch.from_numpy(np.ascontiguousarray(window)), state, chunking)
        found.append(out[0].numpy())
    return np.concatenate(found) if found else np.empty((0, model.shape.vocabulary), np.float32)


@torch.inference_mode()
def whole_log_probs(model: Conformer, features: Float32, chunking: Chunking) -> Float32:
    """Return what PyTorch gives at once under the chunks' mask, of as much as chunks hear."""
    steps = sum(1 for _ in windows(features, chunking))
    if not steps:
        return np.empty((0, model.shape.vocabulary), np.float32)
    heard = features[: (steps - 1) * chunking.shift_frames + chunking.window_frames]
    mask = torch.from_numpy(chunking.mask(encoded_frames(len(heard))))[None]
    out = model(torch.from_numpy(heard)[None], mask, chunking.cached_frames)
    return np.asarray(out[0].numpy(), np.float32)


def greedy(log_probs: Float32) -> list[int]:
    """Return the tokens of (frames, vocabulary): the best ones, without repeats and blanks."""
    best = [BLANK, *log_probs.argmax(axis=-1).tolist()]
    changes = [one for one, before in zip(best[1:], best, strict=False) if one != before]
    return [token for token in changes if token != BLANK]


def text_of(tokens: Sequence[int], names: Sequence[str]) -> str:
    """Return the text of tokens; `▁` begins a word, and marks such as `<unk>` say nothing."""
    said = [names[token] for token in tokens]
    plain = [name for name in said if not (name.startswith("<") and name.endswith(">"))]
    return "".join(plain).replace(WORD, " ").strip()
