"""How the daemon fares, from /proc and its counters."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from harkd import messages
from harkd.counters import Counters
from harkd.health import HealthReporter, Meter, Usage, read_usage
from harkd.messages import About, Health, Message, ProcessFigures
from harkd.signal_level import SignalFigures

ABOUT = About("harkd", "kitchen", "1.0", "tiny", "cpu", retain_last=True, max_age_s=30)
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "mqtt.md"


@dataclass(frozen=True)
class Waiting:
    waiting: int = 2
    oldest_age_s: float | None = 12.345
    on_disk: bool = True
    problem: str = ""


def health(**changes: Any) -> Health:
    figures: dict[str, Any] = {
        "uptime_s": 61.7,
        "counted": Counters().snapshot(),
        "captures": 1,
        "waiting": {"recognition": 0, "commands": 0},
        "dropped": {"segments": 0, "commands": 0},
        "daemon": ProcessFigures(7.5, 142.2),
        "capture": None,
        "outbox": None,
        "connections": 0,
    }
    return Health(**{**figures, **changes})


def body(message: Message) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(message.payload)
    return payload


def test_the_message_is_retained_and_says_what_is_known() -> None:
    counters = Counters()
    counters.count("samples", 16000 * 90)
    counters.recognized(0.2, 1.6)
    message = messages.health(
        ABOUT, health(counted=counters.snapshot(), outbox=Waiting(), connections=3)
    )
    assert (message.topic, message.qos, message.retain) == ("harkd/kitchen/health", 1, True)
    payload = body(message)
    assert (payload["uptime_s"], payload["audio_s"], payload["rtf"]) == (62, 90.0, 0.125)
    assert payload["outbox"] == {
        "waiting": 2,
        "oldest_age_s": 12.3,
        "on_disk": True,
        "problem": "",
    }
    assert (payload["cpu_percent"], payload["rss_mb"]) == (7.5, 142.2)
    assert (payload["capture_cpu_percent"], payload["capture_rss_mb"]) == (None, None)
    assert payload["reconnects"] == 2
    assert (payload["model"], payload["provider"], payload["version"]) == ("tiny", "cpu", "1.0")


def test_what_is_not_known_is_null() -> None:
    payload = body(messages.health(ABOUT, health(daemon=None)))
    for name in ("cpu_percent", "rss_mb", "rtf", "latency_ms", "latency_median_ms", "outbox"):
        assert payload[name] is None
    assert payload["reconnects"] == 0
    empty = messages.health(ABOUT, health(outbox=Waiting(0, None, False, "no room")))
    assert body(empty)["outbox"] == {
        "waiting": 0,
        "oldest_age_s": None,
        "on_disk": False,
        "problem": "no room",
    }


def test_the_signals_figures_are_rounded_and_null_where_there_are_none() -> None:
    figures = SignalFigures(-41.234, -12.345, 0.012345, 7, 1.25, 250, 1000, 0.1234)
    payload = body(messages.health(ABOUT, health(signal=figures)))
    assert (payload["level_dbfs"], payload["peak_dbfs"]) == (-41.2, -12.3)
    assert (payload["dc_offset"], payload["clipped_samples"]) == (0.0123, 7)
    assert (payload["zeros_s"], payload["vad_ratio"], payload["lag_s"]) == (1.2, 0.25, 0.12)
    nothing = body(messages.health(ABOUT, health()))
    for name in ("level_dbfs", "dc_offset", "clipped_samples", "zeros_s", "vad_ratio", "lag_s"):
        assert nothing[name] is None


def test_each_field_is_documented() -> None:
    text = DOCUMENTATION.read_text(encoding="utf-8")
    _, _, section = text.partition("## Health")
    section = section.partition("\n## ")[0]
    rows = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    named = {name for row in rows for name in row.split("`")[1::2]}
    assert named == set(body(messages.health(ABOUT, health())))


def test_proc_says_the_same_as_psutil() -> None:
    usage = read_usage(os.getpid())
    process = psutil.Process()
    assert usage
    assert usage.rss_bytes == pytest.approx(process.memory_info().rss, rel=0.2)
    times = process.cpu_times()
    assert usage.cpu_s == pytest.approx(times.user + times.system, abs=0.1)
    began = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + usage.started_s
    assert began == pytest.approx(process.create_time(), abs=2)


@pytest.mark.parametrize("text", ["", "1 (x", "1 (sh) S 1 2", "1 (a b) c) S " + "x " * 40])
def test_what_proc_does_not_tell_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text(text)
    assert read_usage(7, tmp_path) is None
    assert read_usage(8, tmp_path) is None


def test_a_name_with_parentheses_is_no_trap(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    fields = [str(number) for number in range(3, 53)]
    (tmp_path / "7" / "stat").write_text("7 (a) b (c) " + " ".join(fields))
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    assert read_usage(7, tmp_path) == Usage(22 / ticks, (14 + 15) / ticks, 24 * page)


def test_the_share_is_of_the_time_since_the_last_look_and_of_a_process_at_first() -> None:
    now, usage = 100.0, {7: Usage(90.0, 1.0, 5_000_000), 8: Usage(109.0, 0.5, 1)}
    meter = Meter(usage.get, lambda: now)
    assert meter.figures(7) == ProcessFigures(10.0, 5.0)
    now, usage[7] = 110.0, Usage(90.0, 6.0, 6_000_000)
    assert meter.figures(7) == ProcessFigures(50.0, 6.0)
    assert meter.figures(8) == ProcessFigures(50.0, 0.0)
    assert meter.figures(0) is None
    assert meter.figures(9) is None


def test_it_is_sent_a_little_after_the_start_and_then_again_and_again() -> None:
    sent: list[Message] = []
    thrice = threading.Event()

    def keep(message: Message) -> None:
        sent.append(message)
        if len(sent) == 3:
            thrice.set()

    reporter = HealthReporter(health, lambda: ABOUT, keep, first_s=0.05, every_s=0.01)
    reporter.start()
    assert sent == []
    assert thrice.wait(5)
    reporter.stop()
    count = len(sent)
    time.sleep(0.05)
    assert len(sent) == count


def test_a_failure_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    tried = threading.Event()
    count = 0

    def gather() -> Health:
        nonlocal count
        count += 1
        if count == 1:
            raise RuntimeError("no figures")
        tried.set()
        return health()

    reporter = HealthReporter(gather, lambda: ABOUT, lambda _: None, first_s=0, every_s=0.01)
    reporter.start()
    assert tried.wait(5)
    reporter.stop()
    assert "no figures" in caplog.text
