"""What a daemon published, as the chaos test looks at it: states, texts, ends of segments.

Pure: messages in, judgements out. Times are monotonic nanoseconds, but where they say `_at` (UTC).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chaos_faults import ROOT, Fault, Sound
from servers import Received
from speech import plain

HEARS = {"listening", "speech"}
LOST_MOST_S = 5.0
"""So long may the state say that there is no microphone while the sound is good."""
JITTER_S = 0.5
"""A busy machine may be late by so much more."""


@dataclass(frozen=True)
class Told:
    """One message on `state`."""

    at_ns: int
    state: str
    problem: str
    reason: str


def body(message: Received) -> dict[str, Any]:
    """A message's JSON."""
    read: dict[str, Any] = json.loads(message.payload)
    return read


def states(messages: Iterable[Received]) -> list[Told]:
    """All that was told on `state`."""
    return [
        Told(each.received_ns, said["state"], said.get("problem", ""), said.get("reason", ""))
        for each in messages
        if each.topic == f"{ROOT}/state" and (said := body(each))
    ]


def listens_since(told: Sequence[Told]) -> int:
    """When the state became that it listens, in ns; 0 where it is another."""
    since_ns = 0
    for each in reversed(told):
        if each.state not in HEARS:
            break
        since_ns = each.at_ns
    return since_ns


def spans(told: Sequence[Told], from_ns: int, to_ns: int) -> list[tuple[Told, float]]:
    """What was told between two times, each with the seconds for which it was the last word."""
    found = []
    for index, each in enumerate(told):
        until_ns = told[index + 1].at_ns if index + 1 < len(told) else to_ns
        overlap_ns = min(until_ns, to_ns) - max(each.at_ns, from_ns)
        if overlap_ns > 0:
            found.append((each, overlap_ns / 1e9))
    return found


def lies(told: Sequence[Told], fault: Fault, began_ns: int, ended_ns: int) -> list[str]:
    """What the state topic said in a fault's course that was not so."""
    if fault.hides_state:
        return []
    found = []
    if fault.sound is Sound.NONE:
        from_ns = began_ns + int((fault.detect_s + JITTER_S) * 1e9)
        wrong_s = sum(s for each, s in spans(told, from_ns, ended_ns) if each.state in HEARS)
        if wrong_s > JITTER_S:
            found.append(f"said for {wrong_s:.1f} s that it listens, and nothing was heard")
    if fault.sound is Sound.GOOD:
        seen = spans(told, began_ns, ended_ns)
        wrong_s = sum(s for each, s in seen if each.state == "no_microphone")
        if wrong_s > LOST_MOST_S + JITTER_S:
            found.append(f"said for {wrong_s:.1f} s that there is no microphone, and there was")
    for each, _ in spans(told, began_ns, ended_ns):
        untrue = fault.problems and each.problem and each.problem not in fault.problems
        if untrue and each.at_ns >= began_ns and each.state == "no_microphone":
            found.append(f'said "{each.problem}" ({each.reason})')
    return found


def fresh(message: Received, since: datetime) -> bool:
    """Whether a message tells of speech that was heard after a time."""
    if message.retain or not message.topic.startswith(f"{ROOT}/transcript"):
        return False
    kind = message.topic.rpartition("/")[2]
    if kind not in ("transcript", "partial"):
        return False
    said = body(message)
    times = [said["started_at"], said.get("ended_at")]
    return any(datetime.fromisoformat(each) >= since for each in times if each)


def unended(events: Iterable[dict[str, Any]], most_open: int = 1) -> list[str]:
    """Segments that did not end exactly once, of what `harkd run --print` printed.

    The last `most_open` that have begun may still go on.
    """
    ends: Counter[str] = Counter()
    begun: dict[str, None] = {}
    for event in events:
        if event["topic"] in ("transcript", "transcript/rejected"):
            ends[event["id"]] += 1
            begun[event["id"]] = None
        elif event["topic"] == "transcript/partial":
            begun[event["id"]] = None
            if ends[event["id"]]:
                return [f"a partial came after the end of {event['id']}"]
    open_ids = [each for each in begun if not ends[each]]
    found = [f"segment {each} has {count} ends" for each, count in ends.items() if count > 1]
    return found + [f"segment {each} has no end" for each in open_ids[: -most_open or None]]


def known_share(finals: Iterable[str], vocabulary: frozenset[str]) -> float:
    """How many of the finals' words were among those that are spoken, 0…1."""
    heard = [word for text in finals for word in plain(text).split()]
    return sum(word in vocabulary for word in heard) / len(heard) if heard else 0.0


def slope(values: Sequence[float]) -> float:
    """Growth by value, by least squares; 0 for less than two."""
    count = len(values)
    if count < 2:
        return 0.0
    middle, mean = (count - 1) / 2, sum(values) / count
    top = sum((at - middle) * (value - mean) for at, value in enumerate(values))
    return top / sum((at - middle) ** 2 for at in range(count))
