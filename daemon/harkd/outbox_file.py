"""The outbox's file: finals in SQLite, in order, until they are removed.

In: finals, and the numbers of those that the broker has. Out: finals. What `add` has returned for
is on the disk: no power cut takes it back (WAL, synchronous=FULL). Used by one thread, and by one
process: a lock file keeps a second daemon away. Every error of SQLite becomes an `OutboxError`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from harkd.errors import OutboxBrokenError, OutboxError, OutboxFullError
from harkd.events import Final
from harkd.outbox_errors import translated, unusable
from harkd.whole_file import sync_folder

log = logging.getLogger(__name__)

SCHEMA = 1
MOST_ASIDE = 5
"""So many broken files may lie in the folder before no other one is set aside."""
TABLE = """
CREATE TABLE finals (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  boot TEXT NOT NULL,
  aged INTEGER NOT NULL,
  kept_ns INTEGER NOT NULL,
  body BLOB NOT NULL
) STRICT
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """A final that waits."""

    number: int
    """Counts up from 1 in the order of speaking; 0 and less are from before this process."""
    final: Final
    """Its `speech_end_ns` and `endpoint_ns` are on `boot_time.now_ns`, unlike elsewhere."""
    kept_ns: int
    """When it was kept, on `boot_time.now_ns`; the machine's start where that was before it."""
    aged: bool = True
    """Whether its age is known: it was said since the machine started."""


