"""Publishes events to the broker, and keeps the connection to it.

In: events from any thread (`publish` never waits for the network). Out: MQTT messages. Each
connection has a paho client of its own, so that nothing old hides in paho's queue and goes out
late. Finals wait in the outbox until the broker acknowledges them; states are sent again at every
connect, since a broker without persistence forgets them; partials and rejections that meet no
broker are dropped. Threads: `mqtt` connects, reconnects and handles answers; paho moves the bytes.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable

from harkd import messages
from harkd.errors import BrokerError, BrokerRefusedError
from harkd.events import Event, Final, Partial, Rejected, StateChanged
from harkd.messages import About, Message
from harkd.mqtt_connection import (
    Acknowledged,
    Address,
    Connection,
    Down,
    Inbox,
    NoAnswerError,
    ProtocolRefusedError,
)
from harkd.outbox import MemoryOutbox, Outbox

log = logging.getLogger(__name__)

BACKOFF_FIRST_S, BACKOFF_MOST_S = 1.0, 60.0
FLUSH_S = 2.0
"""How long a clean exit waits for the broker's last answers."""
STEADY_S = 10.0
"""A connection that held so long resets the backoff."""


class Publisher:
    """The MQTT side of the daemon.

    Args:
        address: The broker.
        protocol: ``auto`` (5, and 3.1.1 where the broker refuses it), ``5`` or ``3.1.1``.
        about: What messages say of this daemon.
        outbox: Keeps finals; in memory unless given.
        jitter: A factor for each wait, so that many daemons do not come back at once.
    """

    def __init__(
        self,
        address: Address,
        protocol: str,
        about: About,
        outbox: Outbox | None = None,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0),  # noqa: S311 - no secret
    ) -> None:
        self._address = address
        self._versions = ["5", "3.1.1"] if protocol == "auto" else [protocol]
        self.about = about
        """What messages say of this daemon; may be replaced as more becomes known."""
        self._outbox = outbox or MemoryOutbox()
        self._jitter = jitter
        self._lock = threading.Lock()
        self._state: Message | None = None
        self._connection: Connection | None = None
        self._unanswered: dict[int, str] = {}
        self._inbox: Inbox = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._settled = threading.Condition(self._lock)
        self._refused_topics: set[str] = set()
        self.connected = threading.Event()
        """Set while the broker has accepted us."""
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def start(self) -> None:
        """Begin to connect; an absent broker is no error."""
        self._thread.start()

    def publish(self, event: Event) -> None:
        """Publish one event, now or when the broker is back. Never waits, never raises."""
        with self._lock:
            match event:
                case StateChanged():
                    self._state = messages.state(self.about, event)
                    self._send(self._state)
                case Partial():
                    self._send(messages.partial(self.about, event))
                case Rejected():
                    self._send(messages.rejected(self.about, event))
                case Final():
                    self._outbox.add(event)
                    self._send_final(event)

    def stop(self) -> None:
        """Wait a little for the broker's answers, say `offline`, and disconnect."""
        with self._settled:
            if self._connection:
                self._settled.wait_for(lambda: not self._unanswered, FLUSH_S)
            if self._connection:
                mid = self._send(messages.availability(self.about, online=False))
                if mid is not None:
                    self._unanswered[mid] = ""
                    self._settled.wait_for(lambda: mid not in self._unanswered, FLUSH_S)
            waiting = len(self._outbox.waiting())
        if waiting:
            log.warning("%d final(s) never reached the broker and are lost", waiting)
        self._stopping.set()
        self._inbox.put(Down("stopping"))
        self._thread.join(2 * FLUSH_S)

    # ------------------------------------------------------------ under the lock

    def _send(self, message: Message) -> int | None:
        return self._connection.send(message) if self._connection else None

    def _send_final(self, final: Final) -> None:
        first, *more = messages.final(self.about, final, time.monotonic_ns())
        if (mid := self._send(first)) is not None:
            self._unanswered[mid] = final.id
            for message in more:
                self._send(message)

    def _settle(self, answer: Acknowledged) -> None:
        ident = self._unanswered.pop(answer.mid, None)
        if ident:
            # A refused final would be refused for ever; the log has told.
            self._outbox.remove(ident)
        self._settled.notify_all()

    # ----------------------------------------------------------------- mqtt thread

    def _run(self) -> None:
        backoff_s, told = BACKOFF_FIRST_S, ""
        while not self._stopping.is_set():
            try:
                connection = self._connect()
            except BrokerError as error:
                # The first time it is news; then only the attempts go on, at debug level.
                hard = isinstance(error, BrokerRefusedError)
                level = logging.DEBUG if str(error) == told else logging.WARNING
                log.log(logging.ERROR if hard and level > logging.DEBUG else level, "%s", error)
                told = str(error)
                wait_s = (BACKOFF_MOST_S if hard else backoff_s) * self._jitter()
                backoff_s = min(backoff_s * 2, BACKOFF_MOST_S)
                self._stopping.wait(wait_s)
                continue
            told = ""
            since = time.monotonic()
            reason = self._serve(connection)
            if not self._stopping.is_set():
                log.warning("lost the broker at %s (%s); reconnecting", self._address, reason)
                if time.monotonic() - since > STEADY_S:
                    backoff_s = BACKOFF_FIRST_S
                self._stopping.wait(backoff_s * self._jitter())
                backoff_s = min(backoff_s * 2, BACKOFF_MOST_S)

    def _connect(self) -> Connection:
        """Connect with the first version that the broker takes.

        A version that it refused is not tried again, and none but the best once that has worked.
        Silence proves nothing: it is also what a broker that is only just starting gives.
        """
        will = messages.availability(self.about, online=False)
        for version in list(self._versions):
            self._inbox = queue.SimpleQueue()
            connection = Connection(self._address, version, will, self._inbox)
            try:
                connection.open()
            except (ProtocolRefusedError, NoAnswerError) as error:
                if version == self._versions[-1] or self._stopping.is_set():
                    raise
                refused = isinstance(error, ProtocolRefusedError)
                level = logging.INFO if refused else logging.DEBUG
                log.log(level, "%s; trying an older MQTT", error.message)
                if refused:
                    self._versions.remove(version)
                continue
            log.info("connected to the broker at %s with MQTT %s", self._address, version)
            if version == self._versions[0]:
                self._versions = [version]
            return connection
        raise BrokerError("no MQTT version to try", "set mqtt.protocol to auto")

    def _serve(self, connection: Connection) -> str:
        """Publish what waits, then handle answers until the connection is over."""
        with self._lock:
            self._connection = connection
            self._send(messages.availability(self.about, online=True))
            if self._state:
                self._send(self._state)
            for final in self._outbox.waiting():
                self._send_final(final)
        self.connected.set()
        if self._stopping.is_set():
            self._inbox.put(Down("stopping"))
        while isinstance(event := self._inbox.get(), Acknowledged):
            if event.refusal:
                self._report_refusal(event)
            with self._lock:
                self._settle(event)
        self.connected.clear()
        with self._lock:
            self._connection = None
            self._unanswered.clear()
            self._settled.notify_all()
        connection.close()
        return event.reason

    def _report_refusal(self, answer: Acknowledged) -> None:
        if answer.refusal not in self._refused_topics:
            self._refused_topics.add(answer.refusal)
            log.error(
                "the broker refused a message (%s); allow the user %r to write %s",
                answer.refusal,
                self._address.username,
                self.about.topic("#"),
            )
