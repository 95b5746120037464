"""What was heard last, in memory, for who asks for it: bounded, and only where that is switched on.

In: each segment's audio and how it ended, from the recognition thread. Out: the last of them, on
any thread. Nothing here touches the disk.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Final

from harkd import events
from harkd.audio import RATE_HZ, Int16
from harkd.recognizer.protocol import Hypothesis
from harkd.settings import Settings

MOST_S: Final = 300
"""So many seconds are kept in all, however few utterances they are: 9.6 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class HeardUtterance:
    """One segment, as the recognizer had it."""

    samples: Int16
    """int16, shape (n,), 16 kHz mono: from the pre-roll to the end, a copy."""
    end: events.Final | events.Rejected
    """How it ended."""
    hypothesis: Hypothesis | None
    """What was heard over all of it, rejected or not; None where it was not recognized."""
    settings: Settings
    """Those that it was heard with."""

    @property
    def duration_s(self) -> float:
        """Seconds of audio."""
        return len(self.samples) / RATE_HZ


class RecentUtterances:
    """The last utterances.

    Args:
        most: So many are kept.
        most_s: And so many seconds of audio; the last utterance is kept in any case.
    """

    def __init__(self, most: int, most_s: float = MOST_S) -> None:
        self._most, self._most_s = most, most_s
        self._held: deque[HeardUtterance] = deque()
        self._held_s = 0.0
        self._lock = threading.Lock()

    def add(self, utterance: HeardUtterance) -> None:
        """Keep one more; the oldest give way."""
        with self._lock:
            self._held.append(utterance)
            self._held_s += utterance.duration_s
            while len(self._held) > self._most or (
                self._held_s > self._most_s and len(self._held) > 1
            ):
                self._held_s -= self._held.popleft().duration_s

    def latest(self, count: int) -> list[HeardUtterance]:
        """Return the last `count` of them, or as many as there are; the oldest first."""
        with self._lock:
            return list(self._held)[-count:]
