"""The lean Moonshine's stem and encoder: each stretch of audio is encoded about once.

In: a segment's audio, piece by piece. Out: the decoder's keys and values of each frame. The graphs
are those of `harkd_convert.moonshine_graphs`. A frame's features depend on what comes after it, so
the latest frames are encoded again when more audio has come; those that had `LOOK_AHEAD_FRAMES`
behind them are kept. Runs on the thread that uses the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harkd.audio import RATE_HZ
from harkd.recognizer.onnx import dtype_of
from harkd.recognizer.placement import Placement

Float32 = NDArray[np.float32]

LAYOUT = "2"
"""Counts up when a graph's inputs or outputs change; the converter writes it into the graphs."""
TAP_SAMPLES = 64
"""Step of the first convolution."""
TAP_WINDOW_SAMPLES = 127
"""What one of its frames sees."""
ROW_SAMPLES = 192
"""Step of the second convolution: 64 × 3."""
ROW_WINDOW_SAMPLES = 511
"""What one of its rows sees: 127 + 6 × 64."""
FRAME_SAMPLES = 384
"""Step of a frame: 24 ms."""
LOOK_AHEAD_FRAMES = 24
"""0.58 s; docs/performance.md has the error that it leaves, and that of others."""
ANEW_FACTOR = 2
"""What was kept is encoded anew when a segment has grown by this: its errors add up."""


class LeanEncoder:
    """The loaded graphs of stem and encoder.

    Args:
        stem: The stem's file.
        encoder: The encoder's file.
        threads: Threads for each pass.
        placement: Where they may run; the CPU if omitted.

    Raises:
        ModelDamagedError: onnxruntime cannot load a file.
        KeyError, ValueError: A graph is not what its file should hold.
    """

    def __init__(
        self, stem: Path, encoder: Path, threads: int, placement: Placement | None = None
    ) -> None:
        placement = placement or Placement()
        self.stem = placement.open("stem", stem, threads, arena=False)
        self.session = placement.open("encoder", encoder, threads, arena=False)
        properties = self.session.get_modelmeta().custom_metadata_map
        if properties["layout"] != LAYOUT:
            raise ValueError(f"layout {properties['layout']} instead of {LAYOUT}")
        self.width = int(properties["width"])
        self.layers = int(properties["encoder_layers"])
        self.most_frames = int(properties["most_frames"])
        self.epsilon = float(properties["norm_epsilon"])
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.real = dtype_of(self.session, "past_key_0")
        cross = {each.name: each.shape for each in self.session.get_outputs()}["cross"]
        self.cross_shape = (int(cross[0]), int(cross[1]), int(cross[3]))
        """2 × decoder layers, heads, features of a head."""
        self.past_names = [f"{k}_{i}" for i in range(self.layers) for k in ("key", "value")]
        """Of the keys and values that a pass takes and gives"""

    def encode(
        self,
        rows: Float32,
        start: int,
        past: Sequence[NDArray[Any]],
        total: float,
        squares: float,
        count: int,
    ) -> dict[str, NDArray[Any]]:
        """Run the encoder over new frames.

        Args:
            rows: Of these: float32, (2 × frames + 1, 2 × width).
            start: Frames before them.
            past: What they look back at, in the order of `past_names`: each (frames, width).
            total: Sum over so many features, for the norm.
            squares: And of their squares.
            count: So many features.

        Returns:
            The graph's outputs by name.
        """
        mean = total / count
        variance = squares / count - mean * mean
        scale = 1.0 / np.sqrt(max(variance, 0.0) + self.epsilon)
        feed: dict[str, Any] = {
            "rows": rows,
            "scale": np.array([scale], np.float32),
            "shift": np.array([-mean * scale], np.float32),
            "start": np.array([start], np.int64),
        }
        for name, each in zip(self.past_names, past, strict=True):
            feed[f"past_{name}"] = each[None]
        return dict(zip(self.outputs, self.session.run(None, feed), strict=True))


