"""A Debian that systemd-nspawn boots, without network, and commands inside it.

In: a folder with its root, `booted`. Out: what the commands print. Runs on the thread that asks.
"""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

NSPAWN = (
    "systemd-nspawn",
    "--quiet",
    "--boot",
    "--register=no",
    "--keep-unit",
    "--console=pipe",
    "--private-network",
)


class CheckError(Exception):
    """Something is not as it has to be."""


class Container:
    """A booted root, without network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.boot()

    def boot(self) -> None:
        """Start it, and wait until systemd runs as its first process."""
        self._console = (self.folder / "console.log").open("ab")
        self._process = subprocess.Popen(
            [*NSPAWN, f"--directory={self.folder / 'booted'}"],
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=subprocess.STDOUT,
        )
        self.leader = int(wait_for("systemd as PID 1", 60, self._leader))

    def _leader(self) -> str:
        if self._process.poll() is not None:
            raise CheckError(f"systemd-nspawn ended; see {self.folder / 'console.log'}")
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for pid in path.read_text().split():
            if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                return pid
        return ""

    def command(self, *words: str) -> list[str]:
        """Return a command that runs inside."""
        clean = ["env", "-i", "HOME=/root", "LANG=C.UTF-8", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        return ["nsenter", f"--target={self.leader}", "--all", "--", *clean, *words]

    def run(self, *words: str, code: int | None = 0, stdin: str = "") -> str:
        """Run a program inside and return what it said."""
        done = subprocess.run(
            self.command(*words), input=stdin, capture_output=True, text=True, timeout=200
        )
        if code is not None and done.returncode != code:
            raise CheckError(f"{' '.join(words)}: {done.returncode}: {done.stdout}{done.stderr}")
        return (done.stdout + done.stderr).strip()

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """Write a file inside."""
        self.run("install", "-D", f"--mode={mode}", "/dev/stdin", path, stdin=text)

    def show(self, name: str) -> str:
        """Return a property of harkd's unit."""
        return self.run("systemctl", "show", "harkd", f"--property={name}", "--value")

    def booted(self) -> str:
        """Wait until all that is enabled has started; return systemd's word for it."""

        def look() -> str:
            said = self.run("systemctl", "is-system-running", code=None)
            return said if said in ("running", "degraded") else ""

        return wait_for("booted system", 120, look)

    def end(self) -> None:
        """Power it off."""
        self.run("systemctl", "poweroff", code=None)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            subprocess.run(["kill", "-9", str(self.leader)], check=False)
            self._process.kill()
            self._process.wait()
        self._console.close()


def wait_for(what: str, most_s: float, look: Callable[[], str]) -> str:
    """Return what `look` finds, as soon as it is not empty."""
    end = time.monotonic() + most_s
    while not (found := look()):
        if time.monotonic() > end:
            raise CheckError(f"no {what} within {most_s:g} s")
        time.sleep(0.1)
    return found
