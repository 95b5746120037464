"""The daemon's log: for a person on a terminal and in the journal, JSON otherwise.

All goes to stderr. The journal has its own times, and takes levels from a prefix (sd-daemon(3)). A
record's `fields` (``log.info(…, extra={"fields": {…}})``) become JSON keys.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

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
    """One object a line: time, level, logger, message, and the record's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC)
        entry: dict[str, object] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if name := INPUT.get():
            entry["input"] = name
        for key, value in getattr(record, "fields", {}).items():
            entry.setdefault(key, value)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


class JournalFormatter(logging.Formatter):
    """Another formatter's lines, each with the prefix that gives the journal its level."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines."""
        prefix = f"<{PRIORITIES.get(record.levelno, 2)}>"
        return "\n".join(prefix + line for line in self._inner.format(record).splitlines())


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Tell whether a stream goes to the journal: $JOURNAL_STREAM names it (systemd.exec(5))."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def set_up(level: str, style: str, stream: TextIO | None = None) -> None:
    """Send harkd's log to stderr.

    Args:
        level: debug, info, warning or error.
        style: human, json, or auto: human on a terminal and in the journal, JSON otherwise.
        stream: Where to write instead of stderr.
    """
    stream = stream or sys.stderr
    journal = is_journal(stream, os.environ)
    formatter: logging.Formatter = JsonFormatter()
    if style == "human" or (style == "auto" and (journal or stream.isatty())):
        formatter = HumanFormatter(colour=stream.isatty(), timed=not journal)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JournalFormatter(formatter) if journal else formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # libraries speak up only when something is wrong
    logging.getLogger("harkd").setLevel(level.upper())
    logging.captureWarnings(True)
