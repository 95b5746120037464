"""`harkd run` as a process of its own, with what it logs and prints."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from servers import wait_until

STOP_TIMEOUT_S = 15.0


class Daemon:
    """Runs between `__enter__` and `__exit__`, which ends it by SIGTERM if it still runs."""

    def __init__(
        self,
        *arguments: str,
        env: Mapping[str, str],
        folder: Path,
        stdin: int | None = subprocess.DEVNULL,
    ) -> None:
        self._arguments = arguments
        # Settings of the person who runs the tests stay out.
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("HARKD_", "PULSE_"))}
        own = {
            "XDG_CONFIG_HOME": str(folder / "no-config"),
            "HARKD_STATE__DIR": str(folder / "state"),
            "HARKD_HTTP__PORT": "0",
        }
        self._env = {**clean, **own, **env}
        self._stdin = stdin
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "harkd", "run", *self._arguments],
            env=self._env,
            stdin=self._stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.wait()

    @property
    def lines(self) -> list[str]:
        """What it wrote on stderr so far."""
        return list(self._lines)

    @property
    def log(self) -> list[dict[str, Any]]:
        """Its log so far, one object a line."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Waits for its end and returns its exit code; kills it if it takes too long."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"it did not end within {timeout_s} s") from None
        finally:
            self._thread.join(5)
            if self.process.stdin:
                self.process.stdin.close()
            if self.process.stderr:
                self.process.stderr.close()
        return code

    def stop(self) -> int:
        """Ends it by SIGTERM and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait_for_log(self, part: str, timeout_s: float = 15.0, *, count: int = 1) -> None:
        """Returns when so many lines of its log hold `part`."""

        def there() -> bool:
            return sum(part in line for line in self.lines) >= count

        try:
            wait_until(there, part, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; its log:\n{''.join(self.lines)}") from None

    def _read(self) -> None:
        if self.process.stderr:
            for line in self.process.stderr:
                self._lines.append(line.decode())


def children(pid: int) -> list[int]:
    """Returns the ids of a process's living children."""
    path = Path(f"/proc/{pid}/task")
    found = []
    for task in path.iterdir():
        found += [int(word) for word in (task / "children").read_text().split()]
    return found
