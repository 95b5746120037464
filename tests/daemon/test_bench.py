"""``harkd bench``: what it measures, what it prints, and how it refuses."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from fakes import FakeRecognizer, silence, speech
from harkd import bench_start, bench_words, settings_file
from harkd.audio import RATE_HZ
from harkd.bench_live import Live
from harkd.bench_machine import memory_mb, processor
from harkd.bench_measure import BenchError
from harkd.bench_realtime import Stopwatch, run_in_real_time
from harkd.bench_run import without
from harkd.bench_start import is_listening, measure_start
from harkd.bench_whole import Whole
from harkd.cli_bench import bench
from harkd.errors import HarkdError, RecognitionError
from harkd.events import Final, Partial, Rejected, RejectReason, State, StateChanged
from harkd.model_package import Manifest, PackagedFile, Sample, sha256_of, write_manifest
from harkd.recognizer import factory
from harkd.recognizer.device_report import DeviceReport
from harkd.recognizer.protocol import Effort, Hypothesis
from harkd.settings import EndpointSettings, RecognizerSettings, Settings
from harkd.speech_list import Recording


def make_package(folder: Path, name: str, *, sample: bool) -> Path:
    """A package whose model is one byte, with or without a recording."""
    package = folder / name
    package.mkdir(parents=True)
    (package / "weights").write_bytes(b"x")
    samples = []
    if sample:
        soundfile.write(package / "said.wav", np.concatenate([speech(1500), silence(300)]), RATE_HZ)
        samples = [Sample(text="24000 samples", **pinned(package / "said.wav"))]
    manifest = Manifest(
        name=name,
        family="moonshine",
        version="1",
        languages=("en",),
        licence="MIT",
        licence_file="weights",
        files={"weights": PackagedFile(**pinned(package / "weights"))},
        samples=tuple(samples),
    )
    write_manifest(package, manifest)
    return package


def pinned(path: Path) -> dict[str, Any]:
    return {"path": path.name, "sha256": sha256_of(path), "size_bytes": path.stat().st_size}


@pytest.fixture(autouse=True)
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, Effort]]:
    """No other settings; a store with two models, which load as fakes: model, threads, effort."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(settings_file, "SYSTEM_FILE", tmp_path / "etc" / "harkd.yaml")
    monkeypatch.delenv("HARKD_CONFIG", raising=False)
    monkeypatch.setenv("HARKD_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HARKD_RECOGNIZER__MODEL", "moonshine-tiny-en")
    make_package(tmp_path / "models", "moonshine-tiny-en", sample=True)
    make_package(tmp_path / "models", "lean", sample=False)
    calls: list[tuple[str, int, Effort]] = []

    def load(
        _: Path, manifest: Manifest, threads: int, effort: Effort, device: str
    ) -> tuple[FakeRecognizer, DeviceReport]:
        assert device == "auto"
        calls.append((manifest.name, threads, effort))
        return FakeRecognizer(name=manifest.name), DeviceReport(device, "cpu")

    monkeypatch.setattr(factory, "load_with_report", load)
    # Silero VAD is not taken in by the fake speech.
    monkeypatch.setattr("harkd.bench_run.find_second_look", lambda _: None)
    return calls


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(bench, [str(word) for word in words])


def report_of(*words: str | Path) -> dict[str, Any]:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def refusal(*words: str | Path) -> str:
    """What is said of words that are no good, whoever says it."""
    result = run(*words)
    assert result.exit_code
    if isinstance(result.exception, HarkdError):
        return str(result.exception)
    assert isinstance(result.exception, SystemExit), result.exception
    return result.stderr


# ----------------------------------------------------------------------------- reports


def test_without_words_it_measures_whole_and_live_on_the_models_own_recordings() -> None:
    report = report_of()
    assert report["speech"] == "the recordings of moonshine-tiny-en"
    assert (report["start"], report["realtime"]) == ([], [])
    (whole,), (live,) = report["whole"], report["live"]
    assert whole["audio_s"] == live["audio_s"] == 1.8
    assert whole["counts"]["encoder_passes"] == 1
    assert live["counts"]["partials"] == 4  # at 0.5, 1.0 and 1.5 s, and in the pause
    assert live["counts"]["finals"] == 1
    assert live["endpoint_ms"]["p50"] >= EndpointSettings().silence_ms
    assert live["categories"]["all"]["word_errors"]["words"] == 2
    assert live["recordings"][0]["path"] == "said.wav"


