"""`save_audio` with the real daemon, model, disk and broker."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from daemon_process import Daemon
from harkd.app import load
from harkd.model_store import find_model
from harkd.settings import ModelsSettings, RecognizerSettings, Settings
from servers import Mosquitto, Received, Subscriber

pytestmark = [pytest.mark.integration, pytest.mark.model]

ROOT = "harkd/test"


def on(name: str) -> Callable[[Received], bool]:
    return lambda message: message.topic == f"{ROOT}/{name}"


def body(message: Received) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(message.payload)
    return payload


@contextmanager
def daemon_that_heard(wav: Path, env: dict[str, str], folder: Path) -> Iterator[Daemon]:
    """A daemon whose stdin has given a recording and a second of hush, and stays open."""
    samples, _ = soundfile.read(wav, dtype="int16")
    hush = np.random.default_rng(1).integers(-1, 2, 16000, np.int16)
    sound = np.concatenate([samples, hush]).astype("<i2").tobytes()
    ear, mouth = os.pipe()
    with (
        Daemon("--source", "-", env=env, folder=folder, stdin=ear) as daemon,
        os.fdopen(mouth, "wb", buffering=0) as pipe,
    ):
        os.close(ear)
        speaking = threading.Thread(target=pipe.write, args=(sound,), daemon=True)
        speaking.start()
        speaking.join(30)
        yield daemon


def test_saved_audio_is_heard_again_as_it_was_within_the_bounds_of_its_folder(
    broker: Mosquitto, env: dict[str, str], model_dir: Path, tmp_path: Path
) -> None:
    own = {**env, "HARKD_DEBUG__UTTERANCES": "10", "HARKD_DEBUG__KEEP_FILES": "2"}
    own["HARKD_ENDPOINT__SILENCE_MS"] = own["HARKD_ENDPOINT__PAUSE_MS"] = "200"
    own["HARKD_VAD__MIN_SPEECH_MS"] = "0"
    own["HARKD_VAD__SECOND_LOOK"] = "false"  # or some of it is not recognized at all
    folder = Path(env["HARKD_STATE__DIR"]) / "debug"
    with (
        Subscriber(broker) as subscriber,
        daemon_that_heard(model_dir / "samples" / "beckett.wav", own, tmp_path),
    ):
        ended = ("transcript", "transcript/rejected")

        def ends() -> list[dict[str, Any]]:
            return [body(m) for m in subscriber.messages for name in ended if on(name)(m)]

        subscriber.wait_for(lambda _: len(ends()) >= 3, 30)
        assert not folder.exists()
        subscriber.publish(f"{ROOT}/command", '{"command":"save_audio","count":1}')
        subscriber.wait_for(on("debug/saved"), 10)
        seen = len(subscriber.messages)
        subscriber.publish(f"{ROOT}/command", '{"command":"save_audio"}')
        told = body(subscriber.wait_for(on("debug/saved"), 10, after=seen))
    assert (told["folder"], told["count"]) == (str(folder), 2)
    assert sorted(path.name for path in folder.glob("*.wav")) == told["files"]
    settings = Settings(
        models=ModelsSettings(dir=str(model_dir.parent)),
        recognizer=RecognizerSettings(model=model_dir.name),
    )
    recognizer = load(find_model(settings), settings)
    finals = {each["id"]: each["text"] for each in ends() if each["event_type"] == "final"}
    ids = set()
    for name in told["files"]:
        samples, rate_hz = soundfile.read(folder / name, dtype="int16")
        facts = json.loads((folder / name).with_suffix(".json").read_bytes())
        stream = recognizer.stream()
        stream.accept(samples)
        assert rate_hz == 16000
        assert stream.finish().text == facts["text"] == finals.get(facts["id"], facts["text"])
        ids.add(facts["id"])
    assert ids & set(finals)


def test_by_default_nothing_can_be_saved_and_nothing_is_written(
    broker: Mosquitto, env: dict[str, str], model_dir: Path, tmp_path: Path
) -> None:
    with (
        Subscriber(broker) as subscriber,
        daemon_that_heard(model_dir / "samples" / "beckett.wav", env, tmp_path),
    ):
        subscriber.wait_for(on("transcript"), 30)
        subscriber.publish(f"{ROOT}/command", '{"command":"save_audio"}')
        error = body(subscriber.wait_for(on("error"), 10))["error"]
    assert "debug.utterances is 0" in error
    assert not list(tmp_path.rglob("*.wav"))
    assert not (Path(env["HARKD_STATE__DIR"]) / "debug").exists()
