"""Events → MQTT messages. Pure: the topics and payloads that docs/mqtt.md promises.

In: an event and what the daemon knows of itself. Out: `Message` values, in the order in which they
are to be sent. Any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from harkd.counters import RATE_HZ, Counted
from harkd.events import AwakeChanged, Partial, Rejected, StateChanged, Woken

ONLINE, OFFLINE = b"online", b"offline"
SHOWN_CHARACTERS = 200
"""So much of a wrong payload is told back."""


@dataclass(frozen=True, slots=True)
class Message:
    """One MQTT publication."""

    topic: str
    """The whole topic."""
    payload: bytes
    """UTF-8 text or JSON."""
    qos: int
    """0 or 1."""
    retain: bool = False
    """Whether the broker keeps it for later subscribers."""
    expiry_s: int | None = None
    """MQTT 5 message expiry in seconds."""


@dataclass(frozen=True, slots=True)
class About:
    """What every message says of its sender."""

    base_topic: str
    """First level of all topics."""
    device_id: str
    """Second level of all topics."""
    version: str
    """harkd's version."""
    model: str
    """Name of the model."""
    provider: str
    """The execution provider that really runs it."""
    retain_last: bool
    """Whether the last final is kept on `transcript/last`."""
    max_age_s: float
    """A final older than this is late."""

    def topic(self, name: str) -> str:
        """Return the whole topic of a name such as ``transcript/partial``."""
        return f"{self.base_topic}/{self.device_id}/{name}"


class OutboxFigures(Protocol):
    """How it stands with finals that the broker has not taken."""

    @property
    def waiting(self) -> int:
        """So many wait."""

    @property
    def oldest_age_s(self) -> float | None:
        """Seconds since the oldest of them was said; None where none waits."""

    @property
    def on_disk(self) -> bool:
        """Whether they would survive a crash."""

    @property
    def problem(self) -> str:
        """What is wrong with the disk and how to mend it; empty where nothing is."""


class SignalLike(Protocol):
    """What the signal is like; see `harkd.signal_level`."""

    @property
    def level_dbfs(self) -> float:
        """RMS of the last second."""

    @property
    def peak_dbfs(self) -> float:
        """Largest sample of the last second."""

    @property
    def dc_offset(self) -> float:
        """Mean of the last 10 s, as share of full scale."""

    @property
    def clipped_samples(self) -> int:
        """Samples at full scale since the start."""

    @property
    def zeros_s(self) -> float:
        """Seconds of nothing but zeros up to now."""

    @property
    def voiced_frames(self) -> int:
        """Frames that were taken for speech."""

    @property
    def frames(self) -> int:
        """Frames since the start."""

    @property
    def lag_s(self) -> float:
        """How far the last block was behind its capture time."""


class PhrasesLike(Protocol):
    """What can be said; see `harkd.phrase_book`."""

    @property
    def mode(self) -> str:
        """What phrases are for."""

    @property
    def intents(self) -> Sequence[str]:
        """What can be meant."""

    @property
    def templates(self) -> int:
        """How many templates there are."""

    @property
    def source(self) -> str:
        """Where they come from."""


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """What a process uses."""

    cpu_percent: float
    """Of one core, since the last time; since the process began, at first."""
    rss_mb: float
    """Memory that is resident, in MB of 1,000,000 bytes."""


@dataclass(frozen=True, slots=True)
class Health:
    """How the daemon fares; counts are since its start."""

    uptime_s: float
    """Seconds since the start."""
    counted: Counted
    """What happened."""
    captures: int
    """Capture processes that were started; 0 where the input is no microphone."""
    waiting: Mapping[str, int]
    """What waits in each queue, by the queue's name."""
    dropped: Mapping[str, int]
    """What was dropped because a queue was full, by what it was."""
    daemon: ProcessFigures | None
    """The daemon; None where the system does not tell."""
    capture: ProcessFigures | None
    """The capture process; None while none runs."""
    outbox: OutboxFigures | None
    """Finals on their way; None where that is not known."""
    connections: int
    """How often the broker has accepted us."""
    signal: SignalLike | None = None
    """What the signal is like; None where that is not known."""


