"""``harkd health``: is the daemon ready, or live; for people, containers and scripts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from harkd.cli_config import config_option
from harkd.errors import HarkdError
from harkd.settings import find_file, load

NOT_REACHED = 2


@click.command()
@config_option
@click.option("--live", is_flag=True, help="Whether it makes progress, microphone or not.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.1, 60),
    default=3.0,
    show_default=True,
    help="Seconds to wait for the daemon.",
)
def health(explicit: Path | None, live: bool, timeout_s: float) -> None:
    """Ask the running daemon whether it hears.

    Exits with 0 where it does, or is muted; with 1 where it does not, and says why; with 2 where
    no daemon can be asked.
    """
    from harkd.daemon_client import ask

    try:
        http = load(find_file(explicit, os.environ), os.environ).http
        ok, told = ask(http, "/healthz" if live else "/readyz", timeout_s)
    except HarkdError as error:
        click.echo(f"harkd: {error}", err=True)
        sys.exit(NOT_REACHED)
    word = "live" if live else "ready"
    if ok:
        click.echo(word)
        return
    for check in told.get("checks", []):
        if not check.get("ok"):
            device = f" ({check['device_id']})" if check.get("device_id") else ""
            click.echo(f"not {word}: {check.get('name')}{device}: {check.get('reason')}")
    sys.exit(1)
