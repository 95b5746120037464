"""harkd and sherpa-onnx with the same streaming model, as subjects of `harkd.bench_measure`.

In: a package that `harkd models import` takes, or an unpacked model of sherpa-onnx. Both subjects
get 100 ms at a time and are asked for their text each 0.5 s, as a daemon asks. harkd adds itself
what silence a final needs; sherpa-onnx adds none, so its examples and these subjects do. Runs on
the calling thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from harkd.audio import RATE_HZ, Int16
from harkd.bench_measure import Heard
from harkd.model_package import MANIFEST_NAME, Manifest, load_manifest
from harkd.recognizer.chunk_model import ChunkModel
from harkd.recognizer.ctc import StreamingCtc
from harkd.recognizer.factory import load_recognizer  # before the peer: it turns telemetry off
from harkd.recognizer.fbank import SHIFT_SAMPLES, WINDOW_SAMPLES
from harkd.recognizer.protocol import Work
from harkd.recognizer.transducer import Transducer
from harkd.sherpa_package import manifest_of

PIECE_SAMPLES = RATE_HZ // 10
ASK_EACH = 5
EXAMPLES_TAIL_S = 0.66
"""sherpa-onnx's own examples add so much silence."""
LONG_TAIL_S = 1.5

Tail = Callable[[Int16], int]
"""How many samples of silence follow a recording"""


@dataclass(frozen=True)
class Package:
    """A streaming model."""

    folder: Path
    """Where it lies."""
    manifest: Manifest
    """What it is."""

    @property
    def paths(self) -> dict[str, str]:
        """Its files by role."""
        return {role: str(self.folder / file.path) for role, file in self.manifest.files.items()}


def open_package(folder: Path) -> Package:
    """Return a package of harkd's, or what sherpa-onnx publishes."""
    if (folder / MANIFEST_NAME).is_file():
        return Package(folder, load_manifest(folder))
    return Package(folder, msgspec.structs.replace(manifest_of(folder, ("en",)), name="model"))


def load_streaming(package: Package) -> StreamingCtc | Transducer:
    """Load harkd's recognizer with one thread."""
    model = load_recognizer(package.folder, package.manifest, threads=1)
    if not isinstance(model, StreamingCtc | Transducer):
        raise SystemExit(f"{package.folder} is no streaming model")
    return model


def load_sherpa(package: Package, model: ChunkModel) -> Any:
    """Load sherpa-onnx's recognizer for the same files, with one thread."""
    import sherpa_onnx

    paths, recognizer = package.paths, sherpa_onnx.OnlineRecognizer
    kind, properties = model.encoder.layout.kind, model.encoder.properties
    if isinstance(model, Transducer):
        roles = ("encoder", "decoder", "joiner", "tokens")
        return recognizer.from_transducer(num_threads=1, **{role: paths[role] for role in roles})
    files = {"model": paths["model"], "tokens": paths["tokens"]}
    if kind == "wenet_ctc":
        chunk, left = (int(properties.get(key, 0)) for key in ("chunk_size", "left_chunks"))
        return recognizer.from_wenet_ctc(
            num_threads=1, chunk_size=chunk or 16, num_left_chunks=left or 4, **files
        )
    if kind == "zipformer2":
        return recognizer.from_zipformer2_ctc(num_threads=1, **files)
    return recognizer.from_nemo_ctc(num_threads=1, **files)


def pieces(audio: Int16) -> list[Int16]:
    """Return audio in blocks."""
    return [audio[at : at + PIECE_SAMPLES] for at in range(0, len(audio), PIECE_SAMPLES)]


class Harkd:
    """harkd's recognizer.

    Args:
        model: The loaded model.
        name: For the report.
    """

    def __init__(self, model: StreamingCtc | Transducer, name: str = "harkd") -> None:
        self.name = name
        self.model = model
        self.tokens: list[str] = []
        """Of the last recording."""

    def prepare(self) -> None:
        """Nothing to do."""

    def hear(self, samples: Int16) -> Heard:
        """Recognize as the daemon does."""
        before = self.model.work.snapshot()
        stream = self.model.stream()
        for number, piece in enumerate(pieces(samples), 1):
            stream.accept(piece)
            if number % ASK_EACH == 0:
                stream.hypothesis()
        found = stream.finish()
        self.tokens = [self.model.symbols.symbols[each] for each in found.tokens]
        return Heard(found.text, work=self.model.work.since(before), finals=1)


class SherpaOnnx:
    """sherpa-onnx's recognizer, used as its examples use it.

    Args:
        recognizer: The loaded model.
        name: For the report.
        tail: The silence that follows.
    """

    def __init__(self, recognizer: Any, name: str, tail: Tail) -> None:
        self.name = name
        self.tokens: list[str] = []
        """Of the last recording."""
        self._recognizer = recognizer
        self._tail = tail

    def prepare(self) -> None:
        """Nothing to do."""

    def hear(self, samples: Int16) -> Heard:
        """Recognize it, and silence after it."""
        recognizer, steps = self._recognizer, 0
        stream = recognizer.create_stream()
        silence = np.zeros(self._tail(samples), np.int16)
        for number, piece in enumerate([*pieces(samples), silence], 1):
            stream.accept_waveform(RATE_HZ, piece.astype(np.float32) / 32768)
            while recognizer.is_ready(stream):
                recognizer.decode_stream(stream)
                steps += 1
            if number % ASK_EACH == 0:
                recognizer.get_result(stream)
        self.tokens = [each.replace(" ", "▁") for each in recognizer.tokens(stream)]
        text = " ".join(recognizer.get_result(stream).split())
        return Heard(text, work=Work(encoder_passes=steps), finals=1)


class SameChunks:
    """As much silence as lets sherpa-onnx encode as many chunks as harkd did.

    Args:
        model: harkd's, of which recordings are heard once, beforehand.
    """

    def __init__(self, model: StreamingCtc | Transducer) -> None:
        self._harkd = Harkd(model)
        self._known: dict[int, int] = {}

    def __call__(self, samples: Int16) -> int:
        """Return the samples of silence."""
        key = hash(samples.tobytes())
        if key not in self._known:
            layout = self._harkd.model.encoder.layout
            steps = self._harkd.hear(samples).work.encoder_passes
            # It waits for one frame more than a chunk has, and for all of that frame's window,
            # which is centred on its 10 ms.
            frames = (steps - 1) * layout.shift_frames + layout.chunk_frames + 1
            needed = frames * SHIFT_SAMPLES + (WINDOW_SAMPLES - SHIFT_SAMPLES) // 2
            self._known[key] = max(0, needed - len(samples))
        return self._known[key]


def seconds_of(tail_s: float) -> Tail:
    """Return a tail of always the same length."""
    return lambda _samples: int(tail_s * RATE_HZ)


def peers_of(package: Package, model: StreamingCtc | Transducer) -> list[SherpaOnnx]:
    """Return sherpa-onnx with different silences after a recording."""
    recognizer = load_sherpa(package, model)
    return [
        SherpaOnnx(recognizer, "sherpa-onnx, as many chunks", SameChunks(model)),
        *(
            SherpaOnnx(recognizer, f"sherpa-onnx, {tail_s} s after", seconds_of(tail_s))
            for tail_s in (EXAMPLES_TAIL_S, LONG_TAIL_S)
        ),
    ]
