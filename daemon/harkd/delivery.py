"""Which final is sent next: in order, a few at a time, until the broker has acknowledged each.

In: finals as they come, what the disk has done, connections and the broker's answers. Out: finals
to the `Keeping` side, messages to the connection. A final is sent once it is on the disk; only
where the disk does not answer, it goes ahead. At most `AT_HAND` of those that wait are in memory,
the others stay on the disk until it is their turn. Without a thread of its own: `FinalSender`
calls it, always on one thread, and time is given to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from harkd import final_messages
from harkd.delivery_sides import Flight, Keeping, Link
from harkd.events import Final
from harkd.messages import About
from harkd.mqtt_reports import FinalReports
from harkd.outbox_file import Kept

WINDOW = 20 // final_messages.MOST
"""Finals under way: their messages are no more than paho and most brokers have in flight (20), so
that none grows old in paho's queue."""
AT_HAND = 32
"""Finals that wait in memory for their turn."""
DISK_S = 2.0
"""How long a final waits for the disk."""
REFUSED_S = 60.0
"""How often finals are tried again that the broker refused."""
FOR_EVER = {0x90: "topic name invalid", 0x99: "payload format invalid"}
"""Refusals of the message itself (MQTT 5, 3.4.2.1): no later try would do better."""
BLAMED_MOST = 5
"""A final that was the first unanswered one when so many connections in a row ended ends them. So
does one that is too large: mosquitto 2.0 then answers in a way that MQTT does not know."""
FIRST = -(1 << 62)
"""Before the number of any final."""


