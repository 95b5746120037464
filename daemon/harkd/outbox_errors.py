"""What errors of SQLite and of the file system mean for the outbox. Pure."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from harkd.errors import OutboxBrokenError, OutboxError, OutboxFullError

PRIMARY = 0xFF
"""An extended result code's part that says what kind of error it is."""
BROKEN = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_SCHEMA,
}

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def translated(path: Path, error: sqlite3.Error) -> OutboxError:
    """Say what an error of SQLite means."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_IOERR_WRITE or code & PRIMARY == sqlite3.SQLITE_FULL:
        # The former is a quota, or a limit of the file's size.
        return OutboxFullError(f"{path} cannot grow ({error})", "make room on the disk")
    if code & PRIMARY in BROKEN:
        return OutboxBrokenError(f"{path} is broken ({error})")
    return OutboxError(
        f"{path} cannot be used ({error})", "check its folder's rights, or state.dir"
    )


def unusable(path: Path, error: OSError) -> OutboxError:
    """Say what an error of the file system means."""
    if error.errno in FULL:
        return OutboxFullError(f"{path} cannot grow ({error.strerror})", "make room on the disk")
    mend = "make its folder writable for harkd, or set state.dir"
    return OutboxError(f"{path} cannot be used ({error.strerror})", mend)
