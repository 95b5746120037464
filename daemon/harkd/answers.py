"""Errors that are published on `error`: answers to messages, and reports of what answers none.

In: words for a person. Out: messages; without a broker they wait, a few of them. Any thread.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Final

from harkd import messages
from harkd.mqtt_connection import Received
from harkd.publisher import Publisher

log = logging.getLogger(__name__)

MOST_WAITING: Final = 20
"""So many errors may wait for the broker; the oldest give way."""


class Answers:
    """Publishes errors.

    Args:
        publisher: Sends them.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._waiting: deque[messages.Message] = deque(maxlen=MOST_WAITING)
        self._refused = False

    @property
    def waiting(self) -> bool:
        """Whether errors wait for the broker."""
        return bool(self._waiting)

    def report(self, text: str) -> None:
        """Log and publish an error that answers no message."""
        log.error("%s", text)
        self._publish(messages.error(self._publisher.about, text))

    def refuse(self, received: Received, text: str) -> None:
        """Answer a message that asks for nothing that there is; log the first of them."""
        log.log(logging.DEBUG if self._refused else logging.WARNING, "%s: %s", received.topic, text)
        self._refused = True
        self.answer(received, text)

    def answer(self, received: Received, text: str) -> None:
        """Answer a message with an error."""
        about = self._publisher.about
        self._publish(messages.error(about, text, received.topic, received.payload))

    def flush(self) -> None:
        """Publish what waits, where the broker is there."""
        while self._waiting and self._publisher.connected.is_set():
            self._publisher.send(self._waiting.popleft())

    def _publish(self, error: messages.Message) -> None:
        if self._publisher.connected.is_set():
            self._publisher.send(error)
        else:
            self._waiting.append(error)
