"""Counts of values by size, as Prometheus wants them. Pure; any thread."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

PARTIAL_LAG_S: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
FINAL_LATENCY_S: Final = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
REAL_TIME_FACTOR: Final = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0)


@dataclass(frozen=True, slots=True)
class Distribution:
    """How values were distributed up to now."""

    bounds: Sequence[float]
    """Upper bounds, rising, each included; above the last there is no bound."""
    counts: Sequence[int]
    """Values up to each bound, and at the end all of them."""
    total: float
    """Their sum."""


class Histogram:
    """Counts values.

    Args:
        bounds: Upper bounds, rising, each included.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        """Count one value."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._total += value

    def distribution(self) -> Distribution:
        """Return what was counted."""
        with self._lock:
            return Distribution(self._bounds, tuple(accumulate(self._counts)), self._total)
