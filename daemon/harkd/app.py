"""Settings → objects → signals → shutdown: what ``harkd run`` does.

Runs on the main thread, which only waits once all is built.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import msgspec

from harkd import __version__, messages
from harkd.audio import FileSource, FrameSource, StdinSource
from harkd.broker import LOOPBACK, EmbeddedBroker, is_taken
from harkd.errors import AudioError, HarkdError
from harkd.events import Event, Final, Partial, Rejected, State, StateChanged
from harkd.messages import About
from harkd.microphone import Microphone
from harkd.model_store import InstalledModel, ModelStore
from harkd.mqtt_connection import Address
from harkd.pipeline import Pipeline
from harkd.publisher import Publisher
from harkd.recognizer.protocol import Recognizer
from harkd.settings import Settings, models_dir, read_password

log = logging.getLogger(__name__)

SHUTDOWN_S = 10.0
"""A clean exit waits so long for the recognition of what was said last."""

Sink = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line adds to the settings."""

    source: str = ""
    """Empty for the microphone, ``wav:PATH``, or ``-`` for raw PCM on stdin."""
    rate_hz: int = 16000
    """Rate of raw PCM."""
    channels: int = 1
    """Channels of raw PCM."""
    print_events: bool = False
    """Write each event to stdout as a JSON line, too."""


def run(settings: Settings, options: RunOptions) -> int:
    """Run until the source ends or a signal comes; return the exit code."""
    source = make_source(settings, options)
    installed = find_model(settings)
    about = About(
        base_topic=settings.mqtt.base_topic,
        device_id=settings.effective_device_id,
        version=__version__,
        model=installed.manifest.name,
        provider="",
        retain_last=settings.mqtt.retain_last,
        max_age_s=settings.mqtt.max_age_s,
    )
    broker = start_broker(settings, about)
    publisher = Publisher(make_address(settings), protocol(settings, broker), about)
    sinks: list[Sink] = [publisher.publish, log_event, MicrophoneHint(sample_of(installed))]
    if options.print_events:
        sinks.append(EventPrinter(about))

    def sink(event: Event) -> None:
        for take in sinks:
            take(event)

    sink(StateChanged(State.STARTING, datetime.now(UTC)))
    publisher.start()
    try:
        recognizer = load(installed, settings)
        publisher.about = replace(about, provider=recognizer.provider)
        return run_pipeline(Pipeline(source, recognizer, settings, sink), sink)
    except HarkdError as error:
        sink(StateChanged(State.FAILED, datetime.now(UTC), str(error)))
        raise
    finally:
        publisher.stop()
        if broker:
            broker.stop()


def run_pipeline(pipeline: Pipeline, sink: Sink) -> int:
    """Run the pipeline until it ends by itself or by SIGTERM or SIGINT."""
    stopping = threading.Event()

    def give_up() -> None:
        log.error("recognition did not end within %g s; leaving at once", SHUTDOWN_S)
        os._exit(1)  # the broker sends our will

    def stop(signum: int, _frame: FrameType | None) -> None:
        if stopping.is_set():
            os._exit(128 + signum)  # asked twice: do not wait for anything
        stopping.set()
        timer = threading.Timer(SHUTDOWN_S, give_up)
        timer.daemon = True
        timer.start()
        pipeline.stop()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        pipeline.start()
        pipeline.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if pipeline.failure:
        sink(StateChanged(State.FAILED, datetime.now(UTC), str(pipeline.failure)))
        return 1
    log.info("stopped" if stopping.is_set() else "the input has ended")
    return 0


def make_source(settings: Settings, options: RunOptions) -> FrameSource:
    """Return the source that the command line and the settings name. Raises AudioError."""
    channel = str(settings.audio.channel)
    if options.source == "-":
        return StdinSource(sys.stdin.fileno(), options.rate_hz, options.channels, channel)
    if options.source:
        kind, colon, path = options.source.partition(":")
        if kind != "wav" or not colon or not path:
            raise AudioError(
                f'--source "{options.source}" is not known',
                "use wav:PATH, or - for raw PCM on stdin, or leave it out for the microphone",
            )
        return FileSource(Path(path).expanduser(), channel)
    return Microphone(settings.audio)


def find_model(settings: Settings) -> InstalledModel:
    """Return the model that the settings name, without any network. Raises ModelError."""
    store = ModelStore(models_dir(settings.models, os.environ))
    return store.locate(settings.recognizer.model)


def sample_of(installed: InstalledModel) -> Path | None:
    """Return a recording that came with the model, if there is one."""
    samples = installed.manifest.samples
    return installed.dir / samples[0].path if samples else None


def load(installed: InstalledModel, settings: Settings) -> Recognizer:
    """Load the recognizer. Raises ModelError."""
    from harkd.recognizer.factory import load_recognizer  # onnxruntime takes its time

    return load_recognizer(installed.dir, installed.manifest, settings.recognizer.threads)


def make_address(settings: Settings, suffix: str = "") -> Address:
    """Return the broker's address and the login. Raises SettingsError.

    `suffix` is added to the client id: two clients with one id throw each other out.
    """
    mqtt = settings.mqtt
    return Address(
        host=mqtt.host or LOOPBACK,
        port=mqtt.port,
        client_id=settings.effective_client_id + suffix,
        username=mqtt.username,
        password=read_password(mqtt),
        keepalive_s=mqtt.keepalive_s,
    )


def start_broker(settings: Settings, about: About) -> EmbeddedBroker | None:
    """Start the embedded broker where the settings name none. Raises BrokerError."""
    if settings.mqtt.host:
        return None
    port = settings.mqtt.port
    broker = None
    if is_taken(port):
        log.info("no mqtt.host is set, and a broker answers at %s:%d: using it", LOOPBACK, port)
    else:
        broker = EmbeddedBroker(port)
        broker.start()
        log.info(
            "no mqtt.host is set: started a broker on %s:%d, for this machine only and with "
            "MQTT 3.1.1 only",
            LOOPBACK,
            port,
        )
    log.info("see all messages: mosquitto_sub -p %d -t '%s' -v", port, about.topic("#"))
    return broker


def protocol(settings: Settings, broker: EmbeddedBroker | None) -> str:
    """Return the MQTT version to speak; the embedded broker knows one only."""
    return "3.1.1" if broker else settings.mqtt.protocol


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
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()


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
