"""One daemon with two microphones: each is to others as a daemon of its own would be."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import soundfile

from daemon_process import Daemon, children
from servers import Mosquitto, PulseServer, Received, Subscriber, wait_until
from speech import plain

pytestmark = [pytest.mark.integration, pytest.mark.model]

SETTINGS = """
inputs:
  kitchen: {device: mic.monitor}
  bath: {device: second.monitor}
"""


def on(topic: str) -> Callable[[Received], bool]:
    return lambda message: message.topic == f"harkd/{topic}"


def is_in(name: str, *states: str) -> Callable[[Received], bool]:
    """Whether an input says that it is in one of these states."""
    return lambda message: (
        on(f"{name}/state")(message) and json.loads(message.payload)["state"] in states
    )


def announces(name: str) -> Callable[[Received], bool]:
    return lambda message: message.topic == f"homeassistant/device/harkd_{name}/config"


Running = Callable[[], AbstractContextManager[Daemon]]
NAMES = ("kitchen", "bath")


def text_of(subscriber: Subscriber, name: str) -> str:
    """All finals of one input."""
    finals = [each for each in subscriber.messages if on(f"{name}/transcript/text")(each)]
    return " ".join(each.payload.decode() for each in finals)


def last(subscriber: Subscriber, topic: str) -> str:
    """The last message on a topic."""
    return [each.payload.decode() for each in subscriber.messages if on(topic)(each)][-1]


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / "two.yaml"
    file.write_text(SETTINGS)
    return file


@pytest.fixture
def subscriber(broker: Mosquitto) -> Iterator[Subscriber]:
    with Subscriber(broker) as client:
        yield client


@pytest.fixture
def running(
    pulse: PulseServer, env: dict[str, str], settings: Path, subscriber: Subscriber, tmp_path: Path
) -> Running:
    """Called: a daemon that listens to both microphones."""
    pulse.add_sink("second")
    own = {**env, **pulse.env}
    del own["HARKD_DEVICE_ID"]

    @contextmanager
    def run() -> Iterator[Daemon]:
        seen = len(subscriber.messages)
        with Daemon("--config", str(settings), env=own, folder=tmp_path) as daemon:
            for name in NAMES:
                ready = is_in(name, "listening", "no_microphone", "muted")
                subscriber.wait_for(ready, 20, after=seen)
            yield daemon

    return run


def test_each_hears_its_own_and_nothing_of_the_other(
    pulse: PulseServer, subscriber: Subscriber, running: Running, model_dir: Path, tmp_path: Path
) -> None:
    samples = model_dir / "samples"
    sound, rate_hz = soundfile.read(samples / "two_cities.wav")
    soundfile.write(tmp_path / "cities.wav", sound[: 11 * rate_hz], rate_hz)
    with running() as daemon:
        players = [
            pulse.play(tmp_path / "cities.wav"),
            pulse.play(samples / "beckett.wav", sink="second"),
        ]
        assert [player.wait(60) for player in players] == [0, 0]
        time.sleep(1.5)
        assert daemon.stop() == 0
    kitchen, bath = (plain(text_of(subscriber, name)) for name in NAMES)
    assert "best of times it was the worst of times" in kitchen
    assert "try again" in bath
    assert "again" not in kitchen
    assert "times" not in bath
    for name in NAMES:
        finals = [each for each in subscriber.messages if on(f"{name}/transcript")(each)]
        assert {json.loads(each.payload)["device_id"] for each in finals} == {name}
        assert last(subscriber, f"{name}/availability") == "offline"
        assert {line["input"] for line in daemon.log if line.get("event") == "final"} == {*NAMES}


def test_one_is_muted_and_stays_so_while_the_other_listens(
    subscriber: Subscriber, running: Running
) -> None:
    with running() as daemon:
        assert len(children(daemon.process.pid)) == 2
        subscriber.publish("harkd/bath/listen/set", "OFF")
        subscriber.wait_for(is_in("bath", "muted"), 5)
        wait_until(lambda: len(children(daemon.process.pid)) == 1, "a closed microphone", 5)
        assert last(subscriber, "kitchen/listen/state") == "ON"
        assert last(subscriber, "bath/listen/state") == "OFF"
    with running() as daemon:
        assert json.loads(last(subscriber, "bath/state"))["state"] == "muted"
        assert json.loads(last(subscriber, "kitchen/state"))["state"] != "muted"
        assert len(children(daemon.process.pid)) == 1


def test_a_crash_is_told_of_both_and_home_assistant_knows_two_devices(
    subscriber: Subscriber, broker: Mosquitto, running: Running
) -> None:
    with running() as daemon:
        with Subscriber(broker, "homeassistant/#") as home:
            for name in NAMES:
                config = home.wait_for(announces(name), 10)
                assert json.loads(config.payload)["device"]["identifiers"] == [f"harkd_{name}"]
        seen = len(subscriber.messages)
        os.kill(daemon.process.pid, signal.SIGKILL)
        for name in NAMES:
            gone = subscriber.wait_for(on(f"{name}/availability"), 5, after=seen)
            assert gone.payload == b"offline"


def test_settings_are_read_again_by_both_and_a_new_input_needs_a_restart(
    subscriber: Subscriber, running: Running, settings: Path
) -> None:
    with running() as daemon:
        settings.write_text(SETTINGS + "  hall: {channel: 1}\nendpoint: {silence_ms: 700}\n")
        seen = len(subscriber.messages)
        daemon.process.send_signal(signal.SIGHUP)
        for name in NAMES:
            topic = on(f"{name}/endpoint/silence_ms/state")
            assert subscriber.wait_for(topic, 5, after=seen).payload == b"700"
            error = subscriber.wait_for(on(f"{name}/error"), 5, after=seen)
            assert json.loads(error.payload)["error"] == "inputs needs a restart"
        settings.write_text(SETTINGS.replace("bath", "cellar"))
        seen = len(subscriber.messages)
        daemon.process.send_signal(signal.SIGHUP)
        error = subscriber.wait_for(on("bath/error"), 5, after=seen)
        assert "no input bath any more" in json.loads(error.payload)["error"]
