"""Settings → objects → signals → shutdown: what ``harkd run`` does.

Runs on the main thread, which only waits once all is built.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from harkd import __version__
from harkd.audio import FileSource, StdinSource
from harkd.broker import LOOPBACK, EmbeddedBroker, is_taken
from harkd.counters import Counters
from harkd.errors import AudioError, HarkdError
from harkd.events import Event, RejectReason, State, StateChanged
from harkd.health import HealthReporter, Meter
from harkd.messages import About, Health
from harkd.microphone import Microphone
from harkd.model_store import InstalledModel, find_model
from harkd.mqtt_address import Address, address_of
from harkd.mqtt_side import MqttSide, WasSet
from harkd.mqtt_tls import check_files
from harkd.muting import DroppingSource, MutableSource
from harkd.pipeline import Pipeline
from harkd.recognizer.protocol import Recognizer
from harkd.recognizing import effort_of
from harkd.redaction import redacted
from harkd.settings import Settings
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


def run(
    settings: Settings, options: RunOptions, stopper: Stopper, reread: Callable[[], Settings]
) -> int:
    """Run until the source ends or `stopper` is asked; return the exit code.

    Args:
        settings: As the file and the environment give them.
        options: What the command line adds.
        stopper: Knows what signals ask for.
        reread: Reads the settings again; raises SettingsError.
    """
    began = time.monotonic()
    was_set = WasSet.read(settings)
    in_force = was_set.over(settings)
    source = make_source(settings, options, muted=was_set.kept.muted)
    installed = find_model(settings)
    address = make_address(settings)
    warn_of_risks(address)
    about = about_this(settings, installed.manifest.name)
    counters = Counters()
    sinks: list[Sink] = []

    def sink(event: Event) -> None:
        counters.note(event)
        told = event if settings.mqtt.open_text else redacted(event)
        if told:
            for take in sinks:
                take(told)

    with contextlib.ExitStack() as ending:
        broker = start_broker(settings, about)
        if broker:
            ending.callback(broker.stop)
        version = protocol(settings, broker)
        side = MqttSide(
            settings,
            was_set,
            address,
            version,
            about,
            mute=source.mute,
            reread=reread,
            sink=sink,
        )
        sinks += [side.hear, log_event, MicrophoneHint(sample_of(installed))]
        if options.print_events:
            printer = EventPrinter(lambda: side.publisher.about)
            ending.callback(printer.close)
            sinks.append(printer)
        ending.callback(side.stop)
        sink(StateChanged(State.STARTING, datetime.now(UTC)))
        side.start()
        try:
            recognizer = load(installed, in_force)
            publisher = side.publisher
            publisher.about = replace(publisher.about, provider=recognizer.provider)
            pipeline = Pipeline(source, recognizer, in_force, sink, counters=counters)
            gather = make_gather(began, counters, source, pipeline, side)
            health = HealthReporter(gather, lambda: publisher.about, publisher.keep)
            side.control.attach(pipeline.change, recognizer.language)
            stopper.reload_with(side.control.reload_soon)
            side.control.start()
            health.start()
            ending.callback(health.stop)
            return run_pipeline(pipeline, sink, stopper)
        except HarkdError as error:
            sink(StateChanged(State.FAILED, datetime.now(UTC), str(error)))
            raise


def about_this(settings: Settings, model: str) -> About:
    """Return what messages say of this daemon, before it knows what really runs the model."""
    return About(
        base_topic=settings.mqtt.base_topic,
        device_id=settings.effective_device_id,
        version=__version__,
        model=model,
        provider="",
        retain_last=settings.mqtt.retain_last,
        max_age_s=settings.mqtt.max_age_s,
    )


def make_gather(
    began: float,
    counters: Counters,
    source: MutableSource,
    pipeline: Pipeline,
    side: MqttSide,
) -> Callable[[], Health]:
    """Return what tells how all of these fare; `began` is the monotonic second of the start."""
    microphone = source if isinstance(source, Microphone) else None
    daemon_meter, capture_meter = Meter(), Meter()

    def gather() -> Health:
        counted = counters.snapshot()
        return Health(
            uptime_s=time.monotonic() - began,
            counted=counted,
            captures=microphone.starts if microphone else 0,
            waiting={"recognition": pipeline.waiting, "commands": side.control.waiting},
            dropped={
                "segments": counted.rejected.get(RejectReason.OVERLOADED, 0),
                "commands": side.control.dropped,
            },
            daemon=daemon_meter.figures(os.getpid()),
            capture=capture_meter.figures(microphone.pid if microphone else 0),
            outbox=side.publisher.outbox_facts(),
            connections=side.publisher.connections,
            signal=pipeline.signal(),
        )

    return gather


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


def make_source(settings: Settings, options: RunOptions, *, muted: bool) -> MutableSource:
    """Return the source that the command line and the settings name. Raises AudioError."""
    channel = str(settings.audio.channel)
    if options.source == "-":
        if sys.stdin is None:
            raise AudioError("--source - needs stdin, which is closed", "pipe raw PCM into harkd")
        piped = StdinSource(sys.stdin.fileno(), options.rate_hz, options.channels, channel)
        return DroppingSource(piped, muted=muted)
    if options.source:
        kind, colon, path = options.source.partition(":")
        if kind != "wav" or not colon or not path:
            raise AudioError(
                f'--source "{options.source}" is not known',
                "use wav:PATH, or - for raw PCM on stdin, or leave it out for the microphone",
            )
        return DroppingSource(FileSource(expand(path), channel), muted=muted)
    return Microphone(settings.audio, muted=muted)


def sample_of(installed: InstalledModel) -> Path | None:
    """Return a recording that came with the model, if there is one."""
    samples = installed.manifest.samples
    return installed.dir / samples[0].path if samples else None


def load(installed: InstalledModel, settings: Settings) -> Recognizer:
    """Load the recognizer. Raises ModelError."""
    from harkd.recognizer.factory import load_recognizer  # onnxruntime takes its time

    wanted = settings.recognizer
    return load_recognizer(
        installed.dir, installed.manifest, wanted.threads, effort_of(settings), wanted.device
    )


def make_address(settings: Settings, suffix: str = "") -> Address:
    """Return the broker's address and the login. Raises SettingsError.

    `suffix` is added to the client id: two clients with one id throw each other out.
    """
    check_files(settings.mqtt)
    return address_of(settings.mqtt, LOOPBACK, settings.effective_client_id + suffix)


def warn_of_risks(address: Address) -> None:
    """Say, at every start, what the settings leave open."""
    if address.tls and not address.tls.verify:
        log.warning(
            "mqtt.tls_verify is false: anybody in the network can pose as the broker at %s, read "
            "the password and all that is said, and give orders. Name the broker's authority in "
            "mqtt.tls_ca_file instead.",
            address,
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
