"""What listening costs: the real daemon in real time on a private PulseAudio, and nothing else.

    .venv/bin/python bench/idle.py --minutes 10 [--sound FILE] [--model MODEL] [--inputs N]

Plays silence, or a sound file in a loop, into the microphone, and prints one JSON object: CPU
seconds per second for the daemon and its capture processes, memory of both, and what was published.
With `--inputs`, one daemon has several microphones, which all hear the same.
Needs the Debian packages of scripts/test.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import soundfile

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from daemon_process import Daemon  # noqa: E402 - the tests' servers serve here, too
from servers import Mosquitto, PulseServer, Subscriber  # noqa: E402

SETTLE_S = 5.0


def cpu_s(process: psutil.Process) -> float:
    """User and system seconds of one process."""
    times = process.cpu_times()
    return float(times.user + times.system)


def memory_mb(process: psutil.Process) -> dict[str, float]:
    """Resident and proportional memory of one process, in MB (10^6 bytes)."""
    info = process.memory_full_info()
    return {"rss_mb": round(info.rss / 1e6, 1), "pss_mb": round(info.pss / 1e6, 1)}


def measure(
    folder: Path,
    minutes: float,
    sound: Path | None,
    *,
    model: str | None,
    embedded: bool,
    inputs: int,
) -> dict[str, object]:
    """Run the daemon for some minutes and return the figures."""
    (folder / "pulse").mkdir()
    (folder / "mosquitto").mkdir()
    with PulseServer(folder / "pulse") as pulse, Mosquitto(folder / "mosquitto") as broker:
        # A null sink's silence is all zeros, which would be taken for a muted microphone.
        env = {**pulse.env, "HARKD_DEVICE_ID": "bench", "HARKD_AUDIO__ZEROS_S": "0"}
        if "HARKD_MODELS" in os.environ:
            env["HARKD_MODELS"] = os.environ["HARKD_MODELS"]
        if model:
            env["HARKD_RECOGNIZER__MODEL"] = model
        env["HARKD_MQTT__PORT"] = str(broker.port)
        if embedded:
            broker.stop()  # the daemon starts its own on that port
        else:
            env["HARKD_MQTT__HOST"] = broker.host
        words = []
        if inputs > 1:
            del env["HARKD_DEVICE_ID"]
            names = ["mic.monitor", *(f"mic{n}" for n in range(2, inputs + 1))]
            for name in names[1:]:
                pulse.add_source(name)
            settings = {name.partition(".")[0]: {"device": name} for name in names}
            words = ["--config", str(folder / "inputs.yaml")]
            (folder / "inputs.yaml").write_text(json.dumps({"inputs": settings}))
        with Daemon(*words, env=env, folder=folder) as daemon:
            for process in range(inputs):
                daemon.wait_for_log("listening to", count=process + 1)
            with Subscriber(broker, protocol=4) as subscriber:
                return watch(daemon, subscriber, pulse, minutes * 60, sound)


def watch(
    daemon: Daemon, subscriber: Subscriber, pulse: PulseServer, seconds: float, sound: Path | None
) -> dict[str, object]:
    """Measure a daemon that listens already."""
    main = psutil.Process(daemon.process.pid)
    captures = main.children()
    time.sleep(SETTLE_S)
    server = psutil.Process(pulse.pid)
    before = {
        "daemon": cpu_s(main),
        "capture": sum(map(cpu_s, captures)),
        "pulseaudio": cpu_s(server),
    }
    memory_before = memory_mb(main)
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        if sound:
            pulse.play(sound).wait()
        else:
            time.sleep(1.0)
    elapsed_s = time.monotonic() - begin
    after = {
        "daemon": cpu_s(main),
        "capture": sum(map(cpu_s, captures)),
        "pulseaudio": cpu_s(server),
    }
    topics = Counter(message.topic.split("/", 2)[2] for message in subscriber.messages)
    finals = [
        json.loads(message.payload)["text"]
        for message in subscriber.messages
        if message.topic.endswith("/transcript")
    ]
    return {
        "sound": sound.name if sound else "silence",
        "seconds": round(elapsed_s, 1),
        "cpu_percent_of_a_core": {
            name: round(100 * (after[name] - before[name]) / elapsed_s, 2) for name in before
        },
        "memory": {"daemon": memory_mb(main), "capture": memory_mb(captures[0])},
        "captures": len(captures),
        "daemon_rss_mb_at_begin": memory_before["rss_mb"],
        "finals": len(finals),
        "texts": Counter(finals).most_common(5),
        "messages": topics,
    }


def main() -> None:
    """Read the words of the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--sound", type=Path, help="a file to play in a loop; silence if left out")
    parser.add_argument("--model", help="a name or path; the default model if left out")
    parser.add_argument("--embedded", action="store_true", help="with the embedded broker")
    parser.add_argument("--inputs", type=int, default=1, help="so many microphones")
    words = parser.parse_args()
    sound = words.sound
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if sound and soundfile.info(sound).duration < 30:
            # Starting a player costs more than a short sound lasts: play it many times over.
            samples, rate_hz = soundfile.read(sound, dtype="int16")
            times = int(30 * rate_hz / len(samples)) + 1
            sound = folder / f"{sound.stem}.wav"
            soundfile.write(sound, list(samples) * times, rate_hz)
        figures = measure(
            folder,
            words.minutes,
            sound,
            model=words.model,
            embedded=words.embedded,
            inputs=words.inputs,
        )
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
