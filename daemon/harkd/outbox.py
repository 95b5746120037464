"""Finals that the broker has not acknowledged: on the disk where it works, else in memory.

In: finals, and the numbers of those that the broker has. Out: finals, in order. What goes wrong
with the disk is told once, and nothing is lost by it that need not be: what could not be written
waits in memory and is written as soon as there is room again. Both places are bounded. Used by one
thread, the `outbox` one; the attributes may be read by any.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from harkd import boot_time
from harkd.errors import OutboxBrokenError, OutboxError
from harkd.outbox_file import Kept, SqliteOutbox

log = logging.getLogger(__name__)

MOST_FINALS = 10_000
"""A busy week; about 10 MB."""
MOST_AGE_S = 7 * 86_400.0
"""Nobody asks for older ones. The time in which the machine is off does not count."""
MOST_IN_MEMORY = 1000
"""About 1 MB."""
RETRY_S = 10.0
"""How often a disk that failed is tried again."""
REMOVE_S = 1.0
"""How long a removal may wait for company: to lose it only means to send a final twice."""
EXPIRE_S = 3600.0


def ignore(_problem: str) -> None:
    """Tell nobody."""


class Outbox:
    """Keeps finals.

    Args:
        path: The database; None for memory alone.
        most: Finals on the disk.
        most_in_memory: Finals beside it.
        most_age_s: Age at which a final is dropped, in seconds.
        now_ns: Time since the machine started.
        monotonic_s: Time for retries.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        most: int = MOST_FINALS,
        most_in_memory: int = MOST_IN_MEMORY,
        most_age_s: float = MOST_AGE_S,
        now_ns: Callable[[], int] = boot_time.now_ns,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        """Where it is on the disk; None for memory alone."""
        self._file = SqliteOutbox(path, boot_time.boot_id()) if path else None
        self._most = most
        self._most_in_memory = most_in_memory
        self._most_age_ns = round(most_age_s * 1e9)
        self._now_ns = now_ns
        self._monotonic_s = monotonic_s
        self._memory: OrderedDict[int, Kept] = OrderedDict()
        self._gone: set[int] = set()
        self._first_gone_s = 0.0
        self._retry_s = 0.0
        self._expire_s = 0.0
        self._gives_way = False
        self._report: Callable[[str], None] = ignore
        self.count = 0
        """How many finals wait here."""
        self.on_disk = False
        """Whether all of them are on the disk."""
        self.problem = ""
        """What is wrong with the disk, and how to mend it; empty where nothing is."""
        self.dropped = 0
        """How many finals gave way to the bounds."""
        self.renewed = False
        """Set when a new file was begun, which knows nothing of finals that are under way."""

    def open(self, report: Callable[[str], None] = ignore) -> None:
        """Open the file; where that fails, go on in memory.

        Args:
            report: Is told what is wrong with the disk and how to mend it, once each.
        """
        self._report = report
        self.tick()

    def add(self, kept: Sequence[Kept]) -> list[int]:
        """Keep finals, on the disk if that can be; return the numbers of those that gave way."""
        for each in kept:
            self._memory[each.number] = each
        dropped = self._write()
        while len(self._memory) > self._most_in_memory:
            number, _ = self._memory.popitem(last=False)
            dropped.append(number)
        level = logging.DEBUG if self._gives_way else logging.ERROR
        self._tell_dropped(len(dropped), "there is room for the newest only", level)
        self._gives_way = bool(dropped)
        self._recount()
        return dropped

    def remove(self, numbers: Collection[int]) -> None:
        """Forget finals; on the disk soon."""
        for number in numbers:
            if self._memory.pop(number, None) is None and self._file:
                if not self._gone:
                    self._first_gone_s = self._monotonic_s()
                self._gone.add(number)
        self._recount()

    def after(self, number: int, most: int) -> list[Kept]:
        """Return the first finals behind `number`, oldest first."""
        found = [each for each in self._memory.values() if each.number > number]
        if self._file and self._file.is_open:
            try:
                found += self._file.after(number, most, self._gone)
            except OutboxError as error:
                self._fail(error)
            self._recount()
        return sorted(found, key=lambda each: each.number)[:most]

    def due_s(self) -> float | None:
        """Return in how many seconds `tick` is to be called; None for not before the next call."""
        if not self._file:
            return None
        due_s = [self._expire_s if self.on_disk else self._retry_s]
        if self._gone and self.on_disk:
            due_s.append(self._first_gone_s + REMOVE_S)
        return max(0.0, min(due_s) - self._monotonic_s())

    def tick(self) -> list[int]:
        """Do what is due; return the numbers of finals that became too old."""
        now_s = self._monotonic_s()
        dropped: list[int] = []
        removal = bool(self._gone) and now_s >= self._first_gone_s + REMOVE_S
        if self._file and (not self.on_disk or removal):
            dropped = self._write()
        if self._file and self.on_disk and now_s >= self._expire_s:
            self._expire_s = now_s + EXPIRE_S
            try:
                old = self._file.expire(self._now_ns() - self._most_age_ns)
            except OutboxError as error:
                self._fail(error)
            else:
                self._tell_dropped(len(old), "no broker took them for too long", logging.ERROR)
                dropped += old
        self._recount()
        return dropped

    def close(self) -> None:
        """Write what can be written, and close the file."""
        if not self._file:
            return
        if self._memory or self._gone:
            self._retry_s = 0.0
            self._write()
        self._recount()
        self._file.close()

    # ------------------------------------------------------------------------------- inside

    def _write(self) -> list[int]:
        """Bring what is in memory to the disk, where it is time to try."""
        if not self._file or (not self.on_disk and self._monotonic_s() < self._retry_s):
            return []
        for last_try in (False, True):
            try:
                if not self._file.is_open:
                    self._file.open()
                dropped = self._file.add([*self._memory.values()], self._gone, self._most)
            except OutboxError as error:
                # A broken file has a new one in its place now, which may be better.
                if not self._fail(error) or last_try:
                    return []
            else:
                break
        self._memory.clear()
        self._gone.clear()
        self.on_disk = True
        if self.problem:
            log.info("finals are kept in %s again", self.path)
            self.problem = ""
        return dropped

    def _fail(self, error: OutboxError) -> bool:
        """Tell what is wrong; return whether a new file may be begun at once."""
        begin_anew = False
        problem = f"{error} Until then, finals wait in memory."
        if self._file and isinstance(error, OutboxBrokenError):
            try:
                aside = self._file.set_aside()
            except OutboxError as fault:
                problem = f"{fault} Until then, finals wait in memory."
            else:
                begin_anew = self.renewed = True
                self._gone.clear()
                problem = f"{error.message}: it is now {aside.name}, and a new one is begun"
        self._retry_s = self._monotonic_s() + (0.0 if begin_anew else RETRY_S)
        told, self.problem = self.problem, problem
        self.on_disk = False
        if problem != told:
            log.error("%s", problem)
            self._report(problem)
        return begin_anew

    def _tell_dropped(self, many: int, why: str, level: int) -> None:
        if many:
            self.dropped += many
            log.log(level, "%d waiting final(s) are lost: %s", many, why)

    def _recount(self) -> None:
        on_disk = self._file.count if self._file else 0
        self.count = max(0, on_disk - len(self._gone)) + len(self._memory)
