"""The machinery that the other integration tests stand on does what it says."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from alsa_mic import AlsaMic, read_pcm
from servers import MissingProgramError, Mosquitto, PulseServer, Subscriber, program

pytestmark = pytest.mark.integration

Int16Array = np.ndarray[tuple[int, ...], np.dtype[np.int16]]

SPEECH_HZ = 16_000

# PortAudio reads its environment when it is loaded, so that each capture is a process.
CAPTURE = """
import json, sys, time
import sounddevice

device, rate_hz, channels, seconds, path = json.loads(sys.argv[1])
blocks, times_ns, statuses = [], [], []

def on_block(data, frames, times, status):
    blocks.append(bytes(data))
    times_ns.append(time.monotonic_ns())
    if status:
        statuses.append(str(status))

started_ns = time.monotonic_ns()
with sounddevice.RawInputStream(
    device=device, samplerate=rate_hz, channels=channels, dtype="int16",
    blocksize=rate_hz // 50, latency=0.1, callback=on_block,
) as stream:
    print("capturing", flush=True)
    time.sleep(seconds)
with open(path, "wb") as file:
    file.write(b"".join(blocks))
print(json.dumps({"started_ns": started_ns, "times_ns": times_ns, "statuses": statuses}))
"""

PROBE = """
import json, sounddevice

def opens(rate_hz, channels):
    try:
        with sounddevice.RawInputStream(
            device="testmic", samplerate=rate_hz, channels=channels, dtype="int16"
        ):
            return 0
    except sounddevice.PortAudioError as error:
        return error.args[1]

