"""What is kept of finals that the broker has not taken: on the disk, and when the disk fails."""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from finals import final, kept
from harkd import boot_time, outbox_errors, outbox_file
from harkd.errors import OutboxBrokenError, OutboxError
from harkd.outbox import EXPIRE_S, MOST_FINALS, MOST_IN_MEMORY, RETRY_S, Outbox
from harkd.outbox_file import Kept, SqliteOutbox


class Clock:
    """Seconds that only a test lets pass."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def ns(self) -> int:
        return round(self.now_s * 1e9)


class World:
    """A folder, its clock, what was reported, and the outboxes that are open in it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state" / "outbox.sqlite"
        self.clock = Clock()
        self.reported: list[str] = []
        self._open: list[Outbox] = []

    def outbox(self, path: Path | None = None, **bounds: float) -> Outbox:
        box = Outbox(
            path or self.path,
            now_ns=self.clock.ns,
            monotonic_s=self.clock,
            **bounds,  # type: ignore[arg-type]
        )
        self._open.append(box)
        box.open(self.reported.append)
        return box

    def crash(self, box: Outbox) -> None:
        """Leave the outbox as a killed process would: the kernel closes its files."""
        assert box._file
        os.close(box._file._lock)
        box._file._lock = -1
        # The file is copied away from the open connection, which would tidy up.
        saved = self.path.parent.with_name("saved")
        shutil.copytree(self.path.parent, saved)
        box._file.close()
        shutil.rmtree(self.path.parent)
        saved.rename(self.path.parent)

    def close(self) -> None:
        for box in self._open:
            box.close()

    def aside(self) -> list[str]:
        return sorted(each.name for each in self.path.parent.glob("*.broken-*Z"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def numbers(box: Outbox, after: int = -(10**9), most: int = 10**6) -> list[int]:
    return [each.number for each in box.after(after, most)]


def idents(box: Outbox) -> list[str]:
    return [each.final.id for each in box.after(-(10**9), 10**6)]


def fill(box: Outbox, first: int, last: int) -> list[int]:
    return box.add([kept(number) for number in range(first, last + 1)])


# ------------------------------------------------------------------------- while all is well


@pytest.mark.parametrize("on_disk", [True, False])
def test_finals_wait_in_order_until_they_are_removed(world: World, on_disk: bool) -> None:
    box = world.outbox() if on_disk else Outbox()
    fill(box, 1, 5)
    box.remove([2])
    assert numbers(box) == [1, 3, 4, 5]
    assert numbers(box, after=1, most=2) == [3, 4]
    assert (box.count, box.on_disk, box.problem) == (4, on_disk, "")
    box.remove([99])
    assert numbers(box) == [1, 3, 4, 5], "an answer to what is not kept does no harm"


def test_everything_of_a_final_is_as_it_was(world: World) -> None:
    box = world.outbox()
    mine = Kept(1, final("id", "Grüße, 世界 \u0000\n😀", spoken_ns=123), kept_ns=456)
    box.add([mine])
    assert box.after(0, 10) == [mine]


def test_a_killed_daemons_finals_come_before_the_next_ones(world: World) -> None:
    box = world.outbox()
    fill(box, 1, 3)
    world.crash(box)
    box = world.outbox()
    fill(box, 1, 1)  # its id is there already: the same final
    box.add([kept(2, ident="new")])
    assert idents(box) == ["id-1", "id-2", "id-3", "new"]
    assert numbers(box) == [-2, -1, 0, 2]
    box.remove([-1])
    box.close()
    assert idents(world.outbox()) == ["id-1", "id-3", "new"]


def test_a_removal_is_on_the_disk_soon_without_costing_one_commit_each(world: World) -> None:
    box = world.outbox()
    fill(box, 1, 3)
    box.remove([1])
    box.remove([2])
    assert box.due_s() == pytest.approx(1.0)
    world.clock.now_s += 1.1
    commits: list[str] = []
    assert box._file
    assert box._file._connection
    box._file._connection.set_trace_callback(commits.append)
    box.tick()
    assert [each for each in commits if each == "COMMIT"] == ["COMMIT"]
    assert box.due_s() == pytest.approx(EXPIRE_S - 1.1)
    world.crash(box)
    assert idents(world.outbox()) == ["id-3"]


def test_it_syncs_each_commit_and_lets_nobody_else_read_along(world: World) -> None:
    box = world.outbox()
    assert box._file
    sql = box._file._connection
    assert sql
    wanted = {"journal_mode": "wal", "synchronous": 2, "locking_mode": "exclusive"}
    assert {name: sql.execute(f"PRAGMA {name}").fetchone()[0] for name in wanted} == wanted
    assert world.path.stat().st_mode & 0o077 == 0
    assert world.path.parent.stat().st_mode & 0o077 == 0


# ------------------------------------------------------------------------------------ bounds


@pytest.mark.parametrize("on_disk", [True, False])
def test_it_is_bounded_and_the_log_says_once_that_old_ones_gave_way(
    world: World, on_disk: bool, caplog: pytest.LogCaptureFixture
) -> None:
    box = world.outbox(most=3) if on_disk else Outbox(most_in_memory=3)
    assert fill(box, 1, 3) == []
    assert fill(box, 4, 5) == [1, 2]
    assert fill(box, 6, 6) == [3]
    assert numbers(box) == [4, 5, 6]
    assert box.dropped == 3
    (told,) = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert "lost" in told
    assert "Turn on" not in caplog.text


def test_too_old_ones_are_dropped_in_the_end(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    box = world.outbox(most_age_s=100_000)
    box.add([kept(1, kept_ns=world.clock.ns())])
    world.clock.now_s += 90_000
    assert box.tick() == []
    box.add([kept(2, kept_ns=world.clock.ns())])
    world.clock.now_s += 20_000
    assert box.due_s() == 0
    assert box.tick() == [1]
    assert (numbers(box), box.dropped, box.count) == ([2], 1, 1)
    assert "lost" in caplog.text


def test_unless_told_otherwise_it_keeps_ten_thousand_on_disk_and_a_thousand_in_memory() -> None:
    box = Outbox()
    assert len(fill(box, 1, MOST_IN_MEMORY + 1)) == 1
    assert (MOST_FINALS, MOST_IN_MEMORY) == (10_000, 1000)


def test_a_long_queue_is_not_read_into_memory(world: World) -> None:
    box = world.outbox()
    for first in range(1, 4001, 500):
        fill(box, first, first + 499)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    cursor = 0
    while found := box.after(cursor, 32):
        cursor = found[-1].number
        box.remove([each.number for each in found])
        world.clock.now_s += 0.1
        box.tick()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert cursor == 4000
    assert grown - before < 300_000


# ------------------------------------------------------------------------------------- age


def test_the_age_of_finals_is_known_after_a_restart_but_not_after_a_reboot(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = world.outbox()
    box.add([kept(1, kept_ns=world.clock.ns())])
    box.close()
    box = world.outbox()
    assert [each.aged for each in box.after(-99, 9)] == [True]
    box.close()
    monkeypatch.setattr(boot_time, "boot_id", lambda: "another")
    for _ in range(2):
        box = world.outbox()
        (old,) = box.after(-99, 9)
        assert (old.aged, old.kept_ns) == (False, 0)
        box.close()


def test_where_nobody_names_the_boot_every_start_counts_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert boot_time.boot_id() == boot_time.boot_id()
    monkeypatch.setattr(boot_time, "BOOT_ID", tmp_path / "missing")
    assert boot_time.boot_id() != boot_time.boot_id()


# ---------------------------------------------------------------------------------- faults


def test_a_second_daemon_is_told_of_the_first_and_goes_on_in_memory_until_that_ends(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    first = world.outbox()
    fill(first, 1, 1)
    second = world.outbox()
    second.add([kept(1, ident="other")])
    assert idents(second) == ["other"]
    assert not second.on_disk
    (told,) = world.reported
    assert told == second.problem
    assert "another harkd" in told
    assert "state.dir" in told
    assert caplog.text.count("another harkd") == 1
    first.close()
    world.clock.now_s += RETRY_S
    assert second.due_s() == 0
    second.tick()
    assert second.on_disk
    assert second.problem == ""
    assert idents(second) == ["id-1", "other"]


BROKEN = [
    "no database",
    "cut in two",
    "zeros in the middle",
    "of a newer version",
    "of another program",
]


def spoil(path: Path, how: str) -> None:
    """Break a database in which finals wait."""
    if how in {"cut in two", "zeros in the middle"}:
        data = path.read_bytes()
        half = len(data) // 2
        data = data[:half] if how == "cut in two" else data[:4096] + bytes(half) + data[half:]
        path.write_bytes(data)
    elif how == "no database":
        path.write_bytes(b"this is no database, " * 1000)
    else:
        path.unlink()
        sql = sqlite3.connect(path)
        sql.execute("CREATE TABLE finals (text)")
        version = 99 if how == "of a newer version" else 0
        sql.execute(f"PRAGMA user_version={version}")
        sql.commit()
        sql.close()


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_file_is_set_aside_and_a_new_one_begun(
    world: World, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    box = world.outbox()
    fill(box, 1, 300)
    box.close()
    spoil(world.path, how)
    spoiled = world.path.read_bytes()
    box = world.outbox()
    fill(box, 1, 2)
    assert box.on_disk
    assert idents(box) == ["id-1", "id-2"]
    (aside,) = world.aside()
    assert (world.path.parent / aside).read_bytes() == spoiled, "not deleted, not changed"
    (told,) = world.reported
    assert aside in told
    assert told in caplog.text
    world.crash(box)
    assert idents(world.outbox()) == ["id-1", "id-2"]


def test_a_file_that_breaks_while_it_is_used_is_set_aside_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = world.outbox()
    fill(box, 1, 2)

    def fail(*_: object) -> list[Kept]:
        monkeypatch.undo()
        raise OutboxBrokenError(f"{world.path} is broken (disk I/O error)")

    monkeypatch.setattr(SqliteOutbox, "after", fail)
    assert numbers(box) == []
    assert box.renewed
    fill(box, 3, 3)
    assert numbers(box) == [3]
    assert box.on_disk
    assert len(world.aside()) == len(world.reported) == 1


def test_a_disk_on_which_every_file_breaks_is_not_filled_with_broken_ones(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.DatabaseError("disk I/O error")

    broken = {sqlite3.SQLITE_OK}  # what an error made by hand has
    monkeypatch.setattr(outbox_errors, "BROKEN", outbox_errors.BROKEN | broken)
    monkeypatch.setattr(SqliteOutbox, "_adopt", fail)
    monkeypatch.setattr(outbox_file, "TABLE", "SELECT 1; no SQL")
    box = world.outbox()
    for number in range(1, 20):
        box.add([kept(number)])
        world.clock.now_s += RETRY_S
    assert len(world.aside()) == outbox_file.MOST_ASIDE
    assert numbers(box) == list(range(1, 20))
    assert not box.on_disk
    assert "delete them" in box.problem


def test_one_final_that_cannot_be_read_does_not_stand_in_the_others_way(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    box = world.outbox()
    fill(box, 1, 4)
    box.close()
    sql = sqlite3.connect(world.path)
    sql.execute("UPDATE finals SET body=? WHERE id='id-2'", (b"\xff{}",))
    sql.commit()
    sql.close()
    box = world.outbox()
    assert [each.final.id for each in box.after(-99, 2)] == ["id-1", "id-3"]
    assert "final id-2 cannot be read" in caplog.text
    assert box.count == 3


def test_a_folder_that_cannot_be_made_is_reported_with_the_mend_and_memory_serves(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.path.parent.write_text("a file in its place")
    box = world.outbox()
    fill(box, 1, 2)
    assert numbers(box) == [1, 2]
    assert not box.on_disk
    for _ in range(3):
        world.clock.now_s += RETRY_S
        box.tick()
    (told,) = world.reported
    assert str(world.path) in told
    assert "state.dir" in told
    assert caplog.text.count(told) == 1
    world.path.parent.unlink()
    world.clock.now_s += RETRY_S
    box.tick()
    assert box.on_disk
    world.crash(box)
    assert idents(world.outbox()) == ["id-1", "id-2"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_what_the_file_system_refuses_is_an_error_with_a_mend(
    world: World, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    box = world.outbox()
    monkeypatch.undo()
    assert not box.on_disk
    assert os.strerror(number) in box.problem
    full = number in {errno.ENOSPC, errno.EDQUOT}
    assert ("make room" if full else "writable") in box.problem.lower()


LIMITED = """
import json, resource, sys
from pathlib import Path
from finals import kept
from harkd.outbox import Outbox

class Clock:
    now_s = 0.0
    def __call__(self): return self.now_s

clock, reported = Clock(), []
box = Outbox(Path(sys.argv[1]), monotonic_s=clock, now_ns=lambda: 0)
box.open(reported.append)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
box.add([kept(1)])
resource.setrlimit(resource.RLIMIT_FSIZE, (Path(sys.argv[1] + "-wal").stat().st_size, hard))
for number in range(2, 40):
    box.add([kept(number)])
full = box.on_disk, box.count, [each.number for each in box.after(0, 99)]
box.remove([2, 3])
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
clock.now_s += 10
box.tick()
print(json.dumps([reported, full, [box.on_disk, box.problem, box.count]]))
box.close()
"""


def test_a_file_that_may_not_grow_is_reported_and_written_when_it_may_again(world: World) -> None:
    """A quota, or a limit of the file's size; the tests of real servers fill a real disk."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(world.path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=True,
        text=True,
    )
    reported, full, mended = json.loads(done.stdout)
    assert full == [False, 39, list(range(1, 40))]
    assert mended == [True, "", 37]
    (told,) = reported
    assert "cannot grow" in told
    assert "Make room on the disk" in told
    box = world.outbox()
    assert idents(box) == [f"id-{number}" for number in (1, *range(4, 40))]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_errors_of_a_closed_file_say_so(world: World) -> None:
    with pytest.raises(OutboxError, match="not open"):
        SqliteOutbox(world.path, "boot").add([], [], 1)


# ------------------------------------------------------------- against a simple model of it


class OutboxMachine(RuleBasedStateMachine):
    """Any course of additions, removals, crashes and restarts."""

    MOST = 8

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm")
        self.world = World(Path(self.folder.name))
        self.box = self.world.outbox(most=self.MOST)
        self.model: list[str] = []
        self.uncertain: set[str] = set()
        self.number_of: dict[str, int] = {}
        self.next = 1
        self.total = 0

    def by_id(self) -> dict[str, int]:
        return {each.final.id: each.number for each in self.box.after(-(10**9), 10**6)}

    @rule(many=st.integers(1, 4))
    def add(self, many: int) -> None:
        batch = []
        for _ in range(many):
            self.total += 1
            ident = f"id-{self.total}"
            batch.append(kept(self.next, ident=ident))
            self.number_of[ident] = self.next
            self.next += 1
            self.model.append(ident)
        dropped = self.box.add(batch)
        self.uncertain.clear()  # the same commit takes what is gone
        over = max(0, len(self.model) - self.MOST)
        assert dropped == [self.number_of[ident] for ident in self.model[:over]]
        del self.model[:over]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        ident = data.draw(st.sampled_from(self.model))
        self.box.remove([self.number_of[ident]])
        self.model.remove(ident)
        self.uncertain.add(ident)

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        before = self.world.clock.now_s
        self.world.clock.now_s += seconds
        self.box.tick()
        if self.uncertain and seconds >= 1.0:
            self.uncertain.clear()
        assert self.world.clock.now_s > before

    @rule()
    def reopen(self) -> None:
        self.box.close()
        self.uncertain.clear()
        self.begin_anew()

    @rule()
    def crash(self) -> None:
        self.world.crash(self.box)
        self.begin_anew()

    def begin_anew(self) -> None:
        self.box = self.world.outbox(most=self.MOST)
        self.number_of = self.by_id()
        self.next = 1
        there = list(self.number_of)
        # What was said to be kept is there; what was removed just before a crash may be, too.
        assert [each for each in there if each not in self.uncertain] == self.model
        self.model = there
        self.uncertain.clear()

    @invariant()
    def the_same_finals_in_the_same_order(self) -> None:
        assert list(self.by_id()) == self.model
        assert self.box.count == len(self.model)
        assert self.box.on_disk

    def teardown(self) -> None:
        self.world.close()
        self.folder.cleanup()


TestAgainstAModel = OutboxMachine.TestCase
TestAgainstAModel.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
