"""What microphones there are, and how loud one is: the parent's side of `harkd.device_probe`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harkd.audio import RATE_HZ, AudioBlock, SourceLost, SourceOpened
from harkd.errors import AudioError
from harkd.microphone import STALLED, Microphone
from harkd.settings import AudioSettings
from harkd.signal_level import decibels

PROBE_S = 30.0


def list_devices(*, probe: bool) -> dict[str, Any]:
    """Return devices and PulseAudio sources as `harkd.device_probe` prints them.

    Raises:
        AudioError: PortAudio is missing, or the sound system hangs.
    """
    command = [sys.executable, "-m", "harkd.device_probe", "probe" if probe else "list"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PROBE_S,
            check=False,
        )
        found: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise AudioError(
            f"the sound system did not answer within {PROBE_S:g} s",
            "restart PulseAudio or PipeWire: systemctl --user restart pipewire-pulse pulseaudio",
        ) from error
    except ValueError as error:
        raise AudioError(
            f"looking at the sound devices ended with code {done.returncode}",
            "run `python3 -m harkd.device_probe list` to see more",
        ) from error
    if found["error"]:
        raise AudioError(found["error"], found["mend"])
    return found


@dataclass(frozen=True, slots=True)
class Level:
    """How loud a piece of audio was."""

    rms_db: float
    """Root mean square, dB below full scale."""
    peak_db: float
    """Largest sample, dB below full scale."""
    zero: bool
    """True where each sample was zero: muted or dead, since even a quiet room hisses."""


def level_of(samples: np.ndarray[Any, np.dtype[np.int16]]) -> Level:
    """Measure int16 samples of shape (n,), n > 0."""
    values = samples.astype(np.float64) / 32768
    return Level(
        decibels(float(np.sqrt(np.mean(values**2)))),
        decibels(float(np.max(np.abs(values)))),
        not samples.any(),
    )


def listen(settings: AudioSettings, seconds: float) -> Iterator[SourceOpened | Level]:
    """Open the microphone and yield `SourceOpened`, then a level ten times a second.

    Where it does not open in time, it is tried once more, with more patience.

    Raises:
        AudioError: It does not open, or stops.
    """
    microphone = Microphone(replace(settings, zeros_s=0))  # zeros are a level, too
    deadline = time.monotonic() + seconds
    pieces: list[np.ndarray[Any, np.dtype[np.int16]]] = []
    events = microphone.events()
    patient = True
    try:
        for event in events:
            if isinstance(event, SourceLost):
                if event.kind == STALLED and patient:
                    patient = False
                    continue
                raise AudioError(event.reason.removesuffix("; opening it again"))
            if isinstance(event, SourceOpened):
                patient = False
                deadline = time.monotonic() + seconds
                yield event
            elif isinstance(event, AudioBlock):
                pieces.append(event.samples)
                if sum(map(len, pieces)) >= RATE_HZ // 10:
                    yield level_of(np.concatenate(pieces))
                    pieces.clear()
            if time.monotonic() > deadline:
                return
    finally:
        microphone.close()
        events.close()  # type: ignore[attr-defined]