print(json.dumps({
    "devices": [[one["name"], one["max_input_channels"]] for one in sounddevice.query_devices()],
    "16k mono": opens(16000, 1),
    "48k stereo": opens(48000, 2),
}))
"""


@dataclass
class Captured:
    """What a capture process heard."""

    samples: Int16Array
    """int16, (frames, channels)"""
    started_ns: int
    times_ns: list[int]
    statuses: list[str]


class Capture:
    """A process that records with sounddevice for some seconds."""

    def __init__(
        self, folder: Path, env: Mapping[str, str], device: str, rate_hz: int, channels: int
    ) -> None:
        self._path = folder / "captured.raw"
        self._env = {**os.environ, **env}
        self._settings = (device, rate_hz, channels)

    def run(self, seconds: float, meanwhile: Callable[[], object] = lambda: None) -> Captured:
        """Records, and calls `meanwhile` as soon as the stream is open."""
        argument = json.dumps([*self._settings, seconds, str(self._path)])
        with subprocess.Popen(
            [sys.executable, "-c", CAPTURE, argument],
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            if process.stdout.readline():
                meanwhile()
            out, err = process.communicate(timeout=seconds + 10)
        assert process.returncode == 0, err
        samples = np.frombuffer(self._path.read_bytes(), "<i2").reshape(-1, self._settings[2])
        return Captured(samples=samples, **json.loads(out))


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """2.5 s of noise with the rhythm of syllables: unlike itself at every other lag."""
    random = np.random.default_rng(1)
    noise = random.standard_normal(SPEECH_HZ * 5 // 2)
    smooth = np.convolve(noise, np.hanning(9), mode="same")
    rhythm = np.sin(np.pi * 4 * np.arange(len(noise)) / SPEECH_HZ) ** 2 + 0.05
    sound = smooth * rhythm
    path = tmp_path / "speech.wav"
    soundfile.write(path, (sound / np.abs(sound).max() * 20_000).astype(np.int16), SPEECH_HZ)
    return path


def best_lag(heard: Int16Array, played: Int16Array) -> int:
    """Returns the frame of `heard`, (frames,), at which `played`, (frames,), fits best."""
    size = len(heard) + len(played)
    spectrum = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(played, size))
    return int(np.argmax(np.fft.irfft(spectrum, size)[: len(heard)]))


def correlation(a: Int16Array, b: Int16Array) -> float:
    """Returns the cosine of two equally long signals, (frames,)."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def test_pulse_carries_played_speech_to_a_capture_without_gaps(
    pulse: PulseServer, speech: Path, tmp_path: Path
) -> None:
    capture = Capture(tmp_path, pulse.env, "default", SPEECH_HZ, 1)

    def play() -> None:
        time.sleep(0.3)
        pulse.play(speech)

    captured = capture.run(3.6, meanwhile=play)

    first_block_s = (captured.times_ns[0] - captured.started_ns) / 1e9
    assert first_block_s < 0.5, "the monitor was not warm"
    assert captured.statuses == []
    played = read_pcm(speech, SPEECH_HZ, 1)[:, 0]
    heard = captured.samples[:, 0]
    lag = best_lag(heard, played)
    # A gap or a jump would move all that follows away from this one lag.
    for begin in range(0, len(played), SPEECH_HZ // 2):
        part = played[begin : begin + SPEECH_HZ // 2]
        assert correlation(heard[lag + begin : lag + begin + len(part)], part) > 0.95


def test_pulse_server_stops_hangs_and_comes_back(pulse: PulseServer) -> None:
    first_pid = pulse.pid
    pulse.kill()
    with pytest.raises(subprocess.CalledProcessError):
        pulse.pactl("info")
    pulse.start()
    assert pulse.pid != first_pid
    assert pulse.pactl("get-default-source") == "mic.monitor"

    pulse.stop_signal()
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(
            ["pactl", "info"], env={**os.environ, **pulse.env}, capture_output=True, timeout=0.5
        )
    pulse.continue_signal()
    assert "mic.monitor" in pulse.pactl("info")


def test_pulse_sources_come_and_go(pulse: PulseServer) -> None:
    pulse.add_source("desk")
    pulse.add_sink("room")
    assert {"desk", "room.monitor"} <= sources(pulse)
    pulse.remove("desk")
    pulse.remove("room")
    assert sources(pulse) == {"mic.monitor"}


def sources(pulse: PulseServer) -> set[str]:
    return {line.split("\t")[1] for line in pulse.pactl("list", "short", "sources").splitlines()}


def test_alsa_mic_has_its_own_rate_and_channel_count_only(
    alsa_mic_factory: Callable[..., AlsaMic], speech: Path
) -> None:
    mic = alsa_mic_factory(speech)
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env={**os.environ, **mic.env},
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout)
    assert ["testmic", 2] in [[name.split(":")[0], inputs] for name, inputs in found["devices"]]
    assert found["16k mono"] in {-9997, -9998}
    assert found["48k stereo"] == 0


def test_alsa_mic_plays_its_file_in_real_time_and_says_since_when(
    alsa_mic_factory: Callable[..., AlsaMic], speech: Path, tmp_path: Path
) -> None:
    mic = alsa_mic_factory(speech)
    capture = Capture(tmp_path, mic.env, "testmic", mic.rate_hz, mic.channels)
    captured = capture.run(3.2)

    assert captured.statuses == []
    frames = mic.rate_hz // 50 * (len(captured.times_ns) - 1)
    elapsed_s = (captured.times_ns[-1] - captured.times_ns[0]) / 1e9
    assert frames / mic.rate_hz / elapsed_s == pytest.approx(1.0, abs=0.02)
    played = read_pcm(speech, mic.rate_hz, mic.channels)
    assert np.array_equal(captured.samples[: len(played)], played), "not the file, bit for bit"
    assert not captured.samples[len(played) :].any(), "no silence after the file"
    assert captured.started_ns <= mic.started_ns() < captured.times_ns[0]


def test_alsa_mic_can_be_zeroed_stalled_and_unplugged(
    alsa_mic_factory: Callable[..., AlsaMic], speech: Path, tmp_path: Path
) -> None:
    mic = alsa_mic_factory(speech, loop=True)
    capture = Capture(tmp_path, mic.env, "testmic", mic.rate_hz, mic.channels)
    stalled_ns = resumed_ns = 0

    def zero_then_stall() -> None:
        nonlocal stalled_ns, resumed_ns
        mic.started_ns()
        mic.zero()
        time.sleep(0.6)
        stalled_ns = mic.stall()
        time.sleep(0.5)
        resumed_ns = mic.resume()

    captured = capture.run(2.0, meanwhile=zero_then_stall)
    zero_blocks = ~captured.samples[: mic.rate_hz].reshape(-1, mic.rate_hz // 50 * 2).any(axis=1)
    assert zero_blocks.sum() >= 20
    assert np.diff(captured.times_ns).max() > 0.4e9
    assert not [at for at in captured.times_ns if stalled_ns + 0.1e9 < at < resumed_ns]

    mic.unplug()
    with pytest.raises(AssertionError, match="No input device"):
        capture.run(0.5)
    mic.replug()
    assert len(capture.run(0.5).samples) > 0


def test_broker_comes_back_on_its_port_and_the_subscriber_with_it(broker: Mosquitto) -> None:
    port = broker.port
    with Subscriber(broker) as subscriber:
        subscriber.publish("room/light", "on")
        subscriber.wait_for(lambda message: message.payload == b"on", timeout_s=2)
        broker.kill()
        time.sleep(0.2)
        broker.start()
        assert broker.port == port
        subscriber.wait_subscribed()
        subscriber.publish("room/light", "off")
        subscriber.wait_for(lambda message: message.payload == b"off", timeout_s=2)
        assert [message.payload for message in subscriber.messages] == [b"on", b"off"]


@pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311])
def test_subscriber_sees_retained_and_qos(broker: Mosquitto, protocol: MQTTProtocolVersion) -> None:
    with Subscriber(broker, "nothing") as publisher:
        publisher.publish("kept", "1", retain=True)
        with Subscriber(broker, protocol=protocol) as subscriber:
            kept = subscriber.wait_for(lambda message: message.topic == "kept", timeout_s=2)
            assert (kept.payload, kept.retain, kept.qos, kept.expiry_s) == (b"1", True, 1, None)
            publisher.publish("live", "2", qos=0)
            live = subscriber.wait_for(lambda message: message.topic == "live", timeout_s=2)
            assert (live.retain, live.qos) == (False, 0)
            assert live.received_ns > kept.received_ns
            with pytest.raises(AssertionError, match="kept b'1'"):
                subscriber.wait_for(lambda message: message.topic == "never", timeout_s=0.1)


def test_subscriber_sees_the_message_expiry(broker: Mosquitto) -> None:
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    with Subscriber(broker) as subscriber:
        client.connect(broker.host, broker.port)
        client.loop_start()
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = 30
        client.publish("soon/stale", "x", qos=1, properties=properties).wait_for_publish(2)
        received = subscriber.wait_for(lambda message: message.topic == "soon/stale", timeout_s=2)
        client.disconnect()
        client.loop_stop()
    assert received.expiry_s is not None
    assert 28 <= received.expiry_s <= 30


def test_broker_can_ask_for_a_password(tmp_path: Path) -> None:
    password = tmp_path.name
    with Mosquitto(tmp_path, user="ha", password=password) as broker:
        with Subscriber(broker, user="ha", password=password) as subscriber:
            subscriber.publish("a", "b")
            subscriber.wait_for(lambda message: message.topic == "a", timeout_s=2)
        refused = Subscriber(broker)
        with pytest.raises(AssertionError, match="refused: Not authorized"), refused:
            pass


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(MissingProgramError, match="apt-get install pulseaudio-utils"):
        program("paplay")
