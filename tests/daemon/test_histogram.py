"""Counts of values by size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harkd.histogram import FINAL_LATENCY_S, PARTIAL_LAG_S, REAL_TIME_FACTOR, Histogram


def test_a_bound_is_included_and_what_is_beyond_the_last_is_counted() -> None:
    histogram = Histogram((0.5, 1.0))
    for value in (0.1, 0.5, 0.75, 1.0, 2.0):
        histogram.observe(value)
    found = histogram.distribution()
    assert list(found.counts) == [2, 4, 5]
    assert found.total == 4.35


@given(st.lists(st.floats(0, 100)))
def test_counts_rise_and_the_last_has_all(values: list[float]) -> None:
    histogram = Histogram(FINAL_LATENCY_S)
    for value in values:
        histogram.observe(value)
    found = histogram.distribution()
    assert list(found.counts) == sorted(found.counts)
    assert found.counts[-1] == len(values)
    for bound, count in zip(found.bounds, found.counts, strict=False):
        assert count == sum(value <= bound for value in values)


def test_all_bounds_rise() -> None:
    for bounds in (FINAL_LATENCY_S, PARTIAL_LAG_S, REAL_TIME_FACTOR):
        assert list(bounds) == sorted(set(bounds))
