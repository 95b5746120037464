"""How loud the input is, and what is wrong with its signal: figures for health and metrics.

In: each block of audio, on the listening thread. Out: `SignalFigures`, on any thread, which is
where the last second is measured; offset and clipping are measured once a second.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from harkd.audio import RATE_HZ, Int16

log = logging.getLogger(__name__)

FRAME_SAMPLES = 320
"""Samples in a frame of 20 ms, as in `harkd.segmenter`."""
LEVEL_S, OFFSET_S = 1.0, 10.0
"""How far back the level and the peak, and the DC offset, look."""
SILENT_DB = -120.0
LARGE_OFFSET = 0.05
"""A DC offset of more than this share of full scale costs dynamic range, and is told."""
CLIPPED_SHARE = 0.001
"""More samples than this at full scale in speech are told; recognition suffers from there on."""
VOICED_S = 10.0
"""So much speech is looked at for that."""
FULL_SCALE = 32767

LEVEL_SAMPLES = round(LEVEL_S * RATE_HZ)
NOTHING: Int16 = np.empty(0, np.int16)


@dataclass(frozen=True, slots=True)
class SignalFigures:
    """What the signal is like."""

    level_dbfs: float
    """RMS of the last second, dB below full scale, −120…0."""
    peak_dbfs: float
    """Largest sample of the last second, dB below full scale, −120…0."""
    dc_offset: float
    """Mean of the last 10 s, as share of full scale, −1…1."""
    clipped_samples: int
    """Samples at full scale since the start."""
    zeros_s: float
    """Seconds of nothing but zeros at the device up to now; 0 where the last block was not."""
    voiced_frames: int
    """Frames of 20 ms that the voice detector took for speech, since the start."""
    frames: int
    """Frames of 20 ms since the start."""
    lag_s: float
    """How far the end of the last block was behind its capture time when it was taken."""


class SignalLevel:
    """Measures. What a block costs was measured, too: a call of numpy for each would double it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._measured = NOTHING  # the last second that was measured
        self._unmeasured: list[Int16] = []
        self._unmeasured_samples = 0
        self._unmeasured_voiced = 0
        self._sums: deque[tuple[int, int]] = deque()  # samples, their sum
        self._speech: deque[tuple[int, int]] = deque()  # samples, those at full scale
        self._samples = 0
        self._clipped = 0
        self._voiced_frames = 0
        self._zeros_s = 0.0
        self._lag_s = 0.0

    def reset(self) -> None:
        """Another input, or the same one after a while: levels begin anew, counts go on."""
        with self._lock:
            self._measured = NOTHING
            self._samples += self._unmeasured_samples
            self._voiced_frames += self._unmeasured_voiced
            self._unmeasured = []
            self._unmeasured_samples = self._unmeasured_voiced = 0
            self._sums.clear()
            self._speech.clear()
            self._zeros_s = 0.0

    def take(
        self, samples: Int16, *, zeros_s: float = 0.0, lag_s: float = 0.0, voiced_frames: int = 0
    ) -> bool:
        """Take the next block.

        Args:
            samples: int16, shape (n,), 16 kHz mono; must not change afterwards.
            zeros_s: Seconds of nothing but zeros at the device up to its end.
            lag_s: How far its end is behind its capture time.
            voiced_frames: So many of the frames that end in it are speech.

        Returns:
            Whether a second was measured, so that `offset` and `clipped_share` may have changed.
        """
        with self._lock:
            self._zeros_s, self._lag_s = zeros_s, lag_s
            self._unmeasured_voiced += voiced_frames
            self._unmeasured.append(samples)
            self._unmeasured_samples += len(samples)
            if self._unmeasured_samples < LEVEL_SAMPLES:
                return False
            self._measure()
            return True

    def _measure(self) -> None:
        self._measured = samples = np.concatenate(self._unmeasured)  # (n,)
        size = len(samples)
        self._samples += size
        self._voiced_frames += self._unmeasured_voiced
        clipped = 0
        if samples.max() == FULL_SCALE or samples.min() <= -FULL_SCALE:
            clipped = int(np.count_nonzero((samples == FULL_SCALE) | (samples <= -FULL_SCALE)))
            self._clipped += clipped
        self._sums.append((size, int(samples.sum(dtype=np.int64))))
        drop_old(self._sums, OFFSET_S)
        # A second counts as speech where a good part of it is.
        if self._unmeasured_voiced * FRAME_SAMPLES * 2 >= size:
            self._speech.append((size, clipped))
            drop_old(self._speech, VOICED_S)
        self._unmeasured = []
        self._unmeasured_samples = self._unmeasured_voiced = 0

    @property
    def offset(self) -> float:
        """Mean of the last `OFFSET_S`, as share of full scale; 0 while less was heard."""
        with self._lock:
            return share_of(self._sums, OFFSET_S) / 32768

    @property
    def clipped_share(self) -> float:
        """Share of samples at full scale in the last `VOICED_S` of speech; 0 while less was."""
        with self._lock:
            return share_of(self._speech, VOICED_S)

    def figures(self) -> SignalFigures:
        """Return what is known now. Any thread; some 100 µs."""
        with self._lock:
            recent = [self._measured, *self._unmeasured]
            now = SignalFigures(
                level_dbfs=SILENT_DB,
                peak_dbfs=SILENT_DB,
                dc_offset=share_of(self._sums, 0.0) / 32768,
                clipped_samples=self._clipped,
                zeros_s=self._zeros_s,
                voiced_frames=self._voiced_frames + self._unmeasured_voiced,
                frames=(self._samples + self._unmeasured_samples) // FRAME_SAMPLES,
                lag_s=self._lag_s,
            )
        scaled = np.concatenate(recent)[-LEVEL_SAMPLES:].astype(np.float32) / 32768  # (n,)
        if not len(scaled):
            return now
        return replace(
            now,
            level_dbfs=decibels(math.sqrt(float(np.dot(scaled, scaled)) / len(scaled))),
            peak_dbfs=decibels(float(np.abs(scaled).max())),
        )


