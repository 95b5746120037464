"""The soak's figures, and the sample clock over two hours of a device that is off."""

from __future__ import annotations

import math

import pytest
from soak_figures import residuals_s, sample_clock_drift, trend


@pytest.mark.parametrize("ppm", [-200.0, 0.0, 200.0])
def test_the_sample_clock_follows_a_device_that_is_off_and_callbacks_that_come_late(
    ppm: float,
) -> None:
    """Two hours at 200 ppm are 1.4 s."""
    drift = sample_clock_drift(2.0, ppm, seed=1)
    assert drift.worst_ms < 100
    assert abs(drift.mean_ms) < 10


def test_growth_comes_with_its_confidence() -> None:
    flat = trend(range(12), [100, 104] * 6)
    assert flat.slope - flat.half_width < 0 < flat.slope + flat.half_width
    growing = trend(range(12), [100 + 3 * hour + hour % 2 for hour in range(12)])
    assert growing.slope == pytest.approx(3, abs=0.1)
    assert growing.slope - growing.half_width > 2
    assert math.isnan(trend([0.0, 1.0], [1.0, 2.0]).slope)


def test_an_utterance_is_compared_with_the_nearest_end_over_the_loop() -> None:
    off_s = residuals_s([10.1, 29.9, 60.2, 90.5], [0.5, 10.0], 30.0)
    assert off_s == pytest.approx([0.1, -0.6, -0.3, 0.0])
