"""``harkd config``: check the settings, show what is in effect, print the reference.

In: words of the command line and the environment. Out: text on stdout; faults are raised as
`SettingsError` for the top-level command to print. Runs on the main thread, and loads nothing that
listens or recognizes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import yaml

from harkd.errors import HarkdError
from harkd.memory_check import require_memory
from harkd.model_store import find_model
from harkd.mqtt_tls import check_files
from harkd.settings import (
    Settings,
    describe,
    example_text,
    find_file,
    load,
    load_traced,
    models_dir,
)
from harkd.settings_file import INPUTS

if TYPE_CHECKING:
    from harkd.settings_file import Entry, Keys

COMMENT_COLUMN: Final = 36
"""Where `show` writes the origin of a value."""

config_option = click.option(
    "--config",
    "explicit",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings file, instead of the usual places.",
)


@click.group("config")
def config() -> None:
    """Check, show and explain the settings."""


@config.command(short_help="Report everything that is wrong.")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@config_option
def check(file: Path | None, explicit: Path | None) -> None:
    """Report everything that is wrong with the settings, in FILE or in the usual places.

    HARKD_… variables of the environment are checked too. Exits with 1 if there is a fault.
    """
    from harkd.phrases import loading

    if file and explicit:
        raise click.UsageError("Name the file once: as FILE or with --config.")
    path = find_file(file or explicit, os.environ)
    settings = load(path, os.environ)
    loading.load(settings.phrases, path)
    click.echo(f"{path}: no faults" if path else "no settings file: the defaults apply, no faults")
    # These depend on who runs harkd and where, so they are no faults of the file.
    looks: tuple[Callable[[], None], ...] = (
        lambda: check_files(settings.mqtt),
        lambda: require_memory(find_model(settings).manifest, settings),
    )
    for look in looks:
        try:
            look()
        except HarkdError as error:
            for line in str(error).splitlines():
                click.echo(f"But here and now: {line}", err=True)


@config.command(short_help="Print the settings in effect.")
@config_option
def show(explicit: Path | None) -> None:
    """Print the settings in effect, and where each comes from. Secrets are masked."""
    path = find_file(explicit, os.environ)
    settings, origins = load_traced(path, os.environ)
    click.echo(f"# {path or 'no settings file: the defaults apply'}")
    for line in shown_lines(settings, origins, os.environ):
        click.echo(line)


@config.command(short_help="Print the reference of all options.")
def example() -> None:
    """Print the reference: a settings file with every option, its default and its range."""
    click.echo(example_text(), nl=False)


def shown_lines(
    settings: Settings, origins: Mapping[Keys, Entry], environ: Mapping[str, str]
) -> list[str]:
    """Returns the settings as lines of YAML, each value with its origin as a comment."""
    in_effect = {
        ("device_id",): "the name of each input"
        if settings.inputs
        else settings.effective_device_id,
        ("models", "dir"): str(models_dir(settings.models, environ)),
        ("mqtt", "host"): "the embedded broker",
        ("mqtt", "client_id"): settings.effective_client_id,
    }

    def shown(keys: Keys, value: object) -> str:
        # An endless width keeps a value on its line, and the comment with it.
        text = yaml.safe_dump({keys[-1]: value}, allow_unicode=True, width=float("inf")).strip()
        entry = origins.get(keys)
        if entry is None and keys[0] == INPUTS and len(keys) > 2:
            entry = origins.get(("audio", keys[2]))
        origin = _origin(entry)
        if value == "" and keys in in_effect:
            origin += f"; in effect: {in_effect[keys]}"
        return f"{'  ' * (len(keys) - 1) + text:<{COMMENT_COLUMN}}  # {origin}"

    def block(above: Keys, section: Mapping[str, Any]) -> Iterator[str]:
        for name, value in section.items():
            keys = (*above, name)
            if isinstance(value, dict) and value:
                yield f"{'  ' * len(above)}{name}:"
                yield from block(keys, value)
            else:
                yield shown(keys, value)

    return list(block((), describe(settings)))


def _origin(entry: Entry | None) -> str:
    if entry is None:
        return "default"
    return f"line {entry.place.line}" if entry.place.line else entry.name
