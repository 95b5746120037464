"""What can happen to a daemon that listens: the faults of the chaos test, as values.

A fault begins and ends by functions of a `Scene`; what it does to the sound, and what may be told
of it, say what the daemon owes. `chaos_rigs` has those of each kind of microphone; here are the
ones that all share. `chaos_run` makes them happen and judges.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Self

from daemon_process import Daemon, children
from servers import Mosquitto, Subscriber

ROOT = "harkd/chaos"
RECOVER_S = 5.0
"""The bound of issue 6: listening again so soon after the cause is gone."""
BROKER_RECOVER_S = 12.0
"""An absent broker is tried every 10 s at least; see docs/mqtt.md."""
STALL_S = 2.0
ZEROS_S = 3.0
OTHER_LATEST_S = 1.5
"""A second fault begins at most so long after the first."""
SLACK_S = 1.0
"""Detection may take so much longer than `audio.stall_s` or `audio.zeros_s`."""


ZEROS_DETECT_S = ZEROS_S + SLACK_S
ZERO_LEAST_S, ZERO_MOST_S = ZEROS_DETECT_S + 1.5, ZEROS_DETECT_S + 5.0


class Sound(Enum):
    """What a fault leaves of the sound."""

    NONE = auto()
    """Nothing true comes: the state must not say otherwise."""
    GOOD = auto()
    """It goes on: the state must not say that there is no microphone for longer than 5 s."""
    UNKNOWN = auto()
    """It depends on the sound server's version; only the recovery is judged."""


@dataclass
class Scene:
    """Where a fault happens."""

    daemon: Daemon
    broker: Mosquitto
    subscriber: Subscriber
    random: random.Random
    notes: dict[str, object] = field(default_factory=dict)
    """What a fault's beginning leaves for its end."""


Act = Callable[[Scene], None]


def nothing(_scene: Scene) -> None:
    """The fault ends by itself."""


@dataclass(frozen=True)
class Fault:
    """One thing that happens."""

    name: str
    begin: Act
    end: Act = nothing
    sound: Sound = Sound.NONE
    least_s: float = 0.3
    """How long it lasts, at least."""
    most_s: float = 8.0
    """… and at most."""
    problems: frozenset[str] = frozenset()
    """Words of `problem` that are true of it; `moved` and the like."""
    detect_s: float = STALL_S + SLACK_S
    """How long the state may go on to say that it listens."""
    recover_s: float = RECOVER_S
    hides_state: bool = False
    """Whether the state topic cannot be seen meanwhile."""
    pairs: bool = True
    """Whether another fault may happen at the same time."""


def problems(*words: str) -> frozenset[str]:
    """The words of `problem` that are true of a fault, and that of a server that is away."""
    return frozenset(words)


def together(one: Fault, other: Fault) -> Fault:
    """`other` within `one`: it begins after it and ends before it, or after it, by chance."""

    def begin(scene: Scene) -> None:
        one.begin(scene)
        time.sleep(scene.random.uniform(0.2, OTHER_LATEST_S))
        other.begin(scene)

    def end(scene: Scene) -> None:
        first, second = (one, other) if scene.random.random() < 0.5 else (other, one)
        first.end(scene)
        time.sleep(scene.random.uniform(0.0, 1.0))
        second.end(scene)

    sounds = {one.sound, other.sound}
    same = sounds == {Sound.GOOD}
    return Fault(
        f"{one.name} + {other.name}",
        begin,
        end,
        Sound.GOOD if same else Sound.NONE if one.sound is Sound.NONE else Sound.UNKNOWN,
        max(one.least_s, other.least_s),
        max(one.most_s, other.most_s),
        one.problems | other.problems if one.problems else frozenset(),
        # What interrupts the listening lets its detection begin anew, once it is back.
        one.detect_s + other.detect_s + OTHER_LATEST_S,
        max(one.recover_s, other.recover_s),
        one.hides_state or other.hides_state,
        pairs=False,
    )


