"""harkd and sherpa-onnx with the same streaming transducer, in turns, in one process, on one core.

    .venv/bin/python bench/streaming_peers.py DIR RECORDING --rounds 10

DIR is an unpacked streaming transducer of sherpa-onnx. Where none is at hand, one of random weights
with the shapes of a published one does for the cost:

    PYTHONPATH=tests .venv/bin/python -c "import pathlib, small_streaming as s; \
        s.write_published_size(pathlib.Path('DIR'), blocks=12, blank=6.0)"

Both get 100 ms at a time and are asked for
their text each 0.5 s, as a daemon asks; at the end both hear as much silence as harkd finds that
the model needs. What differs is what either spends around the same graphs. The process pins itself
to one core before anything is loaded. Prints CPU seconds for each second of audio, the quickest
round and the median, and whether the tokens are the same.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from harkd.audio import RATE_HZ
from harkd.recognizer.factory import load_recognizer  # before the peer: it turns telemetry off
from harkd.recognizer.transducer import Transducer
from harkd.sherpa_package import manifest_of

Int16 = NDArray[np.int16]
PIECE_SAMPLES = RATE_HZ // 10
ASK_EACH = 5
TAIL_S = 0.66
"""sherpa-onnx's own examples add so much."""


def read(path: Path) -> Int16:
    """Return a recording as int16, shape (n,), 16 kHz."""
    samples, rate_hz = soundfile.read(path, dtype="int16", always_2d=True)
    mono: Int16 = samples[:, 0]
    return mono if rate_hz == RATE_HZ else soxr.resample(mono, rate_hz, RATE_HZ)


def pieces(audio: Int16) -> list[Int16]:
    """Return audio in blocks."""
    return [audio[at : at + PIECE_SAMPLES] for at in range(0, len(audio), PIECE_SAMPLES)]


def ours(model: Transducer, audio: Int16) -> list[str]:
    """Recognize as the daemon does; return the tokens."""
    stream = model.stream()
    for number, piece in enumerate(pieces(audio), 1):
        stream.accept(piece)
        if number % ASK_EACH == 0:
            stream.hypothesis()
    return [model.symbols.symbols[each] for each in stream.finish().tokens]


def theirs(recognizer: Any, audio: Int16) -> list[str]:
    """Recognize as sherpa-onnx's examples do; return the tokens."""
    stream = recognizer.create_stream()
    silence = np.zeros(int(TAIL_S * RATE_HZ), np.int16)
    for number, piece in enumerate([*pieces(audio), silence], 1):
        stream.accept_waveform(RATE_HZ, piece.astype(np.float32) / 32768)
        while recognizer.is_ready(stream):
            recognizer.decode_stream(stream)
        if number % ASK_EACH == 0:
            recognizer.get_result(stream)
    return [each.replace(" ", "▁") for each in recognizer.tokens(stream)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    words = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import sherpa_onnx

    audio = read(words.recording)
    manifest = msgspec.structs.replace(manifest_of(words.model, ("en",)), name="model")
    model = load_recognizer(words.model, manifest, threads=1)
    if not isinstance(model, Transducer):
        raise SystemExit(f"{words.model} is no transducer")
    paths = {role: str(words.model / file.path) for role, file in manifest.files.items()}
    peer = sherpa_onnx.OnlineRecognizer.from_transducer(
        num_threads=1, **{role: paths[role] for role in ("encoder", "decoder", "joiner", "tokens")}
    )
    subjects: dict[str, Callable[[], list[str]]] = {
        "harkd": lambda: ours(model, audio),
        "sherpa-onnx": lambda: theirs(peer, audio),
    }
    spent: dict[str, list[float]] = {name: [] for name in subjects}
    said: dict[str, list[str]] = {}
    for number in range(words.rounds + 1):
        for name, run in sorted(subjects.items(), reverse=bool(number % 2)):
            begin = time.process_time()
            said[name] = run()
            if number:  # the first round warms up
                spent[name].append((time.process_time() - begin) / (len(audio) / RATE_HZ))
    print(f"{len(audio) / RATE_HZ:.1f} s, {words.rounds} rounds, CPU s for each s of audio")
    for name, costs in spent.items():
        print(f"{name:12} {min(costs):.5f} at least, {statistics.median(costs):.5f} median")
    medians = [statistics.median(spent[name]) for name in subjects]
    pairs = list(zip(*said.values(), strict=False))
    common = next((i for i, (one, other) in enumerate(pairs) if one != other), len(pairs))
    print(f"harkd / sherpa-onnx {medians[0] / medians[1]:.3f} (median)")
    print(f"tokens: {[len(said[name]) for name in subjects]}, {common} of them in common")


if __name__ == "__main__":
    main()