def test_it_says_what_it_ran_on() -> None:
    report = report_of("whole", "--threads", "3")
    assert report["threads"] == 3
    assert report["machine"]["processor"]
    assert report["machine"]["onnxruntime"] != "?"
    (subject,) = report["subjects"]
    assert (subject["model"], subject["provider"], subject["off"]) == (
        "moonshine-tiny-en",
        "cpu",
        [],
    )


def test_live_counts_are_the_same_in_every_run() -> None:
    runs = [report_of("live", "--off", "share")["live"] for _ in range(2)]
    counts = [[(each["counts"], each["endpoint_ms"]) for each in live] for live in runs]
    assert counts[0] == counts[1]


def test_the_table_is_for_people() -> None:
    result = run()
    assert result.exit_code == 0
    assert "whole: each recording as one utterance; 1 recording, 2 s" in result.stdout
    assert "CPU seconds per second of audio" in result.stdout
    assert "moonshine-tiny-en: cpu, " in result.stdout
    assert result.stderr == ""


def test_another_model_takes_turns_with_the_first(loaded: list[tuple[str, int, Effort]]) -> None:
    report = report_of("whole", "--model", "lean", "--against", "moonshine-tiny-en")
    assert [name for name, _, _ in loaded] == ["lean", "moonshine-tiny-en"]
    first, other = report["whole"]
    assert (first["name"], other["name"]) == ("lean", "moonshine-tiny-en")
    assert first["compared"] is None
    assert other["compared"]["other_words"] == 0
    assert other["compared"]["cpu_ratio"] > 0


def test_packages_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    package = make_package(tmp_path / "new", "moonshine-tiny-en", sample=False)
    report = report_of("whole", "--against", package)
    assert [each["name"] for each in report["subjects"]] == [
        str(tmp_path / "models" / "moonshine-tiny-en"),
        str(package),
    ]


def test_parts_are_switched_off_each_in_a_run_of_its_own(
    loaded: list[tuple[str, int, Effort]],
) -> None:
    report = report_of("--off", "draft", "--off", "draft, incremental", "--off", "share")
    efforts = [effort for _, _, effort in loaded]
    assert efforts == [Effort(), Effort(draft=False), Effort(draft=False, incremental=False)]
    assert [each["off"] for each in report["subjects"]] == [
        [],
        ["draft"],
        ["draft", "incremental"],
        ["share"],
    ]
    assert [each["name"] for each in report["live"]][1:] == [
        "without draft",
        "without draft, incremental",
        "without share",
    ]
    assert len(report["whole"]) == 1


def test_switching_off_changes_only_its_part() -> None:
    settings = Settings(
        endpoint=EndpointSettings(adaptive=True), recognizer=RecognizerSettings(partial_share=0.1)
    )
    assert without(settings, frozenset(["share", "adaptive", "incremental"])) == Settings(
        recognizer=RecognizerSettings(partial_share=0.0, incremental=False)
    )
    assert without(settings, frozenset()) == settings


