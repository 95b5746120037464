"""What lies on both sides of `Delivery`: the disk and the connection; and what is on its way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from harkd.messages import Message
from harkd.outbox_file import Kept


class Link(Protocol):
    """What is needed of a connection."""

    def send(self, message: Message) -> int | None:
        """Hand one message over; return its id, or None where the connection is gone."""


class Keeping(Protocol):
    """What is needed of the disk's thread; nothing of it waits."""

    def write(self, kept: Kept) -> None:
        """Write a final; `Delivery.written` tells when that is done."""

    def forget(self, number: int) -> None:
        """Remove a final: the broker has it."""

    def read(self, number: int, most: int) -> None:
        """Read what comes behind `number`; `Delivery.read` gets it."""


@dataclass(slots=True)
class Flight:
    """A final that the broker has not answered yet."""

    kept: Kept
    """The final."""
    mids: list[int]
    """Ids of its messages; the first one's refusal is the final's."""
    refusal: int = 0
    """The first message's reason code where the broker refused it, else 0."""
    again: bool = False
    """Whether it was refused before."""
