"""`harkd-convert` on the command line: what it prints, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from harkd.model_package import load_manifest
from harkd_convert.cli import main
from harkd_convert.export_check import pseudo_speech
from harkd_convert.progress import plain_lines
from small_moonshine import write_directory

CONVERT = Path(__file__).parents[2] / "convert"


class Outcome:
    """What one command has left."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Run = Callable[..., Outcome]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["harkd-convert", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_directory(tmp_path / "small")


def test_it_converts_inspects_and_verifies(run: Run, source: Path, tmp_path: Path) -> None:
    package = tmp_path / "out" / "small-lean"
    done = run("moonshine", source, "--out", package, "--precision", "fp32", "--name", "mine")
    assert done.code == 0, done.err
    assert done.out.startswith(f"mine {load_manifest(package).version} is in {package}: ")
    assert "agree with PyTorch" in done.out
    assert f"harkd models import {package}" in done.out
    assert "Comparing the export with PyTorch\n" in done.err

    done = run("inspect", package)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("mine ")
    assert json.loads(run("inspect", package, "--json").out)["manifest"]["name"] == "mine"

    soundfile.write(tmp_path / "a.wav", pseudo_speech(30_000), 16_000)
    (tmp_path / "list.tsv").write_text("a.wav\t2\t16000\toak elm maple\n")
    words = ("verify", package, "--against", source, "--speech", tmp_path / "list.tsv")
    done = run(*words, "--no-write")
    assert done.code == 0, done.out + done.err
    assert "mine" in done.out
    assert "passes" in done.out
    assert "verified" not in load_manifest(package).measured
    found = json.loads(run(*words, "--json", "--limit", "1").out)
    assert found["passed"] is True
    assert load_manifest(package).measured["verified"]["speech"]["words"] == 3


