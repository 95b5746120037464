"""Carries out what is asked of the running daemon: over MQTT, and by SIGHUP.

In: messages on the daemon's own topics (from the `mqtt` thread), and requests to read the settings
again (from a signal handler); both only lie down in a queue. Out: changes of the running parts,
`…/state` and `error` messages. Runs on the `control` thread, so that a slow disk delays neither
transcripts nor audio.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from ulid import ULID

from harkd import events, messages
from harkd.answers import Answers
from harkd.commands import (
    COMMAND,
    LISTEN,
    OPTIONS,
    PHRASES,
    TOPICS,
    Deed,
    Do,
    Listen,
    SetOption,
    SetPhrases,
    read_command,
    told,
)
from harkd.errors import CommandError, HarkdError, StateError
from harkd.kept_options import Kept, OptionsFile, told_differences
from harkd.life import FOREIGN_S, LifeSign
from harkd.live_settings import LIVE, differences, merged, value_of
from harkd.logs import set_up
from harkd.mqtt_connection import Received
from harkd.phrase_commands import PhraseCommands
from harkd.publisher import Publisher
from harkd.settings import Settings
from harkd.threads import Thread

log = logging.getLogger(__name__)

MOST_WAITING: Final = 100
"""So many commands may wait."""
LOOK_S: Final = 0.5
"""How often is looked for the broker while an error waits."""
CHORES_S: Final = 3600.0
"""How often chores are done."""
STOP_S: Final = 2.0
TEST_TEXT: Final = "This is a test of harkd."
RELOAD: Final = Received("", b"", retained=False)
"""Stands for SIGHUP, which comes over no topic."""


def no_audio(_count: int | None) -> None:
    """Stand for what saves audio where nothing does. Raises CommandError."""
    raise CommandError("no audio is kept here")


def always_listening() -> None:
    """Stand for what listens without a wake word where there is none. Raises CommandError."""
    raise CommandError("no wake word is set: all that is said is recognized", "set wake.word")


class Control:
    """Obeys.

    Args:
        settings: As the file and the environment give them.
        kept: What was set over MQTT before.
        file: Keeps that over restarts.
        publisher: Sends states.
        answers: Tells what is wrong.
        mute: Closes the microphone, or opens it.
        reread: Reads the settings again; raises SettingsError.
        sink: Takes the final that `test_final` asks for.
    """

    def __init__(
        self,
        settings: Settings,
        kept: Kept,
        file: OptionsFile,
        publisher: Publisher,
        answers: Answers,
        *,
        mute: Callable[[bool], None],
        reread: Callable[[], Settings],
        sink: Callable[[events.Event], None],
    ) -> None:
        self._settings = settings
        self._kept = kept
        self._in_force, fault = kept.over(settings)
        self._file = file
        self._unwritable = False
        self._publisher = publisher
        self._answers = answers
        self._mute = mute
        self._reread = reread
        self._sink = sink
        self._change: Callable[[Settings], None] = lambda _settings: None
        self._language = ""
        self._orders: queue.SimpleQueue[Received | None] = queue.SimpleQueue()
        self.dropped = 0
        """Commands that were dropped because too many waited."""
        self.announcers: list[Callable[[Settings], None]] = []
        """Called with what is in force, on the `control` thread, when `reload` changed that."""
        self.chores: list[Callable[[], None]] = []
        """Called on the `control` thread when it begins, and every hour or so."""
        self.save_audio: Callable[[int | None], None] = no_audio
        """Does `save_audio`; raises CommandError and StateError."""
        self.listen: Callable[[], None] = always_listening
        """Does `listen`; raises CommandError."""
        self.phrases: PhraseCommands | None = None
        """Lets phrases be set; None where there can be none."""
        self.reloading: Callable[[], AbstractContextManager[object]] = nullcontext
        """Entered while the settings are read again."""
        self.life = LifeSign("control", FOREIGN_S)
        """Whether the thread makes progress."""
        self._thread = Thread(target=self._run, name="control")
        if fault:
            answers.report(fault)
        for line in told_differences(kept, settings):
            log.info("%s", line)
        if kept.muted:
            log.info("muted over MQTT: send ON to %s", self._topic(LISTEN))
        self._announce()

    @property
    def topics(self) -> list[str]:
        """Whole topics of what `take` takes."""
        return [self._topic(name) for name in TOPICS]

    @property
    def waiting(self) -> int:
        """Commands that wait."""
        return self._orders.qsize()

    def attach(self, change: Callable[[Settings], None], language: str) -> None:
        """Let settings change what runs from now on, and obey what came until now.

        Args:
            change: Lets the running parts follow other settings.
            language: The model's, for `test_final`.
        """
        self._change, self._language = change, language
        while not self._orders.empty():
            if order := self._orders.get():
                self._obey(order)

    def start(self) -> None:
        """Begin to obey, once `attach` was called."""
        self._thread.start()

    def stop(self) -> None:
        """Obey no more."""
        self._orders.put(None)
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def take(self, received: Received) -> None:
        """Take a message that was sent to one of our topics. Any thread; never waits."""
        if self._orders.qsize() < MOST_WAITING:
            self._orders.put(received)
            return
        self.dropped += 1
        text = f"more than {MOST_WAITING} commands wait, and this one is dropped. Send fewer."
        self._answers.answer(received, text)

    def reload_soon(self) -> None:
        """Read the settings again, soon. Any thread, and signal handlers."""
        self._orders.put(RELOAD)  # SimpleQueue.put may interrupt itself

    # --------------------------------------------------------------- control thread

    def _run(self) -> None:
        self.life.begin()
        done_s = -CHORES_S
        while True:
            if time.monotonic() - done_s >= CHORES_S:
                done_s = time.monotonic()
                for chore in self.chores:
                    chore()
            self.life.rest()
            try:
                order = self._orders.get(timeout=LOOK_S if self._answers.waiting else CHORES_S)
            except queue.Empty:
                self._answers.flush()
                continue
            self.life.beat()
            if order is None:
                self.life.end()
                return
            self._obey(order)

    def _obey(self, received: Received) -> None:
        try:
            if received is RELOAD:
                with self.reloading():
                    self._reload(received)
            else:
                self._take_command(received)
        except CommandError as error:
            self._answers.refuse(received, str(error))
        except Exception:
            log.exception("%s could not be obeyed", received.topic)
            self._answers.answer(received, "this could not be done; the log of harkd says why")

    def _take_command(self, received: Received) -> None:
        name = received.topic.removeprefix(self._topic(""))
        payload = received.payload
        kept = self._kept
        if received.retained and payload and name not in (COMMAND, PHRASES):
            # It comes again at each connection, and newer values may have been set since.
            digest = hashlib.sha256(payload).hexdigest()
            if kept.retained.get(name) == digest:
                log.debug("the retained message on %s was taken before", received.topic)
                return
            kept = replace(kept, retained={**kept.retained, name: digest})
        try:
            command = read_command(name, payload, self._in_force, retained=received.retained)
        except CommandError:
            self._keep(kept)
            raise
        match command:
            case Listen(on):
                self._listen(on, received, kept)
            case SetOption(keys, value):
                self._keep(replace(kept, options={**kept.options, keys: value}))
                in_force, _ = self._kept.over(self._settings)
                log.info("%s is %s now, set over MQTT", ".".join(keys), value)
                self._put_in_force(in_force)
                self._announce_options()
            case SetPhrases(payload):
                self._phrases().set(payload, received)
            case Do():
                self._do(command, received)

    def _listen(self, on: bool, received: Received, kept: Kept) -> None:
        if on and received.retained and kept.muted:
            # It may be older than the OFF: nobody must be heard because of that.
            self._keep(kept)
            raise CommandError(
                "a retained ON does not open a microphone that was muted",
                "send ON without retain, and clear the retained one",
            )
        if not on:
            self._mute(True)  # before the disk, which may take its time
        self._keep(replace(kept, listen=on))
        if on:
            self._mute(False)
        log.info("listening is switched %s over MQTT", "on" if on else "off")
        self._announce_listen()

    def _phrases(self) -> PhraseCommands:
        if self.phrases is None:
            raise CommandError("this harkd has no phrases")
        return self.phrases

    def _do(self, order: Do, received: Received) -> None:
        match order.deed:
            case Deed.RELOAD:
                with self.reloading():
                    self._reload(received)
            case Deed.REANNOUNCE:
                self._publisher.repeat()
            case Deed.TEST_FINAL:
                self._sink(self._test_final(order.phrase))
            case Deed.LISTEN:
                self.listen()
            case Deed.SAVE_AUDIO:
                self._save_audio(order.count, received)

    def _save_audio(self, count: int | None, received: Received) -> None:
        try:
            self.save_audio(count)
        except StateError as error:
            log.error("%s", error)
            self._answers.answer(received, str(error))

    def _reload(self, received: Received) -> None:
        """Read the settings again; what can change at once does, what cannot is named."""
        try:
            new = self._reread()
            settings = merged(self._settings, new)
            in_force, fault = self._kept.over(settings)
            if fault:
                raise CommandError(fault)
        except HarkdError as error:
            text = f"the settings stay as they are: {error}"
            log.error("%s", text)
            self._answers.answer(received, text)
            return
        differ = [".".join(keys) for keys in differences(self._settings, settings)]
        fixed = [".".join(keys) for keys in differences(self._settings, new) if keys not in LIVE]
        if settings.log != self._settings.log:
            own = "" if settings.inputs else settings.effective_device_id
            set_up(settings.log.level, settings.log.format, device_id=own)
        log.info("read the settings again; %s changed", ", ".join(differ) or "nothing")
        for line in told_differences(self._kept, settings):
            log.info("%s", line)
        self._settings = settings
        self._put_in_force(in_force)
        self._announce()
        if self.phrases:
            self.phrases.reload(in_force.phrases, received)
        if differ:
            for announce in self.announcers:
                announce(in_force)
        if fixed:
            text = f"{', '.join(fixed)} {'needs' if len(fixed) == 1 else 'need'} a restart"
            log.warning("%s", text)
            self._answers.answer(received, text)

    def _put_in_force(self, settings: Settings) -> None:
        self._in_force = settings
        mqtt, publisher = settings.mqtt, self._publisher
        publisher.about = replace(
            publisher.about, max_age_s=mqtt.max_age_s, retain_last=mqtt.retain_last
        )
        self._change(settings)

    def _test_final(self, phrase: str) -> events.Final:
        """Return a final; where a phrase is given, it is that one. Raises CommandError."""
        match = self._phrases().match(phrase) if phrase else None
        now, now_ns = datetime.now(UTC), time.monotonic_ns()
        return events.Final(
            id=str(ULID()),
            rev=1,
            text=phrase or TEST_TEXT,
            confidence=1.0,
            started_at=now,
            ended_at=now,
            duration_s=0.0,
            speech_end_ns=now_ns,
            endpoint_ns=now_ns,
            language=self._language,
            model=self._publisher.about.model,
            test=True,
            match=match,
            open_text=phrase,
        )

    def _keep(self, kept: Kept) -> None:
        """Remember what was set, also over a restart, where that is possible."""
        if kept == self._kept and not self._unwritable:
            return
        self._kept = kept
        try:
            self._file.write(kept)
            self._unwritable = False
        except StateError as error:
            if not self._unwritable:
                self._answers.report(str(error))
            self._unwritable = True

    # --------------------------------------------------------------------- messages

    def _topic(self, name: str) -> str:
        return self._publisher.about.topic(name)

    def _announce(self) -> None:
        """Publish what holds now."""
        self._announce_listen()
        self._announce_options()
        cleared = messages.no_last(self._publisher.about)
        if self._in_force.mqtt.retain_last:
            self._publisher.forget(cleared.topic)
        else:
            self._publisher.keep(cleared)

    def _announce_listen(self) -> None:
        value = "OFF" if self._kept.muted else "ON"
        self._publisher.keep(messages.option_state(self._publisher.about, "listen", value))

    def _announce_options(self) -> None:
        for topic, keys in OPTIONS.items():
            name, value = topic.removesuffix("/set"), told(keys, value_of(self._in_force, keys))
            self._publisher.keep(messages.option_state(self._publisher.about, name, value))
