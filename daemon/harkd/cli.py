"""The command line: parses words, calls `harkd.app` and its like, prints errors for people.

Nothing heavy is imported before a command needs it, so ``harkd --help`` is quick.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import click

from harkd import __version__, entry
from harkd.cli_bench import bench
from harkd.cli_config import config, config_option
from harkd.cli_doctor import devices, doctor
from harkd.cli_health import health
from harkd.cli_models import models
from harkd.cli_phrases import phrases
from harkd.cli_service import service
from harkd.cli_status import status
from harkd.cli_transcribe import transcribe
from harkd.logs import set_up
from harkd.settings import Settings, find_file, load
from harkd.stopper import Stopper

verbose_option = click.option("-v", "--verbose", is_flag=True, help="Log at debug level.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="harkd")
def cli() -> None:
    """A private ear for the house: microphone in, speech recognition here, text out over MQTT."""


cli.add_command(bench)
cli.add_command(config)
cli.add_command(devices)
cli.add_command(doctor)
cli.add_command(health)
cli.add_command(models)
cli.add_command(phrases)
cli.add_command(service)
cli.add_command(status)
cli.add_command(transcribe)


def read_settings(path: Path | None, *, verbose: bool) -> Settings:
    """Read the settings; with `verbose`, the log's level is debug. Raises SettingsError."""
    settings = load(path, os.environ)
    return replace(settings, log=replace(settings.log, level="debug")) if verbose else settings


@cli.command(short_help="Listen, recognize, publish, until it is stopped.")
@config_option
@click.option(
    "--source",
    default="",
    metavar="SOURCE",
    help="In the microphone's place: wav:PATH (any sound file, in real time), or - for raw 16-bit "
    "PCM on stdin.",
)
@click.option(
    "--rate",
    type=click.IntRange(8000, 192000),
    default=16000,
    show_default=True,
    help="Rate of raw PCM in Hz.",
)
@click.option(
    "--channels",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Channels of raw PCM.",
)
@click.option(
    "--input", "only", default="", metavar="NAME", help="Only this one of the settings' inputs."
)
@click.option("--print", "print_events", is_flag=True, help="Write events to stdout as JSON, too.")
@verbose_option
def run(
    explicit: Path | None,
    source: str,
    rate: int,
    channels: int,
    only: str,
    print_events: bool,
    verbose: bool,
) -> None:
    """Listen, recognize, publish; until SIGTERM or Ctrl-C, or the end of SOURCE."""
    with Stopper() as stopper:
        path = find_file(explicit, os.environ)
        settings = read_settings(path, verbose=verbose)
        set_up(settings.log.level, settings.log.format, device_id=settings.effective_device_id)
        from harkd import app

        def reread() -> Settings:
            """Read the same file; or look for one again, where there was none."""
            return read_settings(path or find_file(None, os.environ), verbose=verbose)

        options = app.RunOptions(source, rate, channels, print_events, only, path)
        code = app.run(settings, options, stopper, reread)
    sys.exit(code)


def main() -> None:
    """Entry point."""
    entry.run(cli, "harkd")
