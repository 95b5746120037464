"""Where events go besides MQTT: the log, stdout, and a hint for people without a microphone.

Called on the thread on which an event happens.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from pathlib import Path

import msgspec

from harkd import messages
from harkd.events import Event, Final, Partial, Rejected, State, StateChanged
from harkd.messages import About

log = logging.getLogger(__name__)


def log_event(event: Event) -> None:
    """Write one line for each utterance; other events are for debugging."""
    match event:
        case Final():
            now_ns = time.monotonic_ns()
            latency_ms = round((now_ns - event.speech_end_ns) / 1e6)
            endpoint_ms = round((now_ns - event.endpoint_ns) / 1e6)
            log.info(
                '"%s" (%.1f s, confidence %.2f; %d ms after the last word, %d ms after the '
                "endpoint; id %s)",
                event.text,
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
                    }
                },
            )
        case Rejected():
            log.info(
                "rejected %.1f s of sound: %s (id %s)",
                event.duration_s,
                event.reason,
                event.id,
                extra={"fields": {"event": "rejected", "id": event.id, "reason": event.reason}},
            )
        case Partial():
            log.debug('… "%s" (rev %d)', event.text, event.rev)
        case StateChanged():
            log.debug("state %s %s", event.state, event.reason)


class EventPrinter:
    """Writes events to stdout as JSON lines: the MQTT payload with the topic's name before it."""

    def __init__(self, about: About) -> None:
        self._about = about
        self._lock = threading.Lock()
        self._open = True

    def __call__(self, event: Event) -> None:
        """Write one event."""
        about = self._about
        match event:
            case Final():
                message = messages.final(about, event, time.monotonic_ns())[0]
            case Partial():
                message = messages.partial(about, event)
            case Rejected():
                message = messages.rejected(about, event)
            case StateChanged():
                message = messages.state(about, event)
        name = message.topic.removeprefix(about.topic(""))
        line = msgspec.json.encode({"topic": name, **msgspec.json.decode(message.payload)})
        with self._lock:
            if self._open:
                self._write(line + b"\n")

    def _write(self, line: bytes) -> None:
        try:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        except OSError as error:  # `| head -1`, a full disk: no reason to stop listening
            self._open = False
            log.warning("stdout cannot be written (%s); no more events are printed", error.strerror)


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
