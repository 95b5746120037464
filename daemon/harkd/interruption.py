"""Turns a signal into an exception, for a command whose work is done on the main thread.

The daemon has `stopper`, which asks its threads instead. Loads nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn


class Interrupted(BaseException):
    """A signal asks for the end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        """The signal's number."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` at the first SIGINT, SIGTERM or SIGHUP; a second one ends at once."""
    before: dict[int, Any] = {}

    def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
        for each in before:
            signal.signal(each, lambda again, _frame: os._exit(128 + again))
        raise Interrupted(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a background job
            before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that what is staged is cleared away, as at Ctrl-C."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def leave_at_once(number: int) -> NoReturn:
    """End the process as the signal would, without waiting for threads that still compute."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(128 + number)
