"""Streaming models of random weights in the layouts that sherpa-onnx publishes.

Names, shapes and metadata are the published ones; what is between them is made up: each output
depends on its chunk and on every state, and each state on itself and on the chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BINS = 80
TOKENS = 40
JOINER = 16
"""The joiner's width."""
SYMBOLS = ["<blk>", "<sos/eos>", "<unk>", *(f"▁w{i}" for i in range(20)), *"abcdefghijklmnopq"]
DIMS = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}


@dataclass
class Graph:
    """An ONNX graph in the making."""

    seed: int
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    nodes: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def input(self, name: str, dims: Sequence[int | str], dtype: str = "float32") -> str:
        self.inputs.append(helper.make_tensor_value_info(name, DIMS[dtype], list(dims)))
        return name

    def output(self, name: str, dims: Sequence[int | str], dtype: str = "float32") -> str:
        self.outputs.append(helper.make_tensor_value_info(name, DIMS[dtype], list(dims)))
        return name

    def constant(self, value: Any) -> str:
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def random(self, *dims: int, scale: float = 1.0) -> str:
        return self.constant((self.rng.standard_normal(dims) * scale).astype(np.float32))

    def node(self, kind: str, *names: str, to: str = "", **more: Any) -> str:
        out = to or f"made_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(names), [out], **more))
        return out

    def real(self, name: str) -> str:
        """Return it as float32."""
        self.nodes.append(helper.make_node("Cast", [name], [f"real_{name}"], to=TensorProto.FLOAT))
        return f"real_{name}"

    def flat(self, name: str) -> str:
        """Return a scalar as (1, 1)."""
        return self.node("Reshape", name, self.constant(np.array([1, 1], np.int64)))

    def axes(self, *numbers: int) -> str:
        """Return a list of axes, or whatever else."""
        return self.constant(np.array(numbers, np.int64))

    def save(self, path: Path, **properties: object) -> None:
        graph = helper.make_graph(self.nodes, "g", self.inputs, self.outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(model, {key: str(value) for key, value in properties.items()})
        onnx.checker.check_model(model)
        onnx.save(model, str(path))


@dataclass
class State:
    """One state: its name, its shape with "N" for streams, and what it is of."""

    name: str
    dims: list[int | str]
    dtype: str = "float32"
    new: str = ""

    @property
    def output(self) -> str:
        return self.new or f"new_{self.name}"


def mean_over(graph: Graph, array: str, dims: Sequence[int | str]) -> str:
    """Return (N, 1) of any array: its mean."""
    axes = [i for i, each in enumerate(dims) if each != "N"]
    mean = graph.node("ReduceMean", array, axes=axes, keepdims=0) if axes else array
    return graph.node("Reshape", mean, graph.constant(np.array([-1, 1], np.int64)))


def carry(graph: Graph, state: State, chunk_mean: str, frames: int) -> str:
    """Write a state's successor; return what of the old one the output hears: (N, 1)."""
    graph.input(state.name, state.dims, state.dtype)
    if state.dtype == "int64":
        step = graph.constant(np.array(frames, np.int64))
        graph.node("Add", state.name, step, to=state.output)
        heard = graph.node("Sin", mean_over(graph, graph.real(state.name), state.dims))
    else:
        shape = [-1 if each == "N" else 1 for each in state.dims]
        spread = graph.node("Reshape", chunk_mean, graph.constant(np.array(shape, np.int64)))
        weight = graph.random(*[each if isinstance(each, int) else 1 for each in state.dims])
        news = graph.node("Mul", spread, weight)
        kept = graph.node("Mul", state.name, graph.constant(np.float32(0.6)))
        graph.node("Tanh", graph.node("Add", kept, news), to=state.output)
        heard = mean_over(graph, graph.node("Mul", state.name, weight), state.dims)
    graph.output(state.output, state.dims, state.dtype)
    return heard


def encode(
    graph: Graph,
    x: str,
    states: list[State],
    *,
    window: int,
    shift: int,
    frames: int,
    width: int,
    to: str,
    scale: float = 1.0,
    other: str = "",
    blocks: int = 0,
) -> None:
    """Make the output (N, frames, width) of x (N, window, bins) and the states.

    Each frame sees its own part of the chunk, and as much as there is to the right of it.
    """
    calm = graph.node("Mul", x, graph.constant(np.float32(0.12)))
    low = graph.node("Add", calm, graph.constant(np.float32(0.7 if scale == 1.0 else -1.4)))
    mean = graph.node("Tanh", mean_over(graph, low, ["N", window, BINS]))
    heard = other
    for state in states:
        one = carry(graph, state, mean, frames)
        part = graph.node("Mul", one, graph.random(1, width, scale=0.6))
        heard = graph.node("Add", heard, part) if heard else part
    reach = window - shift + shift // frames
    mixed = graph.node("MatMul", low, graph.random(BINS, width, scale=0.2))  # (N, window, width)
    rows = []
    weight = graph.random(1, reach, 1, scale=0.5)
    for i in range(frames):
        begin = i * (shift // frames)
        span = [graph.axes(each) for each in (begin, begin + reach, 1)]
        weighted = graph.node("Mul", graph.node("Slice", mixed, *span), weight)
        row = graph.node("ReduceSum", weighted, graph.axes(1), keepdims=0)
        rows.append(graph.node("Unsqueeze", graph.node("Add", row, heard), graph.axes(1)))
    said = graph.node("Concat", *rows, axis=1)
    graph.node("Tanh", deepen(graph, said, width, blocks), to=to)


def zipformer2_states(
    layers: Sequence[int],
    dims: Sequence[int],
    left: Sequence[int],
    heads: Sequence[int] = (2, 2),
    sizes: tuple[int, int, int] = (4, 3, 7),
) -> list[State]:
    """As icefall's zipformer/export-onnx-streaming.py makes them.

    The sizes are those of a query's and a value's head, and of the convolution.
    """
    query, value, kernel = sizes
    states, number = [], 0
    for count, dim, length, many in zip(layers, dims, left, heads, strict=True):
        for _ in range(count):
            states += [
                State(f"cached_key_{number}", [length, "N", query * many]),
                State(f"cached_nonlin_attn_{number}", [1, "N", length, 3 * dim // 4]),
                State(f"cached_val1_{number}", [length, "N", value * many]),
                State(f"cached_val2_{number}", [length, "N", value * many]),
                State(f"cached_conv1_{number}", ["N", dim, kernel // 2]),
                State(f"cached_conv2_{number}", ["N", dim, kernel // 2]),
            ]
            number += 1
    embed = State("embed_states", ["N", 128, 3, 19])
    return [*states, embed, State("processed_lens", ["N"], "int64")]


ZIPFORMER2: dict[str, object] = {
    "model_type": "zipformer2",
    "version": "1",
    "model_author": "k2-fsa",
    "decode_chunk_len": 32,
    "T": 45,
    "num_encoder_layers": "1,2",
    "encoder_dims": "16,24",
    "query_head_dims": "4,4",
    "value_head_dims": "3,3",
    "num_heads": "2,2",
    "cnn_module_kernels": "7,7",
    "left_context_len": "16,8",
}
ZIPFORMER = {
    "model_type": "zipformer",
    "version": "1",
    "model_author": "k2-fsa",
    "decode_chunk_len": 32,
    "T": 39,
    "num_encoder_layers": "2,1",
    "encoder_dims": "16,24",
    "attention_dims": "8,12",
    "cnn_module_kernels": "5,5",
    "left_context_len": "16,8",
}


def zipformer_states() -> list[State]:
    """As icefall's pruned_transducer_stateless7_streaming/export-onnx.py makes them."""
    states = []
    for i, (layers, dim, keys, left) in enumerate(((2, 16, 8, 16), (1, 24, 12, 8))):
        states += [
            State(f"cached_len_{i}", [layers, "N"], "int64"),
            State(f"cached_avg_{i}", [layers, "N", dim]),
            State(f"cached_key_{i}", [layers, left, "N", keys]),
            State(f"cached_val_{i}", [layers, left, "N", keys // 2]),
            State(f"cached_val2_{i}", [layers, left, "N", keys // 2]),
            State(f"cached_conv1_{i}", [layers, "N", dim, 4]),
            State(f"cached_conv2_{i}", [layers, "N", dim, 4]),
        ]
    return [states[7 * i + kind] for kind in range(7) for i in range(2)]


def deepen(graph: Graph, name: str, width: int, blocks: int) -> str:
    """Return it after blocks of two products each, as a published encoder has them."""
    for _ in range(blocks):
        wide = graph.random(width, 4 * width, scale=width**-0.5)
        back = graph.random(4 * width, width, scale=0.5 * width**-0.5)
        inner = graph.node("Tanh", graph.node("MatMul", name, wide))
        name = graph.node("Tanh", graph.node("Add", name, graph.node("MatMul", inner, back)))
    return name


def write_encoder(path: Path, kind: str, seed: int) -> None:
    """Write a transducer's encoder."""
    graph = Graph(seed)
    shift, frames, other = 32, 8, ""
    properties: dict[str, object]
    if kind == "zipformer2":
        window, properties = 45, ZIPFORMER2
        states = zipformer2_states((1, 2), (16, 24), (16, 8))
    elif kind == "kroko":  # zipformer2 with the chunks of streaming-zipformer-en-kroko-2025-08-06
        window, shift, frames = 141, 128, 32
        properties = ZIPFORMER2 | {"decode_chunk_len": shift, "T": window}
        states = zipformer2_states((1, 2), (16, 24), (16, 8))
    elif kind == "zipformer":
        window, properties = 39, ZIPFORMER
        states = zipformer_states()
    elif kind == "lstm":
        window, shift, frames = 9, 4, 1
        properties = {
            "model_type": kind,
            "num_encoder_layers": 3,
            "T": 9,
            "decode_chunk_len": 4,
            "rnn_hidden_size": 20,
            "d_model": 12,
        }
        states = [
            State("state0", [3, "N", 12], new="new_state0"),
            State("state1", [3, "N", 20], new="new_state1"),
        ]
    elif kind == "conformer":
        window = 32 + 19
        properties = {
            "model_type": kind,
            "num_encoder_layers": 2,
            "T": window,
            "decode_chunk_len": 32,
            "left_context": 12,
            "encoder_dim": 10,
            "pad_length": 19,
            "cnn_module_kernel": 5,
        }
        states = [
            State("attn_cache", [2, 12, "N", 10], new="new_attn_cache"),
            State("cnn_cache", [2, 4, "N", 10], new="new_cnn_cache"),
        ]
    else:
        raise ValueError(kind)
    graph.input("x", ["N", window, BINS])
    if kind == "conformer":
        passed = graph.node("Sin", mean_over(graph, graph.real("processed_lens"), ["N"]))
        other = graph.node("Mul", passed, graph.random(1, JOINER))
    graph.output("encoder_out", ["N", frames, JOINER])
    encode(
        graph,
        "x",
        states,
        window=window,
        shift=shift,
        frames=frames,
        width=JOINER,
        to="encoder_out",
        other=other,
    )
    if kind == "conformer":
        graph.input("processed_lens", ["N"], "int64")
    graph.save(path, **properties)


def write_decoder(
    path: Path, seed: int, context: int = 2, tokens: int = TOKENS, width: int = JOINER
) -> None:
    """Write a stateless decoder: nothing comes of ids below 0."""
    graph = Graph(seed)
    graph.input("y", ["N", context], "int64")
    graph.output("decoder_out", ["N", width])
    zero = graph.constant(np.array(0, np.int64))
    mask = graph.real(graph.node("GreaterOrEqual", "y", zero))
    embedded = graph.node("Gather", graph.random(tokens, width), graph.node("Max", "y", zero))
    masked = graph.node("Mul", embedded, graph.node("Unsqueeze", mask, graph.axes(2)))
    weighted = graph.node("Mul", masked, graph.random(1, context, width))
    graph.node("ReduceSum", weighted, graph.axes(1), to="decoder_out", keepdims=0)
    graph.save(path, context_size=context, vocab_size=tokens)


def write_joiner(
    path: Path, seed: int, blank: float = 6.0, tokens: int = TOKENS, width: int = JOINER
) -> None:
    """Write a joiner that mostly says nothing: more so, the higher the blank's bias is."""
    graph = Graph(seed)
    graph.input("encoder_out", ["N", width])
    graph.input("decoder_out", ["N", width])
    graph.output("logit", ["N", tokens])
    both = graph.node("Tanh", graph.node("Add", "encoder_out", "decoder_out"))
    bias = np.zeros(tokens, np.float32)
    bias[0] = blank
    weights = graph.random(width, tokens, scale=4.8 * width**-0.5)
    graph.node("Gemm", both, weights, graph.constant(bias), to="logit")
    graph.save(path, joiner_dim=width)


def write_published_size(folder: Path, blocks: int = 12, blank: float = 6.0) -> Path:
    """Write a zipformer2 with the states of streaming-zipformer-en-2023-06-26, and 500 tokens."""
    folder.mkdir(parents=True)
    layers, dims = (2, 2, 3, 4, 3, 2), (192, 256, 384, 512, 384, 256)
    heads, left = (4, 4, 4, 8, 4, 4), (128, 64, 32, 16, 32, 64)
    graph = Graph(1)
    graph.input("x", ["N", 45, BINS])
    graph.output("encoder_out", ["N", 8, 512])
    states = zipformer2_states(layers, dims, left, heads, (32, 12, 31))
    encode(
        graph,
        "x",
        states,
        window=45,
        shift=32,
        frames=8,
        width=512,
        to="encoder_out",
        blocks=blocks,
    )
    properties = {
        "num_encoder_layers": layers,
        "encoder_dims": dims,
        "num_heads": heads,
        "left_context_len": left,
        "query_head_dims": [32] * 6,
        "value_head_dims": [12] * 6,
        "cnn_module_kernels": [31] * 6,
    }
    listed = {key: ",".join(map(str, value)) for key, value in properties.items()}
    graph.save(folder / "encoder-epoch-99-avg-1.onnx", **(ZIPFORMER2 | listed))
    write_decoder(folder / "decoder-epoch-99-avg-1.onnx", 2, tokens=500, width=512)
    write_joiner(folder / "joiner-epoch-99-avg-1.onnx", 3, blank, tokens=500, width=512)
    write_tokens(folder / "tokens.txt", [*SYMBOLS[:3], *(f"▁w{i}" for i in range(497))])
    return folder


def write_tokens(path: Path, symbols: Sequence[str] = SYMBOLS) -> None:
    """Write tokens.txt."""
    path.write_text("".join(f"{each} {i}\n" for i, each in enumerate(symbols)), encoding="utf-8")


def write_transducer(folder: Path, kind: str = "zipformer2", seed: int = 3) -> Path:
    """Write an unpacked model as sherpa-onnx publishes them."""
    folder.mkdir(parents=True)
    write_encoder(folder / "encoder-epoch-99-avg-1.onnx", kind, seed)
    write_decoder(folder / "decoder-epoch-99-avg-1.onnx", seed + 1)
    write_joiner(folder / "joiner-epoch-99-avg-1.onnx", seed + 2)
    write_tokens(folder / "tokens.txt")
    return folder


def write_ctc(folder: Path, kind: str = "zipformer2", seed: int = 3) -> Path:
    """Write an unpacked streaming CTC model."""
    folder.mkdir(parents=True)
    {"zipformer2": write_zipformer2_ctc, "wenet_ctc": write_wenet}.get(kind, write_nemo)(
        folder, Graph(seed)
    )
    return folder


def write_zipformer2_ctc(folder: Path, graph: Graph) -> None:
    """As icefall's zipformer/export-onnx-streaming-ctc.py."""
    graph.input("x", ["N", 45, BINS])
    graph.output("log_probs", ["N", 8, TOKENS])
    states = zipformer2_states((1, 2), (16, 24), (16, 8))
    encode(graph, "x", states, window=45, shift=32, frames=8, width=JOINER, to="hidden")
    classify(graph, "log_probs", blank=0)
    graph.save(folder / "ctc-epoch-20-avg-1-chunk-16-left-128.onnx", **ZIPFORMER2)
    write_tokens(folder / "tokens.txt")


def write_wenet(folder: Path, graph: Graph) -> None:
    """As sherpa-onnx's scripts/wenet/export-onnx-streaming.py: one stream, a mask, an offset."""
    chunk, left, blocks = 4, 2, 2
    states = [
        State("attn_cache", [blocks, 2, "T2", 8], new="next_att_cache"),
        State("conv_cache", [blocks, 1, 8, 4], new="next_conv_cache"),
    ]
    graph.input("x", ["N", "T", BINS])
    graph.input("offset", [1], "int64")
    graph.input("required_cache_size", [1], "int64")
    graph.output("log_probs", ["N", chunk, TOKENS])
    shown = graph.node("Mul", graph.real("attn_mask"), graph.random(1, 1, chunk * (left + 1)))
    visible = graph.flat(graph.node("ReduceSum", shown, keepdims=0))
    behind = graph.node("Sub", graph.real("offset"), graph.real("required_cache_size"))
    heard = graph.node("Add", visible, graph.flat(graph.node("Sin", behind)))
    other = graph.node("Mul", heard, graph.random(1, JOINER, scale=0.3))
    news = graph.node(
        "Mul", graph.node("ReduceMean", "x", keepdims=0), graph.constant(np.float32(0.1))
    )
    for state in states:
        graph.input(state.name, state.dims)
        kept = graph.node("Mul", state.name, graph.constant(np.float32(0.6)))
        graph.node("Tanh", graph.node("Add", kept, news), to=state.output)
        graph.output(state.output, state.dims)
        mean = graph.flat(graph.node("ReduceMean", state.name, keepdims=0))
        other = graph.node(
            "Add", other, graph.node("Mul", mean, graph.random(1, JOINER, scale=2.0))
        )
    encode(
        graph,
        "x",
        [],
        window=19,
        shift=16,
        frames=chunk,
        width=JOINER,
        to="hidden",
        other=other,
        scale=32768.0,
    )
    graph.input("attn_mask", [1, 1, "M"], "bool")
    classify(graph, "log_probs", blank=0)
    graph.save(
        folder / "model-streaming.onnx",
        model_type="wenet_ctc",
        chunk_size=chunk,
        left_chunks=left,
        head=2,
        num_blocks=blocks,
        output_size=8,
        cnn_module_kernel=5,
        right_context=6,
        subsampling_factor=4,
        vocab_size=TOKENS,
    )
    write_tokens(
        folder / "tokens.txt", ["<blank>", "<unk>", *SYMBOLS[3:], "x", "<sos/eos>"][:TOKENS]
    )


def write_nemo(folder: Path, graph: Graph) -> None:
    """As sherpa-onnx's scripts/nemo/fast-conformer-hybrid-transducer-ctc/export-onnx-ctc.py."""
    graph.input("audio_signal", ["N", BINS, "T"])
    graph.input("length", ["N"], "int64")
    graph.output("logprobs", ["N", 2, TOKENS])
    graph.output("encoded_lengths", ["N"], "int64")
    graph.node("Identity", "length", to="encoded_lengths")
    states = [
        State("cache_last_channel", ["N", 2, "C", 8], new="cache_last_channel_next"),
        State("cache_last_time", ["N", 2, 8, 4], new="cache_last_time_next"),
        State("cache_last_channel_len", ["N"], "int64", new="cache_last_channel_next_len"),
    ]
    x = graph.node("Transpose", "audio_signal", perm=[0, 2, 1])
    encode(graph, x, states, window=25, shift=16, frames=2, width=JOINER, to="hidden")
    classify(graph, "logprobs", blank=TOKENS - 1)
    graph.save(
        folder / "model.onnx",
        model_type="EncDecHybridRNNTCTCBPEModel",
        window_size=25,
        chunk_shift=16,
        subsampling_factor=8,
        vocab_size=TOKENS - 1,
        normalize_type="",
        cache_last_channel_dim1=2,
        cache_last_channel_dim2=6,
        cache_last_channel_dim3=8,
        cache_last_time_dim1=2,
        cache_last_time_dim2=8,
        cache_last_time_dim3=4,
    )
    write_tokens(folder / "tokens.txt", [*SYMBOLS[1:], "<blk>"])


def classify(graph: Graph, to: str, blank: int) -> None:
    """Make log-probabilities of the hidden output, mostly of the blank."""
    bias = np.zeros(TOKENS, np.float32)
    bias[blank] = 2.5
    mixed = graph.node("MatMul", "hidden", graph.random(JOINER, TOKENS, scale=1.2))
    graph.node("LogSoftmax", graph.node("Add", mixed, graph.constant(bias)), to=to, axis=-1)
