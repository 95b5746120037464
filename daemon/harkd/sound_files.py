"""Finds the sound files that are meant by files and folders, and names their transcripts.

In: paths as they were given. Out: the files, sorted within each folder, and where the transcript of
each belongs. Looks at the file system, but opens nothing. Runs on the calling thread.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harkd.errors import AudioFileError

UNCOMPRESSED = frozenset(
    [".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".rf64", ".w64", ".wav", ".wave"]
)
SUFFIXES = UNCOMPRESSED | frozenset([".flac", ".mp3", ".oga", ".ogg", ".opus", ".sph", ".voc"])
"""What a folder is searched for: the kinds that libsndfile reads and that tell their own rate.
A file that is named itself may be called anything."""


@dataclass(frozen=True, slots=True)
class SoundFile:
    """A file to be transcribed."""

    path: Path
    """Where it is; as it was given, or below a folder that was."""
    place: Path
    """What tells it from the others: the path of its transcript, less the suffix; relative."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found."""

    files: tuple[SoundFile, ...]
    """The files in the order of the arguments; each once."""
    faults: tuple[AudioFileError, ...]
    """Folders that hold no sound file, or that cannot be read."""


def find(named: Sequence[Path]) -> Found:
    """Return the files among the arguments, and the sound files below the folders among them."""
    files: dict[Path, SoundFile] = {}
    faults: list[AudioFileError] = []
    for each, place in zip(named, places(named), strict=True):
        if not each.is_dir():
            files.setdefault(absolute(each), SoundFile(each, place))
            continue
        inside, unread = below(each)
        faults += unread
        for path in inside:
            file = SoundFile(path, place / path.relative_to(each))
            files.setdefault(absolute(path), file)
        if not inside and not unread:
            faults.append(
                AudioFileError(
                    f"{each} holds no sound files",
                    "name files, or a folder with wav, flac, ogg, opus or mp3 files",
                )
            )
    return Found(tuple(files.values()), tuple(faults))


def places(named: Sequence[Path]) -> list[Path]:
    """Return each argument's place among the transcripts.

    The content of a folder that is named alone comes to lie at the top. Else each argument keeps
    its name, or where names are alike, its path below the folder that holds them all.
    """
    whole = [absolute(each) for each in named]
    different = set(whole)
    if len(different) == 1 and named[0].is_dir():
        return [Path()] * len(whole)
    if len({path.name for path in different}) == len(different):
        return [Path(path.name) for path in whole]
    base = os.path.commonpath([path.parent for path in different])
    return [path.relative_to(base) for path in whole]


def absolute(path: Path) -> Path:
    """Return the path from the root on, without ``..``; links stay as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would follow them


def below(folder: Path) -> tuple[list[Path], list[AudioFileError]]:
    """Return the sound files at any depth, sorted, and the folders that cannot be read.

    What is hidden is left out; links to folders are not followed, since they may lead in circles.
    """
    found: list[Path] = []
    faults: list[AudioFileError] = []

    def note(error: OSError) -> None:
        faults.append(
            AudioFileError(
                f"{error.filename} cannot be searched ({error.strerror})", "check its permissions"
            )
        )

    for where, folders, names in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(where, name)
            if is_sound(path):
                found.append(path)
    return found, faults


def is_sound(path: Path) -> bool:
    """Tell by its name whether a folder's file is taken; a pipe or a device never is."""
    if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
        return False
    return path.is_file() or path.is_symlink()  # a link that leads nowhere is worth a word
