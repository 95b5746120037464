"""Publishes events to the broker, and keeps the connection to it.

In: events and messages from any thread (nothing waits for the network), and what is sent to the
topics that are listened to. Out: MQTT messages, and what was received, on the `mqtt` thread. Each
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
from collections.abc import Callable, Sequence
from dataclasses import replace

from harkd import messages
from harkd.errors import BrokerError, BrokerRefusedError
from harkd.events import Event, Final, Partial, Rejected, StateChanged
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
)
from harkd.outbox import MemoryOutbox, Outbox

log = logging.getLogger(__name__)

BACKOFF_FIRST_S, BACKOFF_MOST_S, BACKOFF_REFUSED_S = 1.0, 10.0, 60.0
"""An absent broker is looked for often enough that a final spoken meanwhile is not yet late."""
HASTY_S = 3.0
"""How long a broker may take to answer a version where another is left to try."""
FLUSH_S = 2.0
"""How long a clean exit waits for the broker's answers, and again for the one to `offline`."""
STEADY_S = 10.0
"""A connection that held so long resets the backoff."""
BRIEF_MOST = 3
"""So many connections in a row that held less mean that somebody else has our client id."""
STOP = Down("stopping")


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
        self._good = ""
        self.about = about
        """What messages say of this daemon; may be replaced as more becomes known."""
        self._outbox = outbox or MemoryOutbox()
        self._jitter = jitter
        self._lock = threading.Lock()
        self._kept: dict[str, Message] = {}
        self._topics: Sequence[str] = ()
        self._take: Callable[[Received], None] = ignore
        self._connection: Connection | None = None
        self._unanswered: dict[int, str] = {}
        self._inbox: Inbox = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._refusals: set[str] = set()
        self.connections = 0
        """How often the broker has accepted us."""
        self.connected = threading.Event()
        """Set while the broker has accepted us."""
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def listen(self, topics: Sequence[str], take: Callable[[Received], None]) -> None:
        """Subscribe to topics at each connect; to be called before `start`.

        Args:
            topics: Whole topics, without wildcards.
            take: Takes each message, on the `mqtt` thread.
        """
        self._topics, self._take = topics, take

    def start(self) -> None:
        """Begin to connect; an absent broker is no error."""
        self._thread.start()

    def publish(self, event: Event) -> None:
        """Publish one event, now or when the broker is back. Never waits, never raises."""
        with self._lock:
            match event:
                case StateChanged():
                    self._keep(messages.state(self.about, event))
                case Partial():
                    self._send(messages.partial(self.about, event))
                case Rejected():
                    self._send(messages.rejected(self.about, event))
                case Final():
                    # The monotonic clock stands still while the machine sleeps; its age must not.
                    awake = replace(event, speech_end_ns=event.speech_end_ns + asleep_ns())
                    self._outbox.add(awake)
                    self._send_final(awake)

    def send(self, message: Message) -> None:
        """Send a message now; it is dropped where there is no connection. Never waits."""
        with self._lock:
            self._send(message)

    def keep(self, message: Message) -> None:
        """Send a retained message now and at each connect, until another one on its topic."""
        with self._lock:
            self._keep(message)

    def forget(self, topic: str) -> None:
        """Send what is kept on a topic no more; the broker still has it."""
        with self._lock:
            self._kept.pop(topic, None)

    def repeat(self) -> None:
        """Send everything that is kept again, for a subscriber that has begun anew."""
        with self._lock:
            for message in self._kept.values():
                self._send(message)

    def stop(self) -> None:
        """Wait a little for the broker's answers, say `offline`, and disconnect."""
        self._stopping.set()
        self._inbox.put(STOP)
        self._thread.join(2 * FLUSH_S + GOODBYE_S)
        with self._lock:
            waiting = len(self._outbox.waiting())
        if waiting:
            log.warning("%d final(s) never reached the broker and are lost", waiting)

    # ------------------------------------------------------------ under the lock

    def _send(self, message: Message) -> int | None:
        return self._connection.send(message) if self._connection else None

    def _keep(self, message: Message) -> None:
        self._kept[message.topic] = message
        self._send(message)

    def _send_final(self, final: Final) -> None:
        outgoing = messages.final(self.about, final, time.monotonic_ns() + asleep_ns())
        mids = [self._send(message) for message in outgoing]
        # A broker answers in order: the last answer is one for all of them.
        if (mid := mids[-1]) is not None:
            self._unanswered[mid] = final.id
            if outgoing[0].topic == self.about.topic("transcript/missed"):
                log.warning(
                    "final %s is older than %g s: sent to transcript/missed",
                    final.id,
                    self.about.max_age_s,
                )

    # ----------------------------------------------------------------- mqtt thread

    def _run(self) -> None:
        reporter = _Reporter(self._address)
        backoff_s = BACKOFF_FIRST_S
        while not self._stopping.is_set():
            least_s = 0.0
            try:
                connection = self._connect()
                begin = time.monotonic()
                reason = self._serve(connection)
                lasted_s = time.monotonic() - begin
                if not self._stopping.is_set():
                    reporter.lost(reason, lasted_s)
                if lasted_s > STEADY_S:
                    backoff_s = BACKOFF_FIRST_S
            except BrokerError as error:
                reporter.failed(error)
                least_s = BACKOFF_REFUSED_S if isinstance(error, BrokerRefusedError) else 0.0
            except Exception:
                log.exception("the connection to %s failed in an unexpected way", self._address)
            self._stopping.wait(max(least_s, backoff_s) * self._jitter())
            backoff_s = min(backoff_s * 2, BACKOFF_MOST_S)

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
            log.info("connected to the broker at %s with MQTT %s", self._address, version)
            if not silent:
                self._good = version
            return connection
        raise failure

    def _serve(self, connection: Connection) -> str:
        """Publish what waits, then handle answers until the connection is over."""
        with self._lock:
            self._connection = connection
            if self._stopping.is_set():
                self._inbox.put(STOP)
            else:
                self._send(messages.availability(self.about, online=True))
            for message in self._kept.values():
                self._send(message)
            for final in self._outbox.waiting():
                self._send_final(final)
        connection.subscribe(self._topics)
        self.connections += 1
        self.connected.set()
        try:
            return self._handle_answers()
        finally:
            self.connected.clear()
            with self._lock:
                self._connection = None
                self._unanswered.clear()
            connection.close()

    def _handle_answers(self) -> str:
        """Handle what the broker says until the connection is over; return why it is."""
        while True:
            match self._inbox.get():
                case Acknowledged() as answer:
                    self._settle(answer)
                case Received() as received:
                    self._hear(received)
                case NotSubscribed() as answer:
                    self._report_unheard(answer)
                case Down() as end:
                    return self._say_goodbye() if end is STOP else end.reason

    def _say_goodbye(self) -> str:
        """Wait for what is unanswered, then send `offline` and wait for its answer."""
        self._wait_until(lambda: not self._unanswered)
        with self._lock:
            mid = self._send(messages.availability(self.about, online=False))
            if mid is not None:
                self._unanswered[mid] = ""
        self._wait_until(lambda: mid not in self._unanswered)
        return STOP.reason

    def _wait_until(self, done: Callable[[], bool]) -> None:
        """Handle answers until it is so, for `FLUSH_S` at most."""
        deadline = time.monotonic() + FLUSH_S
        while not done() and (left_s := deadline - time.monotonic()) > 0:
            try:
                event = self._inbox.get(timeout=left_s)
            except queue.Empty:
                return
            if isinstance(event, Acknowledged):
                self._settle(event)
            elif event is not STOP:
                return

    def _hear(self, received: Received) -> None:
        try:
            self._take(received)
        except Exception:
            log.exception("a message on %s could not be handled", received.topic)

    def _settle(self, answer: Acknowledged) -> None:
        self._report_refusal(answer)
        with self._lock:
            if ident := self._unanswered.pop(answer.mid, None):
                # A refused final would be refused for ever; the log has told.
                self._outbox.remove(ident)

    def _report_refusal(self, answer: Acknowledged) -> None:
        if answer.refusal and answer.refusal not in self._refusals:
            self._refusals.add(answer.refusal)
            log.error(
                "the broker refused a message (%s); allow the user %r to write %s",
                answer.refusal,
                self._address.username,
                self.about.topic("#"),
            )

    def _report_unheard(self, answer: NotSubscribed) -> None:
        if answer.topic not in self._refusals:
            self._refusals.add(answer.topic)
            log.error(
                "the broker does not let us read %s (%s); allow the user %r to read it",
                answer.topic,
                answer.refusal,
                self._address.username,
            )


class _Reporter:
    """Logs what happens to the connection: the first of a kind, not its repeats."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._told = ""
        self._brief = 0

    def failed(self, error: BrokerError) -> None:
        """No connection came about."""
        level = logging.ERROR if isinstance(error, BrokerRefusedError) else logging.WARNING
        log.log(logging.DEBUG if str(error) == self._told else level, "%s", error)
        self._told = str(error)

    def lost(self, reason: str, lasted_s: float) -> None:
        """A connection ended."""
        self._told = ""
        self._brief = self._brief + 1 if lasted_s < STEADY_S else 0
        level = logging.WARNING if self._brief < BRIEF_MOST else logging.DEBUG
        why = "it closed the connection" if reason == "Unspecified error" else reason
        log.log(level, "lost the broker at %s (%s); reconnecting", self._address, why)
        if self._brief == BRIEF_MOST:
            log.error(
                "the broker at %s closed the last %d connections within seconds: another harkd "
                'seems to use the client id "%s". Stop it, or give each its own device_id.',
                self._address,
                BRIEF_MOST,
                self._address.client_id,
            )


def ignore(_received: Received) -> None:
    """Take a message that nobody waits for."""


def asleep_ns() -> int:
    """Return how long this machine has been suspended since it started, in nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
