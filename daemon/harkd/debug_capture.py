"""The audio of the last utterances on the disk, when somebody asks for it: `save_audio`.

In: utterances, from the recognition thread, and requests. Out: a WAV file and a JSON file for each
in ``<state.dir>/debug``, which only we may read, and a message that says so. Off by default:
then nothing is kept, neither here nor there. Files are written and removed on the `control` thread.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import time
import wave
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import msgspec

from harkd import events
from harkd.audio import RATE_HZ
from harkd.errors import CommandError, StateError
from harkd.messages import About, Message, utc
from harkd.recent_utterances import HeardUtterance, RecentUtterances
from harkd.settings import DebugSettings, Settings

log = logging.getLogger(__name__)

FOLDER: Final = "debug"
"""Its name in the state folder."""
OUR_NAME: Final = re.compile(r"([0-9]{8}T[0-9]{6}Z-[0-9A-Z]{26})\.(wav|json)(\.new)?")
"""Only such files are ever removed."""
DAY_S: Final = 86400


class DebugCapture:
    """Keeps the last utterances, and saves them.

    Args:
        settings: `debug`, and `mqtt.open_text`, are used.
        state_dir: Where our folder is.
        about: What messages say of this daemon.
        send: Takes the message that says what was saved.
        now_s: Tells the time of day, by which files are too old, in seconds.
    """

    def __init__(
        self,
        settings: Settings,
        state_dir: Path,
        about: Callable[[], About],
        send: Callable[[Message], None],
        *,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.folder = state_dir / FOLDER
        """Where the files are."""
        self._settings = settings.debug
        self._open_text = settings.mqtt.open_text
        self._about, self._send, self._now_s = about, send, now_s
        self._recent = RecentUtterances(settings.debug.utterances)
        self._unswept = False

    @property
    def keep(self) -> Callable[[HeardUtterance], None] | None:
        """What takes each utterance; None where nothing is to be kept."""
        return self._recent.add if self._settings.utterances else None

    def save(self, count: int | None) -> None:
        """Write the last utterances, or fewer, and tell what was written.

        Raises:
            CommandError: Nothing is kept.
            StateError: The disk does not take them.
        """
        if not self._settings.utterances:
            raise CommandError(
                "no audio is kept: debug.utterances is 0",
                "set it to 10, restart harkd, and speak: then the last 10 utterances can be saved",
            )
        most = min(count or self._settings.utterances, self._settings.keep_files)
        self.sweep()
        names = [self._write(utterance) for utterance in self._recent.latest(most)]
        self.sweep()
        log.info("saved the audio of %d utterances in %s", len(names), self.folder)
        about = self._about()
        body = {"folder": str(self.folder), "count": len(names), "files": names}
        self._send(Message(about.topic("debug/saved"), msgspec.json.encode(body), 1))

    def sweep(self) -> None:
        """Remove what is too old, and what is too much; never raises."""
        try:
            sweep(self.folder, self._settings, self._now_s())
            self._unswept = False
        except OSError as error:
            level = logging.DEBUG if self._unswept else logging.WARNING
            log.log(level, "old recordings cannot be removed from %s: %s", self.folder, error)
            self._unswept = True

    def _write(self, utterance: HeardUtterance) -> str:
        """Write an utterance and what is known of it; return the WAV file's name."""
        started_at, ident = utterance.end.started_at, utterance.end.id
        path = self.folder / f"{started_at:%Y%m%dT%H%M%SZ}-{ident}.wav"
        about = described(utterance, self._about(), open_text=self._open_text)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.folder.stat().st_mode & 0o077:
                self.folder.chmod(0o700)
            write(path, wav(utterance))
            as_json = msgspec.json.format(msgspec.json.encode(about))
            write(path.with_suffix(".json"), as_json + b"\n")
        except OSError as error:
            raise StateError(
                f"recordings cannot be written to {self.folder} ({error.strerror or error})",
                "make room there, or let harkd's user write there, or name another folder in "
                "state.dir",
            ) from error
        return path.name


def write(path: Path, data: bytes) -> None:
    """Replace a file that only we may read. Raises OSError; then it stays as it was.

    Not synced, as `whole_file` does: muting would wait behind that, on the same thread, and a
    recording that a power cut takes is no loss.
    """
    new = path.with_name(f"{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(new, flags, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise


def wav(utterance: HeardUtterance) -> bytes:
    """Return a WAV file: 16 kHz, mono, 16 bits."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE_HZ)
        sound.writeframes(utterance.samples.astype("<i2").tobytes())
    return file.getvalue()


def described(utterance: HeardUtterance, about: About, *, open_text: bool) -> dict[str, Any]:
    """Return what is known of an utterance; without its words where they are private."""
    end, hypothesis, settings = utterance.end, utterance.hypothesis, utterance.settings
    final = isinstance(end, events.Final)
    facts: dict[str, Any] = {
        "id": end.id,
        "device_id": about.device_id,
        "event_type": "final" if final else "rejected",
        "reason": "" if isinstance(end, events.Final) else end.reason.value,
    }
    if open_text:
        facts["text"] = hypothesis.text if hypothesis else None
    return facts | {
        "confidence": round(hypothesis.confidence, 3) if hypothesis else None,
        "started_at": utc(end.started_at),
        "duration_s": round(end.duration_s, 2),
        "audio_s": round(utterance.duration_s, 3),
        "model": about.model,
        "version": about.version,
        "settings": {
            name: asdict(getattr(settings, name))
            for name in ("audio", "vad", "endpoint", "recognizer")
        },
    }


def sweep(folder: Path, settings: DebugSettings, now_s: float) -> None:
    """Remove recordings that are too old or too many, the oldest first. Raises OSError."""
    written: dict[str, float] = {}  # when the last file of each recording was written
    paths: dict[str, list[str]] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not (ours := OUR_NAME.fullmatch(entry.name)):
                    continue
                stem = ours[1]
                at = entry.stat(follow_symlinks=False).st_mtime
                written[stem] = max(at, written.get(stem, at))
                paths.setdefault(stem, []).append(entry.path)
    except FileNotFoundError:
        return
    oldest_s = now_s - settings.keep_days * DAY_S
    newest_first = sorted(written, key=lambda stem: (written[stem], stem), reverse=True)
    for place, stem in enumerate(newest_first):
        if place >= settings.keep_files or written[stem] < oldest_s:
            for path in paths[stem]:
                Path(path).unlink(missing_ok=True)
