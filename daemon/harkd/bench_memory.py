"""What memory a model really takes: loads it in a process of its own, and lets it hear utterances.

In: a package's folder. Out: `Measured`. ``python -m harkd.bench_memory FOLDER`` is that process,
and prints one JSON object. What is counted is what swap alone could take away: the resident set
without pages of files, and at its most, which the kernel keeps (``VmHWM``) and forgets when it is
told to (``5`` to ``clear_refs``, proc_pid_clear_refs(5)).
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from harkd.audio import RATE_HZ, AudioBlock, FileSource, Int16
from harkd.bench_machine import read
from harkd.bench_measure import BenchError
from harkd.memory_need import MB, Figures
from harkd.model_package import Manifest, load_manifest

UTTERANCES_S: Final = (15.0, 30.0)
"""The default of `endpoint.max_utterance_s`, and what Moonshine takes at most."""
PARTIAL_S: Final = 0.5
"""A partial is made of so much more audio, or of a tenth more, as the daemon does by default."""
TIMES: Final = 2
"""Each utterance is heard so often: the second time meets what the first has left behind."""
TIMEOUT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What one model took, in MB (10^6 bytes) besides what the process had before."""

    figures: Figures
    """As a manifest keeps them."""
    peaks_mb: dict[str, float]
    """At most in an utterance, by its seconds."""


def measure(folder: Path, threads: int = 1) -> Measured:
    """Measure in a process of its own. Raises BenchError."""
    command = [sys.executable, "-m", "harkd.bench_memory", str(folder), str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        found = json.loads(done.stdout)
        return Measured(Figures(**found["figures"]), found["peaks_mb"])
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"the model in {folder} took more than {TIMEOUT_S:.0f} s") from error
    except (ValueError, KeyError, TypeError) as error:
        words = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise BenchError(
            f"what the model in {folder} takes could not be measured: {words[-1]}",
            "`harkd models verify` checks its files",
        ) from error


def take(folder: Path, threads: int = 1) -> Measured:
    """Measure in this process, which must have loaded no model before. Raises HarkdError."""
    manifest = load_manifest(folder)
    longest_s = manifest.limits.max_segment_s
    lengths_s = sorted({min(each, longest_s) for each in UTTERANCES_S})
    audio = {each: speech(folder, manifest, each) for each in lengths_s}
    before_mb = kept_mb("VmRSS")
    forget_peak()
    from harkd.recognizer.factory import load_recognizer  # onnxruntime's own memory counts, too

    recognizer = load_recognizer(folder, manifest, threads)
    load_mb = kept_mb("VmHWM") - before_mb
    loaded_mb = kept_mb("VmRSS") - before_mb
    peaks: dict[float, float] = {}
    for length_s, samples in audio.items():
        forget_peak()
        for _ in range(TIMES):
            stream = recognizer.stream()
            at = 0
            while at < len(samples):
                end = at + max(int(PARTIAL_S * RATE_HZ), at // 10)
                stream.accept(samples[at:end])
                stream.hypothesis()
                at = end
            stream.prepare()
            stream.finish()
        peaks[length_s] = kept_mb("VmHWM") - before_mb
        recognizer.rest()
    first_s, last_s = lengths_s[0], lengths_s[-1]
    rise_mb = peaks[last_s] - peaks[first_s]
    per_s_mb = max(0.0, rise_mb / (last_s - first_s)) if last_s > first_s else 0.0
    figures = Figures(
        load_mb=round(load_mb, 1),
        loaded_mb=round(loaded_mb, 1),
        base_mb=round(max(0.0, peaks[first_s] - per_s_mb * first_s), 1),
        per_s_mb=round(per_s_mb, 2),
    )
    return Measured(figures, {f"{each:g}": round(peaks[each], 1) for each in lengths_s})


def speech(folder: Path, manifest: Manifest, length_s: float) -> Int16:
    """Return int16, shape (n,), 16 kHz: the longest sample of the model, again and again, or noise.

    Noise makes a model say less, so that its decoder takes up to a tenth less.
    """
    samples = int(length_s * RATE_HZ)
    if not manifest.samples:
        return np.clip(np.random.default_rng(1).normal(0, 3000, samples), -32768, 32767).astype(
            np.int16
        )
    longest = max(manifest.samples, key=lambda each: each.size_bytes)
    blocks = FileSource(folder / longest.path, paced=False).events()
    found = np.concatenate([each.samples for each in blocks if isinstance(each, AudioBlock)])
    return np.resize(found, samples)


def kept_mb(field: str) -> float:
    """Return what is resident now (``VmRSS``) or was at most (``VmHWM``), without files' pages."""
    status = dict(
        line.split(":", 1) for line in read(Path("/proc/self/status")).splitlines() if ":" in line
    )
    of = {name: int(status[name].split()[0]) for name in (field, "RssFile", "RssShmem")}
    return (of[field] - of["RssFile"] - of["RssShmem"]) * 1024 / MB


def forget_peak() -> None:
    """Let ``VmHWM`` begin again at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def main() -> None:
    """Measure, and print it."""
    found = take(Path(sys.argv[1]), int(sys.argv[2]))
    print(json.dumps({"figures": asdict(found.figures), "peaks_mb": found.peaks_mb}))  # noqa: T201


if __name__ == "__main__":
    main()
