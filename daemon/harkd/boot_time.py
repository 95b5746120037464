"""Time since this machine started, suspend included, and which start it was. Any thread.

A Pi has no clock battery: its time of day may be wrong by hours after a start, and jumps when it
meets a time server. CLOCK_BOOTTIME does neither, but says nothing of what was before the start.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def now_ns() -> int:
    """Return nanoseconds since the machine started, with the time in which it was asleep."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Return what names this start of the machine; unlike any other where nobody tells."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return f"unknown-{uuid.uuid4()}"
