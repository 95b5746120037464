"""``harkd devices`` and ``harkd doctor``: what there is, and what is wrong with it."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from harkd.cli_config import config_option
from harkd.errors import SettingsError
from harkd.settings import find_file, load

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
METER_WIDTH = 40
METER_FLOOR_DB = -80.0


@click.command(short_help="List microphones, or show how loud one is.")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--meter", is_flag=True, help="Show how loud a microphone is, until Ctrl-C.")
@click.option(
    "--device", default=None, help="The microphone for --meter; audio.device if left out."
)
@click.option("--input", "name", default="", help="Or that of one of the settings' inputs.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 86400),
    default=3600.0,
    help="How long --meter runs.",
    show_default=True,
)
def devices(
    explicit: Path | None,
    as_json: bool,
    meter: bool,
    device: str | None,
    name: str,
    seconds: float,
) -> None:
    """List microphones: what to write in audio.device, and the rates that really open."""
    from harkd.devices import list_devices

    if meter:
        settings = load(find_file(explicit, os.environ), os.environ)
        if name and name not in settings.inputs:
            known = ", ".join(settings.inputs) or "none"
            raise SettingsError(f'--input "{name}" is no input; there are: {known}')
        audio = settings.inputs[name] if name else settings.audio
        show_meter(replace(audio, device=device) if device else audio, seconds)
        return
    found = list_devices(probe=True)
    if as_json:
        click.echo(json.dumps({key: found[key] for key in ("devices", "sources")}, indent=2))
        return
    left_out = found.get("left_out", [])
    if not found["devices"] and not left_out:
        click.echo("No microphone found. `harkd doctor` looks at permissions and sound servers.")
    else:
        click.echo("Devices (a part of the name is enough for audio.device):")
    for each in found["devices"]:
        mark = "*" if each["default"] else " "
        click.echo(f" {mark} {each['index']:2}  {each['name']}  {formats(each)}")
    for each in left_out:
        click.echo(f"    -  {each['name']}  {each['reason']}")
    if found["sources"]:
        click.echo("PulseAudio or PipeWire sources (the whole name for audio.device):")
    for each in found["sources"]:
        mark = "*" if each["default"] else " "
        muted = "  muted" if each["muted"] else ""
        click.echo(f" {mark} {each['name']}  ({each['description']}, {each['rate_hz']} Hz){muted}")
    if found["devices"]:
        click.echo("* is the default. `harkd devices --meter --device NAME` shows the level.")


def formats(device: dict[str, Any]) -> str:
    """Say in what formats a device opens."""
    if not device["opens"]:
        return f"does not open: {device['reason']}"
    rates: dict[int, list[str]] = {}
    for each in device["opens"]:
        rates.setdefault(each["rate_hz"], []).append(str(each["channels"]))
    return ", ".join(f"{rate} Hz × {'/'.join(counts)}" for rate, counts in rates.items())


def show_meter(audio: Any, seconds: float) -> None:
    """Print a bar ten times a second."""
    from harkd.audio import SourceOpened
    from harkd.devices import listen

    live = sys.stdout.isatty()
    try:
        for event in listen(audio, seconds):
            if isinstance(event, SourceOpened):
                click.echo(f"{event.device} at {event.rate_hz} Hz × {event.channels}")
                continue
            share = max(0.0, 1 - event.rms_db / METER_FLOOR_DB)
            bar = "█" * round(share * METER_WIDTH)
            note = "all zero: muted?" if event.zero else f"peak {event.peak_db:6.1f} dB"
            line = f"{event.rms_db:7.1f} dB |{bar:<{METER_WIDTH}}| {note:<18}"
            click.echo(f"\r{line}" if live else line, nl=not live)
    except KeyboardInterrupt:
        pass
    if live:
        click.echo()


@click.command(short_help="Check everything that is needed, and say how to mend it.")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(explicit: Path | None, as_json: bool) -> None:
    """Check microphone, model, broker, clock, CPU and permissions; exit with 1 if one fails."""
    settings = load(find_file(explicit, os.environ), os.environ)
    from harkd.doctor import examine
    from harkd.doctor_check import Status
    from harkd.logs import set_up

    set_up("error", settings.log.format)
    found = []
    for check in examine(settings):
        found.append(check)
        if not as_json:
            status = click.style(f"{check.status:<5}", fg=COLOURS[check.status])
            click.echo(f"{status} {check.name:<11} {check.what}")
            if check.mend:
                click.echo(f"{'':17} → {check.mend}")
    if as_json:
        click.echo(json.dumps([asdict(check) for check in found], indent=2))
    if any(check.status == Status.FAIL for check in found):
        sys.exit(1)
