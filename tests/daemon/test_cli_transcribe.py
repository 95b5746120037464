"""``harkd transcribe``: what it prints and writes, what it skips, and how it exits."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from fakes import FakeRecognizer, said, silence, speech
from harkd import app, cli_transcribe, model_store, settings_file, transcript_files
from harkd.cli_transcribe import shared_out, transcribe
from harkd.errors import HarkdError, ModelMissingError, RecognitionError
from harkd.recognizer.protocol import Hypothesis
from harkd.settings import Settings


class Models:
    """Stands in for the model: counts how often it is loaded."""

    def __init__(self) -> None:
        self.recognizer = FakeRecognizer()
        self.loaded_with: list[int] = []
        """recognizer.threads of each time."""
        self.with_phrases = False
        """Whether memory for phrases was asked for, too."""

    def load(self, _: object, settings: Settings, streams: int, *, phrases: bool) -> FakeRecognizer:
        assert streams >= 1
        self.with_phrases = phrases
        self.loaded_with.append(settings.recognizer.threads)
        return self.recognizer


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Models:
    """No other settings, a fake model, paths relative to an empty folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(settings_file, "SYSTEM_FILE", tmp_path / "etc" / "harkd.yaml")
    monkeypatch.delenv("HARKD_CONFIG", raising=False)
    fake = Models()
    monkeypatch.setattr(model_store, "find_model", lambda _: None)
    monkeypatch.setattr(app, "load", fake.load)
    # Silero VAD is not taken in by the fake speech.
    monkeypatch.setattr("harkd.second_look.find_second_look", lambda _: None)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return fake


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(transcribe, [str(word) for word in words])


def record(name: str, *lengths_ms: int) -> None:
    """Write a file with an utterance of each length."""
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    parts = [np.concatenate([speech(length), silence(1000)]) for length in lengths_ms]
    kind = {"format": "WAV"} if name.endswith(".mp3") else {}
    soundfile.write(name, np.concatenate([silence(500), *parts]), 16000, **kind)


def written(folder: str = "out") -> dict[str, str]:
    """The files of a folder: path below it → content."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def test_one_file_gives_its_text_line_by_line() -> None:
    record("a.wav", 600, 900)
    result = run("a.wav")
    assert result.exit_code == 0
    assert [line.split()[1] for line in result.stdout.splitlines()] == ["samples"] * 2
    assert "a.wav" not in result.stdout
    assert result.stderr == ""


def test_several_files_are_headed_and_a_summary_is_told() -> None:
    record("b.wav", 600)
    record("a.wav", 900)
    result = run("b.wav", "a.wav")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[::2] == ["b.wav:", "a.wav:"]
    assert result.stderr.startswith("harkd: 2 files transcribed; 0:00:04 of audio in ")
    assert "real-time factor" in result.stderr
    assert result.stderr.rstrip().endswith("s of CPU time")


PHRASES = """
phrases:
  intents:
    on: ['turn on the {lamp}']
  lists:
    lamp: [{in: bed light, out: light.bed}]