def test_a_refused_package_ends_with_exit_code_1_and_keeps_its_manifest(
    run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "lean"
    run("moonshine", source, "--out", package)
    before = (package / "model.yaml").read_text()
    soundfile.write(tmp_path / "a.wav", pseudo_speech(30_000), 16_000)
    (tmp_path / "list.tsv").write_text("a.wav\t2\t16000\toak elm maple\n")
    monkeypatch.setattr("harkd_convert.verify.Verified.allowed", -1)
    done = run("verify", package, "--against", source, "--speech", tmp_path / "list.tsv")
    assert done.code == 1
    assert "is REFUSED" in done.out
    assert (package / "model.yaml").read_text() == before


def test_a_licence_and_a_language_can_be_given(run: Run, tmp_path: Path) -> None:
    source = write_directory(tmp_path / "tuned", licensed=False)
    (tmp_path / "LICENCE.txt").write_text("Use it.\n")
    package = tmp_path / "lean"
    words = ["moonshine", source, "--out", package]
    done = run(*words)
    assert done.code == 1
    assert done.err.splitlines()[-1] == (
        "harkd-convert: the source does not say under which licence tuned is. Add --licence SPDX "
        "--licence-file FILE, as its publisher says (such as --licence MIT)."
    )
    words += ["--licence", "CC-BY-4.0", "--licence-file", tmp_path / "LICENCE.txt"]
    assert "--language TAG" in run(*words).err
    done = run(*words, "--language", "de", "--language", "en")
    assert done.code == 0, done.err
    manifest = load_manifest(package)
    assert (manifest.licence, manifest.languages) == ("CC-BY-4.0", ("de", "en"))
    assert (package / "LICENSE").read_text() == "Use it.\n"


FAULTS: dict[str, tuple[list[str], int, str]] = {
    "no words": (["moonshine"], 2, "Missing argument"),
    "no --out": (["moonshine", "small"], 2, "Missing option '--out'"),
    "an unknown precision": (
        ["moonshine", "small", "--out", "x", "--precision", "int4"],
        2,
        "'int4' is not one of",
    ),
    "an unknown command": (["parakeet"], 2, "No such command"),
    "a source that is not there": (["moonshine", "none", "--out", "x"], 1, "none is not there"),
    "a source that is none": (["moonshine", "empty", "--out", "x"], 1, "holds neither"),
    "a target that exists": (["moonshine", "small", "--out", "empty"], 1, "no model package"),
    "a target in the source": (["moonshine", "small", "--out", "small/x"], 1, "lie in each other"),
    "a target below a file": (["moonshine", "small", "--out", "page/x"], 1, "page"),
    "a name that is none": (
        ["moonshine", "small", "--out", "x", "--name", "A b"],
        1,
        "'A b' is no name for a model",
    ),
    "a pattern that names nothing": (
        ["moonshine", "small", "--out", "x", "--keep-float", "fc1"],
        1,
        "--keep-float fc1 names none",
    ),
    "a licence file that is not there": (
        ["moonshine", "small", "--out", "x", "--licence-file", "none"],
        1,
        "none cannot be read",
    ),
    "a licence file without words": (
        ["moonshine", "small", "--out", "x", "--licence-file", "blank"],
        1,
        "blank is empty",
    ),
    "a licence file that is no text": (
        ["moonshine", "small", "--out", "x", "--licence-file", "binary"],
        1,
        "no text in UTF-8",
    ),
    "nothing to inspect": (["inspect", "none"], 1, "none is not there"),
    "a page to inspect": (["inspect", "page"], 1, "neither a directory nor"),
    "verify of no package": (
        ["verify", "empty", "--against", "small", "--speech", "page"],
        1,
        "model.yaml is missing",
    ),
    "verify without a list": (["verify", "x", "--against", "small"], 2, "'--speech'"),
    "a limit of nothing": (
        ["verify", "x", "--against", "small", "--speech", "l", "--limit", "0"],
        2,
        "'--limit'",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_message_without_a_traceback(
    run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "page").write_text("<html>")
    (tmp_path / "blank").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    before = sorted(tmp_path.rglob("*"))
    words, code, message = FAULTS[name]
    done = run(*words)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert "Traceback" not in done.err
    assert sorted(tmp_path.rglob("*")) == before
    assert source.is_dir()


def test_a_directory_that_exists_needs_force(run: Run, source: Path, tmp_path: Path) -> None:
    package = tmp_path / "lean"
    assert run("moonshine", source, "--out", package).code == 0
    first = load_manifest(package)
    done = run("moonshine", source, "--out", package, "--precision", "fp32")
    assert done.code == 1
    assert "--force to replace it" in done.err
    assert load_manifest(package) == first
    done = run("moonshine", source, "--out", package, "--precision", "fp32", "--force")
    assert done.code == 0
    assert load_manifest(package).name == "small-lean-fp32"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_may_not_be_written_is_said(
    run: Run, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    done = run("moonshine", source, "--out", tmp_path / "closed" / "x")
    assert done.code == 1
    assert "Permission denied" in done.err


def test_without_pytorch_it_says_how_to_get_it(source: Path, tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None; "
        f"sys.argv = ['harkd-convert', 'moonshine', {str(source)!r}, '--out', 'x']; "
        "from harkd_convert.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(CONVERT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "harkd-convert: torch is not installed, which only the converter needs. "
        "pip install 'harkd[convert]'.\n"
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_when_it_is_stopped_it_leaves_nothing(
    source: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "harkd_convert", "moonshine", source, "--out", tmp_path / "lean"],
        env={**os.environ, "PYTHONPATH": str(CONVERT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    for line in process.stderr:
        if line.startswith("Comparing"):
            break
    process.send_signal(number)
    deadline_s = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.05)
    rest = process.stderr.read()
    process.stderr.close()
    assert process.returncode == code
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == [source]


def test_progress_is_a_line_for_each_stage_and_quarter(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show = plain_lines()
    show("Reading", 0, 0)
    for done in range(41):
        show("Recognizing", done, 40)
    show("Writing", 1, 3)
    show("Writing", 2, 3)
    assert capsys.readouterr().err.splitlines() == [
        "Reading",
        "Recognizing",
        "Recognizing: 25 %",
        "Recognizing: 50 %",
        "Recognizing: 75 %",
        "Recognizing: 100 %",
        "Writing",
    ]
