"""How recordings are made to sound: together, faster or slower, in rooms, with noise, soft or loud.

In: recordings and a source of chance. Out: what the student hears, and what the teacher hears of
the same. Runs on the caller's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from harkd.audio import RATE_HZ
from harkd.bench_measure import read_samples
from harkd.speech_list import read_list
from harkd_convert.distil.corpus import Clip, floats
from harkd_convert.errors import ConvertError

Float32 = NDArray[np.float32]
SPEEDS, SPEED_SHARE = (0.9, 1.1), 0.5
ROOM_SHARE, ROOM_S = 0.2, 0.5
NOISE_SHARE, NOISE_DB = 0.35, (5.0, 30.0)
MILD_DB = 12.0
"""Of noise softer than this against the speech, the teacher hears nothing."""
GAIN_DB = (-20.0, 6.0)
BEFORE_S, AFTER_S, BETWEEN_S = (0.0, 0.6), (0.0, 0.9), (0.1, 0.8)
"""Silence: a segment begins 0.3 s before speech is noticed, and ends with the endpoint's."""
HISS_DB = (-80.0, -45.0)


@dataclass(frozen=True, slots=True)
class Heard:
    """One utterance, twice."""

    student: Float32
    """float32, (n,), 16 kHz, -1…1, as a 16-bit microphone would give it"""
    teacher: Float32
    """float32, (n,): without the level's change, and without noise if it is mild"""


@dataclass(frozen=True)
class Surroundings:
    """What else there is to be heard; both may be empty."""

    noises: list[Float32] = field(default_factory=list)
    """float32, 16 kHz"""
    rooms: list[Float32] = field(default_factory=list)
    """Impulse responses from the direct sound on, their energy 1"""


def read_surroundings(noises: Sequence[Path], rooms: Sequence[Path]) -> Surroundings:
    """Read lists of noises and of rooms; in both, the fourth column may say `rir` for a room.

    Raises:
        HarkdError: A list or a recording cannot be read.
        ConvertError: A list of rooms has none.
    """
    found = Surroundings()
    for listed in dict.fromkeys([*noises, *rooms]):
        before = len(found.rooms)
        for recording in read_list(listed):
            sound = floats(read_samples(recording.path))
            if recording.text == "rir":
                found.rooms.append(_response(sound))
            elif listed in noises and len(sound):
                found.noises.append(sound)
        if listed in rooms and len(found.rooms) == before:
            raise ConvertError(
                f"{listed} has no rooms", 'name a list whose fourth column says "rir" for rooms'
            )
    return found


def _response(sound: Float32) -> Float32:
    cut = sound[int(np.abs(sound).argmax()) :][: int(ROOM_S * RATE_HZ)]
    return cut / (np.linalg.norm(cut) + np.float32(1e-9))


def hear(clips: Sequence[Clip], around: Surroundings, random: np.random.Generator) -> Heard:
    """Return recordings after each other, as they might sound elsewhere."""
    hiss_db = random.uniform(*HISS_DB)
    pieces = [_hiss(random, BEFORE_S, hiss_db)]
    for clip in clips:
        pieces += [floats(clip.samples), _hiss(random, BETWEEN_S, hiss_db)]
    sound = np.concatenate([*pieces[:-1], _hiss(random, AFTER_S, hiss_db)])
    if random.random() < SPEED_SHARE:
        speed = random.uniform(*SPEEDS)
        sound = soxr.resample(sound, RATE_HZ, RATE_HZ / speed, quality="LQ")
    if around.rooms and random.random() < ROOM_SHARE:
        sound = _convolved(sound, around.rooms[random.integers(len(around.rooms))])
    teacher = sound
    if around.noises and random.random() < NOISE_SHARE:
        ratio_db = random.uniform(*NOISE_DB)
        noise = around.noises[random.integers(len(around.noises))]
        sound = _with_noise(sound, np.roll(noise, random.integers(len(noise))), ratio_db)
        teacher = teacher if ratio_db > MILD_DB else sound
    gain = np.float32(10 ** (random.uniform(*GAIN_DB) / 20))
    student = np.clip(np.rint(sound * gain * 32768), -32768, 32767) / 32768
    return Heard(student.astype(np.float32), teacher.astype(np.float32).clip(-1, 1))


def _hiss(random: np.random.Generator, range_s: tuple[float, float], level_db: float) -> Float32:
    samples = int(random.uniform(*range_s) * RATE_HZ)
    return random.normal(0, 10 ** (level_db / 20), samples).astype(np.float32)


def _convolved(sound: Float32, response: Float32) -> Float32:
    size = 1 << (len(sound) + len(response) - 1).bit_length()
    spectrum = np.fft.rfft(sound, size) * np.fft.rfft(response, size)
    return np.fft.irfft(spectrum, size)[: len(sound)].astype(np.float32)


def _with_noise(sound: Float32, noise: Float32, ratio_db: float) -> Float32:
    noise = np.resize(noise, len(sound))
    energy = float(np.mean(noise**2))
    loudness = np.sqrt(np.mean(sound**2) / (energy + 1e-12)) * 10 ** (-ratio_db / 20)
    return np.asarray(sound + noise * loudness, np.float32)
