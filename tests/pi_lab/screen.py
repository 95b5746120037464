"""The transcript: what is typed on the machine, what it answers, and how long that takes.

In: commands. Out: text on stdout, as it is to be kept in docs/pi.md. Runs on the thread that asks;
a `Terminal` reads on one of its own.
"""

import subprocess
import threading
import time
from pathlib import Path

from pi_lab.machine import TERMINAL, CheckError, Machine, wait_for

PROMPT = "pi@raspberrypi:~/harkd $ "


def tell(text: str) -> None:
    """Print a line of the transcript."""
    print(text, flush=True)


def remark(text: str) -> None:
    """Print what happens outside the machine."""
    tell(f"\n# {text}")


class Terminal:
    """A command on a terminal of the machine, which goes on until Ctrl-C."""

    def __init__(self, machine: Machine, command: str) -> None:
        tell(f"\n{PROMPT}{command}")
        self._process = subprocess.Popen(
            # Without a terminal here, ssh makes one there that knows no Ctrl-C.
            [*machine.ssh("-tt"), f"stty sane -echo && cd harkd && {command}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            # A progress bar overwrites itself: what stays of it is its end.
            ends = line.decode(errors="replace").rstrip().rsplit("\r", 1)
            text = TERMINAL.sub("", ends[-1])
            self.lines.append(text)
            tell(text)

    def wait_for(self, part: str, most_s: float) -> str:
        """Return the first line that holds `part`. Raises CheckError."""

        def look() -> str:
            found = [line for line in list(self.lines) if part in line]
            if not found and self._process.poll() is not None:
                raise CheckError(f"the command has ended without {part!r}")
            return found[0] if found else ""

        return wait_for(repr(part), most_s, look)

    def interrupt(self) -> None:
        """Type Ctrl-C, and wait for the end."""
        if self._process.stdin and self._process.poll() is None:
            self._process.stdin.write(b"\x03")
            self._process.stdin.flush()
        try:
            self._process.wait(120)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise CheckError("Ctrl-C does not end it") from None
        self._reader.join(5)


class Screen:
    """What somebody types in the folder of the clone."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def type(self, command: str, codes: tuple[int, ...] = (0,), most_s: float = 600) -> str:
        """Run a command, show it, and return what it said. Raises CheckError for other `codes`."""
        began = time.monotonic()
        code, said = self.machine.try_run(f"cd harkd && {command}", most_s)
        tell(f"\n{PROMPT}{command}\n{said}\n# {time.monotonic() - began:.0f} s")
        if code not in codes:
            raise CheckError(f"{command}: exit code {code}")
        return said

    def write(self, path: str, text: str) -> None:
        """Write a file as root, and show it."""
        tell(f"\n{PROMPT}sudo nano {path}\n{text.rstrip()}")
        self.machine.write(path, text)


def sentence(machine: Machine, folder: Path) -> Path:
    """Return the first sentence of the recording that comes with the model."""
    whole, cut = folder / "commands.wav", folder / "sentence.wav"
    fetch = 'cat "$(harkd/.venv/bin/harkd models path)"/samples/commands.wav'
    with whole.open("wb") as file:
        subprocess.run([*machine.ssh(), fetch], stdout=file, check=True, timeout=120)
    subprocess.run(["sox", whole, cut, "trim", "0.4", "3.9", "pad", "0.3", "1.5"], check=True)
    return cut
