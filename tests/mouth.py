"""Somebody who speaks to a daemon that hears its stdin."""

import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import soundfile

RATE_HZ = 16000
BLOCK_S = 0.1


class Mouth:
    """Speaks into a pipe in real time, and is silent between, as a microphone is: not all zero."""

    def __init__(self, wav: Path) -> None:
        samples, _ = soundfile.read(wav, dtype="int16")
        self._speech = np.asarray(samples, np.int16)
        self._rest = self._speech[:0]
        self._over = threading.Event()
        self.ear, self._pipe = os.pipe()
        """What the daemon reads."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def speak(self) -> None:
        self._rest = self._speech

    def wait(self) -> None:
        """Wait until it has said everything, and one second more."""
        while len(self._rest):
            time.sleep(BLOCK_S)
        time.sleep(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Is to be called when the daemon has ended."""
        self._over.set()
        os.close(self.ear)
        self._thread.join(5)
        os.close(self._pipe)

    def _run(self) -> None:
        size = int(RATE_HZ * BLOCK_S)
        hush = np.random.default_rng(1).integers(-1, 2, size, np.int16)
        due = time.monotonic()
        while not self._over.is_set():
            block, self._rest = self._rest[:size], self._rest[size:]
            sound = np.concatenate([block, hush[len(block) :]])
            try:
                os.write(self._pipe, sound.tobytes())
            except BrokenPipeError:
                return
            due += BLOCK_S
            self._over.wait(max(0.0, due - time.monotonic()))