class Delivery:
    """Decides what is sent.

    Args:
        keeping: The disk.
        about: What messages say of this daemon now.
        now_ns: Time since the machine started.
        monotonic_s: Time for deadlines.
        report: Is told what is wrong and how to mend it.
    """

    def __init__(
        self,
        keeping: Keeping,
        about: Callable[[], About],
        now_ns: Callable[[], int],
        monotonic_s: Callable[[], float],
        report: Callable[[str], None],
    ) -> None:
        self._keeping = keeping
        self._about = about
        self._now_ns = now_ns
        self._monotonic_s = monotonic_s
        self._report = report
        self._link: Link | None = None
        self._number = 0
        self._unwritten: dict[int, tuple[Kept, float]] = {}
        self._ready: deque[Kept] = deque()
        self._flights: dict[int, Flight] = {}
        self._flying: dict[int, Flight] = {}
        self._refused: dict[int, int] = {}
        self._parked: dict[int, int] = {}
        self._blamed = 0, 0
        self._cursor = FIRST
        self._unread = True
        self._reading = False
        self._asking = False
        self._ahead: set[int] = set()
        self._retry_s: float | None = None
        self._reports = FinalReports()
        self.hangs = False
        """Whether the disk does not answer."""
        self.dropped = 0
        """Finals that the broker will never take."""

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do but for finals that were refused."""
        return not (self._unwritten or self._ready or self._flying or self._unread)

    @property
    def oldest_ns(self) -> int | None:
        """When the oldest final that waits was kept, on `now_ns`; None where none waits."""
        firsts = [each[0].kept_ns for each in list(self._unwritten.values())[:1]]
        firsts += [each.kept_ns for each in list(self._ready)[:1]]
        firsts += [each.kept.kept_ns for each in self._flying.values()]
        firsts += [*list(self._refused.values())[:1], *self._parked.values()]
        return min(firsts, default=None)

    # --------------------------------------------------------------------------- what happens

    def take(self, final: Final) -> None:
        """A final has come; its times are on `now_ns`."""
        self._number += 1
        kept = Kept(self._number, final, self._now_ns())
        self._unwritten[kept.number] = (kept, self._monotonic_s() + DISK_S)
        self._keeping.write(kept)
        if self.hangs:
            self._go_ahead(kept.number)
        self._pump()

    def written(self, numbers: Iterable[int]) -> None:
        """These finals are kept now."""
        self.hangs = False
        for number in numbers:
            if (waiting := self._unwritten.pop(number, None)) is None:
                continue
            if self._unread or len(self._ready) >= AT_HAND:
                self._unread = True
            else:
                self._ready.append(waiting[0])
                self._pass(number)
        self._pump()

    def read(self, kept: list[Kept], asked: int) -> None:
        """The disk gave these finals, the next ones in order."""
        self.hangs = False
        if self._asking:
            self._asking = False
            self._try_again(kept)
        else:
            self._reading = False
            self._unread = len(kept) >= asked
            for each in kept:
                if each.number not in self._ahead:
                    self._ready.append(each)
                self._pass(each.number)
        self._pump()

    def dropped_by_outbox(self, numbers: Iterable[int]) -> None:
        """These finals gave way to the outbox's bounds."""
        gone = set(numbers)
        for number in gone:
            self._unwritten.pop(number, None)
            self._refused.pop(number, None)
            self._parked.pop(number, None)
        self._ready = deque(each for each in self._ready if each.number not in gone)

    def renewed(self) -> None:
        """The outbox began anew: it knows nothing of what is under way."""
        for flight in self._flying.values():
            self._keeping.write(flight.kept)
        for kept in self._ready:
            self._keeping.write(kept)

    def connected(self, link: Link) -> None:
        """A broker has taken us: send what waits."""
        self.disconnected()
        self._link = link
        self._reports.begin_anew()
        if self._refused:
            self._retry_s = self._monotonic_s()
        self._pump()

    def disconnected(self) -> None:
        """The connection is over: what it left unanswered is to be sent again."""
        self._link = None
        self._blame()
        for number, flight in self._flying.items():
            if flight.again:
                self._refused = {number: flight.kept.kept_ns, **self._refused}
            else:
                self._ready.append(flight.kept)
        self._ready = deque(sorted(self._ready, key=lambda each: each.number))
        self._flights.clear()
        self._flying.clear()

    def hold(self) -> None:
        """Send nothing more, but go on taking answers."""
        self._link = None

    def answered(self, mid: int, code: int) -> None:
        """The broker answered a message of this connection with an MQTT 5 reason code, or 0."""
        if (flight := self._flights.pop(mid, None)) is None:
            return
        if mid == flight.mids[0] and code >= 0x80:
            flight.refusal = code
        # A broker answers in order (MQTT 5, 4.6): the last answer is one for all of them.
        if mid == flight.mids[-1]:
            self._flying.pop(flight.kept.number, None)
            self._settle(flight)
            self._pump()

    def due_s(self) -> float | None:
        """Return in how many seconds `tick` is to be called; None where nothing waits."""
        due_s = [deadline_s for _, deadline_s in list(self._unwritten.values())[:1]]
        if self._retry_s is not None and self._link and self._refused:
            due_s.append(self._retry_s)
        return max(0.0, min(due_s) - self._monotonic_s()) if due_s else None

    def tick(self) -> None:
        """Do what is due."""
        now_s = self._monotonic_s()
        late = [number for number, (_, end_s) in self._unwritten.items() if end_s <= now_s]
        if late and not self.hangs:
            self.hangs = True
            self._report(self._reports.hangs(DISK_S))
        for number in late:
            self._go_ahead(number)
        self._pump()

    # ------------------------------------------------------------------------------- inside

    def _blame(self) -> None:
        """Leave aside what ends one connection after the other, so that the others get through."""
        if (first := next(iter(self._flying.values()), None)) is None:
            return
        number = first.kept.number
        times = self._blamed[1] + 1 if self._blamed[0] == number else 1
        self._blamed = number, times
        if times == BLAMED_MOST:
            del self._flying[number]
            self._parked[number] = first.kept.kept_ns
            self._reports.blamed(first.kept, times)

    def _pass(self, number: int) -> None:
        """All up to this one are at hand or done."""
        self._cursor = max(self._cursor, number)
        self._ahead = {each for each in self._ahead if each > self._cursor}

    def _go_ahead(self, number: int) -> None:
        """Let a final go that is not on the disk yet."""
        kept, _ = self._unwritten.pop(number)
        self._ready.append(kept)
        if self._unread:
            self._ahead.add(number)
        else:
            self._pass(number)

    def _pump(self) -> None:
        """Send and read what can be sent and read now."""
        while self._link and self._ready and len(self._flying) < WINDOW:
            kept = self._ready.popleft()
            if not self._send(kept):
                self._ready.appendleft(kept)
        if self._unread and not self._reading and len(self._ready) <= AT_HAND // 2:
            self._reading = True
            self._keeping.read(self._cursor, AT_HAND)
        due = self._retry_s is not None and self._monotonic_s() >= self._retry_s
        if due and self._link and self._refused and not self._reading:
            # One at a time: the others would be refused, too.
            self._reading = self._asking = True
            self._retry_s = None
            self._keeping.read(next(iter(self._refused)) - 1, 1)

    def _try_again(self, kept: list[Kept]) -> None:
        self._reading = False
        number = next(iter(self._refused), None)
        if number is None:
            return
        if not kept or kept[0].number != number:
            del self._refused[number]  # it gave way to the outbox's bounds
            self._retry_s = self._monotonic_s()
        elif self._link and self._send(kept[0], again=True):
            del self._refused[number]

    def _send(self, kept: Kept, *, again: bool = False) -> bool:
        """Hand a final to the connection; False where that is gone."""
        now_ns = self._now_ns()
        known = kept.aged and kept.final.speech_end_ns <= now_ns
        about = self._about()
        outgoing = final_messages.final(
            about, kept.final, now_ns if known or kept.number > 0 else None
        )
        mids: list[int] = []
        for message in outgoing:
            mid = self._link.send(message) if self._link else None
            if mid is None:
                self._link = None
                return False
            mids.append(mid)
        flight = Flight(kept, mids, again=again)
        self._flying[kept.number] = flight
        self._flights.update(dict.fromkeys(mids, flight))
        if outgoing[0].topic == about.topic("transcript/missed"):
            self._reports.late(kept, about.max_age_s)
        return True

    def _settle(self, flight: Flight) -> None:
        kept, code = flight.kept, flight.refusal
        if code and code not in FOR_EVER:
            self._refused[kept.number] = kept.kept_ns
            if flight.again:
                # Still the first in line.
                self._refused = dict(sorted(self._refused.items()))
            if flight.again or self._retry_s is None:
                self._retry_s = self._monotonic_s() + REFUSED_S
            self._reports.refused(kept, REFUSED_S)
            return
        if code:
            self.dropped += 1
            self._reports.lost(kept, FOR_EVER[code])
        elif flight.again:
            self._reports.taken(kept)
            self._retry_s = self._monotonic_s()
        self._keeping.forget(kept.number)
