"""Shows how far a conversion or verification is: a bar on a terminal, else lines; on stderr.

Runs on the caller's thread.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import click

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with the stage in words, the steps that are done, and how many there are (0: unknown)."""
PLAIN_STEP_PERCENT = 25
LONG = 20
"""Steps from which on a stage is long."""


def silent(_stage: str, _done: int, _total: int) -> None:
    """Show no progress."""


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yield what shows progress."""
    if not sys.stderr.isatty():
        yield plain_lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        stages: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                for task in stages.values():
                    bar.update(task, visible=False)
                stages[stage] = bar.add_task(stage, total=total or None)
            bar.update(stages[stage], completed=done)

        yield show


def plain_lines() -> Progress:
    """Return a callback that prints a line for each stage, and for each quarter of a long one."""
    printed = set[tuple[str, int]]()

    def show(stage: str, done: int, total: int) -> None:
        percent = 100 * done // total if total >= LONG else 0
        percent -= percent % PLAIN_STEP_PERCENT
        if (stage, percent) not in printed:
            printed.add((stage, percent))
            click.echo(stage + (f": {percent} %" if percent else ""), err=True)

    return show
