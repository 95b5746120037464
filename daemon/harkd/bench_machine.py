"""What a measurement was taken on: processor, versions, load. Reads files only; any thread."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harkd import __version__

RUNTIMES = ("onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and with what was measured."""

    processor: str
    """Its name, as the system has it."""
    cores: int
    """Those that this process may use."""
    system: str
    """Kernel and architecture."""
    python: str
    """Version."""
    onnxruntime: str
    """Version."""
    harkd: str
    """Version."""
    load: float
    """Processes that wanted a core in the minute before, on average."""

    def __str__(self) -> str:
        many = "core" if self.cores == 1 else "cores"
        return (
            f"{self.processor}, {self.cores} {many}, {self.system}; harkd {self.harkd}, Python "
            f"{self.python}, onnxruntime {self.onnxruntime}; load before: {self.load:.1f}"
        )


def this_machine() -> Machine:
    """Look at this machine."""
    return Machine(
        processor=processor(),
        cores=len(os.sched_getaffinity(0)),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        onnxruntime=next(filter(None, map(installed, RUNTIMES)), "?"),
        harkd=__version__,
        load=round(os.getloadavg()[0], 2),
    )


def processor(
    cpuinfo: Path = Path("/proc/cpuinfo"), board: Path = Path("/proc/device-tree/model")
) -> str:
    """Return the processor's name; on ARM, whose kernel has none, the board's."""
    for line in read(cpuinfo).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip():
            return value.strip()
    return read(board).strip("\0 \n") or platform.machine()


def installed(package: str) -> str:
    """Return a package's version; empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def memory_mb(pid: str | int = "self") -> dict[str, float]:
    """Return the resident memory of a process now and at most, in MB (10^6 bytes), where known."""
    names = {"VmRSS": "rss_mb", "VmHWM": "most_rss_mb"}
    found = {}
    for line in read(Path(f"/proc/{pid}/status")).splitlines():
        name, _, value = line.partition(":")
        if name in names:
            found[names[name]] = round(int(value.split()[0]) * 1024 / 1e6, 1)
    return found


def read(path: Path) -> str:
    """Return a file's text; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
