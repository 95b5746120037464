"""Publishes events to the broker, and keeps the connection to it.

In: events and messages from any thread (nothing waits for the network), and what is sent to the
topics that are listened to. Out: MQTT messages, and what was received, on the `mqtt` thread. Each
connection has a paho client of its own, so that nothing old hides in paho's queue and goes out
late. Finals go their own way (`FinalSender`) until the broker acknowledges them; states are sent
again at every connect, since a broker without persistence forgets them; partials and rejections
that meet no broker are dropped. Threads: `mqtt` connects, reconnects and handles answers; paho
moves the bytes.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from harkd import messages
from harkd.errors import BrokerError, BrokerRefusedError
from harkd.events import AwakeChanged, Event, Final, Partial, Rejected, StateChanged, Woken
from harkd.final_sender import FinalSender, OutboxFacts
from harkd.life import FOREIGN_S, LifeSign
from harkd.messages import About, Message
from harkd.mqtt_connection import (
    ANSWER_S,
    GOODBYE_S,
    Acknowledged,
    Address,
    Connection,
    Down,
    Inbox,
    NoAnswerError,
    NotSubscribed,
    ProtocolRefusedError,
    Received,
    versions_of,
)
from harkd.mqtt_reports import BACKOFF_REFUSED_S, STEADY_S, Reports
from harkd.outbox import Outbox
from harkd.threads import Thread

log = logging.getLogger(__name__)

BACKOFF_FIRST_S, BACKOFF_MOST_S = 1.0, 10.0
"""An absent broker is looked for often enough that a final spoken meanwhile is not yet late."""
HASTY_S = 3.0
"""How long a broker may take to answer a version where another is left to try."""
FLUSH_S = 2.0
"""How long a clean exit waits for the broker's answers, and again for the one to `offline`."""
LOOK_S, MOST_UNTOLD = 0.02, 10
STOP = Down("stopping")


