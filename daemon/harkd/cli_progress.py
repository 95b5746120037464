"""How far ``harkd transcribe`` is: a bar while it works, a line when it is done.

In: what has happened so far. Out: text on stderr; what is meant for stdout passes through here,
too, since both may be one terminal. Runs on the main thread; rich draws on a thread of its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


@dataclass(slots=True)
class Tally:
    """What has become of the files so far."""

    total: int = 0
    """Files there are."""
    transcribed: int = 0
    """Files that were done."""
    skipped: int = 0
    """Files whose transcripts were there already."""
    failed: int = 0
    """Files with a fault."""
    audio_s: float = 0.0
    """Seconds of audio that were recognized."""
    faults: list[str] = field(default_factory=list)
    """What went wrong, one sentence or two each."""
    begin_s: float = field(default_factory=time.perf_counter)
    """When the work began, on the monotonic clock."""
    begin_cpu_s: float = field(default_factory=time.process_time)
    """CPU seconds that this process had used then."""

    def begin(self) -> None:
        """Count time from now on: what comes before is not the audio's cost."""
        self.begin_s, self.begin_cpu_s = time.perf_counter(), time.process_time()

    @property
    def wall_s(self) -> float:
        """Seconds since the work began."""
        return time.perf_counter() - self.begin_s

    @property
    def cpu_s(self) -> float:
        """CPU seconds since the work began, of all threads."""
        return time.process_time() - self.begin_cpu_s

    @property
    def left(self) -> int:
        """Files that nothing has become of yet."""
        return self.total - self.transcribed - self.skipped - self.failed


def summary(tally: Tally) -> str:
    """Return what became of all files, and what it cost."""
    parts = [f"{files(tally.transcribed)} transcribed"]
    if tally.skipped:
        parts.append(f"{tally.skipped} skipped (transcribed before; --force does it again)")
    if tally.failed:
        parts.append(f"{tally.failed} failed")
    if tally.left:
        parts.append(f"{tally.left} left (the same command does the rest)")
    line = ", ".join(parts)
    if tally.audio_s:
        line += (
            f"; {clock(tally.audio_s)} of audio in {tally.wall_s:.1f} s, "
            f"{factor(tally.wall_s, tally.audio_s)}, {tally.cpu_s:.1f} s of CPU time"
        )
    return line


def stopped(tally: Tally, *, resumes: bool) -> str:
    """Return what is told after a signal.

    Args:
        tally: What had been done by then.
        resumes: Whether the same command would go on from here.
    """
    done = f"stopped; {tally.transcribed + tally.skipped} of {files(tally.total)} done"
    if not tally.total:
        return "stopped before anything was done"
    if resumes:
        return f"{done}; the same command does the rest"
    return f"{done}; with --output-dir, the same command would do the rest"


def files(count: int) -> str:
    """Return the count with its noun."""
    return f"{count} file" if count == 1 else f"{count} files"


def clock(seconds: float) -> str:
    """Return hours:minutes:seconds."""
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}"


def factor(wall_s: float, audio_s: float) -> str:
    """Return how long a second of audio takes."""
    return f"real-time factor {wall_s / audio_s:.4f}"


class Board(Protocol):
    """Where progress is shown."""

    def show(self, tally: Tally, path: Path, at_s: float, length_s: float) -> None:
        """Show how far the work is.

        Args:
            tally: The files that are done.
            path: The file whose results come now.
            at_s: Seconds of its audio that are done.
            length_s: Seconds of audio that it holds, 0 if that is not known.
        """

    def print(self, text: str) -> None:
        """Write a piece of the result to stdout; without its line end."""


class NoBar:
    """Where there is no terminal to show it on."""

    def show(self, tally: Tally, path: Path, at_s: float, length_s: float) -> None:
        """Show nothing."""

    def print(self, text: str) -> None:
        """Write to stdout."""
        click.echo(text)


class Bar:
    """A bar at the foot of the terminal, with the results above it.

    Args:
        progress: What draws it.
        console: Where it is drawn.
        sizes: The files to be done, with what each weighs: their bytes, since their lengths are
            not known before they are opened.
    """

    def __init__(self, progress: Progress, console: Console, sizes: Mapping[Path, int]) -> None:
        self._progress = progress
        self._console = console
        self._sizes = sizes
        self._path: Path | None = None
        self._done_bytes = 0
        total = sum(sizes.values())
        self._task = progress.add_task("", total=total, audio="", factor="", count="")

    def show(self, tally: Tally, path: Path, at_s: float, length_s: float) -> None:
        """Move the bar."""
        if path != self._path:
            self._done_bytes += self._sizes[self._path] if self._path else 0
            self._path = path
        part = min(1.0, at_s / length_s) if length_s else 0.0
        audio_s = tally.audio_s + at_s
        self._progress.update(
            self._task,
            description=path.name,
            completed=self._done_bytes + part * self._sizes[path],
            count=f"{tally.total - tally.left}/{files(tally.total)}",
            audio=f"{clock(audio_s)} of audio",
            factor=f"RTF {tally.wall_s / audio_s:.4f}" if audio_s else "",
        )

    def print(self, text: str) -> None:
        """Write above the bar, or to stdout where that leads elsewhere."""
        if sys.stdout.isatty():
            self._console.out(text, highlight=False)
        else:
            click.echo(text)


@contextmanager
def board(paths: Sequence[Path], *, wanted: bool) -> Iterator[Board]:
    """Yield a bar if stderr is a terminal that can draw one.

    Args:
        paths: The files to be done.
        wanted: False for no bar in any case.
    """
    if not (wanted and sys.stderr.isatty()):
        yield NoBar()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    console = Console(stderr=True)
    if console.is_dumb_terminal:
        yield NoBar()
        return
    name = Column(max_width=18, no_wrap=True, overflow="ellipsis")
    columns = (
        TextColumn("{task.description}", markup=False, table_column=name),
        BarColumn(bar_width=10),
        TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[audio]}"),
        TextColumn("{task.fields[factor]}"),
        TimeRemainingColumn(),
    )
    # Not as wide as the terminal: the ^C of Ctrl-C would wrap, and the wrong line be erased.
    with Progress(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=False,  # it would send results that go to a file to the terminal
        redirect_stderr=False,
    ) as progress:
        yield Bar(progress, console, {path: size_of(path) for path in paths})


def size_of(path: Path) -> int:
    """Return a file's bytes; 0 for one that is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
