"""What the daemon counts."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from harkd.counters import RECENT, Counters
from harkd.events import Final, Partial, Rejected, RejectReason, State, StateChanged

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def final(speech_end_ms: int, *, test: bool = False) -> Final:
    ns = speech_end_ms * 1_000_000
    return Final("A", 2, "hi", 0.9, NOW, NOW, 1.0, ns, ns, "en", "m", test=test)


def test_nothing_has_been_counted_yet() -> None:
    counted = Counters().snapshot()
    assert (counted.samples, counted.finals, counted.rejected) == (0, 0, {})
    assert (counted.rtf, counted.latency_last_ms, counted.latency_median_ms) == (None,) * 3


def test_events_are_counted_by_kind_and_rejections_by_reason() -> None:
    counters = Counters()
    counters.note(StateChanged(State.LISTENING, NOW))
    counters.note(Partial("A", 1, "h", 0.9, NOW, 0.5, "en", "m"))
    for reason in (RejectReason.TOO_SHORT, RejectReason.TOO_SHORT, RejectReason.NO_SPEECH):
        counters.note(Rejected("B", reason, NOW, 0.1))
    counted = counters.snapshot()
    assert (counted.partials, counted.finals) == (1, 0)
    assert counted.rejected == {"too_short": 2, "no_speech": 1}


def test_the_latency_is_that_of_the_last_final_and_the_median_of_recent_ones() -> None:
    counters = Counters(monotonic_ns=lambda: 2_000_000_000)
    for _ in range(RECENT):
        counters.note(final(0))
    for late_ms in [900] * (RECENT - 3) + [100, 200, 650]:
        counters.note(final(2000 - late_ms))
    counted = counters.snapshot()
    assert (counted.latency_last_ms, counted.latency_median_ms) == (650, 900)
    assert counted.finals == 2 * RECENT


def test_a_final_for_testing_counts_for_nothing() -> None:
    counters = Counters()
    counters.note(final(0, test=True))
    assert counters.snapshot() == Counters().snapshot()


def test_the_real_time_factor_is_of_recent_speech_and_not_of_what_was_too_short() -> None:
    counters = Counters()
    for _ in range(RECENT):
        counters.recognized(100.0, 1.0)
    counters.recognized(0.0, 1000.0)
    for _ in range(RECENT):
        counters.recognized(0.5, 2.0)
    assert counters.snapshot().rtf == pytest.approx(0.25)


def test_threads_lose_no_count() -> None:
    counters = Counters()

    def count() -> None:
        for _ in range(2000):
            counters.count("samples", 3)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.snapshot().samples == 4 * 2000 * 3


def test_lags_latencies_and_factors_are_counted_by_size() -> None:
    counters = Counters(monotonic_ns=lambda: 2_000_000_000)
    partial = Partial("A", 1, "h", 0.9, NOW, 0.5, "en", "m", audio_end_ns=1_750_000_000)
    counters.note(partial)
    counters.note(Partial("A", 1, "h", 0.9, NOW, 0.5, "en", "m"))
    counters.note(final(1000))
    counters.note(final(1000, test=True))
    counters.recognized(0.5, 2.0)
    counters.recognized(0.0, 2.0)
    lag, latency = counters.partial_lag_s.distribution(), counters.final_latency_s.distribution()
    assert (lag.counts[-1], lag.total) == (1, 0.25), "not where the audio's time is unknown"
    assert (latency.counts[-1], latency.total) == (1, 1.0)
    factor = counters.real_time_factor.distribution()
    assert (factor.counts[-1], factor.total) == (1, 0.25)
