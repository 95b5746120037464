"""Signs of life of the daemon's threads: who makes progress, and who hangs. Pure.

In: each thread says when it begins something, and when it waits for work. Out: why a thread makes
no progress, on any thread. Whether anybody speaks, or a microphone is there, plays no part.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

LISTENING_S: Final = 20.0
"""The listening thread may take so long; to kill a capture process that hangs takes 2 s of it."""
RECOGNITION_S, RECOGNITION_FACTOR = 60.0, 10.0
"""One task of recognition may take so long, or so many times the segment's length."""
DELIVERY_S: Final = 60.0
"""One step of a thread that neither waits for the disk nor for the network."""
FOREIGN_S: Final = 900.0
"""One step of a thread that may wait for what is not ours: a disk, a name server, a broker.

A new process would wait for the same, and finals that no disk takes would be lost.
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that has to be so, and whether it is."""

    name: str
    """What was looked at."""
    ok: bool
    """Whether it is as it should be."""
    reason: str = ""
    """Why it is not; empty where it is."""
    device_id: str = ""
    """Of which input; empty where it is the whole daemon."""


class LifeSign:
    """What one thread tells of itself. Each method costs the reading of a clock.

    Args:
        name: The thread's.
        limit_s: How long a step may take, unless it is said with the step.
        overdue_s: Returns for how many seconds work has lain there that the thread should take
            while it rests; 0 where there is none.
        monotonic: Seconds.
    """

    def __init__(
        self,
        name: str,
        limit_s: float,
        *,
        overdue_s: Callable[[], float] = lambda: 0.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._limit_s = limit_s
        self._overdue_s = overdue_s
        self._monotonic = monotonic
        self._thread: threading.Thread | None = None
        # (since when, how long that may take; None where it rests), in one, so that no lock is
        # needed.
        self._step: tuple[float, float | None] = (0.0, None)

    def begin(self) -> None:
        """The calling thread is the one; it must end with `end`, or it has died."""
        self._step = (self._monotonic(), None)
        self._thread = threading.current_thread()

    def end(self) -> None:
        """The thread ends because it is meant to."""
        self._thread = None

    def beat(self, limit_s: float | None = None) -> None:
        """It makes progress, and begins a step that takes no longer than this."""
        self._step = (self._monotonic(), limit_s or self._limit_s)

    def rest(self) -> None:
        """It waits until there is something to do, however long that is."""
        self._step = (self._monotonic(), None)

    def finding(self) -> Finding:
        """Tell whether it makes progress; a thread that has not begun yet, or has ended, does."""
        thread, (since_s, limit_s) = self._thread, self._step
        reason = ""
        if thread is None:
            pass
        elif not thread.is_alive():
            reason = f"the {self.name} thread died"
        else:
            took_s = self._monotonic() - since_s
            if limit_s is None:
                took_s, limit_s = min(took_s, self._overdue_s()), self._limit_s
            if took_s > limit_s:
                reason = f"the {self.name} thread has made no progress for {took_s:.0f} s"
        return Finding(self.name, not reason, reason)

    @property
    def ident(self) -> int | None:
        """Python's number of the thread; None where it does not run."""
        thread = self._thread
        return thread.ident if thread else None


def worst(findings: Iterable[Finding]) -> Finding | None:
    """Return the first of them that is not as it should be, or None."""
    return next((finding for finding in findings if not finding.ok), None)
