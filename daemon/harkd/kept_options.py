"""What was set over MQTT, in a file of the state folder, so that it survives a restart.

In: the file. Out: `Kept`, and what was wrong with the file. Written whole or not at all: to a file
beside it, which is synced and renamed. Used by one thread at a time.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import msgspec

from harkd.commands import OPTIONS
from harkd.errors import StateError
from harkd.hotword_list import from_text, to_text
from harkd.live_settings import value_of, with_value
from harkd.settings import HOTWORDS, LEAVES, Settings, silence_fault
from harkd.settings_file import Keys
from harkd.whole_file import write_whole

log = logging.getLogger(__name__)

NAME: Final = "options.json"
MOST_BYTES: Final = 64 * 1024
"""The file has some 300 bytes, 20,000 with many hotwords; what is larger is something else."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What was set over MQTT."""

    listen: bool | None = None
    """Whether the microphone is to be open; None where that was never set."""
    options: Mapping[Keys, int | str] = field(default_factory=dict)
    """Options of the settings."""
    retained: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the retained message that was taken last, by the topic's name."""

    @property
    def muted(self) -> bool:
        """Whether the microphone is to stay closed."""
        return self.listen is False

    def over(self, settings: Settings) -> tuple[Settings, str]:
        """Return the settings with what was set over them, and why something of it was left out.

        That is only so where the settings have changed since and contradict it.
        """
        left_out = ""
        for keys, value in self.options.items():
            changed = with_value(settings, keys, value)
            if fault := silence_fault(changed.endpoint):
                path = ".".join(keys)
                left_out = (
                    f"{path} was set to {value} over MQTT, which the settings contradict: {fault}"
                )
                continue
            settings = changed
        return settings, left_out


class _File(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The file's shape."""

    version: Literal[1] = 1
    listen: bool | None = None
    options: dict[str, int | str] = {}
    retained: dict[str, str] = {}


def from_json(data: bytes) -> Kept:
    """Return what a file says. Raises ValueError, with the reason, where it is not ours."""
    try:
        read = msgspec.json.decode(data, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error) or "it is nested too deeply") from None
    options: dict[Keys, int | str] = {}
    for path, value in read.options.items():
        keys = tuple(path.split("."))
        if keys not in OPTIONS.values():
            raise ValueError(f"{path[:80]!r} is no option that can be set over MQTT")
        try:
            options[keys] = msgspec.convert(value, LEAVES[keys].hint, strict=True)
            if keys == HOTWORDS:
                options[keys] = to_text(from_text(str(value)))
        except (msgspec.ValidationError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None
    return Kept(read.listen, options, read.retained)


def to_json(kept: Kept) -> bytes:
    """Return the file that says this."""
    options = {".".join(keys): value for keys, value in sorted(kept.options.items())}
    written = _File(listen=kept.listen, options=options, retained=dict(kept.retained))
    return msgspec.json.format(msgspec.json.encode(written), indent=2) + b"\n"


class OptionsFile:
    """The file.

    Args:
        folder: The state folder; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / NAME

    @property
    def exists(self) -> bool:
        """Whether anything was kept here."""
        return self._path.exists()

    def read(self) -> tuple[Kept, str]:
        """Return what was kept, and what is wrong with the file, or "". Never raises.

        A file that is damaged, or of another version, is renamed and not read.
        """
        try:
            data = read_regular(self._path)
        except FileNotFoundError:
            return Kept(), ""
        except OSError as error:
            return Kept(), (
                f"what was set over MQTT cannot be read ({self._path}: {error.strerror}) and does "
                "not hold; check the folder's permissions"
            )
        try:
            return from_json(data), ""
        except ValueError as error:
            return Kept(), self._set_aside(str(error))

    def write(self, kept: Kept) -> None:
        """Replace the file, so that a power cut leaves the old one or the new one.

        Raises:
            StateError: It cannot be written.
        """
        try:
            write_whole(self._path, to_json(kept))
        except OSError as error:
            raise StateError(
                f"what was set over MQTT cannot be kept in {self._folder} ({error.strerror}) and "
                "holds until the restart",
                "let harkd write there, free some space, or set state.dir",
            ) from error

    def _set_aside(self, reason: str) -> str:
        aside = free_name(self._path.with_name(f"{NAME}.damaged"))
        text = f"{self._path} is damaged, or of another version ({reason}); what was set over MQTT"
        try:
            self._path.rename(aside)
        except OSError as error:
            return f"{text} does not hold, and the file cannot be renamed ({error.strerror})"
        return f"{text} does not hold any more, and the file is now {aside.name}"


def read_regular(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """Return the beginning of a file; what is no file (a pipe would never end) raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        return os.read(fd, most_bytes + 1)
    finally:
        os.close(fd)


def free_name(path: Path) -> Path:
    """Return the path, with a number after it where something is there already."""
    number, free = 1, path
    while free.exists() or free.is_symlink():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def told_differences(kept: Kept, settings: Settings) -> list[str]:
    """Return a line for each option that was set over MQTT to what the settings do not say."""
    return [
        f"{'.'.join(keys)} is {value}, as it was set over MQTT; the settings say "
        f"{value_of(settings, keys)}"
        for keys, value in kept.options.items()
        if value_of(settings, keys) != value
    ]
