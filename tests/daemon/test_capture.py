"""The capture process: which device, in which format, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harkd import capture
from harkd.capture import open_first, send
from harkd.capture_choice import choose_device, formats_to_try
from harkd.capture_errors import CaptureError, explain

Device = dict[str, Any]


def device(index: int, name: str, channels: int = 2, rate_hz: int = 48000) -> Device:
    return {
        "index": index,
        "name": name,
        "host_api": "ALSA",
        "max_channels": channels,
        "default_rate_hz": rate_hz,
    }


def source(name: str, description: str = "", channels: int = 1) -> Device:
    return {"name": name, "description": description, "channels": channels, "rate_hz": 48000}


USB = device(1, "USB PnP Sound Device: Audio (hw:1,0)", 1, 44100)
ARRAY = device(2, "ReSpeaker 4 Mic Array (UAC1.0): USB Audio (hw:2,0)", 6, 16000)
PULSE = device(4, "pulse", 32, 44100)
DEFAULT = device(5, "default", 32, 44100)
DEVICES = [USB, ARRAY, PULSE, DEFAULT]

JABRA = source("alsa_input.usb-Jabra.mono", "Jabra SPEAK 410 Mono")
JABRA_MONITOR = source("alsa_output.usb-Jabra.monitor", "Monitor of Jabra SPEAK 410", 2)
DESK = source("desk", "A desk's microphone")
SOURCES = [JABRA, JABRA_MONITOR, DESK]


def choose(
    wanted: str,
    devices: Sequence[Device] = DEVICES,
    sources: Sequence[Device] = SOURCES,
    default_index: int = 5,
) -> tuple[Device, Device | None]:
    return choose_device(wanted, devices, lambda: sources, default_index)


def refusal(function: Callable[..., Any], *args: Any, **options: Any) -> dict[str, Any]:
    """What the CaptureError says that the call raises."""
    with pytest.raises(CaptureError) as caught:
        function(*args, **options)
    return caught.value.report


# ------------------------------------------------------------------ which device


def test_default_is_portaudios_default_input() -> None:
    assert choose("default") == (DEFAULT, None)


def test_default_without_a_default_is_the_first_input() -> None:
    assert choose("default", default_index=-1) == (USB, None)


def test_digits_are_portaudios_index_not_a_position() -> None:
    assert choose("2") == (ARRAY, None)


def test_an_index_that_is_no_input_is_refused_with_a_hint_to_the_list() -> None:
    report = refusal(choose, "3")
    assert report["kind"] == "no_such_device"
    assert "index 3" in report["message"]
    assert "harkd devices" in report["mend"]


def test_an_exact_name_wins_over_a_part() -> None:
    longer = device(6, "pulse of the house")
    assert choose("pulse", [longer, *DEVICES]) == (PULSE, None)


@pytest.mark.parametrize("part", ["respeaker", "RESPEAKER 4 mic", "hw:2,0"])
def test_a_part_of_a_name_is_enough_and_case_does_not_matter(part: str) -> None:
    assert choose(part) == (ARRAY, None)


def test_a_sources_exact_name_means_the_way_through_pulseaudio() -> None:
    assert choose("alsa_input.usb-Jabra.mono") == (PULSE, JABRA)


def test_a_sources_exact_name_wins_over_a_part_of_a_device() -> None:
    usb = source("usb")
    assert choose("usb", DEVICES, [usb]) == (PULSE, usb)


def test_a_part_of_a_sources_description_is_enough() -> None:
    assert choose("desk's MICRO") == (PULSE, DESK)


def test_a_microphone_wins_over_the_monitor_of_the_loudspeaker_beside_it() -> None:
    """A headset is a source and a sink, and PulseAudio gives each sink a monitor source."""
    assert choose("jabra") == (PULSE, JABRA)


def test_a_monitor_is_found_by_a_part_where_nothing_else_matches() -> None:
    assert choose("monitor of jabra") == (PULSE, JABRA_MONITOR)


def test_a_source_without_a_pulse_device_goes_through_default() -> None:
    assert choose("desk", [USB, DEFAULT]) == (DEFAULT, DESK)


def test_a_source_without_any_way_to_pulseaudio_says_what_to_install() -> None:
    report = refusal(choose, "desk", [USB])
    assert report["kind"] == "no_device"
    assert "libasound2-plugins" in report["mend"]


def test_several_matching_devices_are_all_named() -> None:
    twins = [device(1, "USB Audio: #0 (hw:1,0)"), device(2, "USB Audio: #0 (hw:2,0)"), PULSE]
    report = refusal(choose, "usb audio", twins)
    assert report["kind"] == "ambiguous"
    assert 'audio.device "usb audio" matches 2 devices' in report["message"]
    assert '"USB Audio: #0 (hw:1,0)", "USB Audio: #0 (hw:2,0)"' in report["message"]


def test_twins_with_one_name_are_ambiguous_too() -> None:
    twins = [device(1, "USB Audio"), device(2, "USB Audio")]
    assert refusal(choose, "usb audio", twins)["kind"] == "ambiguous"


def test_several_matching_sources_are_all_named() -> None:
    report = refusal(choose, "desk", sources=[source("desk-left"), source("desk-right")])
    assert report["kind"] == "ambiguous"
    assert '"desk-left", "desk-right"' in report["message"]


def test_no_match_lists_every_device_and_source() -> None:
    report = refusal(choose, "Blue Yeti")
    assert report["kind"] == "no_such_device"
    assert '"Blue Yeti"' in report["message"]
    for each in [*DEVICES, *SOURCES]:
        assert f'"{each["name"]}"' in report["message"]


@pytest.mark.parametrize("wanted", ["default", "0", "usb"])
def test_without_any_input_it_says_so_whatever_is_wanted(wanted: str) -> None:
    report = refusal(choose, wanted, [])
    assert report["kind"] == "no_device"
    assert "harkd doctor" in report["mend"]


@pytest.mark.parametrize("wanted", ["default", "1", "default "])
def test_the_sound_server_is_asked_only_for_names(wanted: str) -> None:
    """Asking takes up to three seconds where the server hangs."""

    def ask() -> Sequence[Device]:
        asked.append(wanted)
        return []

    asked: list[str] = []
    try:
        choose_device(wanted, DEVICES, ask, 5)
    except CaptureError:
        assert wanted == "default "
    assert bool(asked) == (wanted == "default ")


def test_a_sound_server_that_hangs_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare ALSA device can still be found by a part of its name."""
    answered = threading.Event()

    def hang() -> list[Device]:
        answered.wait(10)
        return [JABRA]

    monkeypatch.setattr(capture, "PULSE_S", 0.05)
    monkeypatch.setattr(capture, "ask_pulse", hang)
    assert capture.pulse_sources() == []
    answered.set()


