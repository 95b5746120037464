"""How much more memory this process may take: of the machine, of its cgroups, of its own limits.

In: the files of /proc and /sys/fs/cgroup below a root. Out: a `Room` for each limit that there is;
the least of them counts. Never raises: a file that is missing, or that nobody understands, tells of
no limit. Reads files only; any thread.

What is free is what the kernel could give before it kills somebody. Pages of files count as free,
since it drops them first: in MemAvailable, which is the kernel's own estimate
(https://docs.kernel.org/filesystems/proc.html#meminfo), and in a cgroup as ``active_file`` +
``inactive_file`` + ``slab_reclaimable``, the lists of its page reclaim
(https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files; for version 1, their
``total_`` twins, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html#stat-file).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Final

ROOT: Final = Path("/")
NO_LIMIT: Final = 1 << 62
"""Version 1 has no word for it: it is the largest number of pages, in bytes."""
ZRAM_SAVES: Final = 0.5
"""A page in zram is still in memory, at about half its size; the rest is what swapping gains."""
MOST_LEVELS: Final = 64
NEVER: Final = "2"
"""Of vm.overcommit_memory: nothing is promised that could not be kept."""


class Kind(StrEnum):
    """What a limit is of."""

    MACHINE = "machine"
    CGROUP = "cgroup"
    ADDRESSES = "addresses"
    DATA = "data"


@dataclass(frozen=True, slots=True)
class Room:
    """How much more one limit lets this process take."""

    kind: Kind
    """What it is a limit of."""
    limit_bytes: int
    """The limit itself; of the machine, its memory."""
    free_bytes: int
    """Bytes that are free, 0 or more, without swap."""
    swap_bytes: int = 0
    """Bytes that swap would free besides, slowly."""
    where: str = ""
    """Of a cgroup its path, ``/`` in a container; of a file's limit empty."""
    setting: str = ""
    """The name of the limit, as the system has it: ``memory.max``, ``RLIMIT_AS``."""
    soft: bool = False
    """Whether it slows down, and ends nobody: memory.high."""

    @property
    def most_bytes(self) -> int:
        """Bytes that can be had, with swap."""
        return self.free_bytes + self.swap_bytes


def rooms(root: Path = ROOT) -> list[Room]:
    """Return the room that each limit leaves to this process; empty where nothing is known."""
    memory = numbers(read(root / "proc/meminfo"), unit_bytes=1024)
    swap_bytes = free_swap_bytes(memory, read(root / "proc/swaps"))
    found = []
    if "MemAvailable" in memory:
        total_bytes, free_bytes = memory.get("MemTotal", 0), memory["MemAvailable"]
        found.append(
            Room(Kind.MACHINE, total_bytes, free_bytes, swap_bytes, setting="MemAvailable")
        )
    if read(root / "proc/sys/vm/overcommit_memory").strip() == NEVER and "CommitLimit" in memory:
        limit_bytes = memory["CommitLimit"]
        left_bytes = max(0, limit_bytes - memory.get("Committed_AS", 0))
        found.append(Room(Kind.DATA, limit_bytes, left_bytes, setting="vm.overcommit_memory"))
    found += own_limits(read(root / "proc/self/limits"), read(root / "proc/self/status"))
    for folder, where, version in cgroup_levels(root):
        levels = level_v2 if version == 2 else level_v1
        found += levels(folder, where, swap_bytes)
    return found


def free_swap_bytes(memory: Mapping[str, int], swaps: str) -> int:
    """Return how much memory the free swap stands for: less than its size where it is zram."""
    free_bytes = memory.get("SwapFree", 0)
    sizes = {True: 0, False: 0}
    for line in swaps.splitlines()[1:]:
        words = line.split()
        if len(words) >= 4 and (size := number(words[-3])) is not None:
            sizes["zram" in words[0]] += size
    total = sum(sizes.values())
    zram_share = sizes[True] / total if total else 0.0
    return int(free_bytes * (1 - zram_share * (1 - ZRAM_SAVES)))


def own_limits(limits: str, status: str) -> Iterator[Room]:
    """Yield the rooms of the process's own limits, getrlimit(2); `limits` is proc_pid_limits(5)."""
    used = numbers(status, unit_bytes=1024)
    for title, field, kind, setting in (
        ("Max address space", "VmSize", Kind.ADDRESSES, "RLIMIT_AS"),
        ("Max data size", "VmData", Kind.DATA, "RLIMIT_DATA"),
    ):
        found = re.search(rf"^{title}\s+(\d{{1,20}})\s", limits, re.MULTILINE | re.ASCII)
        if found and field in used:
            limit_bytes = int(found[1])
            free_bytes = max(0, limit_bytes - used[field])
            yield Room(kind, limit_bytes, free_bytes, setting=setting)


def cgroup_levels(root: Path) -> Iterator[tuple[Path, str, int]]:
    """Yield the cgroups that limit our memory, ours first, then those above it, as far as is seen.

    Each is a folder, its path within what is mounted, and the version, 1 or 2. Of a host that has
    both, at most one has the memory controller; the other's files are missing.
    """
    mounts = list(cgroup_mounts(read(root / "proc/self/mountinfo")))
    for line in read(root / "proc/self/cgroup").splitlines():
        number_, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number_ == "0" and not controllers:
            version = 2
        elif "memory" in controllers.split(","):
            version = 1
        else:
            continue
        for mount_version, mount_root, mount_point in mounts:
            if mount_version == version:
                yield from upwards(root, mount_point, within(path, mount_root), version)
                break


