"""From how likely a wake word is, step by step, to when it was said and where it ended. Pure.

In: `Reading`s of a detector, in order. Out: `WordHeard`, and `WordEnded` a little later. Runs on
the listening thread.

A detector's likelihood rises near the end of the word, stays up for a few steps and falls again.
The middle of that plateau follows the word's end more evenly than its beginning does: what is
noticed earlier is also forgotten earlier (docs/accuracy.md, "Wake words").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from harkd.audio import RATE_HZ, Int16

DELAY_SAMPLES: Final = 300 * RATE_HZ // 1000
"""So far is the middle of the plateau behind the word's end; measured, docs/accuracy.md."""
PLATEAU_MOST_SAMPLES: Final = 800 * RATE_HZ // 1000
"""No plateau is waited out for longer."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How likely it is that a wake word ends here."""

    word: str
    """Its name."""
    position: int
    """One past the last sample that counted, from the detector's last `reset` on."""
    likelihood: float
    """0…1."""
    threshold: float
    """From this likelihood on, the word counts as said."""


class WakeDetector(Protocol):
    """Tells how likely wake words are. One for each microphone; used by one thread."""

    def push(self, samples: Int16) -> list[Reading]:
        """Take the next audio, int16, shape (n,), any n; return the readings that it gives."""

    def reset(self) -> None:
        """Forget all audio: the next sample is the first."""


@dataclass(frozen=True, slots=True)
class WordHeard:
    """A wake word was said; told once its likelihood rises no more."""

    word: str
    """Its name."""
    score: float
    """The likelihood then, 0…1."""


@dataclass(frozen=True, slots=True)
class WordEnded:
    """It is known where the word ended."""

    position: int
    """One past its last sample, as far as can be told, from the detector's last `reset` on."""


class WordTracker:
    """Follows the readings of a detector from one `reset` to the next."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """The next reading is the first."""
        self._word = ""
        self._begin = self._last = 0  # of the plateau, so far
        self._best = 0.0
        self._told = False

    @property
    def within_word(self) -> bool:
        """True from the first likely reading until `reset`."""
        return bool(self._word)

    def follow(self, reading: Reading) -> WordHeard | WordEnded | None:
        """Take the next reading; return what it tells. After `WordEnded`, call `reset`."""
        likely = reading.likelihood >= reading.threshold
        if not self._word and likely:
            self._word, self._begin = reading.word, reading.position
        elif reading.word != self._word:
            return None
        if likely:
            self._last = reading.position
        if not self._told and reading.likelihood <= self._best:
            return self._heard()
        self._best = max(self._best, reading.likelihood)
        lasts = reading.position - self._begin >= PLATEAU_MOST_SAMPLES
        return self._ended() if self._told and (lasts or not likely) else None

    def finish(self) -> list[WordHeard | WordEnded]:
        """No more readings come: return what is known of a word that was not told to its end."""
        if not self._word:
            return []
        return [self._ended()] if self._told else [self._heard(), self._ended()]

    def _heard(self) -> WordHeard:
        self._told = True
        return WordHeard(self._word, self._best)

    def _ended(self) -> WordEnded:
        return WordEnded(max(0, (self._begin + self._last) // 2 - DELAY_SAMPLES))
