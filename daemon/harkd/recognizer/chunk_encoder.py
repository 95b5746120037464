"""A streaming encoder: one call for each chunk, its state in buffers that swap their places.

In: features of one chunk. Out: the graph's output for it, valid until the next call. What one call
writes the next one reads: states are not copied, and nothing is allocated. Runs on the thread that
uses the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harkd.recognizer.chunk_buffers import Buffers, buffers_for
from harkd.recognizer.chunk_layout import UnknownLayoutError, read_layout
from harkd.recognizer.fbank import FRAME_S
from harkd.recognizer.onnx import bind_input, bind_output, first_line
from harkd.recognizer.placement import Placement

Float32 = NDArray[np.float32]


class ChunkEncoder:
    """The loaded graph.

    Args:
        path: Its file.
        threads: Threads for each pass.
        placement: Where it may run; the CPU if omitted.
        role: Its name in the manifest.

    Raises:
        ModelDamagedError: onnxruntime cannot load the file.
        UnknownLayoutError: Its layout is not known, or it does not do what that says.
    """

    def __init__(
        self,
        path: Path,
        threads: int,
        placement: Placement | None = None,
        role: str = "encoder",
    ) -> None:
        placement = placement or Placement()
        self.session = placement.open(role, path, threads, arena=True)
        self.on_gpu = placement.on_gpu(role)
        """Whether its states are kept in the GPU's memory"""
        self.layout = read_layout(self.session)
        self.properties: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        self.output_shape = self._tried()
        """(1, frames, width)"""
        frames = self.output_shape[1]
        if not frames or self.layout.shift_frames % frames:
            raise UnknownLayoutError(
                f"makes {frames} frames of {self.layout.shift_frames}, which is no even part"
            )
        self.frame_s = self.layout.shift_frames // frames * FRAME_S
        """Seconds from one frame of the output to the next"""
        self.takes_many = all(each.axis is not None for each in self.layout.states)
        """Whether a call can go over several streams"""
        self.chunk_s = self.layout.shift_frames * FRAME_S
        """Seconds from one chunk to the next"""

    def state(self) -> EncoderState:
        """Return a state in which nothing has been heard."""
        return EncoderState(self)

    def _tried(self) -> tuple[int, int, int]:
        """Run once on silence; return the output's shape."""
        layout = self.layout
        shape = feature_shape(self)
        feed: dict[str, NDArray[Any]] = {layout.input: np.zeros(shape, np.float32), **layout.others}
        feed.update((each.name, np.zeros(each.shape, each.dtype)) for each in layout.states)
        wanted = [layout.output, *(each.output for each in layout.states)]
        try:
            output, *states = self.session.run(wanted, feed)
        except Exception as error:
            raise UnknownLayoutError(
                f"does not run as {layout.kind}: {first_line(error)}"
            ) from error
        for state, new in zip(layout.states, states, strict=True):
            if (new.shape, new.dtype) != (state.shape, np.dtype(state.dtype)):
                raise UnknownLayoutError(
                    f"makes {state.output} as {new.dtype}{list(new.shape)} of "
                    f"{state.name}, which is {np.dtype(state.dtype)}{list(state.shape)}"
                )
        if output.ndim != 3 or output.dtype != np.float32 or output.shape[0] != 1:
            raise UnknownLayoutError(f"has an output {output.dtype}{list(output.shape)}")
        return (1, int(output.shape[1]), int(output.shape[2]))


def feature_shape(encoder: ChunkEncoder) -> tuple[int, int, int]:
    """Return the shape of a chunk's features as the graph takes them."""
    frames, bins = encoder.layout.chunk_frames, encoder.layout.features.bins
    return (1, bins, frames) if encoder.layout.transposed else (1, frames, bins)


class EncoderState:
    """What a stream's encoder remembers, twice: what is read, and what is written.

    Args:
        encoder: The graph.
    """

    def __init__(self, encoder: ChunkEncoder) -> None:
        self._layout = layout = encoder.layout
        self._session = encoder.session
        fed: Float32 = np.zeros(feature_shape(encoder), np.float32)
        self._fed = fed
        self.features: Float32 = fed[0].T if layout.transposed else fed[0]
        """Where the next chunk's features are to be put: float32, shape (chunk frames, bins)."""
        output: Float32 = np.zeros(encoder.output_shape, np.float32)
        self._out = output
        self.output: Float32 = output[0]
        """Where `step` puts its result: float32, shape (frames, width)."""
        self._others = {name: array.copy() for name, array in layout.others.items()}
        self._far = encoder.on_gpu
        self._sides = [buffers_for(layout.states, on_gpu=self._far) for _ in range(2)]
        self._bindings = [self._session.io_binding() for _ in range(2)]
        for i, binding in enumerate(self._bindings):
            self._sides[i].bind(binding, self._bindings[1 - i])
            bind_output(binding, layout.output, output)
            self._bind_inputs(binding)
        self.steps = 0
        """Chunks so far."""

    def step(self) -> Float32:
        """Encode the chunk in `features`; return `output`."""
        self._layout.tick(self._others, self.steps)
        binding = self._bindings[self.steps % 2]
        if self._far:
            # An input that is bound in other memory than its node reads is copied then, and not
            # again (`IOBinding::BindInput` in onnxruntime's IOBinding.cc): so is all that is made
            # here, and a state in the GPU's memory whose node is on the CPU.
            self._bind_inputs(binding)
            self.read.bind_read(binding)
        self._session.run_with_iobinding(binding)
        if self._far:
            binding.synchronize_outputs()
        self.steps += 1
        return self.output

    @property
    def read(self) -> Buffers:
        """What the next step reads."""
        return self._sides[self.steps % 2]

    @property
    def written(self) -> Buffers:
        """What the next step writes."""
        return self._sides[1 - self.steps % 2]

    def clear(self) -> None:
        """Forget everything."""
        self.steps = 0
        self.read.clear()  # a step writes the others whole
        for name, first in self._layout.others.items():
            self._others[name][...] = first

    def follow(self, other: EncoderState) -> None:
        """Go on from where another state of the same graph stands, which stays there."""
        self.steps = other.steps
        for name, array in other._others.items():
            self._others[name][...] = array
        self.read.put(other.read.values())

    @staticmethod
    def step_together(states: Sequence[EncoderState]) -> None:
        """Encode a chunk of several streams in one call; each result lies in its `output`.

        Their states are put side by side for the call, and back: worth it where a call over many
        costs little more than one over one.

        Args:
            states: Of one encoder that takes several streams; in any order, none of them twice.
        """
        if len(states) == 1:
            states[0].step()
            return
        layout, session = states[0]._layout, states[0]._session
        feed = {layout.input: np.concatenate([each._fed for each in states])}
        for each in states:
            layout.tick(each._others, each.steps)
        for name in layout.others:
            feed[name] = np.concatenate([each._others[name] for each in states])
        held = [each.read.values() for each in states]
        for state, *values in zip(layout.states, *held, strict=True):
            feed[state.name] = np.concatenate(values, axis=state.axis)
        wanted = [layout.output, *(state.output for state in layout.states)]
        output, *news = session.run(wanted, feed)
        for number, each in enumerate(states):
            each._out[0] = output[number]
            pairs = zip(layout.states, news, strict=True)
            each.written.put([new.take([number], axis=state.axis) for state, new in pairs])
            each.steps += 1

    def _bind_inputs(self, binding: Any) -> None:
        """Bind what is made here for each step."""
        bind_input(binding, self._layout.input, self._fed)
        for name, array in self._others.items():
            bind_input(binding, name, array)
