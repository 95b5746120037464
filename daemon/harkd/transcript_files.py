"""Writes transcripts to files, each whole or not at all.

In: a path and its text. Out: the file. Runs on the calling thread.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harkd.errors import HarkdError

PROBE_BYTES = 64 * 1024
"""More than any transcript of some minutes; a file system with less room is full."""
NO_MORE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What befalls each further file, too."""


class OutputError(HarkdError):
    """A transcript cannot be written."""


class OutputFullError(OutputError):
    """Nor can any other."""


def prepare(folder: Path) -> None:
    """Make sure that transcripts can be written to a folder, which is made if it is not there.

    Raises:
        OutputError: They cannot.
    """
    with translated(folder):
        folder.mkdir(parents=True, exist_ok=True)
    probe = part_of(folder)
    with translated(folder):
        try:
            fill(probe, bytes(PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)


def write(path: Path, text: str) -> None:
    """Write a transcript. The path never holds a part of it, whatever happens meanwhile.

    Raises:
        OutputError: It cannot be written.
    """
    part = part_of(path.parent)
    with translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            fill(part, text.encode("utf-8", "backslashreplace"))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def path_of(place: Path, folder: Path, suffix: str) -> Path:
    """Return where the transcript of a file is written.

    The suffix is added, not put in the place of the sound file's own: a.wav and a.mp3 stay two,
    in one run or in several.

    Args:
        place: The sound file's place among all, relative.
        folder: Where transcripts go.
        suffix: With its dot.
    """
    return folder / place.parent / (place.name + suffix)


def part_of(folder: Path) -> Path:
    """Return where a file grows: hidden, and nobody else's."""
    return folder / f".harkd-{secrets.token_hex(8)}.part"


def fill(path: Path, data: bytes) -> None:
    """Write data down to the disk, so that no power cut leaves a name without it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what the system says into what can be done about it."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in NO_MORE:
            raise OutputFullError(
                f"{path} cannot be written ({reason})",
                "make room there, or name another folder with --output-dir",
            ) from error
        if isinstance(error, FileExistsError):
            raise OutputError(
                f"{path} is a file, not a folder", "name another folder with --output-dir"
            ) from error
        raise OutputError(
            f"{path} cannot be written ({reason})",
            "check the path and its permissions, or name another folder with --output-dir",
        ) from error
