"""A final → MQTT messages: `transcript` and its conveniences, and the command that it is. Pure.

In: a final, and how old it is. Out: `Message` values, in the order in which they are to be sent.
Any thread.
"""

from __future__ import annotations

import math

import msgspec

from harkd.events import Final, PhraseMatch
from harkd.messages import About, Message, utc

MOST: int = 4
"""So many messages a final is at most."""


def final(about: About, event: Final, now_ns: int | None) -> list[Message]:
    """Return what a final is published as.

    Args:
        about: The sender.
        event: The final.
        now_ns: When it is handed to the MQTT client, in nanoseconds of the clock that
            `speech_end_ns` is on; None where its age is unknown, and it may be old.

    Returns:
        On time: `transcript` first, whose acknowledgement counts, then the command, where it is
        one, then the conveniences. Older than `max_age_s`: only `transcript/missed`.
    """
    age_s = None if now_ns is None else (now_ns - event.speech_end_ns) / 1e9
    late = age_s is None or age_s > about.max_age_s
    payload = msgspec.json.encode(_final_payload(about, event, age_s, late))
    if age_s is None or late:
        return [Message(about.topic("transcript/missed"), payload, 1)]
    expiry_s = max(1, math.ceil(about.max_age_s - age_s))
    messages = [Message(about.topic("transcript"), payload, 1, expiry_s=expiry_s)]
    if event.match:
        command = msgspec.json.encode(_command_payload(about, event, event.match, age_s))
        topic = about.topic(f"command/{event.match.intent}")
        messages.append(Message(topic, command, 1, expiry_s=expiry_s))
    messages.append(
        Message(about.topic("transcript/text"), event.text.encode(), 1, expiry_s=expiry_s)
    )
    if about.retain_last:
        messages.append(Message(about.topic("transcript/last"), payload, 1, retain=True))
    return messages


def _final_payload(
    about: About, event: Final, age_s: float | None, late: bool
) -> dict[str, object]:
    payload: dict[str, object] = {
        "event_type": "final",
        "id": event.id,
        "rev": event.rev,
        "text": event.text,
        "confidence": round(event.confidence, 3),
        "started_at": utc(event.started_at),
        "ended_at": utc(event.ended_at),
        "duration_s": round(event.duration_s, 2),
        "latency_ms": None if age_s is None else round(age_s * 1000),
        "language": event.language,
        "model": event.model,
        "device_id": about.device_id,
        "late": late,
    }
    if event.test:
        payload["test"] = True
    if event.match:
        payload["match"] = _match(event.match)
        if event.open_text:
            payload["open_text"] = event.open_text
    if event.words:
        payload["words"] = [
            {"word": w.word, "start_s": round(w.start_s, 2), "end_s": round(w.end_s, 2)}
            for w in event.words
        ]
    return payload


def _match(match: PhraseMatch) -> dict[str, object]:
    return {
        "phrase": match.phrase,
        "intent": match.intent,
        "slots": dict(match.slots),
        "score": round(match.score, 3),
        "margin": round(match.margin, 3),
    }


def _command_payload(
    about: About, event: Final, match: PhraseMatch, age_s: float
) -> dict[str, object]:
    payload: dict[str, object] = {
        "event_type": match.intent,
        "id": event.id,
        **_match(match),
        "text": event.text,
        "started_at": utc(event.started_at),
        "ended_at": utc(event.ended_at),
        "latency_ms": round(age_s * 1000),
        "device_id": about.device_id,
    }
    if event.test:
        payload["test"] = True
    return payload
