"""The microphones of the chaos test: a real PulseAudio, a real PipeWire, and an ALSA device.

A rig is a microphone into which somebody speaks all the time, and the faults that it can have. It
begins without its server, which `arrive` starts: so the daemon is there first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import soundfile

from alsa_mic import AlsaMic, build
from chaos_faults import (
    ZERO_LEAST_S,
    ZERO_MOST_S,
    ZEROS_DETECT_S,
    Entered,
    Fault,
    Scene,
    Sound,
    problems,
)
from chaos_servers import PipeWireRig, PulseRig
from harkd.audio import RATE_HZ, Int16

FORMATS = [(48_000, 2), (44_100, 1), (16_000, 1), (96_000, 2), (32_000, 2)]


class Rig(Protocol):
    """A microphone with its faults."""

    name: str
    env: dict[str, str]
    """What the daemon needs to hear it."""
    faults: list[Fault]

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def arrive(self) -> None:
        """Starts what the microphone needs; returns when it can be heard."""

    def heal(self) -> bool:
        """Starts the sound server anew if it gives nobody sound; True where it did so."""


# ------------------------------------------------------------------ ALSA


class AlsaRig(Entered):
    """The user-space ALSA device."""

    name = "alsa"

    def __init__(self, folder: Path, sound: Int16) -> None:
        super().__init__()
        wav = folder / "speech.wav"
        soundfile.write(wav, sound, RATE_HZ)
        self.mic = AlsaMic(folder, build(folder), wav, loop=True)
        for rate_hz, channels in reversed(FORMATS):
            self.mic.change_format(rate_hz, channels)  # now, since resampling takes its time
        self.mic.unplug()
        # No sound server, and none that anybody names: that would be the reason told.
        self.env = {
            "ALSA_CONFIG_PATH": self.mic.env["ALSA_CONFIG_PATH"],
            "PULSE_RUNTIME_PATH": str(folder / "no-pulse"),
            "HARKD_AUDIO__DEVICE": "testmic",
        }
        mic = self.mic
        gone = problems("unplugged", "no_such_device", "no_device", "stalled", "ended")
        self.faults = [
            self._fault("unplugged", mic.unplug, gone),
            Fault("replugged with another format", self._unplug, self._other_format, problems=gone),
            self._fault("stalled", mic.stall, problems("stalled")),
            self._fault("busy", lambda: self._taken(mic.busy), gone | {"busy"}),
            self._fault("no permission", lambda: self._taken(mic.deny), gone | {"permission"}),
            self._fault("read error", mic.fail, gone | {"unknown"}),
            Fault(
                "all zero",
                lambda _: void(mic.zero()),
                lambda _: void(mic.resume()),
                least_s=ZERO_LEAST_S,
                most_s=ZERO_MOST_S,
                problems=problems("all_zero"),
                detect_s=ZEROS_DETECT_S,
            ),
            Fault("burst of overruns", self._overruns, sound=Sound.GOOD, least_s=0.0, most_s=0.5),
        ]

    def arrive(self) -> None:
        self.mic.resume()

    def heal(self) -> bool:
        return False

    def _fault(self, name: str, begin: Callable[[], int], words: frozenset[str]) -> Fault:
        return Fault(name, lambda _: void(begin()), lambda _: self.arrive(), problems=words)

    def _taken(self, then: Callable[[], int]) -> int:
        """Is lost, and cannot be opened when it is back."""
        self.mic.unplug()
        time.sleep(0.2)
        return then()

    def _unplug(self, _scene: Scene) -> None:
        self.mic.unplug()

    def _other_format(self, scene: Scene) -> None:
        now = (self.mic.rate_hz, self.mic.channels)
        self.mic.change_format(*scene.random.choice([each for each in FORMATS if each != now]))
        self.mic.replug()

    def _overruns(self, scene: Scene) -> None:
        for _ in range(scene.random.randint(2, 10)):
            self.mic.xrun()
            time.sleep(0.15)
            self.mic.resume()
            time.sleep(0.1)


def void(_value: object) -> None:
    """Takes what a lambda must not return."""


def make_rig(name: str, folder: Path, sound: Int16) -> Rig:
    """Returns the rig of a name of `RIGS`."""
    folder.mkdir(parents=True)
    match name:
        case "alsa":
            return AlsaRig(folder, sound)
        case "pulseaudio" | "pulseaudio-default":
            return PulseRig(folder, sound, "default" if "-" in name else "desk")
        case _:
            return PipeWireRig(folder, sound, "default" if "-" in name else "desk")


RIGS = ("alsa", "pulseaudio", "pipewire", "pulseaudio-default", "pipewire-default")
