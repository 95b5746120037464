"""Figures → what Prometheus reads. The only file that knows its client library.

In: figures, gathered at each scrape. Out: the text of `/metrics`. Any thread. The library is loaded
at the first scrape: who has no Prometheus does not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harkd.events import RejectReason, State
from harkd.health import read_usage
from harkd.histogram import Distribution
from harkd.vitals import InputFigures

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

LABEL = "device_id"
FRAME_SAMPLES = 320
"""Samples in a frame of 20 ms."""
HEARING = (State.LISTENING, State.SPEECH)


@dataclass(frozen=True, slots=True)
class DaemonFigures:
    """How the daemon fares now."""

    version: str
    """harkd's version."""
    model: str
    """Name of the model."""
    provider: str
    """What runs it; empty until it is loaded."""
    device: str
    """What is to run it: auto, cpu or cuda."""
    live: bool
    """Whether all threads make progress."""
    loaded: bool
    """Whether the model is loaded."""
    inputs: Sequence[InputFigures]
    """How each input fares."""


def counts(each: InputFigures) -> Iterator[tuple[str, str, float]]:
    """Yield what only grows: name, what it is, value."""
    counted, signal = each.counted, each.signal
    frames = signal.frames if signal else counted.samples // FRAME_SAMPLES
    yield "frames", "Frames of 20 ms heard.", frames
    yield "voiced_frames", "Of these, taken for speech.", signal.voiced_frames if signal else 0
    yield "gaps", "How often audio was lost between sound card and daemon.", counted.gaps
    yield (
        "microphone_losses",
        "How often the microphone was lost, or could not be opened.",
        counted.losses,
    )
    yield "capture_starts", "Capture processes started.", each.captures
    clipped = signal.clipped_samples if signal else 0
    yield "clipped_samples", "Samples at full scale.", clipped
    yield "segments", "Segments begun.", counted.segments
    yield "wakes", "Wake words heard.", counted.wakes
    yield "unwoken", "Utterances not recognized for want of a wake word.", counted.unwoken
    yield "partials", "Partials told.", counted.partials
    yield "finals", "Finals, without tests.", counted.finals
    reconnects = max(0, each.connections - 1)
    yield "mqtt_reconnects", "How often the broker accepted the daemon again.", reconnects


def gauges(each: InputFigures) -> Iterator[tuple[str, str, float | None]]:
    """Yield what rises and falls: name, what it is, value; None is left out."""
    signal, outbox = each.signal, each.outbox
    up = each.state.state in HEARING
    yield "microphone_up", "1 while audio comes; 0 without a microphone, and muted.", up
    yield "level_dbfs", "RMS of the last second.", signal.level_dbfs if signal else None
    yield "peak_dbfs", "Largest sample of the last second.", signal.peak_dbfs if signal else None
    offset = signal.dc_offset if signal else None
    yield "dc_offset", "Mean of the last 10 s, as share of full scale.", offset
    yield "zeros_seconds", "Nothing but zeros for so long.", signal.zeros_s if signal else None
    lag = signal.lag_s if signal else None
    yield "audio_lag_seconds", "How late the last block was taken.", lag
    yield "outbox_waiting", "Finals that the broker has not taken.", outbox.waiting
    age_s = outbox.oldest_age_s or 0.0
    yield "outbox_oldest_age_seconds", "Age of the oldest of them; 0 without any.", age_s
    yield "outbox_on_disk", "1 where they would survive a power cut.", outbox.on_disk
    yield "mqtt_connected", "1 while the broker is there.", each.connected
    usage = read_usage(each.capture_pid) if each.capture_pid else None
    rss = usage.rss_bytes if usage else 0
    yield "capture_resident_memory_bytes", "Memory of the capture process; 0 without.", rss


