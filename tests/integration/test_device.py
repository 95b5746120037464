"""A device that is wanted and not had, by the daemon as a whole. No GPU is needed: none is had."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemon_process import Daemon
from harkd.recognizer.cuda import knows_cuda
from servers import Mosquitto, Subscriber, wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(knows_cuda(), reason="this onnxruntime may use a GPU"),
]
CUDA = {"HARKD_RECOGNIZER__DEVICE": "cuda"}
TOLD = "recognizer.device is cuda, but the model runs on the CPU: the onnxruntime "


def test_a_required_device_that_is_not_had_ends_it_for_good_and_says_why(
    env: dict[str, str], broker: Mosquitto, tmp_path: Path
) -> None:
    env = {**env, **CUDA, "HARKD_RECOGNIZER__REQUIRE_DEVICE": "true"}
    with (
        Subscriber(broker, "harkd/+/state") as heard,
        Daemon("--source", "-", env=env, folder=tmp_path) as daemon,
    ):
        assert daemon.wait() == 78
        wait_until(lambda: any(b"failed" in m.payload for m in heard.messages), "state", 5.0)
    (failed,) = (m for m in heard.messages if b"failed" in m.payload)
    reason = json.loads(failed.payload)["reason"]
    assert reason.startswith(TOLD)
    assert "pip install 'onnxruntime-gpu[cuda,cudnn]'" in reason
    assert daemon.lines[-1].rstrip() == f"harkd: {reason}"


def test_a_wanted_device_that_is_not_had_is_told_and_the_processor_does_it(
    env: dict[str, str], broker: Mosquitto, tmp_path: Path, model_dir: Path
) -> None:
    source = f"wav:{model_dir / 'samples' / 'beckett.wav'}"
    with (
        Subscriber(broker, "harkd/+/state") as heard,
        Daemon("--source", source, env=env | CUDA, folder=tmp_path) as daemon,
    ):
        wait_until(lambda: any(b'"cpu"' in m.payload for m in heard.messages), "provider", 20.0)
        daemon.stop()
    (told,) = (line for line in daemon.lines if TOLD in line)
    assert "error" in told.lower()
