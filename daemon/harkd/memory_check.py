"""Compares what a model needs with what is free, before it is loaded, and says what to do.

In: an installed model, the settings, the rooms of this process. Out: a `Verdict`; where it does not
fit, `ModelTooLargeError` with a model that does. Reads files only; runs on the caller's thread.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from harkd.errors import ModelTooLargeError
from harkd.memory import Kind, Room, rooms
from harkd.memory_need import MB, PHRASES_MB, Need, need_of
from harkd.model_package import Manifest
from harkd.model_store import ModelStore, store_of
from harkd.settings import Settings

log = logging.getLogger(__name__)

WHOLE: Final = (Kind.MACHINE, Kind.CGROUP)
"""Limits that count all processes of the daemon, and what they use rather than map."""
MARGIN: Final = 1.2
"""Less than a fifth more than the need is close."""
MOST_THREADS: Final = 4
"""As `recognizer.onnx` chooses, which takes its time to load."""
SHORTEST_S: Final = 5
"""An utterance that is cut before is no help."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a model fits into the memory that is free."""

    need: Need | None
    """None where it is not known; then it fits."""
    room: Room | None
    """The limit that leaves least; None where nothing is known."""
    too_little: bool
    """It cannot run, or would be ended in a long utterance."""
    close: bool
    """It can, but little more may come, or it takes swap."""

    @property
    def needed_bytes(self) -> int:
        """What the need is by the count of the limit that binds."""
        if self.need is None:
            return 0
        if self.close and self.room and self.room.kind in WHOLE:
            return self.need.most_bytes
        return counted(self.need, self.room.kind) if self.room else self.need.least_bytes

    def __str__(self) -> str:
        if self.need is None:
            return "what it needs is not known"
        needed = f"needs {mb(self.needed_bytes)} more"
        if self.room is None:
            return needed
        swap = f" and {mb(self.room.swap_bytes)} of swap" if self.room.swap_bytes else ""
        return f"{needed}, {mb(self.room.free_bytes)}{swap} {are_free(self.room)}"


def judge(need: Need | None, found: Sequence[Room]) -> Verdict:
    """Compare a need with all rooms. Pure."""
    if need is None or not found:
        return Verdict(need, None, too_little=False, close=False)

    def spare(room: Room) -> int:
        return room.most_bytes - counted(need, room.kind)

    hard = [room for room in found if not room.soft]
    if hard and spare(tightest := min(hard, key=spare)) < 0:
        return Verdict(need, tightest, too_little=True, close=False)

    def calm(room: Room) -> float:
        most = need.most_bytes if room.kind in WHOLE else 0
        return room.free_bytes - MARGIN * max(counted(need, room.kind), most)

    tightest = min(found, key=calm)
    return Verdict(need, tightest, too_little=False, close=calm(tightest) < 0)


def counted(need: Need, kind: Kind) -> int:
    """Return a need as a kind of limit counts it, in bytes."""
    return need.least_bytes if kind in WHOLE else need.own_bytes


def verdict_of(
    manifest: Manifest, settings: Settings, found: Sequence[Room], streams: int = 1
) -> Verdict:
    """Return whether a model fits with these settings."""
    return judge(need_with(manifest, settings, streams), found)


def need_with(manifest: Manifest, settings: Settings, streams: int = 1) -> Need | None:
    """Return what a model needs with these settings; None where that is not known."""
    cores = len(os.sched_getaffinity(0))
    threads = settings.recognizer.threads or max(1, min(MOST_THREADS, cores - 1))
    return need_of(manifest, settings.endpoint, threads, streams)


def require_memory(
    manifest: Manifest, settings: Settings, streams: int = 1, *, phrases: bool = False
) -> None:
    """Refuse a model that does not fit, and warn where it hardly does.

    Args:
        manifest: The model's.
        settings: `recognizer`, `endpoint` and where models are.
        streams: Utterances that may be recognized at the same time.
        phrases: Whether phrases will be looked for.

    Raises:
        ModelTooLargeError: It needs more than is free.
    """
    if not settings.recognizer.check_memory:
        return
    found, besides = rooms(), ""
    if phrases:
        kept_bytes = round(PHRASES_MB * MB)
        found = [replace(room, free_bytes=max(0, room.free_bytes - kept_bytes)) for room in found]
        besides = f", besides {mb(kept_bytes)} for phrases"
    verdict = verdict_of(manifest, settings, found, streams)
    if verdict.too_little:
        raise ModelTooLargeError(
            f"not enough memory: the model {manifest.name} {verdict}{besides}",
            f"{mend(manifest, settings, found, verdict)}; recognizer.check_memory: false lets it "
            "try all the same",
        )
    if verdict.close:
        log.warning("little memory is left: the model %s %s%s", manifest.name, verdict, besides)


