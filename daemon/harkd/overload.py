"""Tells once a spell that recognition is behind, and that segments were dropped for it.

In: events, on the threads on which they happen, and how many segments wait. Out: a line in the log;
an `error` on MQTT where speech is lost. A spell is over when no more than one segment waits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from harkd.events import Event, Rejected, RejectReason

log = logging.getLogger(__name__)

BEHIND: Final = 4
"""So many segments that wait are told: a person would notice the delay."""
MEND: Final = "use a smaller model, turn recognizer.partials off, or use a faster machine"


class Overload:
    """Watches one input.

    Args:
        waiting: Returns how many segments wait for recognition or are at it.
        report: Logs and publishes an error.
    """

    def __init__(self, waiting: Callable[[], int], report: Callable[[str], None]) -> None:
        self._waiting = waiting
        self._report = report
        self._lock = threading.Lock()
        self._behind = False
        self._dropping = False

    def hear(self, event: Event) -> None:
        """Look at one event."""
        dropped = isinstance(event, Rejected) and event.reason is RejectReason.OVERLOADED
        waiting = self._waiting()
        with self._lock:
            tell_behind = waiting >= BEHIND and not self._behind
            tell_dropped = dropped and not self._dropping
            over = waiting <= 1 and self._behind and not dropped
            self._behind = (self._behind or waiting >= BEHIND) and not over
            self._dropping = (self._dropping or dropped) and not over
        if tell_behind:
            log.warning("recognition is %d segments behind: texts come late; %s", waiting, MEND)
        if tell_dropped:
            self._report(
                f"recognition is {waiting} segments behind, and what is said is dropped until it "
                f"has caught up: {MEND}"
            )
        if over:
            log.info("recognition has caught up")
