"""What a real daemon tells of itself: HTTP, `harkd health`, `harkd status`, systemd, Prometheus."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from daemon_process import Daemon, children
from mouth import Mouth
from servers import Mosquitto, PulseServer, Subscriber, free_port, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.model]


class Site:
    """The pages of a daemon."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except urllib.error.URLError:  # it does not listen yet
            return 0, ""

    def wait_for(self, path: str, status: int, timeout_s: float = 15) -> str:
        wait_until(lambda: self.ask(path)[0] == status, f"{status} on {path}", timeout_s)
        return self.ask(path)[1]

    def samples(self) -> dict[str, float]:
        """The samples of `/metrics` that have no label but the device."""
        families = text_string_to_metric_families(self.ask("/metrics")[1])
        return {
            sample.name: sample.value
            for family in families
            for sample in family.samples
            if set(sample.labels) <= {"device_id"}
        }


@contextlib.contextmanager
def systemd_at(path: Path) -> Iterator[list[str]]:
    """What a service says at its $NOTIFY_SOCKET; read all the time, since the queue is short."""
    told: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))

        def read() -> None:
            while line := receiver.recv(4096):
                told.append(line.decode())

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        yield told
        receiver.shutdown(socket.SHUT_RD)
        thread.join(5)


def harkd(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HARKD_", "PULSE_"))}
    return subprocess.run(
        [sys.executable, "-m", "harkd", *words],
        env={**clean, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_a_microphone_that_goes_and_comes_back_is_told_everywhere(
    pulse: PulseServer, env: dict[str, str], tmp_path: Path
) -> None:
    """Ready follows the microphone, liveness does not; systemd hears both."""
    notify = tmp_path / "notify"
    with systemd_at(notify) as told:

        def heard(part: str) -> bool:
            return any(part in line for line in told)

        site = Site(free_port())
        own = {**env, **pulse.env, "HARKD_HTTP__PORT": str(site.port)}
        own["HARKD_AUDIO__ZEROS_S"] = "0"  # a null sink's silence is all zero
        service = {"NOTIFY_SOCKET": str(notify), "WATCHDOG_USEC": "1000000"}
        assert harkd(own, "health").returncode == 2, "nothing runs yet"
        with Daemon(env={**own, **service}, folder=tmp_path) as daemon:
            daemon.wait_for_log("listening to")
            assert '"ok":true' in site.wait_for("/readyz", 200)
            assert site.ask("/healthz")[0] == 200
            assert harkd(own, "health").stdout == "ready\n"
            (capture,) = children(daemon.process.pid)
            theirs = Path(f"/proc/{capture}/environ").read_bytes()
            assert b"NOTIFY_SOCKET" not in theirs
            assert b"WATCHDOG" not in theirs

            pulse.kill()
            body = json.loads(site.wait_for("/readyz", 503))
            (check,) = (each for each in body["checks"] if not each["ok"])
            assert (check["name"], check["device_id"]) == ("microphone", "test")
            assert check["reason"]
            assert site.ask("/healthz")[0] == 200, "it is live without a microphone"
            done = harkd(own, "health")
            assert (done.returncode, done.stderr) == (1, "")
            assert "not ready: microphone (test):" in done.stdout
            assert harkd(own, "health", "--live").returncode == 0
            assert site.samples()["harkd_microphone_up"] == 0

            pulse.start()
            site.wait_for("/readyz", 200)
            assert harkd(own, "health").returncode == 0
            samples = site.samples()
            assert samples["harkd_microphone_up"] == samples["harkd_ready"] == 1
            assert samples["harkd_microphone_losses_total"] >= 1
            assert samples["harkd_capture_starts_total"] >= 2

            daemon.process.send_signal(signal.SIGHUP)
            wait_until(lambda: heard("RELOADING=1"), "the reload", 10)
            told.clear()
            wait_until(lambda: heard("WATCHDOG=1"), "a sign of life", 10)
            assert daemon.stop() == 0
        wait_until(lambda: heard("STOPPING=1"), "the end", 5)


def test_systemd_hears_of_a_daemon_without_a_microphone(
    env: dict[str, str], tmp_path: Path
) -> None:
    """READY=1 needs the model, not a microphone: the status line says what is missing."""
    nowhere = {"PULSE_SERVER": f"unix:{tmp_path}/none", "ALSA_CONFIG_PATH": "/dev/null"}
    notify = tmp_path / "notify"
    with systemd_at(notify) as told:
        service = {**env, **nowhere, "NOTIFY_SOCKET": str(notify)}
        with Daemon(env=service, folder=tmp_path) as daemon:
            last = "STATUS=no microphone"
            wait_until(lambda: any(line.startswith(last) for line in told), last, 20)
            assert daemon.stop() == 0
    assert told[0] == "STATUS=loading the model moonshine-tiny-en"
    assert "READY=1" in told


def test_of_two_microphones_the_one_that_is_gone_is_named(
    pulse: PulseServer, env: dict[str, str], tmp_path: Path
) -> None:
    """Ready means both; `harkd status` shows both, from each of its two sides."""
    settings = tmp_path / "two.yaml"
    settings.write_text(
        "inputs:\n  kitchen: {device: mic.monitor}\n  bath: {device: second.monitor}\n"
    )
    pulse.add_sink("second")
    site = Site(free_port())
    own = {**env, **pulse.env, "HARKD_HTTP__PORT": str(site.port), "HARKD_AUDIO__ZEROS_S": "0"}
    del own["HARKD_DEVICE_ID"]
    with Daemon("--config", str(settings), env=own, folder=tmp_path) as daemon:
        site.wait_for("/readyz", 200)
        pulse.remove("second")
        body = json.loads(site.wait_for("/readyz", 503))
        assert [each["device_id"] for each in body["checks"] if not each["ok"]] == ["bath"]
        text = site.ask("/metrics")[1]
        assert 'harkd_ready{device_id="kitchen"} 1.0' in text
        assert 'harkd_ready{device_id="bath"} 0.0' in text
        assert site.ask("/healthz")[0] == 200
        for more in ({}, {"HARKD_HTTP__ENABLED": "false"}):
            shown = harkd({**own, **more}, "status", "--config", str(settings)).stdout
            assert "kitchen  listening" in shown
            assert "bath  no_microphone" in shown
        assert daemon.stop() == 0


def test_figures_are_those_of_what_was_said(
    broker: Mosquitto, env: dict[str, str], model_dir: Path, tmp_path: Path
) -> None:
    """/metrics against what was published, and `harkd status` with both sides and with one."""
    site = Site(free_port())
    own = {**env, "HARKD_HTTP__PORT": str(site.port)}
    with (
        Mouth(model_dir / "samples" / "beckett.wav") as mouth,
        Subscriber(broker) as subscriber,
        Daemon("--source", "-", env=own, folder=tmp_path, stdin=mouth.ear) as daemon,
    ):
        site.wait_for("/readyz", 200)
        mouth.speak()
        mouth.wait()
        wait_until(lambda: status(site)["waiting"]["recognition"] == 0, "rest", 20)
        published = [message.topic.removeprefix("harkd/test/") for message in subscriber.messages]
        samples, text = site.samples(), site.ask("/metrics")[1]
        finals = published.count("transcript")
        assert finals >= 2
        assert samples["harkd_finals_total"] == finals
        assert samples["harkd_partials_total"] == published.count("transcript/partial")
        assert samples["harkd_final_latency_seconds_count"] == finals
        assert samples["harkd_partial_lag_seconds_count"] == samples["harkd_partials_total"]
        assert samples["harkd_real_time_factor_sum"] > 0
        assert samples["harkd_segments_total"] == samples["harkd_real_time_factor_count"]
        assert samples["harkd_voiced_frames_total"] > 100
        assert samples["harkd_frames_total"] > samples["harkd_voiced_frames_total"]
        assert samples["harkd_mqtt_connected"] == 1
        assert re.search(
            r'harkd_build_info{device="auto",model="moonshine-tiny-en",provider="cpu"', text
        )

        last = [m for m in subscriber.messages if m.topic == "harkd/test/transcript/text"][-1]
        words = last.payload.decode()
        for path in ("/metrics", "/status", "/readyz", "/healthz"):
            assert words not in site.ask(path)[1], "texts go over MQTT alone"

        shown = harkd(own, "status", "--once").stdout
        assert words in shown
        assert f"{finals} finals" in shown
        assert "broker: connected" in shown
        told = json.loads(harkd(own, "status", "--json").stdout)
        assert told["status"]["inputs"][0]["finals"] == finals
        assert told["topics"]["test"]["last"]["text"] == words
        blind = harkd({**own, "HARKD_HTTP__ENABLED": "false"}, "status")
        assert words in blind.stdout
        assert "http.enabled is false" in blind.stdout
        deaf = harkd({**own, "HARKD_MQTT__PORT": str(free_port())}, "status")
        assert f"{finals} finals" in deaf.stdout
        assert "nothing listens" in deaf.stdout
        assert daemon.stop() == 0
    done = harkd(own, "status")
    assert (done.returncode, "does not run" in done.stdout) == (0, True)
    assert "test  offline" in done.stdout


def status(site: Site) -> dict[str, Any]:
    """What `/status` says of the one input."""
    (one,) = json.loads(site.ask("/status")[1])["inputs"]
    assert isinstance(one, dict)
    return one
