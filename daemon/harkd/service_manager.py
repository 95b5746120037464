"""Tells systemd how the daemon is: sd_notify(3), without its library.

In: what the daemon says. Out: datagrams to the socket that $NOTIFY_SOCKET names; nothing where it
names none. Any thread; never raises. What must not be lost waits a moment for a systemd whose queue
is full; nothing else waits. `Watchdog` has a thread of its own, `watchdog`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from typing import Final, Self

log = logging.getLogger(__name__)

EXTEND_EVERY_S, EXTEND_S = 5.0, 30.0
"""While a slow start goes on, so much more time is asked for, so often."""
FULL_S, AGAIN_S = 1.0, 0.02
"""How long, and how often, a full queue is tried with what must not be lost."""
EXTEND_MOST_S: Final = 600.0
"""A start that takes longer hangs."""


class ServiceManager:
    """What systemd asks to be told.

    Args:
        path: The socket; empty where nobody asks. One that begins with ``@`` is abstract.
        watchdog_s: How often a sign of life is wanted; None where none is.
    """

    def __init__(self, path: str = "", watchdog_s: float | None = None) -> None:
        self._path = "\0" + path[1:] if path.startswith("@") else path
        self._socket = None
        if path:
            kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self._socket = socket.socket(socket.AF_UNIX, kind)
        self.watchdog_s = watchdog_s
        """How often a sign of life is wanted; None where none is."""
        self._failed = False
        self._status = self._untold = ""

    @classmethod
    def take_over(cls, environ: MutableMapping[str, str]) -> Self:
        """Return what the environment names, and take it away: children are not to notify."""
        path = environ.pop("NOTIFY_SOCKET", "")
        period_us = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", "")
        ours = not pid or pid == str(os.getpid())
        wanted = path and ours and period_us.isdigit() and int(period_us)
        return cls(path, int(period_us) / 1e6 if wanted else None)

    @property
    def asks(self) -> bool:
        """Whether anybody wants to be told."""
        return self._socket is not None

    def ready(self) -> None:
        """The daemon does its work from now on."""
        self._tell("READY=1", must=True)

    def status(self, text: str) -> None:
        """Say in one line how it is, where that has changed."""
        line = " ".join(text.split())
        if line != self._status:
            self._status = line
            self._untold = "" if self._tell(f"STATUS={line}") else line

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """The settings are read again."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", must=True)
        try:
            yield
        finally:
            self._tell("READY=1", must=True)

    def stopping(self) -> None:
        """The daemon ends."""
        self._tell("STOPPING=1", must=True)

    def alive(self) -> None:
        """A sign of life for the watchdog, with a status that could not be told before."""
        status = f"STATUS={self._untold}\n" if self._untold else ""
        if self._tell(f"{status}WATCHDOG=1"):
            self._untold = ""

    def extend(self, seconds: float) -> None:
        """Ask for more time to start."""
        self._tell(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def close(self) -> None:
        """Tell nothing more."""
        sock, self._socket = self._socket, None
        if sock:
            sock.close()

    def _tell(self, state: str, *, must: bool = False) -> bool:
        """Send a message; tell whether it is on its way, or nobody wants it."""
        end_s = time.monotonic() + (FULL_S if must else 0.0)
        while self._socket:
            try:
                self._socket.sendto(state.encode(), self._path)
                return True
            except OSError as error:
                if isinstance(error, BlockingIOError) and time.monotonic() < end_s:
                    time.sleep(AGAIN_S)
                    continue
                level = logging.DEBUG if self._failed else logging.WARNING
                log.log(level, "systemd cannot be told %s (%s)", state.partition("=")[0], error)
                self._failed = True
                return False
        return True


class Watchdog:
    """Asks for time while the daemon starts, then gives signs of life while it is live.

    Args:
        manager: Is told.
        problem: Returns why the daemon makes no progress; empty where it does.
        stuck: Called once with that reason when it is found.
    """

    def __init__(
        self,
        manager: ServiceManager,
        problem: Callable[[], str],
        stuck: Callable[[str], None],
        *,
        extend_every_s: float = EXTEND_EVERY_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._manager = manager
        self._problem = problem
        self._stuck = stuck
        self._extend_every_s = extend_every_s
        self._monotonic = monotonic
        self._told = ""
        self._ready = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin, where systemd asks."""
        if self._manager.asks:
            self._thread.start()

    def ready(self) -> None:
        """The start is over."""
        self._ready.set()
        self._manager.ready()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._ready.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def _run(self) -> None:
        end_s = self._monotonic() + EXTEND_MOST_S
        while not self._ready.wait(self._extend_every_s) and self._monotonic() < end_s:
            self._manager.extend(EXTEND_S)
        self._ready.wait()
        watchdog_s = self._manager.watchdog_s
        while watchdog_s and not self._stopping.is_set():
            self.look()
            self._stopping.wait(watchdog_s / 2)

    def look(self) -> None:
        """Give a sign of life, or say once why there is none."""
        reason = self._problem()
        if not reason:
            self._manager.alive()
        elif not self._told:
            self._stuck(reason)
        self._told = reason
