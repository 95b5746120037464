"""A list of recordings, with what is said in them: the input of ``harkd bench``.

In: a tab-separated file. Out: `Recording` values, in its order. Reads the list, and only looks
whether the recordings are there. Runs on the calling thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harkd.errors import HarkdError

COLUMNS = ("path", "seconds", "rate", "text", "source")
"""What the columns are where the first line does not name them."""
MOST_FAULTS_SHOWN = 10
MEND = (
    "each line is the recording's path from the list's folder, then, after tabs and if known, its "
    "seconds, its rate and what is said in it; a first line with the columns' names allows any "
    "order"
)

T = TypeVar("T")


class SpeechListError(HarkdError):
    """A list cannot be used; `message` has its faults, one a line."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording."""

    path: Path
    """The sound file."""
    category: str = ""
    """The first folder of the path in the list; empty where there is none."""
    text: str | None = None
    """What is said in it; None where that is not known."""


def read_list(path: Path) -> list[Recording]:
    """Return the recordings of a list.

    Raises:
        SpeechListError: It cannot be read, holds nothing, or has faulty lines, which are named.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SpeechListError(f"{path} is no text in UTF-8", "name a tab-separated list") from error
    except OSError as error:
        raise SpeechListError(
            f"{path} cannot be read ({error.strerror})", "check the path"
        ) from error
    columns = header_of(lines[0]) if lines else None
    recordings: list[Recording] = []
    faults: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or (number == 1 and columns):
            continue
        try:
            recordings.append(recording_of(line, path.parent, columns or COLUMNS, columns is None))
        except ValueError as error:
            faults.append(f"{path}, line {number}: {error}")
    if faults:
        more = len(faults) - MOST_FAULTS_SHOWN
        shown = faults[:MOST_FAULTS_SHOWN] + ([f"and {more} lines more"] if more > 0 else [])
        raise SpeechListError("\n".join(shown), MEND)
    if not recordings:
        raise SpeechListError(f"{path} names no recordings", MEND)
    return recordings


def header_of(line: str) -> tuple[str, ...] | None:
    """Return the names of the columns, if this line names them."""
    names = tuple(name.strip().lower() for name in line.split("\t"))
    return names if "path" in names else None


def recording_of(line: str, folder: Path, columns: Sequence[str], by_place: bool) -> Recording:
    """Return the recording that a line names; `by_place` where no header told what is where.

    Raises:
        ValueError: The line is faulty; with what is wrong.
    """
    cells = dict(zip(columns, (cell.strip() for cell in line.split("\t")), strict=False))
    named = Path(cells.get("path", ""))
    if not cells.get("path"):
        raise ValueError("it has no path")
    if by_place and not is_number(cells.get("seconds", "")):
        raise ValueError(f'its second column is to be seconds, not "{cells["seconds"]}"')
    try:
        if not (folder / named).is_file():
            raise ValueError(f"{folder / named} does not exist")
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise ValueError(f"{folder / named} cannot be reached ({error.strerror})") from error
    category = named.parts[0] if len(named.parts) > 1 and not named.is_absolute() else ""
    return Recording(folder / named, category, cells.get("text") or None)


def is_number(text: str) -> bool:
    """Tell whether a cell is empty or a number."""
    try:
        float(text or 0)
    except ValueError:
        return False
    return True


def spread(items: Sequence[T], limit: int | None) -> list[T]:
    """Return so many items, evenly over the whole: categories keep their share."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[at * len(items) // limit] for at in range(limit)]
