"""What a check of `harkd doctor` finds. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    """What: system, clock, sound, microphone, memory, device, model, broker, tls."""
    status: Status
    """How it is."""
    what: str
    """What was found."""
    mend: str = ""
    """What to do; empty where nothing is to be done."""
