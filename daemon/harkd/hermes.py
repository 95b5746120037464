"""Rhasspy's Hermes protocol, the part of a speech recognizer: payloads ↔ values. Pure.

In: what came on `TOPICS`, and finals. Out: `Request` values, and the `Message` values of the
answers. Any thread.
Reference: https://rhasspy.readthedocs.io/en/latest/reference/#automated-speech-recognition, and
the message classes of https://github.com/rhasspy/rhasspy-hermes where it is silent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from harkd import events
from harkd.messages import Message

TOGGLE_ON: Final = "hermes/asr/toggleOn"
TOGGLE_OFF: Final = "hermes/asr/toggleOff"
START: Final = "hermes/asr/startListening"
STOP: Final = "hermes/asr/stopListening"
CAPTURED: Final = "hermes/asr/textCaptured"
ERROR: Final = "hermes/error/asr"

DEFAULT_SITE: Final = "default"
"""Who is meant where a message names no site."""
CONTEXT_MOST: Final = 200
"""So many characters of a bad payload are repeated in the answer to it."""


class ToggleOn(msgspec.Struct, frozen=True):
    """The reason no longer keeps sessions from being heard."""

    reason: str | None = None
    """None or empty for every reason."""


class ToggleOff(msgspec.Struct, frozen=True):
    """For this reason, sessions are not to be heard."""

    reason: str | None = None
    """None or empty for one that only an equal one, or one for all, ends."""


class Start(msgspec.Struct, frozen=True, rename="camel"):
    """A session begins."""

    session_id: str | None = None
    """Its name; None for a session without one."""
    stop_on_silence: bool = True
    """Whether the first final ends it; else only a `Stop` does."""
    wakeword_id: str | None = None
    """What woke the speaker's attention; given back with the answer."""
    lang: str | None = None
    """Its language; given back where nothing was heard."""


class Stop(msgspec.Struct, frozen=True, rename="camel"):
    """A session ends."""

    session_id: str | None = None
    """Its name; None for a session without one."""


Request = ToggleOn | ToggleOff | Start | Stop
KINDS: Final[dict[str, type[Request]]] = {
    TOGGLE_ON: ToggleOn,
    TOGGLE_OFF: ToggleOff,
    START: Start,
    STOP: Stop,
}
TOPICS: Final = tuple(KINDS)
"""What to subscribe to; no wildcards."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One final that belongs to a session."""

    final: events.Final
    """What was said."""
    took_s: float
    """Seconds from the decision that it had ended to its text."""


def request(site_id: str, topic: str, payload: bytes) -> Request | Message | None:
    """Return what is asked of this site.

    Returns:
        The request, None where another site is meant, or the message that says what is wrong.
    """
    try:
        asked = msgspec.json.decode(payload, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _error(site_id, None, topic, payload, error)
    site = asked.get("siteId")
    if isinstance(site, str | None) and (site or DEFAULT_SITE) != site_id:
        return None
    try:
        msgspec.convert(site, str | None)
        return msgspec.convert(asked, KINDS[topic])
    except msgspec.ValidationError as error:
        return _error(site_id, asked.get("sessionId"), topic, payload, error)


def captured(site_id: str, session: Start, heard: Sequence[Heard]) -> Message:
    """Return the answer to a session: all that was heard in it, which may be nothing."""
    texts = [one.final.text for one in heard]
    payload = {
        "text": " ".join(texts),
        # Of the whole, no more is certain than of its most doubtful part.
        "likelihood": round(min((one.final.confidence for one in heard), default=0.0), 3),
        "seconds": round(sum(one.took_s for one in heard), 3),
        "siteId": site_id,
        "sessionId": session.session_id,
        "wakewordId": session.wakeword_id,
        "lang": heard[0].final.language if heard else session.lang,
        "asrTokens": [_tokens(heard)] if heard else [],
    }
    return Message(CAPTURED, msgspec.json.encode(payload), 1)


def detected(site_id: str, word: str) -> Message:
    """Return what tells that a wake word was said; a dialogue manager opens a session then.

    https://rhasspy.readthedocs.io/en/latest/reference/#hotword-detection
    """
    payload = {
        "modelId": word,
        "modelVersion": "",
        "modelType": "universal",
        "currentSensitivity": 1.0,
        "siteId": site_id,
        "sessionId": None,
        "sendAudioCaptured": None,
        "lang": None,
    }
    return Message(f"hermes/hotword/{word}/detected", msgspec.json.encode(payload), 1)


def begin_ns(final: events.Final) -> int:
    """Return the monotonic time of a final's first voiced sample, in nanoseconds."""
    return final.speech_end_ns - round(final.duration_s * 1e9)


def _tokens(heard: Sequence[Heard]) -> list[dict[str, Any]]:
    """Return each word, where it stands in the text, and when it was said if that is known."""
    tokens: list[dict[str, Any]] = []
    at = 0
    for one in heard:
        final = one.final
        words = list(re.finditer(r"\S+", final.text))
        timed = len(words) == len(final.words)
        after_s = (begin_ns(final) - begin_ns(heard[0].final)) / 1e9
        for i, word in enumerate(words):
            token: dict[str, Any] = {
                "value": word.group(),
                "confidence": round(final.confidence, 3),
                "rangeStart": at + word.start(),
                "rangeEnd": at + word.end(),
                "time": None,
            }
            if timed:
                start_s, end_s = final.words[i].start_s, final.words[i].end_s
                token["time"] = {
                    "start": round(after_s + start_s, 2),
                    "end": round(after_s + end_s, 2),
                }
            tokens.append(token)
        at += len(final.text) + 1
    return tokens


def _error(
    site_id: str, session_id: object, topic: str, payload: bytes, error: Exception
) -> Message:
    said = payload[: 4 * CONTEXT_MOST].decode("utf-8", errors="replace")[:CONTEXT_MOST]
    answer = {
        "error": f"{topic}: {error}; send a JSON object as Rhasspy's reference has it",
        "siteId": site_id,
        "sessionId": session_id if isinstance(session_id, str) else None,
        "context": said,
    }
    return Message(ERROR, msgspec.json.encode(answer), 1)