class Publisher:
    """The MQTT side of the daemon.

    Args:
        address: The broker.
        protocol: ``auto`` (5, and 3.1.1 where the broker refuses it), ``5`` or ``3.1.1``.
        about: What messages say of this daemon.
        outbox: Keeps finals; in memory unless given.
        report: Is told of faults of the disk, each with its mend; they go to `error`, too.
        jitter: A factor for each wait, so that many daemons do not come back at once.
    """

    def __init__(
        self,
        address: Address,
        protocol: str,
        about: About,
        outbox: Outbox | None = None,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0),  # noqa: S311 - no secret
        report: Callable[[str], None] = lambda _problem: None,
    ) -> None:
        self._address = address
        self._versions = versions_of(protocol)
        self._good = ""
        self.about = about
        """What messages say of this daemon; may be replaced as more becomes known."""
        self._outbox = outbox or Outbox()
        self._finals = FinalSender(self._outbox, lambda: self.about, self._report_problem)
        self._report = report
        self._untold: deque[Message] = deque(maxlen=MOST_UNTOLD)
        self._jitter = jitter
        self._lock = threading.Lock()
        self._kept: dict[str, Message] = {}
        self._topics: Sequence[str] = ()
        self._take: Callable[[Received], None] = ignore
        self._connection: Connection | None = None
        self._offline_mid: int | None = None
        self._inbox: Inbox = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._reports = Reports(address, about.topic("#"))
        self.connections = 0
        """How often the broker has accepted us."""
        self.connected = threading.Event()
        """Set while the broker has accepted us."""
        self._mqtt_life = LifeSign("mqtt", FOREIGN_S)
        self._thread = Thread(target=self._run, name="mqtt")

    def listen(self, topics: Sequence[str], take: Callable[[Received], None]) -> None:
        """Subscribe to topics at each connect; to be called before `start`.

        Args:
            topics: Whole topics, without wildcards.
            take: Takes each message, on the `mqtt` thread.
        """
        self._topics, self._take = topics, take

    def start(self) -> None:
        """Begin to connect; an absent broker is no error."""
        self._finals.start()
        self._thread.start()

    def publish(self, event: Event) -> None:
        """Publish one event, now or when the broker is back. Never waits, never raises."""
        match event:
            case StateChanged():
                self.keep(messages.state(self.about, event))
            case Woken():
                self.send(messages.wake(self.about, event))
            case AwakeChanged():
                self.keep(messages.awake(self.about, event))
            case Partial():
                self.send(messages.partial(self.about, event))
            case Rejected():
                self.send(messages.rejected(self.about, event))
            case Final():
                self._finals.take(event)

    @property
    def life(self) -> tuple[LifeSign, ...]:
        """Whether the threads make progress."""
        return (self._mqtt_life, *self._finals.life)

    def outbox_facts(self) -> OutboxFacts:
        """Return how the outbox is; never waits for the disk."""
        return self._finals.facts()

    def send(self, message: Message) -> None:
        """Send a message now; it is dropped where there is no connection. Never waits."""
        with self._lock:
            self._send(message)

    def keep(self, message: Message) -> None:
        """Send a retained message now and at each connect, until another one on its topic."""
        with self._lock:
            self._kept[message.topic] = message
            self._send(message)

    def forget(self, topic: str) -> None:
        """Send what is kept on a topic no more; the broker still has it."""
        with self._lock:
            self._kept.pop(topic, None)

    def repeat(self) -> None:
        """Send `online` and all that is kept again, for a subscriber that has begun anew."""
        with self._lock:
            if self._stopping.is_set():
                return  # nothing may be behind `offline`
            for message in (messages.availability(self.about, online=True), *self._kept.values()):
                self._send(message)

    def stop(self) -> None:
        """Wait a little for the broker's answers, say `offline`, disconnect, close the outbox."""
        self._stopping.set()
        self._inbox.put(STOP)
        self._thread.join(2 * FLUSH_S + GOODBYE_S)
        written = self._finals.stop()
        if not (waiting := self._finals.facts().waiting):
            return
        if written and self._outbox.on_disk:
            log.info("%d final(s) wait in %s for the next start", waiting, self._outbox.path)
        else:
            log.warning("%d final(s) never reached the broker and are lost", waiting)

    # ------------------------------------------------------------ under the lock

    def _send(self, message: Message) -> int | None:
        return self._connection.send(message) if self._connection else None

    # ----------------------------------------------------------------- mqtt thread

    def _run(self) -> None:
        reports = self._reports
        backoff_s = BACKOFF_FIRST_S
        self._mqtt_life.begin()
        while not self._stopping.is_set():
            self._mqtt_life.beat()
            least_s = 0.0
            try:
                connection = self._connect()
                begin = time.monotonic()
                reason = self._serve(connection)
                lasted_s = time.monotonic() - begin
                if not self._stopping.is_set():
                    least_s = reports.lost(reason, lasted_s)
                if lasted_s > STEADY_S:
                    backoff_s = BACKOFF_FIRST_S
            except BrokerError as error:
                reports.failed(error)
                least_s = BACKOFF_REFUSED_S if isinstance(error, BrokerRefusedError) else 0.0
            except Exception:
                log.exception("the connection to %s failed in an unexpected way", self._address)
            self._stopping.wait(max(least_s, backoff_s) * self._jitter())
            backoff_s = min(backoff_s * 2, BACKOFF_MOST_S)
        self._mqtt_life.end()

    def _connect(self) -> Connection:
        """Connect with the best version that the broker takes.

        Silence proves nothing: it is also what a broker that is only just starting gives. So a
        version that has worked is not given up for it, and one that was silent is tried again.
        """
        will = messages.availability(self.about, online=False)
        silent = False
        failure = BrokerError("there is no MQTT version to try", "set mqtt.protocol to auto")
        *_, last = versions = sorted(self._versions, key=lambda each: each != self._good)
        for version in versions:
            self._inbox = queue.SimpleQueue()
            connection = Connection(self._address, version, will, self._inbox)
            try:
                connection.open(ANSWER_S if version in (last, self._good) else HASTY_S)
            except (ProtocolRefusedError, NoAnswerError) as error:
                failure = error
                refused = isinstance(error, ProtocolRefusedError)
                if self._stopping.is_set() or (version == self._good and not refused):
                    break
                silent = silent or not refused
                if version != last:
                    level = logging.INFO if refused else logging.DEBUG
                    log.log(level, "%s; trying another MQTT", error.message)
                continue
            log.info("connected to the broker at %s with %s", self._address, str(connection))
            if not silent:
                self._good = version
            return connection
        raise failure

    def _serve(self, connection: Connection) -> str:
        """Publish what waits, then handle answers until the connection is over."""
        connection.subscribe(self._topics)  # first: who sees `online` may send at once
        with self._lock:
            self._connection = connection
            if self._stopping.is_set():
                self._inbox.put(STOP)
            else:
                self._send(messages.availability(self.about, online=True))
            for message in (*self._kept.values(), *self._untold):
                self._send(message)
            self._untold.clear()
        self._finals.connected(connection)
        self.connections += 1
        self.connected.set()
        try:
            return self._handle_answers()
        finally:
            self.connected.clear()
            with self._lock:
                self._connection = None
            self._finals.disconnected()
            connection.close()

    def _handle_answers(self) -> str:
        """Handle what the broker says until the connection is over; return why it is."""
        while True:
            self._mqtt_life.rest()
            event = self._inbox.get()
            self._mqtt_life.beat()
            match event:
                case Acknowledged() as answer:
                    self._settle(answer)
                case Received() as received:
                    self._hear(received)
                case NotSubscribed() as answer:
                    self._reports.unheard(answer)
                case Down() as end:
                    return self._say_goodbye() if end is STOP else end.reason

    def _say_goodbye(self) -> str:
        """Wait for what is unanswered, then send `offline` and wait for its answer."""
        self._wait_until(lambda: self._finals.idle)
        self._finals.hold()
        with self._lock:
            self._offline_mid = self._send(messages.availability(self.about, online=False))
        self._wait_until(lambda: self._offline_mid is None)
        return STOP.reason

    def _wait_until(self, done: Callable[[], bool]) -> None:
        """Handle answers until it is so, for `FLUSH_S` at most."""
        deadline = time.monotonic() + FLUSH_S
        while not done() and time.monotonic() < deadline:
            try:
                event = self._inbox.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            if isinstance(event, Acknowledged):
                self._settle(event)
            elif isinstance(event, Down) and event is not STOP:
                return

    def _hear(self, received: Received) -> None:
        try:
            self._take(received)
        except Exception:
            log.exception("a message on %s could not be handled", received.topic)

    def _settle(self, answer: Acknowledged) -> None:
        self._reports.refused(answer)
        self._finals.answered(answer.mid, answer.code)
        if answer.mid == self._offline_mid:
            self._offline_mid = None

    def _report_problem(self, problem: str) -> None:
        """Say on `error` what is wrong with the disk, now or at the next connect."""
        message = messages.error(self.about, problem)
        with self._lock:
            if self._send(message) is None:
                self._untold.append(message)
        self._report(problem)


def ignore(_received: Received) -> None:
    """Take a message that nobody waits for."""
