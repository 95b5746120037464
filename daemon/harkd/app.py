"""Settings → objects → signals → shutdown: what ``harkd run`` does.

Runs on the main thread, which only waits once all is built.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from harkd import __version__
from harkd.announcing import Announced, Announcer, this_machine
from harkd.audio import FileSource, FrameSource, StdinSource
from harkd.broker import LOOPBACK, EmbeddedBroker, is_taken
from harkd.discovery import Device
from harkd.errors import AudioError, HarkdError
from harkd.events import Event, State, StateChanged
from harkd.hermes_answering import TOPICS as HERMES_TOPICS
from harkd.hermes_answering import HermesAnswerer
from harkd.messages import About
from harkd.microphone import Microphone
from harkd.model_store import InstalledModel, find_model
from harkd.mqtt_connection import Address, Received
from harkd.pipeline import Pipeline
from harkd.publisher import Publisher
from harkd.recognizer.protocol import Effort, Recognizer
from harkd.settings import Settings, read_password, silence_bounds_ms, state_dir
from harkd.settings_file import expand
from harkd.sinks import EventPrinter, MicrophoneHint, log_event
from harkd.stopper import Stopper

log = logging.getLogger(__name__)


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


def run(settings: Settings, options: RunOptions, stopper: Stopper) -> int:
    """Run until the source ends or `stopper` is asked; return the exit code."""
    source = make_source(settings, options)
    installed = find_model(settings)
    address = make_address(settings)
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
    publisher = Publisher(address, protocol(settings, broker), about)
    announcer = make_announcer(settings, publisher)
    hermes = make_hermes(settings, publisher)
    listen(publisher, announcer, hermes)
    announcer.announce(Device(about, this_machine(), silence_bounds_ms(settings.endpoint)))
    sinks: list[Sink] = [publisher.publish, log_event, MicrophoneHint(sample_of(installed))]
    if hermes:
        sinks.append(hermes.hear)
    printer = EventPrinter(lambda: publisher.about) if options.print_events else None
    if printer:
        sinks.append(printer)

    def sink(event: Event) -> None:
        for take in sinks:
            take(event)

    sink(StateChanged(State.STARTING, datetime.now(UTC)))
    publisher.start()
    try:
        recognizer = load(installed, settings)
        publisher.about = replace(about, provider=recognizer.provider)
        return run_pipeline(Pipeline(source, recognizer, settings, sink), sink, stopper)
    except HarkdError as error:
        sink(StateChanged(State.FAILED, datetime.now(UTC), str(error)))
        raise
    finally:
        announcer.stop()
        if hermes:
            hermes.stop()
        publisher.stop()
        if printer:
            printer.close()
        if broker:
            broker.stop()


def make_announcer(settings: Settings, publisher: Publisher) -> Announcer:
    """Return what tells Home Assistant of this device."""
    mqtt = settings.mqtt
    announced = Announced(state_dir(settings.state, os.environ))
    return Announcer(mqtt.discovery, mqtt.discovery_prefix, publisher, announced)


def make_hermes(settings: Settings, publisher: Publisher) -> HermesAnswerer | None:
    """Return what answers Hermes sessions, if that is wanted."""
    if not settings.hermes.enabled:
        return None
    answerer = HermesAnswerer(settings.effective_site_id, publisher.send)
    answerer.start()
    return answerer


def listen(publisher: Publisher, announcer: Announcer, hermes: HermesAnswerer | None) -> None:
    """Give each message that comes to the one who wants it."""
    takers: dict[str, Callable[[Received], None]] = {}
    takers |= dict.fromkeys(announcer.topics, announcer.take)
    if hermes:
        takers |= dict.fromkeys(HERMES_TOPICS, hermes.take)
    publisher.listen(list(takers), lambda received: takers[received.topic](received))


def run_pipeline(pipeline: Pipeline, sink: Sink, stopper: Stopper) -> int:
    """Run the pipeline until it ends by itself or is stopped."""
    stopper.stop_with(pipeline.stop)
    pipeline.start()
    pipeline.wait()
    if pipeline.failure:
        sink(StateChanged(State.FAILED, datetime.now(UTC), str(pipeline.failure)))
        return 1
    log.info("stopped" if stopper.asked else "the input has ended")
    return 0


def make_source(settings: Settings, options: RunOptions) -> FrameSource:
    """Return the source that the command line and the settings name. Raises AudioError."""
    channel = str(settings.audio.channel)
    if options.source == "-":
        if sys.stdin is None:
            raise AudioError("--source - needs stdin, which is closed", "pipe raw PCM into harkd")
        return StdinSource(sys.stdin.fileno(), options.rate_hz, options.channels, channel)
    if options.source:
        kind, colon, path = options.source.partition(":")
        if kind != "wav" or not colon or not path:
            raise AudioError(
                f'--source "{options.source}" is not known',
                "use wav:PATH, or - for raw PCM on stdin, or leave it out for the microphone",
            )
        return FileSource(expand(path), channel)
    return Microphone(settings.audio)


def sample_of(installed: InstalledModel) -> Path | None:
    """Return a recording that came with the model, if there is one."""
    samples = installed.manifest.samples
    return installed.dir / samples[0].path if samples else None


def load(installed: InstalledModel, settings: Settings) -> Recognizer:
    """Load the recognizer. Raises ModelError."""
    from harkd.recognizer.factory import load_recognizer  # onnxruntime takes its time

    threads = settings.recognizer.threads
    return load_recognizer(installed.dir, installed.manifest, threads, effort_of(settings))


def effort_of(settings: Settings) -> Effort:
    """Return what a recognizer may leave out."""
    wanted = settings.recognizer
    return Effort(
        incremental=wanted.incremental,
        draft=wanted.draft,
        partial_confidence=wanted.partial_confidence,
    )


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