def test_what_the_settings_switch_off_is_off_in_every_run(
    loaded: list[tuple[str, int, Effort]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARKD_RECOGNIZER__DRAFT", "false")
    report_of("live", "--off", "incremental", "--against", "lean")
    assert {effort.draft for _, _, effort in loaded if effort} == {False}
    assert "recognizer.draft is off already" in refusal("--off", "draft")


def test_a_list_gives_the_recordings_and_its_folders_the_categories(tmp_path: Path) -> None:
    for at in range(6):
        path = tmp_path / "speech" / f"kind{at // 3}" / f"{at}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, speech(300 + at), RATE_HZ)
    listed = tmp_path / "speech" / "list.tsv"
    listed.write_text("".join(f"kind{at // 3}/{at}.wav\t\t\tsaid\n" for at in range(6)))
    (whole,) = report_of("whole", "--speech", listed, "--limit", "4")["whole"]
    assert list(whole["categories"]) == ["kind0", "kind1", "all"]
    assert [each["path"] for each in whole["recordings"]] == [
        "kind0/0.wav",
        "kind0/1.wav",
        "kind1/3.wav",
        "kind1/4.wav",
    ]


def test_without_the_extra_it_measures_and_says_what_counts_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "whisper_normalizer.english", None)
    report = report_of("whole")
    assert report["whole"][0]["categories"]["all"]["word_errors"] is None
    assert report["hints"] == [bench_words.MISSING]
    assert "pip install 'harkd[bench]'" in run("whole").stdout


# ----------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["loud"], ["'loud' is not one of"]),
        (["--limit", "0"], ["--limit"]),
        (
            ["--off", "speed"],
            ["'speed' is none of draft, incremental, share, confidence, adaptive"],
        ),
        (["--off", "draft,"], ["'' is none of"]),
        (["--off", "adaptive"], ["endpoint.adaptive is off already"]),
        (["whole", "--off", "draft"], ["live and realtime"]),
        (["start", "--plot", "x.png"], ["whole and live"]),
        (["--plot", "x.txt"], ["x.txt", ".png, .svg, .pdf"]),
        (["--plot", "none/x.png"], ["no folder none"]),
        (["--speech", "none.tsv"], ["none.tsv", "cannot be read"]),
        (["--model", "lean"], ["lean comes without recordings", "--speech"]),
        (["--against", "leaner"], ["'leaner'", "Did you mean lean"]),
        (["--model", "./none"], ["none is no directory"]),
    ],
)
def test_bad_words_are_refused_before_a_model_is_loaded(
    words: list[str], parts: list[str], loaded: list[object]
) -> None:
    said = refusal(*words)
    for part in parts:
        assert part in said
    assert not loaded


def test_a_missing_matplotlib_is_said_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, loaded: list[object], tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "pip install 'harkd[plot]'" in refusal("--plot", tmp_path / "x.png")
    assert not loaded


def test_a_recording_that_is_no_audio_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_text("no audio")
    (tmp_path / "list.tsv").write_text("x.wav\n")
    assert "x.wav is no audio file" in refusal("--speech", tmp_path / "list.tsv")


# ----------------------------------------------------------------------------- plot


def test_a_plot_is_drawn_of_costs_and_word_errors(tmp_path: Path) -> None:
    path = tmp_path / "x.svg"
    assert run("--plot", path, "--against", "lean").exit_code == 0
    assert path.read_text().startswith("<?xml")


def test_a_plot_needs_no_texts(tmp_path: Path) -> None:
    (tmp_path / "list.tsv").write_text("models/moonshine-tiny-en/said.wav\n")
    path = tmp_path / "x.png"
    assert run("--plot", path, "--speech", tmp_path / "list.tsv").exit_code == 0
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_plot_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    assert "x.png cannot be written" in refusal("whole", "--plot", tmp_path / "x.png")


# ----------------------------------------------------------------------------- real time

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_latencies_count_from_the_times_that_events_carry() -> None:
    watch = Stopwatch(monotonic_ns=lambda: 5_000_000_000, utc=lambda: NOW)
    partial = Partial(
        id="1",
        rev=1,
        text="turn",
        confidence=0.9,
        started_at=NOW - timedelta(milliseconds=900),
        duration_s=0.8,
        language="en",
        model="m",
    )
    watch(partial)
    watch(replace(partial, rev=2, duration_s=0.85))
    watch(
        Final(
            id="1",
            rev=3,
            text="turn",
            confidence=0.9,
            started_at=NOW,
            ended_at=NOW,
            duration_s=1.0,
            speech_end_ns=4_380_000_000,
            endpoint_ns=4_990_000_000,
            language="en",
            model="m",
        )
    )
    watch(Rejected("2", RejectReason.NO_SPEECH, NOW, 0.0))
    watch(StateChanged(State.SPEECH, NOW))
    assert watch.speech_to_first_partial_ms == [900]
    assert watch.partial_lag_ms == pytest.approx([100, 50])
    assert watch.speech_to_final_ms == [620]
    assert watch.endpoint_to_final_ms == [10]
    assert (watch.partials, watch.finals, watch.rejected) == (2, 1, 1)