# ------------------------------------------------------------------ on every machine


def capture_of(scene: Scene) -> int | None:
    """The capture process's id, if one runs."""
    found = children(scene.daemon.process.pid)
    return found[0] if found else None


def signal_capture(number: signal.Signals) -> Act:
    """What sends a signal to the capture process."""

    def act(scene: Scene) -> None:
        if pid := capture_of(scene):
            os.kill(pid, number)

    return act


def mute(scene: Scene) -> None:
    """Somebody mutes it over MQTT."""
    scene.subscriber.publish(f"{ROOT}/listen/set", "OFF")


def unmute(scene: Scene) -> None:
    """… and lets it listen again."""
    scene.subscriber.publish(f"{ROOT}/listen/set", "ON")


def start_broker(scene: Scene) -> None:
    """Returns when the broker is back and the subscriber with it."""
    scene.broker.start()
    scene.subscriber.wait_subscribed()


def kill_broker(scene: Scene) -> None:
    scene.broker.kill()
    scene.subscriber.wait_lost()


def signal_daemon(number: signal.Signals) -> Act:
    """What sends a signal to the daemon."""
    return lambda scene: scene.daemon.process.send_signal(number)


RELOAD = Fault(
    "settings reloaded",
    signal_daemon(signal.SIGHUP),
    sound=Sound.GOOD,
    most_s=1.0,
    detect_s=0.0,
)
MUTED = Fault("muted and unmuted", mute, unmute, detect_s=SLACK_S)
CAPTURE_KILLED = Fault(
    "capture process killed",
    signal_capture(signal.SIGKILL),
    sound=Sound.GOOD,
    least_s=0.0,
    most_s=0.0,
    problems=problems("ended"),
    # It takes a moment until the next one hears.
    detect_s=SLACK_S,
)
BROKER_KILLED = Fault(
    "broker killed",
    kill_broker,
    start_broker,
    Sound.GOOD,
    recover_s=BROKER_RECOVER_S,
    hides_state=True,
    pairs=False,
)
COMMON = [
    RELOAD,
    MUTED,
    CAPTURE_KILLED,
    BROKER_KILLED,
    Fault(
        "capture process stopped",
        signal_capture(signal.SIGSTOP),
        sound=Sound.GOOD,
        least_s=0.0,
        most_s=0.0,
        problems=problems("stalled"),
        # Nobody continues it: it is found, killed and replaced.
        recover_s=STALL_S + RECOVER_S,
    ),
    Fault(
        "broker stopped",
        lambda scene: scene.broker.stop_signal(),
        lambda scene: scene.broker.continue_signal(),
        Sound.GOOD,
        recover_s=BROKER_RECOVER_S,
        hides_state=True,
        pairs=False,
    ),
    Fault(
        "daemon stopped",
        signal_daemon(signal.SIGSTOP),
        signal_daemon(signal.SIGCONT),
        Sound.GOOD,
        least_s=3.0,
        most_s=3.0,
        pairs=False,
    ),
]
COMPANIONS = [RELOAD, MUTED, CAPTURE_KILLED, BROKER_KILLED]
"""What may happen at the same time as another fault."""


def schedule(
    faults: list[Fault], count: int, chance: random.Random, pair_every: int = 8
) -> list[Fault]:
    """Returns `count` faults in random order, each about equally often, some two at once."""
    deck: list[Fault] = []
    planned = []
    for number in range(1, count + 1):
        if not deck:
            deck = chance.sample(faults, len(faults))
        fault = deck.pop()
        if number % pair_every == 0 and fault.pairs:
            others = [each for each in COMPANIONS if each is not fault]
            if fault is MUTED:  # who unmutes needs the broker
                others.remove(BROKER_KILLED)
            fault = together(fault, chance.choice(others))
        planned.append(fault)
    return planned


class Entered:
    """Ends what it began."""

    def __init__(self) -> None:
        self._ending = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ending.close()
