"""The supervisor of the capture process, against small programs in that process's place."""

from __future__ import annotations

import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import pytest

from harkd import all_zero, capture_process, microphone
from harkd.audio import AudioBlock, SourceEvent, SourceLost, SourceMuted, SourceOpened
from harkd.capture_process import STDERR_PACE_S
from harkd.microphone import BACKOFF_FIRST_S, BACKOFF_MOST_S, Microphone
from harkd.settings import AudioSettings
from servers import wait_until

PRELUDE = """
import json, os, struct, sys, threading, time

def record(kind, payload=b"", flags=0, stamp_ns=0):
    header = struct.pack("<4sBBHIq", b"hkd1", kind, flags, 0, len(payload), stamp_ns)
    return header + payload

def send(*args, **options):
    os.write(1, record(*args, **options))

def opened(rate_hz=16000, channels=1, device="fake"):
    send(1, json.dumps({"device": device, "rate_hz": rate_hz, "channels": channels}).encode())

def audio(payload=bytes(960), **options):
    send(2, payload, **options)

def error(**report):
    send(3, json.dumps(report).encode())

def hang():
    sys.stdin.buffer.read()
    os._exit(0)
"""
BUSY = "error(kind='busy', message='the mic is in use', mend='close it')"
TALK = """
opened()
while True:
    audio()
    time.sleep(0.01)
"""

T = TypeVar("T", bound=SourceEvent)


@pytest.fixture(autouse=True)
def blocks_as_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are counted here, and which of them are there together is chance."""
    monkeypatch.setattr(capture_process, "JOINED_MOST", 1)


def program(script: str) -> list[str]:
    # -I -S: without site-packages a start takes 10 ms.
    return [sys.executable, "-I", "-S", "-c", PRELUDE + script]


@contextmanager
def listening(
    script: str,
    settings: AudioSettings | None = None,
    *,
    command: list[str] | None = None,
    jitter: float = 0.0,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[Microphone, Iterator[SourceEvent]]]:
    """A microphone with a fake capture program, and its events; waits between starts are 0."""
    source = Microphone(
        settings or AudioSettings(),
        command=command or program(script),
        jitter=lambda: jitter,
        monotonic=monotonic,
    )
    events = source.events()
    try:
        yield source, events
    finally:
        source.close()
        for _ in events:
            pass


def first(events: Iterator[SourceEvent], kind: type[T]) -> T:
    return next(event for event in events if isinstance(event, kind))


def is_gone(pid: int) -> bool:
    """Ended and reaped: a zombie would still be there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def is_ended(pid: int) -> bool:
    """Ended, maybe not reaped: whose parent is dead waits for process 1."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


# ------------------------------------------------------------------ what comes through


def test_it_says_what_opened_then_delivers_blocks_with_their_stamps() -> None:
    pcm = np.array([1, -2, 32767, -32768], "<i2").tobytes()
    script = f"opened(device='mic'); audio({pcm!r}, stamp_ns=123456789); hang()"
    with listening(script) as (_, events):
        assert next(events) == SourceOpened("mic", 16000, 1)
        block = next(events)
        assert isinstance(block, AudioBlock)
        assert block.samples.tolist() == [1, -2, 32767, -32768]
        assert (block.captured_ns, block.gap) == (123456789, False)


def test_the_capture_program_is_told_the_settings() -> None:
    settings = AudioSettings(device="desk", channel=2, latency_ms=50, block_ms=20)
    script = "opened(channels=2, device=sys.argv[1]); hang()"
    with listening(script, settings) as (_, events):
        request = json.loads(first(events, SourceOpened).device)
    assert request == {
        "device": "desk",
        "channel": "2",
        "latency_ms": 50,
        "block_ms": 20,
        "stay": True,
    }


def test_records_may_come_in_any_pieces() -> None:
    script = """
opened()
for byte in record(2, b"abcd" * 8, stamp_ns=5) * 3:
    os.write(1, bytes([byte]))
