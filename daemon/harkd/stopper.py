"""Clean exits on SIGTERM, SIGINT and SIGHUP. Loads nothing, so that it can be in force early."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

log = logging.getLogger(__name__)

SHUTDOWN_S = 10.0
"""How long a clean exit may take, with the recognition of what was said last."""


class Stopper:
    """SIGTERM, SIGINT and SIGHUP ask for a clean exit.

    Asked twice, or in vain for `SHUTDOWN_S`, the process ends at once.

    Used as a context on the main thread, where Python runs signal handlers.
    """

    def __init__(self) -> None:
        self.asked = False
        """True once a signal has come."""
        self._stop: Callable[[], None] | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a background job
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def stop_with(self, stop: Callable[[], None]) -> None:
        """Call `stop` when a signal comes, or now if one has come already."""
        self._stop = stop
        if self.asked:
            stop()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.asked:
            os._exit(128 + number)
        self.asked = True
        timer = threading.Timer(SHUTDOWN_S, give_up)
        timer.daemon = True
        timer.start()
        if self._stop:
            self._stop()


def give_up() -> None:
    """End the process although something still runs; the broker sends our will."""
    log.error("the daemon did not end within %g s; leaving at once", SHUTDOWN_S)
    os._exit(1)
