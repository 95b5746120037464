"""``harkd bench`` with the real model. Nothing here requires a speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.model]


def bench(model_dir: Path, *words: str) -> dict[str, Any]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HARKD_")}
    own = {"HARKD_MODELS": str(model_dir.parent), "HARKD_RECOGNIZER__MODEL": model_dir.name}
    done = subprocess.run(
        [sys.executable, "-m", "harkd", "bench", *words, "--json"],
        env={**clean, "XDG_CONFIG_HOME": "/nonexistent", **own},
        capture_output=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_it_measures_the_models_own_recording(model_dir: Path) -> None:
    report = bench(model_dir, "whole", "live", "--limit", "1", "--threads", "1")
    assert report["threads"] == 1
    assert report["hints"] == []
    (whole,), (live,) = report["whole"], report["live"]
    for each in (whole, live):
        assert each["audio_s"] == pytest.approx(9.96, abs=0.01)
        assert 0 < each["cpu_s_per_s"] < 5
        assert each["categories"]["all"]["word_errors"]["words"] == 12
        assert each["categories"]["all"]["word_errors"]["errors"] <= 4
        assert each["counts"]["encoder_passes"] > 0
        assert each["counts"]["tokens"] > 0
    assert whole["counts"]["partials"] == 0
    assert whole["counts"]["encoded_s"] == pytest.approx(9.96, abs=0.1)
    assert live["counts"]["partials"] > 3
    assert live["counts"]["finals"] >= 1
    assert live["endpoint_ms"]["p50"] == pytest.approx(610, abs=40)


def test_live_counts_of_the_real_model_are_the_same_in_every_run(model_dir: Path) -> None:
    words = ["live", "--limit", "1", "--threads", "1"]
    (one,), (other,) = (bench(model_dir, *words)["live"] for _ in range(2))
    assert one["counts"] == other["counts"]
    assert one["recordings"][0]["text"] == other["recordings"][0]["text"]


def test_it_measures_the_start_of_a_real_daemon(model_dir: Path) -> None:
    (start,) = bench(model_dir, "start")["start"]
    assert start["times"] == 3
    assert 0.05 < start["start_s"] <= start["most_s"] < 60
    assert 50 < start["rss_mb"] < 1000


def test_it_measures_latencies_in_real_time(model_dir: Path) -> None:
    (figures,) = bench(model_dir, "realtime", "--limit", "1")["realtime"]
    assert figures["finals"] >= 1
    assert figures["played_s"] > 9.96
    assert figures["speech_to_final_ms"]["p50"] > 400
    assert figures["endpoint_to_final_ms"]["p50"] >= 0
    assert figures["speech_to_first_partial_ms"]["p50"] > 300
    assert figures["partial_lag_ms"]["count"] == figures["partials"]
    assert 50 < figures["rss_mb"] <= figures["most_rss_mb"] < 1000
