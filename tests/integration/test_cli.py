"""Bad input at the command line: one clear message that says how to mend it, never a traceback."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile

from alsa_mic import AlsaMic
from daemon_process import Daemon
from log_schema import held_to_schema
from servers import Mosquitto, PulseServer, Subscriber, free_port
from speech import plain

pytestmark = [pytest.mark.integration, pytest.mark.model]


def harkd(
    *words: str, env: Mapping[str, str] | None = None, data: bytes = b""
) -> subprocess.CompletedProcess[str]:
    """Runs harkd to its end."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HARKD_", "PULSE_"))}
    done = subprocess.run(
        [sys.executable, "-m", "harkd", *words],
        env={**clean, "XDG_CONFIG_HOME": "/nonexistent", **(env or {})},
        input=data,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def assert_mended(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """It failed with one message that holds these parts."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr


def test_a_missing_model_is_named_with_the_command_that_fetches_it(
    env: dict[str, str], tmp_path: Path
) -> None:
    done = harkd("run", env={**env, "HARKD_MODELS": str(tmp_path)})
    assert_mended(done, "moonshine-tiny-en", "harkd models pull")


def test_an_unknown_model_is_answered_with_the_nearest_name(env: dict[str, str]) -> None:
    done = harkd("run", env={**env, "HARKD_RECOGNIZER__MODEL": "moonshine-tiny"})
    assert_mended(done, "moonshine-tiny-en")


@pytest.mark.parametrize("damage", ["missing", "truncated", "wrong"])
def test_a_damaged_model_file_is_named(
    damage: str, env: dict[str, str], model_dir: Path, tmp_path: Path
) -> None:
    """Missing and truncated files are found at the start, altered ones when they are loaded."""
    copy = tmp_path / "moonshine-tiny-en"
    copy.mkdir()
    for path in model_dir.iterdir():
        (copy / path.name).symlink_to(path)
    file = copy / "decoder_model_merged.ort"
    data = file.read_bytes()
    file.unlink()
    if damage == "truncated":
        file.write_bytes(data[:1000])
    elif damage == "wrong":
        file.write_bytes(bytes(len(data)))
    done = harkd("run", env={**env, "HARKD_MODELS": str(tmp_path)})
    assert_mended(done, "decoder_model_merged.ort", "harkd models pull")


def test_all_faults_of_the_settings_are_told_at_once(env: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "harkd.yaml"
    file.write_text("vad:\n  agressiveness: 2\nmqtt:\n  port: eighteen\n  base_topic: a/b\n")
    done = harkd("run", "--config", str(file), env=env)
    assert_mended(done, f"{file}:2", "aggressiveness", f"{file}:4", "mqtt.port", "mqtt.base_topic")


def test_a_file_that_is_no_audio_is_refused_before_anything_starts(env: dict[str, str]) -> None:
    assert_mended(harkd("run", "--source", "wav:/etc/passwd", env=env), "/etc/passwd", "wav, flac")
    assert_mended(harkd("run", "--source", "wav:/no/such.wav", env=env), "does not exist")
    assert_mended(harkd("run", "--source", "mic", env=env), "wav:PATH")


def test_good_files_are_transcribed_though_one_is_bad(
    env: dict[str, str], model_dir: Path, tmp_path: Path
) -> None:
    """One JSON object a file; the bad one carries its error, and the exit code tells."""
    bad = tmp_path / "bad.mp3"
    bad.write_bytes(b"no sound")
    samples, rate_hz = soundfile.read(model_dir / "samples" / "beckett.wav", dtype="int16")
    stereo = tmp_path / "stereo.flac"
    soundfile.write(stereo, np.stack([samples, samples], axis=1), rate_hz)
    done = harkd("transcribe", "--json", str(bad), str(stereo), env=env)
    assert_mended(done, "bad.mp3")
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["error"]
    assert second["error"] is None
    assert plain(second["text"]).startswith("ever tried ever failed no matter try again")
    assert second["duration_s"] == pytest.approx(9.96, abs=0.02)
    ends = [utterance["end_s"] for utterance in second["utterances"]]
    assert ends == sorted(ends)


def test_a_folder_becomes_subtitles_once(
    env: dict[str, str], model_dir: Path, tmp_path: Path
) -> None:
    """The second run has nothing to do, and does not even need a model."""
    out = tmp_path / "out"
    words = ("transcribe", str(model_dir / "samples"), "--format", "srt", "--output-dir", str(out))
    done = harkd(*words, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "3 files transcribed" in done.stderr
    assert "real-time factor" in done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        "beckett.wav.srt",
        "endgame_nagg_nell.wav.srt",
        "two_cities.wav.srt",
    ]
    number, times, *text = (out / "beckett.wav.srt").read_text().split("\n\n")[0].splitlines()
    assert number == "1"
    assert times.startswith("00:00:00,")
    assert plain(" ".join(text)).startswith("ever tried")

    again = harkd(*words, env={**env, "HARKD_MODELS": str(tmp_path)})
    assert again.returncode == 0, again.stderr
    assert "0 files transcribed, 3 skipped" in again.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_transcription_without_half_a_file(
    number: signal.Signals, env: dict[str, str], model_dir: Path, tmp_path: Path
) -> None:
    sample = model_dir / "samples" / "beckett.wav"
    folder, out = tmp_path / "rec", tmp_path / "out"
    folder.mkdir()
    (folder / "a.wav").symlink_to(sample)
    samples, rate_hz = soundfile.read(sample, dtype="int16")
    soundfile.write(folder / "b.wav", np.tile(samples, 180), rate_hz)  # half an hour
    with subprocess.Popen(
        [sys.executable, "-m", "harkd", "transcribe", str(folder), "--output-dir", str(out)],
        env={**os.environ, **env},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline_s = time.monotonic() + 30
        while not (out / "a.wav.txt").exists() and time.monotonic() < deadline_s:
            time.sleep(0.02)
        process.send_signal(number)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert "stopped; 1 of 2 files done; the same command does the rest" in told
    assert "Traceback" not in told
    assert [path.name for path in out.iterdir()] == ["a.wav.txt"]
    assert plain((out / "a.wav.txt").read_text()).startswith("ever tried")


@pytest.mark.parametrize("wanted", ["no-such-microphone", "offic"])
def test_a_device_name_that_matches_nothing_or_several_is_reported_and_waited_for(
    wanted: str, env: dict[str, str], pulse: PulseServer, broker: Mosquitto, tmp_path: Path
) -> None:
    """The state says which names there are; the daemon stays, since it may be plugged in later."""
    pulse.add_source("office")
    pulse.add_source("back_office")
    run_env = {**env, **pulse.env, "HARKD_AUDIO__DEVICE": wanted}
    with Subscriber(broker) as subscriber, Daemon(env=run_env, folder=tmp_path) as daemon:
        message = subscriber.wait_for(
            lambda m: m.topic == "harkd/test/state" and b"no_microphone" in m.payload, 15
        )
        reason = json.loads(message.payload)["reason"]
        assert "office" in reason
        assert "audio.device" in reason
        assert daemon.stop() == 0
        assert [entry["message"] for entry in daemon.log].count(reason) == 1


def test_a_port_without_a_broker_is_told_once_and_no_reason_to_stop(
    env: dict[str, str], model_dir: Path, tmp_path: Path
) -> None:
    port = free_port()
    wav = model_dir / "samples" / "beckett.wav"
    with Daemon(
        "--source",
        f"wav:{wav}",
        env={**env, "HARKD_MQTT__PORT": str(port)},
        folder=tmp_path,
    ) as daemon:
        assert daemon.wait(30) == 0
        told = [
            entry for entry in daemon.log if f"nothing listens at 127.0.0.1:{port}" in str(entry)
        ]
        assert len(told) == 1
        assert {held_to_schema(line)["harkd.device_id"] for line in daemon.lines} == {"test"}
        assert any(entry.get("harkd.event") == "final" for entry in daemon.log)
        assert any("for the next start" in entry["message"] for entry in daemon.log)


def test_raw_pcm_on_stdin_is_recognized_and_printed(env: dict[str, str], model_dir: Path) -> None:
    """`--source -` takes a pipe, here 48 kHz stereo; `--print` writes JSON lines to stdout."""
    samples, rate_hz = soundfile.read(model_dir / "samples" / "two_cities.wav", dtype="int16")
    pcm = np.repeat(samples[: 8 * rate_hz, np.newaxis], 2, axis=1).astype("<i2").tobytes()
    words = ("run", "--source", "-", "--rate", str(rate_hz), "--channels", "2", "--print")
    done = harkd(*words, env=env, data=pcm)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    finals = [event for event in events if event["topic"] == "transcript"]
    assert plain(finals[0]["text"]).startswith("it was the best of times")
    # Partials may be among them: a pipe is read as fast as it comes, which leaves them little time.
    assert "state" in {event["topic"] for event in events}


def test_without_a_broker_in_the_settings_the_daemon_brings_its_own(
    model_dir: Path, tmp_path: Path, alsa_mic_factory: Callable[..., AlsaMic]
) -> None:
    """The first run needs no other service: the log gives the line to try, and it works."""
    mic = alsa_mic_factory(model_dir / "samples" / "beckett.wav")
    env = {
        "HARKD_MODELS": str(model_dir.parent),
        "HARKD_RECOGNIZER__MODEL": model_dir.name,
        "HARKD_MQTT__PORT": str(free_port()),
        "HARKD_DEVICE_ID": "first",
        **mic.env,
    }
    with Daemon(env=env, folder=tmp_path) as daemon:
        daemon.wait_for_log("mosquitto_sub -p")
        line = next(e["message"] for e in daemon.log if "mosquitto_sub" in e["message"])
        command = shlex.split(line.partition(": ")[2].replace("#", "transcript/text"))
        heard = subprocess.run(
            [*command, "-C", "1", "-W", "20"], capture_output=True, text=True, check=False
        )
        assert plain(heard.stdout).startswith("harkd first transcript text ever tried")
        assert daemon.stop() == 0


def test_doctor_sees_a_machine_that_works_and_one_that_does_not(
    env: dict[str, str], pulse: PulseServer, model_dir: Path
) -> None:
    """Exit code and one line each; a muted microphone and a wrong broker are told apart."""
    player = pulse.play(model_dir / "samples" / "two_cities.wav")
    good = harkd("doctor", "--json", env={**env, **pulse.env})
    player.kill()
    checks = {check["name"]: check for check in json.loads(good.stdout)}
    assert good.returncode == 0, good.stdout
    assert checks["microphone"]["status"] == "ok"
    assert checks["model"]["status"] == "ok"
    assert checks["broker"]["status"] == "ok"

    bad = harkd("doctor", env={**env, **pulse.env, "HARKD_MQTT__PORT": str(free_port())})
    assert bad.returncode == 1
    assert "each sample is zero" in bad.stdout
    assert "nothing listens at" in bad.stdout


def test_nothing_is_told_to_anybody_about_this_machine(
    env: dict[str, str], model_dir: Path, tmp_path: Path
) -> None:
    """onnxruntime's own telemetry would write a device id below the home and look up its maker."""
    home = tmp_path / "home"
    home.mkdir()
    home_env = {**env, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    done = harkd("transcribe", str(model_dir / "samples" / "beckett.wav"), env=home_env)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in home.rglob("*")] == []


def test_a_float_file_is_heard(env: dict[str, str], model_dir: Path, tmp_path: Path) -> None:
    """Read as int16, libsndfile would give zeros."""
    samples, rate_hz = soundfile.read(model_dir / "samples" / "beckett.wav", dtype="float32")
    wav = tmp_path / "float.wav"
    soundfile.write(wav, samples, rate_hz, subtype="FLOAT")
    assert plain(harkd("transcribe", str(wav), env=env).stdout).startswith("ever tried")


@pytest.mark.parametrize(
    "words",
    [("--rate", "0"), ("--rate", "-5"), ("--rate", "9" * 20), ("--channels", "0")],
)
def test_nonsense_for_raw_pcm_is_refused_before_anything_starts(
    words: tuple[str, str], env: dict[str, str]
) -> None:
    done = harkd("run", "--source", "-", *words, env=env)
    assert done.returncode == 2
    assert "is not in the range" in done.stderr


def test_a_full_disk_behind_stdout_is_one_line(env: dict[str, str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "harkd", "config", "example"],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, **env},
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.strip() == "harkd: No space left on device"
