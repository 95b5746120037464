"""Finals that the broker has not acknowledged yet.

`MemoryOutbox` keeps them in this process: they survive a broker's absence, not a crash.
Used under the publisher's lock.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Protocol

from harkd.events import Final

log = logging.getLogger(__name__)

MOST_FINALS = 1000
"""A day of talk; about 1 MB."""


class Outbox(Protocol):
    """What the publisher needs of an outbox."""

    def add(self, final: Final) -> None:
        """Keep a final until `remove`."""

    def remove(self, ident: str) -> None:
        """Forget the final with this id: the broker has it."""

    def waiting(self) -> list[Final]:
        """Return all that are kept, oldest first."""


class MemoryOutbox:
    """An outbox in memory, bounded: the oldest final gives way, and the log says so."""

    def __init__(self, most: int = MOST_FINALS) -> None:
        self._most = most
        self._finals: OrderedDict[str, Final] = OrderedDict()

    def add(self, final: Final) -> None:
        """Keep a final until `remove`."""
        if final.id not in self._finals and len(self._finals) >= self._most:
            ident, _ = self._finals.popitem(last=False)
            log.error("the broker has been away for %d finals; %s is lost", self._most, ident)
        self._finals[final.id] = final

    def remove(self, ident: str) -> None:
        """Forget the final with this id."""
        self._finals.pop(ident, None)

    def waiting(self) -> list[Final]:
        """Return all that are kept, oldest first."""
        return list(self._finals.values())
