"""Hours of speech, noise and silence: does anything grow, does the time stay right?

    .venv/bin/python bench/soak.py fast --hours 2 --speed 20    the daemon on raw audio, quicker
    .venv/bin/python bench/soak.py real --minutes 30            the daemon on a real PulseAudio
    .venv/bin/python bench/soak.py real --minutes 30 --alsa     … on ALSA, which knows the time
    .venv/bin/python bench/soak.py clock                        the sample clock alone

`fast` feeds the whole daemon, but for its capture process, on stdin (`harkd run --source -`), so
all its threads, its outbox and MQTT run, at the machine's own time; where recognition does not keep
up, the daemon lets the feeder wait, and the speed that was reached is printed. Text and times of
day mean little there. `real` compares each `ended_at` with the time at which the utterance ended:
known exactly on ALSA; on PulseAudio the latency is part of the difference, and what counts is how
it changes. `clock` is the daemon's `SampleClock` under a device that runs too fast or too slow,
with stamps that come late. Ends with 1 where times drift by more than 100 ms, or where memory grows
for sure: its 95 % interval lies above 1 MB for an hour of audio (of four turns of the loop, 21
minutes, at least).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path

import numpy as np
import psutil
import soundfile

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from soak_figures import residuals_s, sample_clock_drift, trend  # noqa: E402
from soak_sound import Mixture, mixture  # noqa: E402

from alsa_mic import AlsaMic, build  # noqa: E402 - the tests' servers serve here, too
from daemon_process import Daemon  # noqa: E402
from harkd.audio import RATE_HZ  # noqa: E402
from harkd.bench_machine import this_machine  # noqa: E402
from harkd.model_store import store_of  # noqa: E402
from harkd.settings import Settings  # noqa: E402
from servers import Mosquitto, PulseServer, Subscriber  # noqa: E402
from speaker import Speaker  # noqa: E402

DRIFT_MOST_MS = 100.0
GROWTH_MOST_MB = 1.0
"""In an hour of audio; more than this, for sure, is a leak."""
WARM_UP_TURNS = 1
"""The first turn of the loop says nothing of growth: each length of utterance takes some once."""
LOOP_S = 300.0
"""Length of the loop that is played, in about."""
SAME_S = 0.2
"""Finals that end farther from the rest were cut elsewhere: noise, or another pause."""
FEWEST = 10
"""So many finals, at the beginning and at the end, tell a drift."""
LOOK_S = 1.0
"""Real seconds between two looks at the daemon."""
SETTLE_S = 2.0
DEVICE = "soak"
RECORDED = "moonshine-tiny-en"
"""Whose recordings are played; the daemon runs the model that the settings name."""


class Watch:
    """A daemon's resources over the hours of audio that it has heard."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._began = self._looked = time.monotonic()
        self._cpu_before_s = self._cpu_s = self._used_s()
        self.hours: list[float] = []
        self.rss_mb: list[float] = []
        self.fds: list[int] = []
        self.threads: list[int] = []
        self.capture_mb: list[float] = []

    def look(self, audio_s: float) -> None:
        """Note how it fares now, after so much audio."""
        self._looked, self._cpu_s = time.monotonic(), self._used_s()
        self.hours.append(audio_s / 3600)
        self.rss_mb.append(self._process.memory_info().rss / 1e6)
        self.fds.append(self._process.num_fds())
        self.threads.append(self._process.num_threads())
        captures = self._process.children()
        # Less what is mapped: the ALSA device of the tests maps the sound that it plays.
        own = [each.memory_info() for each in captures]
        self.capture_mb.append(sum(each.rss - each.shared for each in own) / 1e6)

    def _used_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def report(self, loop_s: float) -> tuple[list[str], list[str]]:
        """Return lines for people, and what was broken.

        Memory depends on what is being recognized, so turns of the loop are compared, not moments.
        """
        seconds = self._looked - self._began
        audio_h = self.hours[-1]
        turns: dict[int, list[float]] = defaultdict(list)
        for hours, rss_mb in zip(self.hours, self.rss_mb, strict=True):
            turns[int(hours * 3600 / loop_s)].append(rss_mb)
        whole = list(turns.items())[WARM_UP_TURNS:-1]
        growth = trend(
            [turn * loop_s / 3600 for turn, _ in whole], [statistics.mean(rss) for _, rss in whole]
        )
        first = len(turns[0])
        lines = [
            f"{audio_h:.2f} h of audio in {seconds / 60:.1f} minutes: "
            f"{audio_h * 3600 / seconds:.1f} × real time",
            f"memory from {min(self.rss_mb):.0f} to {max(self.rss_mb):.0f} MB; means of each turn "
            f"of {loop_s / 60:.1f} minutes: "
            f"{', '.join(f'{statistics.mean(rss):.0f}' for rss in turns.values())}; "
            f"{growth} MB for an hour of audio after the first turn",
            f"capture process's own memory {self.capture_mb[0]:.1f} → {self.capture_mb[-1]:.1f} MB",
            f"descriptors {self.fds[0]} → {self.fds[-1]}, at most {max(self.fds)}; "
            f"threads {self.threads[0]} → {self.threads[-1]}, at most {max(self.threads)}",
            f"processor {(self._cpu_s - self._cpu_before_s) / seconds:.2f} cores, daemon alone",
        ]
        broken = []
        if growth.slope - growth.half_width > GROWTH_MOST_MB:
            broken.append(f"memory grows by {growth} MB for an hour of audio")
        if self.fds[-1] > max(self.fds[:first]):
            broken.append("descriptors grew")
        if self.threads[-1] > max(self.threads[:first]):
            broken.append("threads grew")
        return lines, broken


