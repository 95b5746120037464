"""``harkd phrases``: check templates, and try what a sentence means.

In: words of the command line, phrases files or the settings. Out: text on stdout; faults are raised
as `PhrasesError` for the top-level command to print. Runs on the main thread, and loads nothing
that listens or recognizes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import click

from harkd.cli_config import config_option
from harkd.errors import PhrasesError
from harkd.settings import find_file, load

if TYPE_CHECKING:
    from harkd.phrases.loading import PhraseSet
    from harkd.phrases.tables import Match

files_argument = click.argument(
    "files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE]..."
)


@click.group()
def phrases() -> None:
    """Check sentence templates, and try what a sentence means."""


@phrases.command(short_help="Report what is wrong, and show what can be said.")
@files_argument
@config_option
@click.option(
    "--samples",
    type=click.IntRange(0, 1000),
    default=2,
    show_default=True,
    help="Random sentences to show for each intent.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random sentences.")
def check(files: tuple[Path, ...], explicit: Path | None, samples: int, seed: int) -> None:
    """Report everything that is wrong with phrases files, or with the phrases of the settings.

    Without a fault, shows each intent with its templates, its sentences and some examples. Exits
    with 1 if there is a fault.
    """
    found = _loaded(files, explicit)
    graph = found.graph
    intents: dict[str, list[int]] = {}
    for number, phrase in enumerate(graph.phrases):
        intents.setdefault(phrase.intent, []).append(number)
    counts = graph.counts()
    random = Random(seed)  # noqa: S311
    for intent, numbers in intents.items():
        sentences = sum(counts[number][1] for number in numbers)
        click.echo(f"{intent}: {len(numbers)} templates, {sentences:,} sentences")
        possible = [graph.phrases[number] for number in numbers if counts[number][1]]
        for _ in range(samples if possible else 0):
            sample = graph.sample(random, random.choice(possible))
            meant = graph.best(sample.phrase.split()) or sample
            same = (meant.intent, meant.slots) == (sample.intent, sample.slots)
            other = "" if same else f"  (taken as {meant.intent}{_slots(meant)})"
            click.echo(f"    {sample.phrase}{_slots(sample)}{other}")
    for phrase, count in counts:
        if not count:
            words = "cannot be said: a list in it is empty, or free text"
            click.echo(f"note: {phrase.intent}: {phrase.template!r} {words}", err=True)
    nodes, arcs = graph.size()
    click.echo(
        f"{', '.join(map(str, found.files))}: no faults; {len(graph.phrases)} templates, "
        f"{graph.expansions():,} sentences, {nodes} nodes, {arcs} arcs, {found.compiled_s:.1f} s"
    )


@phrases.command(short_help="Print phrases for a house, to begin with.")
def example() -> None:
    """Print a phrases file for a plausible house, in English: a start for your own."""
    here = Path(__file__).resolve().parent
    name = "house.en.yaml"
    for path in (here / name, here.parents[1] / "config" / "phrases" / name):
        if path.is_file():
            click.echo(path.read_text(encoding="utf-8"), nl=False)
            return
    raise PhrasesError(f"{here / name} is missing", "Install harkd again")


@phrases.command(short_help="Show what a sentence means.")
@click.argument("text")
@files_argument
@config_option
def match(text: str, files: tuple[Path, ...], explicit: Path | None) -> None:
    """Show which intent TEXT stands for, and its slots, as JSON. Exits with 1 if none."""
    found = _loaded(files, explicit).graph.match(text)
    if found is None:
        click.echo(f"no phrase: {text}", err=True)
        sys.exit(1)
    shown = {
        "phrase": found.phrase,
        "intent": found.intent,
        "slots": found.slots,
        "template": found.template,
        **({"metadata": dict(found.metadata)} if found.metadata else {}),
    }
    click.echo(json.dumps(shown, ensure_ascii=False))


def _loaded(files: tuple[Path, ...], explicit: Path | None) -> PhraseSet:
    from harkd.phrases import loading

    if files and explicit:
        raise click.UsageError("Name phrases files, or settings with --config.")
    if files:
        found = loading.load_files(files)
    else:
        path = find_file(explicit, os.environ)
        found = loading.load(load(path, os.environ).phrases, path)
    if found is None:
        where = ", ".join(map(str, files)) or "the settings"
        raise PhrasesError(
            f"there are no phrases in {where}",
            'Write templates under "intents:", see docs/phrases.md, or name their file',
        )
    return found


def _slots(match: Match) -> str:
    return "".join(f"  {name}={value}" for name, value in match.slots.items())
