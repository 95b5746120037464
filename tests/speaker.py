"""Somebody who speaks all the time: real recordings in a loop, with pauses that hiss a little.

`speech_of` makes the sound; `Speaker` plays it into a sound server's sink until it is told to
stop, and begins again when the server has gone and come back.
"""

import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import soundfile
import soxr

from harkd.audio import RATE_HZ, Int16
from harkd.segmenter import Segmenter, SpeechEnded, SpeechStarted
from harkd.settings import EndpointSettings, VadSettings
from servers import PulseServer, end, program
from speech import TWO_CITIES, plain

PAUSE_S = 1.2
MOST_S = 5.0
"""Longer utterances are left out: it should not take long until the next one begins."""
HISS = 6
"""Greatest sample of a pause: far below speech, and not all zero, as no microphone is."""


def hiss(seconds: float, seed: int = 1) -> Int16:
    """What a microphone gives in a quiet room: int16, shape (n,), 16 kHz."""
    random = np.random.default_rng(seed)
    return random.integers(-HISS, HISS + 1, round(seconds * RATE_HZ), np.int16)


def utterances(wav: Path) -> list[Int16]:
    """Cuts a recording at its pauses; int16, shape (n,), 16 kHz each."""
    recorded, rate_hz = soundfile.read(wav, dtype="float32")
    smooth = soxr.resample(recorded, rate_hz, RATE_HZ)
    samples: Int16 = np.rint(smooth * 32767).clip(-32768, 32767).astype(np.int16)
    segmenter = Segmenter(VadSettings(), EndpointSettings(silence_ms=300, pause_ms=200))
    events = [*segmenter.push(samples), *segmenter.push(hiss(1.0))]
    starts = [each.audio_start for each in events if isinstance(each, SpeechStarted)]
    ends = [each.audio_end for each in events if isinstance(each, SpeechEnded)]
    return [samples[a:b] for a, b in zip(starts, ends, strict=True)]


@dataclass(frozen=True)
class Loop:
    """What is said again and again."""

    sound: Int16
    """int16, shape (n,), 16 kHz."""
    vocabulary: frozenset[str]
    """The words in it."""


def speech_of(samples: Path) -> Loop:
    """Returns the short utterances of a reading, each with a pause after it.

    Args:
        samples: The default model's folder of recordings.
    """
    parts = []
    for said in utterances(samples / "two_cities.wav"):
        if 1.0 < len(said) / RATE_HZ < MOST_S:
            parts += [said, hiss(PAUSE_S)]
    return Loop(np.concatenate(parts), frozenset(plain(TWO_CITIES).split()))


class Speaker:
    """Plays a sound in a loop between `__enter__` and `__exit__`.

    Args:
        server: Where; it may go and come back.
        sound: int16, shape (n,), 16 kHz.
    """

    def __init__(self, server: PulseServer, sound: Int16, sink: str = "mic") -> None:
        self._server = server
        self._sink = sink
        self._sound = sound.tobytes()
        self._over = threading.Event()
        self._player: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="speaker")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._player:
            self._player.kill()
        self._thread.join(5)

    def begin_again(self) -> None:
        """Connects anew: a player does not notice that nobody hears it any more."""
        if self._player:
            self._player.kill()

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            self._play()
            self._over.wait(max(0.05, 0.3 - (time.monotonic() - began)))

    def _play(self) -> None:
        words = ["--playback", "--raw", f"--rate={RATE_HZ}", "--channels=1", "--format=s16le"]
        player = subprocess.Popen(
            [program("pacat"), *words, "--latency-msec=200", f"--device={self._sink}"],
            env={**os.environ, **self._server.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._player = player
        pipe = player.stdin
        try:
            # In small pieces: after a fault, what is heard should not be what was written before.
            while pipe and not self._over.is_set():
                for at in range(0, len(self._sound), 6400):
                    pipe.write(self._sound[at : at + 6400])
                    pipe.flush()
        except OSError:  # the server is gone
            pass
        finally:
            end_quietly(player)


def end_quietly(process: subprocess.Popen[bytes]) -> None:
    """Ends a player whose pipe may be broken."""
    try:
        end(process, kill=True)
    except OSError:  # what was not written yet cannot be flushed
        process.wait()
