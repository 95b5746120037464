"""The microphone over a real PulseAudio and a real ALSA, through all that happens to them."""

from __future__ import annotations

import json
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alsa_mic import AlsaMic, read_pcm
from harkd.audio import RATE_HZ, AudioBlock, SampleClock, SourceLost, SourceOpened
from heard import Float, listening
from servers import PulseServer

pytestmark = pytest.mark.integration

SPEECH_S = 2.5

log = logging.getLogger("measured")
log.setLevel(logging.INFO)


def find(heard: Float, played: Float) -> tuple[int, float]:
    """Where `played` fits best in `heard`, and its correlation there; both (samples,)."""
    size = len(heard) + len(played)
    spectrum = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(played, size))
    lag = int(np.argmax(np.fft.irfft(spectrum, size)[: len(heard) - len(played) + 1]))
    part = heard[lag : lag + len(played)]
    return lag, float(part @ played / np.sqrt((part @ part) * (played @ played)))


def likeness(heard: Float, played: Float) -> float:
    """The median correlation of half seconds: a player that stumbles once harms one of them."""
    parts = np.array_split(played, round(len(played) / (RATE_HZ / 2)))
    return float(np.median([find(heard, part)[1] for part in parts if part.any()]))


def as_played(wav: Path) -> Float:
    return read_pcm(wav, RATE_HZ, 1)[:, 0].astype(np.float64)


# ------------------------------------------------------------------ PulseAudio


