"""The lean Moonshine's graphs, run in passes over chunks: each frame is encoded once for good.

In: a segment's audio, piece by piece. Out: the decoder's keys and values of each frame. Pass k
encodes a chunk of frames and the look-ahead behind it, as soon as all of them are complete; those
of the chunk are kept, the others stand until the next pass. What is computed depends on the audio
alone, bit by bit, not on how it came: stem and encoder are always called with the same frames
together. The graphs are those of `harkd_convert.moonshine_graphs`. Runs on the thread that uses the
stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harkd.audio import RATE_HZ
from harkd.model_package import Streaming
from harkd.recognizer.lean_encoder import (
    FRAME_SAMPLES,
    ROW_SAMPLES,
    TAP_SAMPLES,
    LeanEncoder,
    with_room,
)

Float32 = NDArray[np.float32]

MORE_SAMPLES = 511
"""What a frame's window has beyond its step: it sees 895 samples."""
ROOM_FRAMES = 128
"""Room for so many new keys and values: until it is used up, nothing is moved."""


@dataclass(slots=True)
class StemSums:
    """What the norm counts: features of the first convolution's taps."""

    taps: int
    """So many were summed up"""
    total: float
    """Of all their features"""
    squares: float
    """Of the squares"""


class StreamingEncoderState:
    """What is kept of one segment.

    Args:
        encoder: The graphs.
        plan: How it listens.
        capacity_s: Room for the keys and values of so many seconds at first.
    """

    def __init__(self, encoder: LeanEncoder, plan: Streaming, capacity_s: float) -> None:
        self._encoder, self._plan = encoder, plan
        self.samples = 0
        """Samples taken so far."""
        self._pieces: list[Float32] = []  # from sample FRAME_SAMPLES × _stemmed on
        self._stemmed = 0  # frames whose rows were made
        width = encoder.width
        self._rows: Float32 = np.empty((0, 2 * width), np.float32)  # from 2 × kept on
        self._settled: list[Float32] = []  # rows of the kept frames, for a look at all of them
        self._sums = StemSums(plan.prior_taps, 0.0, plan.prior_taps * width * plan.prior_variance)
        self.kept = 0
        """So many frames are encoded for good."""
        self.frames = 0
        """So many have been encoded."""
        self._most_past = plan.first_frames + plan.left_context_frames
        room = self._most_past + plan.chunk_frames + ROOM_FRAMES
        names = encoder.past_names
        self._past = {name: np.empty((room, width), encoder.real) for name in names}
        self._past_begin = self._past_end = 0  # rows of these that are in use
        first = (plan.first_frames, width)
        self._first = {name: np.empty(first, encoder.real) for name in names}
        pairs, heads, head = encoder.cross_shape
        capacity = max(64, int(capacity_s * RATE_HZ / FRAME_SAMPLES) + 1)
        self._cross: NDArray[Any] = np.empty((pairs, heads, capacity, head), encoder.real)

    def accept(self, audio: Float32) -> None:
        """Take the next audio: float32, shape (n,), 16 kHz mono, -1…1."""
        self._pieces.append(audio)
        self.samples += len(audio)

    @property
    def complete(self) -> int:
        """So many frames have all their audio."""
        return max(0, (self.samples - MORE_SAMPLES) // FRAME_SAMPLES)

    @property
    def due(self) -> int:
        """So many passes over chunks can be done now."""
        ready = self.complete - self.kept - self._plan.look_ahead_frames
        return max(0, ready // self._plan.chunk_frames)

    def advance(self) -> tuple[int, int]:
        """Do all passes that are due.

        Returns:
            How many there were, and the frames that went through the encoder in them.
        """
        passes, chunk, ahead = self.due, self._plan.chunk_frames, self._plan.look_ahead_frames
        for _ in range(passes):
            end = self.kept + chunk + ahead
            rows, sums = self._stem(end)
            outputs = self._encode(rows, sums)
            # All that can fail is done: what is kept may change.
            self._settled.append(rows[: 2 * chunk].copy())
            self._take_rows(rows[2 * chunk :], sums, end)
            self._take_past(outputs, chunk)
            self._cross = with_room(self._cross, end, axis=2)
            self._cross[:, :, self.kept : end] = outputs["cross"]
            self.kept += chunk
            self.frames = end
        return passes, passes * (chunk + ahead)

    def rest(self) -> tuple[NDArray[Any], int]:
        """Encode what is left after `advance`, as if the audio ended here; more may follow.

        Returns:
            The decoder's keys and values of all frames after the kept ones, (2 × decoder layers,
            heads, frames, head), and the frames that went through the encoder.
        """
        if self.complete == self.kept:
            return self._cross[:, :, :0], 0
        rows, sums = self._stem(self.complete)
        cross: NDArray[Any] = self._encode(rows, sums)["cross"]
        return cross, self.complete - self.kept

    def whole(self) -> NDArray[Any]:
        """Encode all frames at once, each of which then hears all others; changes nothing.

        Returns:
            The decoder's keys and values, (2 × decoder layers, heads, frames, head).
        """
        rows, sums = self._stem(self.complete)
        everything = np.concatenate([*self._settled, rows])
        cross: NDArray[Any] = self._encode(everything, sums, alone=True)["cross"]
        return cross

    def cross(self, tail: NDArray[Any] | None = None) -> list[NDArray[Any]]:
        """Return the decoder's keys and values, in turn: each (1, heads, frames, head).

        Args:
            tail: From `rest`; None takes the last pass's look-ahead.
        """
        kept = self._cross[:, :, : self.frames if tail is None else self.kept]
        together = kept.copy() if tail is None else np.concatenate([kept, tail], axis=2)
        return [each[None] for each in together]

    def _stem(self, end: int) -> tuple[Float32, StemSums]:
        """Return the rows of the frames from the kept ones to `end`, and the sums up to there.

        Changes nothing, so that it may be called for a pass that is not to be kept.
        """
        new = end - self._stemmed
        if new == 0:
            return self._rows, self._sums
        if len(self._pieces) > 1:
            self._pieces = [np.concatenate(self._pieces)]
        # Frame f sees rows 2f … 2f + 2, of which the first was made with the frame before, and row
        # r sees taps 3r … 3r + 6.
        first = self._stemmed > 0
        rows = 2 * new + (not first)
        taps = 3 * rows + 4
        audio = np.zeros((taps + 1) * TAP_SAMPLES, np.float32)
        begin = ROW_SAMPLES * first
        heard = self._pieces[0][begin : begin + len(audio) - 1]
        audio[: len(heard)] = heard
        made, totals, squares = self._encoder.stem.run(
            None,
            {
                "steps": audio.reshape(taps + 1, TAP_SAMPLES),
                "paired": np.array([3 * (rows + 1)], np.int64),
            },
        )
        known = 4 if first else 0  # taps that the rows before have seen, too
        sums = StemSums(
            self._sums.taps + taps - known,
            self._sums.total + float(totals[known:taps].sum(dtype=np.float64)),
            self._sums.squares + float(squares[known:taps].sum(dtype=np.float64)),
        )
        return np.concatenate([self._rows, made[:rows]]), sums

    def _take_rows(self, rows: Float32, sums: StemSums, end: int) -> None:
        """Keep what a pass leaves to the next: the rows of its look-ahead."""
        if end > self._stemmed:
            audio = self._pieces[0]
            self._pieces = [audio[(end - self._stemmed) * FRAME_SAMPLES :].copy()]
        self._rows, self._sums, self._stemmed = rows.copy(), sums, end

    def _encode(
        self, rows: Float32, sums: StemSums, *, alone: bool = False
    ) -> dict[str, NDArray[Any]]:
        """Encode frames of which the (2 × frames + 1, 2 × width) rows are given.

        Args:
            rows: Of the frames after the kept ones.
            sums: Of all taps up to the last of them.
            alone: They are all frames from the first on, and hear no others.
        """
        end = self._past_begin if alone else self._past_end
        return self._encoder.encode(
            rows,
            0 if alone else self.kept,
            [each[self._past_begin : end] for each in self._past.values()],
            sums.total,
            sums.squares,
            sums.taps * self._encoder.width,
        )

    def _take_past(self, outputs: dict[str, NDArray[Any]], chunk: int) -> None:
        """Add the chunk's keys and values to the past, and forget what is out of reach.

        Where frames in between are forgotten, the first ones move up to those that are left.
        """
        begin, end = self._past_begin, self._past_end
        room = len(next(iter(self._past.values())))
        if end + chunk > room:
            for past in self._past.values():
                past[: end - begin] = past[begin:end].copy()
            begin, end = 0, end - begin
        new, first = end + chunk, self._plan.first_frames
        forgotten = max(0, new - begin - self._most_past)
        for name, past in self._past.items():
            made = outputs[name][0, :chunk]
            past[end:new] = made
            if self.kept < first:
                self._first[name][self.kept : self.kept + chunk] = made[: first - self.kept]
            if forgotten:
                past[begin + forgotten : begin + forgotten + first] = self._first[name]
        self._past_begin, self._past_end = begin + forgotten, new