def mend(manifest: Manifest, settings: Settings, found: Sequence[Room], verdict: Verdict) -> str:
    """Say what to do where a model does not fit: another model, shorter utterances, more room."""
    ways = []
    if other := smaller_model(manifest, settings, found):
        ways.append(other)
    if seconds := shorter_utterance_s(manifest, settings, found):
        ways.append(f"set endpoint.max_utterance_s: {seconds}")
    if verdict.room:
        ways.append(more_room(verdict.room))
    return ", or ".join(ways)


def smaller_model(manifest: Manifest, settings: Settings, found: Sequence[Room]) -> str:
    """Say which other model of the same language fits, an installed one first; empty for none."""
    store = store_of(settings)
    own = need_with(manifest, settings)
    fitting = [
        (installed, size, each.name)
        for installed, each in candidates(store)
        if each.languages[0] == manifest.languages[0] and own
        if (its := need_with(each, settings))
        if (size := its.least_bytes) < own.least_bytes and not judge(its, found).too_little
    ]
    if not fitting:
        return ""
    installed, size, name = max(fitting)  # the largest is the best, as a rule
    if installed:
        return f"set recognizer.model: {name}, which is installed ({mb(size)})"
    return f"run `harkd models pull {name}` and set recognizer.model: {name} ({mb(size)})"


def candidates(store: ModelStore) -> list[tuple[bool, Manifest]]:
    """Return each model that is installed and whole, or else can be pulled; True where it is."""
    stored = {each.name: each.manifest for each in store.installed() if not each.faults}
    here = [(True, manifest) for manifest in stored.values() if manifest]
    there = [
        (False, entry.manifest) for name, entry in store.catalogue.items() if name not in stored
    ]
    return here + there


def shorter_utterance_s(manifest: Manifest, settings: Settings, found: Sequence[Room]) -> int:
    """Return the most seconds of an utterance with which a model fits; 0 where none helps."""
    longest = min(settings.endpoint.max_utterance_s, manifest.limits.max_segment_s)
    for seconds in range(int(longest) - 1, SHORTEST_S - 1, -1):
        endpoint = replace(settings.endpoint, max_utterance_s=float(seconds))
        if not verdict_of(manifest, replace(settings, endpoint=endpoint), found).too_little:
            return seconds
    return 0


def more_room(room: Room) -> str:
    """Say how a limit is raised."""
    if room.kind is Kind.MACHINE:
        return "close other programs"
    if room.kind is Kind.CGROUP:
        unit = room.where.rpartition("/")[2]
        if unit.endswith((".service", ".slice")):
            return f"raise MemoryMax= of {unit} (systemctl edit {unit})"
        return "give the container more (--memory; mem_limit in Compose)"
    if room.setting == "RLIMIT_AS":
        return "raise the limit of addresses (ulimit -v; LimitAS= in systemd)"
    if room.setting == "RLIMIT_DATA":
        return "raise the limit of data (ulimit -d; LimitDATA= in systemd)"
    return "let the system promise more memory (vm.overcommit_memory)"


def are_free(room: Room) -> str:
    """Say where so much is free."""
    limit = mb(room.limit_bytes)
    if room.kind is Kind.MACHINE:
        return f"are free on this machine of {limit}"
    if room.kind is Kind.CGROUP:
        whose = "this container" if room.where == "/" else f"the cgroup {room.where}"
        return f"are free in {whose} ({room.setting}: {limit})"
    return f"are free below {room.setting} ({limit})"


def mb(count: int) -> str:
    """Return bytes as MB of 10^6 bytes."""
    return f"{count / MB:.0f} MB"
