"""Answers Hermes sessions: `harkd.hermes_session` with the clock, a timer and the publisher.

In: requests, on the `mqtt` thread; events, on the threads on which they happen. Out: messages, by
way of the publisher, which drops them where there is no broker: who asked is then gone, too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from harkd import hermes
from harkd.events import Event
from harkd.hermes_session import Sessions
from harkd.messages import Message
from harkd.mqtt_connection import Received
from harkd.threads import Thread

log = logging.getLogger(__name__)

TOPICS = hermes.TOPICS
"""What to subscribe to, and to hand to `HermesAnswerer.take`."""


class HermesAnswerer:
    """The speech recognizer of one Hermes site.

    Args:
        site_id: Our site.
        send: Sends a message now, or never.
        now_ns: Monotonic time, in nanoseconds.
        on_session: Is told whether a session is open, after whatever may have changed that.
    """

    def __init__(
        self,
        site_id: str,
        send: Callable[[Message], None],
        now_ns: Callable[[], int] = time.monotonic_ns,
        on_session: Callable[[bool], None] = lambda _open: None,
    ) -> None:
        self._sessions = Sessions(site_id)
        self._send = send
        self._now_ns = now_ns
        self._on_session = on_session
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = Thread(target=self._run, name="hermes")

    def start(self) -> None:
        """Begin to watch the time."""
        self._thread.start()

    def take(self, received: Received) -> None:
        """Take a message on `TOPICS`."""
        # What lay there when we connected belongs to a session of long ago.
        if not received.retained:
            with self._changed:
                now_ns = self._now_ns()
                self._say(self._sessions.take(received.topic, received.payload, now_ns))

    def hear(self, event: Event) -> None:
        """Take an event."""
        with self._changed:
            self._say(self._sessions.hear(event, self._now_ns()))

    def stop(self) -> None:
        """Watch the time no more."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _say(self, messages: list[Message]) -> None:
        for message in messages:
            if message.topic == hermes.ERROR:
                log.debug("a bad Hermes message was answered: %s", message.payload.decode())
            self._send(message)
        self._on_session(self._sessions.heard)
        self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._stopping:
                self._say(self._sessions.check(self._now_ns()))
                due_ns = self._sessions.due_ns
                wait_s = None if due_ns is None else max(0.0, (due_ns - self._now_ns()) / 1e9)
                self._changed.wait(wait_s)