hang()
"""
    with listening(script) as (_, events):
        blocks = [first(events, AudioBlock) for _ in range(3)]
    assert [block.samples.tobytes() for block in blocks] == [b"abcd" * 8] * 3


def test_blocks_that_came_together_are_one_up_to_the_next_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capture_process, "JOINED_MOST", 4)
    together = """
opened()
os.write(1, b"".join(
    record(2, bytes([i]) * 960, stamp_ns=1_000 * i, flags=int(i == 3)) for i in range(1, 9)
))
hang()
"""
    with listening(together) as (_, events):
        first(events, SourceOpened)
        blocks = [first(events, AudioBlock) for _ in range(3)]
    assert [len(each.samples) // 480 for each in blocks] == [2, 4, 2]
    assert [each.captured_ns for each in blocks] == [1_000, 3_000, 7_000]
    assert [each.gap for each in blocks] == [False, True, False]
    assert [int(each.samples[480]) for each in blocks] == [0x0202, 0x0404, 0x0808]


def tone(rate_hz: int, hz: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """One second, (rate_hz,)."""
    return 8000 * np.sin(2 * np.pi * hz * np.arange(rate_hz) / rate_hz)


@pytest.mark.parametrize(("channel", "hz"), [("mix", (300, 700)), (1, (300,)), (2, (700,))])
def test_48_khz_stereo_arrives_as_16_khz_mono(
    channel: int, hz: tuple[float, ...], tmp_path: Path
) -> None:
    both = np.stack([tone(48000, 300), tone(48000, 700)], axis=1)  # (48000, 2)
    sound = tmp_path / "stereo.raw"
    sound.write_bytes(both.astype("<i2").tobytes())
    script = f"""
