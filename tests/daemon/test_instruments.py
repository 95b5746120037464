"""Live, ready, figures: one truth for HTTP, systemd and `harkd status`."""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fakes import FakeRecognizer, ScriptedSource, speech
from harkd import life
from harkd.audio import AudioBlock, SourceOpened
from harkd.counters import Counters
from harkd.events import Final, Partial, Rejected, RejectReason, State, StateChanged
from harkd.final_sender import OutboxFacts
from harkd.instruments import Instruments, is_loopback
from harkd.life import LifeSign
from harkd.messages import About
from harkd.pipeline import Pipeline
from harkd.service_manager import ServiceManager
from harkd.settings import HttpSettings, Settings
from harkd.signal_level import SignalFigures
from harkd.vitals import InputVitals
from servers import free_port, wait_until

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LISTENING = StateChanged(State.LISTENING, NOW, audio_device="desk", device_rate_hz=48000)
GONE = StateChanged(State.NO_MICROPHONE, NOW, "the microphone is gone", problem="unplugged")
SIGNAL = SignalFigures(-42.5, -20.0, 0.01, 7, 0.0, 25, 500, 0.03)
SECRET = "open the door"  # noqa: S105 - what somebody said


@dataclass
class FakeHearing:
    waiting: int = 0
    audio_age_s: float | None = 0.03
    life: tuple[LifeSign, ...] = ()
    figures: SignalFigures = SIGNAL

    def signal(self) -> SignalFigures:
        return self.figures


@dataclass
class FakeBroker:
    connected: threading.Event = field(default_factory=threading.Event)
    connections: int = 3
    life: tuple[LifeSign, ...] = (LifeSign("mqtt", 60),)

    def outbox_facts(self) -> OutboxFacts:
        return OutboxFacts(2, 12.5, on_disk=True, dropped=1, problem="")


@dataclass
class FakeCommands:
    waiting: int = 4
    dropped: int = 5
    life: LifeSign = field(default_factory=lambda: LifeSign("control", 60))


@dataclass
class FakeCaptures:
    starts: int = 6
    pid: int = 0


class House:
    """A daemon with one input, all of which can be turned."""

    def __init__(self, settings: HttpSettings, manager: ServiceManager) -> None:
        self.about = About("harkd", "kitchen", "1.2.3", "tiny", "cpu", True, 30)
        self.now_ns = 0
        self.counters = Counters(lambda: self.now_ns)
        self.hearing, self.broker = FakeHearing(), FakeBroker()
        self.broker.connected.set()
        self.instruments = Instruments(settings, manager, lambda: self.about)
        self.vitals = self.follow("kitchen", self.counters)

    def follow(self, device_id: str, counters: Counters) -> InputVitals:
        vitals = InputVitals(device_id, counters, self.broker, FakeCommands())
        self.instruments.follow(vitals)
        return vitals

    def load(self) -> None:
        self.vitals.attach(self.hearing, FakeCaptures())
        self.instruments.ready()
        self.vitals.hear(LISTENING)

    @property
    def why_not(self) -> list[str]:
        return [each.reason for each in self.instruments.findings() if not each.ok]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def house(port: int) -> Iterator[House]:
    house = House(HttpSettings(port=port), ServiceManager())
    house.instruments.start()
    yield house
    house.instruments.stop()


@pytest.fixture
def ready(house: House) -> House:
    house.load()
    return house


