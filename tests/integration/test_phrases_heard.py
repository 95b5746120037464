"""Phrases in the whole daemon: spoken into the microphone, obeyed behind the broker."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from daemon_process import Daemon
from servers import Mosquitto, PulseServer, Received, Subscriber
from spoken import say

pytestmark = [pytest.mark.integration, pytest.mark.model]

SETTINGS = """
phrases:
  intents:
    timer:
      - set [a] timer for {1..12:hours} hour[s] [and {1..59:minutes} minute[s]]
    cancel: [cancel all timers]
"""
SPOKEN = "Set a timer for three hours and ten minutes."
ROOT = "harkd/test/command/"
OTHER = "Turn the lights off in the kitchen."
WINDOW = "Open the window in the kitchen."
"""The model hears each of these right, however it is cut; `Open the window.` it does not."""


def body(message: Received) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(message.payload)
    return payload


def speak(pulse: PulseServer, folder: Path, text: str) -> None:
    wav = folder / "said.wav"
    soundfile.write(wav, np.concatenate([say(text), np.zeros(16000, np.int16)]), 16000)
    assert pulse.play(wav).wait(30) == 0


def test_what_is_said_is_a_command_live_as_the_phrases_change(
    pulse: PulseServer, broker: Mosquitto, env: dict[str, str], tmp_path: Path
) -> None:
    settings = tmp_path / "harkd.yaml"
    settings.write_text(SETTINGS)
    with (
        Subscriber(broker) as subscriber,
        Daemon("--config", str(settings), env={**env, **pulse.env}, folder=tmp_path) as daemon,
    ):

        def wait(topic: str, about: str = "", after: int = 0) -> Received:
            return subscriber.wait_for(
                lambda each: each.topic == f"harkd/test/{topic}" and about.encode() in each.payload,
                20,
                after=after,
            )

        wait("state", '"listening"')
        assert body(wait("phrases/state"))["intents"] == ["timer", "cancel"]
        speak(pulse, tmp_path, SPOKEN)
        command = body(wait("command/timer"))
        assert command["slots"] == {"hours": 3, "minutes": 10}
        final = body(wait("transcript", command["id"]))
        assert final["match"]["intent"] == "timer"
        assert final["open_text"]

        faulty = (
            '{"intents": {"window": ["open the {windw} in the kitchen"]},'
            ' "lists": {"window": ["window"]}}'
        )
        subscriber.publish("harkd/test/phrases/set", faulty)
        assert 'did you mean "window"?' in body(wait("error", "windw"))["error"]
        subscriber.publish("harkd/test/phrases/set", faulty.replace("windw", "window"))
        wait("phrases/state", '"window"')
        speak(pulse, tmp_path, OTHER)
        other = body(wait("transcript", "ights"))
        assert "match" not in other, "it is no phrase"
        speak(pulse, tmp_path, WINDOW)
        assert body(wait("command/window"))["slots"] == {"window": "window"}
        so_far = len(subscriber.messages)
        speak(pulse, tmp_path, SPOKEN)
        again = body(wait("transcript", "inutes", after=so_far))
        assert "match" not in again, "these phrases are not in force any more"
        assert daemon.stop() == 0
        commands = [each.topic for each in subscriber.messages if each.topic.startswith(ROOT)]
    assert commands == [f"{ROOT}timer", f"{ROOT}window"]


def test_faults_of_the_settings_phrases_end_it_before_it_connects(
    env: dict[str, str], broker: Mosquitto, tmp_path: Path
) -> None:
    settings = tmp_path / "harkd.yaml"
    settings.write_text(SETTINGS.replace("{1..12:hours}", "{hours}"))
    with (
        Subscriber(broker) as subscriber,
        Daemon("--config", str(settings), env=env, folder=tmp_path) as daemon,
    ):
        assert daemon.wait(30) == 1
        assert subscriber.messages == []
    assert f'{settings}:5:27: there is no list "hours"' in "\n".join(daemon.lines)
