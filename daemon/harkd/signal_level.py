"""How loud the input is, and what is wrong with its signal: figures for health and metrics.

In: each block of audio, on the listening thread. Out: `SignalFigures`, on any thread. Pieces of
`PIECE_S` are measured, not blocks: a third of numpy's calls, at the same precision.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

from harkd.audio import RATE_HZ, Int16

log = logging.getLogger(__name__)

FRAME_SAMPLES = 320
"""Samples in a frame of 20 ms, as in `harkd.segmenter`."""
PIECE_S = 0.1
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

PIECE_SAMPLES = round(PIECE_S * RATE_HZ)


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


@dataclass(frozen=True, slots=True)
class _Piece:
    samples: int
    sum_squares: float
    peak: int
    sum: int


class SignalLevel:
    """Measures."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[Int16] = []
        self._held_samples = 0
        self._held_voiced = False
        self._pieces: deque[_Piece] = deque()
        self._pieces_samples = 0
        self._speech: deque[tuple[int, int]] = deque()
        self._speech_samples = 0
        self._samples = 0
        self._clipped = 0
        self._voiced_frames = 0
        self._zeros_s = 0.0
        self._lag_s = 0.0

    def reset(self) -> None:
        """Another input, or the same one after a while: levels begin anew, counts go on."""
        with self._lock:
            self._held, self._held_samples, self._held_voiced = [], 0, False
            self._pieces.clear()
            self._speech.clear()
            self._pieces_samples = self._speech_samples = 0
            self._zeros_s = 0.0

    def take(
        self, samples: Int16, *, zeros_s: float = 0.0, lag_s: float = 0.0, voiced_frames: int = 0
    ) -> bool:
        """Take the next block.

        Args:
            samples: int16, shape (n,), 16 kHz mono.
            zeros_s: Seconds of nothing but zeros at the device up to its end.
            lag_s: How far its end is behind its capture time.
            voiced_frames: So many of the frames that end in it are speech.

        Returns:
            Whether there is a new piece, so that `offset` and `clipped_share` may have changed.
        """
        with self._lock:
            self._samples += len(samples)
            self._zeros_s, self._lag_s = zeros_s, lag_s
            self._voiced_frames += voiced_frames
            self._held.append(samples)
            self._held_samples += len(samples)
            self._held_voiced = self._held_voiced or voiced_frames > 0
            if self._held_samples < PIECE_SAMPLES:
                return False
            self._measure(np.concatenate(self._held))
            return True

    def _measure(self, samples: Int16) -> None:
        scaled = samples.astype(np.float32)  # (n,)
        most, least = int(samples.max()), int(samples.min())
        peak = max(most, -least)
        clipped = 0
        if peak >= FULL_SCALE:
            clipped = int(np.count_nonzero((samples == FULL_SCALE) | (samples <= -FULL_SCALE)))
            self._clipped += clipped
        self._pieces.append(
            _Piece(len(samples), float(np.dot(scaled, scaled)), peak, int(samples.sum(dtype=int)))
        )
        self._pieces_samples += len(samples)
        while self._pieces_samples - self._pieces[0].samples >= OFFSET_S * RATE_HZ:
            self._pieces_samples -= self._pieces.popleft().samples
        if self._held_voiced:
            self._speech.append((len(samples), clipped))
            self._speech_samples += len(samples)
            while self._speech_samples - self._speech[0][0] >= VOICED_S * RATE_HZ:
                self._speech_samples -= self._speech.popleft()[0]
        self._held, self._held_samples, self._held_voiced = [], 0, False

    @property
    def offset(self) -> float:
        """Mean of the last `OFFSET_S`, as share of full scale; 0 while less was heard."""
        with self._lock:
            return self._offset() if self._pieces_samples >= OFFSET_S * RATE_HZ else 0.0

    @property
    def clipped_share(self) -> float:
        """Share of samples at full scale in the last `VOICED_S` of speech; 0 while less was."""
        with self._lock:
            if self._speech_samples < VOICED_S * RATE_HZ:
                return 0.0
            return sum(clipped for _, clipped in self._speech) / self._speech_samples

    def _offset(self) -> float:
        samples = self._pieces_samples
        return sum(piece.sum for piece in self._pieces) / samples / 32768 if samples else 0.0

    def _recent(self) -> list[_Piece]:
        """The pieces of the last second."""
        recent: list[_Piece] = []
        samples = 0
        for piece in reversed(self._pieces):
            if samples >= LEVEL_S * RATE_HZ:
                break
            recent.append(piece)
            samples += piece.samples
        return recent

    def figures(self) -> SignalFigures:
        """Return what is known now. Any thread."""
        with self._lock:
            recent = self._recent()
            samples = sum(piece.samples for piece in recent)
            square = sum(piece.sum_squares for piece in recent) / samples if samples else 0.0
            return SignalFigures(
                level_dbfs=decibels(math.sqrt(square) / 32768),
                peak_dbfs=decibels(max((piece.peak for piece in recent), default=0) / 32768),
                dc_offset=self._offset(),
                clipped_samples=self._clipped,
                zeros_s=self._zeros_s,
                voiced_frames=self._voiced_frames,
                frames=self._samples // FRAME_SAMPLES,
                lag_s=self._lag_s,
            )


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
