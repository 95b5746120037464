"""`harkd status` in words, from the daemon's page, its topics, or both."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from harkd.status_report import Report, clean, level_share, lines, report_of, seconds
from harkd.status_view import draw

KITCHEN: dict[str, Any] = {
    "device_id": "kitchen",
    "state": "speech",
    "reason": "",
    "problem": "",
    "audio_device": "desk",
    "device_rate_hz": 48000,
    "ready": True,
    "signal": {"level_dbfs": -40.0, "peak_dbfs": -12.0},
    "finals": 3,
    "partials": 14,
    "rejected": {"no_speech": 2},
    "gaps": 0,
    "losses": 1,
    "rtf": 0.123,
    "latency_ms": 640,
    "latency_median_ms": 650,
    "waiting": {"recognition": 1, "commands": 0},
    "dropped": {"segments": 0},
    "outbox": {"waiting": 2, "oldest_age_s": 90.0, "on_disk": False, "problem": "the disk is full"},
    "mqtt": {"connected": False, "reconnects": 2},
}
STATUS: dict[str, Any] = {
    "version": "1.2.3",
    "model": "tiny",
    "provider": "cpu",
    "uptime_s": 3700,
    "ready": False,
    "findings": [{"name": "real_time", "device_id": "kitchen", "reason": "too late"}],
    "cpu_percent": 5.1,
    "rss_mb": 140.2,
    "last_error": {"at": "2026-01-02T03:04:05.000Z", "message": "broken"},
    "inputs": [KITCHEN],
}
LAST = {"text": "Turn on the light.", "ended_at": "2026-01-02T03:04:05.000Z"}
HEALTH = {name: KITCHEN[name] for name in ("finals", "partials", "rtf", "waiting", "outbox")}
HEALTH |= {"uptime_s": 60, "cpu_percent": 5.0, "rss_mb": 100.0, "version": "1.2.3"}


def text(report: Report) -> str:
    return "\n".join(lines(report))


def drawn(report: Report) -> str:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    console.print(draw(report))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("show", [text, drawn])
def test_all_that_is_known_is_shown(show: Any) -> None:
    topics = {"kitchen": {"last": LAST, "speaking": {"text": "turn it"}}}
    shown = show(report_of(STATUS, topics, ["the broker is slow"]))
    for part in (
        "harkd 1.2.3 · tiny · cpu",
        "not ready",
        "real_time (kitchen): too late",
        "1 h 1 min",
        "5.1 % of a core",
        "140.2 MB",
        "broken",
        "kitchen",
        "speech",
        "-40",
        "desk, 48000 Hz",
        "640 ms (median 650 ms)",
        "0.12",
        "3 finals, 14 partials, rejected: no_speech 2",
        "recognition 1",
        "lost 1 times",
        "2 waiting, the oldest for 1 min 30 s, in memory only",
        "the disk is full",
        "not connected, 2 reconnects",
        "… turn it",
        "Turn on the light.",
        "! the broker is slow",
    ):
        assert part in shown, part


@pytest.mark.parametrize("show", [text, drawn])
def test_without_the_page_the_topics_are_enough(show: Any) -> None:
    state = {"state": "no_microphone", "reason": "unplugged", "audio_device": ""}
    topics = {"availability": "online", "state": state, "health": HEALTH, "last": LAST}
    shown = show(report_of(None, {"kitchen": topics}, ["http.enabled is false"]))
    for part in ("no_microphone: unplugged", "3 finals", "100.0 MB", "Turn on the light.", "false"):
        assert part in shown
    assert "dBFS" not in shown


@pytest.mark.parametrize("show", [text, drawn])
def test_without_the_broker_the_page_is_enough(show: Any) -> None:
    shown = show(report_of(STATUS, {}, ["nothing listens at broker:1883"]))
    assert "speech" in shown
    assert "-40" in shown
    assert "nothing listens" in shown


def test_a_daemon_that_is_gone_is_offline_whatever_its_last_state_was() -> None:
    topics = {"availability": "offline", "state": {"state": "listening"}}
    assert "kitchen  offline" in text(report_of(None, {"kitchen": topics}, []))


def test_a_text_cannot_command_the_terminal_and_has_an_end() -> None:
    assert clean("a\x1b[2Jb\nc\x07") == "a [2Jb c "
    assert clean("Küche 💡") == "Küche 💡"
    assert len(clean("x" * 5000)) == 300
    evil = {"text": "\x1b]0;title\x07", "ended_at": "\x1b[31m"}
    assert "\x1b" not in text(report_of(STATUS, {"kitchen": {"last": evil}}, ["\x1b[2J"]))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(5.4, "5 s"), (61, "1 min 1 s"), (7260, "2 h 1 min"), (90_000, "1 d 1 h")],
)
def test_times_are_as_a_person_reads_them(value: float, shown: str) -> None:
    assert seconds(value) == shown


def test_the_meter_goes_from_minus_80_db_to_full_scale() -> None:
    assert [level_share(db) for db in (-120.0, -80.0, -40.0, 0.0, 3.0)] == [0, 0, 0.5, 1, 1]
