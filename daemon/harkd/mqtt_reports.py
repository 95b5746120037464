"""What the log says of the broker and of finals on their way: the first of a kind, not its repeats.

`Reports` is called on the `mqtt` thread, `FinalReports` on the `delivery` one.
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
from harkd.outbox_file import Kept

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


class FinalReports:
    """Logs what becomes of finals."""

    def __init__(self) -> None:
        self._told_late = False
        self._told_refused = False

    def begin_anew(self) -> None:
        """A new connection: late finals are worth a word again."""
        self._told_late = False

    def late(self, kept: Kept, max_age_s: float) -> None:
        """It goes to `transcript/missed`."""
        level = logging.DEBUG if self._told_late else logging.WARNING
        self._told_late = True
        why = f"older than {max_age_s:g} s" if kept.aged else "from before the machine started"
        log.log(level, "final %s is %s: sent to transcript/missed", kept.final.id, why)

    def refused(self, kept: Kept, again_s: float) -> None:
        """The broker did not take it."""
        level = logging.DEBUG if self._told_refused else logging.ERROR
        self._told_refused = True
        text = "the broker refused final %s: it waits, and is tried again every %g s"
        log.log(level, text, kept.final.id, again_s)

    def hangs(self, seconds: float) -> str:
        """The disk does not answer; return what to tell others of it."""
        problem = (
            f"the disk has not answered for {seconds:g} s. Finals are sent without waiting for it; "
            "check the disk under state.dir."
        )
        log.error("%s", problem)
        return problem

    def taken(self, kept: Kept) -> None:
        """The broker took one that it had refused."""
        self._told_refused = False
        log.info("final %s was taken now, which had been refused", kept.final.id)

    def lost(self, kept: Kept, why: str) -> None:
        """The broker will never take it."""
        log.error("final %s is lost: the broker says %s", kept.final.id, why)

    def blamed(self, kept: Kept, times: int) -> None:
        """It seems to end connections."""
        log.error(
            "%d connections ended at final %s: it waits until the next start. Look into the "
            "broker's log; it may be larger than the broker takes.",
            times,
            kept.final.id,
        )
