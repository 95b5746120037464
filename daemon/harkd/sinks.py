"""Where events go besides MQTT: the log, stdout, and a hint for people without a microphone.

Called on the thread on which an event happens.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from harkd import final_messages, messages
from harkd.events import AwakeChanged, Event, Final, Partial, Rejected, State, StateChanged, Woken
from harkd.messages import About, Message

log = logging.getLogger(__name__)

MOST_LINES = 1000
CLOSE_S = 1.0


def log_event(event: Event) -> None:
    """Write one line for each utterance; other events are for debugging."""
    match event:
        case Final():
            now_ns = time.monotonic_ns()
            latency_ms = round((now_ns - event.speech_end_ns) / 1e6)
            endpoint_ms = round((now_ns - event.endpoint_ns) / 1e6)
            log.info(
                '"%s"%s (%.1f s, confidence %.2f; %d ms after the last word, %d ms after the '
                "endpoint; id %s)",
                event.text,
                f", {event.match.intent} {dict(event.match.slots)}" if event.match else "",
                event.duration_s,
                event.confidence,
                latency_ms,
                endpoint_ms,
                event.id,
                extra={
                    "fields": {
                        "event": "final",
                        "id": event.id,
                        "rev": event.rev,
                        "text": event.text,
                        "confidence": round(event.confidence, 3),
                        "duration_s": round(event.duration_s, 2),
                        "latency_ms": latency_ms,
                        "endpoint_ms": endpoint_ms,
                        **({"intent": event.match.intent} if event.match else {}),
                    }
                },
            )
        case Rejected():
            log.info(
                "rejected %.1f s of sound: %s (id %s)",
                event.duration_s,
                event.reason,
                event.id,
                extra={
                    "fields": {
                        "event": "rejected",
                        "id": event.id,
                        "reason": event.reason,
                        "duration_s": round(event.duration_s, 2),
                    }
                },
            )
        case Woken():
            log.info(
                "wake word %s (score %.2f)",
                event.word,
                event.score,
                extra={
                    "fields": {
                        "event": "wake",
                        "word": event.word,
                        "score": round(event.score, 3),
                    }
                },
            )
        case Partial():
            log.debug('… "%s" (rev %d)', event.text, event.rev)
        case StateChanged():
            log.debug(
                "state %s %s",
                event.state,
                event.reason,
                extra={
                    "fields": {
                        "event": "state",
                        "state": event.state,
                        "reason": event.reason,
                        "problem": event.problem,
                    }
                },
            )


class EventPrinter:
    """Writes events to stdout as JSON lines: the MQTT payload with the topic's name before it.

    On a thread of its own: a reader that is slow, or stopped, must not hold up listening.

    Args:
        about: Tells what messages say of this daemon now.
    """

    def __init__(self, about: Callable[[], About]) -> None:
        self._about = about
        self._lines: queue.Queue[bytes | None] = queue.Queue(MOST_LINES)
        self._thread = threading.Thread(target=self._write, name="print", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Print one event, soon; it is dropped while the reader is `MOST_LINES` behind."""
        about = self._about()
        match event:
            case Final():
                message = final_messages.final(about, event, time.monotonic_ns())[0]
            case Partial():
                message = messages.partial(about, event)
            case Rejected():
                message = messages.rejected(about, event)
            case StateChanged():
                message = messages.state(about, event)
            case Woken():
                message = messages.wake(about, event)
            case AwakeChanged():
                return  # its payload is a word, no object
        name = message.topic.removeprefix(about.topic(""))
        line = msgspec.json.encode({"topic": name, **msgspec.json.decode(message.payload)})
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(line + b"\n")

    def close(self) -> None:
        """Give the reader a moment for what is left."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=CLOSE_S)
        self._thread.join(CLOSE_S)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
            except OSError as error:  # `| head -1`, a full disk: no reason to stop listening
                reason = error.strerror
                log.warning("stdout cannot be written (%s); no more events are printed", reason)
                return


class MicrophoneAvailability:
    """Tells on `microphone/availability` whether audio comes: only while it is listened to.

    Args:
        keep: Publishes a retained message.
        about: Tells what messages say of this daemon now.
    """

    def __init__(self, keep: Callable[[Message], None], about: Callable[[], About]) -> None:
        self._keep = keep
        self._about = about
        self._online: bool | None = None

    def __call__(self, event: Event) -> None:
        """Look at one event."""
        if isinstance(event, StateChanged):
            self._tell(event.state in (State.LISTENING, State.SPEECH))

    def close(self) -> None:
        """No more audio comes."""
        self._tell(False)

    def _tell(self, online: bool) -> None:
        if online != self._online:
            self._online = online
            self._keep(messages.microphone_availability(self._about(), online=online))


class MicrophoneHint:
    """Tells a person without a microphone, once, how to try harkd all the same."""

    def __init__(self, sample: Path | None) -> None:
        self._sample = sample
        self._told = False

    def __call__(self, event: Event) -> None:
        """Look at one event."""
        if not isinstance(event, StateChanged) or self._told:
            return
        if event.state is State.LISTENING:
            self._told = True
        elif event.state is State.NO_MICROPHONE and self._sample:
            self._told = True
            log.info("to try it without a microphone: harkd run --source wav:%s", self._sample)