# ------------------------------------------------------------------ which format


def test_16_khz_mono_is_tried_first_so_that_nothing_has_to_be_converted() -> None:
    assert formats_to_try(USB, None, "mix")[0] == (16000, 1)


def test_then_the_devices_own_rate_then_the_usual_ones_each_once() -> None:
    rates = list(dict.fromkeys(rate for rate, _ in formats_to_try(USB, None, "mix")))
    assert rates == [16000, 44100, 48000, 32000, 96000, 8000]
    tries = formats_to_try(USB, None, "mix")
    assert len(set(tries)) == len(tries)


def test_mix_of_a_bare_device_asks_for_all_channels_before_mono() -> None:
    """Asked for fewer than there are, PortAudio hands on the first ones, and mixes nothing."""
    assert formats_to_try(ARRAY, None, "mix")[:2] == [(16000, 6), (16000, 1)]


def test_mix_of_a_sound_server_asks_for_mono_which_the_server_mixes() -> None:
    assert formats_to_try(PULSE, None, "mix")[:2] == [(16000, 1), (16000, 2)]
    assert formats_to_try(PULSE, JABRA_MONITOR, "mix")[:2] == [(16000, 1), (16000, 2)]


def test_one_channel_asks_for_all_so_that_no_layer_mixes_them() -> None:
    """ALSA's plug, asked for two channels of an array's six, may fold the others into them."""
    assert formats_to_try(ARRAY, None, "2")[:2] == [(16000, 6), (16000, 2)]


def test_a_sound_server_that_offers_32_channels_is_asked_for_stereo_at_most() -> None:
    assert {count for _, count in formats_to_try(PULSE, None, "mix")} == {1, 2}
    assert {count for _, count in formats_to_try(PULSE, None, "3")} == {3}


