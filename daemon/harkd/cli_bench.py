"""``harkd bench``: what recognition costs on this machine, how late it comes, how right it is.

In: words of the command line. Out: a table or JSON on stdout, progress on stderr. Runs on the main
thread.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harkd.cli_config import config_option
from harkd.interruption import Interrupted, interruptible, leave_at_once
from harkd.logs import set_up
from harkd.settings import Settings, find_file, load

if TYPE_CHECKING:
    from harkd.bench_run import Bench, Report

MODES = ("whole", "live", "realtime", "start")
DEFAULT_MODES = ("whole", "live")
PARTS = ("draft", "incremental", "share", "confidence", "adaptive")


def parts_of(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[frozenset[str], ...]:
    """Return for each value the parts that are switched off together."""
    found = [[part.strip() for part in value.split(",")] for value in values]
    if unknown := [part for parts in found for part in parts if part not in PARTS]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(PARTS)}.")
    return tuple(map(frozenset, found))


@click.command(short_help="Measure what recognition costs on this machine.")
@click.argument("modes", nargs=-1, type=click.Choice(MODES), metavar="[MODE]...")
@click.option(
    "--speech",
    type=click.Path(path_type=Path),
    metavar="LIST",
    help="Recordings: a tab-separated file with, on each line, a path from its own folder, and if "
    "known, seconds, rate and what is said. The path's first folder is the category. The "
    "recordings that come with the model if left out.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Take N of them, evenly over the list.",
)
@click.option("--model", metavar="MODEL", help="A name or path, instead of recognizer.model.")
@click.option(
    "--against",
    multiple=True,
    metavar="MODEL",
    help="Run this model too, in turns with the first, and compare. Repeatable.",
)
@click.option(
    "--off",
    multiple=True,
    callback=parts_of,
    metavar="PARTS",
    help="Run the model once more without draft, incremental, share, confidence "
    "(recognizer.draft, .incremental, .partial_share, .partial_confidence) or adaptive "
    "(endpoint.adaptive); several with commas. "
    "Repeatable. Not in whole and start.",
)
@click.option(
    "--repeat",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    metavar="N",
    help="Take medians of N rounds, in whole and live.",
)
@click.option(
    "--threads",
    type=click.IntRange(0, 64),
    metavar="N",
    help="Instead of recognizer.threads; 0 chooses.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with each recording's figures.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw whole and live into a png, svg or pdf. Needs harkd[plot].",
)
@config_option
@click.option("-v", "--verbose", is_flag=True, help="Log at debug level.")
def bench(
    modes: tuple[str, ...],
    speech: Path | None,
    limit: int | None,
    model: str | None,
    against: tuple[str, ...],
    off: tuple[frozenset[str], ...],
    repeat: int,
    threads: int | None,
    as_json: bool,
    plot: Path | None,
    explicit: Path | None,
    verbose: bool,
) -> None:
    """Measure what recognition costs here, how late it comes, and how right it is.

    MODE says how; whole and live if left out.

    \b
    whole     each recording as one utterance: recognition alone
    live      as if it were being spoken, with partials and endpoints, but
              faster; counts are the same in every run
    realtime  as live, in real time: how late texts come, memory
    start     from starting the daemon to listening, median of 3

    CPU seconds are those of all threads. Word errors are counted where the list has texts and
    harkd[bench] is installed. Nothing is published.
    """  # noqa: D301 - click looks for the character, not for the two that r"" leaves
    modes = tuple(dict.fromkeys(modes)) or DEFAULT_MODES
    if plot and not set(modes) & set(DEFAULT_MODES):
        raise click.UsageError("--plot draws whole and live: name one of them.")
    if off and not set(modes) & {"live", "realtime"}:
        raise click.UsageError("--off is for live and realtime: name one of them.")
    settings = load(find_file(explicit, os.environ), os.environ)
    set_up("debug" if verbose else "warning", settings.log.format)
    settings = with_words(settings, model, threads)
    with interruptible():
        try:
            from harkd.bench_run import Bench, Wanted

            if plot:
                from harkd.bench_plot import require_plot

                require_plot(plot)
            wanted = Wanted(modes, speech, limit, against, off, repeat, explicit)
            report = measured(Bench(wanted, settings), quiet=verbose)
            tell(report, as_json=as_json, plot=plot)
        except Interrupted as interruption:
            leave_at_once(interruption.number)


def with_words(settings: Settings, model: str | None, threads: int | None) -> Settings:
    """Return the settings with the words of the command line over them."""
    recognizer = settings.recognizer
    if model is not None:
        recognizer = replace(recognizer, model=model)
    if threads is not None:
        recognizer = replace(recognizer, threads=threads)
    return replace(settings, recognizer=recognizer)


def measured(prepared: Bench, *, quiet: bool) -> Report:
    """Return the report; meanwhile, show progress."""
    with progress(0 if quiet else prepared.turns) as done:
        return prepared.run(done)


@contextmanager
def progress(turns: int) -> Iterator[Callable[[], None]]:
    """Show a bar if stderr is a terminal, and yield what moves it."""
    if not turns or not sys.stderr.isatty():
        yield lambda: None
        return
    with click.progressbar(length=turns, file=sys.stderr, show_pos=True) as bar:
        yield lambda: bar.update(1)


def tell(report: Report, *, as_json: bool, plot: Path | None) -> None:
    """Print the report, and draw it. Raises BenchError."""
    from harkd.bench_run import lines_of_report

    if plot:
        from harkd.bench_plot import draw

        draw(report.modes, str(report.machine), plot)
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        click.echo("\n".join(lines_of_report(report)))
