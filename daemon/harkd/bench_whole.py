"""Each recording as one utterance: what recognition alone costs, without segmenter and partials.

Runs on the calling thread.
"""

from __future__ import annotations

import numpy as np

from harkd.audio import RATE_HZ, Int16
from harkd.bench_measure import Heard
from harkd.recognizer.protocol import Recognizer

SEARCH_S = 5
QUIET_SAMPLES = RATE_HZ // 5


class Whole:
    """A subject of `bench_measure`.

    Args:
        name: For the report.
        recognizer: The loaded model.
    """

    def __init__(self, name: str, recognizer: Recognizer) -> None:
        self.name = name
        self._recognizer = recognizer

    def prepare(self) -> None:
        """Nothing to do."""

    def hear(self, samples: Int16) -> Heard:
        """Recognize it at once; what is longer than the model takes, in several pieces."""
        before = self._recognizer.work.snapshot()
        texts = []
        for piece in pieces_of(samples, int(self._recognizer.max_segment_s * RATE_HZ)):
            stream = self._recognizer.stream()
            stream.accept(piece)
            texts.append(stream.finish().text)
        return Heard(
            text=" ".join(text for text in texts if text),
            work=self._recognizer.work.since(before),
            finals=sum(map(bool, texts)),
        )


def pieces_of(samples: Int16, most: int) -> list[Int16]:
    """Cut audio where it is quietest before each piece would be longer than `most` samples."""
    pieces = []
    while len(samples) > most:
        begin = max(most // 2, most - SEARCH_S * RATE_HZ)
        power = np.cumsum(samples[begin:most].astype(np.float64) ** 2)
        wide = min(QUIET_SAMPLES, len(power) // 2)
        cut = begin + wide // 2 + int(np.argmin(power[wide:] - power[:-wide]))
        pieces.append(samples[:cut])
        samples = samples[cut:]
    return [*pieces, samples]
