"""When Home Assistant is told of this device: at start, when it starts itself, and never twice.

In: messages on Home Assistant's birth topic, on the `mqtt` thread; timers, on threads of their own.
Out: the messages of `harkd.discovery`, by way of the publisher. What was announced is remembered
in the state folder, since what a broker keeps can only be taken back by its topic's name.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from harkd import discovery
from harkd.bench_machine import processor
from harkd.discovery import Device, Variant
from harkd.messages import Message
from harkd.mqtt_connection import Received
from harkd.whole_file import write_whole

log = logging.getLogger(__name__)

FILE = "discovery.json"
BIRTH_MOST_S = 5.0
"""So that not all devices of a house answer at once when Home Assistant has started."""
LOOK_LEAST_S, LOOK_MOST_S = 0.1, 8.0
"""How often a broker is looked for that has something to forget: less and less."""
SETTLE_S = 1.0
"""What Home Assistant gets to be done with one announcement before its successor arrives."""

Later = Callable[[float, Callable[[], None]], Callable[[], None]]
"""Seconds and what to do then → what cancels it."""


class Sender(Protocol):
    """What is needed of the publisher."""

    connected: threading.Event

    def send(self, message: Message) -> None:
        """Send it now, or never."""

    def keep(self, message: Message) -> None:
        """Send it now and at each connect."""

    def forget(self, topic: str) -> None:
        """Send what is kept on a topic no more."""

    def repeat(self) -> None:
        """Send everything that is kept again."""


class _Kept(msgspec.Struct):
    """The file's content."""

    topics: list[str]


class Announced:
    """The topics that were announced and not taken back, over restarts.

    Args:
        folder: The state folder; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._told = False

    def read(self) -> set[str] | None:
        """Return the topics; None where nothing is known."""
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.warning("%s cannot be read (%s); going on without it", self._path, error)
            return None
        return {topic for topic in kept.topics if discovery.is_ours(topic)}

    def write(self, topics: Iterable[str]) -> None:
        """Remember these and no others, whole or not at all."""
        content = msgspec.json.encode(_Kept(sorted(topics)))
        try:
            write_whole(self._path, content)
        except OSError as error:
            log.log(
                logging.DEBUG if self._told else logging.WARNING,
                "what Home Assistant was told cannot be remembered (%s); make %s writable, or set "
                "state.dir",
                error,
                self._path.parent,
            )
            self._told = True

    def adopt(self, other: Announced) -> None:
        """Remember what another remembers, too, which then forgets it."""
        if known := other.read():
            self.write(known | (self.read() or set()))
            other.forget()

    def forget(self) -> None:
        """Remember nothing more."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def this_machine(board: Path = Path("/proc/device-tree/model")) -> str:
    """Return what harkd runs on, for a person: the board's name, else the processor's."""
    try:
        name = board.read_text(encoding="utf-8", errors="replace")
    except OSError:
        name = ""
    return name.strip("\0 \n") or processor()


def timer(delay_s: float, action: Callable[[], None]) -> Callable[[], None]:
    """Do something later, on a thread of its own; return what cancels it."""
    thread = threading.Timer(delay_s, contextvars.copy_context().run, [action])
    thread.name, thread.daemon = "announcing", True
    thread.start()
    return thread.cancel


class Announcer:
    """Announces the device, takes back what it no longer is, and answers Home Assistant's birth.

    Args:
        variant: How; ``off`` only takes back.
        prefix: Home Assistant's discovery prefix.
        sender: The publisher.
        announced: What was announced before.
        later: Timers.
        jitter: 0…1, for the wait after a birth.
    """

    def __init__(
        self,
        variant: Variant,
        prefix: str,
        sender: Sender,
        announced: Announced,
        later: Later = timer,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._variant = variant
        self._prefix = prefix
        self._sender = sender
        self._announced = announced
        self._later = later
        self._jitter = jitter
        self._announcing = threading.Lock()
        self._lock = threading.Lock()
        self._cancel: dict[str, Callable[[], None]] = {}
        self._stopped = False

    @property
    def topics(self) -> Sequence[str]:
        """What to subscribe to, and to hand to `take`."""
        return [] if self._variant == "off" else [discovery.birth_topic(self._prefix)]

    def announce(self, device: Device) -> None:
        """Announce it, now or when the broker is there. Never waits."""
        with self._announcing:
            self._announce(device)

    def _announce(self, device: Device) -> None:
        self._drop("removal")  # of an announcement before: what it takes back may be there again
        wanted = discovery.announcements(self._variant, self._prefix, device)
        topics = {message.topic for message in wanted}
        known = self._announced.read()
        old = discovery.possible_topics(self._prefix, device) if known is None else known
        gone = old - topics
        if known and gone:
            log.info("taking back what Home Assistant was told on %d other topic(s)", len(gone))
        # First what may be there: after a crash at any point, nothing is forgotten.
        if known is None or not topics <= known:
            self._announced.write(old | topics)
        for topic in gone:
            self._sender.forget(topic)
        if gone:
            staying = set() if known is None else discovery.moved(gone, topics)
            self._look(gone, staying, wanted)
        else:
            self._keep(wanted)

    def take(self, received: Received) -> None:
        """Take a message on `topics`."""
        # What lay there when we connected is as old as may be, and connecting has sent everything.
        if received.payload.strip() == b"online" and not received.retained:
            self._in(BIRTH_MOST_S * self._jitter(), "birth", self._sender.repeat)

    def stop(self) -> None:
        """Do nothing more."""
        with self._lock:
            self._stopped = True
            for cancel in self._cancel.values():
                cancel()
            self._cancel.clear()

    def _keep(self, wanted: Sequence[Message]) -> None:
        for message in wanted:
            self._sender.keep(message)

    def _look(
        self,
        gone: set[str],
        staying: set[str],
        wanted: Sequence[Message],
        again_s: float = LOOK_LEAST_S,
    ) -> None:
        """Take back what is gone as soon as there is a broker, then announce what is wanted."""
        if not self._sender.connected.is_set():
            later_s = min(2 * again_s, LOOK_MOST_S)
            self._in(again_s, "removal", lambda: self._look(gone, staying, wanted, later_s))
            return
        for topic in sorted(staying):
            self._sender.send(discovery.farewell(topic))
        delay_s = SETTLE_S if staying else 0.0
        self._in(delay_s, "removal", lambda: self._remove(gone, wanted))

    def _remove(self, gone: set[str], wanted: Sequence[Message]) -> None:
        for topic in sorted(gone):
            self._sender.send(discovery.removal(topic))
        self._in(SETTLE_S, "removal", lambda: self._settle(gone, wanted))

    def _settle(self, gone: set[str], wanted: Sequence[Message]) -> None:
        if not self._sender.connected.is_set():
            # It may not have arrived.
            self._look(gone, set(), wanted)
            return
        self._keep(wanted)
        self._announced.write(message.topic for message in wanted)

    def _drop(self, what: str) -> None:
        """Do not what is still to be done under this name."""
        with self._lock:
            if cancel := self._cancel.pop(what, None):
                cancel()

    def _in(self, delay_s: float, what: str, action: Callable[[], None]) -> None:
        """Do it later, in place of what is still to be done under the same name."""
        with self._lock:
            if self._stopped:
                return
            if cancel := self._cancel.pop(what, None):
                cancel()
            self._cancel[what] = self._later(delay_s, action)
