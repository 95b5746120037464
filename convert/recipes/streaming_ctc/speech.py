"""Recordings to batches: what is heard in an epoch, and how it is made to sound.

In: lists of recordings (tab-separated: path, seconds, rate, text, source). Out: batches of features
and units. All randomness comes from one generator. Runs on the caller's thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from harkd.audio import RATE_HZ
from harkd_convert.mel_features import mel_features
from recipes.streaming_ctc.units import Units

Float32 = NDArray[np.float32]
SPEEDS = (0.9, 1.1)
GAIN_DB = (-12.0, 6.0)
NOISE_SHARE, NOISE_DB = 0.4, (5.0, 30.0)
ROOM_SHARE = 0.3
EDGE_S = (0.05, 0.5)
GAP_S = (0.0, 0.3)
MASKS, MASK_BINS, MASK_SHARE = 2, 12, 0.1
LONGEST_S = 16.0


@dataclass(frozen=True, slots=True)
class Recording:
    """What was said, and how it sounds."""

    samples: NDArray[np.int16]
    """int16, (n,), 16 kHz"""
    text: str
    """Its words"""
    path: str
    """As the list has it"""


@dataclass(frozen=True, slots=True)
class Batch:
    """Utterances that are learned at once."""

    features: Float32
    """float32, (batch, frames, bins), zeros beyond an utterance"""
    frames: NDArray[np.int64]
    """Of each utterance"""
    units: list[list[int]]
    """Of each utterance"""


def read_sound(path: Path) -> Float32:
    """Return a file as float32, (n,), 16 kHz, -1…1."""
    sound, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    mono = sound.mean(axis=1)
    out: Float32 = soxr.resample(mono, rate_hz, RATE_HZ) if rate_hz != RATE_HZ else mono
    return out


def to_samples(sound: Float32) -> NDArray[np.int16]:
    """Return float32 (n,), -1…1, as int16."""
    samples: NDArray[np.int16] = np.clip(np.rint(sound * 32768), -32768, 32767).astype(np.int16)
    return samples


def read_recordings(listed: Path, only: str = "") -> list[Recording]:
    """Read the recordings of a list whose text is known and whose path begins with `only`."""
    recordings = []
    for line in listed.read_text(encoding="utf-8").splitlines():
        path, _, _, text, *_ = line.split("\t")
        if text and path.startswith(only):
            sound = read_sound(listed.parent / path)
            recordings.append(Recording(to_samples(sound), text, path))
    return recordings


class Ears:
    """Makes recordings sound as they might elsewhere.

    Args:
        listed: A list of noises and rooms; its fourth column says `noise`, `music` or `rir`.
        random: Where chance comes from.
    """

    def __init__(self, listed: Path, random: np.random.Generator) -> None:
        self.random = random
        self.gentle = False
        """Only speed and loudness change, and nothing is hidden"""
        self.noises, self.rooms = list[Float32](), list[Float32]()
        for line in listed.read_text(encoding="utf-8").splitlines():
            path, _, _, kind, *_ = line.split("\t")
            sound = read_sound(listed.parent / path)
            if kind == "rir":
                # From the direct sound on, so that the speech is not moved.
                sound = sound[int(np.abs(sound).argmax()) :][: RATE_HZ // 2]
                self.rooms.append(sound / np.linalg.norm(sound))
            else:
                self.noises.append(sound)

    def hear(self, parts: Sequence[Recording]) -> NDArray[np.int16]:
        """Return recordings after each other, at another speed and loudness, in another place."""
        pieces = [self._silence(EDGE_S)]
        for part in parts:
            pieces += [part.samples.astype(np.float32) / np.float32(32768), self._silence(GAP_S)]
        sound: Float32 = np.concatenate([*pieces[:-1], self._silence(EDGE_S)])
        sound = soxr.resample(sound, RATE_HZ, RATE_HZ / self.random.uniform(*SPEEDS), quality="LQ")
        if self.rooms and not self.gentle and self.random.random() < ROOM_SHARE:
            room = self.rooms[self.random.integers(len(self.rooms))]
            sound = fftconvolve(sound, room)[: len(sound)]
        if self.noises and not self.gentle and self.random.random() < NOISE_SHARE:
            sound = self._noisy(sound)
        sound = sound * 10 ** (self.random.uniform(*GAIN_DB) / 20)
        return to_samples(sound)

    def _silence(self, range_s: tuple[float, float]) -> Float32:
        samples = int(self.random.uniform(*range_s) * RATE_HZ)
        level = 10 ** self.random.uniform(-5, -3)
        return self.random.normal(0, level, samples).astype(np.float32)

    def _noisy(self, sound: Float32) -> Float32:
        noise = self.noises[self.random.integers(len(self.noises))]
        noise = np.roll(noise, self.random.integers(len(noise)))
        noise = np.resize(noise, len(sound))
        ratio = 10 ** (-self.random.uniform(*NOISE_DB) / 20)
        loudness = np.sqrt(np.mean(sound**2)) / (np.sqrt(np.mean(noise**2)) + 1e-9)
        return np.asarray(sound + noise * loudness * ratio, np.float32)

    def mask(self, features: Float32) -> Float32:
        """Hide some bins and some frames (SpecAugment, https://arxiv.org/abs/1904.08779)."""
        if self.gentle:
            return features
        out = features.copy()
        frames, bins = out.shape
        filling = out.mean()
        for _ in range(MASKS):
            width = self.random.integers(MASK_BINS + 1)
            begin = self.random.integers(bins - width + 1)
            out[:, begin : begin + width] = filling
            width = self.random.integers(int(frames * MASK_SHARE) + 1)
            begin = self.random.integers(frames - width + 1)
            out[begin : begin + width] = filling
        return out


def batches(
    chosen: Sequence[Sequence[Recording]], ears: Ears, units: Units, batch_s: float
) -> Iterator[Batch]:
    """Yield the batches of an epoch, each of utterances of about the same length.

    Args:
        chosen: For each utterance, the recordings that it is made of.
        ears: Changes their sound.
        units: Of the model.
        batch_s: Seconds of audio in a batch, silence included.
    """
    lengths = [sum(len(part.samples) for part in parts) / RATE_HZ for parts in chosen]
    order = sorted(range(len(chosen)), key=lambda i: lengths[i] * ears.random.uniform(0.9, 1.1))
    groups, group = list[list[int]](), list[int]()
    for number in order:
        if lengths[number] > LONGEST_S:
            continue
        if group and (len(group) + 1) * lengths[number] > batch_s:
            groups.append(group)
            group = []
        group.append(number)
    groups += [group] if group else []
    for place in ears.random.permutation(len(groups)):
        heard = [ears.mask(mel_features(ears.hear(chosen[i]))) for i in groups[place]]
        frames = np.array([len(each) for each in heard])
        features = np.zeros((len(heard), frames.max(), heard[0].shape[1]), np.float32)
        for row, each in zip(features, heard, strict=True):
            row[: len(each)] = each
        texts = [" ".join(part.text for part in chosen[i]) for i in groups[place]]
        yield Batch(features, frames, [units.encode(text) for text in texts])
