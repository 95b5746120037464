"""Where harkd is installed, and whether the service's user can load it from there.

In: this process's own environment. Out: `Surroundings` for the unit, or a ServiceError that says
what to change. Runs on the main thread.
"""

from __future__ import annotations

import grp
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import harkd
from harkd.errors import ServiceError
from harkd.service_files import HOMES, TEMPORARY, Surroundings, is_below, outermost
from harkd.service_steps import Runner

PULSE_GROUP = "pulse-access"
"""Whom a PulseAudio of the whole system lets in."""


def surroundings(run: Runner) -> Surroundings:
    """Return what the units depend on here. Raises ServiceError."""
    program = Path(sys.executable).parent / "harkd"
    if not program.is_file():
        raise ServiceError(
            f"harkd is not installed in {sys.prefix}, it only runs there",
            f"{sys.executable} -m pip install the folder that it came in, then ask again",
        )
    return Surroundings(
        program,
        folders=tuple(folders_of(program)),
        groups=tuple(groups_there(PULSE_GROUP)),
        systemd=systemd_version(run),
    )


def folders_of(program: Path) -> Iterator[Path]:
    """Yield the folders that harkd is loaded from: the environment, Python itself, and harkd."""
    yield program.parent.parent
    # pyenv's and uv's interpreters lie in a home, too.
    yield Path(sys.base_prefix)
    python = Path(sys.executable)
    while python.is_symlink():
        python = python.parent / python.readlink()
        yield python.parent.parent
    yield Path(harkd.__file__).resolve().parents[1]


def groups_there(*names: str) -> Iterator[str]:
    """Yield those groups that this machine has."""
    for name in names:
        try:
            grp.getgrnam(name)
        except KeyError:
            continue
        yield name


def systemd_version(run: Runner) -> int:
    """Return the version of systemd; 0 where it cannot be told."""
    try:
        match = re.match(r"systemd (\d+)", run(("systemctl", "--version")).said)
    except ServiceError:
        return 0
    return int(match[1]) if match else 0


def check_reach(around: Surroundings) -> None:
    """Raise ServiceError where the service's user could not load harkd."""
    for path in outermost(around.folders):
        if is_below(path, TEMPORARY):
            raise ServiceError(
                f"harkd is installed in {path}, which the service does not see, and which is "
                "emptied at times",
                "Install it in /opt/harkd instead: sudo python3 -m venv /opt/harkd, then "
                "sudo /opt/harkd/bin/pip install the folder that it came in",
            )
        # A folder in a home is bound by itself: those above it need not be open to all.
        closed = [each for each in reached_through(path) if not is_open(each)]
        if closed:
            raise ServiceError(
                f"the service's user may not enter {closed[0]}, in which harkd is installed",
                f"sudo chmod o+rx {closed[0]}",
            )


def reached_through(path: Path) -> Iterator[Path]:
    """Yield the folders that must be open to all for the service to reach a path."""
    if not is_below(path, HOMES):
        yield from reversed(path.parents)
    yield path


def is_open(folder: Path) -> bool:
    """Tell whether anybody may enter a folder; one that is not there keeps nobody out."""
    try:
        return bool(folder.stat().st_mode & stat.S_IXOTH)
    except OSError:
        return True
