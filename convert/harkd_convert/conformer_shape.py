"""The sizes of a streaming Conformer, and the masks and positions that its chunks have. Pure.

The network is WeNet's U2++ encoder (https://arxiv.org/abs/2106.05642): a convolutional stem that
makes one frame of four, Conformer layers whose attention sees its own chunk and some chunks before
it, and a head of CTC.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SUBSAMPLING = 4
"""Feature frames to one frame of the encoder."""
RIGHT_CONTEXT = 6
"""Feature frames that the stem sees beyond a frame's first: (3 - 1) · 1 + (3 - 1) · 2."""
POSITIONS = 5000
"""Rows of WeNet's table of positions: 200 s. What comes after keeps the last ones."""
LONGEST_WAVELENGTH = 10000.0
NORMS = ("batch_norm", "layer_norm")


@dataclass(frozen=True, slots=True)
class ConformerShape:
    """The sizes of a streaming Conformer with a CTC head."""

    bins: int
    """Mel bins of a feature frame"""
    width: int
    """Features of a frame in the encoder"""
    heads: int
    """Attention heads, each `width / heads` wide"""
    ffn: int
    """Features inside the feed-forward parts"""
    layers: int
    """1 and up"""
    kernel: int
    """Frames that a causal convolution sees, its own included; 2 and up"""
    vocabulary: int
    """Tokens, the blank included"""
    conv_norm: str = "layer_norm"
    """Inside the convolution module: one of `NORMS`"""
    norm_epsilon: float = 1e-5
    """Added to the variance, in all norms"""

    @property
    def head_width(self) -> int:
        """Features of one head."""
        return self.width // self.heads

    @property
    def stem_bins(self) -> int:
        """What the stem's two convolutions (kernel 3, stride 2) leave of the mel bins."""
        return ((self.bins - 1) // 2 - 1) // 2

    def faults(self) -> list[str]:
        """Return what makes these sizes impossible."""
        names = ("bins", "width", "heads", "ffn", "layers", "vocabulary")
        sizes = {name: getattr(self, name) for name in names}
        if faults := [f"{name} is {size}" for name, size in sizes.items() if size < 1]:
            return faults
        if self.width % self.heads or self.width % 2:
            faults.append(f"the width {self.width} does not divide into {self.heads} heads")
        if self.kernel < 2:
            faults.append(f"a causal convolution of {self.kernel} frames has no past")
        if self.bins < 7:
            faults.append(f"{self.bins} mel bins are too few for the stem")
        if self.conv_norm not in NORMS:
            faults.append(f"the convolution's norm is {self.conv_norm!r}, not {' or '.join(NORMS)}")
        return faults


@dataclass(frozen=True, slots=True)
class Chunking:
    """How much is encoded at once, and how much of the past it sees."""

    frames: int = 16
    """Of the encoder, in a chunk; each is 40 ms"""
    left_chunks: int = 4
    """Chunks before, which attention sees"""

    @property
    def cached_frames(self) -> int:
        """Frames whose keys and values are kept."""
        return self.frames * self.left_chunks

    @property
    def window_frames(self) -> int:
        """Feature frames that go into a chunk."""
        return (self.frames - 1) * SUBSAMPLING + RIGHT_CONTEXT + 1

    @property
    def shift_frames(self) -> int:
        """Feature frames from one chunk to the next."""
        return self.frames * SUBSAMPLING

    def mask(self, frames: int) -> NDArray[np.bool_]:
        """Return what each frame (row) of an utterance may look at, bool (frames, frames)."""
        chunk = np.arange(frames) // self.frames
        ahead = chunk[None, :] - chunk[:, None]  # (frames, frames)
        return (ahead <= 0) & (ahead >= -self.left_chunks)

    def step_mask(self, step: int) -> NDArray[np.bool_]:
        """Return which cached and new frames the chunk number `step` sees.

        Returns:
            bool, (1, 1, cached frames + frames): False for what is before the beginning.
        """
        seen = np.arange(self.cached_frames + self.frames)
        return np.asarray(seen >= self.cached_frames - step * self.frames)[None, None]


def encoded_frames(feature_frames: int) -> int:
    """Return how many frames the stem makes of so many, 0 where there are too few."""
    return max(((feature_frames - 1) // 2 - 1) // 2, 0)


def position_table(width: int) -> NDArray[np.float32]:
    """Return WeNet's sines and cosines by position, float32 (`POSITIONS`, width)."""
    steps = np.arange(0, width, 2, dtype=np.float32) * np.float32(-np.log(LONGEST_WAVELENGTH))
    angles = np.arange(POSITIONS, dtype=np.float32)[:, None] * np.exp(steps / np.float32(width))
    table = np.empty((POSITIONS, width), np.float32)
    table[:, 0::2], table[:, 1::2] = np.sin(angles), np.cos(angles)
    return table