class SqliteOutbox:
    """The file.

    Args:
        path: The database; its folder is made where it is missing.
        boot: Names this start of the machine.
    """

    def __init__(self, path: Path, boot: str) -> None:
        self._path = path
        self._boot = boot
        self._lock = -1
        self._base = 0
        self._connection: sqlite3.Connection | None = None
        self.count = 0
        """How many finals are in the file."""

    @property
    def is_open(self) -> bool:
        """Whether it can be read."""
        return self._connection is not None

    def open(self) -> None:
        """Open the file, or make it.

        Raises:
            OutboxFullError: The disk has no room.
            OutboxBrokenError: It is to be set aside.
            OutboxError: It cannot be used now.
        """
        if self._lock < 0:
            self._take_lock()
        try:
            with self._translated():
                self._open()
        except OutboxBrokenError:
            self._disconnect()  # whoever sets it aside needs the lock
            raise
        except OutboxError:
            self.close()
            raise

    def add(self, kept: Sequence[Kept], gone: Collection[int], most: int) -> list[int]:
        """Write finals, take out those that are gone, and the oldest where there are too many.

        Returns:
            The numbers of the oldest that gave way to `most`.

        Raises:
            OutboxError: Nothing was changed.
        """
        with self._transaction() as sql:
            self._delete(sql, gone)
            # The same id again is the same final.
            sql.executemany(
                "INSERT OR IGNORE INTO finals VALUES (?, ?, ?, ?, ?, ?)",
                [self._row(each) for each in kept],
            )
            over = self._count(sql) - most
            oldest = "SELECT seq FROM finals ORDER BY seq LIMIT ?"
            dropped = self._numbers(sql, oldest, max(0, over))
            self._delete(sql, dropped)
        return dropped

    def expire(self, before_ns: int) -> list[int]:
        """Take out what was kept before that; return the numbers. Raises OutboxError."""
        with self._transaction() as sql:
            dropped = self._numbers(sql, "SELECT seq FROM finals WHERE kept_ns < ?", before_ns)
            self._delete(sql, dropped)
        return dropped

    def after(self, number: int, most: int, gone: Collection[int]) -> list[Kept]:
        """Return the first finals behind `number` that are not gone. Raises OutboxError."""
        found: list[Kept] = []
        bad: list[int] = []
        query = "SELECT seq, id, boot, aged, kept_ns, body FROM finals WHERE seq > ? ORDER BY seq"
        with self._translated(), contextlib.closing(self._sql().cursor()) as cursor:
            for seq, ident, boot, aged, kept_ns, body in cursor.execute(
                query, (number + self._base,)
            ):
                if len(found) >= most:
                    break
                if seq - self._base in gone:
                    continue
                try:
                    final = msgspec.json.decode(body, type=Final)
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    log.error("%s: final %s cannot be read (%s)", self._path, ident, error)
                    bad.append(seq - self._base)
                    continue
                known = bool(aged) and boot == self._boot
                found.append(Kept(seq - self._base, final, kept_ns, known))
        if bad:
            with contextlib.suppress(OutboxFullError):
                self.add([], bad, self.count)
        return found

    def close(self) -> None:
        """Close the file and let others have it."""
        self._disconnect()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def set_aside(self) -> Path:
        """Close the file and give it another name; return that. Raises OutboxError."""
        self._disconnect()
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        aside = self._path.with_name(f"{self._path.name}.broken-{now}")
        try:
            others = [*self._path.parent.glob(f"{self._path.name}.broken-*Z")]
            if len(others) >= MOST_ASIDE:
                raise OutboxError(
                    f"{self._path} is broken, as {len(others)} files beside it were before",
                    "check the disk, then delete them",
                )
            # The log first: a database without it is an older one, a log alone is deleted.
            for suffix in ("-wal", "-journal", "-shm", ""):
                part = self._path.with_name(self._path.name + suffix)
                if part.exists():
                    part.rename(aside.with_name(aside.name + suffix))
            sync_folder(self._path.parent)
        except OSError as error:
            raise unusable(self._path, error) from error
        return aside

    # ------------------------------------------------------------------------------- inside

    def _disconnect(self) -> None:
        if self._connection:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None
        self.count = 0

    def _take_lock(self) -> None:
        try:
            folder = self._path.parent
            if not folder.is_dir():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                sync_folder(folder.parent)
            name = self._path.with_suffix(".lock")
            self._lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutboxError(
                    f"another harkd keeps its finals in {folder}",
                    "stop it, or give each its own state.dir",
                ) from error
        except OSError as error:
            self.close()
            raise unusable(self._path, error) from error
        except OutboxError:
            self.close()
            raise

    def _open(self) -> None:
        # No umask is changed for it: other threads make files, too.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        sql = sqlite3.connect(self._path, timeout=0, isolation_level=None)
        self._connection = sql
        # Before WAL, it also does without the file of shared memory, which a full disk kills.
        sql.execute("PRAGMA locking_mode=EXCLUSIVE")
        (version,) = sql.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA:
            raise OutboxBrokenError(f"{self._path} was made by a newer harkd (schema {version})")
        if version == 0 and sql.execute("SELECT 1 FROM sqlite_schema").fetchone():
            raise OutboxBrokenError(f"{self._path} is another program's database")
        sql.execute("PRAGMA journal_mode=WAL")
        sql.execute("PRAGMA synchronous=FULL")
        (fault,) = sql.execute("PRAGMA quick_check(1)").fetchone()
        if fault != "ok":
            raise OutboxBrokenError(f"{self._path} is damaged ({fault})")
        if version == 0:
            with self._transaction():
                sql.execute(TABLE)
                sql.execute(f"PRAGMA user_version={SCHEMA}")
        else:
            self._adopt()
        (self._base,) = sql.execute("SELECT coalesce(max(seq), 0) FROM finals").fetchone()
        self.count = self._count(sql)

    def _adopt(self) -> None:
        """Count the age of what was kept before this start of the machine from the start on.

        How long the machine was off, nobody knows.
        """
        with self._transaction() as sql:
            sql.execute(
                "UPDATE finals SET boot=?, aged=0, kept_ns=0 WHERE boot<>?", (self._boot,) * 2
            )

    def _row(self, kept: Kept) -> tuple[int, str, str, int, int, bytes]:
        body = msgspec.json.encode(kept.final)
        seq = kept.number + self._base
        return seq, kept.final.id, self._boot, int(kept.aged), kept.kept_ns, body

    def _delete(self, sql: sqlite3.Connection, numbers: Collection[int]) -> None:
        rows = [(number + self._base,) for number in numbers]
        sql.executemany("DELETE FROM finals WHERE seq=?", rows)

    def _numbers(self, sql: sqlite3.Connection, query: str, value: int) -> list[int]:
        return [seq - self._base for (seq,) in sql.execute(query, (value,))]

    def _count(self, sql: sqlite3.Connection) -> int:
        (count,) = sql.execute("SELECT count(*) FROM finals").fetchone()
        return int(count)

    def _sql(self) -> sqlite3.Connection:
        if not self._connection:
            raise OutboxError(f"{self._path} is not open")
        return self._connection

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; on the disk when it is over."""
        with self._translated():
            sql = self._sql()
            sql.execute("BEGIN IMMEDIATE")
            try:
                yield sql
                sql.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    sql.execute("ROLLBACK")
                raise
            with contextlib.suppress(sqlite3.Error):
                self.count = self._count(sql)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise translated(self._path, error) from error
        except OSError as error:
            raise unusable(self._path, error) from error
