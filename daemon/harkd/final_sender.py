"""The threads that finals pass on their way to the broker.

In, from any thread, and none of it waits: finals, connections, the broker's answers. `outbox` is
the only thread that touches the disk; `delivery` decides and sends, and goes on where the disk
hangs. So neither recognition nor the network waits for a slow disk.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from harkd import boot_time
from harkd.delivery import Delivery
from harkd.delivery_sides import Link
from harkd.events import Final
from harkd.life import DELIVERY_S, FOREIGN_S, LifeSign
from harkd.messages import About
from harkd.outbox import MOST_IN_MEMORY, RETRY_S, Outbox
from harkd.outbox_file import Kept
from harkd.threads import Thread

log = logging.getLogger(__name__)

CLOSE_S = 3.0
"""How long a clean exit waits for the disk."""
Call = Callable[[], None]


@dataclass(frozen=True, slots=True)
class OutboxFacts:
    """How the outbox is."""

    waiting: int
    """Finals that the broker has not acknowledged."""
    oldest_age_s: float | None
    """Seconds since the oldest of them was kept; None where none waits."""
    on_disk: bool
    """Whether they would survive a power cut."""
    dropped: int
    """Finals that were given up since the start: too many, too old, or refused for ever."""
    problem: str
    """What is wrong with the disk and how to mend it; empty where nothing is."""


class Keeper:
    """The `outbox` thread: does what it is asked, in batches.

    Args:
        outbox: Used on this thread alone.
        later: Runs something on the delivery thread.
        report: Is told what is wrong with the disk.
    """

    def __init__(
        self, outbox: Outbox, later: Callable[[Call], None], report: Callable[[str], None]
    ) -> None:
        self._outbox = outbox
        self._later = later
        self._report = report
        self.delivery: Delivery
        """Is told what was done; set before `start`."""
        self._asked = threading.Condition()
        self._write: dict[int, Kept] = {}
        self._writing: dict[int, Kept] = {}
        self._forget: set[int] = set()
        self._read: tuple[int, int] | None = None
        self._reading: tuple[int, int] | None = None
        self._closing = False
        self.dropped = 0
        """Finals that gave way because the disk hung."""
        self.life = LifeSign("outbox", FOREIGN_S)
        """Whether it makes progress."""
        self._thread = Thread(target=self._run, name="outbox")

    @property
    def waiting(self) -> int:
        """Finals that the broker has not acknowledged."""
        with self._asked:
            unwritten = len(self._write) + len(self._writing)
            return max(0, self._outbox.count + unwritten - len(self._forget))

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def write(self, kept: Kept) -> None:
        """Write a final, soon."""
        with self._asked:
            self._write[kept.number] = kept
            dropped = list(self._write)[:-MOST_IN_MEMORY]
            for number in dropped:
                del self._write[number]
                self.dropped += 1
            self._asked.notify()
        if dropped:
            log.error("%d final(s) are lost: the disk does not answer", len(dropped))
            self._later(lambda: self.delivery.dropped_by_outbox(dropped))

    def forget(self, number: int) -> None:
        """Remove a final, soon."""
        with self._asked:
            if self._write.pop(number, None) is None:
                self._forget.add(number)
                self._asked.notify()

    def read(self, number: int, most: int) -> None:
        """Read what comes behind a final, soon; one request at a time."""
        with self._asked:
            self._read = number, most
            self._asked.notify()

    def close(self, wait_s: float) -> bool:
        """Write everything and close the outbox; tell whether that was done in time."""
        with self._asked:
            self._closing = True
            self._asked.notify()
        if self._thread.is_alive():
            self._thread.join(wait_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self.life.begin()
        self.life.beat()
        try:
            self._outbox.open(self._report)
        except Exception:
            log.exception("the outbox could not be opened")
        going = True
        while going:
            try:
                going = self._work()
            except Exception:
                log.exception("the outbox failed in an unexpected way")
                going = self._take_back()
        self._outbox.close()
        self.life.end()

    def _take_back(self) -> bool:
        """Be asked again for what was not done, after a while; False where there is none."""
        self.life.rest()
        with self._asked:
            self._write = {**self._writing, **self._write}
            self._writing = {}
            self._read = self._read or self._reading
            return not self._asked.wait_for(lambda: self._closing, RETRY_S)

    def _work(self) -> bool:
        """Wait for work and do it; False where it was the last."""
        self.life.rest()
        with self._asked:
            self._asked.wait_for(self._is_asked, self._outbox.due_s())
            self.life.beat()
            self._writing, self._write = self._write, {}
            forget, self._forget = self._forget, set()
            asked, self._read = self._read, None
            self._reading = asked
            closing = self._closing
        outbox, delivery = self._outbox, self.delivery
        outbox.remove(forget)
        written = list(self._writing)
        dropped = outbox.add(list(self._writing.values())) if written else []
        dropped += outbox.tick()
        with self._asked:
            self._writing = {}
        if written:
            self._later(lambda: delivery.written(written))
        if asked:
            found = outbox.after(*asked)
            most = asked[1]
            self._reading = None
            self._later(lambda: delivery.read(found, most))
        if dropped:
            self._later(lambda: delivery.dropped_by_outbox(dropped))
        if outbox.renewed:
            outbox.renewed = False
            self._later(delivery.renewed)
        return not closing

    def _is_asked(self) -> bool:
        return bool(self._write or self._forget or self._read or self._closing)


class FinalSender:
    """What the publisher sees of the outbox and the delivery.

    Args:
        outbox: Keeps finals.
        about: What messages say of this daemon now.
        report: Is told what is wrong with the disk and how to mend it, once each; on any thread.
        now_ns: Time since the machine started.
    """

    def __init__(
        self,
        outbox: Outbox,
        about: Callable[[], About],
        report: Callable[[str], None],
        now_ns: Callable[[], int] = boot_time.now_ns,
    ) -> None:
        self._outbox = outbox
        self._now_ns = now_ns
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._keeper = Keeper(outbox, self._calls.put, report)
        self._delivery = Delivery(self._keeper, about, now_ns, time.monotonic, report)
        self._keeper.delivery = self._delivery
        self._lock = threading.Lock()
        self._coming = 0
        self._taken = 0
        self._handled = 0
        self._settled = False
        self._oldest_ns: int | None = None
        self.life = (LifeSign("delivery", DELIVERY_S), self._keeper.life)
        """Whether the two threads make progress."""
        self._thread = Thread(target=self._run, name="delivery")

    def start(self) -> None:
        """Begin to read what waits."""
        self._keeper.start()
        self._thread.start()

    def take(self, final: Final) -> None:
        """Keep and send a final; its times are on the monotonic clock."""
        # That clock stands still while the machine sleeps; a final's age must not.
        asleep_ns = self._now_ns() - time.monotonic_ns()
        awake = replace(
            final,
            speech_end_ns=final.speech_end_ns + asleep_ns,
            endpoint_ns=final.endpoint_ns + asleep_ns,
        )
        with self._lock:
            self._coming += 1
        self._do(lambda: self._accept(awake))

    def connected(self, link: Link) -> None:
        """Send over this connection from now on."""
        self._do(lambda: self._delivery.connected(link))

    def disconnected(self) -> None:
        """The connection is over; what it has answered was told before."""
        self._do(self._delivery.disconnected)

    def hold(self) -> None:
        """Send nothing more over this connection."""
        self._do(self._delivery.hold)

    def answered(self, mid: int, code: int) -> None:
        """The broker answered a message, of a final or another one."""
        self._do(lambda: self._delivery.answered(mid, code))

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do for any final."""
        with self._lock:
            return self._taken == self._handled and self._settled

    def facts(self) -> OutboxFacts:
        """Return how the outbox is; never waits for the disk."""
        oldest_ns = self._oldest_ns
        age_s = None
        if oldest_ns is not None:
            age_s = round(max(0.0, (self._now_ns() - oldest_ns) / 1e9), 1)
        hangs = self._delivery.hangs
        return OutboxFacts(
            waiting=self._keeper.waiting + self._coming,
            oldest_age_s=age_s,
            on_disk=self._outbox.on_disk and not hangs,
            dropped=self._outbox.dropped + self._delivery.dropped + self._keeper.dropped,
            problem="the disk does not answer" if hangs else self._outbox.problem,
        )

    def stop(self, wait_s: float = CLOSE_S) -> bool:
        """Write what is not written yet; tell whether that was done in time."""
        deadline_s = time.monotonic() + wait_s
        self._calls.put(None)
        if self._thread.is_alive():
            self._thread.join(wait_s)
        return self._keeper.close(max(0.1, deadline_s - time.monotonic()))

    def _accept(self, final: Final) -> None:
        try:
            self._delivery.take(final)
        finally:
            with self._lock:
                self._coming -= 1

    def _do(self, call: Call) -> None:
        with self._lock:
            self._taken += 1
        self._calls.put(lambda: self._count(call))

    def _count(self, call: Call) -> None:
        try:
            call()
        finally:
            with self._lock:
                self._settled = self._delivery.settled
                self._handled += 1

    def _run(self) -> None:
        life = self.life[0]
        life.begin()
        while True:
            life.rest()
            try:
                call = self._calls.get(timeout=self._delivery.due_s())
            except queue.Empty:
                call = self._delivery.tick
            life.beat()
            if call is None:
                life.end()
                return
            try:
                call()
            except Exception:
                log.exception("a final could not be sent")
            with self._lock:
                self._settled = self._delivery.settled
            self._oldest_ns = self._delivery.oldest_ns