def test_of_a_named_source_its_own_channel_count_is_taken() -> None:
    assert formats_to_try(PULSE, JABRA_MONITOR, "2")[0] == (16000, 2)
    assert refusal(formats_to_try, PULSE, JABRA_MONITOR, "3")["kind"] == "no_such_channel"


def test_a_channel_that_the_device_lacks_is_refused_with_the_range() -> None:
    report = refusal(formats_to_try, ARRAY, None, "7")
    assert report["kind"] == "no_such_channel"
    assert "audio.channel is 7" in report["message"]
    assert "has 6" in report["message"]
    assert report["mend"] == "set audio.channel to 1…6 or mix"


# ------------------------------------------------------------------ why it does not open


class PortAudioError(Exception):
    """As sounddevice raises it: text, PortAudio's code, (host API, its code, its text)."""


@pytest.mark.parametrize(
    ("args", "kind", "says"),
    [
        (("Unanticipated host error", -9999, (8, -13, "Permission denied")), "permission", "audio"),
        (("Unanticipated host error", -9999, (8, -16, "Device or resource busy")), "busy", "close"),
        (("Unanticipated host error", -9999, (8, -19, "No such device")), "unplugged", "plug"),
        (("Device unavailable", -9985), "busy", "close"),
        (("Invalid sample rate", -9997), "unknown", "doctor"),
        (("Invalid number of channels", -9998), "unknown", "doctor"),
        (("Unanticipated host error", -9999, (8, -5, "Input/output error")), "unknown", "doctor"),
        (("only a text",), "unknown", "doctor"),
        ((), "unknown", "doctor"),
    ],
)
def test_each_code_is_explained_with_the_devices_name_and_a_mend(
    args: tuple[Any, ...], kind: str, says: str
) -> None:
    report = explain(PortAudioError(*args), "USB mic").report
    assert report["kind"] == kind
    assert '"USB mic"' in report["message"]
    assert says in report["mend"]


def test_an_unknown_fault_keeps_portaudios_words() -> None:
    error = PortAudioError("Internal PortAudio error", -9986)
    assert "Internal PortAudio error" in str(explain(error, "mic"))


class FakeSd:
    """sounddevice, with a fault for each (rate, channels) that is in `faults`."""

    PortAudioError = PortAudioError

    def __init__(self, faults: dict[tuple[int, int], tuple[Any, ...]], rest: Any = None) -> None:
        self._faults = faults
        self._rest = rest
        self.opened: list[dict[str, Any]] = []

    def RawInputStream(self, **options: Any) -> str:  # noqa: N802 - sounddevice's name
        self.opened.append(options)
        key = options["samplerate"], options["channels"]
        if fault := self._faults.get(key, self._rest):
            raise PortAudioError(*fault)
        return f"stream {key}"


def open_with(sd: FakeSd, tries: Sequence[tuple[int, int]]) -> tuple[Any, int, int]:
    return open_first(
        sd,
        7,
        "mic",
        tries,
        block_ms=30,
        latency_ms=100,
        make_callback=lambda rate, channels: (rate, channels),
        finished=print,
    )


INVALID_RATE = ("Invalid sample rate", -9997)
INVALID_CHANNELS = ("Invalid number of channels", -9998)
BUSY = ("Device unavailable", -9985)


def test_the_first_format_that_opens_is_taken() -> None:
    sd = FakeSd({(16000, 1): INVALID_CHANNELS, (16000, 2): INVALID_RATE, (48000, 1): INVALID_RATE})
    opened = open_with(sd, [(16000, 1), (16000, 2), (48000, 1), (48000, 2), (44100, 2)])
    assert opened == ("stream (48000, 2)", 48000, 2)
    assert len(sd.opened) == 4


def test_a_stream_is_asked_for_as_the_settings_say() -> None:
    sd = FakeSd({})
    open_with(sd, [(44100, 2)])
    options = sd.opened[0]
    assert (options["device"], options["dtype"]) == (7, "int16")
    assert options["blocksize"] == 1323, "30 ms"
    assert options["latency"] == pytest.approx(0.1)
    assert options["callback"] == (44100, 2)


def test_a_busy_device_is_told_at_once_instead_of_trying_on() -> None:
    sd = FakeSd({(16000, 1): INVALID_RATE, (48000, 1): BUSY})
    report = refusal(open_with, sd, [(16000, 1), (48000, 1), (48000, 2)])
    assert report["kind"] == "busy"
    assert len(sd.opened) == 2


