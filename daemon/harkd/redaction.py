"""What may leave the recognizer where open text is private. Pure.

In: an event. Out: the event that the broker, the log and stdout get in its place. Any thread.
"""

from __future__ import annotations

from harkd.events import Event, Final, Partial, Rejected, RejectReason


def redacted(event: Event) -> Event | None:
    """Return an event without open text: a final becomes a rejection, a partial nothing.

    The segment still ends in exactly one event, so a subscriber knows that somebody spoke, when,
    and for how long, but not what was said.
    """
    match event:
        case Partial():
            return None
        case Final():
            return Rejected(event.id, RejectReason.PRIVATE, event.started_at, event.duration_s)
        case _:
            return event
