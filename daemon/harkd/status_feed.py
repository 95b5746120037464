"""What is being said, for `harkd status`: the daemon's own topics, read from the broker.

In: the broker's address and the daemon's topics. Out: the newest message of each, at any time. It
connects as a client of its own that only reads; a thread, `feed`, connects again for ever.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from harkd.errors import BrokerError
from harkd.mqtt_address import Address
from harkd.mqtt_connection import Connection, Down, Inbox, NotSubscribed, Received, connect

NAMES: Final = (
    "availability",
    "state",
    "health",
    "transcript",
    "transcript/last",
    "transcript/partial",
    "transcript/rejected",
)
AGAIN_S: Final = 5.0
SETTLE_S: Final = 0.5
"""Retained messages have come so long after the broker has let us read, or there are none."""


class StatusFeed:
    """Reads.

    Args:
        address: The broker, and the login.
        protocol: As `mqtt.protocol`.
        roots: What the topics of each input begin with.
    """

    def __init__(self, address: Address, protocol: str, roots: Sequence[str]) -> None:
        self._address = address
        self._protocol = protocol
        self._topics = [f"{root}/{name}" for root in roots for name in NAMES]
        self._newest: dict[str, Any] = {}
        self.problem = "connecting"
        """Why nothing comes; empty while the broker is there."""
        self._connection: Connection | None = None
        self._settled = threading.Event()
        self._inbox: Inbox = Inbox()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Read no more."""
        self._stopping.set()
        self._inbox.put(Down("stopping"))
        self._thread.join(2.0)

    def wait(self, timeout_s: float) -> None:
        """Wait until what lay at the broker is there, or that is in vain."""
        if self._settled.wait(timeout_s) and not self.problem:
            time.sleep(SETTLE_S)

    def newest(self, root: str, name: str) -> Any:
        """Return the newest message on a topic: an object, a text, or None where none came."""
        return self._newest.get(f"{root}/{name}")

    def speaking(self, root: str) -> dict[str, Any] | None:
        """Return the partial of what is being said; None where nothing is."""
        partial = self.newest(root, "transcript/partial")
        ended = [self.newest(root, name) for name in ("transcript", "transcript/rejected")]
        if not isinstance(partial, dict) or any(
            isinstance(each, dict) and each.get("id") == partial.get("id") for each in ended
        ):
            return None
        return partial

    def last(self, root: str) -> dict[str, Any] | None:
        """Return the last final; None where there is none."""
        for name in ("transcript", "transcript/last"):
            if isinstance(final := self.newest(root, name), dict):
                return final
        return None

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._inbox = inbox = Inbox()
                connection = connect(self._address, self._protocol, inbox)
            except BrokerError as error:
                self.problem = str(error)
                self._settled.set()
                self._stopping.wait(AGAIN_S)
                continue
            try:
                self.problem = ""
                connection.subscribe(self._topics)
                connection.subscribed.wait(AGAIN_S)
                self._settled.set()
                self._read(inbox)
            finally:
                connection.close()

    def _read(self, inbox: Inbox) -> None:
        while not self._stopping.is_set():
            match inbox.get():
                case Received() as received:
                    self._take(received)
                case NotSubscribed() as barred:
                    self.problem = (
                        f"the broker does not let us read {barred.topic} ({barred.refusal}): allow "
                        f'the user "{self._address.username}" to read it'
                    )
                case Down() as end:
                    self.problem = f"the broker hung up ({end.reason}); connecting again"
                    self._stopping.wait(1.0)
                    return

    def _take(self, received: Received) -> None:
        text = received.payload.decode("utf-8", "replace")
        try:
            self._newest[received.topic] = json.loads(text) if text[:1] == "{" else text
        except ValueError:
            self._newest.pop(received.topic, None)
