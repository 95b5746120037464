"""How a published streaming encoder wants its chunks: read from the metadata, inputs and outputs.

In: an ONNX session. Out: a `Layout`, or `UnknownLayoutError` with a reason. The layouts are those
that sherpa-onnx runs; what is read, it reads too (docs/models.md has the sources). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harkd.recognizer.fbank import FeatureSettings

Arrays = dict[str, NDArray[Any]]
DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


class UnknownLayoutError(ValueError):
    """The graph is none that is known; the text says why, as a sentence's end."""


@dataclass(frozen=True, slots=True)
class State:
    """One tensor that goes from a step to the next."""

    name: str
    """The input's name"""
    output: str
    """The output's"""
    shape: tuple[int, ...]
    """For one stream"""
    dtype: Any
    """numpy's"""
    axis: int | None = None
    """Which axis is that of streams; None where the graph takes one stream alone"""


def nothing_more(arrays: Arrays, step: int) -> None:
    """For a layout without other inputs."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a step needs."""

    kind: str
    """As sherpa-onnx calls it"""
    chunk_frames: int
    """Feature frames in a step's window"""
    shift_frames: int
    """Feature frames from a window to the next"""
    features: FeatureSettings
    """How they are computed"""
    input: str
    """The features' input"""
    output: str
    """The output that is searched: (1, frames, width)"""
    states: tuple[State, ...]
    """All that is carried on"""
    transposed: bool = False
    """The input is (1, bins, frames) instead of (1, frames, bins)"""
    others: Arrays = field(default_factory=dict)
    """Inputs besides, with their first values"""
    tick: Callable[[Arrays, int], None] = nothing_more
    """Sets the others for a step, counted from 0"""


def read_layout(session: Any) -> Layout:
    """Return the layout of an encoder, or of a CTC model.

    Raises:
        UnknownLayoutError: It has none that is known.
    """
    facts = Facts(session)
    kind = facts.text("model_type")
    if facts.properties.get("feature", ""):
        raise UnknownLayoutError(
            f"wants features of the kind {facts.properties['feature']!r}; known are Kaldi's fbank"
        )
    try:
        read = READERS[kind]
    except KeyError:
        raise UnknownLayoutError(
            f"has the model_type {kind!r}; known are {', '.join(sorted(READERS))}"
        ) from None
    return read(facts, kind)


class Facts:
    """What a session tells of its graph.

    Args:
        session: onnxruntime's.
    """

    def __init__(self, session: Any) -> None:
        self.properties: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
        self.inputs = list(session.get_inputs())
        self.outputs = list(session.get_outputs())

    def text(self, key: str) -> str:
        """Return a property."""
        try:
            return self.properties[key]
        except KeyError:
            raise UnknownLayoutError(f"has no {key} in its metadata") from None

    def number(self, key: str, otherwise: int | None = None) -> int:
        """Return a property that must be a number above 0, or another where it is not there."""
        if otherwise is not None and key not in self.properties:
            return otherwise
        text = self.text(key)
        if not text.strip().isdecimal() or int(text) < 1:
            raise UnknownLayoutError(
                f"has {key} = {text!r} in its metadata, which is no number above 0"
            )
        return int(text)

    def require(self, least: int, *names: str) -> None:
        """Raise unless there are so many inputs, and the first of them have these names."""
        found = [each.name for each in self.inputs]
        if len(found) < least or tuple(found[: len(names)]) != names:
            raise UnknownLayoutError(f"has the inputs {', '.join(found[:6])} …, not its kind's")

    def bins(self, axis: int = 2) -> int:
        """Return the features' width, from the first input; 80 where it is free."""
        shape = self.inputs[0].shape
        if len(shape) != 3:
            raise UnknownLayoutError(f"takes features of the shape {shape}")
        return shape[axis] if isinstance(shape[axis], int) else 80

    def states(
        self, inputs: slice, first_output: int, shapes: Mapping[int, int]
    ) -> tuple[State, ...]:
        """Return the states: inputs and outputs in the same order.

        Args:
            inputs: Which inputs they are.
            first_output: The output that belongs to the first of them.
            shapes: For an input's number, how long its axis of free length is, where that is not
                the one of streams.
        """
        chosen = range(len(self.inputs))[inputs]
        outputs = self.outputs[first_output : first_output + len(chosen)]
        if len(outputs) != len(chosen):
            raise UnknownLayoutError(f"has {len(chosen)} states, but {len(outputs)} new ones")
        return tuple(
            State(
                self.inputs[number].name,
                output.name,
                tuple(
                    each if isinstance(each, int) else shapes.get(number, 1)
                    for each in self.inputs[number].shape
                ),
                dtype_of(self.inputs[number]),
                free_axis(self.inputs[number].shape) if number not in shapes else None,
            )
            for number, output in zip(chosen, outputs, strict=True)
        )


