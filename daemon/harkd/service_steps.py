"""What `harkd service` does to a machine, step by step: pure plans, and the edge that obeys them.

In: texts of files, and whether it is for the system or one user. Out: files in systemd's folders
and commands of systemd. A plan can be printed in the place of being done. Runs on the main thread.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harkd.errors import ServiceError
from harkd.service_files import UNIT, USER, Origin, origin_of
from harkd.whole_file import write_whole

COMMAND_S: Final = 240
"""How long one command may take; the start of the service is the longest, TimeoutStartSec=."""
BOOTED: Final = Path("/run/systemd/system")
"""Is there where systemd runs the machine: sd_booted(3)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the service is to be installed."""

    user: bool = False
    """In the session of the user who asks, instead of the system."""
    root: Path = Path("/")
    """The root of the system; another one is an image that does not run."""
    home_config: Path = Path("~/.config")
    """The user's folder of settings, for `user`."""

    @property
    def runs(self) -> bool:
        """Whether it is the running system."""
        return self.root == Path("/")

    @property
    def unit(self) -> Path:
        """Where the unit lies."""
        if self.user:
            return self.home_config / "systemd" / "user" / UNIT
        return self.root / "etc/systemd/system" / UNIT

    @property
    def drop_ins(self) -> Path:
        """Where changes of the unit lie."""
        return self.unit.with_name(UNIT + ".d")

    @property
    def sysusers(self) -> Path:
        """Where the service's user is declared."""
        return self.root / "etc/sysusers.d/harkd.conf"

    @property
    def tmpfiles(self) -> Path:
        """Where its folders are declared."""
        return self.root / "etc/tmpfiles.d/harkd.conf"

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that an installation has."""
        return (self.unit,) if self.user else (self.unit, self.sysusers, self.tmpfiles)

    def systemctl(self, *words: str) -> tuple[str, ...]:
        """Return a command of systemctl for this place."""
        if self.user:
            return ("systemctl", "--user", *words)
        return ("systemctl", *words) if self.runs else ("systemctl", f"--root={self.root}", *words)


@dataclass(frozen=True, slots=True)
class WriteFile:
    """A file is written, whole or not at all."""

    path: Path
    text: str

    def __str__(self) -> str:
        return f"write {self.path}"


@dataclass(frozen=True, slots=True)
class RemovePath:
    """A file is removed, or a folder with all that is in it."""

    path: Path

    def __str__(self) -> str:
        return f"remove {self.path}"


@dataclass(frozen=True, slots=True)
class RunCommand:
    """A program runs and has to succeed."""

    words: tuple[str, ...]
    may_fail: bool = False
    """Whether it is no matter if it does not."""

    def __str__(self) -> str:
        return f"run {shlex.join(self.words)}"


Step = WriteFile | RemovePath | RunCommand


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended."""

    code: int
    said: str
    """stdout, and stderr where it failed."""


Runner = Callable[[Sequence[str]], Result]


def run_program(words: Sequence[str]) -> Result:
    """Run a program. Raises ServiceError where it is missing or takes too long."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=COMMAND_S, check=False
        )
    except FileNotFoundError as error:
        raise ServiceError(
            f"{words[0]} is not installed", "This needs systemd: sudo apt install systemd"
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError(f"{shlex.join(words)}: {error}") from error
    said = done.stdout if done.returncode == 0 else done.stdout + done.stderr
    return Result(done.returncode, said.strip())


def install_plan(place: Place, texts: dict[Path, str], *, start: bool) -> list[Step]:
    """Return what installs the service; `start` also starts it, or starts it anew."""
    plan: list[Step] = [WriteFile(path, text) for path, text in texts.items()]
    if not place.user:
        root = () if place.runs else (f"--root={place.root}",)
        plan.append(RunCommand(("systemd-sysusers", *root, str(place.sysusers))))
        plan.append(RunCommand(("systemd-tmpfiles", "--create", *root, str(place.tmpfiles))))
    if place.runs:
        plan.append(RunCommand(place.systemctl("daemon-reload")))
    plan.append(RunCommand(place.systemctl("enable", UNIT)))
    if start and place.runs:
        plan.append(RunCommand(place.systemctl("restart", UNIT)))
    return plan


def uninstall_plan(place: Place, present: Sequence[Path], *, purge: bool) -> list[Step]:
    """Return what takes the service away; `present` are its files that are there."""
    plan: list[Step] = []
    if place.unit in present:
        now = ("--now",) if place.runs else ()
        plan.append(RunCommand(place.systemctl("disable", *now, UNIT)))
    plan += [RemovePath(path) for path in present]
    if place.runs:
        plan.append(RunCommand(place.systemctl("daemon-reload")))
        plan.append(RunCommand(place.systemctl("reset-failed", UNIT), may_fail=True))
    if purge:
        plan += [RemovePath(place.root / "var/lib/harkd"), RemovePath(place.root / "etc/harkd")]
        root = () if place.runs else ("--root", str(place.root))
        plan.append(RunCommand(("userdel", *root, USER), may_fail=True))
    return plan


def origins(place: Place) -> dict[Path, Origin]:
    """Tell for each file of an installation whose it is. Raises ServiceError."""
    found = {}
    for path in place.files:
        try:
            found[path] = origin_of(path.read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            found[path] = Origin.NONE
        except OSError as error:
            raise ServiceError(f"{path} cannot be read: {error.strerror}") from error
    return found


def require_systemd(place: Place) -> None:
    """Raise ServiceError where systemd does not run this machine."""
    if place.runs and not BOOTED.is_dir():
        raise ServiceError(
            "systemd does not run this machine (a container, or another init)",
            "Let whatever starts programs here run `harkd run`; --dry-run prints the unit",
        )


def do(plan: Sequence[Step], run: Runner, tell: Callable[[str], None]) -> None:
    """Do a plan's steps in order, and stop at the first that fails. Raises ServiceError."""
    for step in plan:
        tell(str(step))
        if isinstance(step, WriteFile):
            _write(step)
        elif isinstance(step, RemovePath):
            _remove(step.path)
        else:
            result = run(step.words)
            if result.code and not step.may_fail:
                said = f": {result.said}" if result.said else ""
                raise ServiceError(f"{shlex.join(step.words)} failed ({result.code}){said}")


def _write(step: WriteFile) -> None:
    try:
        step.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(step.path, step.text.encode())
        step.path.chmod(0o644)
    except OSError as error:
        raise ServiceError(f"{step.path} cannot be written: {error.strerror}") from error


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise ServiceError(f"{path} cannot be removed: {error.strerror}") from error