opened(48000, 2)
data = open({str(sound)!r}, "rb").read()
for number in range(0, len(data), 5760):
    audio(data[number : number + 5760], stamp_ns=number // 4 * 10**9 // 48000)
hang()
"""
    with listening(script, AudioSettings(channel=channel)) as (_, events):
        assert first(events, SourceOpened).rate_hz == 48000
        blocks = [first(events, AudioBlock) for _ in range(34)]
    heard = np.concatenate([block.samples for block in blocks]).astype(np.float64)
    wanted = sum((tone(16000, each) for each in hz), np.zeros(16000)) / len(hz)
    wanted = wanted[: len(heard)]
    assert 15500 < len(heard) <= 16000, "the resampler keeps a little"
    assert heard @ wanted / np.sqrt((heard @ heard) * (wanted @ wanted)) > 0.999
    # A stamp is that of the block's first sample, though the resampler held it back.
    position = 0
    for block in blocks:
        if len(block.samples):
            assert block.captured_ns == pytest.approx(position * 1e9 / 16000, abs=1e6)
        position += len(block.samples)


def test_an_overflow_is_a_gap_before_that_block_only() -> None:
    with listening("opened(); audio(); audio(flags=1); audio(); hang()") as (_, events):
        gaps = [first(events, AudioBlock).gap for _ in range(3)]
    assert gaps == [False, True, False]


# ------------------------------------------------------------------ what goes wrong


def test_a_process_that_dies_is_told_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    """Its last words are for debugging: PortAudio's are no help to anybody else."""
    caplog.set_level(logging.DEBUG, "harkd.microphone")
    script = "opened(); audio(); print('PortAudio: Pa_Boom', file=sys.stderr); os._exit(3)"
    with listening(script) as (source, events):
        for start in range(1, 4):
            assert isinstance(next(events), SourceOpened)
            assert source.starts == start
            pid = source.pid
            assert isinstance(next(events), AudioBlock)
            lost = next(events)
            assert isinstance(lost, SourceLost)
            assert lost.kind == "ended"
            assert "Pa_Boom" not in lost.reason
            assert is_gone(pid)
            assert source.pid == 0
    assert "ended with 3: PortAudio: Pa_Boom" in caplog.text


def test_an_error_record_is_passed_on_in_its_words() -> None:
    with listening(BUSY) as (source, events):
        assert next(events) == SourceLost("busy", "the mic is in use; close it")
        assert next(events) == SourceLost("busy", "the mic is in use; close it")
        assert source.starts == 2


def test_a_silent_process_is_killed_after_stall_s_and_replaced() -> None:
    with listening("opened(); audio(); hang()", AudioSettings(stall_s=0.3)) as (source, events):
        first(events, AudioBlock)
        pid, begin = source.pid, time.monotonic()
        lost = first(events, SourceLost)
        assert 0.3 <= time.monotonic() - begin < 0.5
        assert lost.kind == "stalled"
        assert "0.3 s" in lost.reason
        assert is_gone(pid)
        assert isinstance(first(events, AudioBlock), AudioBlock)


def test_a_process_that_ignores_every_polite_signal_is_killed_too() -> None:
    script = """
import signal
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
opened(); audio()
while True: time.sleep(60)
"""
    with listening(script, AudioSettings(stall_s=0.2)) as (source, events):
        first(events, AudioBlock)
        pid = source.pid
        first(events, SourceLost)
        assert is_gone(pid)


def test_a_process_that_never_opens_is_killed_after_five_seconds_of_the_given_clock() -> None:
    clock = itertools.count(100.0, 4.9)
    with listening("hang()", monotonic=lambda: next(clock)) as (_, events):
        begin = time.monotonic()
        lost = first(events, SourceLost)
        assert time.monotonic() - begin < 1
    assert lost.kind == "stalled"
    assert "did not open within 5 s" in lost.reason


def test_a_process_that_opens_and_never_sends_is_killed_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(microphone, "FIRST_BLOCK_S", 0.2)
    with listening("opened(); hang()") as (_, events):
        assert isinstance(next(events), SourceOpened)
        assert first(events, SourceLost).kind == "stalled"


@pytest.mark.parametrize(
    "script",
    [
        "os.write(1, b'ALSA lib pcm.c:2664: unknown PCM default'); hang()",
        "opened(); os.write(1, bytes(4096)); hang()",
    ],
)
def test_garbage_instead_of_records_has_the_process_replaced(script: str) -> None:
    with listening(script) as (source, events):
        assert first(events, SourceLost).kind == "ended"
        first(events, SourceLost)
        assert source.starts == 2


def test_half_a_record_has_the_process_replaced_after_stall_s() -> None:
    script = "opened(); audio(); os.write(1, record(2, bytes(960))[:500]); hang()"
    with listening(script, AudioSettings(stall_s=0.2)) as (_, events):
        first(events, AudioBlock)
        assert first(events, SourceLost).kind == "stalled"


def test_a_program_that_cannot_be_started_is_a_loss_like_any_other(tmp_path: Path) -> None:
    """No memory or no process left: it may be there again in a moment."""
    command = [str(tmp_path / "nothing")]
    with listening("", command=command) as (source, events):
        for _ in range(2):
            lost = next(events)
            assert isinstance(lost, SourceLost)
            assert "does not start" in lost.reason
        command[:] = program(TALK)
        first(events, AudioBlock)
        assert source.starts == 3


def test_a_flood_on_stderr_neither_delays_records_nor_costs_more_than_its_pipe() -> None:
    """PortAudio 19.6 writes 100,000 lines a second when an ALSA device vanishes.

    The flood must wait in its own write. Each block's stamp tells how much it could write.
    """
    script = """
written = 0
def flood():
    global written
    while True:
        written += os.write(2, b"Expression 'ret' failed in 'pa_linux_alsa.c'\\n" * 20)
threading.Thread(target=flood, daemon=True).start()
opened()
for _ in range(50):
    audio(stamp_ns=written)
    time.sleep(0.02)
os._exit(0)
"""
    with listening(script) as (_, events):
        first(events, SourceOpened)
        cpu_s, begin = time.process_time(), time.monotonic()
        blocks = [first(events, AudioBlock) for _ in range(50)]
        took_s = time.monotonic() - begin
        cpu_s = time.process_time() - cpu_s
        lost = first(events, SourceLost)
    assert took_s < 4, "50 blocks 20 ms apart, on a busy machine"
    assert blocks[-1].captured_ns > 65536, "there was no flood"
    assert blocks[-1].captured_ns < 65536 + 4096 * (took_s / STDERR_PACE_S + 3)
    assert cpu_s < 0.2
    assert "pa_linux_alsa.c" not in lost.reason


def test_a_machine_that_is_slow_to_open_is_given_more_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(microphone, "FIRST_BLOCK_S", 0.1)
    monkeypatch.setattr(Microphone, "_wait", lambda *_: None)
    with listening("hang()") as (_, events):
        said = [first(events, SourceLost).reason for _ in range(3)]
    assert said == [
        f"the microphone did not open within {seconds:g} s; opening it again"
        for seconds in (0.1, 0.2, 0.4)
    ]


# ------------------------------------------------------------------ zeros, and other sources

ZEROS_THEN_SOUND = """
opened(device='mic')
for _ in range(10): audio(bytes(3200))  # 0.1 s each
audio(b"\\1\\0" * 100)
hang()
"""


def kinds(events: Iterator[SourceEvent], until: int) -> list[str]:
    """What comes up to as many blocks, in words."""
    told: list[str] = []
    for event in events:
        told.append(event.kind if isinstance(event, SourceLost) else type(event).__name__)
        if told.count("AudioBlock") == until:
            return told
    return told


def test_nothing_but_zeros_are_a_loss_and_the_first_other_sample_opens_again() -> None:
    with listening(ZEROS_THEN_SOUND, AudioSettings(zeros_s=0.5)) as (source, events):
        told = kinds(events, 11)
        assert source.starts == 1
    assert told == [
        "SourceOpened",
        *["AudioBlock"] * 4,
        "all_zero",
        *["AudioBlock"] * 6,
        "SourceOpened",
        "AudioBlock",
    ]


def test_blocks_say_for_how_long_there_were_zeros() -> None:
    with listening(ZEROS_THEN_SOUND, AudioSettings(zeros_s=0)) as (_, events):
        zeros_s = [first(events, AudioBlock).zeros_s for _ in range(11)]
    assert zeros_s == pytest.approx([n / 10 for n in range(1, 11)] + [0])


def test_a_process_that_replaces_one_of_zeros_is_no_news_until_it_has_a_sound(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(all_zero, "REPLACE_FIRST_S", 0.3)
    again = tmp_path / "again"
    script = f"""
opened(device='mic')
second = os.path.exists({str(again)!r})
open({str(again)!r}, "w").close()  # it is killed before it comes to its end
for _ in range(3 if second else 9): audio(bytes(3200))
if second:
    audio(b"\\1\\0" * 100)
hang()
"""
    with listening(script, AudioSettings(zeros_s=0.5)) as (source, events):
        assert isinstance(next(events), SourceOpened)
        assert first(events, SourceLost).kind == "all_zero"
        told = next(event for event in events if not isinstance(event, AudioBlock))
        assert isinstance(told, SourceOpened)
        assert source.starts == 2


SERVER = """
def heard(name, **changes):
    return {"source": name, "description": name, "monitor": False, "muted": False, "volume": 1.0,
            "stream": 7, "stream_muted": False, "microphones": 1, **changes}

def report(name, **changes):
    send(4, json.dumps(heard(name, **changes)).encode())

def on_server(wanted, name):
    send(1, json.dumps({"device": wanted or "default", "wanted": wanted, "rate_hz": 16000,
                        "channels": 1, "source": heard(name)}).encode())
"""


def test_moved_from_the_named_source_the_process_is_replaced_and_nothing_more_is_heard() -> None:
    script = SERVER + "on_server('desk', 'desk'); audio(); report('sofa'); audio(); hang()"
    with listening(script, AudioSettings(device="desk")) as (source, events):
        assert next(events) == SourceOpened("desk", 16000, 1, source="desk")
        assert isinstance(next(events), AudioBlock)
        pid = source.pid
        lost = next(events)
        assert isinstance(lost, SourceLost)
        assert lost.kind == "moved"
        assert is_gone(pid)
        assert isinstance(next(events), SourceOpened)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [(AudioSettings(), ""), (AudioSettings(device="desk", follow="server"), "desk")],
)
def test_where_it_follows_the_server_it_says_where_it_is(
    settings: AudioSettings, wanted: str
) -> None:
    script = f"{SERVER}on_server({wanted!r}, 'desk'); report('sofa'); audio(); hang()"
    with listening(script, settings) as (source, events):
        assert next(events) == SourceOpened("desk", 16000, 1, source="desk")
        assert next(events) == SourceOpened("sofa", 16000, 1, source="sofa")
        assert isinstance(next(events), AudioBlock)
        assert source.starts == 1


def test_another_volume_is_no_news() -> None:
    script = SERVER + "on_server('', 'desk'); report('desk', volume=0.4); audio(); hang()"
    with listening(script) as (_, events):
        assert [type(next(events)) for _ in range(2)] == [SourceOpened, AudioBlock]


def test_muted_in_the_server_while_it_is_all_zero_the_reason_changes() -> None:
    script = f"""{SERVER}
on_server('', 'desk')
for _ in range(5): audio(bytes(3200))
report('desk', muted=True)
hang()
"""
    with listening(script, AudioSettings(zeros_s=0.3)) as (_, events):
        assert "nothing but zeros" in first(events, SourceLost).reason
        assert "set-source-mute desk 0" in first(events, SourceLost).reason


ABSENT_UNTIL = """
error(kind='no_such_device', message='none', mend='plug it in')
while not os.path.exists(PATH): time.sleep(0.01)
"""


def test_a_process_that_finds_no_device_cuts_the_wait_short_when_there_may_be_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "plugged-in"
    script = ABSENT_UNTIL.replace("PATH", repr(str(path)))
    with listening(script, jitter=100.0) as (source, events):
        first(events, SourceLost)
        assert source.pid == 0
        threading.Timer(0.3, path.touch).start()
        begin = time.monotonic()
        first(events, SourceLost)
        assert 0.3 <= time.monotonic() - begin < 5


def test_a_process_that_waits_is_not_left_behind(tmp_path: Path) -> None:
    script = ABSENT_UNTIL.replace("PATH", repr(str(tmp_path / "never")))
    with listening(script, jitter=0.1) as (source, events):
        for _ in range(5):
            first(events, SourceLost)
        assert source.starts == 5
        assert len(children()) == 1
    assert children() == set()


# ------------------------------------------------------------------ how long it waits


def test_the_wait_doubles_up_to_a_limit_and_a_steady_microphone_resets_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(Microphone, "_wait", lambda _, seconds: waits.append(seconds))
    command = program(BUSY)
    with listening("", command=command, jitter=0.5) as (_, events):
        for _ in range(7):
            first(events, SourceLost)
        command[:] = program("opened(); os._exit(1)")
        first(events, SourceLost)
        command[:] = program("opened(); audio(); os._exit(1)")
        first(events, SourceLost)
        first(events, SourceLost)
        monkeypatch.setattr(microphone, "STEADY_S", -1.0)
        command[:] = program(BUSY)
        first(events, SourceLost)
        first(events, SourceLost)
    most = BACKOFF_MOST_S
    expected = [min(most, BACKOFF_FIRST_S * 2**n) for n in range(7)]
    # Opening and a single block prove nothing: a flapping device would cost a core.
    expected += [most, most, BACKOFF_FIRST_S, 2 * BACKOFF_FIRST_S]
    assert waits[:11] == [0.5 * seconds for seconds in expected]


def test_it_really_waits() -> None:
    with listening(BUSY, jitter=1.0) as (_, events):
        first(events, SourceLost)
        begin = time.monotonic()
        first(events, SourceLost)
        assert BACKOFF_FIRST_S <= time.monotonic() - begin < BACKOFF_FIRST_S + 2


def test_the_longest_wait_lets_it_listen_again_within_five_seconds() -> None:
    most = max(Microphone(AudioSettings())._jitter() for _ in range(1000)) * BACKOFF_MOST_S
    assert most <= 4.0, "the rest is for the start of a process on a Raspberry Pi"


# ------------------------------------------------------------------ how it ends


@pytest.mark.parametrize(
    ("script", "meanwhile"),
    [
        (TALK, "delivers"),
        ("opened(); audio(); hang()", "is silent"),
        ("opened(); audio(); os._exit(1)", "waits for the next start"),
    ],
)
def test_close_from_another_thread_ends_it_at_once_while_it(script: str, meanwhile: str) -> None:
    pids: list[int] = []
    ready = threading.Event()

    def iterate() -> None:
        for _ in source.events():
            pids.append(source.pid)
            if len(pids) >= 2:
                ready.set()

    jitter = 100.0 if meanwhile.startswith("waits") else 0.0
    source = Microphone(AudioSettings(), command=program(script), jitter=lambda: jitter)
    thread = threading.Thread(target=iterate)
    thread.start()
    assert ready.wait(5)
    begin = time.monotonic()
    source.close()
    thread.join(5)
    assert time.monotonic() - begin < 0.5
    assert not thread.is_alive()
    assert all(is_gone(pid) for pid in pids if pid)
    assert source.pid == 0


def test_after_close_nothing_is_started_and_closing_again_does_no_harm() -> None:
    source = Microphone(AudioSettings(), command=program(TALK))
    source.close()
    assert list(source.events()) == []
    source.close()
    assert source.starts == 0


def test_a_reader_that_goes_away_ends_the_process() -> None:
    with listening(TALK) as (source, _):
        events = source.events()
        first(events, AudioBlock)
        pid = source.pid
        events.close()  # type: ignore[attr-defined]
        assert is_gone(pid)


class Collected:
    """A microphone's events, taken on a thread."""

    def __init__(self, source: Microphone) -> None:
        self.source = source
        self.events: list[SourceEvent] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()
        self._thread.join(5)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        for event in self.source.events():
            self.events.append(event)

    def wait_for(self, kind: type[SourceEvent], count: int = 1) -> None:
        wait_until(lambda: self.count(kind) >= count, f"{kind.__name__}, {count} times", 5)

    def count(self, kind: type[SourceEvent]) -> int:
        return sum(isinstance(event, kind) for event in self.events)


@pytest.mark.parametrize(
    ("script", "before"),
    [
        (TALK, AudioBlock),
        ("opened(); audio(); hang()", AudioBlock),
        ("opened(); hang()", SourceOpened),
        ("opened(); audio(); os._exit(1)", SourceLost),
    ],
    ids=["delivers", "is silent", "opens", "waits for the next start"],
)
def test_muted_no_process_is_left_and_unmuted_it_starts_again_at_once(
    script: str, before: type[SourceEvent]
) -> None:
    source = Microphone(AudioSettings(), command=program(script), jitter=lambda: 100.0)
    with Collected(source) as heard:
        heard.wait_for(before)
        pid, starts = source.pid, source.starts
        begin = time.monotonic()
        source.mute(True)
        heard.wait_for(SourceMuted)
        assert time.monotonic() - begin < 0.5
        assert source.pid == 0
        assert not pid or is_gone(pid)
        seen = len(heard.events)
        time.sleep(0.1)
        assert [type(event) for event in heard.events[seen - 1 :]] == [SourceMuted]
        source.mute(False)
        opened = heard.count(SourceOpened)
        heard.wait_for(SourceOpened, opened + 1)
        assert source.starts == starts + 1
        assert time.monotonic() - begin < 1.5


def test_muted_from_the_start_it_is_never_opened_until_it_is_unmuted() -> None:
    source = Microphone(AudioSettings(), command=program(TALK), muted=True)
    with Collected(source) as heard:
        heard.wait_for(SourceMuted)
        time.sleep(0.1)
        assert (source.starts, heard.events) == (0, [SourceMuted()])
        source.mute(True)
        time.sleep(0.1)
        assert (source.starts, heard.events) == (0, [SourceMuted()])
        source.mute(False)
        heard.wait_for(AudioBlock)
        assert source.starts == 1


def test_a_microphone_that_cannot_be_opened_after_muting_recovers_as_ever() -> None:
    source = Microphone(AudioSettings(), command=program(BUSY), muted=True, jitter=lambda: 0.1)
    with Collected(source) as heard:
        source.mute(False)
        heard.wait_for(SourceLost, 2)
    assert source.starts >= 2


def test_muting_for_a_moment_leaves_it_listening() -> None:
    """Nothing says whether the process was replaced; but where it was, that is told."""
    source = Microphone(AudioSettings(), command=program(TALK), jitter=lambda: 0.0)
    with Collected(source) as heard:
        heard.wait_for(AudioBlock)
        for _ in range(30):
            source.mute(True)
            source.mute(False)
        blocks = heard.count(AudioBlock)
        heard.wait_for(AudioBlock, blocks + 3)
        assert heard.count(SourceMuted) == source.starts - 1
        assert heard.count(SourceLost) == 0


def test_closed_while_it_is_muted_it_ends_at_once() -> None:
    source = Microphone(AudioSettings(), command=program(TALK), muted=True)
    with Collected(source) as heard:
        heard.wait_for(SourceMuted)
        begin = time.monotonic()
    assert time.monotonic() - begin < 0.5


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the path's own fd does not count


def children() -> set[str]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {pid for task in tasks for pid in task.read_text().split()}


def test_neither_descriptors_nor_processes_leak_over_restarts() -> None:
    with listening(BUSY) as (source, events):
        first(events, SourceLost)
        fds = open_fds()
        for _ in range(20):
            first(events, SourceLost)
        assert source.starts == 21
        assert open_fds() == fds
        assert children() == set()


def test_neither_descriptors_nor_processes_leak_over_microphones() -> None:
    def listen_once() -> None:
        with listening(TALK) as (_, events):
            first(events, AudioBlock)

    listen_once()
    fds = open_fds()
    for _ in range(5):
        listen_once()
    assert open_fds() == fds
    assert children() == set()


ENDLESS_SD = """
import threading, time, types
PortAudioError = OSError
class default: device = (0, 0)
def query_hostapis(): return [{"name": "ALSA"}]
def query_devices():
    return [{"name": "fake", "hostapi": 0, "max_input_channels": 1, "default_samplerate": 16000.0}]
class RawInputStream:
    latency = 0.0
    def __init__(self, callback, **_): self.callback = callback
    def start(self): threading.Thread(target=self.run, daemon=True).start()
    def run(self):
        times = types.SimpleNamespace(currentTime=0.0, inputBufferAdcTime=0.0)
        while True:
            self.callback(bytes(960), 480, times, types.SimpleNamespace(input_overflow=False))
            time.sleep(0.03)
"""
PARENT = """
import sys, time
from harkd.audio import AudioBlock
from harkd.microphone import Microphone
from harkd.settings import AudioSettings
source = Microphone(AudioSettings())
for event in source.events():
    if isinstance(event, AudioBlock):
        print(source.pid, flush=True)
        if sys.argv[1] == "stop reading":
            time.sleep(60)
"""


@pytest.mark.parametrize("parent", ["reads on", "stop reading"])
def test_the_real_capture_process_ends_when_its_parent_is_killed(
    parent: str, tmp_path: Path
) -> None:
    """Nobody is left to kill it, and a microphone that is held open is a privacy fault."""
    (tmp_path / "sounddevice.py").write_text(ENDLESS_SD)
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, parent],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        assert not is_ended(pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_until(lambda: is_ended(pid), "end of the capture process", 2.0)


# ------------------------------------------------------------------ signs of life


def test_life_is_shown_while_it_is_muted_absent_or_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Liveness must not depend on a microphone."""
    monkeypatch.setattr(microphone, "ALIVE_S", 0.02)
    for muted, script in ((True, ""), (False, "hang()"), (False, "opened(); hang()")):
        source = Microphone(AudioSettings(), muted=muted, command=program(script))
        shown, enough = [0], threading.Event()

        def show(shown: list[int] = shown, enough: threading.Event = enough) -> None:
            shown[0] += 1
            if shown[0] == 5:
                enough.set()

        source.alive = show
        thread = threading.Thread(target=lambda source=source: list(source.events()))
        thread.start()
        try:
            assert enough.wait(5), (muted, script)
        finally:
            source.close()
            thread.join(5)
