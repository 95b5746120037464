"""The daemon's log: for a person on a terminal and in the journal, JSON otherwise.

All goes to stderr. The journal has its own times, and takes levels from a prefix (sd-daemon(3)).
JSON follows the Elastic Common Schema, its keys written with dots, and docs/log-schema.json holds
all of them. A record's `fields` (``log.info(…, extra={"fields": {…}})``) become the keys
``harkd.…``. Runs on the thread that logs.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final, TextIO

from harkd import __version__

ECS_VERSION: Final = "8.11.0"
"""The version of the Elastic Common Schema whose fields are used."""
INPUT: ContextVar[str] = ContextVar("input", default="")
"""The input that a line is about; empty where there is one only. See `harkd.threads`."""
COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}
RESET = "\x1b[0m"
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}
"""The journal's numbers for levels (syslog(3)); 2 for what is worse."""


class HumanFormatter(logging.Formatter):
    """``18:04:06 warning: message``; the level only where it is not info.

    Args:
        colour: Whether warnings and errors are coloured.
        timed: Whether a line begins with the time.
    """

    def __init__(self, *, colour: bool, timed: bool = True) -> None:
        super().__init__()
        self._colour = colour
        self._timed = timed

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S ") if self._timed else ""
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        about = f"{name}: " if (name := INPUT.get()) else ""
        line = f"{clock}{level}{about}{record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        colour = COLOURS.get(record.levelno, "") if self._colour else ""
        return f"{colour}{line}{RESET}" if colour else line


class JsonFormatter(logging.Formatter):
    """One object a line, as in docs/log-schema.json.

    Args:
        device_id: Whose log this is; empty where it is nobody's. A record's own field goes before.
    """

    def __init__(self, device_id: str = "") -> None:
        super().__init__()
        self._device_id = device_id

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC)
        entry: dict[str, object] = {
            "@timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "log.level": record.levelname.lower(),
            "message": record.getMessage(),
            "log.logger": record.name,
            "process.pid": record.process,
            "process.thread.name": record.threadName,
            "service.name": "harkd",
            "service.version": __version__,
            "ecs.version": ECS_VERSION,
        }
        device_id = INPUT.get() or self._device_id
        fields: dict[str, object] = {"device_id": device_id} if device_id else {}
        fields |= getattr(record, "fields", {})
        entry |= {f"harkd.{key}": value for key, value in fields.items()}
        if record.exc_info:
            kind, error, _ = record.exc_info
            entry["error.type"] = kind.__name__ if kind else ""
            entry["error.message"] = str(error)
            entry["error.stack_trace"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


class JournalFormatter(logging.Formatter):
    """Another formatter's lines, each with the prefix that gives the journal its level."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines."""
        prefix = f"<{PRIORITIES.get(record.levelno, 2)}>"
        # Not splitlines(): JSON leaves line ends of Unicode as they are, and they end no line here.
        return "\n".join(prefix + line for line in self._inner.format(record).split("\n"))


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Tell whether a stream goes to the journal: $JOURNAL_STREAM names it (systemd.exec(5))."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def set_up(level: str, style: str, stream: TextIO | None = None, device_id: str = "") -> None:
    """Send harkd's log to stderr.

    Args:
        level: debug, info, warning or error.
        style: human, json, or auto: human on a terminal and in the journal, JSON otherwise.
        stream: Where to write instead of stderr.
        device_id: Stands in each line of JSON; empty for none.
    """
    stream = stream or sys.stderr
    journal = is_journal(stream, os.environ)
    formatter: logging.Formatter = JsonFormatter(device_id)
    if style == "human" or (style == "auto" and (journal or stream.isatty())):
        formatter = HumanFormatter(colour=stream.isatty(), timed=not journal)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JournalFormatter(formatter) if journal else formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # libraries speak up only when something is wrong
    logging.getLogger("harkd").setLevel(level.upper())
    logging.captureWarnings(True)
