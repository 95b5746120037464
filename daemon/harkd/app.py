"""Settings → objects → signals → shutdown: what ``harkd run`` does.

Runs on the main thread, which only waits once all is built.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from harkd import legacy_state
from harkd.broker import LOOPBACK, EmbeddedBroker, is_taken
from harkd.errors import AudioError, DeviceError, HarkdError, SettingsError
from harkd.inputs import Input, RunOptions
from harkd.instruments import Instruments
from harkd.memory_check import require_memory
from harkd.model_store import InstalledModel, find_model
from harkd.mqtt_address import Address, address_of
from harkd.mqtt_tls import check_files
from harkd.recognizer.device_report import DeviceReport
from harkd.recognizer.protocol import Recognizer
from harkd.recognizing import effort_of
from harkd.second_look import find_second_look
from harkd.service_manager import ServiceManager
from harkd.settings import Settings, each_input
from harkd.sinks import MicrophoneHint
from harkd.stopper import Stopper
from harkd.turns import Turns

log = logging.getLogger(__name__)

__all__ = ["RunOptions", "load", "make_address", "run"]


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
    manager = ServiceManager.take_over(os.environ)
    chosen = chosen_inputs(settings, options)
    installed = find_model(settings)
    addresses = [make_address(one) for one in chosen]
    warn_of_risks(addresses[0])
    hint = MicrophoneHint(sample_of(installed))
    if not options.only:
        legacy_state.take_over(settings, os.environ)
    with contextlib.ExitStack() as ending:
        inputs = [
            Input(
                one,
                options,
                address,
                installed.manifest.name,
                named=bool(settings.inputs),
                reread=rereader(reread, one),
            )
            for one, address in zip(chosen, addresses, strict=True)
        ]
        broker = start_broker(settings, [one.topic("#") for one in inputs])
        if broker:
            ending.callback(broker.stop)
        instruments = Instruments(
            settings.http, manager, lambda: inputs[0].about, settings.recognizer.device
        )
        for one in inputs:
            ending.callback(one.stop)
            one.start(protocol(settings, broker), [hint])
            one.side.control.reloading = manager.reloading
            instruments.follow(one.vitals)
        ending.callback(instruments.stop)
        instruments.start()
        try:
            phrases = any(one.finds_phrases for one in inputs)
            recognizer = load(installed, inputs[0].in_force, len(inputs), phrases=phrases)
            second_look = find_second_look(inputs[0].in_force.vad)
            over = threading.Semaphore(0)
            turns = Turns() if len(inputs) > 1 else None
            for one in inputs:
                one.attach(recognizer, turns, over.release, second_look)
            stopper.reload_with(lambda: reload_soon(inputs))
            return run_inputs(inputs, over, stopper, instruments)
        except HarkdError as error:
            for one in inputs:
                one.fail(str(error))
            raise


def reload_soon(inputs: Sequence[Input]) -> None:
    """Let each input read its settings again."""
    for one in inputs:
        one.side.control.reload_soon()


def run_inputs(
    inputs: Sequence[Input],
    over: threading.Semaphore,
    stopper: Stopper,
    instruments: Instruments,
) -> int:
    """Listen until all have ended by themselves, or one has failed, or all are stopped.

    `over` is released by each that is done.
    """

    def stop() -> None:
        instruments.stopping()
        for one in inputs:
            one.pipeline.stop()

    stopper.stop_with(stop)
    for one in inputs:
        one.listen()
    instruments.ready()
    for _ in inputs:
        over.acquire()
        if any(one.pipeline.failure for one in inputs):
            stop()
    failures = [one.pipeline.failure for one in inputs if one.pipeline.wait()]
    if failure := next(filter(None, failures), None):
        for one in inputs:
            one.fail(str(failure))
        return 1
    log.info("stopped" if stopper.asked else "the input has ended")
    return 0


def chosen_inputs(settings: Settings, options: RunOptions) -> list[Settings]:
    """Return the settings of each input that is to run. Raises AudioError, SettingsError."""
    inputs = each_input(settings, os.environ)
    if options.only:
        inputs = [one for one in inputs if one.effective_device_id == options.only]
        if not inputs:
            known = ", ".join(settings.inputs) or f"one only, {settings.effective_device_id}"
            raise SettingsError(f'--input "{options.only}" is no input; there are: {known}')
    if options.source and len(inputs) > 1:
        raise AudioError(
            f"--source stands in place of one microphone, but there are {len(inputs)} inputs",
            f"choose one: --input {next(iter(settings.inputs))}",
        )
    return inputs


def rereader(reread: Callable[[], Settings], mine: Settings) -> Callable[[], Settings]:
    """Return what reads the settings of one input again.

    Args:
        reread: Reads all settings again.
        mine: The input's settings now.
    """

    def again() -> Settings:
        new = reread()
        if not mine.inputs:
            return new
        name = mine.effective_device_id
        for one in each_input(new, os.environ):
            if new.inputs and one.effective_device_id == name:
                return one
        raise SettingsError(
            f"the settings have no input {name} any more", "restart harkd, or put it back"
        )

    return again


def sample_of(installed: InstalledModel) -> Path | None:
    """Return a recording that came with the model, if there is one."""
    samples = installed.manifest.samples
    return installed.dir / samples[0].path if samples else None


def load(
    installed: InstalledModel, settings: Settings, streams: int = 1, *, phrases: bool = False
) -> Recognizer:
    """Load the recognizer, where there is memory for so many streams at once.

    And for `phrases`, where these will be looked for.

    Raises:
        ModelError: It cannot be loaded; a DeviceError where it is not on the device required.
    """
    recognizer, report = load_with_report(installed, settings, streams, phrases=phrases)
    if report.missed and settings.recognizer.require_device:
        ends = "; harkd ends, as recognizer.require_device wants"
        raise DeviceError(report.what + ends, report.mend)
    from harkd.recognizer.factory import tell  # onnxruntime takes its time

    tell(report)
    return recognizer


def load_with_report(
    installed: InstalledModel, settings: Settings, streams: int = 1, *, phrases: bool = False
) -> tuple[Recognizer, DeviceReport]:
    """Do the same, wherever it runs, and return where. Raises ModelError."""
    require_memory(installed.manifest, settings, streams, phrases=phrases)
    from harkd.recognizer import factory  # onnxruntime takes its time

    wanted = settings.recognizer
    return factory.load_with_report(
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


def start_broker(settings: Settings, topics: Sequence[str]) -> EmbeddedBroker | None:
    """Start the embedded broker where the settings name none. Raises BrokerError.

    `topics` are where all is to be seen.
    """
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
    every = " ".join(f"-t '{topic}'" for topic in topics)
    log.info("see all messages: mosquitto_sub -p %d %s -v", port, every)
    return broker


def protocol(settings: Settings, broker: EmbeddedBroker | None) -> str:
    """Return the MQTT version to speak; the embedded broker knows one only."""
    return "3.1.1" if broker else settings.mqtt.protocol
