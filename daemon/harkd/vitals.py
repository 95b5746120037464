"""What is known of one input: its state, its figures, whether it is ready.

In: the input's events, and its parts. Out: `InputFigures` and findings. `hear` runs on the threads
on which events happen, the rest on any.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Protocol

from harkd.counters import Counted, Counters
from harkd.events import Event, RejectReason, State, StateChanged
from harkd.histogram import Distribution
from harkd.life import Finding, LifeSign
from harkd.messages import OutboxFigures
from harkd.signal_level import SignalFigures

FRESH_S: Final = 5.0
"""Audio that is older does not come in real time; a microphone that stalls is told before that."""
LAG_MOST_S: Final = 2.0
"""Nor is audio that is taken so long after it was captured."""
ALL_ZERO, OVERRUNS = "all_zero", "overruns"


class Hearing(Protocol):
    """What is asked of a `Pipeline`."""

    @property
    def waiting(self) -> int:
        """Segments that wait for recognition or are at it."""

    @property
    def audio_age_s(self) -> float | None:
        """Seconds since the last audio came; None before the first."""

    @property
    def life(self) -> Sequence[LifeSign]:
        """Whether its threads make progress."""

    def signal(self) -> SignalFigures:
        """What the signal is like."""


class Outbox(OutboxFigures, Protocol):
    """How it stands with finals on their way, and how many were given up."""

    @property
    def dropped(self) -> int:
        """Finals that were given up since the start."""


class Broker(Protocol):
    """What is asked of a `Publisher`."""

    connected: threading.Event
    """Set while the broker has accepted us."""
    connections: int
    """How often it did."""

    @property
    def life(self) -> Sequence[LifeSign]:
        """Whether its threads make progress."""

    def outbox_facts(self) -> Outbox:
        """How it stands with finals on their way."""


class Commands(Protocol):
    """What is asked of a `Control`."""

    @property
    def waiting(self) -> int:
        """Commands that wait."""

    @property
    def dropped(self) -> int:
        """Commands that were dropped."""

    @property
    def life(self) -> LifeSign:
        """Whether its thread makes progress."""


class Captures(Protocol):
    """What is asked of a `Microphone`."""

    @property
    def starts(self) -> int:
        """Capture processes that were started."""

    @property
    def pid(self) -> int:
        """Process id of the one that runs; 0 for none."""


@dataclass(frozen=True, slots=True)
class InputFigures:
    """How one input fares now."""

    device_id: str
    """Its name in topics."""
    state: StateChanged
    """The last one told."""
    problems: Sequence[str]
    """Each `problem` that there has been."""
    ready: Sequence[Finding]
    """What it takes to be ready."""
    audio_age_s: float | None
    """Seconds since the last audio; None before the first."""
    counted: Counted
    """What happened since the start."""
    partial_lag_s: Distribution
    """From the last audio that a partial covers to its hand-over."""
    final_latency_s: Distribution
    """From the last voiced sample to the final's hand-over."""
    real_time_factor: Distribution
    """Seconds of recognition for a second of a segment."""
    signal: SignalFigures | None
    """What the signal is like; None until the model is loaded."""
    captures: int
    """Capture processes that were started; 0 where the input is no microphone."""
    capture_pid: int
    """Process id of the one that runs; 0 for none."""
    waiting: Mapping[str, int]
    """What waits in each queue."""
    dropped: Mapping[str, int]
    """What was dropped because too much waited."""
    outbox: Outbox
    """Finals on their way."""
    connected: bool
    """Whether the broker is there."""
    connections: int
    """How often the broker has accepted us."""


class InputVitals:
    """Follows one input.

    Args:
        device_id: Its name in topics.
        counters: Count what happens to it.
        broker: Its publisher.
        commands: What is asked of it.
    """

    def __init__(
        self, device_id: str, counters: Counters, broker: Broker, commands: Commands
    ) -> None:
        self.device_id = device_id
        self._counters = counters
        self._broker = broker
        self._commands = commands
        self._hearing: Hearing | None = None
        self._captures: Captures | None = None
        self._state = StateChanged(State.STARTING, datetime.now(UTC))
        self._problems: list[str] = []
        self.changed: Callable[[], None] = lambda: None
        """Called after each change of the state."""

    def attach(self, hearing: Hearing, captures: Captures | None) -> None:
        """The model is loaded, and this listens from now on; `captures` where to a microphone."""
        self._hearing, self._captures = hearing, captures

    def hear(self, event: Event) -> None:
        """Take an event; never waits."""
        if isinstance(event, StateChanged):
            self._state = event
            if event.problem and event.problem not in self._problems:
                self._problems = [*self._problems, event.problem]
            self.changed()

    @property
    def state(self) -> StateChanged:
        """The last one told."""
        return self._state

    def live(self) -> list[Finding]:
        """Tell of each thread whether it makes progress."""
        return [replace(sign.finding(), device_id=self.device_id) for sign in self.signs]

    @property
    def signs(self) -> list[LifeSign]:
        """The signs of life of its threads."""
        hearing = self._hearing.life if self._hearing else ()
        return [*hearing, self._commands.life, *self._broker.life]

    def ready(self) -> list[Finding]:
        """Tell of each thing that it takes to be ready whether it is so."""
        reasons = {"microphone": self._deaf(), "real_time": self._late()}
        return [
            Finding(name, not reason, reason, self.device_id) for name, reason in reasons.items()
        ]

    def figures(self) -> InputFigures:
        """Return how it fares now."""
        counters, hearing, captures = self._counters, self._hearing, self._captures
        counted, outbox = counters.snapshot(), self._broker.outbox_facts()
        commands = self._commands
        return InputFigures(
            device_id=self.device_id,
            state=self._state,
            problems=self._problems,
            ready=self.ready(),
            audio_age_s=hearing.audio_age_s if hearing else None,
            counted=counted,
            partial_lag_s=counters.partial_lag_s.distribution(),
            final_latency_s=counters.final_latency_s.distribution(),
            real_time_factor=counters.real_time_factor.distribution(),
            signal=hearing.signal() if hearing else None,
            captures=captures.starts if captures else 0,
            capture_pid=captures.pid if captures else 0,
            waiting={
                "recognition": hearing.waiting if hearing else 0,
                "commands": commands.waiting,
            },
            dropped={
                "segments": counted.rejected.get(RejectReason.OVERLOADED, 0),
                "commands": commands.dropped,
                "finals": outbox.dropped,
            },
            outbox=outbox,
            connected=self._broker.connected.is_set(),
            connections=self._broker.connections,
        )

    def _deaf(self) -> str:
        """Return why nothing is heard; empty where something is, or where that is wanted."""
        state = self._state
        if state.state is State.MUTED:
            return ""
        if state.state not in (State.LISTENING, State.SPEECH):
            return state.reason or state.state.value
        if state.problem == ALL_ZERO:
            return state.reason or "each sample is zero: the microphone is muted, or dead"
        return ""

    def _late(self) -> str:
        """Return why audio does not come in real time; empty where it does, or none should."""
        state, hearing = self._state, self._hearing
        if state.state not in (State.LISTENING, State.SPEECH) or hearing is None:
            return ""  # told as the microphone's
        if state.problem == OVERRUNS:
            return state.reason or "audio is being lost: this machine is too busy"
        age_s, lag_s = hearing.audio_age_s, hearing.signal().lag_s
        if age_s is None or age_s > FRESH_S:
            return f"no audio has come for {age_s:.0f} s" if age_s else "no audio has come"
        if lag_s > LAG_MOST_S:
            return f"audio is taken {lag_s:.1f} s late: this machine is too busy"
        return ""