@pytest.mark.parametrize(
    ("device", "opened"),
    [
        ("default", "mic.monitor"),
        ("mic.monitor", "mic.monitor"),
        ("OF NULL out", "mic.monitor"),
    ],
)
def test_speech_is_heard_through_pulseaudio_by(
    device: str,
    opened: str,
    pulse: PulseServer,
    speech: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The default, a source's name, and a part of a source's description."""
    with listening(pulse.env, monkeypatch, device=device) as heard:
        at, event = heard.wait_for(SourceOpened, 5)
        assert event == SourceOpened(opened, RATE_HZ, 1, source=opened)
        first, _ = heard.wait_for(AudioBlock, 1)
        assert first - at < 0.5
        pulse.play(speech)
        heard.wait_for(AudioBlock, SPEECH_S + 2, after=time.monotonic() + SPEECH_S + 0.7)
        assert heard.of(SourceLost) == []
        assert not any(block.gap for _, block in heard.of(AudioBlock))
    similar = likeness(heard.samples(), as_played(speech))
    assert similar > 0.95


def test_a_named_source_is_heard_and_no_other(
    pulse: PulseServer, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulse.add_sink("quiet")
    with listening(pulse.env, monkeypatch, device="quiet.monitor") as heard:
        heard.wait_for(AudioBlock, 5)
        pulse.play(speech)
        heard.wait_for(AudioBlock, 2, after=time.monotonic() + 0.8)
        assert not heard.samples().any()


@pytest.mark.parametrize(
    ("device", "kind", "names"),
    [
        ("blue yeti", "no_such_device", ["blue yeti", "mic.monitor", "desk-left", "desk-right"]),
        ("desk", "ambiguous", ["desk", "desk-left", "desk-right"]),
    ],
)
def test_a_name_that_means_no_source_or_two_lists_them(
    device: str,
    kind: str,
    names: list[str],
    pulse: PulseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pulse.add_source("desk-left")
    pulse.add_source("desk-right")
    with listening(pulse.env, monkeypatch, device=device) as heard:
        _, lost = heard.wait_for(SourceLost, 5)
    assert lost.kind == kind
    for name in names:
        assert f'"{name}"' in lost.reason


def test_it_listens_again_within_five_seconds_after_pulseaudio_is_back(
    pulse: PulseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server is back at the worst moment: when the longest wait has just begun."""
    with listening(pulse.env, monkeypatch, stall_s=1.0) as heard:
        heard.wait_for(AudioBlock, 5)
        killed = time.monotonic()
        pulse.kill()
        lost, _ = heard.wait_for(SourceLost, 2.0, after=killed)
        heard.wait_for(SourceLost, 10, after=killed, count=5)
        pulse.start()
        back = time.monotonic()
        again, _ = heard.wait_for(AudioBlock, 10, after=back)
        log.info("lost after %.2f s, again after %.2f s", lost - killed, again - back)
        assert again - back < 5.0


def test_a_server_that_hangs_is_a_stall_and_heard_again_when_it_goes_on(
    pulse: PulseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(pulse.env, monkeypatch, stall_s=1.0) as heard:
        heard.wait_for(AudioBlock, 5)
        pid = heard.microphone.pid
        stopped = time.monotonic()
        pulse.stop_signal()
        at, lost = heard.wait_for(SourceLost, 2.0, after=stopped)
        assert lost.kind == "stalled"
        assert 0.9 < at - stopped < 1.5
        assert not Path(f"/proc/{pid}").exists(), "PortAudio hangs in its stop; the kill must work"
        pulse.continue_signal()
        goes_on = time.monotonic()
        heard.wait_for(AudioBlock, 5.0, after=goes_on)


# ------------------------------------------------------------------ ALSA


def test_a_48_khz_stereo_device_gives_16_khz_mono_with_true_times(
    alsa_mic_factory: Callable[..., AlsaMic],
    speech: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mic = alsa_mic_factory(speech)
    with listening(mic.env, monkeypatch, device="testmic") as heard:
        _, opened = heard.wait_for(SourceOpened, 5)
        assert (opened.rate_hz, opened.channels) == (48000, 2)
        assert opened.device.startswith("testmic")
        started_ns = mic.started_ns()
        heard.wait_for(AudioBlock, 5, after=time.monotonic() + SPEECH_S + 0.2)
        blocks = [block for _, block in heard.of(AudioBlock)]
    lag, similar = find(heard.samples(), as_played(speech))
    assert similar > 0.95
    assert not any(block.gap for block in blocks)
    clock, position = SampleClock(), 0
    for block in blocks:
        if len(block.samples):
            clock.update(position, block.captured_ns)
            off_ms = (clock.at_ns(lag) - started_ns) / 1e6
            assert abs(off_ms) < 40, f"after {position} samples"
        position += len(block.samples)
    log.info("sample clock off by %.1f ms", off_ms)


def cpu_s() -> float:
    """Seconds of CPU that this process used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def test_an_unplugged_device_is_told_soon_costs_little_and_is_heard_again_when_it_is_back(
    alsa_mic_factory: Callable[..., AlsaMic],
    speech: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mic = alsa_mic_factory(speech, loop=True)
    stall_s = 1.0
    with listening(mic.env, monkeypatch, device="testmic", stall_s=stall_s) as heard:
        heard.wait_for(AudioBlock, 5)
        time.sleep(0.3)
        used_s, gone = cpu_s(), time.monotonic()
        mic.unplug()
        lost, _ = heard.wait_for(SourceLost, stall_s + 1.0, after=gone)
        heard.wait_for(SourceLost, 12, after=gone, count=5)
        share = (cpu_s() - used_s) / (time.monotonic() - gone)
        mic.replug()
        back = time.monotonic()
        again, _ = heard.wait_for(AudioBlock, 10, after=back)
        log.info("lost after %.2f s, again after %.2f s", lost - gone, again - back)
        log.info("%.3f CPU-seconds a second while unplugged", share)
        assert lost - gone <= stall_s + 1.0
        assert again - back < 5.0
        assert share < 0.5


# ------------------------------------------------------------------ the commands


def harkd(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harkd", *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )


def test_devices_lists_devices_with_the_formats_that_open_and_sources(pulse: PulseServer) -> None:
    done = harkd(pulse.env, "devices", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    by_name = {each["name"]: each for each in found["devices"]}
    assert set(by_name) >= {"pulse", "default"}
    assert {"rate_hz": 16000, "channels": 1} in by_name["pulse"]["opens"]
    (default,) = [each for each in found["devices"] if each["default"]]
    assert default["reason"] == ""
    (source,) = found["sources"]
    assert (source["name"], source["rate_hz"], source["channels"]) == ("mic.monitor", 48000, 1)
    assert source["default"]
    assert source["monitor"]
    assert not source["muted"]


def test_devices_says_in_which_formats_a_bare_alsa_device_opens(
    alsa_mic_factory: Callable[..., AlsaMic], speech: Path
) -> None:
    done = harkd(alsa_mic_factory(speech).env, "devices", "--json")
    found = json.loads(done.stdout)
    (bare,) = [each for each in found["devices"] if each["name"].startswith("testmic")]
    assert {each["rate_hz"] for each in bare["opens"]} == {48000}
    assert {"rate_hz": 48000, "channels": 2} in bare["opens"]
    assert found["sources"] == []


def test_the_meter_shows_the_level_and_ends_after_its_time(
    alsa_mic_factory: Callable[..., AlsaMic], speech: Path
) -> None:
    mic = alsa_mic_factory(speech, loop=True)
    done = harkd(mic.env, "devices", "--meter", "--seconds", "1", "--device", "testmic")
    assert done.returncode == 0, done.stderr
    opened, *lines = done.stdout.splitlines()
    assert opened.endswith("at 48000 Hz × 2")
    assert 3 <= len(lines) <= 11, "ten a second, fewer where the machine is busy"
    assert all(" dB |" in line and "peak" in line for line in lines)
    assert any("█" in line for line in lines)


def test_the_meter_knows_a_muted_microphone(
    alsa_mic_factory: Callable[..., AlsaMic], speech: Path
) -> None:
    mic = alsa_mic_factory(speech, loop=True)
    mic.zero()
    done = harkd(mic.env, "devices", "--meter", "--seconds", "0.5", "--device", "testmic")
    assert "all zero: muted?" in done.stdout.splitlines()[-1]


def test_the_meter_of_a_device_that_is_not_there_names_those_that_are(pulse: PulseServer) -> None:
    done = harkd(pulse.env, "devices", "--meter", "--device", "blue yeti")
    assert done.returncode == 1
    assert done.stderr.startswith("harkd: no microphone matches")
    assert "mic.monitor" in done.stderr
