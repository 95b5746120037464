"""A microphone that is an ALSA device and no server: plays a file, and can be unplugged.

`build` compiles the plugin in `alsa_plugin`; `AlsaMic` configures a device of it, called `testmic`,
and gives the environment in which ALSA has that one and a `default` over it that converts rates.
"""

import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import soundfile
import soxr

from servers import MissingProgramError, program, wait_until

SOURCE = Path(__file__).parent / "alsa_plugin" / "harkd_test_mic.c"
LIBRARY = "libasound_module_pcm_harkd_test_mic.so"

ASOUND_CONF = """\
pcm_type.harkd_test_mic {{ lib "{plugin}" }}
pcm.testmic {{
  type harkd_test_mic
  file "{sound}"
  rate {rate_hz}
  channels {channels}
  loop {loop}
  ctl "{control}"
  hint {{ show on description "{description}" }}
}}
pcm.!default {{
  type plug
  slave.pcm testmic
  hint {{ show on description "Default, by testmic" }}
}}
"""


def build(folder: Path) -> Path:
    """Compiles the plugin into a folder and returns its path."""
    if not Path("/usr/include/alsa/asoundlib.h").exists():
        raise MissingProgramError(
            "the ALSA headers are not installed: apt-get install libasound2-dev"
        )
    plugin = folder / LIBRARY
    warnings = ["-Wall", "-Wextra", "-Werror"]
    arguments: list[str | Path] = [
        "-shared",
        "-fPIC",
        "-DPIC",
        "-O2",
        *warnings,
        "-o",
        plugin,
        SOURCE,
        "-lasound",
    ]
    done = subprocess.run([program("gcc"), *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{SOURCE.name} does not compile:\n{done.stderr}")
    return plugin


class AlsaMic:
    """The device `testmic`, plugged in from `__enter__` to `__exit__`.

    It starts to play its file when a reader starts it: see `started_ns`.
    """

    def __init__(
        self,
        folder: Path,
        plugin: Path,
        wav: Path,
        *,
        rate_hz: int = 48_000,
        channels: int = 2,
        loop: bool = False,
    ) -> None:
        self.folder = folder
        self._plugin = plugin
        self._wav = wav
        self._loop = loop
        self.rate_hz = rate_hz
        self.channels = channels
        self._control = folder / "control"
        self._started = folder / "control.started"
        self._conf = folder / "asound.conf"
        self._write()

    @property
    def description(self) -> str:
        """What ALSA calls it."""
        return f"Test {self.rate_hz // 1000}k {'stereo' if self.channels == 2 else 'mono'} mic"

    def _write(self) -> None:
        sound = self.folder / f"sound-{self.rate_hz}-{self.channels}.raw"
        sound.write_bytes(read_pcm(self._wav, self.rate_hz, self.channels).tobytes())
        self._conf.write_text(
            ASOUND_CONF.format(
                plugin=self._plugin,
                sound=sound,
                rate_hz=self.rate_hz,
                channels=self.channels,
                loop=int(self._loop),
                control=self._control,
                description=self.description,
            )
        )

    def __enter__(self) -> Self:
        self.resume()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.unplug()

    @property
    def env(self) -> dict[str, str]:
        """The variables that make this the only ALSA device, and PulseAudio unreachable."""
        return {
            "ALSA_CONFIG_PATH": str(self._conf),
            "PULSE_SERVER": f"unix:{self.folder}/no-pulse.sock",
        }

    def started_ns(self, timeout_s: float = 10.0, *, after_ns: int = 0) -> int:
        """Returns when sample 0 played, in ns of the monotonic clock; waits for a reader.

        Each opening of the device plays from sample 0 and has a time of its own; `after_ns` asks
        for a later one. Without `loop`, sample n played n / `rate_hz` s after it.
        """

        def started() -> bool:
            return self._started.exists() and int(self._started.read_text()) > after_ns

        wait_until(started, "reader of testmic", timeout_s)
        return int(self._started.read_text())

    def unplug(self) -> int:
        """Takes the device away; returns the monotonic ns at which it went."""
        return self._set("unplug")

    def replug(self) -> int:
        """Puts the device back; whoever opens it hears the file from its start."""
        return self._set("play")

    def stall(self) -> int:
        """Lets no more samples come; the device stays."""
        return self._set("stall")

    def zero(self) -> int:
        """Makes every sample zero, as a hardware mute switch does."""
        return self._set("zero")

    def xrun(self) -> int:
        """Reports one overrun; `resume` before the next one."""
        return self._set("xrun")

    def busy(self) -> int:
        """Lets nobody open it, as where another program has it; `unplug` throws out who has it."""
        return self._set("busy")

    def deny(self) -> int:
        """Lets nobody open it for want of rights."""
        return self._set("deny")

    def change_format(self, rate_hz: int, channels: int) -> None:
        """Gives it another rate and channel count, for whoever opens it next."""
        self.rate_hz, self.channels = rate_hz, channels
        self._write()

    def resume(self) -> int:
        """Undoes any of the others."""
        return self._set("play")

    def _set(self, word: str) -> int:
        new = self._control.with_suffix(".new")
        new.write_text(word + "\n")
        new.rename(self._control)
        return time.monotonic_ns()


def read_pcm(
    wav: Path, rate_hz: int, channels: int
) -> np.ndarray[tuple[int, int], np.dtype[np.int16]]:
    """Returns a file's first channel at a rate, in all channels: int16, (frames, channels)."""
    samples, wav_hz = soundfile.read(wav, dtype="int16", always_2d=True)
    mono = samples[:, 0]
    if wav_hz != rate_hz:
        mono = soxr.resample(mono, wav_hz, rate_hz)
    return np.repeat(mono[:, np.newaxis], channels, axis=1).astype("<i2")