def spoken(folder: Path) -> list[Recording]:
    soundfile.write(folder / "a.wav", speech(700), RATE_HZ)
    return [Recording(folder / "a.wav")]


def test_the_pipeline_runs_in_real_time_until_its_utterance_has_ended(tmp_path: Path) -> None:
    figures = run_in_real_time("fake", FakeRecognizer(), Settings(), spoken(tmp_path))
    assert figures.played_s == pytest.approx(0.7 + 0.6 + 0.5)
    assert (figures.finals, figures.rejected) == (1, 0)
    assert figures.speech_to_final_ms
    assert figures.speech_to_final_ms.p50 >= 580
    assert figures.endpoint_to_final_ms
    assert figures.partial_lag_ms
    assert figures.rss_mb


def broken(_: int) -> Hypothesis:
    raise RecognitionError("it broke")


def test_a_model_that_fails_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="the model failed on"):
        run_in_real_time("fake", FakeRecognizer(broken), Settings(), spoken(tmp_path))
    with pytest.raises(BenchError, match="the model failed on"):
        Live("fake", FakeRecognizer(broken), Settings()).hear(speech(700))
    with pytest.raises(RecognitionError, match="it broke"):
        Whole("fake", FakeRecognizer(broken)).hear(speech(700))


def test_memory_is_told_only_of_a_model_that_is_alone() -> None:
    assert memory_mb()["rss_mb"] <= memory_mb()["most_rss_mb"]
    assert memory_mb(2**22 + 1) == {}


# ----------------------------------------------------------------------------- start


def test_listening_is_read_off_the_printed_events() -> None:
    assert is_listening(b'{"topic": "state", "state": "listening"}')
    assert not is_listening(b'{"topic": "state", "state": "starting"}')
    assert not is_listening(b'{"topic": "transcript", "text": "listening"}')
    assert not is_listening(b"listening")


def shell(folder: Path, *lines: str) -> tuple[str, str]:
    """A script to start in the daemon's place."""
    path = folder / "daemon"
    path.write_text("\n".join(lines))
    return "/bin/sh", str(path)


def test_a_start_lasts_until_the_daemon_listens(tmp_path: Path) -> None:
    program = shell(
        tmp_path,
        'echo "$*" >> "$SEEN"',
        """echo '{"topic": "state", "state": "starting"}'""",
        "sleep 0.1",
        """echo '{"topic": "state", "state": "listening"}'""",
        "exec sleep 60",
    )
    seen = tmp_path / "seen"
    figures = measure_start(
        "fake", ["--config", "x"], {"SEEN": str(seen)}, times=2, program=program
    )
    assert 0.1 < figures.start_s <= figures.most_s
    calls = seen.read_text().splitlines()
    assert len(calls) == 3
    assert calls[0].startswith("run --config x --source wav:")


def test_a_daemon_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    program = shell(tmp_path, "echo 'harkd: no model' >&2")
    with pytest.raises(BenchError, match="its last words: harkd: no model"):
        measure_start("fake", [], {}, program=program)


def test_a_daemon_that_never_listens_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_start, "TIMEOUT_S", 0.1)
    with pytest.raises(BenchError, match="did not come to listen"):
        measure_start("fake", [], {}, program=shell(tmp_path, "exec sleep 60"))


# ----------------------------------------------------------------------------- machine


def test_the_processor_is_named_by_the_kernel_or_the_board(tmp_path: Path) -> None:
    intel, arm, board = (tmp_path / name for name in ("intel", "arm", "board"))
    intel.write_text("processor\t: 0\nmodel name\t: A Fast One\n")
    arm.write_text("processor\t: 0\nBogoMIPS\t: 108.00\n")
    board.write_text("Raspberry Pi 5 Model B\0")
    assert processor(intel, board) == "A Fast One"
    assert processor(arm, board) == "Raspberry Pi 5 Model B"
    assert processor(tmp_path / "none", tmp_path / "none")
