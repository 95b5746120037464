"""The MQTT side of the daemon, put together: the publisher, and all that talks through it.

In: settings, events from any thread, and messages on the daemon's topics. Out: messages. Built and
stopped on the main thread; `docs/architecture.md` lists the threads of its parts.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from harkd import messages
from harkd.announcing import Announced, Announcer, this_machine
from harkd.answers import Answers
from harkd.control import Control
from harkd.discovery import Device
from harkd.events import Event
from harkd.hermes_answering import TOPICS as HERMES_TOPICS
from harkd.hermes_answering import HermesAnswerer
from harkd.kept_options import Kept, OptionsFile
from harkd.messages import About
from harkd.mqtt_address import Address
from harkd.mqtt_connection import Received
from harkd.outbox import Outbox
from harkd.phrase_book import PhraseBook
from harkd.phrase_commands import PhraseCommands
from harkd.publisher import Publisher
from harkd.settings import Settings, silence_bounds_ms, state_dir
from harkd.sinks import MicrophoneAvailability
from harkd.wake_gate import WakeGate

OUTBOX_NAME: Final = "outbox.sqlite"


@dataclass(frozen=True, slots=True)
class WasSet:
    """What was set over MQTT before this start."""

    file: OptionsFile
    """Where it is kept."""
    kept: Kept
    """What it is."""
    fault: str
    """What is wrong with the file; empty where nothing is."""

    @classmethod
    def read(cls, settings: Settings) -> WasSet:
        """Read it from the state folder. Never raises."""
        file = OptionsFile(state_dir(settings.state, os.environ))
        return cls(file, *file.read())

    def over(self, settings: Settings) -> Settings:
        """Return the settings with it over them."""
        return self.kept.over(settings)[0]


class MqttSide:
    """Publishes events, obeys commands, and presents the device.

    Args:
        settings: As the file and the environment give them.
        was_set: What goes over them.
        address: The broker.
        version: The MQTT version to speak, or ``auto``.
        about: What messages say of this daemon.
        mute: Closes the microphone, or opens it.
        reread: Reads the settings again; raises SettingsError.
        sink: Takes the final that `test_final` asks for.
        gate: What opens the ear besides wake words; None where there are none.
        book: The phrases in force; None where there can be none. Where it is not loaded yet, Home
            Assistant is told of this device when it is, so that it forgets no entity meanwhile.
    """

    def __init__(
        self,
        settings: Settings,
        was_set: WasSet,
        address: Address,
        version: str,
        about: About,
        *,
        mute: Callable[[bool], None],
        reread: Callable[[], Settings],
        sink: Callable[[Event], None],
        gate: WakeGate | None = None,
        book: PhraseBook | None = None,
    ) -> None:
        folder = state_dir(settings.state, os.environ)
        self.publisher = publisher = Publisher(
            address, version, about, Outbox(folder / OUTBOX_NAME)
        )
        self._hearing = MicrophoneAvailability(publisher.keep, lambda: publisher.about)
        mqtt = settings.mqtt
        self._announcer = Announcer(
            mqtt.discovery, mqtt.discovery_prefix, publisher, Announced(folder)
        )
        self._hermes = None
        if settings.hermes.enabled:
            self._hermes = HermesAnswerer(
                settings.effective_site_id,
                publisher.send,
                on_session=gate.session if gate else lambda _open: None,
            )
        self.answers = answers = Answers(publisher)
        if was_set.fault:
            answers.report(was_set.fault)
        self.control = control = Control(
            settings,
            was_set.kept,
            was_set.file,
            publisher,
            answers,
            mute=mute,
            reread=reread,
            sink=sink,
        )
        if gate:
            control.listen = gate.listen
        else:
            # A run before may have waited for a wake word.
            publisher.keep(messages.no_awake(about))
        self._wake = gate is not None
        control.announcers.append(self._announce)
        self._in_force = was_set.over(settings)
        self._book = book
        if book:
            control.phrases = PhraseCommands(book, publisher, answers)
            book.on_change.append(lambda _book: self._announce(self._in_force))
        if not book or book.loaded.is_set():
            self._announce(self._in_force)
        self._listen()

    def start(self) -> None:
        """Begin to connect; commands wait until `Control.attach` and `Control.start`."""
        if self._hermes:
            self._hermes.start()
        self.publisher.start()

    def hear(self, event: Event) -> None:
        """Take an event. Any thread; never waits."""
        self.publisher.publish(event)
        self._hearing(event)
        if self._hermes:
            self._hermes.hear(event)

    def stop(self) -> None:
        """Let what was published leave, say `offline`, and end all threads."""
        self.control.stop()
        if self._book:
            self._book.stop()
        self._hearing.close()
        self._announcer.stop()
        if self._hermes:
            self._hermes.stop()
        self.publisher.stop()

    def _announce(self, settings: Settings) -> None:
        self._in_force = settings
        bounds_ms = silence_bounds_ms(settings.endpoint)
        intents = self._book.in_force.commands if self._book else ()
        self._announcer.announce(
            Device(
                self.publisher.about, this_machine(), bounds_ms, wake=self._wake, intents=intents
            )
        )

    def _listen(self) -> None:
        takers: dict[str, Callable[[Received], None]] = {}
        takers |= dict.fromkeys(self.control.topics, self.control.take)
        takers |= dict.fromkeys(self._announcer.topics, self._announcer.take)
        if self._hermes:
            takers |= dict.fromkeys(HERMES_TOPICS, self._hermes.take)
        self.publisher.listen(list(takers), lambda received: takers[received.topic](received))
