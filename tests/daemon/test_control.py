"""The running daemon obeys what it is sent, answers what is wrong, and forgets nothing."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from harkd import control as control_module
from harkd.answers import Answers
from harkd.commands import COMMAND, LISTEN, PHRASES, TOPICS, Listen, SetPhrases, read_command
from harkd.control import MOST_WAITING, Control
from harkd.errors import CommandError, SettingsError, StateError
from harkd.events import Event, Final
from harkd.kept_options import Kept, OptionsFile
from harkd.messages import About, Message
from harkd.mqtt_connection import Address, Received
from harkd.publisher import Publisher
from harkd.settings import (
    AudioSettings,
    EndpointSettings,
    LogSettings,
    MqttSettings,
    Settings,
    VadSettings,
)
from servers import wait_until

ABOUT = About("harkd", "kitchen", "1.0", "tiny", "cpu", retain_last=True, max_age_s=30)
ROOT = "harkd/kitchen"
AGGRESSIVENESS, SILENCE = "vad/aggressiveness/set", "endpoint/silence_ms/set"


class RecordingPublisher(Publisher):
    """Is connected, and keeps what it is given."""

    def __init__(self) -> None:
        super().__init__(Address("127.0.0.1", 1, "test"), "5", ABOUT)
        self.connected.set()
        self.sent: list[Message] = []
        self.repeats = 0

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def repeat(self) -> None:
        self.repeats += 1

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [json.loads(each.payload) for each in self.sent if each.topic == f"{ROOT}/error"]

    def kept(self, name: str) -> str | None:
        message = self._kept.get(f"{ROOT}/{name}")
        if message:
            assert (message.qos, message.retain) == (1, True)
        return message.payload.decode() if message else None


class Rig:
    """A control between records of what it does; a second one in the same folder is a restart."""

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        self.folder = folder
        self.publisher = RecordingPublisher()
        self.muted: list[bool] = []
        self.settings: list[Settings] = []
        self.events: list[Event] = []
        self.new: Settings | SettingsError = settings or Settings()
        self.file = OptionsFile(folder)
        self.kept, self.fault = self.file.read()
        self.answers = Answers(self.publisher)
        self.control = Control(
            settings or Settings(),
            self.kept,
            self.file,
            self.publisher,
            self.answers,
            mute=self.muted.append,
            reread=self._reread,
            sink=self.events.append,
        )

    def _reread(self) -> Settings:
        if isinstance(self.new, SettingsError):
            raise self.new
        return self.new

    def attach(self) -> None:
        """Obey all that was sent."""
        self.control.attach(self.settings.append, "en")

    def send(self, name: str, payload: bytes | str, *, retained: bool = False) -> None:
        raw = payload.encode() if isinstance(payload, str) else payload
        self.control.take(Received(f"{ROOT}/{name}", raw, retained))
        self.attach()

    def command(self, deed: str) -> None:
        self.send(COMMAND, json.dumps({"command": deed}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def rig(folder: Path) -> Rig:
    return Rig(folder)


def with_silence(silence_ms: int, pause_ms: int) -> Settings:
    return Settings(endpoint=EndpointSettings(silence_ms=silence_ms, pause_ms=pause_ms))


# ------------------------------------------------------------------------ what is set


def test_at_the_start_it_tells_its_topics_and_what_holds(rig: Rig) -> None:
    assert rig.control.topics == [f"{ROOT}/{name}" for name in TOPICS]
    assert rig.publisher.kept("listen/state") == "ON"
    assert rig.publisher.kept("vad/aggressiveness/state") == "2"
    assert rig.publisher.kept("endpoint/silence_ms/state") == "600"
    assert rig.publisher.sent == []


def test_off_mutes_and_on_listens_again_and_both_survive(rig: Rig, folder: Path) -> None:
    rig.send(LISTEN, "OFF")
    assert rig.muted == [True]
    assert rig.publisher.kept("listen/state") == "OFF"
    again = Rig(folder)
    assert again.kept.muted
    assert again.publisher.kept("listen/state") == "OFF"
    again.send(LISTEN, "on")
    assert again.muted == [False]
    assert again.publisher.kept("listen/state") == "ON"
    assert not Rig(folder).kept.muted
    assert rig.publisher.errors == again.publisher.errors == []


def test_muting_waits_for_no_disk_and_is_told_once_it_would_survive(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A microphone that is told to be closed stays closed, whenever the daemon is killed."""
    order: list[str] = []
    monkeypatch.setattr(rig.control, "_mute", lambda on: order.append(f"mute {on}"))
    monkeypatch.setattr(rig.file, "write", lambda kept: order.append(f"disk {kept.muted}"))
    monkeypatch.setattr(rig.publisher, "keep", lambda each: order.append(each.payload.decode()))
    rig.send(LISTEN, "OFF")
    rig.send(LISTEN, "ON")
    assert order == ["mute True", "disk True", "OFF", "disk False", "mute False", "ON"]


