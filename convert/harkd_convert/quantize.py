"""Weights → int8 by column, as onnxruntime's dynamically quantized products take them. Pure.

A source that was published in 8 bits keeps its integers: a column moves from unsigned to signed by
its zero point, and only one that reaches beyond ±127 is scaled again. So merging matrices of
different scales loses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harkd_convert.checkpoint import Float32, Quantized

LARGEST = 127
"""-128 is left out, so that a column and its negative are rounded alike."""
SMALLEST = 1e-30
"""Columns below this become zeros."""


class Weights(Protocol):
    """Where a graph's weights come from."""

    @property
    def weights(self) -> dict[str, Float32]:
        """Return float32 by name, PyTorch's layout."""

    @property
    def quantized(self) -> dict[str, Quantized]:
        """Return published integers by name, where they are known."""

    @property
    def norm_epsilon(self) -> float:
        """Return what is added to the variance, in all norms."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix by column: ``weight[:, j] = values[:, j] × scales[j]``."""

    values: NDArray[np.int8]
    """int8, (in, out), -127…127"""
    scales: Float32
    """float32, (out,), above 0"""

    def dequantized(self) -> Float32:
        """Return float32, (in, out)."""
        return self.values.astype(np.float32) * self.scales


def from_integers(published: Quantized) -> Matrix:
    """Take over published integers; of a column beyond ±127 the scale grows instead."""
    centred = published.values.astype(np.int32) - published.zero_point  # (in, out)
    reach = np.abs(centred).max(axis=0, initial=0)
    grown = np.maximum(reach / LARGEST, 1.0)
    values = np.round(centred / grown).astype(np.int8)
    return Matrix(values, (published.scale * grown).astype(np.float32))


def from_floats(weight: Float32) -> Matrix:
    """Round to the nearest of 255 steps by column.

    Args:
        weight: float32, (in, out).
    """
    reach = np.abs(weight).max(axis=0, initial=0)
    # Numbers that are nearly zero have no normal scale, and are as good as zero.
    scales = np.where(reach > SMALLEST, reach / LARGEST, 1.0).astype(np.float32)
    return Matrix(np.round(weight / scales).astype(np.int8), scales)


def quantized(source: Weights, name: str) -> Matrix:
    """Return one of a source's weights in 8 bits, transposed to (in, out)."""
    if published := source.quantized.get(name):
        return from_integers(published)
    return from_floats(np.ascontiguousarray(source.weights[name].T))


def is_listed(name: str, patterns: tuple[str, ...]) -> bool:
    """Tell whether a weight's name matches one of the shell patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
