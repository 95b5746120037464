"""Counts what the daemon does, for its `health` message and its metrics.

In: counts from the parts in which something happens, and events. Out: `Counted`. Any thread: each
call holds a lock for an addition.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from harkd.events import Event, Final, Partial, Rejected
from harkd.histogram import FINAL_LATENCY_S, PARTIAL_LAG_S, REAL_TIME_FACTOR, Histogram

RATE_HZ = 16000
"""Samples in a second, as in `harkd.audio`, which is heavier to load."""
RECENT = 50
"""So many segments make up what is recent."""

Name = Literal["samples", "gaps", "losses", "segments", "wakes", "unwoken"]


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted since the start."""

    samples: int
    """Audio that was heard, in samples at `RATE_HZ`."""
    gaps: int
    """How often samples were lost on their way from the sound card."""
    losses: int
    """How often the source was lost, or could not be opened."""
    segments: int
    """Segments that were begun."""
    wakes: int
    """Wake words that were heard."""
    unwoken: int
    """Utterances that were not recognized for want of one."""
    partials: int
    """Partials that were told."""
    finals: int
    """Finals, without those that `test_final` asked for."""
    rejected: Mapping[str, int]
    """Segments without a final, by reason."""
    rtf: float | None
    """Seconds of recognition for a second of speech, of recent segments; None before the first."""
    latency_last_ms: int | None
    """From the last voiced sample of the last final to its hand-over; None before the first."""
    latency_median_ms: int | None
    """The median of that, of recent finals."""


class Counters:
    """Counts.

    Args:
        monotonic_ns: The clock of `Final.speech_end_ns`.
    """

    def __init__(self, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._monotonic_ns = monotonic_ns
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._costs: deque[tuple[float, float]] = deque(maxlen=RECENT)
        self._latencies_ms: deque[int] = deque(maxlen=RECENT)
        self.partial_lag_s = Histogram(PARTIAL_LAG_S)
        """From the last audio that a partial covers to its hand-over."""
        self.final_latency_s = Histogram(FINAL_LATENCY_S)
        """From the last voiced sample of a final to its hand-over."""
        self.real_time_factor = Histogram(REAL_TIME_FACTOR)
        """Seconds of recognition for a second of a segment."""

    def count(self, name: Name, amount: int = 1) -> None:
        """Add to a count."""
        with self._lock:
            self._counts[name] += amount

    def recognized(self, spent_s: float, audio_s: float) -> None:
        """A segment of `audio_s` took `spent_s` of recognition in all."""
        if spent_s:  # what is too short is not recognized at all
            with self._lock:
                self._costs.append((spent_s, audio_s))
            if audio_s:
                self.real_time_factor.observe(spent_s / audio_s)

    def note(self, event: Event) -> None:
        """Count an event, right before it is handed over."""
        with self._lock:
            match event:
                case Partial():
                    self._counts["partials"] += 1
                    if event.audio_end_ns:
                        lag_ns = self._monotonic_ns() - event.audio_end_ns
                        self.partial_lag_s.observe(max(0.0, lag_ns / 1e9))
                case Rejected():
                    self._rejected[event.reason.value] += 1
                case Final() if not event.test:
                    self._counts["finals"] += 1
                    late_ns = self._monotonic_ns() - event.speech_end_ns
                    self._latencies_ms.append(round(late_ns / 1e6))
                    self.final_latency_s.observe(max(0.0, late_ns / 1e9))

    def snapshot(self) -> Counted:
        """Return all counts."""
        with self._lock:
            audio_s = sum(audio_s for _, audio_s in self._costs)
            spent_s = sum(spent_s for spent_s, _ in self._costs)
            latencies = self._latencies_ms
            return Counted(
                samples=self._counts["samples"],
                gaps=self._counts["gaps"],
                losses=self._counts["losses"],
                segments=self._counts["segments"],
                wakes=self._counts["wakes"],
                unwoken=self._counts["unwoken"],
                partials=self._counts["partials"],
                finals=self._counts["finals"],
                rejected=dict(self._rejected),
                rtf=spent_s / audio_s if audio_s else None,
                latency_last_ms=latencies[-1] if latencies else None,
                latency_median_ms=round(statistics.median(latencies)) if latencies else None,
            )
