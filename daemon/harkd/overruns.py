"""Audio that is lost on its way, or comes late: when that is worth telling. Pure.

In: for each block its time, whether samples were lost before it, and its lag. Out: the reason for
`problem` `overruns`, and lines for the log. On the listening thread.
"""

from __future__ import annotations

import logging
from collections import deque

log = logging.getLogger(__name__)

KIND = "overruns"
GAPS, WITHIN_S = 3, 10.0
"""So many gaps within so long are a problem,"""
OVER_S = 30.0
"""which is over when none came for so long."""
QUIET_S = 600.0
"""After so long without one, the next gap is in the log again."""
LATE_S, LATE_FOR_S = 3.0, 5.0
"""Audio that is heard so late for so long is a problem, too."""
MEND = (
    "raise audio.latency_ms, and look what else keeps this machine busy (its power supply and "
    "its temperature, too, on a Raspberry Pi)"
)


class Overruns:
    """Watches for lost and late audio."""

    def __init__(self) -> None:
        self._gaps: deque[float] = deque(maxlen=GAPS)
        self._losing = False
        self._late_since: float | None = None
        self._late = False
        self.reason = ""
        """What is wrong and how to mend it; empty where nothing is."""
        self.open = False
        """Whether a block that came whole and in time is of interest, too."""

    def note(self, now_s: float, *, gap: bool, lag_s: float) -> None:
        """Follow a block.

        Args:
            now_s: When it was taken, in seconds of any steady clock.
            gap: Whether samples were lost right before it.
            lag_s: How far its end is behind its capture time.
        """
        if gap:
            self._note_gap(now_s)
        elif self._losing and now_s - self._gaps[-1] >= OVER_S:
            self._losing = False
            log.info("no audio was lost for %.0f s", OVER_S)
        self._note_lag(now_s, lag_s)
        if self._losing:
            self.reason = f"audio is being lost between the sound card and harkd; {MEND}"
        elif self._late:
            self.reason = f"this machine is too slow: audio is heard seconds late; {MEND}"
        else:
            self.reason = ""
        self.open = self._losing or self._late_since is not None

    def _note_gap(self, now_s: float) -> None:
        if not self._gaps or now_s - self._gaps[-1] > QUIET_S:
            log.warning("audio was lost between the sound card and harkd; %s", MEND)
        self._gaps.append(now_s)
        if len(self._gaps) == GAPS and now_s - self._gaps[0] <= WITHIN_S:
            self._losing = True

    def _note_lag(self, now_s: float, lag_s: float) -> None:
        if lag_s <= LATE_S:
            self._late_since = None
            if self._late:
                self._late = False
                log.info("audio is heard in time again")
            return
        if self._late_since is None:
            self._late_since = now_s
        if not self._late and now_s - self._late_since >= LATE_FOR_S:
            self._late = True
            log.warning("this machine is too slow: audio is heard %.0f s late; %s", lag_s, MEND)