"""


@pytest.mark.parametrize("mode", ["prefer", "only", "open"])
def test_phrases_of_the_settings_are_found(mode: str, models: Models) -> None:
    texts = iter(["Turn on the bed light.", "And what else?"])
    models.recognizer.script = lambda _: Hypothesis(next(texts), 0.9, (1,))
    record("a.wav", 1500, 1500)
    Path("harkd.yaml").write_text(PHRASES.replace("phrases:", f"phrases:\n  mode: {mode}"))
    found = json.loads(run("a.wav", "--json", "-j", "1", "--config", "harkd.yaml").stdout)
    first, *others = found["utterances"]
    assert models.with_phrases == (mode != "open")
    assert [each["text"] for each in others] == ["And what else?"] * (mode != "only")
    assert first["text"] == "Turn on the bed light."
    if mode == "open":
        assert "match" not in first
    else:
        assert (first["match"]["intent"], first["match"]["slots"]) == ("on", {"lamp": "light.bed"})


@pytest.mark.parametrize("words", [("--json",), ("--format", "json"), ("--json", "--format=json")])
def test_json_is_one_object_a_line_for_each_file(words: tuple[str, ...]) -> None:
    record("rec/a.wav", 600)
    record("rec/sub/b.flac", 600, 900)
    result = run("rec", *words)
    first, second = map(json.loads, result.stdout.splitlines())
    assert first["file"] == "rec/a.wav"
    assert second["file"] == "rec/sub/b.flac"
    assert len(second["utterances"]) == 2
    assert second["text"] == " ".join(each["text"] for each in second["utterances"])
    assert second["duration_s"] == 4.0
    assert second["error"] is None


@pytest.mark.parametrize("form", ["srt", "vtt", "tsv"])
def test_one_document_can_be_printed_but_not_several_in_a_row(form: str, models: Models) -> None:
    record("rec/a.wav", 600)
    assert " samples\n" in run("rec", "--format", form).stdout
    record("rec/b.wav", 600)
    models.loaded_with.clear()
    result = run("rec", "--format", form)
    assert result.exit_code == 2
    assert f"{form} of 2 files cannot be printed" in result.stderr
    assert "--output-dir DIR" in result.stderr
    assert models.loaded_with == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--json", "--format", "srt"), "--json is --format json"),
        (("--force",), "--force is for --output-dir"),
        (("--jobs", "0"), "not in the range"),
        (("--format", "doc"), "'doc' is not one of"),
    ],
)
def test_words_that_do_not_go_together_are_refused(words: tuple[str, ...], told: str) -> None:
    record("a.wav", 600)
    result = run("a.wav", *words)
    assert result.exit_code == 2
    assert told in result.stderr


@pytest.mark.parametrize("form", ["text", "json", "srt", "vtt", "tsv"])
def test_each_file_s_transcript_is_what_would_be_printed(form: str) -> None:
    record("a.wav", 600, 900)
    printed = run("a.wav", "--format", form).stdout
    result = run("a.wav", "--format", form, "--output-dir", "out")
    assert result.exit_code == 0
    assert result.stdout == ""
    (content,) = written().values()
    if form == "json":
        assert {**json.loads(content), "took_s": 0} == {**json.loads(printed), "took_s": 0}
    else:
        assert content == printed


def test_transcripts_mirror_the_folder_and_share_no_name() -> None:
    for name in ("rec/a.wav", "rec/a.mp3", "rec/sub/a.wav"):
        record(name, 600)
    result = run("rec", "--output-dir", "out", "--format", "srt")
    assert result.exit_code == 0, result.stderr
    assert list(written()) == ["a.mp3.srt", "a.wav.srt", "sub/a.wav.srt"]
    assert all(text.startswith("1\n00:00:00,5") for text in written().values())


def test_a_file_that_has_its_transcript_is_skipped() -> None:
    record("rec/a.wav", 600)
    record("rec/b.wav", 900)
    run("rec/a.wav", "--output-dir", "out")
    Path("out/a.wav.txt").write_text("mended by hand")
    result = run("rec", "--output-dir", "out")
    assert result.exit_code == 0
    assert "1 file transcribed, 1 skipped (transcribed before; --force" in result.stderr
    assert written()["a.wav.txt"] == "mended by hand"
    assert written()["b.wav.txt"].endswith("samples\n")


def test_force_does_them_again() -> None:
    record("rec/a.wav", 600)
    run("rec", "--output-dir", "out")
    Path("out/a.wav.txt").write_text("old")
    result = run("rec", "--output-dir", "out", "--force")
    assert "1 file transcribed;" in result.stderr
    assert written()["a.wav.txt"].endswith("samples\n")


def test_another_format_is_another_transcript() -> None:
    record("a.wav", 600)
    run("a.wav", "--output-dir", "out")
    run("a.wav", "--output-dir", "out", "--format", "vtt")
    assert list(written()) == ["a.wav.txt", "a.wav.vtt"]


def test_the_model_is_not_loaded_when_there_is_nothing_to_do(models: Models) -> None:
    record("a.wav", 600)
    Path("empty").mkdir()
    Path("bad.wav").write_bytes(b"no sound")
    run("a.wav", "--output-dir", "out")
    models.loaded_with.clear()
    assert run("a.wav", "--output-dir", "out").exit_code == 0
    assert run("empty").exit_code == 1
    assert run("bad.wav").exit_code == 1
    assert run("bad.wav", "missing.wav", "--json").exit_code == 1
    assert models.loaded_with == []


def test_a_bad_file_is_told_at_the_end_and_the_others_are_done() -> None:
    record("rec/a.wav", 600)
    Path("rec/b.wav").write_bytes(b"no sound")
    record("rec/c.wav", 600)
    result = run("rec", "missing.wav", "--output-dir", "out")
    assert result.exit_code == 1
    first, second, last = result.stderr.splitlines()
    assert first.startswith("harkd: rec/b.wav is no audio file")
    assert second == "harkd: missing.wav does not exist. Check the path."
    assert last.startswith("harkd: 2 files transcribed, 2 failed; ")
    assert list(written()) == ["rec/a.wav.txt", "rec/c.wav.txt"]


def test_a_file_that_is_damaged_in_the_middle_leaves_no_transcript() -> None:
    record("a.flac", *[900] * 8)
    data = Path("a.flac").read_bytes()
    Path("a.flac").write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))
    result = run("a.flac", "--output-dir", "out")
    assert result.exit_code == 1
    assert "a.flac is damaged after" in result.stderr
    assert written() == {}
    assert run("a.flac").stdout.count("samples") >= 2, "what comes before is still printed"


def test_a_fault_without_the_file_s_name_gets_it(models: Models) -> None:
    def fail(_: int) -> Hypothesis:
        raise RecognitionError("fake failed on 1.0 s of audio")

    models.recognizer = FakeRecognizer(fail)
    record("a.wav", 600)
    result = run("a.wav")
    assert result.exit_code == 1
    assert "harkd: a.wav: fake failed on 1.0 s of audio" in result.stderr


def test_all_bad_files_are_each_told() -> None:
    Path("bad.wav").write_bytes(b"no sound")
    result = run("--json", "bad.wav", "missing.wav")
    assert result.exit_code == 1
    errors = [json.loads(line)["error"] for line in result.stdout.splitlines()]
    assert ["no audio file" in errors[0], "does not exist" in errors[1]] == [True, True]
    assert "0 files transcribed, 2 failed" in result.stderr


def test_a_folder_without_sound_files_is_an_error() -> None:
    Path("empty").mkdir()
    result = run("empty")
    assert result.exit_code == 1
    assert result.stderr.startswith("harkd: empty holds no sound files. Name files")


def test_an_output_folder_that_cannot_be_is_told_before_the_model_is_loaded(
    models: Models,
) -> None:
    record("a.wav", 600)
    Path("out").touch()
    result = run("a.wav", "--output-dir", "out")
    assert isinstance(result.exception, HarkdError)
    assert "out is a file, not a folder" in str(result.exception)
    assert models.loaded_with == []


def test_a_disk_that_fills_up_ends_the_work_and_says_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("rec/a.wav", "rec/b.wav", "rec/c.wav"):
        record(name, 600)
    whole = transcript_files.write

    def write(path: Path, text: str) -> None:
        if path.name == "b.wav.txt":
            raise transcript_files.OutputFullError(f"{path} cannot be written (No space left)")
        whole(path, text)

    monkeypatch.setattr(transcript_files, "write", write)
    result = run("rec", "--output-dir", "out")
    assert result.exit_code == 1
    assert "out/b.wav.txt cannot be written (No space left)" in result.stderr
    assert "1 file transcribed, 1 failed, 1 left (the same command does the rest)" in result.stderr
    assert list(written()) == ["a.wav.txt"]


def test_a_missing_model_is_raised_for_the_top_to_print(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: Settings) -> NoReturn:
        raise ModelMissingError("it is not installed")

    monkeypatch.setattr(model_store, "find_model", missing)
    record("a.wav", 600)
    assert isinstance(run("a.wav").exception, ModelMissingError)


@pytest.fixture
def left_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The process is not really left, but the number of the signal is noted."""
    numbers: list[int] = []

    def leave(number: int) -> NoReturn:
        numbers.append(number)
        raise SystemExit(128 + number)

    monkeypatch.setattr(cli_transcribe, "leave_at_once", leave)
    before = signal.getsignal(signal.SIGTERM)
    yield numbers
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_goes_on_where_it_was_stopped(
    number: signal.Signals,
    left_with: list[int],
    models: Models,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The signal comes when the first file is written and the second is being recognized."""
    first_is_written = threading.Event()
    whole = transcript_files.write
    answers: list[int] = []

    def write(path: Path, text: str) -> None:
        whole(path, text)
        first_is_written.set()

    def script(samples: int) -> Hypothesis:
        answers.append(samples)
        if len(answers) == 2:
            assert first_is_written.wait(10)
            os.kill(os.getpid(), number)
        return said(samples)

    for name in ("rec/a.wav", "rec/b.wav", "rec/c.wav"):
        record(name, 600)
    Path("rec/Z.wav").write_bytes(b"no sound")
    monkeypatch.setattr(transcript_files, "write", write)
    models.recognizer = FakeRecognizer(script)
    result = run("rec", "--output-dir", "out", "--jobs", "1")
    assert result.exit_code == 128 + number
    assert left_with == [number]
    bad, told = result.stderr.splitlines()
    assert bad.startswith("harkd: rec/Z.wav is no audio file"), "what is known of is told"
    assert told.startswith("harkd: stopped; ")
    assert told.endswith("of 4 files done; the same command does the rest")
    assert "Traceback" not in result.output
    stopped_at = list(written())
    assert stopped_at[0] == "a.wav.txt"
    assert all(text.endswith("samples\n") for text in written().values())

    models.recognizer = FakeRecognizer()
    Path("rec/Z.wav").unlink()
    result = run("rec", "--output-dir", "out")
    assert result.exit_code == 0
    assert f"{len(stopped_at)} skipped" in result.stderr
    assert list(written()) == ["a.wav.txt", "b.wav.txt", "c.wav.txt"]


@pytest.mark.parametrize(
    ("jobs", "threads", "cores", "shared"),
    [
        (None, 0, 4, (4, 1)),
        (None, 0, 1, (1, 1)),
        (3, 0, 8, (3, 1)),
        (None, 2, 8, (4, 2)),
        (None, 4, 2, (1, 4)),
        (2, 4, 8, (2, 4)),
    ],
)
def test_cores_are_shared_out_among_jobs(
    jobs: int | None, threads: int, cores: int, shared: tuple[int, int]
) -> None:
    assert shared_out(jobs, threads, cores) == shared


def test_the_model_is_loaded_with_the_threads_of_a_job(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    record("a.wav", 600)
    run("a.wav")
    monkeypatch.setenv("HARKD_RECOGNIZER__THREADS", "3")
    run("a.wav", "--jobs", "2")
    assert models.loaded_with == [1, 3]


def test_jobs_do_not_change_the_output() -> None:
    for n in range(5):
        record(f"rec/{n}.wav", *(300 + 100 * (n + k) for k in range(4)))
    results = [run("rec", "--jobs", jobs).stdout for jobs in ("1", "2", "8")]
    assert results[0] == results[1] == results[2]
    assert results[0].count("samples") == 20
