"""What is told about the work: the summary, the word after a signal, and the bar."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from rich.progress import Progress

from harkd.cli_progress import Bar, NoBar, Tally, board, clock, factor, stopped, summary


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_summary_tells_files_audio_and_cost() -> None:
    tally = Tally(total=9, transcribed=5, skipped=2, failed=1, audio_s=3661.5)
    assert re.fullmatch(
        r"5 files transcribed, 2 skipped \(transcribed before; --force does it again\), 1 failed, "
        r"1 left \(the same command does the rest\); 1:01:01 of audio in \d+\.\d s, "
        r"real-time factor 0\.\d{4}, \d+\.\d s of CPU time",
        summary(tally),
    )


def test_what_did_not_happen_is_not_mentioned() -> None:
    assert summary(Tally(total=1, transcribed=1)) == "1 file transcribed"


def test_the_word_after_a_signal_tells_how_to_go_on() -> None:
    tally = Tally(total=12, transcribed=3, skipped=2, failed=1)
    assert stopped(tally, resumes=True) == (
        "stopped; 5 of 12 files done; the same command does the rest"
    )
    assert "with --output-dir, the same command would" in stopped(tally, resumes=False)
    assert stopped(Tally(), resumes=True) == "stopped before anything was done"


def test_the_real_time_factor_is_processing_time_over_audio_time() -> None:
    assert factor(5.0, 100.0) == "real-time factor 0.0500"
    assert clock(3 * 3600 + 62.9) == "3:01:02"


def test_without_a_terminal_there_is_no_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with board([], wanted=True) as shown:
        assert isinstance(shown, NoBar)
        shown.show(Tally(3), Path("a.wav"), 1.0, 2.0)
        shown.print("said")
    assert capsys.readouterr() == ("said\n", "")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with board([], wanted=False) as shown:
        assert isinstance(shown, NoBar), "a debug log would disturb it"


def test_a_terminal_shows_files_audio_and_the_factor_and_is_left_clean(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    terminal, file = Terminal(), io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", file)
    with board([tmp_path / "a.wav", tmp_path / "[b].wav"], wanted=True) as shown:
        assert isinstance(shown, Bar)
        shown.show(Tally(3, transcribed=1, audio_s=60), tmp_path / "[b].wav", 30.0, 60.0)
        shown.print("said")
    drawn = terminal.getvalue()
    assert "[b].wav" in drawn
    assert "1/3 files" in drawn
    assert "0:01:30 of audio" in drawn
    assert "RTF 0.0" in drawn
    assert drawn.endswith("\x1b[2K"), "the last line is erased"
    assert file.getvalue() == "said\n", "what goes to a file does not go to the terminal"
    assert "said" not in drawn


def test_the_bar_moves_by_what_files_weigh_and_within_one_by_its_audio() -> None:
    first, second = Path("a.wav"), Path("b.wav")
    progress = Progress(disable=True)
    bar = Bar(progress, progress.console, {first: 300, second: 100})
    (task,) = progress.tasks
    assert task.total == 400
    moved = []
    for path, at_s, length_s in [
        (first, 0.0, 60.0),
        (first, 30.0, 60.0),
        (second, 0.0, 0.0),  # its length is not known
        (second, 50.0, 40.0),  # nor was this the truth
    ]:
        bar.show(Tally(2), path, at_s, length_s)
        moved.append(task.completed)
    assert moved == [0, 150, 300, 400]


def test_on_one_terminal_the_results_stay_above_the_bar_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    text = "[bold]said[/] :smile: " + "on and on " * 20
    with board([], wanted=True) as shown:
        shown.print(text)
    assert text + "\n" in terminal.getvalue(), "neither wrapped nor taken for markup"


def test_a_terminal_that_cannot_move_its_cursor_gets_no_bar(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with board([], wanted=True) as shown:
        assert isinstance(shown, NoBar)