def main() -> None:
    """Read the words of the command line, run, and print the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("mode", choices=("fast", "real", "clock"))
    parser.add_argument("--hours", type=float, default=2.0, help="of audio, for fast and clock")
    parser.add_argument("--speed", type=float, default=20.0, help="of fast, × real time")
    parser.add_argument("--minutes", type=float, default=30.0, help="for real")
    parser.add_argument("--alsa", action="store_true", help="for real: not PulseAudio")
    parser.add_argument("--no-partials", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    machine = this_machine()
    if given.mode == "clock":
        lines, broken = clock(given.hours, given.seed)
    else:
        with tempfile.TemporaryDirectory(prefix="harkd-soak-") as made:
            lines, broken = soak(given, Path(made))
    print("\n".join([*lines, str(machine), "", f"{len(broken)} bounds broken", *broken]))
    sys.exit(1 if broken else 0)


def clock(hours: float, seed: int) -> tuple[list[str], list[str]]:
    """Run the sample clock under devices that are too fast or too slow."""
    lines, broken = [], []
    for ppm in (-200.0, 0.0, 200.0):
        drift = sample_clock_drift(hours, ppm, seed)
        lines.append(
            f"a device off by {ppm:+.0f} ppm, {hours:g} h: mean error {drift.mean_ms:+.2f} ms, "
            f"worst {drift.worst_ms:.2f} ms"
        )
        if drift.worst_ms > DRIFT_MOST_MS:
            broken.append(lines[-1])
    return lines, broken


def soak(given: argparse.Namespace, folder: Path) -> tuple[list[str], list[str]]:
    """Run the daemon over the mixture, and return the report and what was broken."""
    model = store_of(Settings()).locate(RECORDED)
    samples = [model.dir / each.path for each in model.manifest.samples]
    mixed = mixture(samples, LOOP_S, given.seed)
    (folder / "broker").mkdir()
    with Mosquitto(folder / "broker") as broker, Subscriber(broker, f"harkd/{DEVICE}/#") as heard:
        env = {
            "HARKD_MODELS": str(model.dir.parent),
            "HARKD_DEVICE_ID": DEVICE,
            "HARKD_MQTT__HOST": broker.host,
            "HARKD_MQTT__PORT": str(broker.port),
        }
        if given.no_partials:
            env["HARKD_RECOGNIZER__PARTIALS"] = "false"
        if given.mode == "fast":
            lines, broken = fast(mixed, given.hours * 3600, given.speed, env, folder)
        elif given.alsa:
            lines, broken = on_alsa(mixed, given.minutes * 60, env, folder, heard)
        else:
            lines, broken = on_pulseaudio(mixed, given.minutes * 60, env, folder, heard)
        time.sleep(SETTLE_S)
        lines.append(counts(heard))
    return lines, broken


def counts(heard: Subscriber) -> str:
    """Return how many messages of each kind came."""
    kinds = Counter(
        each.topic.removeprefix(f"harkd/{DEVICE}/") for each in heard.messages if not each.retain
    )
    named = ("transcript", "transcript/partial", "transcript/rejected", "state", "health", "error")
    return ", ".join(f"{kinds[name]} × {name}" for name in named)


def fast(
    mixed: Mixture, audio_s: float, speed: float, env: dict[str, str], folder: Path
) -> tuple[list[str], list[str]]:
    """Feed the daemon on stdin, as fast as it takes it but not faster than `speed`."""
    words = ("--source", "-", "--rate", str(RATE_HZ), "--channels", "1")
    with Daemon(*words, env=env, folder=folder, stdin=subprocess.PIPE) as daemon:
        daemon.wait_for_log("loaded in")
        pipe = daemon.process.stdin
        if pipe is None:
            raise RuntimeError("Popen gave no pipe")
        watch = Watch(daemon.process.pid)
        sound, step_s = mixed.samples.tobytes(), 1.0
        step = int(step_s * RATE_HZ) * 2
        began, given_s, at, looked = time.monotonic(), 0.0, 0, 0.0
        while given_s < audio_s:
            piece = sound[at : at + step]
            pipe.write(piece)
            pipe.flush()
            at = (at + step) % len(sound)
            given_s += len(piece) / 2 / RATE_HZ
            if given_s - looked >= LOOK_S * speed:
                looked = given_s
                watch.look(given_s)
            time.sleep(max(0.0, given_s / speed - (time.monotonic() - began)))
        lines, broken = watch.report(mixed.seconds)
        pipe.close()
        daemon.wait(60)
    return lines, broken


def on_pulseaudio(
    mixed: Mixture, seconds: float, env: dict[str, str], folder: Path, heard: Subscriber
) -> tuple[list[str], list[str]]:
    """Listen to a real PulseAudio into which the mixture is played."""
    (folder / "pulse").mkdir()
    with (
        PulseServer(folder / "pulse") as pulse,
        Daemon(env={**env, **pulse.env}, folder=folder) as daemon,
    ):
        daemon.wait_for_log("listening to", 30)
        began = time.time()
        with Speaker(pulse, mixed.samples):
            watch = watch_for(daemon, seconds)
    lines, broken = watch.report(mixed.seconds)
    off_s = residuals_s(ends_of(heard, began), [end / RATE_HZ for end in mixed.ends], mixed.seconds)
    return judge_times(lines, broken, off_s, exact=False)


def on_alsa(
    mixed: Mixture, seconds: float, env: dict[str, str], folder: Path, heard: Subscriber
) -> tuple[list[str], list[str]]:
    """Listen to an ALSA device that knows when each sample was played."""
    wav = folder / "mixture.wav"
    soundfile.write(wav, mixed.samples, RATE_HZ)
    (folder / "alsa").mkdir()
    with (
        AlsaMic(folder / "alsa", build(folder), wav, loop=True) as mic,
        Daemon(env={**env, **mic.env, "HARKD_AUDIO__DEVICE": "testmic"}, folder=folder) as daemon,
    ):
        daemon.wait_for_log("listening to", 30)
        began = time.time() - (time.monotonic_ns() - mic.started_ns()) / 1e9
        watch = watch_for(daemon, seconds)
    lines, broken = watch.report(mixed.seconds)
    off_s = residuals_s(ends_of(heard, began), [end / RATE_HZ for end in mixed.ends], mixed.seconds)
    return judge_times(lines, broken, off_s, exact=True)


def watch_for(daemon: Daemon, seconds: float) -> Watch:
    """Look at the daemon once a second."""
    watch = Watch(daemon.process.pid)
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        watch.look(passed)
        time.sleep(LOOK_S)
    return watch


def ends_of(heard: Subscriber, began: float) -> list[float]:
    """When what was told to be final had ended, in seconds since `began` (UTC)."""
    finals = [json.loads(one.payload) for one in heard.messages if one.topic.endswith("transcript")]
    return [datetime.fromisoformat(each["ended_at"]).timestamp() - began for each in finals]


def judge_times(
    lines: list[str], broken: list[str], off_s: list[float], *, exact: bool
) -> tuple[list[str], list[str]]:
    """Add what the finals' times tell."""
    middle_s = statistics.median(off_s) if off_s else 0.0
    same_ms = np.asarray([each * 1000 for each in off_s if abs(each - middle_s) < SAME_S])
    if len(same_ms) < max(FEWEST, len(off_s) / 2):
        return lines, [*broken, f"only {len(same_ms)} of {len(off_s)} finals end where they should"]
    first, last = (float(np.median(part)) for part in (same_ms[:FEWEST], same_ms[-FEWEST:]))
    spread_ms = float(np.percentile(np.abs(same_ms - np.median(same_ms)), 95))
    lines.append(
        f"ended_at of {len(same_ms)} finals (of {len(off_s)}; the others were cut elsewhere): "
        f"{'' if exact else 'latency of the sound server and '}error {np.median(same_ms):+.0f} ms, "
        f"95 % within {spread_ms:.0f} ms of that; first {FEWEST} {first:+.0f} ms, "
        f"last {FEWEST} {last:+.0f} ms"
    )
    if abs(last - first) > DRIFT_MOST_MS or (exact and abs(last) > DRIFT_MOST_MS):
        broken.append(f"ended_at went from {first:+.0f} to {last:+.0f} ms")
    return lines, broken


if __name__ == "__main__":
    main()
