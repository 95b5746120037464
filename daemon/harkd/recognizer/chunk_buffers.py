"""Where a stream's states lie between two steps: in this machine's memory, or in the GPU's.

In: a session and its layout. Out: buffers that onnxruntime reads and writes in place. On CUDA a
state never leaves the GPU from step to step; only what is set aside, or goes over several streams
at once, takes the way through this machine's memory. Runs on the thread that uses the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harkd.recognizer.chunk_layout import State
from harkd.recognizer.onnx import bind_input, bind_output, onnxruntime

Arrays = list[NDArray[Any]]


class Buffers(Protocol):
    """One value of each state, in the layout's order."""

    def bind(self, read: Any, written: Any) -> None:
        """Let one binding read the buffers, and another one write them; or the same."""

    def bind_read(self, read: Any) -> None:
        """Let a binding read what they hold now."""

    def clear(self) -> None:
        """Make all of them zero."""

    def values(self) -> Arrays:
        """Return what they hold; not to be changed."""

    def put(self, values: Sequence[NDArray[Any]]) -> None:
        """Replace what they hold."""


class HostBuffers:
    """In this machine's memory.

    Args:
        states: The layout's.
    """

    def __init__(self, states: Sequence[State]) -> None:
        self._states = states
        # onnxruntime keeps the addresses alone: what is bound must live as long as the bindings.
        self._arrays: Arrays = [np.zeros(each.shape, each.dtype) for each in states]

    def bind(self, read: Any, written: Any) -> None:
        """Bind the arrays' addresses."""
        self.bind_read(read)
        for state, array in zip(self._states, self._arrays, strict=True):
            bind_output(written, state.output, array)

    def bind_read(self, read: Any) -> None:
        """Bind the arrays' addresses, to be read."""
        for state, array in zip(self._states, self._arrays, strict=True):
            bind_input(read, state.name, array)

    def clear(self) -> None:
        """Fill the arrays with zeros."""
        for array in self._arrays:
            array.fill(0)

    def values(self) -> Arrays:
        """Return the arrays themselves."""
        return self._arrays

    def put(self, values: Sequence[NDArray[Any]]) -> None:
        """Copy into the arrays."""
        for array, value in zip(self._arrays, values, strict=True):
            np.copyto(array, value)


class DeviceBuffers:
    """In a device's memory.

    Args:
        states: The layout's.
        device: As onnxruntime calls it: ``cuda``; ``cpu`` works, too.
    """

    def __init__(self, states: Sequence[State], device: str) -> None:
        self._states = states
        self._values: list[Any] = [
            onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(each.shape, each.dtype), device, 0)
            for each in states
        ]

    def bind(self, read: Any, written: Any) -> None:
        """Bind the values, which the bindings keep."""
        self.bind_read(read)
        for state, value in zip(self._states, self._values, strict=True):
            written.bind_ortvalue_output(state.output, value)

    def bind_read(self, read: Any) -> None:
        """Bind the values, to be read."""
        for state, value in zip(self._states, self._values, strict=True):
            read.bind_ortvalue_input(state.name, value)

    def clear(self) -> None:
        """Copy zeros to the device."""
        self.put([np.zeros(each.shape, each.dtype) for each in self._states])

    def values(self) -> Arrays:
        """Return copies in this machine's memory."""
        return [np.asarray(each.numpy()) for each in self._values]

    def put(self, values: Sequence[NDArray[Any]]) -> None:
        """Copy to the device."""
        for value, array in zip(self._values, values, strict=True):
            value.update_inplace(np.ascontiguousarray(array))


def buffers_for(states: Sequence[State], *, on_gpu: bool) -> Buffers:
    """Return buffers, all zero, in the memory of what runs the session."""
    return DeviceBuffers(states, "cuda") if on_gpu else HostBuffers(states)
