"""The real daemon listens to speech while its broker is killed again and again."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from daemon_process import Daemon
from servers import Mosquitto, Subscriber, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.model]

KILLS = int(os.environ.get("TEST_KILLS", "3"))
"""20 in the longer form of this test, which takes three minutes for each kind of broker."""
SPEECH_S = 8.0 * KILLS
PERSISTENCE = ("persistence true", "autosave_on_changes true", "autosave_interval 50")


@pytest.mark.parametrize("persistence", [False, True])
def test_no_final_is_lost_while_speech_plays_and_the_broker_is_killed(
    persistence: bool, model_dir: Path, env: dict[str, str], tmp_path: Path
) -> None:
    chance = random.Random(3)  # noqa: S311 - no secret
    samples, rate_hz = soundfile.read(model_dir / "samples" / "two_cities.wav", dtype="int16")
    times = int(SPEECH_S * rate_hz / len(samples)) + 1
    speech = tmp_path / "speech.wav"
    soundfile.write(speech, np.tile(samples, times)[: int(SPEECH_S * rate_hz)], rate_hz)
    folder = tmp_path / "own-mosquitto"
    folder.mkdir()
    more = (*PERSISTENCE, f"persistence_location {folder}/") if persistence else ()
    with (
        Mosquitto(folder, more=more or ("persistence false",)) as broker,
        Subscriber(broker, "harkd/#", qos=0) as subscriber,
        Daemon(
            "--source",
            f"wav:{speech}",
            env={**env, "HARKD_MQTT__PORT": str(broker.port)},
            folder=tmp_path,
        ) as daemon,
    ):
        kills = 0
        while kills < KILLS and daemon.process.poll() is None:
            begin = len(subscriber.messages)
            subscriber.wait_for(lambda m: m.payload == b"online", 20, after=begin - 1)
            time.sleep(chance.uniform(0, 2.0))
            if daemon.process.poll() is not None:
                break
            broker.kill()
            kills += 1
            subscriber.wait_lost()
            time.sleep(chance.uniform(0, 0.3))
            # What is published before the subscriber is back, it cannot see.
            daemon.process.send_signal(signal.SIGSTOP)
            broker.start()
            subscriber.wait_subscribed()
            daemon.process.send_signal(signal.SIGCONT)
        assert daemon.wait(SPEECH_S + 60) == 0
        spoken = [each["harkd.id"] for each in daemon.log if each.get("harkd.event") == "final"]
        wait_until(lambda: subscriber.messages[-1].payload == b"offline", "offline", 5)
        messages = subscriber.messages
    transcripts = [m for m in messages if m.topic == "harkd/test/transcript"]
    missed = [m for m in messages if m.topic == "harkd/test/transcript/missed"]
    arrived = list(dict.fromkeys(json.loads(m.payload)["id"] for m in transcripts))
    print(
        f"\n{kills} kills in {SPEECH_S:g} s of speech, persistence {persistence}: {len(spoken)} "
        f"finals, {len(transcripts)} arrivals on time, {len(missed)} late"
    )
    assert kills >= min(KILLS, 2)
    assert arrived == spoken
    assert missed == []
    assert all(json.loads(m.payload)["latency_ms"] <= 30_000 for m in transcripts)
