"""What limits do to the cases of calibration: false finals, missed utterances, word errors.

In: `Case` values. Out: figures. Judges with the daemon's own `verdict`, so that what is counted is
what the daemon does.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from calibrate_features import Case, Piece, seed_of

from harkd.audio import RATE_HZ
from harkd.events import RejectReason
from harkd.recognizer.protocol import Hypothesis
from harkd.recognizer.silero import CHUNK_SAMPLES
from harkd.second_look import voice_of
from harkd.settings import RecognizerSettings, VadSettings
from harkd.verdict import CALIBRATED, Limits, Voice, has_voice, rejection, spoken, too_short

MIN_SPEECH_MS = VadSettings().min_speech_ms
PHANTOM_RECORDINGS = 2
"""A text that noise gives in so many recordings is a phantom."""
FOLDS = 10
MISSED_COSTS = 1.0
"""One per cent of all utterances missed is as bad as so many false finals in an hour."""


@dataclass(frozen=True)
class Strictness:
    """All that calibration may change."""

    min_voice: float = VadSettings().min_voice
    """As the setting; None in its place means no second look"""
    min_confidence: float = RecognizerSettings().min_confidence
    """As the setting"""
    limits: Limits = CALIBRATED
    """The others"""
    second_look: bool = True
    """As the setting"""


NOW = Strictness()
BEFORE = Strictness(min_confidence=0.35, second_look=False)
"""How harkd judged before there was a second look."""


@dataclass(frozen=True)
class Judged:
    """A piece, ready to be judged many times."""

    piece: Piece
    hypothesis: Hypothesis
    voice: Voice

    @classmethod
    def of(cls, piece: Piece) -> Judged:
        """Return a piece with what the verdict asks of it."""
        sure = float(np.exp(np.mean(piece.log_probs))) if piece.tokens else 0.0
        voice = voice_of(
            np.array(piece.probabilities, np.float64), CHUNK_SAMPLES / RATE_HZ, piece.audio_s
        )
        return cls(piece, Hypothesis(piece.text, sure, looped=piece.looped), voice)

    def reason(self, how: Strictness) -> RejectReason | None:
        """Return why it is rejected, or None."""
        if too_short(self.piece.voiced_ms, MIN_SPEECH_MS):
            return RejectReason.TOO_SHORT
        if not how.second_look:
            return rejection(self.hypothesis, how.min_confidence)
        if not has_voice(self.voice, how.min_voice, how.limits):
            return RejectReason.NO_VOICE
        return rejection(self.hypothesis, how.min_confidence, self.voice, how.limits)


@dataclass(frozen=True)
class Heard:
    """A case, ready to be judged many times."""

    case: Case
    judged: tuple[Judged, ...] = field(repr=False)

    @classmethod
    def of(cls, case: Case) -> Heard:
        """Return a case with its pieces."""
        return cls(case, tuple(map(Judged.of, case.pieces)))

    def texts(self, how: Strictness) -> list[str]:
        """Return the finals."""
        return [each.hypothesis.text for each in self.judged if each.reason(how) is None]

    def reasons(self, how: Strictness) -> Counter[str]:
        """Return the rejections."""
        found = [reason for each in self.judged if (reason := each.reason(how))]
        return Counter(reason.value for reason in found)


def false_per_hour(noise: Sequence[Heard], how: Strictness) -> float:
    """Return finals per hour of noise."""
    hours = sum(each.case.seconds for each in noise) / 3600
    return sum(len(each.texts(how)) for each in noise) / hours if hours else 0.0


def missed(speech: Sequence[Heard], how: Strictness) -> int:
    """Return the recordings of which nothing was published."""
    return sum(not each.texts(how) for each in speech)


def missed_share(speech: Sequence[Heard], how: Strictness) -> float:
    """Return their share, 0…1."""
    return missed(speech, how) / len(speech) if speech else 0.0


def recognized_s(heard: Sequence[Heard], how: Strictness) -> float:
    """Return the seconds of audio that go through the recognizer."""
    unheard = (RejectReason.TOO_SHORT, RejectReason.NO_VOICE)
    return sum(
        each.piece.audio_s
        for one in heard
        for each in one.judged
        if each.reason(how) not in unheard
    )


def grid(phantoms: frozenset[str]) -> Iterator[Strictness]:
    """Yield what calibration chooses from."""
    for voice, sure, letters, strong in itertools.product(
        (0.4, 0.5, 0.6, 0.7, 0.8), (0.2, 0.25, 0.3, 0.35), (24, 30, 36, 42, 50), (0.9, 0.95, 0.98)
    ):
        limits = replace(
            CALIBRATED, most_letters_per_s=letters, phantom_voice=strong, phantoms=phantoms
        )
        yield Strictness(voice, sure, limits)


def phantoms_of(noise: Sequence[Heard]) -> frozenset[str]:
    """Return the texts that several recordings of noise give."""
    found = Counter(
        text
        for _, of_one in itertools.groupby(
            sorted(noise, key=lambda each: each.case.recording), lambda each: each.case.recording
        )
        for text in {spoken(j.hypothesis.text) for each in of_one for j in each.judged}
    )
    return frozenset(text for text, count in found.items() if text and count >= PHANTOM_RECORDINGS)


def chosen(noise: Sequence[Heard], speech: Sequence[Heard]) -> Strictness:
    """Return the best of the grid."""

    def cost(how: Strictness) -> float:
        return false_per_hour(noise, how) + 100 * MISSED_COSTS * missed_share(speech, how)

    return min(grid(phantoms_of(noise)), key=cost)


@dataclass(frozen=True)
class Fold:
    """What was chosen without some recordings, and what it does to these."""

    chosen: Strictness
    false: int
    missed: int
    before: int
    """Missed with `BEFORE`"""


def cross_validated(noise: Sequence[Heard], speech: Sequence[Heard]) -> list[Fold]:
    """Choose without a tenth of the recordings each time, and count on these."""

    def held_out(each: Heard, fold: int) -> bool:
        return seed_of(each.case.recording) % FOLDS == fold

    folds = []
    for fold in range(FOLDS):
        best = chosen(
            [each for each in noise if not held_out(each, fold)],
            [each for each in speech if not held_out(each, fold)],
        )
        kept_noise = [each for each in noise if held_out(each, fold)]
        kept = [each for each in speech if held_out(each, fold)]
        false = sum(len(each.texts(best)) for each in kept_noise)
        folds.append(Fold(best, false, missed(kept, best), missed(kept, BEFORE)))
    return folds
