"""The daemon's log: one readable line on a terminal, one JSON object a line otherwise.

Both go to stderr. A record's `fields` (``log.info(…, extra={"fields": {…}})``) become JSON keys.
"""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

INPUT: ContextVar[str] = ContextVar("input", default="")
"""The input that a line is about; empty where there is one only. See `harkd.threads`."""
COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}
RESET = "\x1b[0m"


class HumanFormatter(logging.Formatter):
    """``18:04:06 WARNING message``; the level only where it is not info."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        about = f"{name}: " if (name := INPUT.get()) else ""
        line = f"{clock} {level}{about}{record.getMessage()}"
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


def set_up(level: str, style: str, stream: TextIO | None = None) -> None:
    """Send harkd's log to stderr.

    Args:
        level: debug, info, warning or error.
        style: human, json, or auto: human on a terminal, JSON otherwise.
        stream: Where to write instead of stderr.
    """
    stream = stream or sys.stderr
    human = style == "human" or (style == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(HumanFormatter(colour=stream.isatty()) if human else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # libraries speak up only when something is wrong
    logging.getLogger("harkd").setLevel(level.upper())
    logging.captureWarnings(True)
