"""Finals for tests of what keeps and delivers them."""

from __future__ import annotations

from datetime import UTC, datetime

from harkd.events import Final, Word
from harkd.outbox_file import Kept

SPOKEN = datetime(2026, 11, 22, 18, 4, 5, 123_456, UTC)


def final(ident: str, text: str = "Turn on the light.", spoken_ns: int = 0) -> Final:
    """A final with this id, whose last word was spoken at that time of the clock in use."""
    return Final(
        id=ident,
        rev=2,
        text=text,
        confidence=0.93456,
        started_at=SPOKEN,
        ended_at=SPOKEN,
        duration_s=1.8649,
        speech_end_ns=spoken_ns,
        endpoint_ns=spoken_ns + 600_000_000,
        language="en",
        model="tiny",
        words=(Word("Turn", 0.1, 0.3), Word("on", 0.3, 0.4)),
    )


def kept(number: int, kept_ns: int = 0, ident: str = "") -> Kept:
    """A final with this number; its id is made of it unless given."""
    return Kept(number, final(ident or f"id-{number}"), kept_ns)
