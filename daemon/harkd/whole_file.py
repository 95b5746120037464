"""Files that a power cut leaves as they were or as they are to be, never in between.

In: a path and bytes. Out: the file, on the disk. Any thread; waits for the disk.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file of ours, which only we may read; its folder is made where it is missing.

    Raises:
        OSError: It stays as it was.
    """
    folder, new = path.parent, path.with_name(f"{path.name}.new")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_synced(new, data)
        new.replace(path)
        sync_folder(folder)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise


def write_synced(path: Path, data: bytes) -> None:
    """Write a file that only we may read, and wait until the disk has it. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, 0o600)
        file.write(data)
        file.flush()
        os.fsync(fd)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
