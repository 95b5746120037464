"""Does this machine keep up with speech? For `harkd doctor`.

In: a loaded recognizer and a recording. Out: a `Check`. Recognition is really run, as for a final,
for `MOST_S` at most after the first pass. Runs on the main thread.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import numpy as np

from harkd.audio import RATE_HZ, AudioBlock, FileSource, Int16
from harkd.doctor_check import Check, Status
from harkd.recognizer.protocol import Recognizer

SAMPLE_S: Final = 10.0
"""No more of a recording is recognized: a slow machine must not keep its user waiting."""
SYNTHETIC_S: Final = 5.0
MOST_PASSES, MOST_S = 3, 5.0
"""The quickest of so many passes counts; none is begun after so many seconds."""
CLOSE, TOO_SLOW = 0.5, 1.0
"""From these real-time factors on. Partials may cost as much again as finals."""


def check_speed(name: str, recognizer: Recognizer, sample: Path | None) -> Check:
    """Recognize a recording that came with the model, or a signal made here, and judge the time.

    Args:
        name: The model's.
        recognizer: The model.
        sample: The recording; None where there is none.
    """
    audio = sample_audio(sample) if sample else synthetic_audio()
    length_s = len(audio) / RATE_HZ
    factor, text = measured(recognizer, audio)
    heard = f'"{text}"' if text else "no text"
    on = f"{sample.name}, {heard}" if sample else "a signal made here: speech may take longer"
    what = (
        f"{name} is whole, runs on {recognizer.provider}, real-time factor {factor:.2f} "
        f"({length_s:.1f} s of {on})"
    )
    mend = "choose a smaller model with recognizer.model, or set recognizer.partials: false"
    if factor >= TOO_SLOW:
        return Check("model", Status.FAIL, f"{what}: this machine is too slow for it", mend)
    if factor >= CLOSE:
        return Check("model", Status.WARN, f"{what}: this machine only just keeps up", mend)
    return Check("model", Status.OK, f"{what}: this machine keeps up")


def measured(recognizer: Recognizer, audio: Int16) -> tuple[float, str]:
    """Return the real-time factor of the quickest pass, and the text.

    Args:
        recognizer: The model.
        audio: int16, shape (n,), 16 kHz.
    """
    begin_s = time.perf_counter()
    quickest_s, text = float("inf"), ""
    for _ in range(MOST_PASSES):
        pass_s = time.perf_counter()
        stream = recognizer.stream()
        stream.accept(audio)
        text = stream.finish().text
        end_s = time.perf_counter()
        quickest_s = min(quickest_s, end_s - pass_s)
        if end_s - begin_s > MOST_S:
            break
    return quickest_s / (len(audio) / RATE_HZ), text


def sample_audio(path: Path) -> Int16:
    """Return the first `SAMPLE_S` of a recording as int16, shape (n,), 16 kHz."""
    blocks = FileSource(path, paced=False).events()
    pieces = [block.samples for block in blocks if isinstance(block, AudioBlock)]
    return np.concatenate(pieces)[: round(SAMPLE_S * RATE_HZ)]


def synthetic_audio() -> Int16:
    """Return `SYNTHETIC_S` of noise with the rhythm of syllables: int16, shape (n,), 16 kHz."""
    time_s = np.arange(round(SYNTHETIC_S * RATE_HZ)) / RATE_HZ
    noise = np.random.default_rng(1).standard_normal(len(time_s))
    voice = np.sign(np.sin(2 * np.pi * 120 * time_s)) + 0.3 * noise
    rhythm = np.sin(np.pi * 4 * time_s) ** 2
    return np.asarray(voice * rhythm * 3000, np.int16)
