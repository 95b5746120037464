"""What is learned, and in which order: utterances chosen for each epoch, easy ones first.

In: `train.tsv` (see README.md). Out: for each utterance of an epoch, the recordings that it is made
of. Runs on the caller's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harkd.audio import RATE_HZ
from recipes.streaming_ctc.speech import Recording, read_recordings
from recipes.streaming_ctc.units import words_of

DEVELOPMENT_SPEAKERS = 12
"""One in so many AN4 speakers is not trained on, but measured."""
SINGLE_EPOCHS, SHORT_EPOCHS, SHORT_S = 9, 13, 2.0
"""Epochs before the first are of digits and letters, before the second of utterances so short."""


def speaker(recording: Recording) -> str:
    """Return an AN4 speaker: the part after `an4_train_`."""
    return Path(recording.path).stem.split("_")[2]


class Corpus:
    """What can be learned, by kind.

    Args:
        listed: `train.tsv`.
        small: Take AN4 alone.
    """

    def __init__(self, listed: Path, *, small: bool) -> None:
        an4 = read_recordings(listed, "train/an4/")
        speakers = sorted({speaker(each) for each in an4})
        held = set(speakers[::DEVELOPMENT_SPEAKERS])
        self.development = [each for each in an4 if speaker(each) in held]
        self.an4 = [each for each in an4 if speaker(each) not in held]
        self.words = [] if small else read_recordings(listed, "train/words/")
        self.read = [] if small else read_recordings(listed, "train/libri/")
        known = {word for each in self.an4 for word in words_of(each.text)}
        self.short = [each for each in self.words if set(words_of(each.text)) <= known]
        self.others = [each for each in self.words if not set(words_of(each.text)) <= known]

    @property
    def texts(self) -> list[str]:
        """Return the texts of all that is trained on."""
        return [each.text for each in (*self.an4, *self.words, *self.read)]

    def epoch(self, number: int, random: np.random.Generator) -> list[list[Recording]]:
        """Choose the utterances of an epoch: AN4, sequences of digits and letters, and others.

        The first ones are of digits and letters alone, the next of short utterances, as they were
        recorded: where there is little to align, CTC soon finds out what sounds like what.
        """

        def some(pool: Sequence[Recording], count: int) -> list[Recording]:
            return [pool[i] for i in random.integers(len(pool), size=count)] if pool else []

        if number < SINGLE_EPOCHS and self.short:
            return [[each] for each in self.short]
        if number < SHORT_EPOCHS:
            easy = [each for each in self.an4 if len(each.samples) < SHORT_S * RATE_HZ]
            return [[each] for each in [*easy, *self.short, *some(self.others, 300)]]
        chosen = [[each] for each in self.an4]
        chosen += [some(self.short, int(random.integers(2, 6))) for _ in range(200) if self.short]
        chosen += [some(self.an4, 2) for _ in range(120)]
        chosen += [some(self.an4, 1) + some(self.short, 2) for _ in range(80)]
        chosen += [[each] for each in some(self.others, 150) + some(self.read, 25)]
        return chosen
