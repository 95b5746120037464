"""Sentences that flite speaks, for the small model that is trained on digits, letters and commands.

flite's voices are of Debian's package of that name, so every machine hears the same samples.
"""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from fakes import silence
from harkd.audio import RATE_HZ
from servers import program

TRAINED = Path(__file__).parent / "data" / "an4-en"
"""The package with the trained weights; its LICENSE says of what."""

VOICES = ("kal16", "rms")
SENTENCES = (
    "enter one seven six",
    "erase four two nine",
    "rubout three five eight",
    "zero one two three four five six seven eight nine",
    "enter eight ninety seven",
    "repeat",
    "stop",
    "no",
    "october twenty four nineteen seventy",
    "five six two oh three eight seven",
)


@functools.cache
def say(text: str, voice: str = "rms") -> NDArray[np.int16]:
    """What flite says: int16, shape (n,), 16 kHz, with 0.2 s of silence before it."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "said.wav"
        subprocess.run([program("flite"), "-voice", voice, "-t", text, "-o", str(wav)], check=True)
        samples, rate_hz = soundfile.read(wav, dtype="int16")
    if rate_hz != RATE_HZ:
        raise AssertionError(f"flite's voice {voice} speaks at {rate_hz} Hz")
    spoken: NDArray[np.int16] = np.concatenate([silence(200), samples])
    return spoken
