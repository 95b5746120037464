"""The files of the systemd service, as they are to lie on this machine. Pure.

In: the templates that come with harkd, and where it is installed. Out: texts. Each begins with a
line that tells its checksum, so that a file that an administrator has changed is known later.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from harkd import __version__
from harkd.errors import ServiceError

UNIT: Final = "harkd.service"
USER: Final = "harkd"
"""Whom the service of the system runs as."""
HOMES: Final = (Path("/home"), Path("/root"), Path("/run/user"))
"""What ``ProtectHome=`` hides: systemd.exec(5)."""
TEMPORARY: Final = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - what PrivateTmp= hides
GROWING_RESTARTS: Final = 254
"""The first systemd that knows ``RestartSteps=``; others warn of a key that they do not know."""

_SIGNATURE: Final = re.compile(
    r"# Installed by `harkd service install` \([^)\n]*\); sha256 ([0-9a-f]{64})\n"
)


class Origin(Enum):
    """Whose a file is that lies where one of ours belongs."""

    NONE = "none"
    OURS = "ours"
    CHANGED = "changed"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the unit of the system depends on."""

    program: Path
    """The command `harkd`."""
    folders: tuple[Path, ...] = ()
    """The folders that it is loaded from."""
    groups: tuple[str, ...] = ()
    """Groups besides `audio`, for a sound server of the system."""
    systemd: int = 0
    """The version of systemd; 0 where it is not known."""


def template(name: str) -> str:
    """Return a template: ``harkd.service``, ``user/harkd.service``, ``sysusers.conf`` ….

    Raises:
        ServiceError: It is neither in the package nor in the source tree.
    """
    here = Path(__file__).resolve().parent
    for path in (here / "systemd" / name, here.parents[1] / "systemd" / name):
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise ServiceError(f"{here / 'systemd' / name} is missing", "Install harkd again")


def system_unit(around: Surroundings) -> str:
    """Return the unit of the system, without signature."""
    unit = _with_program(template(UNIT), around.program)
    if around.systemd >= GROWING_RESTARTS:
        growing = "RestartSec=5\nRestartSteps=6\nRestartMaxDelaySec=60"
        unit = _with_line(unit, "RestartSec=", growing)
    if homes := outermost(path for path in around.folders if is_below(path, HOMES)):
        lines = ["# harkd lies in a home; of all homes, the service sees this alone."]
        lines += ["ProtectHome=tmpfs", *(f"BindReadOnlyPaths={_quoted(p)}" for p in homes)]
        unit = _with_line(unit, "ProtectHome=", "\n".join(lines))
    return unit


def user_unit(around: Surroundings) -> str:
    """Return the unit of a user's session, without signature."""
    unit = _with_program(template(f"user/{UNIT}"), around.program)
    if around.systemd >= GROWING_RESTARTS:
        growing = "RestartSec=5\nRestartSteps=6\nRestartMaxDelaySec=60"
        unit = _with_line(unit, "RestartSec=", growing)
    return unit


def sysusers(around: Surroundings) -> str:
    """Return the declaration of the service's user, without signature.

    A PulseAudio of the system looks for the user in its group, not for the group in the process.
    """
    return template("sysusers.conf") + "".join(f"m {USER} {group}\n" for group in around.groups)


def signed(text: str) -> str:
    """Return the text of a file to install: below a line by which it is known again."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"# Installed by `harkd service install` ({__version__}); sha256 {digest}\n{text}"


def origin_of(text: str) -> Origin:
    """Tell whose an installed file is."""
    match = _SIGNATURE.match(text)
    if not match:
        return Origin.FOREIGN
    digest = hashlib.sha256(text[match.end() :].encode()).hexdigest()
    return Origin.OURS if digest == match[1] else Origin.CHANGED


def is_below(path: Path, folders: Iterable[Path]) -> bool:
    """Tell whether a path is one of the folders, or in one."""
    return any(path.is_relative_to(folder) for folder in folders)


def outermost(paths: Iterable[Path]) -> list[Path]:
    """Return the paths that lie in none of the others, sorted."""
    found: list[Path] = []
    for path in sorted(set(paths)):
        if not is_below(path, found):
            found.append(path)
    return found


def _with_program(unit: str, program: Path) -> str:
    return _with_line(unit, "ExecStart=", f"ExecStart={_quoted(program)} run")


def _with_line(unit: str, key: str, new: str) -> str:
    """Return the unit with its one line of that key replaced."""
    pattern = re.compile(rf"^{re.escape(key)}.*$", re.MULTILINE)
    changed, count = pattern.subn(lambda _: new, unit)
    if count != 1:
        raise ServiceError(f"the unit's template has {count} lines {key}", "Install harkd again")
    return changed


def _quoted(path: Path) -> str:
    """Return a path as a word of a unit file: systemd.syntax(7), systemd.unit(5)."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"' if re.search(r"[\s\"'\\;]", text) else text