def free_axis(shape: Sequence[int | str]) -> int | None:
    """Return the first axis whose length is free, if there is one."""
    return next((i for i, each in enumerate(shape) if not isinstance(each, int)), None)


def dtype_of(tensor: Any) -> Any:
    """Return the numpy type of an input or output."""
    try:
        return DTYPES[tensor.type]
    except KeyError:
        raise UnknownLayoutError(f"has {tensor.name} of the type {tensor.type}") from None


def read_carried(facts: Facts, kind: str) -> Layout:
    """Zipformer, zipformer2 and LSTM: features, then states in the order of their outputs."""
    facts.require(2)
    return Layout(
        kind,
        facts.number("T"),
        facts.number("decode_chunk_len"),
        FeatureSettings(facts.bins()),
        facts.inputs[0].name,
        facts.outputs[0].name,
        facts.states(slice(1, None), 1, {}),
    )


def read_conformer(facts: Facts, kind: str) -> Layout:
    """Icefall's pruned_transducer_stateless5: two states, and how many frames have gone before."""
    facts.require(4)
    shift = facts.number("decode_chunk_len")
    passed = facts.inputs[3]

    def tick(arrays: Arrays, step: int) -> None:
        arrays[passed.name][:] = step * shift

    return Layout(
        kind,
        facts.number("T"),
        shift,
        FeatureSettings(facts.bins()),
        facts.inputs[0].name,
        facts.outputs[0].name,
        facts.states(slice(1, 3), 1, {}),
        others={passed.name: np.zeros(1, dtype_of(passed))},
        tick=tick,
    )


def read_wenet(facts: Facts, kind: str) -> Layout:
    """WeNet U2++: caches of attention and convolution; the mask hides what is not yet filled."""
    facts.require(6)
    # Where a graph does not tell the first two: sherpa-onnx takes them from its own settings.
    chunk, left = facts.number("chunk_size", 16), facts.number("left_chunks", 4)
    subsampling = facts.number("subsampling_factor")
    held = chunk * left
    offset, required, mask = (facts.inputs[i] for i in (1, 2, 5))

    def tick(arrays: Arrays, step: int) -> None:
        arrays[offset.name][:] = held + step * chunk
        arrays[mask.name][..., :held] = np.arange(held) >= held - step * chunk

    return Layout(
        kind,
        (chunk - 1) * subsampling + facts.number("right_context") + 1,
        chunk * subsampling,
        # WeNet is trained on samples of -32768…32767.
        FeatureSettings(facts.bins(), scale=1.0),
        facts.inputs[0].name,
        facts.outputs[0].name,
        facts.states(slice(3, 5), 1, {3: held}),
        others={
            offset.name: np.array([held], np.int64),
            required.name: np.array([held], np.int64),
            mask.name: np.ones((1, 1, held + chunk), np.bool_),
        },
        tick=tick,
    )


def read_nemo(facts: Facts, kind: str) -> Layout:
    """NeMo's cache-aware FastConformer with CTC."""
    facts.require(5)
    if facts.properties.get("normalize_type", ""):
        raise UnknownLayoutError(
            f"wants features normalized {facts.properties['normalize_type']!r} over an utterance, "
            "which no stream has"
        )
    window, length = facts.number("window_size"), facts.inputs[1]
    channel = [facts.number(f"cache_last_channel_dim{i}") for i in (1, 2, 3)]
    time = [facts.number(f"cache_last_time_dim{i}") for i in (1, 2, 3)]
    states = facts.states(slice(2, 5), 2, {})
    shapes = [(1, *channel), (1, *time), (1,)]
    return Layout(
        kind,
        window,
        facts.number("chunk_shift"),
        # sherpa-onnx does not read these; they are NeMo's preprocessor in Kaldi's words.
        FeatureSettings(
            facts.bins(axis=1),
            low_hz=0.0,
            high_hz=0.0,
            window="hann",
            remove_offset=False,
            librosa=True,
        ),
        facts.inputs[0].name,
        facts.outputs[0].name,
        tuple(
            State(state.name, state.output, shape, state.dtype, state.axis)
            for state, shape in zip(states, shapes, strict=True)
        ),
        transposed=True,
        others={length.name: np.array([window], dtype_of(length))},
    )


READERS: dict[str, Callable[[Facts, str], Layout]] = {
    "zipformer": read_carried,
    "zipformer2": read_carried,
    "lstm": read_carried,
    "conformer": read_conformer,
    "wenet_ctc": read_wenet,
    "EncDecCTCModelBPE": read_nemo,
    "EncDecHybridRNNTCTCBPEModel": read_nemo,
}
CTC_ONLY = {"wenet_ctc", "EncDecCTCModelBPE", "EncDecHybridRNNTCTCBPEModel"}
