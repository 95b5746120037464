"""How the daemon fares: gathered from its parts and /proc, and published as `health`.

In: counters and figures, through callables. Out: one retained message a minute. Runs on a thread
of its own, `health`, which only waits in between.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harkd import messages
from harkd.messages import Health, Message, ProcessFigures
from harkd.threads import Thread

log = logging.getLogger(__name__)

FIRST_S: Final = 5.0
"""The first message comes so long after the start."""
EVERY_S: Final = 60.0
PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used so far."""

    started_s: float
    """When it began, in seconds since the machine did."""
    cpu_s: float
    """Processor time, its threads' together."""
    rss_bytes: int
    """Memory that is resident."""


def read_usage(pid: int, proc: Path = PROC) -> Usage | None:
    """Return what a process has used, or None where it is gone or /proc does not tell."""
    try:
        stat = (proc / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
        # proc_pid_stat(5); the second field is the name, which may have blanks and parentheses.
        fields = stat.rpartition(")")[2].split()
        ticks = os.sysconf("SC_CLK_TCK")
        user, system, started, pages = (int(fields[at - 3]) for at in (14, 15, 22, 24))
    except (OSError, ValueError, IndexError):
        return None
    return Usage(started / ticks, (user + system) / ticks, pages * os.sysconf("SC_PAGE_SIZE"))


class Meter:
    """Turns what a process has used into figures.

    Args:
        read: Returns what the process with an id has used.
        clock: Seconds since the machine began.
    """

    def __init__(
        self,
        read: Callable[[int], Usage | None] = read_usage,
        clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._read = read
        self._clock = clock
        self._before: tuple[float, float, float] | None = None  # started, at, cpu_s

    def figures(self, pid: int) -> ProcessFigures | None:
        """Return the figures of a process; None for none, also where `pid` is 0."""
        usage = self._read(pid) if pid else None
        if usage is None:
            self._before = None
            return None
        now = self._clock()
        started, at, cpu_s = self._before or (usage.started_s, usage.started_s, 0.0)
        if started != usage.started_s:  # another process
            at, cpu_s = usage.started_s, 0.0
        self._before = (usage.started_s, now, usage.cpu_s)
        share = (usage.cpu_s - cpu_s) / (now - at) if now > at else 0.0
        return ProcessFigures(round(100 * share, 1), round(usage.rss_bytes / 1e6, 1))


class HealthReporter:
    """Publishes `health` again and again.

    Args:
        gather: Returns how the daemon fares.
        about: Tells what messages say of this daemon now.
        keep: Publishes a retained message.
    """

    def __init__(
        self,
        gather: Callable[[], Health],
        about: Callable[[], messages.About],
        keep: Callable[[Message], None],
        *,
        first_s: float = FIRST_S,
        every_s: float = EVERY_S,
    ) -> None:
        self._gather = gather
        self._about = about
        self._keep = keep
        self._first_s = first_s
        self._every_s = every_s
        self._stopping = threading.Event()
        self._thread = Thread(target=self._run, name="health")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is retained stays."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def _run(self) -> None:
        wait_s = self._first_s
        while not self._stopping.wait(wait_s):
            wait_s = self._every_s
            try:
                self._keep(messages.health(self._about(), self._gather()))
            except Exception:
                log.exception("the health message could not be made")
