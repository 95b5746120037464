"""``harkd service``: harkd as a service of systemd, for the system or for one user.

In: words of the command line. Out: lines on stdout, and a HarkdError for the top of the command
line to print. Runs on the main thread.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import platformdirs

from harkd.errors import ServiceError
from harkd.service_files import (
    UNIT,
    Origin,
    Surroundings,
    signed,
    system_unit,
    sysusers,
    template,
    user_unit,
)
from harkd.service_steps import (
    Place,
    Runner,
    Step,
    WriteFile,
    do,
    install_plan,
    origins,
    require_systemd,
    run_program,
    uninstall_plan,
)

if TYPE_CHECKING:
    from harkd.service_needs import Lack, Machine

JOURNAL_LINES = 10

user_option = click.option("--user", is_flag=True, help="In your own session, without root.")
dry_option = click.option(
    "--dry-run", is_flag=True, help="Print every file and command, and change nothing."
)
root_option = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True, resolve_path=True),
    default=Path("/"),
    hidden=True,
    help="The root of an image, instead of the running system.",
)


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, and what the commands act on; another one in tests."""

    run: Runner = run_program
    """Runs systemd's programs."""
    is_root: bool = True
    machine: Machine | None = None
    """None for this one."""
    around: Surroundings | None = None
    """None for where harkd is installed."""


@click.group("service")
@click.pass_context
def service(ctx: click.Context) -> None:
    """Run harkd as a service of systemd: install, uninstall, status."""
    if ctx.obj is None:
        ctx.obj = Asker(is_root=os.geteuid() == 0)


@service.command()
@user_option
@click.option("--now", is_flag=True, help="Start it, too; start it anew where it runs.")
@click.option("--pull", is_flag=True, help="Fetch the model for it, where it is missing.")
@click.option("--force", is_flag=True, help="Overwrite files that somebody has changed.")
@dry_option
@root_option
@click.pass_obj
def install(
    asker: Asker, user: bool, now: bool, pull: bool, force: bool, dry_run: bool, root: Path
) -> None:
    """Put the service's files in place, and let it start at boot (with --user: at login)."""
    from harkd.service_home import check_reach, surroundings

    place = place_of(user, root)
    around = asker.around or surroundings(asker.run)
    if not user:
        check_reach(around)
    texts = {place.unit: signed(user_unit(around) if user else system_unit(around))}
    if not user:
        texts[place.sysusers] = signed(sysusers(around))
        texts[place.tmpfiles] = signed(template("tmpfiles.conf"))
    if dry_run:
        show(install_plan(place, texts, start=now))
    else:
        may_change(asker, place)
        refuse_changed(place, force=force)
        # Started only when it is known to have all that it needs.
        do(install_plan(place, texts, start=False), asker.run, click.echo)
    if place.user:
        tell_user(asker, place, now=now and not dry_run)
    elif place.runs:
        finish(asker, place, around, now=now, pull=pull, dry_run=dry_run)


@service.command()
@user_option
@click.option("--purge", is_flag=True, help="Also delete its settings, state, models and user.")
@click.option("--yes", is_flag=True, help="Do not ask before --purge.")
@click.option("--force", is_flag=True, help="Remove files that somebody has changed, too.")
@dry_option
@root_option
@click.pass_obj
def uninstall(
    asker: Asker, user: bool, purge: bool, yes: bool, force: bool, dry_run: bool, root: Path
) -> None:
    """Stop the service, and remove exactly what `install` has put there."""
    if user and purge:
        raise click.UsageError("--purge is for the service of the system; yours shares its files.")
    place = place_of(user, root)
    if not dry_run:
        may_change(asker, place)
    found = {path: it for path, it in origins(place).items() if it is not Origin.NONE}
    present = [path for path, it in found.items() if force or it is Origin.OURS]
    plan = uninstall_plan(place, present, purge=purge)
    if dry_run:
        show(plan)
    elif not present and not purge:
        click.echo("nothing to remove: no file that harkd has installed is there")
    else:
        if purge and not yes:
            click.confirm("Delete /etc/harkd and /var/lib/harkd, with all models?", abort=True)
        do(plan, asker.run, click.echo)
    tell_kept(place, [path for path in found if path not in present], purge=purge)


@service.command()
@user_option
@click.option("-n", "--lines", default=JOURNAL_LINES, help="How many lines of the journal.")
@click.pass_context
def status(ctx: click.Context, user: bool, lines: int) -> None:
    """Tell how the service fares; exits with 3 where it does not run."""
    from harkd.service_status import PROPERTIES, parse_show, report

    asker: Asker = ctx.obj
    place = place_of(user, Path("/"))
    require_systemd(place)
    result = asker.run(place.systemctl("show", UNIT, f"--property={','.join(PROPERTIES)}"))
    if result.code:
        raise ServiceError(f"systemd does not answer: {result.said}")
    told = report(parse_show(result.said), shlex.join(again("install", user=user)))
    for line in told.lines:
        click.echo(line)
    unit = "--user-unit" if user else "--unit"
    journal = asker.run(
        ("journalctl", f"{unit}={UNIT}", f"--lines={lines}", "--no-pager", "--output=short")
    )
    if journal.said:
        click.echo("\n" + journal.said)
    if told.mends:
        click.echo()
    for mend in told.mends:
        click.echo(f"→ {mend}")
    if not told.active:
        ctx.exit(3)


