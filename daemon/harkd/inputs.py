"""One microphone of the daemon, with all that is its own; there may be several.

In: the settings of that input. Out: its source, its pipeline, its MQTT side, what counts for it.
Each input is to others as a daemon of its own would be: topics, availability, switch and outbox are
its own. The recognizer is shared. Built and stopped on the main thread.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from harkd import __version__, logs
from harkd.audio import FileSource, StdinSource
from harkd.counters import Counters
from harkd.debug_capture import DebugCapture
from harkd.errors import AudioError
from harkd.events import Event, RejectReason, State, StateChanged
from harkd.health import HealthReporter, Meter
from harkd.messages import About, Health
from harkd.microphone import Microphone
from harkd.mqtt_address import Address
from harkd.mqtt_side import MqttSide, WasSet
from harkd.muting import DroppingSource, MutableSource
from harkd.overload import Overload
from harkd.phrase_book import PhraseBook
from harkd.phrase_matching import matching_for
from harkd.pipeline import Pipeline
from harkd.recognizer.protocol import Recognizer
from harkd.redaction import redacted
from harkd.second_look import SecondLook
from harkd.settings import Settings, state_dir
from harkd.settings_file import expand
from harkd.sinks import EventPrinter, log_event
from harkd.turns import Turns
from harkd.vitals import InputVitals
from harkd.wake_gate import WakeGate
from harkd.wake_models import wanted_words

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
    only: str = ""
    """The one input to run, by its name; empty for all."""
    settings_file: Path | None = None
    """Where the settings stand, and phrases may; None where there is no such file."""


class Input:
    """One microphone, or what stands in its place.

    Args:
        settings: This input's, as the file and the environment give them.
        options: What the command line adds.
        address: The broker's, with this input's client id.
        model: The model's name.
        named: Whether the log names the input.
        reread: Reads this input's settings again; raises SettingsError.

    Raises:
        AudioError: The source is not to be had.
        PhrasesError: The phrases of the settings have faults.
    """

    def __init__(
        self,
        settings: Settings,
        options: RunOptions,
        address: Address,
        model: str,
        *,
        named: bool,
        reread: Callable[[], Settings],
    ) -> None:
        self._began = time.monotonic()
        self._settings = settings
        self._options = options
        self._address = address
        self._reread = reread
        self._context = contextvars.copy_context()
        if named:
            self._context.run(logs.INPUT.set, settings.effective_device_id)
        self._was_set = self._context.run(WasSet.read, settings)
        self._about = about_this(settings, model)
        self._ending = contextlib.ExitStack()
        self._counters = Counters()
        self._meters = Meter(), Meter()  # of the daemon, of the capture process
        self._sinks: list[Sink] = []
        self._early: list[str] | None = []  # what is to be told once there is an MQTT side
        self._book = self._context.run(self._read_phrases)
        self._gate = WakeGate() if wanted_words(settings.wake) else None
        self.in_force = self._was_set.over(settings)
        """The settings with what was set over MQTT before."""
        self.source = make_source(settings, options, muted=self._was_set.kept.muted)
        """Where its audio comes from."""
        self.side: MqttSide
        """Its half of MQTT; from `start` on."""
        self.vitals: InputVitals
        """What is known of it; from `start` on."""
        self.pipeline: Pipeline
        """What listens and recognizes; from `attach` on."""

    @property
    def about(self) -> About:
        """What messages say of it now; from `start` on."""
        return self.side.publisher.about

    @property
    def finds_phrases(self) -> bool:
        """Whether phrases are looked for."""
        return bool(self._book.in_force.commands)

    def topic(self, name: str) -> str:
        """Return the whole topic of a name such as ``transcript``."""
        return self._about.topic(name)

    def start(self, version: str, sinks: Sequence[Sink]) -> None:
        """Begin to connect.

        Args:
            version: The MQTT version to speak, or ``auto``.
            sinks: Take each event, too.
        """
        self._context.run(self._start, version, sinks)

    def attach(
        self,
        recognizer: Recognizer,
        turns: Turns | None,
        when_done: Callable[[], None],
        second_look: SecondLook | None = None,
    ) -> None:
        """Let this model recognize what is heard.

        Args:
            recognizer: The loaded model.
            turns: Shares it with other inputs, where there are some.
            when_done: Called when the input has ended.
            second_look: Hears whether there is a voice; shared, too.
        """
        self._context.run(self._attach, recognizer, turns, when_done, second_look)

    def listen(self) -> None:
        """Begin to listen."""
        self.pipeline.start()

    def health(self) -> Health:
        """Return how it fares. Called by one thread at a time."""
        counted, side = self._counters.snapshot(), self.side
        microphone = self.source if isinstance(self.source, Microphone) else None
        return Health(
            uptime_s=time.monotonic() - self._began,
            counted=counted,
            captures=microphone.starts if microphone else 0,
            waiting={"recognition": self.pipeline.waiting, "commands": side.control.waiting},
            dropped={
                "segments": counted.rejected.get(RejectReason.OVERLOADED, 0),
                "commands": side.control.dropped,
            },
            daemon=self._meters[0].figures(os.getpid()),
            capture=self._meters[1].figures(microphone.pid if microphone else 0),
            outbox=side.publisher.outbox_facts(),
            connections=side.publisher.connections,
            signal=self.pipeline.signal(),
        )

    def fail(self, reason: str) -> None:
        """Say that the daemon gives up."""
        self._tell(StateChanged(State.FAILED, datetime.now(UTC), reason))

    def stop(self) -> None:
        """Let what was published leave, and end all threads but the pipeline's."""
        self._context.run(self._ending.close)

    def _start(self, version: str, sinks: Sequence[Sink]) -> None:
        self.side = MqttSide(
            self._settings,
            self._was_set,
            self._address,
            version,
            self._about,
            mute=self.source.mute,
            reread=self._reread,
            sink=self._tell,
            gate=self._gate,
            book=self._book,
        )
        publisher, control = self.side.publisher, self.side.control
        early, self._early = self._early or (), None
        for text in early:
            self.side.answers.report(text)
        self.vitals = InputVitals(self._about.device_id, self._counters, publisher, control)
        self._sinks += [self.side.hear, self.vitals.hear, log_event, *sinks]
        if self._options.print_events:
            printer = EventPrinter(lambda: self.side.publisher.about)
            self._ending.callback(printer.close)
            self._sinks.append(printer)
        self._ending.callback(self.side.stop)
        self._book.start()
        self._tell(StateChanged(State.STARTING, datetime.now(UTC)))
        self.side.start()

    def _attach(
        self,
        recognizer: Recognizer,
        turns: Turns | None,
        when_done: Callable[[], None],
        second_look: SecondLook | None,
    ) -> None:
        publisher, control = self.side.publisher, self.side.control
        publisher.about = replace(publisher.about, provider=recognizer.provider)
        self.pipeline = Pipeline(
            self.source,
            recognizer,
            self.in_force,
            self._tell,
            counters=self._counters,
            turns=turns,
            when_done=when_done,
            keep=self._debug_capture().keep,
            second_look=second_look,
            gate=self._gate,
        )
        self._book.on_change.append(lambda book: self._use_phrases(book, recognizer))
        self._use_phrases(self._book, recognizer)
        microphone = self.source if isinstance(self.source, Microphone) else None
        self.vitals.attach(self.pipeline, microphone)
        overload = Overload(lambda: self.pipeline.waiting, self.side.answers.report)
        self._sinks.append(overload.hear)
        health = HealthReporter(self.health, lambda: publisher.about, publisher.keep)
        control.attach(self.pipeline.change, recognizer.language)
        control.start()
        health.start()
        self._ending.callback(health.stop)

    def _read_phrases(self) -> PhraseBook:
        """Return the phrases in force. Raises PhrasesError."""
        folder = state_dir(self._settings.state, os.environ)
        options, file = self._was_set.over(self._settings).phrases, self._options.settings_file
        book = PhraseBook(options, file, folder, report=self._report)
        book.load()
        return book

    def _report(self, text: str) -> None:
        """Tell an error that answers no message; before there is an MQTT side, once there is."""
        if self._early is None:
            self.side.answers.report(text)
        else:
            self._early.append(text)

    def _use_phrases(self, book: PhraseBook, recognizer: Recognizer) -> None:
        """Find what is in force now. On the book's thread, and once before all listens."""
        self.pipeline.use_phrases(matching_for(book.current, book.mode, recognizer))

    def _debug_capture(self) -> DebugCapture:
        """Return what keeps audio for `save_audio`, and let the MQTT side obey that."""
        publisher, control = self.side.publisher, self.side.control
        folder = state_dir(self._settings.state, os.environ)
        capture = DebugCapture(self._settings, folder, lambda: publisher.about, publisher.send)
        control.save_audio = capture.save
        control.chores.append(capture.sweep)
        return capture

    def _tell(self, event: Event) -> None:
        self._counters.note(event)
        if self._gate:
            self._gate.hear(event)
        told = event if self._settings.mqtt.open_text else redacted(event)
        if told:
            for take in self._sinks:
                take(told)


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
            meant = f"wav:{options.source}" if expand(options.source).is_file() else "wav:PATH"
            raise AudioError(
                f'--source "{options.source}" is not known',
                f"use {meant}, or - for raw PCM on stdin, or leave it out for the microphone",
            )
        return DroppingSource(FileSource(expand(path), channel), muted=muted)
    return Microphone(settings.audio, muted=muted)