def ask(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def samples(port: int) -> dict[str, float]:
    """Every sample of `/metrics`, named as in its text."""
    found = {}
    for family in text_string_to_metric_families(ask(port, "/metrics")[1]):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


# ------------------------------------------------------------------ ready


def test_while_the_model_loads_it_is_live_and_not_ready(house: House, port: int) -> None:
    assert house.why_not == ["the model is being loaded", "starting"]
    assert ask(port, "/readyz")[0] == 503
    assert ask(port, "/healthz")[0] == 200


def test_while_audio_comes_it_is_ready(ready: House, port: int) -> None:
    assert not ready.why_not
    status, body = ask(port, "/readyz")
    assert status == 200
    checks = json.loads(body)["checks"]
    assert [check["name"] for check in checks] == ["model", "live", "microphone", "real_time"]
    assert all(check["ok"] for check in checks)


def test_without_a_microphone_it_is_not_ready_but_live_and_says_why(
    ready: House, port: int
) -> None:
    ready.vitals.hear(GONE)
    status, body = ask(port, "/readyz")
    assert status == 503
    (check,) = (each for each in json.loads(body)["checks"] if not each["ok"])
    assert check == {
        "name": "microphone",
        "ok": False,
        "reason": "the microphone is gone",
        "device_id": "kitchen",
    }
    assert ask(port, "/healthz")[0] == 200
    ready.vitals.hear(LISTENING)
    assert ask(port, "/readyz")[0] == 200


def test_muted_on_purpose_is_ready_although_no_audio_comes(ready: House) -> None:
    ready.hearing.audio_age_s = 1000.0
    ready.vitals.hear(StateChanged(State.MUTED, NOW))
    assert not ready.why_not


@pytest.mark.parametrize(
    ("event", "age_s", "lag_s", "reason"),
    [
        (replace(LISTENING, problem="all_zero"), 0.0, 0.0, "each sample is zero"),
        (replace(GONE, problem="all_zero", reason="dead"), 0.0, 0.0, "dead"),
        (replace(LISTENING, problem="overruns"), 0.0, 0.0, "audio is being lost"),
        (LISTENING, 6.0, 0.0, "no audio has come for 6 s"),
        (LISTENING, None, 0.0, "no audio has come"),
        (LISTENING, 0.1, 2.5, "audio is taken 2.5 s late"),
        (StateChanged(State.FAILED, NOW, "broken"), 0.1, 0.0, "broken"),
    ],
)
def test_audio_that_is_dead_lost_old_or_late_is_not_ready(
    ready: House, event: StateChanged, age_s: float | None, lag_s: float, reason: str
) -> None:
    ready.vitals.hear(event)
    ready.hearing.audio_age_s = age_s
    ready.hearing.figures = replace(SIGNAL, lag_s=lag_s)
    (why,) = ready.why_not
    assert reason in why
    assert samples_of(ready, "ready") == 0.0


def samples_of(house: House, name: str) -> float:
    text, _ = house.instruments._metrics.text()
    match = re.search(rf'^harkd_{name}{{device_id="kitchen"}} (\S+)$', text.decode(), re.MULTILINE)
    assert match
    return float(match[1])


def test_a_signal_that_suffers_but_is_heard_is_ready(ready: House) -> None:
    ready.vitals.hear(replace(LISTENING, problem="clipping"))
    assert not ready.why_not


def test_with_several_inputs_all_have_to_be_ready(ready: House, port: int) -> None:
    bath = ready.follow("bath", Counters())
    status, body = ask(port, "/readyz")
    assert status == 503
    bad = [each["device_id"] for each in json.loads(body)["checks"] if not each["ok"]]
    assert bad == ["bath"]
    bath.attach(FakeHearing(), None)
    bath.hear(LISTENING)
    assert ask(port, "/readyz")[0] == 200
    found = samples(port)
    assert found["harkd_ready{device_id=bath}"] == found["harkd_ready{device_id=kitchen}"] == 1.0


# ------------------------------------------------------------------ live


def test_a_recognizer_that_hangs_ends_liveness_and_the_log_says_where(
    house: House,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The real pipeline; its recognizer waits for a gate that stays shut for a while."""
    monkeypatch.setattr("harkd.pipeline.RECOGNITION_S", 0.2)
    monkeypatch.setattr("harkd.pipeline.RECOGNITION_FACTOR", 0.0)
    gate, told = threading.Event(), threading.Event()
    recognizer = FakeRecognizer(gate=gate)
    audio = speech(1000)
    source = ScriptedSource(
        [SourceOpened("desk", 16000, 1), AudioBlock(audio, 1), lambda: told.wait(20)]
    )
    pipeline = Pipeline(source, recognizer, Settings(), house.vitals.hear)
    house.vitals.attach(pipeline, None)
    pipeline.start()
    house.instruments.ready()
    try:
        assert recognizer.waiting.wait(10), "it is asked for a text"
        wait_until(lambda: ask(port, "/healthz")[0] == 503, "the truth", 10)
        checks = json.loads(ask(port, "/healthz")[1])["checks"]
        (check,) = (each for each in checks if not each["ok"])
        assert check["name"] == "recognition"
        assert "no progress" in check["reason"]
        assert ask(port, "/readyz")[0] == 503, "who hangs is not ready, either"
        house.instruments._stuck(house.instruments.why_not_live())
        assert "it is at wait" in caplog.text
        assert "(fakes.py:" in caplog.text
        gate.set()
        wait_until(lambda: ask(port, "/healthz")[0] == 200, "progress", 10)
    finally:
        gate.set()
        told.set()
        pipeline.stop()
        assert pipeline.wait(10)


def test_a_listening_thread_that_hangs_ends_liveness(ready: House) -> None:
    sign = LifeSign("listening", life.LISTENING_S, monotonic=lambda: now_s)
    now_s = 0.0
    ready.hearing.life = (sign,)
    sign.begin()
    sign.beat()
    assert not ready.instruments.why_not_live()
    now_s = 30.0
    reason = "the listening thread has made no progress for 30 s"
    assert ready.instruments.why_not_live() == reason
    assert samples_of(ready, "live") == samples_of(ready, "ready") == 0.0


# ------------------------------------------------------------------ figures


def test_metrics_are_what_happened_as_prometheus_reads_it(ready: House, port: int) -> None:
    counters, vitals = ready.counters, ready.vitals
    counters.count("gaps", 2)
    counters.count("losses")
    counters.count("segments", 3)
    counters.recognized(0.4, 2.0)
    ready.now_ns = 2_400_000_000
    partial = Partial("A", 1, SECRET, 0.9, NOW, 1.0, "en", "tiny", audio_end_ns=2_000_000_000)
    counters.note(partial)
    final = Final("A", 2, SECRET, 0.9, NOW, NOW, 1.0, 1_700_000_000, 2_300_000_000, "en", "tiny")
    counters.note(final)
    counters.note(Rejected("B", RejectReason.NO_SPEECH, NOW, 1.0))
    vitals.hear(GONE)
    vitals.hear(LISTENING)
    found = samples(port)
    own = "device_id=kitchen"
    assert found["harkd_build_info{device=auto,model=tiny,provider=cpu,version=1.2.3}"] == 1
    wanted = {
        "live": 1,
        "ready": 1,
        "microphone_up": 1,
        "frames_total": 500,
        "voiced_frames_total": 25,
        "gaps_total": 2,
        "microphone_losses_total": 1,
        "capture_starts_total": 6,
        "level_dbfs": -42.5,
        "peak_dbfs": -20.0,
        "dc_offset": 0.01,
        "clipped_samples_total": 7,
        "zeros_seconds": 0,
        "audio_lag_seconds": 0.03,
        "segments_total": 3,
        "partials_total": 1,
        "finals_total": 1,
        "outbox_waiting": 2,
        "outbox_oldest_age_seconds": 12.5,
        "outbox_on_disk": 1,
        "mqtt_connected": 1,
        "mqtt_reconnects_total": 2,
        "capture_resident_memory_bytes": 0,
        "partial_lag_seconds_sum": 0.4,
        "final_latency_seconds_sum": 0.7,
        "real_time_factor_sum": 0.2,
        "real_time_factor_count": 1,
    }
    assert {name: found[f"harkd_{name}{{{own}}}"] for name in wanted} == pytest.approx(wanted)
    assert found[f"harkd_state{{{own},state=listening}}"] == 1
    assert found[f"harkd_state{{{own},state=speech}}"] == 0
    assert found[f"harkd_microphone_problem{{{own},problem=unplugged}}"] == 0, "it was, and is not"
    assert found[f"harkd_rejected_total{{{own},reason=no_speech}}"] == 1
    assert found[f"harkd_rejected_total{{{own},reason=overloaded}}"] == 0
    assert found[f"harkd_queue_depth{{{own},queue=commands}}"] == 4
    assert found[f"harkd_dropped_total{{{own},what=commands}}"] == 5
    assert found[f"harkd_dropped_total{{{own},what=finals}}"] == 1
    assert found[f"harkd_partial_lag_seconds_bucket{{{own},le=0.3}}"] == 0
    assert found[f"harkd_partial_lag_seconds_bucket{{{own},le=0.5}}"] == 1
    assert found[f"harkd_final_latency_seconds_bucket{{{own},le=+Inf}}"] == 1
    assert found["process_resident_memory_bytes{}"] > 1e6
    assert not [name for name in found if name.startswith("python_")]


def test_the_status_has_figures_and_the_last_error(ready: House, port: int) -> None:
    logging.getLogger("harkd.test").error("the %s is full", "disk")
    ready.vitals.hear(GONE)
    told = json.loads(ask(port, "/status")[1])
    assert told["ready"] is False
    assert told["live"] is True
    assert told["findings"][0]["reason"] == "the microphone is gone"
    assert told["last_error"]["message"] == "the disk is full"
    assert told["rss_mb"] > 1
    (kitchen,) = told["inputs"]
    assert kitchen["problem"] == "unplugged"
    assert kitchen["signal"]["level_dbfs"] == -42.5
    assert kitchen["waiting"] == {"recognition": 0, "commands": 4}
    assert kitchen["outbox"]["oldest_age_s"] == 12.5
    assert kitchen["mqtt"] == {"connected": True, "reconnects": 2}


def test_no_page_has_a_word_of_what_was_said(ready: House, port: int) -> None:
    final = Final("A", 1, SECRET, 0.9, NOW, NOW, 1.0, 0, 0, "en", "tiny")
    ready.counters.note(final)
    ready.vitals.hear(final)
    ready.vitals.hear(Partial("A", 1, SECRET, 0.9, NOW, 1.0, "en", "tiny"))
    for path in ("/healthz", "/readyz", "/metrics", "/status"):
        assert "door" not in ask(port, path)[1]


# ------------------------------------------------------------------ the address


@pytest.mark.usefixtures("house")
def test_a_taken_port_is_a_warning_with_the_mend(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    second = House(HttpSettings(port=port), ServiceManager())
    second.instruments.start()
    second.instruments.stop()
    (record,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert f"127.0.0.1:{port}" in record.getMessage()
    assert "http.port" in record.getMessage()
    assert ask(port, "/healthz")[0] == 200, "the first one goes on"


def test_an_address_that_others_reach_is_a_warning_at_each_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    house = House(HttpSettings(host="0.0.0.0", port=0), ServiceManager())  # noqa: S104
    house.instruments.start()
    house.instruments.stop()
    assert "whoever reaches this machine" in caplog.text
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert not is_loopback("kitchen.local")


def test_turned_off_nothing_listens(port: int) -> None:
    house = House(HttpSettings(enabled=False, port=port), ServiceManager())
    house.instruments.start()
    with pytest.raises(urllib.error.URLError):
        ask(port, "/healthz")
    house.instruments.stop()


# ------------------------------------------------------------------ systemd


def test_systemd_is_told_ready_and_one_line_for_each_change(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        manager = ServiceManager(str(tmp_path / "notify"))
        house = House(HttpSettings(enabled=False), manager)
        house.instruments.start()
        house.vitals.hear(StateChanged(State.STARTING, NOW))
        house.load()
        house.vitals.hear(StateChanged(State.SPEECH, NOW, audio_device="desk"))
        house.vitals.hear(replace(LISTENING, problem="clipping", reason="too loud"))
        house.vitals.hear(GONE)
        house.follow("bath", Counters()).hear(StateChanged(State.MUTED, NOW))
        house.instruments.stopping()
        house.instruments.stop()
        told: list[Any] = []
        while not told or told[-1] != "STOPPING=1":
            told.append(systemd.recv(4096).decode())
    assert told == [
        "STATUS=loading the model tiny",
        "READY=1",
        "STATUS=starting",
        "STATUS=listening to desk",
        "STATUS=listening to desk (too loud)",
        "STATUS=no microphone: the microphone is gone",
        "STATUS=kitchen: no microphone: the microphone is gone; bath: muted",
        "STOPPING=1",
    ]
