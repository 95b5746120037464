"""Figures of the soak: growth with its confidence, and how far times drift. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harkd.audio import RATE_HZ, SampleClock

STUDENT_95 = {1: 12.7, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 8: 2.31, 10: 2.23, 20: 2.09}
"""Student's t by degrees of freedom; 2 for more."""


@dataclass(frozen=True)
class Trend:
    """A straight line through values, by least squares."""

    slope: float
    """Units in one step of the other axis."""
    half_width: float
    """Half of the slope's 95 % confidence interval."""

    def __str__(self) -> str:
        return f"{self.slope:+.2f} ± {self.half_width:.2f}"


def trend(at: Sequence[float], values: Sequence[float]) -> Trend:
    """Fit a line; its confidence takes the rest for independent and normal."""
    x, y = np.asarray(at, np.float64), np.asarray(values, np.float64)
    if len(x) < 3:
        return Trend(math.nan, math.nan)
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / spread)
    rest = y - y.mean() - slope * (x - x.mean())
    free = len(x) - 2
    student = next((t for most, t in STUDENT_95.items() if free <= most), 2.0)
    return Trend(slope, student * math.sqrt(float((rest**2).sum()) / free / spread))


@dataclass(frozen=True)
class Drift:
    """How far the sample clock was from the truth."""

    hours: float
    """Of audio."""
    ppm: float
    """How much faster than the machine's clock the device ran."""
    mean_ms: float
    """Mean error; above 0 is too late."""
    worst_ms: float
    """Largest error, either way."""


def sample_clock_drift(hours: float, ppm: float, seed: int, block_ms: int = 30) -> Drift:
    """Run `SampleClock` over hours of blocks of a device that is too fast or too slow.

    Each stamp is late by 0…10 ms, one in a hundred by up to 300 ms, as on a busy machine.
    """
    random = np.random.default_rng(seed)
    block = RATE_HZ * block_ms // 1000
    count = round(hours * 3600 * RATE_HZ / block)
    late_ns = random.uniform(0, 10e6, count)
    stuck = random.random(count) < 0.01
    late_ns[stuck] = random.uniform(0, 300e6, int(stuck.sum()))
    sample_ns = 1e9 / RATE_HZ / (1 + ppm * 1e-6)
    clock, errors = SampleClock(), np.empty(count)
    for index in range(count):
        position = index * block
        clock.update(position, int(position * sample_ns + late_ns[index]))
        newest = position + block
        errors[index] = (clock.at_ns(newest) - newest * sample_ns) / 1e6
    return Drift(hours, ppm, float(errors.mean()), float(np.abs(errors).max()))


def residuals_s(ended_s: Sequence[float], ends_s: Sequence[float], loop_s: float) -> list[float]:
    """How far from the nearest true end each utterance was found to end.

    Args:
        ended_s: When utterances ended, in seconds since the loop was first at its beginning.
        ends_s: Where in the loop they end, in seconds.
        loop_s: Its length.
    """
    truth = np.asarray([end + shift for shift in (-loop_s, 0.0, loop_s) for end in ends_s])
    found = []
    for at in ended_s:
        off = at % loop_s - truth
        found.append(float(off[np.argmin(np.abs(off))]))
    return found