def upwards(root: Path, mount: str, path: str, version: int) -> Iterator[tuple[Path, str, int]]:
    """Yield the folders of a cgroup and of all above it up to the mount."""
    parts = [part for part in PurePosixPath(path).parts if part != "/"]
    base = root / mount.lstrip("/")
    for count in range(min(len(parts), MOST_LEVELS), -1, -1):
        inner = parts[:count]
        yield base.joinpath(*inner), "/" + "/".join(inner), version


def within(path: str, mount_root: str) -> str:
    """Return a cgroup's path below the mount.

    A container sees its own cgroup mounted, and mostly as ``/``; without a namespace of its own
    both names are the host's. What lies outside of what is mounted is its root.
    """
    own, top = PurePosixPath(path or "/"), PurePosixPath(mount_root or "/")
    if ".." in own.parts or not own.is_relative_to(top):
        return "/"
    return f"/{own.relative_to(top)}"


def cgroup_mounts(mountinfo: str) -> Iterator[tuple[int, str, str]]:
    r"""Yield version, root and mount point of the hierarchies that may limit memory.

    See proc_pid_mountinfo(5): blanks and their like are written as ``\040``.
    """
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields, types = before.split(" "), after.split(" ")
        if not dash or len(fields) < 5 or len(types) < 3:
            continue
        if types[0] == "cgroup2":
            version = 2
        elif types[0] == "cgroup" and "memory" in types[2].split(","):
            version = 1
        else:
            continue
        yield version, unescaped(fields[3]), unescaped(fields[4])


def level_v2(folder: Path, where: str, machine_swap_bytes: int) -> Iterator[Room]:
    """Yield the rooms of one cgroup of version 2."""
    used = number(read(folder / "memory.current"))
    if used is None:
        return
    stat = numbers(read(folder / "memory.stat"))
    kept = used - stat.get("active_file", 0) - stat.get("inactive_file", 0)
    kept -= stat.get("slab_reclaimable", 0)
    swap_bytes = machine_swap_bytes
    if (swap_limit := number(read(folder / "memory.swap.max"))) is not None:
        swap_used = number(read(folder / "memory.swap.current")) or 0
        swap_bytes = min(swap_bytes, max(0, swap_limit - swap_used))
    for name, soft in (("memory.max", False), ("memory.high", True)):
        limit = number(read(folder / name))  # None for "max", which is no limit
        if limit is not None:
            free = min(limit, max(0, limit - kept))
            yield Room(Kind.CGROUP, limit, free, swap_bytes, where, name, soft)


def level_v1(folder: Path, where: str, machine_swap_bytes: int) -> Iterator[Room]:
    """Yield the room of one cgroup of version 1, if it has a limit, or one that is not seen has."""
    used = number(read(folder / "memory.usage_in_bytes"))
    if used is None:
        return
    stat = numbers(read(folder / "memory.stat"))
    files = sum(stat.get(f"total_{name}", 0) for name in ("active_file", "inactive_file"))

    def least(*limits: int | None) -> int:
        return min((each for each in limits if each is not None), default=NO_LIMIT)

    # The hierarchical ones are the least of all above, also of those that a container cannot see.
    limit = least(
        number(read(folder / "memory.limit_in_bytes")), stat.get("hierarchical_memory_limit")
    )
    if limit >= NO_LIMIT:
        return
    free = min(limit, max(0, limit - used + files))
    swap = machine_swap_bytes
    both = least(  # memory and swap together
        number(read(folder / "memory.memsw.limit_in_bytes")),
        stat.get("hierarchical_memsw_limit"),
    )
    both_used = number(read(folder / "memory.memsw.usage_in_bytes"))
    if both < NO_LIMIT and both_used is not None:
        swap = min(swap, max(0, max(0, both - both_used + files) - free))
    if number(read(folder / "memory.swappiness")) == 0:
        swap = 0
    yield Room(Kind.CGROUP, limit, free, swap, where, "memory.limit_in_bytes")


def numbers(text: str, unit_bytes: int = 1) -> dict[str, int]:
    """Return the lines that are a name and a number, with or without a colon and ``kB``."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and (value := number(words[1])) is not None:
            found[words[0].removesuffix(":")] = value * unit_bytes
    return found


def number(text: str) -> int | None:
    """Return a number of at most 20 digits, as the kernel writes them; None for anything else."""
    stripped = text.strip()
    return int(stripped) if re.fullmatch(r"\d{1,20}", stripped, re.ASCII) else None


def unescaped(word: str) -> str:
    """Return a word of /proc with its octal escapes undone."""
    return re.sub(r"\\([0-3][0-7]{2})", lambda found: chr(int(found[1], 8)), word, flags=re.ASCII)


def read(path: Path) -> str:
    """Return a file's text; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):  # ValueError: no path can have a NUL
        return ""