def test_a_device_that_opens_in_no_format_names_all_that_were_tried() -> None:
    sd = FakeSd({}, rest=INVALID_RATE)
    report = refusal(open_with, sd, [(16000, 1), (48000, 2)])
    assert report["kind"] == "unsupported"
    assert "16000 Hz × 1, 48000 Hz × 2" in report["message"]


# ------------------------------------------------------------------ records


def test_a_record_is_20_bytes_of_header_and_the_payload() -> None:
    reader, writer = os.pipe()
    try:
        send(writer, capture.KIND_AUDIO, b"\x01\x02\x03\x04", flags=1, stamp_ns=1 << 40)
        header = b"hkd1\x02\x01\0\0\x04\0\0\0" + (1 << 40).to_bytes(8, "little")
        assert os.read(reader, 100) == header + b"\x01\x02\x03\x04"
        assert capture.HEADER.size == len(header) == 20
    finally:
        os.close(reader)
        os.close(writer)


FAKE_SD = """
import threading, time, types

print("noise")  # a library that prints must not get between the records
PortAudioError = OSError
class default: device = (0, 0)
def query_hostapis(): return [{"name": "ALSA"}]
def query_devices():
    return [{"name": "fake", "hostapi": 0, "max_input_channels": CHANNELS,
             "default_samplerate": 48000.0}]

class RawInputStream:
    latency = 0.05
    def __init__(self, **options): self.options = options
    def start(self): threading.Thread(target=self.run).start()
    def run(self):
        frames = self.options["blocksize"]
        for number, (overflow, lag_s) in enumerate([(0, 0.25), (1, 0.25), (0, 9999.0)]):
            self.options["callback"](
                bytes([number]) * 2 * frames, frames,
                types.SimpleNamespace(currentTime=lag_s, inputBufferAdcTime=0.0),
                types.SimpleNamespace(input_overflow=bool(overflow)),
            )
        self.options["finished_callback"]()
"""


def test_a_capture_says_how_it_opened_then_sends_stamped_blocks_until_the_stream_ends(
    tmp_path: Path,
) -> None:
    (tmp_path / "sounddevice.py").write_text(FAKE_SD.replace("CHANNELS", "1"))
    begin_ns = time.monotonic_ns()
    done = run_capture(tmp_path)
    end_ns = time.monotonic_ns()
    opened, *blocks = records(done.stdout)
    assert opened[0] == capture.KIND_OPENED
    assert json.loads(opened[3]) == {
        "device": "fake",
        "rate_hz": 16000,
        "channels": 1,
        "latency_ms": 50,
    }
    assert [(kind, flags) for kind, flags, _, _ in blocks] == [(2, 0), (2, 1), (2, 0)]
    assert [payload for *_, payload in blocks] == [bytes([n]) * 960 for n in range(3)]
    # Captured before the callback by what the driver says, or by one block where it says nonsense.
    stamps = [stamp_ns for _, _, stamp_ns, _ in blocks]
    for stamp_ns, lag_s in zip(stamps, (0.25, 0.25, 0.03), strict=True):
        assert begin_ns < stamp_ns + lag_s * 1e9 < end_ns
    assert done.returncode == 75
    assert done.stderr == b"noise\n"


