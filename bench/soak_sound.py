"""What the soak plays: speech, noise and silence in turn, and where in it each utterance ends.

Pure: recordings in, samples out; the same seed gives the same samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harkd.audio import RATE_HZ, Int16
from harkd.segmenter import Segmenter, SpeechEnded
from harkd.settings import EndpointSettings, VadSettings
from speaker import MOST_S, PAUSE_S, hiss, utterances

NOISE_DBFS = (-50.0, -35.0)
"""A quiet fan, and a loud one."""
SHARES = (0.35, 0.3, 0.35)
"""Of speech (with its pauses), noise and silence."""


@dataclass(frozen=True)
class Mixture:
    """A sound that can be played in a loop."""

    samples: Int16
    """int16, shape (n,), 16 kHz."""
    ends: tuple[int, ...]
    """Where its utterances end, in samples, as the daemon's own segmenter hears it."""

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / RATE_HZ


def noise(seconds: float, level_dbfs: float, random: np.random.Generator) -> Int16:
    """Noise as of a fan, which swells slowly: int16, shape (n,), 16 kHz."""
    size = round(seconds * RATE_HZ)
    spectrum = np.fft.rfft(random.standard_normal(size))
    hz = np.fft.rfftfreq(size, 1 / RATE_HZ)
    spectrum /= np.sqrt(np.maximum(hz, 50.0))  # pink: half the power with each octave
    sound = np.fft.irfft(spectrum, size)
    sound *= 1 + 0.5 * np.sin(2 * np.pi * np.arange(size) / RATE_HZ / 7)
    scale = 32768 * 10 ** (level_dbfs / 20) / np.sqrt(np.mean(sound**2))
    samples: Int16 = np.rint(sound * scale).clip(-32768, 32767).astype(np.int16)
    return samples


def mixture(recordings: Sequence[Path], seconds: float, seed: int) -> Mixture:
    """Return about so many seconds of speech, noise and silence.

    Args:
        recordings: Wav files with speech; they are cut at their pauses.
        seconds: The length.
        seed: Decides the order.
    """
    random = np.random.default_rng(seed)
    said = [
        each
        for path in recordings
        for each in utterances(path)
        if 0.5 < len(each) / RATE_HZ < 2 * MOST_S
    ]
    parts: list[Int16] = [hiss(1.0)]
    spoken_s, target_s = 0.0, seconds * SHARES[0]
    pieces: list[list[Int16]] = []
    while spoken_s < target_s:
        utterance = said[int(random.integers(len(said)))]
        pieces.append([utterance, hiss(PAUSE_S, len(pieces))])
        spoken_s += len(utterance) / RATE_HZ + PAUSE_S
    quiet_s = 10.0
    for count in range(round(seconds * SHARES[1] / quiet_s)):
        level = float(random.uniform(*NOISE_DBFS))
        # With rests around: what ends with speech should not be held open by noise.
        pieces.append([noise(quiet_s, level, random), hiss(PAUSE_S, count)])
    pieces += [[hiss(quiet_s, count)] for count in range(round(seconds * SHARES[2] / quiet_s))]
    for index in random.permutation(len(pieces)):
        parts += pieces[int(index)]
    samples = np.concatenate(parts)
    segmenter = Segmenter(VadSettings(), EndpointSettings())
    events = [*segmenter.push(samples), *segmenter.push(hiss(1.0))]
    ends = tuple(each.speech_end for each in events if isinstance(each, SpeechEnded))
    return Mixture(samples, ends)
