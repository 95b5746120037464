"""What there is to listen to, and how loud it is."""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from harkd import device_probe, devices
from harkd.audio import AudioBlock, SourceEvent, SourceLost, SourceOpened
from harkd.cli_doctor import devices as devices_command
from harkd.devices import Level, level_of, list_devices, listen
from harkd.errors import AudioError
from harkd.settings import AudioSettings
from harkd.signal_level import SILENT_DB

Int16 = np.ndarray[tuple[int], np.dtype[np.int16]]


def int16(*samples: int) -> Int16:
    return np.array(samples, np.int16)


# ------------------------------------------------------------------ levels


def test_zeros_are_as_silent_as_can_be_told_and_known_as_zeros() -> None:
    assert level_of(np.zeros(160, np.int16)) == Level(SILENT_DB, SILENT_DB, zero=True)


def test_one_least_bit_is_quiet_but_not_zero() -> None:
    level = level_of(int16(*[0] * 99, 1))
    assert not level.zero
    assert level.peak_db == pytest.approx(-90.3, abs=0.01)
    assert level.rms_db == pytest.approx(-110.3, abs=0.01)


def test_full_scale_is_zero_decibels_also_for_the_most_negative_sample() -> None:
    """abs(-32768) does not fit into int16."""
    level = level_of(int16(-32768, -32768))
    assert (level.rms_db, level.peak_db, level.zero) == (0.0, 0.0, False)
    assert level_of(int16(32767)).peak_db == pytest.approx(0.0, abs=0.001)


def test_a_sine_of_full_scale_has_three_decibels_less_rms_than_peak() -> None:
    sine = np.round(32767 * np.sin(np.arange(1600) * math.tau / 160)).astype(np.int16)
    level = level_of(sine)
    assert level.peak_db == pytest.approx(0.0, abs=0.01)
    assert level.rms_db == pytest.approx(-3.01, abs=0.01)


# ------------------------------------------------------------------ listening to the level


class FakeMicrophone:
    """In `Microphone`'s place: yields what the test says."""

    def __init__(self, *events: SourceEvent) -> None:
        self._events = events
        self.closed = False

    def __call__(self, _settings: AudioSettings) -> FakeMicrophone:
        return self

    def events(self) -> Iterator[SourceEvent]:
        yield from self._events

    def close(self) -> None:
        self.closed = True


def block(seconds: float, value: int = 0) -> AudioBlock:
    return AudioBlock(np.full(round(16000 * seconds), value, np.int16), 0)


def test_a_level_comes_for_each_tenth_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = SourceOpened("mic", 48000, 2)
    blocks = [block(0.03, 1000)] * 4 + [block(0.03)] * 4
    fake = FakeMicrophone(opened, *blocks, block(0.05))
    monkeypatch.setattr(devices, "Microphone", fake)
    first, *levels = listen(AudioSettings(), 10)
    assert first == opened
    assert [isinstance(each, Level) and each.zero for each in levels] == [False, True]
    assert fake.closed


def test_a_microphone_that_is_lost_is_an_error_in_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeMicrophone(SourceLost("busy", '"mic" is in use; close that program'))
    monkeypatch.setattr(devices, "Microphone", fake)
    with pytest.raises(AudioError, match='"mic" is in use; close that program'):
        list(listen(AudioSettings(), 10))
    assert fake.closed


SLOW = SourceLost("stalled", "the microphone did not open within 5 s; opening it again")