def test_what_cannot_start_is_one_error_record(tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text(FAKE_SD.replace("CHANNELS", "0"))
    done = run_capture(tmp_path)
    ((kind, _, _, payload),) = records(done.stdout)
    assert kind == capture.KIND_ERROR
    assert json.loads(payload)["kind"] == "no_device"
    assert done.returncode == 1


def test_a_missing_portaudio_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    ((_, _, _, payload),) = records(run_capture(tmp_path).stdout)
    assert json.loads(payload)["kind"] == "no_portaudio"
    assert "libportaudio2" in json.loads(payload)["mend"]


def run_capture(folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Runs it, with what is in the folder before installed modules, until it ends by itself."""
    request = {"device": "default", "channel": "mix", "latency_ms": 100, "block_ms": 30}
    path = f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    with subprocess.Popen(
        [sys.executable, "-m", "harkd.capture", json.dumps(request)],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stderr
        out, err = process.stdout.read(), process.stderr.read()
        code = process.wait(10)
    return subprocess.CompletedProcess([], code, out, err)


def records(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """(kind, flags, stamp_ns, payload) of each; nothing may be left over."""
    found = []
    while data:
        magic, kind, flags, _, length, stamp_ns = capture.HEADER.unpack_from(data)
        assert magic == capture.MAGIC
        end = capture.HEADER.size + length
        assert len(data) >= end
        found.append((kind, flags, stamp_ns, data[capture.HEADER.size : end]))
        data = data[end:]
    return found


def test_blocks_that_come_at_once_are_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As PulseAudio hands them over: three in a row, then nothing for 100 ms."""
    held = capture.Capture(-1, {})
    slept: list[float] = []

    def others_come(seconds: float) -> None:
        slept.append(seconds)
        for stamp in range(2):
            held._blocks.put((b"", 0, 10 * len(slept) + stamp))
        if len(slept) == 3:
            held._blocks.put(None)

    monkeypatch.setattr("harkd.capture.time.sleep", others_come)
    held._blocks.put((b"", 0, 0))
    held._blocks.put((b"", 0, 1))
    sizes = []
    for blocks in held._gathered():
        sizes.append(len(blocks))
        if len(slept) < 3:
            held._blocks.put((b"", 0, 99))
    assert sizes == [2, 3, 3, 3]
    assert slept == [capture.AT_ONCE_S] * 3


def test_blocks_that_come_one_by_one_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a sound card hands them over, where waiting would only cost."""
    held = capture.Capture(-1, {})
    monkeypatch.setattr(
        "harkd.capture.time.sleep", lambda seconds: pytest.fail(f"slept {seconds} s")
    )
    clock = iter(range(100))
    monkeypatch.setattr("harkd.capture.time.monotonic", lambda: 0.03 * (1 + next(clock)))
    held._blocks.put((b"", 0, 0))
    sizes = []
    for blocks in held._gathered():
        sizes.append(len(blocks))
        held._blocks.put((b"", 0, 1) if len(sizes) < 5 else None)
    assert sizes == [1] * 5


def test_a_full_queue_drops_blocks_and_flags_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent was held up for longer than the pipe and the queue can hold."""
    monkeypatch.setattr(capture, "QUEUE_BLOCKS", 2)
    held = capture.Capture(-1, {})
    on_block = held._callback(16000, 1)
    times = SimpleNamespace(currentTime=0.0, inputBufferAdcTime=0.0)
    for number in range(4):
        on_block(bytes([number]), 1, times, SimpleNamespace(input_overflow=False))
    taken = [held._blocks.get_nowait(), held._blocks.get_nowait()]
    on_block(b"\x04", 1, times, SimpleNamespace(input_overflow=False))
    taken.append(held._blocks.get_nowait())
    assert [block[:2] for block in taken if isinstance(block, tuple)] == [
        (b"\0", 0),
        (b"\1", 0),
        (b"\4", 1),
    ]


def test_the_capture_process_loads_nothing_heavy() -> None:
    """It is started anew after each fault, also on a Raspberry Pi."""
    script = "import sys, harkd.capture, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, timeout=20
    )
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & {"numpy", "onnxruntime", "click", "msgspec", "soxr", "yaml", "paho"}


def test_memory_that_must_not_be_executed_is_told_and_not_only_the_streams_end() -> None:
    """cffi raises MemoryError where a unit has MemoryDenyWriteExecute=yes."""
    script = (
        "import os\nfrom harkd import capture\n"
        "def run(self): raise MemoryError('Cannot allocate write+execute memory')\n"
        "capture.Capture.run = run\n"
        "os._exit(capture.main(['{}']))\n"
    )
    reader, writer = os.pipe()  # stdin has to stay open
    with os.fdopen(reader), os.fdopen(writer, "w"):
        done = subprocess.run(
            [sys.executable, "-c", script], stdin=reader, capture_output=True, timeout=30
        )
    assert done.returncode == 1, done.stderr
    kind = capture.HEADER.unpack_from(done.stdout)[1]
    report = json.loads(done.stdout[capture.HEADER.size :])
    assert kind == capture.KIND_ERROR
    assert "write+execute" in report["message"]
    assert "MemoryDenyWriteExecute" in report["mend"]
