"""What is trained on: recordings by source, a part of their speakers held out.

In: lists of recordings, or folders. Out: `Clip` values; their sound is read when it is asked for,
and kept. Runs on the caller's thread.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from harkd.audio import RATE_HZ
from harkd.bench_measure import read_samples
from harkd.errors import AudioFileError
from harkd.sound_files import find
from harkd.speech_list import COLUMNS, header_of, read_list
from harkd_convert.errors import ConvertError
from harkd_convert.moonshine import STEM_SAMPLES

Int16 = NDArray[np.int16]
HELD_SHARE = 0.03
"""Of each source's seconds."""


@dataclass
class Clip:
    """A recording."""

    path: Path
    """The sound file"""
    name: str
    """As the list has it: what the teacher's text is found by"""
    seconds: float
    """As long as the file says"""
    group: str
    """Its folder and source; groups are balanced"""
    speaker: str
    """Held out or trained on as a whole"""
    tokens: list[int] | None = None
    """The teacher's text, once it was asked; None before, and where it came to no end"""
    _samples: Int16 | None = field(default=None, repr=False)

    @property
    def samples(self) -> Int16:
        """Return int16, (n,), 16 kHz, padded to one frame; raises AudioFileError."""
        if self._samples is None:
            read = read_samples(self.path)
            self._samples = np.pad(read, (0, max(0, STEM_SAMPLES - len(read))))
        return self._samples


def read_corpus(paths: Iterable[Path], speaker: str = "") -> list[Clip]:
    """Read lists of recordings and folders of them.

    Args:
        paths: Tab-separated lists as `harkd bench` takes them, or folders.
        speaker: A regular expression for a file's name without ending; what its groups match names
            the speaker. Where it does not match, or is empty, each recording has one of its own.

    Raises:
        HarkdError: A list, a folder or a file in them cannot be used; all faults are named.
        ConvertError: The expression is none.
    """
    try:
        pattern = re.compile(speaker) if speaker else None
    except re.error as error:
        raise ConvertError(
            f'"{speaker}" is no regular expression ({error})', "give one with a group"
        ) from error
    clips, faults = list[Clip](), list[str]()
    for listed in paths:
        for path, name, group in _listed(listed):
            try:
                about = soundfile.info(path)
            except (soundfile.LibsndfileError, TypeError) as error:
                faults.append(f"{path}: {getattr(error, 'error_string', error)}")
                continue
            found = pattern.search(path.stem) if pattern else None
            who = "-".join(each or "" for each in found.groups()) if found else name
            clips.append(Clip(path, name, about.duration, group, f"{group}:{who}"))
    if faults:
        raise AudioFileError(
            f"{len(faults)} recordings cannot be read: " + "; ".join(faults[:8]),
            "mend them, or take them out of the list",
        )
    return clips


def _listed(listed: Path) -> list[tuple[Path, str, str]]:
    """Return the file, the name and the group of each recording."""
    if listed.is_dir():
        found = find([listed])
        files = [each.path for each in found.files]
        return [(each, str(each.relative_to(listed)), listed.name) for each in files]
    recordings = read_list(listed)
    lines = listed.read_text(encoding="utf-8-sig").splitlines()
    columns = header_of(lines[0])
    rows = [line for line in lines[bool(columns) :] if line.strip()]
    out = []
    for recording, line in zip(recordings, rows, strict=True):
        cells = dict(zip(columns or COLUMNS, line.split("\t"), strict=False))
        name = cells["path"].strip()
        out.append((recording.path, name, f"{Path(name).parent} {cells.get('source', '')}".strip()))
    return out


def hold_out(clips: Sequence[Clip], share: float = HELD_SHARE) -> tuple[list[Clip], list[Clip]]:
    """Split into what is trained on and what is not; whole speakers, chosen by their names alone.

    Of a group with one speaker, recordings are held out instead.
    """
    groups = defaultdict[str, list[Clip]](list)
    for clip in clips:
        groups[clip.group].append(clip)
    train, held = list[Clip](), list[Clip]()
    for members in groups.values():
        single = len({each.speaker for each in members}) == 1
        parts = defaultdict[str, list[Clip]](list)
        for clip in members:
            parts[clip.name if single else clip.speaker].append(clip)
        left_s = share * sum(each.seconds for each in members)
        for key in sorted(parts, key=_shuffled):
            seconds = sum(each.seconds for each in parts[key])
            enough = left_s <= 0 or len(parts) == 1
            (train if enough else held).extend(parts[key])
            left_s -= seconds
    return train, held


def _shuffled(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def seconds_of(clips: Iterable[Clip]) -> float:
    """Return how long all of them are."""
    return sum(each.seconds for each in clips)


def groups_of(clips: Iterable[Clip]) -> dict[str, list[Clip]]:
    """Return the clips by group, in the order of first mention."""
    groups = defaultdict[str, list[Clip]](list)
    for clip in clips:
        groups[clip.group].append(clip)
    return dict(groups)


def floats(samples: Int16) -> NDArray[np.float32]:
    """Return int16 as float32, -1…1."""
    return samples.astype(np.float32) / np.float32(32768)


__all__ = [
    "RATE_HZ",
    "Clip",
    "Int16",
    "floats",
    "groups_of",
    "hold_out",
    "read_corpus",
    "seconds_of",
]
