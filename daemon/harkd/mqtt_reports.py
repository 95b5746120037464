"""What the log says of the connection to the broker: the first of a kind, not its repeats.

Called on the `mqtt` thread.
"""

from __future__ import annotations

import logging

from harkd.errors import BrokerError, BrokerRefusedError
from harkd.mqtt_connection import Acknowledged, Address, NotSubscribed

log = logging.getLogger(__name__)

STEADY_S = 10.0
"""A connection that held so long resets the backoff."""
BRIEF_MOST = 3
"""So many connections in a row that held less mean that somebody else has our client id."""
NOT_AUTHORIZED = 0x87


class Reports:
    """Logs what happens to the connection.

    Args:
        address: The broker.
        topics: All our topics, as a filter.
    """

    def __init__(self, address: Address, topics: str) -> None:
        self._address = address
        self._topics = topics
        self._told = ""
        self._brief = 0
        self._refusals: set[str] = set()

    def failed(self, error: BrokerError) -> None:
        """No connection came about."""
        level = logging.ERROR if isinstance(error, BrokerRefusedError) else logging.WARNING
        log.log(logging.DEBUG if str(error) == self._told else level, "%s", error)
        self._told = str(error)

    def lost(self, reason: str, lasted_s: float) -> None:
        """A connection ended."""
        self._told = ""
        self._brief = self._brief + 1 if lasted_s < STEADY_S else 0
        level = logging.WARNING if self._brief < BRIEF_MOST else logging.DEBUG
        why = "it closed the connection" if reason == "Unspecified error" else reason
        log.log(level, "lost the broker at %s (%s); reconnecting", self._address, why)
        if self._brief == BRIEF_MOST:
            log.error(
                "the broker at %s closed the last %d connections within seconds: another harkd "
                'seems to use the client id "%s". Stop it, or give each its own device_id.',
                self._address,
                BRIEF_MOST,
                self._address.client_id,
            )

    def refused(self, answer: Acknowledged) -> None:
        """The broker answered a message; tell where it refused it."""
        if not answer.refusal or answer.refusal in self._refusals:
            return
        self._refusals.add(answer.refusal)
        mend = f"; allow the user {self._address.username!r} to write {self._topics}"
        mend = mend if answer.code == NOT_AUTHORIZED else ""
        log.error("the broker refused a message (%s)%s", answer.refusal, mend)

    def unheard(self, answer: NotSubscribed) -> None:
        """The broker does not let us read a topic."""
        if answer.topic in self._refusals:
            return
        self._refusals.add(answer.topic)
        log.error(
            "the broker does not let us read %s (%s); allow the user %r to read it",
            answer.topic,
            answer.refusal,
            self._address.username,
        )
