"""What from outside decides whether one is listened to without a wake word.

In: the command `listen`, the beginning and end of Hermes sessions, and how utterances ended, on any
thread. Out: `Wishes`, which the listening thread takes with each block. Never waits.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from harkd.events import Event, Final, Rejected, RejectReason


@dataclass(frozen=True, slots=True)
class Wishes:
    """What has come since the last time."""

    listen: bool = False
    """Listen for `wake.listen_s` from now on."""
    session: bool = False
    """A session is open: listen."""
    fruitless: bool = False
    """The last utterance gave no text: what was listened for is still to come."""
    answered: bool = False
    """It gave text."""


class WakeGate:
    """Collects wishes. One for each microphone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listen = False
        self._session = False
        self._fruitless = False
        self._answered = False

    def listen(self) -> None:
        """Listen to the next utterance without a wake word."""
        with self._lock:
            self._listen = True

    def session(self, is_open: bool) -> None:
        """A session is open now, or none is."""
        with self._lock:
            self._session = is_open

    def hear(self, event: Event) -> None:
        """Take an event."""
        with self._lock:
            match event:
                case Final() if not event.test:
                    self._answered = True
                case Rejected() if event.reason not in (RejectReason.WAKE_WORD,):
                    self._fruitless = True

    def take(self) -> Wishes:
        """Return what has come since the last time."""
        with self._lock:
            wishes = Wishes(self._listen, self._session, self._fruitless, self._answered)
            self._listen = self._fruitless = self._answered = False
            return wishes
