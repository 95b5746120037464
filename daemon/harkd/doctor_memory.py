"""Looks whether the model has room in memory. Reads files only; runs on the caller's thread."""

from __future__ import annotations

from harkd.doctor_check import Check, Status
from harkd.errors import ModelTooLargeError
from harkd.memory import rooms
from harkd.memory_check import mend, require_memory, verdict_of
from harkd.model_store import InstalledModel
from harkd.settings import Settings


def check_memory(installed: InstalledModel, settings: Settings) -> Check:
    """Compare what the model needs with what is free."""
    manifest = installed.manifest
    try:
        require_memory(manifest, settings)
    except ModelTooLargeError as error:
        return Check("memory", Status.FAIL, error.message, error.mend)
    found = rooms()
    verdict = verdict_of(manifest, settings, found)
    what = f"{manifest.name} {verdict}"
    if verdict.too_little:
        off = f"{what}; recognizer.check_memory is off"
        return Check("memory", Status.WARN, off, mend(manifest, settings, found, verdict))
    if verdict.close:
        return Check(
            "memory",
            Status.WARN,
            f"{what}: hardly enough",
            mend(manifest, settings, found, verdict),
        )
    return Check("memory", Status.OK, what)
