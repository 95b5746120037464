"""What signals ask of the daemon: a clean exit, or the settings anew.

Loads nothing, so that it can be in force early.
"""

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
    """SIGTERM and SIGINT ask for a clean exit, SIGHUP for the settings to be read again.

    Asked twice to exit, or in vain for `SHUTDOWN_S`, the process ends at once. SIGHUP asks for the
    exit, too, where the terminal of the daemon was closed.

    Used as a context on the main thread, where Python runs signal handlers.
    """

    def __init__(self) -> None:
        self.asked = False
        """True once a signal has asked for the exit."""
        self._stop: Callable[[], None] | None = None
        self._reload: Callable[[], None] | None = None
        self._reload_asked = False
        self._terminals: list[int] = []
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._terminals = [fd for fd in (0, 1, 2) if os.isatty(fd)]
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a background job
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def stop_with(self, stop: Callable[[], None]) -> None:
        """Call `stop` when a signal asks for it, or now if one has already."""
        self._stop = stop
        if self.asked:
            stop()

    def reload_with(self, reload: Callable[[], None]) -> None:
        """Call `reload` at each SIGHUP, in the signal handler, and now if one has come already."""
        self._reload = reload
        if self._reload_asked:
            reload()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP and not self._hung_up():
            self._reload_asked = True
            if self._reload:
                self._reload()
            return
        if self.asked:
            os._exit(128 + number)
        self.asked = True
        timer = threading.Timer(SHUTDOWN_S, give_up)
        timer.daemon = True
        timer.start()
        if self._stop:
            self._stop()

    def _hung_up(self) -> bool:
        """Tell whether a terminal that was there is closed: it is no terminal any more."""
        return any(not os.isatty(fd) for fd in self._terminals)


def give_up() -> None:
    """End the process although something still runs; the broker sends our will."""
    log.error("the daemon did not end within %g s; leaving at once", SHUTDOWN_S)
    os._exit(1)