def utc(moment: datetime) -> str:
    """Return RFC 3339 in UTC with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def availability(about: About, *, online: bool) -> Message:
    """Return the retained `availability`, which is also the will."""
    return Message(about.topic("availability"), ONLINE if online else OFFLINE, 1, retain=True)


def microphone_availability(about: About, *, online: bool) -> Message:
    """Return the retained `microphone/availability`."""
    payload = ONLINE if online else OFFLINE
    return Message(about.topic("microphone/availability"), payload, 1, retain=True)


def option_state(about: About, name: str, value: str) -> Message:
    """Return the retained `…/state` of what can be set, such as ``listen``."""
    return Message(about.topic(f"{name}/state"), value.encode(), 1, retain=True)


def phrases_state(about: About, in_force: PhrasesLike) -> Message:
    """Return the retained `phrases/state`."""
    body = {
        "mode": in_force.mode,
        "intents": in_force.intents,
        "templates": in_force.templates,
        "source": in_force.source,
    }
    return option_state(about, "phrases", msgspec.json.encode(body).decode())


def no_last(about: About) -> Message:
    """Return what clears a retained `transcript/last`."""
    return Message(about.topic("transcript/last"), b"", 1, retain=True)


def error(about: About, text: str, topic: str = "", payload: bytes | str = "") -> Message:
    """Return an `error`.

    Args:
        about: The sender.
        text: What is wrong and how to mend it.
        topic: The whole topic of the message that it answers; empty where it answers none.
        payload: What that message held; told back as far as it is text.
    """
    if isinstance(payload, bytes):
        # A character has 4 bytes at most.
        payload = payload[: 4 * SHOWN_CHARACTERS].decode("utf-8", "replace")
    body = {"error": text, "topic": topic, "payload": payload[:SHOWN_CHARACTERS]}
    return Message(about.topic("error"), msgspec.json.encode(body), 1)


def state(about: About, event: StateChanged) -> Message:
    """Return the retained `state`."""
    payload = {
        "state": event.state.value,
        "since": utc(event.since),
        "reason": event.reason,
        "version": about.version,
        "model": about.model,
        "provider": about.provider,
        "audio_device": event.audio_device,
        "device_rate_hz": event.device_rate_hz,
        "problem": event.problem,
    }
    return Message(about.topic("state"), msgspec.json.encode(payload), 1, retain=True)


def wake(about: About, event: Woken) -> Message:
    """Return the `wake` of a wake word."""
    payload = {
        "event_type": "wake",
        "word": event.word,
        "score": round(event.score, 3),
        "at": utc(event.at),
        "device_id": about.device_id,
    }
    return Message(about.topic("wake"), msgspec.json.encode(payload), 1)


def awake(about: About, event: AwakeChanged) -> Message:
    """Return the retained `wake/state`."""
    return option_state(about, "wake", "ON" if event.awake else "OFF")


def no_awake(about: About) -> Message:
    """Return what clears a retained `wake/state`."""
    return Message(about.topic("wake/state"), b"", 1, retain=True)


def partial(about: About, event: Partial) -> Message:
    """Return the `transcript/partial` of a segment that is being spoken."""
    payload = {
        "event_type": "partial",
        "id": event.id,
        "rev": event.rev,
        "text": event.text,
        "stable_chars": event.stable_chars,
        "confidence": round(event.confidence, 3),
        "started_at": utc(event.started_at),
        "duration_s": round(event.duration_s, 2),
        "language": event.language,
        "model": event.model,
        "device_id": about.device_id,
    }
    return Message(about.topic("transcript/partial"), msgspec.json.encode(payload), 0)


def rejected(about: About, event: Rejected) -> Message:
    """Return the `transcript/rejected` of a segment without a final."""
    payload = {
        "event_type": "rejected",
        "id": event.id,
        "reason": event.reason.value,
        "started_at": utc(event.started_at),
        "duration_s": round(event.duration_s, 2),
    }
    return Message(about.topic("transcript/rejected"), msgspec.json.encode(payload), 0)


def voiced_share(signal: SignalLike | None) -> float | None:
    """Return which share of the audio is speech; None before the first."""
    return round(signal.voiced_frames / signal.frames, 3) if signal and signal.frames else None


def health(about: About, figures: Health) -> Message:
    """Return the retained `health`."""
    counted, daemon, capture, outbox, signal = (
        figures.counted,
        figures.daemon,
        figures.capture,
        figures.outbox,
        figures.signal,
    )
    payload = {
        "uptime_s": round(figures.uptime_s),
        "audio_s": round(counted.samples / RATE_HZ, 1),
        "gaps": counted.gaps,
        "losses": counted.losses,
        "level_dbfs": signal and round(signal.level_dbfs, 1),
        "peak_dbfs": signal and round(signal.peak_dbfs, 1),
        "dc_offset": signal and round(signal.dc_offset, 4),
        "clipped_samples": signal and signal.clipped_samples,
        "zeros_s": signal and round(signal.zeros_s, 1),
        "vad_ratio": voiced_share(signal),
        "lag_s": signal and round(signal.lag_s, 2),
        "captures": figures.captures,
        "segments": counted.segments,
        "wakes": counted.wakes,
        "unwoken": counted.unwoken,
        "partials": counted.partials,
        "finals": counted.finals,
        "rejected": dict(counted.rejected),
        "waiting": dict(figures.waiting),
        "dropped": dict(figures.dropped),
        "rtf": None if counted.rtf is None else round(counted.rtf, 3),
        "latency_ms": counted.latency_last_ms,
        "latency_median_ms": counted.latency_median_ms,
        "cpu_percent": daemon and daemon.cpu_percent,
        "rss_mb": daemon and daemon.rss_mb,
        "capture_cpu_percent": capture and capture.cpu_percent,
        "capture_rss_mb": capture and capture.rss_mb,
        "outbox": outbox
        and {
            "waiting": outbox.waiting,
            "oldest_age_s": outbox.oldest_age_s and round(outbox.oldest_age_s, 1),
            "on_disk": outbox.on_disk,
            "problem": outbox.problem,
        },
        "reconnects": max(0, figures.connections - 1),
        "model": about.model,
        "provider": about.provider,
        "version": about.version,
    }
    return Message(about.topic("health"), msgspec.json.encode(payload), 1, retain=True)
