"""How long the daemon takes from its start to listening, and what memory it has then.

Starts ``harkd run`` in a process of its own, with a silent file in the microphone's place, and with
a broker's address at which nobody answers: nothing is published. Waits on the calling thread.
"""

from __future__ import annotations

import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from harkd.audio import RATE_HZ
from harkd.bench_machine import memory_mb
from harkd.bench_measure import BenchError
from harkd.bench_realtime import write_wav

PROGRAM = (sys.executable, "-m", "harkd")
TIMES = 3
SILENCE_S = 60
TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0
NOBODY = {"HARKD_MQTT__HOST": "127.0.0.1", "HARKD_MQTT__PORT": "9"}
"""The discard service's port: privileged, so that no user's broker is there."""


@dataclass(frozen=True, slots=True)
class StartFigures:
    """The start of one subject."""

    name: str
    """The subject."""
    times: int
    """So often it was started, besides once to have its files in memory."""
    start_s: float
    """Seconds from exec to listening; the median."""
    most_s: float
    """The longest."""
    rss_mb: float | None
    """Resident memory of the daemon when it listens, in MB; the median."""


def measure_start(
    name: str,
    words: Sequence[str],
    environ: Mapping[str, str],
    *,
    times: int = TIMES,
    program: Sequence[str] = PROGRAM,
) -> StartFigures:
    """Start the daemon some times.

    Args:
        name: For the report.
        words: More words for ``harkd run``.
        environ: More variables of the environment.
        times: How often, besides the first time, which does not count.
        program: What is started.

    Raises:
        BenchError: It does not come to listen.
    """
    with tempfile.TemporaryDirectory(prefix="harkd-bench-") as folder:
        path = Path(folder) / "silence.wav"
        write_wav(path, np.zeros(SILENCE_S * RATE_HZ, np.int16))
        command = [*program, "run", *words, "--source", f"wav:{path}", "--print"]
        log = Path(folder) / "log"
        own = {**environ, **NOBODY, "HARKD_STATE__DIR": folder, "HARKD_HTTP__PORT": "0"}
        found = [one_start(command, own, log) for _ in range(times + 1)][1:]
    seconds = [each[0] for each in found]
    resident = [each[1] for each in found if each[1] is not None]
    return StartFigures(
        name=name,
        times=times,
        start_s=round(statistics.median(seconds), 3),
        most_s=round(max(seconds), 3),
        rss_mb=statistics.median(resident) if resident else None,
    )


def one_start(
    command: Sequence[str], environ: Mapping[str, str], log: Path
) -> tuple[float, float | None]:
    """Return seconds to listening, and the memory then, in MB. Raises BenchError."""
    with log.open("wb") as stderr:
        begin_s = time.monotonic()
        process = subprocess.Popen(
            command,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        try:
            if process.stdout and wait_for_listening(process.stdout, begin_s + TIMEOUT_S):
                return time.monotonic() - begin_s, memory_mb(process.pid).get("rss_mb")
        finally:
            end(process)
    words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise BenchError(
        "the daemon did not come to listen" + (f"; its last words: {words[-1]}" if words else ""),
        "`harkd run` alone shows more",
    )


def wait_for_listening(stdout: IO[bytes], deadline_s: float) -> bool:
    """Read events until the daemon listens; False if it ends, or has not by the deadline."""
    pending = b""
    while (left_s := deadline_s - time.monotonic()) > 0:
        if not select.select([stdout], [], [], left_s)[0]:
            return False
        if not (data := os.read(stdout.fileno(), 65536)):
            return False
        *lines, pending = (pending + data).split(b"\n")
        if any(is_listening(line) for line in lines):
            return True
    return False


def is_listening(line: bytes) -> bool:
    """Tell whether a line of ``--print`` says that audio comes in."""
    try:
        event = json.loads(line)
    except ValueError:
        return False
    return (event.get("topic"), event.get("state")) == ("state", "listening")


def end(process: subprocess.Popen[bytes]) -> None:
    """End it, whatever it does."""
    if process.stdout:
        process.stdout.close()
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def start_rows(found: Sequence[StartFigures]) -> list[list[str]]:
    """Return a table with a column for each subject."""
    return [
        ["", *(each.name for each in found)],
        [
            "exec → listening, s, median / most",
            *(f"{each.start_s:.2f} / {each.most_s:.2f}" for each in found),
        ],
        [
            "resident memory then, MB",
            *(f"{each.rss_mb:.0f}" if each.rss_mb else "–" for each in found),
        ],
    ]