def test_a_microphone_that_opens_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine takes more than 5 s to start the capture process (an emulated Pi did)."""
    opened = SourceOpened("mic", 16000, 1)
    monkeypatch.setattr(devices, "Microphone", FakeMicrophone(SLOW, opened))
    assert list(listen(AudioSettings(), 10)) == [opened]


@pytest.mark.parametrize("before", [SLOW, SourceOpened("mic", 16000, 1)])
def test_one_that_does_not_open_at_all_or_stops_is_an_error(
    before: SourceEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeMicrophone(before, SLOW)
    monkeypatch.setattr(devices, "Microphone", fake)
    with pytest.raises(AudioError) as error:
        list(listen(AudioSettings(), 10))
    assert error.value.message == "the microphone did not open within 5 s"
    assert fake.closed


# ------------------------------------------------------------------ the list


@pytest.fixture
def fake_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a shell script in the place of the Python that runs the probe."""

    def put(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(devices, "sys", SimpleNamespace(executable=str(path)))

    return put


FOUND: dict[str, Any] = {
    "devices": [
        {
            "index": 3,
            "name": "USB mic (hw:1,0)",
            "host_api": "ALSA",
            "max_channels": 2,
            "default_rate_hz": 48000,
            "default": True,
            "opens": [{"rate_hz": 48000, "channels": 1}, {"rate_hz": 48000, "channels": 2}],
            "reason": "",
        },
        {
            "index": 4,
            "name": "HDMI",
            "host_api": "ALSA",
            "max_channels": 2,
            "default_rate_hz": 44100,
            "default": False,
            "opens": [],
            "reason": '"HDMI" is in use by another program. close it.',
        },
    ],
    "sources": [
        {
            "name": "desk",
            "description": "A desk's microphone",
            "rate_hz": 44100,
            "channels": 1,
            "muted": True,
            "volume": 1.0,
            "monitor": False,
            "default": True,
        }
    ],
    "error": "",
    "mend": "",
}


def as_echo(found: dict[str, Any]) -> str:
    return f"cat <<'END'\n{json.dumps(found)}\nEND"


def test_the_list_is_what_the_probe_prints(fake_probe: Callable[[str], None]) -> None:
    fake_probe('printf \'{"devices": [], "sources": ["%s"], "error": ""}\' "$*"')
    assert list_devices(probe=True)["sources"] == ["-m harkd.device_probe probe"]
    assert list_devices(probe=False)["sources"] == ["-m harkd.device_probe list"]


def test_a_probe_that_hangs_is_killed_and_the_sound_system_is_blamed(
    fake_probe: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(devices, "PROBE_S", 0.2)
    fake_probe(f"echo $$ > {tmp_path}/pid; exec sleep 60")
    begin = time.monotonic()
    with pytest.raises(AudioError, match=r"did not answer within 0\.2 s.*Restart PulseAudio"):
        list_devices(probe=True)
    assert time.monotonic() - begin < 2
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("script", ["exit 139", "echo 'ALSA lib: oops'; exit 139", "echo [; true"])
def test_a_probe_that_crashes_says_how_to_see_more(
    fake_probe: Callable[[str], None], script: str
) -> None:
    fake_probe(script)
    with pytest.raises(AudioError, match=r"harkd\.device_probe list"):
        list_devices(probe=True)


def test_a_probe_without_portaudio_says_what_to_install(fake_probe: Callable[[str], None]) -> None:
    fake_probe(as_echo({"devices": [], "sources": [], "error": "no PortAudio", "mend": "apt"}))
    with pytest.raises(AudioError, match=r"no PortAudio\. Apt"):
        list_devices(probe=True)


def test_the_command_prints_what_to_write_in_audio_device(
    fake_probe: Callable[[str], None],
) -> None:
    fake_probe(as_echo(FOUND))
    done = CliRunner().invoke(devices_command, [])
    assert done.exit_code == 0
    assert " *  3  USB mic (hw:1,0)  48000 Hz × 1/2\n" in done.output
    assert '    4  HDMI  does not open: "HDMI" is in use by another program' in done.output
    assert " * desk  (A desk's microphone, 44100 Hz)  muted\n" in done.output


def test_as_json_it_prints_devices_and_sources(fake_probe: Callable[[str], None]) -> None:
    fake_probe(as_echo(FOUND))
    done = CliRunner().invoke(devices_command, ["--json"])
    assert json.loads(done.output) == {key: FOUND[key] for key in ("devices", "sources")}


def test_without_any_microphone_it_points_to_the_doctor(
    fake_probe: Callable[[str], None],
) -> None:
    fake_probe(as_echo({"devices": [], "sources": [], "error": "", "mend": ""}))
    done = CliRunner().invoke(devices_command, [])
    assert "No microphone found" in done.output
    assert "harkd doctor" in done.output


def test_a_card_that_somebody_has_open_is_in_the_list_all_the_same(
    fake_probe: Callable[[str], None],
) -> None:
    """PortAudio leaves it out: whoever looks for its name while harkd runs would not find it."""
    jabra = {"name": "Jabra: USB Audio (hw:1,0)", "reason": device_probe.why(errno.EBUSY)}
    nothing = {"devices": [], "sources": [], "error": "", "mend": ""}
    fake_probe(as_echo({**nothing, "left_out": [jabra]}))
    done = CliRunner().invoke(devices_command, [])
    assert "No microphone found" not in done.output
    assert (
        "    -  Jabra: USB Audio (hw:1,0)  in use by another program, which may be harkd\n"
        in done.output
    )


# ------------------------------------------------------------------ the probe itself


class FakeStream:
    def __init__(self, sd: FakeSd) -> None:
        self._sd = sd

    def close(self) -> None:
        self._sd.still_open -= 1


class FakeSd:
    """sounddevice with one device that opens at 48 kHz stereo only."""

    class PortAudioError(Exception):
        """As sounddevice's."""

    def __init__(self, *fault: Any) -> None:
        self.still_open = 0
        self.tried: list[tuple[int, int]] = []
        self._fault = fault

    def RawInputStream(  # noqa: N802 - sounddevice's name
        self, *, device: int, samplerate: int, channels: int, dtype: str
    ) -> FakeStream:
        assert (device, dtype) == (3, "int16")
        self.tried.append((samplerate, channels))
        if self._fault or (samplerate, channels) != (48000, 2):
            raise self.PortAudioError(*(self._fault or ("Invalid sample rate", -9997)))
        self.still_open += 1
        return FakeStream(self)


def probed(sd: FakeSd, channels: int) -> tuple[list[dict[str, int]], str]:
    device = {"index": 3, "name": "mic", "max_channels": channels, "default_rate_hz": 32000}
    return device_probe.opens(sd, device)


def test_the_probe_really_opens_the_usual_formats_and_closes_them() -> None:
    sd = FakeSd()
    assert probed(sd, 6) == ([{"rate_hz": 48000, "channels": 2}], "")
    assert sd.tried == [(r, c) for r in (16000, 44100, 48000, 32000) for c in (1, 2, 6)]
    assert sd.still_open == 0


def test_the_probe_asks_a_mono_device_and_a_sound_server_for_what_makes_sense() -> None:
    mono, server = FakeSd(), FakeSd()
    probed(mono, 1)
    probed(server, 32)
    assert {channels for _, channels in mono.tried} == {1}
    assert {channels for _, channels in server.tried} == {1, 2}


def test_the_probe_says_why_nothing_opens() -> None:
    worked, reason = probed(FakeSd("Device unavailable", -9985), 2)
    assert worked == []
    assert reason.startswith('"mic" is in use by another program')