def drop_old(measured: deque[tuple[int, int]], most_s: float) -> None:
    """Keep as few as cover so many seconds."""
    samples = sum(size for size, _ in measured)
    while samples - measured[0][0] >= most_s * RATE_HZ:
        samples -= measured.popleft()[0]


def share_of(measured: deque[tuple[int, int]], least_s: float) -> float:
    """Return the second numbers for each of the first; 0 where there is less than `least_s`."""
    samples = sum(size for size, _ in measured)
    if not samples or samples < least_s * RATE_HZ:
        return 0.0
    return sum(each for _, each in measured) / samples


class SignalAdvice:
    """Says once, in the log, what is wrong with the signal and how to mend it."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def look(self, signal: SignalLevel, source: str) -> None:
        """Look at the signal; `source` is the sound server's name of it, where there is one."""
        mixer = f"pactl set-source-volume {source} 60%" if source else "alsamixer, F4"
        if (share := signal.clipped_share) > CLIPPED_SHARE:
            self._tell(
                "clipping",
                f"the microphone is too loud: {share:.1%} of the samples in speech are at full "
                f"scale, which costs recognition; lower its volume ({mixer})",
            )
        if abs(offset := signal.offset) > LARGE_OFFSET:
            self._tell(
                "offset",
                f"the microphone's signal is off centre by {offset:.0%} of full scale: its input, "
                f"or its power supply, is faulty; try another socket, or a lower volume ({mixer})",
            )

    def _tell(self, what: str, words: str) -> None:
        if what not in self._told:
            self._told.add(what)
            log.warning("%s", words)


def decibels(amplitude: float) -> float:
    """Return 20·log10 of a share of full scale, but not below `SILENT_DB`."""
    return max(SILENT_DB, 20 * math.log10(amplitude)) if amplitude > 0 else SILENT_DB
