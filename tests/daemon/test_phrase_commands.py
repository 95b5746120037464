"""Phrases that are set over MQTT: what is answered, and what a sentence is taken for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harkd.answers import Answers
from harkd.commands import COMMAND, PHRASES
from harkd.control import Control
from harkd.events import Event, Final, PhraseMatch
from harkd.kept_options import Kept, OptionsFile
from harkd.messages import About, Message
from harkd.mqtt_address import Address
from harkd.mqtt_connection import Received
from harkd.phrase_book import PhraseBook
from harkd.phrase_commands import PhraseCommands
from harkd.publisher import Publisher
from harkd.settings import PhrasesSettings, Settings
from servers import wait_until

ABOUT = About("harkd", "kitchen", "1.0", "tiny", "cpu", retain_last=True, max_age_s=30)
ROOT = "harkd/kitchen"


class RecordingPublisher(Publisher):
    """Is connected, and keeps what it is given."""

    def __init__(self) -> None:
        super().__init__(Address("127.0.0.1", 1, "test"), "5", ABOUT)
        self.connected.set()
        self.sent: list[Message] = []

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def keep(self, message: Message) -> None:
        self.sent.append(message)

    def on(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(each.payload) for each in self.sent if each.topic == f"{ROOT}/{name}"]


class Rig:
    """A control with a book."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(phrases=PhrasesSettings(file="lamps.yaml"))
        self.publisher = RecordingPublisher()
        self.answers = Answers(self.publisher)
        self.book = PhraseBook(
            self.settings.phrases,
            folder / "harkd.yaml",
            folder / "state",
            report=self.answers.report,
        )
        self.events: list[Event] = []
        self.control = Control(
            self.settings,
            Kept(),
            OptionsFile(folder / "state"),
            self.publisher,
            self.answers,
            mute=lambda _on: None,
            reread=lambda: self.settings,
            sink=self.events.append,
        )
        self.control.phrases = PhraseCommands(self.book, self.publisher, self.answers)

    def send(self, name: str, payload: object, *, retained: bool = False) -> None:
        raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.control.take(Received(f"{ROOT}/{name}", raw, retained))
        self.control.attach(lambda _settings: None, "en")

    def states(self, many: int) -> dict[str, Any]:
        """The last `phrases/state`, which is the one with this number."""
        wait_until(lambda: len(self.publisher.on("phrases/state")) >= many, f"{many} states", 20)
        states = self.publisher.on("phrases/state")
        assert len(states) == many
        return states[-1]

    def error(self) -> dict[str, Any]:
        wait_until(lambda: bool(self.publisher.on("error")), "an error", 20)
        (error,) = self.publisher.on("error")
        return error


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lamps.yaml").write_text("intents: {on: ['turn on [the] lamp'], off: [lamp off]}")
    return tmp_path


@pytest.fixture
def rig(folder: Path) -> Iterator[Rig]:
    rig = Rig(folder)
    rig.book.load()
    rig.book.start()
    yield rig
    rig.book.stop()


def test_at_the_start_it_tells_which_phrases_are_in_force(rig: Rig) -> None:
    assert rig.states(1) == {
        "mode": "prefer",
        "intents": ["on", "off"],
        "templates": 2,
        "source": "settings",
    }
    (state,) = rig.publisher.sent[-1:]
    assert (state.qos, state.retain) == (1, True)


def test_what_is_set_is_told(rig: Rig) -> None:
    rig.send(PHRASES, {"intents": {"go": ["go", "go now"]}, "mode": "only"})
    state = {"mode": "only", "intents": ["go"], "templates": 2, "source": "mqtt"}
    assert rig.states(2) == state
    rig.send(PHRASES, {"intents": {}})
    assert rig.states(3)["intents"] == []


def test_what_changes_nothing_is_answered_too(rig: Rig) -> None:
    rig.send(PHRASES, {})
    assert rig.states(2)["source"] == "settings"


def test_faults_are_one_error_with_their_places_and_nothing_changes(rig: Rig) -> None:
    payload = '{"intents":{"go":["go {x}",\n"[go"]}}'
    rig.send(PHRASES, payload.encode())
    error = rig.error()
    assert (error["topic"], error["payload"]) == (f"{ROOT}/{PHRASES}", payload)
    first, second = error["error"].splitlines()
    assert first.startswith('phrases/set:1:23: there is no list "x"')
    assert second.startswith("phrases/set:2:2: ")
    rig.states(1)
    assert rig.book.in_force.intents == ("on", "off")


def test_a_retained_message_is_taken_and_the_same_not_again(rig: Rig) -> None:
    first, second = ({"intents": {name: [name]}} for name in ("one", "two"))
    rig.send(PHRASES, first, retained=True)
    rig.states(2)
    rig.send(PHRASES, second)
    rig.states(3)
    rig.send(PHRASES, first, retained=True)
    rig.send(PHRASES, {"mode": "only"})
    assert rig.states(4)["intents"] == ["on", "off"]


def test_an_empty_message_clears_a_retained_one_and_is_nothing(rig: Rig) -> None:
    rig.send(PHRASES, b"")
    rig.send(PHRASES, {"intents": {"go": ["go"]}})
    assert rig.states(2)["intents"] == ["go"]
    assert rig.publisher.on("error") == []


def test_a_reload_reads_templates_again_though_no_option_has_changed(
    rig: Rig, folder: Path
) -> None:
    (folder / "lamps.yaml").write_text("intents: {dim: [dim it]}")
    rig.send(COMMAND, {"command": "reload"})
    wait_until(lambda: rig.book.in_force.intents == ("dim",), "the new phrases", 20)
    wait_until(lambda: rig.publisher.on("phrases/state")[-1]["intents"] == ["dim"], "state", 20)


def test_a_reload_with_faults_is_told_and_the_old_phrases_stay(rig: Rig, folder: Path) -> None:
    (folder / "lamps.yaml").write_text("intents: {dim: ['dim {it}']}")
    rig.send(COMMAND, {"command": "reload"})
    error = rig.error()
    assert error["error"].startswith("the phrases stay as they are: ")
    assert 'lamps.yaml:1:22: there is no list "it"' in error["error"]
    assert rig.book.in_force.intents == ("on", "off")


def test_a_test_final_can_be_a_phrase(rig: Rig) -> None:
    rig.send(COMMAND, {"command": "test_final", "phrase": "Turn on the lamp!"})
    (final,) = rig.events
    assert isinstance(final, Final)
    assert final.test
    assert final.text == "Turn on the lamp!"
    assert final.match == PhraseMatch("turn on the lamp", "on", {}, 1.0, 0.0)


def test_a_test_final_that_is_no_phrase_is_refused(rig: Rig) -> None:
    rig.send(COMMAND, {"command": "test_final", "phrase": "Turn on the sun!"})
    assert '"Turn on the sun!" is none of the phrases' in rig.error()["error"]
    assert rig.events == []
