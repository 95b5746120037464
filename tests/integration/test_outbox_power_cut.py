"""What a power cut leaves of the outbox, at every step of what SQLite really does to the disk.

A process uses an outbox while a preloaded library logs its writes, syncs and file names. From that
log the disk is built again as it may be after a cut behind each record: of what was not synced,
nothing is there, or all, or any part, torn in the middle or not.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harkd.outbox import Outbox
from servers import program

pytestmark = pytest.mark.integration

SOURCE = Path(__file__).parents[1] / "write_log.c"
CHILD = """
import os, sys
from pathlib import Path
from finals import final
from harkd.outbox import Outbox
from harkd.outbox_file import Kept

path = Path(sys.argv[1])
marks = -1

def mark(what, *idents):
    os.write(marks, f"{what} {' '.join(idents)}\\n".encode())

class Clock:
    now_s = 0.0
    def __call__(self):
        self.now_s += 0.4
        return self.now_s

def begin(**more):
    box = Outbox(path, monotonic_s=Clock(), now_ns=lambda: 0, **more)
    box.open(lambda problem: sys.exit(problem))
    return box

def add(box, number, ident, length=10):
    mark("adding", ident)
    box.add([Kept(number, final(ident, "x" * length), 0)])
    assert box.on_disk
    mark("kept", ident)

path.parent.mkdir()
marks = os.open(path.with_name("marks"), os.O_WRONLY | os.O_CREAT)
box = begin()
for number in range(1, 7):
    add(box, number, f"a{number}")
mark("removing", "a1", "a2")
box.remove([1, 2])
for _ in range(5):
    box.tick()
add(box, 7, "a7", 9000)
box.close()
box = begin(most=8)
# As after a thousand pages, which would take long to play through.
box._file._connection.execute("PRAGMA wal_autocheckpoint=6")
for number in range(1, 8):
    mark("removing", *[f"a{old}" for old in range(3, 4 + number)])  # too many, at most these
    add(box, number, f"b{number}", 3000)
mark("removing", "b2")
box.remove([2])
add(box, 8, "b8")
os._exit(0)
"""


@dataclass
class Record:
    """One step of the process."""

    kind: str
    name: str
    offset: int
    data: bytes


def read_log(path: Path) -> Iterator[Record]:
    with path.open("rb") as log:
        while head := log.readline():
            kind, name, offset, length = head.decode().split()
            yield Record(kind, name, int(offset), log.read(int(length)))


@dataclass
class File:
    """One file's content: what is on the disk for sure, and what is on its way there."""

    safe: bytearray = field(default_factory=bytearray)
    unsafe: list[Record] = field(default_factory=list)

    def after(self, steps: list[Record]) -> bytes:
        content = bytearray(self.safe)
        for step in steps:
            apply(content, step)
        return bytes(content)


def apply(content: bytearray, step: Record) -> None:
    end = step.offset + len(step.data)
    content.extend(bytes(max(0, end - len(content))))
    if step.kind == "t":
        del content[step.offset :]
    else:
        content[step.offset : end] = step.data


class Disk:
    """A folder on a disk that may lose its power."""

    def __init__(self) -> None:
        self._files: dict[str, File] = {}
        self._safe_names: dict[str, File] = {}
        self._unsafe_names: list[dict[str, File]] = []

    def step(self, step: Record) -> None:
        match step.kind:
            case "w" | "t":
                self._files[step.name].unsafe.append(step)
            case "s":
                file = self._files[step.name]
                file.safe, file.unsafe = bytearray(file.after(file.unsafe)), []
            case "d":
                self._safe_names, self._unsafe_names = dict(self._files), []
            case "c":
                self._files[step.name] = File()
            case "u":
                del self._files[step.name]
            case "r":
                self._files[step.data.decode()] = self._files.pop(step.name)
        if step.kind in "cur":
            self._unsafe_names.append(dict(self._files))

    def cut(self, how: str, chance: random.Random) -> dict[str, bytes]:
        """The files after a cut at which `nothing`, `everything` or `something` unsafe stays."""
        names = [self._safe_names, *self._unsafe_names]
        match how:
            case "nothing":
                return {name: bytes(file.safe) for name, file in names[0].items()}
            case "everything":
                return {name: file.after(file.unsafe) for name, file in names[-1].items()}
        chosen = chance.choice(names)
        return {name: file.after(some(file.unsafe, chance)) for name, file in chosen.items()}


def some(steps: list[Record], chance: random.Random) -> list[Record]:
    kept = []
    for step in steps:
        if chance.random() < 0.5:
            whole = chance.random() < 0.7
            length = len(step.data) if whole else chance.randrange(0, len(step.data) + 1, 512)
            kept.append(Record(step.kind, step.name, step.offset, step.data[:length]))
    return kept


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("write-log") / "write_log.so"
    warnings = ["-Wall", "-Wextra", "-Werror"]
    arguments = [*warnings, "-O1", "-shared", "-fPIC", "-o", str(built), str(SOURCE), "-ldl"]
    subprocess.run([program("gcc"), *arguments], check=True)
    return built


@pytest.fixture(scope="module")
def course(library: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Every step of a process that kept finals."""
    folder = tmp_path_factory.mktemp("course")
    state, log = folder / "state", folder / "log"
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "LD_PRELOAD": str(library),
        "WRITE_LOG": str(log),
        "WRITE_LOG_DIR": str(state),
    }
    subprocess.run([sys.executable, "-c", CHILD, str(state / "outbox.sqlite")], env=env, check=True)
    return list(read_log(log))


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose syncs cost nothing, where there is such a one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        yield Path(name)


def test_no_power_cut_takes_back_what_was_said_to_be_kept(
    course: list[Record], quick_folder: Path
) -> None:
    disk, chance, folder = Disk(), random.Random(5), quick_folder  # noqa: S311 - no secret
    adding: list[str] = []
    keeping: list[str] = []
    cuts = 0
    for step in course:
        if step.name == "marks":
            if step.kind == "w":
                what, *idents = step.data.decode().split()
                if what == "removing":
                    keeping = [each for each in keeping if each not in idents]
                else:
                    (adding if what == "adding" else keeping).extend(idents)
            continue
        disk.step(step)
        for how in ("nothing", "everything", *["something"] * 4):
            for old in folder.iterdir():
                old.unlink()
            for name, content in disk.cut(how, chance).items():
                (folder / name).write_bytes(content)
            reported: list[str] = []
            box = Outbox(folder / "outbox.sqlite", now_ns=lambda: 0)
            box.open(reported.append)
            found = [each.final.id for each in box.after(-(10**9), 99)]
            box.close()
            where = f"{how} unsafe of {len(course)} steps, after {step.kind} {step.name}"
            assert reported == [], where
            assert [each for each in found if each in keeping] == keeping, where
            assert [each for each in adding if each in found] == found, where
            cuts += 1
    kinds = {step.kind for step in course}
    print(f"\n{cuts} power cuts over {len(course)} steps, {len(keeping)} finals at the end")
    assert len(keeping) >= 5
    assert {"w", "s", "d", "c", "t", "u"} <= kinds, kinds