class EncoderState:
    """What is kept of one segment.

    Args:
        encoder: The graphs.
        capacity_s: Room for so many seconds at first; it grows when they do not do.
    """

    def __init__(self, encoder: LeanEncoder, capacity_s: float) -> None:
        self._encoder = encoder
        self._audio: Float32 = np.empty(0, np.float32)  # (n,), from sample ROW_SAMPLES × _rows on
        self.samples = 0
        """Samples taken so far."""
        frames = max(64, int(capacity_s * RATE_HZ / FRAME_SAMPLES) + 1)
        self._stem_rows: Float32 = np.empty((2 * frames + 2, 2 * encoder.width), np.float32)
        self._rows = 0  # so many of them are filled
        self._total = self._squares = 0.0  # over all features of the first convolution's frames
        self._summed = 0  # so many of those frames
        self._past: list[NDArray[Any]] = []
        self._cross: NDArray[Any] = np.empty(0)
        self.frames = 0
        """So many frames have been encoded."""
        self.anew = False
        """Whether all of them were in the last pass."""
        self._frames_anew = 0  # so many there were when that was so last
        self._forget()

    def accept(self, audio: Float32) -> None:
        """Take the next audio: float32, shape (n,), 16 kHz mono, -1…1."""
        self._audio = np.concatenate([self._audio, audio])
        self.samples += len(audio)

    def encode(self, look_ahead: int | None) -> float:
        """Encode what has come since the last call, and the frames that it changes.

        Args:
            look_ahead: Frames that had so many behind them are kept; None encodes all anew. So is
                all that has doubled since that was done last.

        Returns:
            Seconds of audio that went through the encoder.
        """
        self._run_stem()
        frames = (self._rows - 1) // 2
        doubled = frames >= ANEW_FACTOR * self._frames_anew
        kept = 0 if look_ahead is None or doubled else max(0, self.frames - look_ahead)
        self.anew = not kept
        if self.anew:
            self._frames_anew = frames
            self._forget()  # before the pass, since both at once would take the most memory
        outputs = self._encoder.encode(
            self._stem_rows[2 * kept : 2 * frames + 1],
            kept,
            [each[:kept] for each in self._past],
            self._total,
            self._squares,
            self._summed * self._encoder.width,
        )
        names = self._encoder.past_names
        if kept:
            for i, name in enumerate(names):
                self._past[i] = with_room(self._past[i], frames, axis=0)
                self._past[i][kept:frames] = outputs[name][0]
            self._cross = np.concatenate([self._cross[:, :, :kept], outputs["cross"]], axis=2)
        else:
            # Of just this size, so that nothing is copied until more audio comes.
            self._past = [outputs[name][0] for name in names]
            self._cross = outputs["cross"]
        self.frames = frames
        return (frames - kept) * FRAME_SAMPLES / RATE_HZ

    def cross(self) -> list[NDArray[Any]]:
        """Return the decoder's keys and values, in turn: each (1, heads, frames, head)."""
        return [each[None] for each in self._cross]

    def _forget(self) -> None:
        """Let go of what was encoded."""
        encoder = self._encoder
        self._past = [np.empty((0, encoder.width), encoder.real)] * (2 * encoder.layers)
        pairs, heads, head = encoder.cross_shape
        self._cross = np.empty((pairs, heads, 0, head), encoder.real)
        self.frames = 0

    def _run_stem(self) -> None:
        """Bring rows and sums up to date."""
        known = self._summed - 3 * self._rows
        taps = (len(self._audio) - TAP_WINDOW_SAMPLES) // TAP_SAMPLES + 1
        if taps <= known:
            return
        # The norm counts all frames of the first convolution, also those that no row sees yet: a
        # row is made then, too, since the graph makes one at least, but not kept.
        rows = max(0, (len(self._audio) - ROW_WINDOW_SAMPLES) // ROW_SAMPLES + 1)
        paired = 3 * (max(1, rows) + 1)
        steps = max(taps, paired + 1) + 1
        audio = np.zeros(steps * TAP_SAMPLES, np.float32)
        heard = self._audio[: len(audio)]
        audio[: len(heard)] = heard
        made, totals, squares = self._encoder.stem.run(
            None,
            {
                "steps": audio.reshape(steps, TAP_SAMPLES),
                "paired": np.array([paired], np.int64),
            },
        )
        after = self._rows + rows
        self._stem_rows = with_room(self._stem_rows, after, axis=0)
        self._stem_rows[self._rows : after] = made[:rows]
        self._total += float(totals[known:taps].sum(dtype=np.float64))
        self._squares += float(squares[known:taps].sum(dtype=np.float64))
        self._summed += taps - known
        self._rows = after
        self._audio = self._audio[ROW_SAMPLES * rows :]


def with_room(array: NDArray[Any], wanted: int, axis: int) -> NDArray[Any]:
    """Return the array, or a longer copy where `wanted` places do not fit along an axis."""
    if array.shape[axis] >= wanted:
        return array
    shape = list(array.shape)
    shape[axis] = max(wanted, shape[axis] * 3 // 2)
    longer = np.empty(shape, array.dtype)
    longer[tuple(slice(0, size) for size in array.shape)] = array
    return longer