def place_of(user: bool, root: Path) -> Place:
    """Return where the service belongs."""
    if user and root != Path("/"):
        raise click.UsageError("--root is for the service of the system.")
    return Place(user, root, platformdirs.user_config_path())


def again(*words: str, user: bool = False) -> list[str]:
    """Return the command that does it, as the asker would type it."""
    program = Path(sys.argv[0])
    name = str(program.absolute()) if program.name == "harkd" else "harkd"
    return [*([] if user else ["sudo"]), name, "service", *words, *(["--user"] if user else [])]


def may_change(asker: Asker, place: Place) -> None:
    """Raise ServiceError where this must or can not be done by who asks."""
    if place.user and asker.is_root:
        raise ServiceError(
            "--user is for the session of one user, and this is root",
            "Leave out sudo; or leave out --user for the service of the system",
        )
    if not place.user and not asker.is_root and place.runs:
        words = sys.argv[sys.argv.index("service") + 1 :] if "service" in sys.argv else ["install"]
        raise ServiceError("the service of the system needs root", shlex.join(again(*words)))
    require_systemd(place)


def refuse_changed(place: Place, *, force: bool) -> None:
    """Raise ServiceError where a file is not as harkd has put it there."""
    changed = [
        path for path, it in origins(place).items() if it in (Origin.CHANGED, Origin.FOREIGN)
    ]
    if changed and not force:
        raise ServiceError(
            f"{', '.join(map(str, changed))}: not as harkd has installed it",
            "Move your changes to a drop-in (systemctl edit harkd.service), or overwrite them "
            "with --force",
        )


def show(plan: Sequence[Step]) -> None:
    """Print what would be done."""
    for step in plan:
        click.echo(f"would {step}")
        if isinstance(step, WriteFile):
            click.echo("".join(f"    {line}\n" for line in step.text.splitlines()), nl=False)


def tell_kept(place: Place, changed: Sequence[Path], *, purge: bool) -> None:
    """Say what is still there of the service."""
    for path in changed:
        click.echo(f"left as it is, since somebody has changed it: {path} (--force removes it)")
    if place.drop_ins.is_dir():
        click.echo(f"left as it is: {place.drop_ins}, which is yours")
    if not purge and not place.user:
        click.echo("left as they are: /etc/harkd and /var/lib/harkd (--purge deletes them)")


def finish(
    asker: Asker, place: Place, around: Surroundings, *, now: bool, pull: bool, dry_run: bool
) -> None:
    """Say what the service will miss, and start it where it can."""
    from harkd.service_needs import lacks, this_machine

    machine = asker.machine or this_machine(os.environ)
    if pull and not dry_run:
        pull_model(machine)
    found = list(lacks(machine, around.program))
    for lack in found:
        tell_lack(lack)
    if dry_run:
        return
    start = f"sudo systemctl restart {UNIT}"
    if any(lack.fatal for lack in found):
        click.echo(f"harkd is installed, and not started: it would fail. Then: {start}")
        if now:
            sys.exit(1)
    elif now:
        do(install_plan(place, {}, start=True)[-1:], asker.run, click.echo)
        click.echo("harkd runs. Its log: journalctl -u harkd -f")
    else:
        click.echo(f"harkd will start at boot. To start it now: {start}")


def tell_lack(lack: Lack) -> None:
    """Print what is missing, and its mend."""
    click.echo(f"{'missing' if lack.fatal else 'note'}: {lack.what}")
    click.echo(f"    → {lack.mend}")


def pull_model(machine: Machine) -> None:
    """Fetch the service's model. Raises HarkdError."""
    from harkd.cli_models import progress_shown
    from harkd.interruption import terminable
    from harkd.service_needs import service_models, service_settings

    settings = service_settings(machine)
    name = settings.recognizer.model
    with terminable(), progress_shown() as progress:
        found = service_models(settings, machine).pull(name, progress=progress)
    click.echo(f"the model {name} is in {found.dir}")


def tell_user(asker: Asker, place: Place, *, now: bool) -> None:
    """Start it in the user's session, and say until when it will run."""
    if now:
        do(install_plan(place, {}, start=True)[-1:], asker.run, click.echo)
    click.echo("It runs while you are logged in; to run it from boot on: loginctl enable-linger")
    click.echo("Its log: journalctl --user -u harkd -f")
