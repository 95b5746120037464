"""Phrases that were set over MQTT, in a file of the state folder, so that they survive a restart.

In: the file. Out: `KeptPhrases`, and what was wrong with the file. Beside `kept_options`, since it
is larger by far and changes for other reasons. Used by one thread at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from harkd.errors import StateError
from harkd.kept_options import free_name, read_regular
from harkd.phrases.sent import MOST_BYTES, Mode, Scope, Sent
from harkd.whole_file import write_whole

NAME: Final = "phrases.json"
WHAT: Final = "the phrases that were set over MQTT"
MOST_FILE_BYTES: Final = 4 * MOST_BYTES
"""As JSON, a text is twice as long at most, but for characters that YAML does not allow."""


@dataclass(frozen=True, slots=True)
class KeptPhrases:
    """What was set over MQTT."""

    sent: Sent | None = None
    """What is in force; None for the settings alone."""
    retained: str = ""
    """SHA-256 of the retained message that was taken last."""


class _File(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The file's shape."""

    version: Literal[1] = 1
    text: str = ""
    scope: Scope = "nothing"
    mode: Mode | Literal[""] = ""
    retained: str = ""


class PhrasesFile:
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

    def read(self) -> tuple[KeptPhrases, str]:
        """Return what was kept, and what is wrong with the file, or "". Never raises.

        A file that is damaged, or of another version, is renamed and not read.
        """
        try:
            data = read_regular(self._path, MOST_FILE_BYTES)
        except FileNotFoundError:
            return KeptPhrases(), ""
        except OSError as error:
            return KeptPhrases(), (
                f"{WHAT} cannot be read ({self._path}: {error.strerror}) and are not in force; "
                "check the folder's permissions"
            )
        try:
            found = msgspec.json.decode(data, type=_File)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return KeptPhrases(), self._set_aside(str(error) or "it is nested too deeply")
        sent = Sent(text=found.text, scope=found.scope, mode=found.mode) if found.text else None
        return KeptPhrases(sent, found.retained), ""

    def write(self, kept: KeptPhrases) -> None:
        """Replace the file, so that a power cut leaves the old one or the new one.

        Raises:
            StateError: It cannot be written.
        """
        sent = kept.sent or Sent(text="", scope="nothing")
        written = _File(text=sent.text, scope=sent.scope, mode=sent.mode, retained=kept.retained)
        try:
            write_whole(self._path, msgspec.json.encode(written))
        except OSError as error:
            raise StateError(
                f"{WHAT} cannot be kept in {self._folder} ({error.strerror}) and hold until the "
                "restart",
                "let harkd write there, free some space, or set state.dir",
            ) from error

    def _set_aside(self, reason: str) -> str:
        aside = free_name(self._path.with_name(f"{NAME}.damaged"))
        text = f"{self._path} is damaged, or of another version ({reason}); {WHAT}"
        try:
            self._path.rename(aside)
        except OSError as error:
            return f"{text} are not in force, and the file cannot be renamed ({error.strerror})"
        return f"{text} are not in force any more, and the file is now {aside.name}"