def labelled(each: InputFigures) -> Iterator[tuple[str, str, str, bool, dict[str, float]]]:
    """Yield families with one more label: name, what, the label, whether they only grow, values."""
    now = each.state
    states = {state.value: float(state is now.state) for state in State}
    yield "state", "1 for the current state.", "state", False, states
    problems = {problem: float(problem == now.problem) for problem in each.problems}
    what = "1 for what is wrong with the microphone."
    yield "microphone_problem", what, "problem", False, problems
    rejected = {
        reason.value: float(each.counted.rejected.get(reason, 0)) for reason in RejectReason
    }
    yield "rejected", "Segments without a final.", "reason", True, rejected
    waiting = {queue: float(count) for queue, count in each.waiting.items()}
    yield "queue_depth", "What waits.", "queue", False, waiting
    dropped = {name: float(count) for name, count in each.dropped.items()}
    yield "dropped", "What was dropped because too much waited.", "what", True, dropped


def histograms(each: InputFigures) -> Iterator[tuple[str, str, Distribution]]:
    """Yield distributions: name, what it is, the distribution."""
    lag = "From the last audio in a partial to its hand-over."
    yield "partial_lag_seconds", lag, each.partial_lag_s
    latency = "From the last voiced sample to the final's hand-over."
    yield "final_latency_seconds", latency, each.final_latency_s
    factor = "Seconds of recognition for a second of a segment."
    yield "real_time_factor", factor, each.real_time_factor


class Metrics:
    """Writes what Prometheus reads.

    Args:
        gather: Returns how the daemon fares.
    """

    def __init__(self, gather: Callable[[], DaemonFigures]) -> None:
        self._gather = gather
        self._registry: CollectorRegistry | None = None

    def text(self) -> tuple[bytes, str]:
        """Return the text and its media type."""
        from prometheus_client import CollectorRegistry, ProcessCollector
        from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

        if self._registry is None:
            registry = CollectorRegistry()
            ProcessCollector(registry=registry)
            registry.register(Families(self._gather))
            self._registry = registry
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4


class Families:
    """A collector as the library wants it: families with all inputs in them."""

    def __init__(self, gather: Callable[[], DaemonFigures]) -> None:
        self._gather = gather

    def describe(self) -> list[Metric]:
        """Return nothing: the names are not known before the first scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield each family once."""
        from prometheus_client import core

        daemon = self._gather()
        about = {"version": daemon.version, "model": daemon.model, "provider": daemon.provider}
        about["device"] = daemon.device
        build = core.GaugeMetricFamily("harkd_build_info", "What runs.", labels=list(about))
        build.add_metric(list(about.values()), 1)
        yield build
        families: dict[str, Any] = {}

        def family(kind: Any, name: str, what: str, *labels: str) -> Any:
            if name not in families:
                families[name] = kind(f"harkd_{name}", what, labels=[LABEL, *labels])
            return families[name]

        gauge, counter = core.GaugeMetricFamily, core.CounterMetricFamily
        for each in daemon.inputs:
            own = [each.device_id]
            live = family(gauge, "live", "1 while all threads make progress.")
            live.add_metric(own, daemon.live)
            hears = all(finding.ok for finding in each.ready)
            ready = daemon.loaded and daemon.live and hears
            what = "1 while the model is loaded and audio comes in real time, or it is muted."
            family(gauge, "ready", what).add_metric(own, ready)
            for name, what, value in counts(each):
                family(counter, name, what).add_metric(own, value)
            for name, what, level in gauges(each):
                if level is not None:
                    family(gauge, name, what).add_metric(own, level)
            for name, what, label, grows, values in labelled(each):
                one = family(counter if grows else gauge, name, what, label)
                for key, value in values.items():
                    one.add_metric([*own, key], value)
            for name, what, distribution in histograms(each):
                one = family(core.HistogramMetricFamily, name, what)
                one.add_metric(own, buckets(distribution), distribution.total)
        yield from families.values()


def buckets(distribution: Distribution) -> list[tuple[str, float]]:
    """Return a distribution's buckets as the library takes them."""
    bounds = [*map(str, distribution.bounds), "+Inf"]
    return list(zip(bounds, map(float, distribution.counts), strict=True))
