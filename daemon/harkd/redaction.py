"""What may leave the recognizer where open text is private: what its owner wrote beforehand. Pure.

In: an event. Out: the event that the broker, the log and stdout get in its place. Any thread.
"""

from __future__ import annotations

from dataclasses import replace

from harkd.events import Event, Final, Partial, Rejected, RejectReason


def redacted(event: Event) -> Event | None:
    """Return an event without open text: a final becomes a rejection, a partial nothing.

    The segment still ends in exactly one event, so a subscriber knows that somebody spoke, when,
    and for how long, but not what was said. A final that is a phrase keeps the phrase's words, and
    loses what was heard openly, the times of its words included.
    """
    match event:
        case Partial():
            return None
        case Final(match=match) if match:
            return replace(event, open_text="", words=())
        case Final():
            return Rejected(event.id, RejectReason.PRIVATE, event.started_at, event.duration_s)
        case _:
            return event
