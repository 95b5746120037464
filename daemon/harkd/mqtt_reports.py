"""What the log says of the connection to the broker: the first of a kind, not its repeats.

Called on the `mqtt` thread.
"""

from __future__ import annotations

import logging

from harkd.errors import BrokerError, BrokerRefusedError, BrokerUntrustedError
from harkd.mqtt_connection import (
    CLOSED,
    TAKEN_OVER,
    WORDS,
    Acknowledged,
    Address,
    NotSubscribed,
)

log = logging.getLogger(__name__)

BACKOFF_REFUSED_S = 60.0
"""The slowest pace, for what passes only when a person mends it."""
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
        self._taken = False
        self._refusals: set[str] = set()

    def failed(self, error: BrokerError) -> None:
        """No connection came about."""
        lasting = isinstance(error, BrokerRefusedError | BrokerUntrustedError)
        level = logging.ERROR if lasting else logging.WARNING
        log.log(logging.DEBUG if str(error) == self._told else level, "%s", error)
        self._told = str(error)

    def lost(self, reason: str, lasted_s: float) -> float:
        """A connection ended; return for how long at least none is to be tried, in seconds."""
        self._told = ""
        if reason == TAKEN_OVER:
            return self._lost_to_another()
        self._taken = False
        # Before MQTT 5, and with Mosquitto 2.0.11 even there, a broker that lets another client in
        # with our client id just hangs up. So does one that restarts, which is no reason to wait.
        guess = reason == CLOSED and lasted_s < STEADY_S
        self._brief = self._brief + 1 if guess else 0
        level = logging.WARNING if self._brief < BRIEF_MOST else logging.DEBUG
        why = WORDS.get(reason, reason)
        log.log(level, "lost the broker at %s (%s); reconnecting", self._address, why)
        if self._brief == BRIEF_MOST:
            log.error(
                "the broker at %s closed the last %d connections within seconds: another harkd "
                'seems to use the client id "%s". Stop it, or give each its own device_id.',
                self._address,
                BRIEF_MOST,
                self._address.client_id,
            )
        return 0.0

    def _lost_to_another(self) -> float:
        level = logging.DEBUG if self._taken else logging.ERROR
        log.log(
            level,
            'another harkd has connected to the broker at %s with our client id "%s", and the '
            "broker lets only one in: each throws the other out. Stop it, or give each its own "
            "device_id.",
            self._address,
            self._address.client_id,
        )
        self._taken = True
        return BACKOFF_REFUSED_S

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