def test_an_option_is_set_at_once_and_survives(rig: Rig, folder: Path) -> None:
    rig.send(AGGRESSIVENESS, "3")
    rig.send(SILENCE, "450")
    assert rig.settings[-1].vad.aggressiveness == 3
    assert rig.settings[-1].endpoint.silence_ms == 450
    assert rig.publisher.kept("vad/aggressiveness/state") == "3"
    assert rig.publisher.kept("endpoint/silence_ms/state") == "450"
    again = Rig(folder)
    assert again.publisher.kept("endpoint/silence_ms/state") == "450"
    again.send(AGGRESSIVENESS, "1")
    assert again.settings[-1].vad.aggressiveness == 1
    assert again.settings[-1].endpoint.silence_ms == 450


def test_nothing_is_written_for_what_holds_already(rig: Rig, folder: Path) -> None:
    rig.send(AGGRESSIVENESS, "3")
    before = (folder / "options.json").stat()
    rig.send(AGGRESSIVENESS, "3")
    assert (folder / "options.json").stat().st_ino == before.st_ino


def test_at_the_start_the_log_tells_what_differs_from_the_settings(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "harkd")
    rig = Rig(folder)
    rig.send(SILENCE, "800")
    rig.send(AGGRESSIVENESS, "2")
    rig.send(LISTEN, "OFF")
    caplog.clear()
    Rig(folder)
    assert [record.message for record in caplog.records] == [
        "endpoint.silence_ms is 800, as it was set over MQTT; the settings say 600",
        f"muted over MQTT: send ON to {ROOT}/listen/set",
    ]


def test_what_contradicts_new_settings_at_the_start_is_told(folder: Path) -> None:
    Rig(folder).send(SILENCE, "400")
    rig = Rig(folder, with_silence(700, pause_ms=500))
    assert rig.publisher.kept("endpoint/silence_ms/state") == "700"
    (error,) = rig.publisher.errors
    assert "endpoint.silence_ms was set to 400 over MQTT" in error["error"]


# --------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        (LISTEN, "maybe"),
        (AGGRESSIVENESS, "4"),
        (SILENCE, "200"),
        (COMMAND, "reload"),
        (COMMAND, '{"command":"explode"}'),
    ],
)
def test_what_is_wrong_is_answered_once_and_changes_nothing(
    name: str, payload: str, rig: Rig, folder: Path
) -> None:
    rig.send(name, payload)
    (error,) = rig.publisher.errors
    assert (error["topic"], error["payload"]) == (f"{ROOT}/{name}", payload)
    assert [*rig.muted, *rig.settings, *rig.events] == []
    assert not folder.exists()


def test_an_empty_message_is_ignored(rig: Rig, folder: Path) -> None:
    for name in TOPICS:
        for retained in (False, True):
            rig.send(name, b"", retained=retained)
    assert [*rig.publisher.sent, *rig.muted, *rig.settings, *rig.events] == []
    assert not folder.exists()


def test_the_log_tells_the_first_wrong_message_and_not_its_followers(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        rig.send(LISTEN, "x")
    assert len([each for each in caplog.records if each.levelno >= logging.WARNING]) == 1
    assert len(rig.publisher.errors) == 3


@given(
    messages=st.lists(
        st.tuples(
            st.sampled_from(TOPICS),
            st.binary(max_size=60)
            | st.sampled_from([b"", b"ON", b"off", b"3", b"600", b"100", b"9"])
            | st.sampled_from(["reannounce", "test_final", "x"]).map(
                lambda word: json.dumps({"command": word}).encode()
            ),
            st.booleans(),
        ),
        max_size=8,
    )
)
@example_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_is_sent_there_is_one_error_for_each_that_is_wrong_and_no_change(
    messages: list[tuple[str, bytes, bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "state"
    (folder / "options.json").unlink(missing_ok=True)
    monkeypatch.setattr(control_module.log, "exception", lambda *_: pytest.fail("it crashed"))
    rig = Rig(folder)
    taken: dict[str, bytes] = {}
    for name, payload, retained in messages:
        before = (rig.control._in_force, list(rig.muted), list(rig.events), rig.publisher.repeats)
        errors = len(rig.publisher.errors)
        once = name not in (COMMAND, PHRASES)
        again = retained and once and payload and taken.get(name) == payload
        if retained and payload:
            taken[name] = payload
        try:
            wanted = read_command(name, payload, rig.control._in_force, retained=retained)
            wrong = retained and wanted == Listen(on=True) and rig.control._kept.muted
            wrong = wrong or isinstance(wanted, SetPhrases)  # it has none here
            wanted = None if wrong else wanted
        except CommandError:
            wanted, wrong = None, True
        rig.send(name, payload, retained=retained)
        assert len(rig.publisher.errors) == errors + (wrong and not again)
        after = (rig.control._in_force, list(rig.muted), list(rig.events), rig.publisher.repeats)
        if wanted is None or again:
            assert after == before
    restarted = Rig(folder)
    assert restarted.fault == ""
    assert restarted.control._in_force == rig.control._in_force
    assert restarted.kept == rig.control._kept


@given(data=st.binary(max_size=200))
@example_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_the_state_file_holds_it_starts_and_can_be_set(
    data: bytes, tmp_path: Path
) -> None:
    for old in tmp_path.iterdir():
        old.unlink()
    (tmp_path / "options.json").write_bytes(data)
    rig = Rig(tmp_path)
    assert 0 <= rig.control._in_force.vad.aggressiveness <= 3
    rig.send(AGGRESSIVENESS, "1")
    assert Rig(tmp_path).publisher.kept("vad/aggressiveness/state") == "1"


# ---------------------------------------------------------------------------- retained


def test_a_retained_message_is_honoured_once_and_not_again_after_a_restart(
    rig: Rig, folder: Path
) -> None:
    rig.send(LISTEN, "OFF", retained=True)
    rig.send(LISTEN, "ON")
    rig.send(LISTEN, "OFF", retained=True)
    assert rig.muted == [True, False]
    again = Rig(folder)
    again.send(LISTEN, "OFF", retained=True)
    assert again.muted == []
    assert again.publisher.kept("listen/state") == "ON"


def test_a_new_retained_message_is_honoured(rig: Rig) -> None:
    rig.send(AGGRESSIVENESS, "1", retained=True)
    rig.send(AGGRESSIVENESS, "3")
    rig.send(AGGRESSIVENESS, "0", retained=True)
    rig.send(AGGRESSIVENESS, "1", retained=True)
    assert [each.vad.aggressiveness for each in rig.settings] == [1, 3, 0, 1]


def test_a_retained_on_never_opens_a_microphone_that_was_muted(rig: Rig, folder: Path) -> None:
    """It may lie there since before the OFF, which nobody sees in it."""
    rig.send(LISTEN, "OFF")
    rig.send(LISTEN, "ON", retained=True)
    assert rig.muted == [True]
    assert "without retain" in rig.publisher.errors[0]["error"]
    again = Rig(folder)
    again.send(LISTEN, "ON", retained=True)
    assert again.kept.muted
    assert again.muted == []
    again.send(LISTEN, "ON")
    assert again.muted == [False]


def test_a_wrong_retained_message_is_answered_once(rig: Rig, folder: Path) -> None:
    rig.send(AGGRESSIVENESS, "7", retained=True)
    rig.send(AGGRESSIVENESS, "7", retained=True)
    again = Rig(folder)
    again.send(AGGRESSIVENESS, "7", retained=True)
    assert (len(rig.publisher.errors), len(again.publisher.errors)) == (1, 0)


def test_a_retained_command_is_refused_each_time(rig: Rig) -> None:
    for _ in range(2):
        rig.send(COMMAND, '{"command":"test_final"}', retained=True)
    assert rig.events == []
    assert len(rig.publisher.errors) == 2
    assert "empty retained message" in rig.publisher.errors[0]["error"]


# --------------------------------------------------------------------- what cannot be kept


def test_a_folder_that_cannot_be_written_is_told_once_and_the_change_holds(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.write_text("in the way")
    rig = Rig(folder)
    caplog.clear()
    rig.send(LISTEN, "OFF")
    rig.send(AGGRESSIVENESS, "3")
    assert rig.muted == [True]
    assert rig.settings[-1].vad.aggressiveness == 3
    (error,) = rig.publisher.errors
    assert str(folder) in error["error"]
    assert len([each for each in caplog.records if each.levelno == logging.ERROR]) == 1
    folder.unlink()
    rig.send(AGGRESSIVENESS, "3")
    assert Rig(folder).kept == Kept(False, {("vad", "aggressiveness"): 3})


# ------------------------------------------------------------------------ deeds


def test_test_final_goes_the_usual_way_with_an_id_of_its_own(rig: Rig) -> None:
    rig.command("test_final")
    rig.command("test_final")
    one, other = rig.events
    assert isinstance(one, Final)
    assert isinstance(other, Final)
    assert (one.text, one.confidence, one.test) == ("This is a test of harkd.", 1.0, True)
    assert (one.model, one.language, one.rev) == ("tiny", "en", 1)
    assert one.id != other.id


def test_listen_is_refused_where_there_is_no_wake_word(rig: Rig) -> None:
    rig.command("listen")
    (error,) = rig.publisher.errors
    assert "wake.word" in error["error"]


def test_listen_opens_the_ear(rig: Rig) -> None:
    opened: list[bool] = []
    rig.control.listen = lambda: opened.append(True)
    rig.command("listen")
    assert opened == [True]
    assert not rig.publisher.errors


def test_reannounce_sends_everything_again_and_nothing_twice(rig: Rig) -> None:
    """What others announce is kept, too: who announces need not do so again."""
    told: list[Settings] = []
    rig.control.announcers.append(told.append)
    rig.command("reannounce")
    assert told == []
    assert rig.publisher.repeats == 1
    assert rig.publisher.sent == []


def test_a_deed_that_fails_is_logged_and_answered(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Settings) -> None:
        raise RuntimeError("no way")

    rig.control.announcers.append(fail)
    rig.new = Settings(endpoint=EndpointSettings(silence_ms=500))
    rig.command("reload")
    assert "no way" in caplog.text
    assert len(rig.publisher.errors) == 1


# ----------------------------------------------------------------------- the settings again


def test_what_can_change_does_and_what_was_set_over_mqtt_stays(rig: Rig) -> None:
    rig.send(AGGRESSIVENESS, "3")
    rig.new = Settings(
        vad=VadSettings(aggressiveness=1, min_speech_ms=300),
        endpoint=EndpointSettings(silence_ms=500),
        mqtt=MqttSettings(max_age_s=5),
    )
    rig.command("reload")
    assert rig.settings[-1].vad == VadSettings(aggressiveness=3, min_speech_ms=300)
    assert rig.publisher.kept("vad/aggressiveness/state") == "3"
    assert rig.publisher.kept("endpoint/silence_ms/state") == "500"
    assert rig.publisher.about.max_age_s == 5
    assert rig.publisher.errors == []


def test_what_needs_a_restart_is_named_each_time_and_does_not_change(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.new = Settings(mqtt=MqttSettings(host="new"), audio=AudioSettings(device="desk"))
    for _ in range(2):
        rig.command("reload")
    said = "audio.device, mqtt.host need a restart"
    assert [each["error"] for each in rig.publisher.errors] == [said] * 2
    assert [each.message for each in caplog.records if each.levelno == logging.WARNING] == [
        said,
        said,
    ]
    assert rig.settings[-1] == Settings()


def test_who_announces_is_told_of_changed_settings_and_of_no_others(rig: Rig) -> None:
    told: list[Settings] = []
    rig.control.announcers.append(told.append)
    rig.send(SILENCE, "450")
    rig.command("reload")
    assert told == []
    rig.new = Settings(endpoint=EndpointSettings(pause_ms=400))
    rig.command("reload")
    assert [(each.endpoint.pause_ms, each.endpoint.silence_ms) for each in told] == [(400, 450)]


def test_faults_leave_everything_as_it_is_and_are_answered(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.new = SettingsError("harkd.yaml:3: vad.aggressiveness: 9 is out of range (0…3)")
    rig.command("reload")
    (error,) = rig.publisher.errors
    assert "harkd.yaml:3" in error["error"]
    assert error["topic"] == f"{ROOT}/command"
    assert rig.settings == []
    assert "harkd.yaml:3" in caplog.text


def test_new_settings_that_contradict_what_was_set_over_mqtt_are_a_fault(rig: Rig) -> None:
    rig.send(SILENCE, "350")
    rig.new = with_silence(900, pause_ms=400)
    rig.command("reload")
    (error,) = rig.publisher.errors
    assert "endpoint.silence_ms was set to 350 over MQTT" in error["error"]
    assert rig.settings[-1].endpoint.pause_ms == 300


def test_sighup_reads_the_settings_again_too_and_its_errors_answer_no_topic(rig: Rig) -> None:
    rig.new = Settings(vad=VadSettings(aggressiveness=0), audio=AudioSettings(device="desk"))
    rig.control.reload_soon()
    rig.attach()
    assert rig.settings[-1].vad.aggressiveness == 0
    (error,) = rig.publisher.errors
    assert error == {"error": "audio.device needs a restart", "topic": "", "payload": ""}


def test_the_log_changes_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str, str]] = []

    def set_up(level: str, style: str, *, device_id: str) -> None:
        calls.append((level, style, device_id))

    monkeypatch.setattr(control_module, "set_up", set_up)
    rig.command("reload")
    rig.new = Settings(log=LogSettings(level="debug", format="json"))
    rig.command("reload")
    assert calls == [("debug", "json", Settings().effective_device_id)]


def test_retain_last_off_clears_the_last_final_until_it_is_on_again(rig: Rig) -> None:
    assert rig.publisher.kept("transcript/last") is None
    rig.new = Settings(mqtt=MqttSettings(retain_last=False))
    rig.command("reload")
    assert rig.publisher.kept("transcript/last") == ""
    assert not rig.publisher.about.retain_last
    rig.new = Settings()
    rig.command("reload")
    assert rig.publisher.kept("transcript/last") is None
    assert rig.publisher.about.retain_last


def test_retain_last_that_is_off_at_the_start_clears_what_an_earlier_run_left(folder: Path) -> None:
    rig = Rig(folder, Settings(mqtt=MqttSettings(retain_last=False)))
    assert rig.publisher.kept("transcript/last") == ""


# ---------------------------------------------------------------------------- its thread


@pytest.fixture
def running(rig: Rig) -> Iterator[Rig]:
    rig.attach()
    rig.control.start()
    yield rig
    rig.control.stop()
    assert not rig.control._thread.is_alive()


def test_what_comes_while_the_model_loads_is_obeyed_before_it_listens(rig: Rig) -> None:
    rig.control.take(Received(f"{ROOT}/{LISTEN}", b"OFF", True))
    assert rig.muted == []
    rig.attach()
    assert rig.muted == [True]


def test_commands_are_obeyed_in_their_order_on_a_thread_of_its_own(running: Rig) -> None:
    for word in (b"OFF", b"ON", b"OFF"):
        running.control.take(Received(f"{ROOT}/{LISTEN}", word, False))
    wait_until(lambda: running.muted == [True, False, True], "third switch", 5)


def test_an_error_waits_for_the_broker(running: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "LOOK_S", 0.01)
    running.publisher.connected.clear()
    running.new = SettingsError("faulty")
    running.control.reload_soon()
    wait_until(lambda: running.answers.waiting, "error that waits", 5)
    assert running.publisher.errors == []
    running.publisher.connected.set()
    wait_until(lambda: len(running.publisher.errors) == 1, "error", 5)


def test_a_flood_is_dropped_with_an_error_for_each_and_the_rest_obeyed(running: Rig) -> None:
    gate, begun = threading.Event(), threading.Event()
    obeyed = 0

    def mute(_on: bool) -> None:
        nonlocal obeyed
        begun.set()
        assert gate.wait(5)
        obeyed += 1

    running.control._mute = mute
    running.control.take(Received(f"{ROOT}/{LISTEN}", b"OFF", False))
    assert begun.wait(5)
    for _ in range(MOST_WAITING + 7):
        running.control.take(Received(f"{ROOT}/{LISTEN}", b"OFF", False))
    assert running.control.waiting == MOST_WAITING
    assert running.control.dropped == len(running.publisher.errors) == 7
    gate.set()
    wait_until(lambda: obeyed == MOST_WAITING + 1, "end of the queue", 5)


# ------------------------------------------------------------------------------ save_audio


def test_audio_is_saved_as_asked(rig: Rig) -> None:
    asked: list[int | None] = []
    rig.control.save_audio = asked.append
    rig.send(COMMAND, '{"command":"save_audio","count":2}')
    rig.command("save_audio")
    assert asked == [2, None]
    assert rig.publisher.errors == []


def test_audio_that_cannot_be_saved_gives_one_error(rig: Rig) -> None:
    def refuse(_count: int | None) -> None:
        raise StateError("the disk is full", "make room")

    rig.control.save_audio = refuse
    rig.command("save_audio")
    (error,) = rig.publisher.errors
    assert error["error"] == "the disk is full. Make room."
    assert error["topic"] == f"{ROOT}/command"


def test_where_no_audio_is_kept_the_command_is_refused(rig: Rig) -> None:
    rig.command("save_audio")
    (error,) = rig.publisher.errors
    assert "no audio is kept" in error["error"]


def test_chores_are_done_at_the_start(rig: Rig) -> None:
    done = threading.Event()
    rig.control.chores.append(done.set)
    rig.control.start()
    try:
        assert done.wait(5)
    finally:
        rig.control.stop()


# --------------------------------------------------------------------------- hotwords


def test_hotwords_are_set_at_once_told_and_kept(rig: Rig, folder: Path) -> None:
    assert rig.publisher.kept("hotwords/state") == "[]"
    rig.send("hotwords/set", '["Ikea", {"word": "Siobhan", "boost": 3}]')
    assert rig.settings[-1].recognizer.hotwords == "Ikea, Siobhan:3"
    told = rig.publisher.kept("hotwords/state")
    assert told
    assert json.loads(told) == [{"word": "Ikea", "boost": 2}, {"word": "Siobhan", "boost": 3}]
    again = Rig(folder)
    assert again.publisher.kept("hotwords/state") == told
    again.send("hotwords/set", told)
    assert again.publisher.kept("hotwords/state") == told
    again.send("hotwords/set", "[]")
    assert again.settings[-1].recognizer.hotwords == ""


def test_hotwords_that_are_none_are_answered_and_change_nothing(rig: Rig) -> None:
    rig.send("hotwords/set", '["Ikea"]')
    rig.send("hotwords/set", '["Siobhan", "42"]')
    assert rig.publisher.kept("hotwords/state") == '[{"word":"Ikea","boost":2.0}]'
    (error,) = [json.loads(each.payload)["error"] for each in rig.publisher.sent]
    assert error.startswith('hotwords: "42" is no word; write letters')
