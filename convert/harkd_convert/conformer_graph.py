"""A streaming Conformer as one ONNX graph: a chunk and its caches in, log-probabilities out.

In: a source. Out: the graph, with the inputs, outputs and metadata that sherpa-onnx reads for
WeNet's CTC models (csrc/online-wenet-ctc-model.cc): inputs are taken by their order, and the sizes
of the caches from the metadata. How many frames are in a chunk, and how many are cached, is free.
Runs on the caller's thread.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from harkd_convert.conformer_shape import (
    LONGEST_WAVELENGTH,
    POSITIONS,
    RIGHT_CONTEXT,
    SUBSAMPLING,
    Chunking,
)
from harkd_convert.conformer_source import ConformerSource
from harkd_convert.conformer_weights import LAYER, merged_weights
from harkd_convert.graph import CONTRIB, Graph, Precision, Range

INPUTS = ("x", "offset", "required_cache_size", "attn_cache", "conv_cache", "attn_mask")
OUTPUTS = ("log_probs", "next_att_cache", "next_conv_cache")
UNSEEN = -1e9
"""Added to the score of a key that is masked; its weight is then exactly 0."""


def metadata(source: ConformerSource, chunking: Chunking) -> dict[str, str]:
    """Return what sherpa-onnx reads of the file, and what tells where it is from."""
    shape = source.shape
    told = {
        "model_type": "wenet_ctc",
        "version": "1",
        "model_author": "harkd-convert",
        "comment": "streaming",
        "chunk_size": chunking.frames,
        "left_chunks": chunking.left_chunks,
        "head": shape.heads,
        "num_blocks": shape.layers,
        "output_size": shape.width,
        "cnn_module_kernel": shape.kernel,
        "right_context": RIGHT_CONTEXT,
        "subsampling_factor": SUBSAMPLING,
        "vocab_size": shape.vocabulary,
        "feature_dim": shape.bins,
    }
    return {key: str(value) for key, value in told.items()}


def conformer_graph(
    source: ConformerSource,
    chunking: Chunking,
    precision: Precision = Precision.INT8,
    keep_float: tuple[str, ...] = (),
    ranges: Mapping[str, Range] | None = None,
) -> onnx.ModelProto:
    """Return the graph of one chunk.

    Args:
        source: The model.
        chunking: What the metadata suggests.
        precision: Of the products; the stem and the depthwise convolutions are in float32.
        keep_float: Shell patterns of weights that stay in float32 though the precision is int8.
        ranges: What goes into the products, from `measured_ranges`: static quantization.
    """
    graph = Graph(merged_weights(source), precision, keep_float, ranges)
    return _Conformer(graph).model(metadata(source, chunking))


def probed_graph(
    source: ConformerSource, chunking: Chunking
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return the graph in float32 with what goes into the products as outputs, by the product."""
    graph = Graph(merged_weights(source), Precision.FP32)
    writer = _Conformer(graph)
    model = writer.model(metadata(source, chunking))
    for name in dict.fromkeys(graph.products.values()):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return model, graph.products


class _Conformer:
    """Writes the nodes."""

    def __init__(self, graph: Graph[ConformerSource]) -> None:
        self.graph = graph
        self.shape = graph.source.shape

    def model(self, properties: dict[str, str]) -> onnx.ModelProto:
        graph, shape = self.graph, self.shape
        caches = (shape.layers, shape.heads, "cached", 2 * shape.head_width)
        past = (shape.layers, 1, shape.width, shape.kernel - 1)
        graph.input("x", TensorProto.FLOAT, (1, "feature_frames", shape.bins))
        graph.input("offset", TensorProto.INT64, (1,))
        graph.input("required_cache_size", TensorProto.INT64, (1,))
        graph.input("attn_cache", TensorProto.FLOAT, caches)
        graph.input("conv_cache", TensorProto.FLOAT, past)
        graph.input("attn_mask", TensorProto.BOOL, (1, 1, "keys"))
        x = self.stem("x")
        positions = self.positions(x)
        unseen = self.unseen()
        layers = range(shape.layers)
        graph.split("attn_cache", [f"attn_cache_{i}" for i in layers], [1] * shape.layers, 0)
        graph.split("conv_cache", [f"conv_cache_{i}" for i in layers], [1] * shape.layers, 0)
        for i in layers:
            x = self.layer(x, i, positions[i], unseen)
        x = self.norm(x, "encoder.after_norm")
        x = self.linear(x, "ctc.ctc_lo")
        graph.node("LogSoftmax", [x], ["log_probs"], axis=-1)
        self.next_caches()
        graph.output("log_probs", TensorProto.FLOAT, (1, "frames", shape.vocabulary))
        graph.output("next_att_cache", TensorProto.FLOAT, (*caches[:2], "kept", caches[3]))
        graph.output("next_conv_cache", TensorProto.FLOAT, past)
        return graph.model("streaming_conformer_ctc", properties)

    def weight(self, name: str) -> str:
        return self.graph.real_constant(name, self.graph.source.weights[name])

    def linear(self, x: str, name: str) -> str:
        return self.graph.linear(x, [f"{name}.weight"], f"{name}.bias")

    def norm(self, x: str, name: str) -> str:
        weights = [self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        epsilon = self.shape.norm_epsilon
        return self.graph.node("LayerNormalization", [x, *weights], axis=-1, epsilon=epsilon)

    def swish(self, x: str) -> str:
        return self.graph.node("QuickGelu", [x], domain=CONTRIB, alpha=1.0)

    def stem(self, x: str) -> str:
        """Map (1, feature frames, bins) to (1, frames, width)."""
        graph = self.graph
        x = graph.node("Sub", [x, self.weight("encoder.global_cmvn.mean")])
        x = graph.node("Mul", [x, self.weight("encoder.global_cmvn.istd")])
        x = graph.node("Unsqueeze", [x, graph.integers(1)])
        for number in (0, 2):
            name = f"encoder.embed.conv.{number}"
            weights = [self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
            x = graph.node("Relu", [graph.node("Conv", [x, *weights], strides=[2, 2])])
        x = graph.node("Transpose", [x], perm=[0, 2, 1, 3])
        x = graph.node("Reshape", [x, graph.integers(0, 0, -1)])
        x = self.linear(x, "encoder.embed.out.0")
        scale = np.array(self.shape.width**0.5, np.float32)
        return graph.node("Mul", [x, graph.constant("root_of_width", scale)])

    def positions(self, x: str) -> list[str]:
        """Return for each layer what its keys' positions are: (1, heads, head width, keys).

        The sines are made here: WeNet's table would be as large as a small model.
        """
        graph, shape = self.graph, self.shape
        cached = graph.node("Shape", ["attn_cache"], start=2, end=3)
        frames = graph.node("Shape", [x], start=1, end=2)
        graph.node("Add", [cached, frames], ["keys"])
        first = graph.node("Sub", ["offset", cached])
        last = graph.node("Sub", [graph.integers(POSITIONS), "keys"])
        first = graph.node("Min", [first, last])
        scalars = [graph.node("Squeeze", [each]) for each in (first, "keys")]
        end = graph.node("Add", scalars)
        one = graph.constant("one", np.array(1, np.int64))
        numbers = graph.node("Range", [scalars[0], end, one])
        numbers = graph.node("Cast", [numbers], to=TensorProto.FLOAT)
        numbers = graph.node("Unsqueeze", [numbers, graph.integers(1)])
        steps = np.arange(0, shape.width, 2, dtype=np.float32)
        steps = np.exp(steps * np.float32(-np.log(LONGEST_WAVELENGTH)) / np.float32(shape.width))
        angles = graph.node("Mul", [numbers, graph.constant("wavelengths", steps)])
        waves = [
            graph.node("Unsqueeze", [graph.node(wave, [angles]), graph.integers(2)])
            for wave in ("Sin", "Cos")
        ]  # (keys, width / 2, 1) each
        table = graph.node("Concat", waves, axis=2)
        table = graph.node("Reshape", [table, graph.integers(0, -1)])  # (keys, width)
        names = [f"{LAYER.format(i)}.self_attn.linear_pos.weight" for i in range(shape.layers)]
        places = graph.linear(table, names, merged="linear_pos")
        sizes = graph.integers(0, shape.layers, shape.heads, shape.head_width)
        places = graph.node("Reshape", [places, sizes])
        places = graph.node("Transpose", [places], perm=[1, 2, 3, 0])
        parts = [f"positions_{i}" for i in range(shape.layers)]
        graph.split(places, parts, [1] * shape.layers, 0)
        return parts

    def unseen(self) -> str:
        """Return what is added to the scores of the keys, (1, 1, 1, keys)."""
        graph = self.graph
        mask = graph.node("Unsqueeze", ["attn_mask", graph.integers(1)])
        values = [
            graph.constant(name, np.array(value, np.float32))
            for name, value in (("seen", 0.0), ("unseen", UNSEEN))
        ]
        return graph.node("Where", [mask, *values])

    def layer(self, x: str, i: int, positions: str, unseen: str) -> str:
        name, graph = LAYER.format(i), self.graph
        x = graph.node("Add", [x, self.feed_forward(x, name, "_macaron")])
        normed = self.norm(x, f"{name}.norm_mha")
        x = graph.node("Add", [x, self.attention(normed, i, positions, unseen)])
        x = graph.node("Add", [x, self.convolution(self.norm(x, f"{name}.norm_conv"), i)])
        x = graph.node("Add", [x, self.feed_forward(x, name, "")])
        return self.norm(x, f"{name}.norm_final")

    def feed_forward(self, x: str, layer: str, which: str) -> str:
        x = self.norm(x, f"{layer}.norm_ff{which}")
        x = self.swish(self.linear(x, f"{layer}.feed_forward{which}.w_1"))
        return self.linear(x, f"{layer}.feed_forward{which}.w_2")

    def attention(self, x: str, i: int, positions: str, unseen: str) -> str:
        graph, shape = self.graph, self.shape
        name = f"{LAYER.format(i)}.self_attn"
        queries = self.linear(x, f"{name}.query")
        queries = graph.node(
            "Reshape", [queries, graph.integers(0, 0, shape.heads, shape.head_width)]
        )
        by_content, by_place = (
            graph.node(
                "Transpose",
                [graph.node("Add", [queries, self.weight(f"{name}.{bias}")])],
                perm=[0, 2, 1, 3],
            )
            for bias in ("pos_bias_u", "pos_bias_v")
        )  # (1, heads, frames, head width)
        both = self.linear(x, f"{name}.keys_values")
        sizes = graph.integers(0, 0, shape.heads, 2 * shape.head_width)
        both = graph.node("Transpose", [graph.node("Reshape", [both, sizes])], perm=[0, 2, 1, 3])
        both = graph.node("Concat", [f"attn_cache_{i}", both], [f"keys_values_{i}"], axis=2)
        keys, values = f"keys_{i}", f"values_{i}"
        graph.split(both, [keys, values], [shape.head_width] * 2)
        keys = graph.node("Transpose", [keys], perm=[0, 1, 3, 2])
        scores = graph.node(
            "Add",
            [
                graph.node("MatMul", [by_content, keys]),
                graph.node("MatMul", [by_place, positions]),
            ],
        )
        shares = graph.node("Softmax", [graph.node("Add", [scores, unseen])], axis=-1)
        seen = graph.node("Transpose", [graph.node("MatMul", [shares, values])], perm=[0, 2, 1, 3])
        seen = graph.node("Reshape", [seen, graph.integers(0, 0, -1)])
        return self.linear(seen, f"{name}.linear_out")

    def convolution(self, x: str, i: int) -> str:
        graph, shape = self.graph, self.shape
        name = f"{LAYER.format(i)}.conv_module"
        past = graph.node("Squeeze", [f"conv_cache_{i}", graph.integers(0)])
        past = graph.node("Transpose", [past], perm=[0, 2, 1])
        x = graph.node("Concat", [past, x], [f"convolved_{i}"], axis=1)
        x = self.linear(x, f"{name}.pointwise_conv1")  # (1, kernel - 1 + frames, 2 width)
        halves = [f"half_{i}", f"gate_{i}"]
        graph.split(x, halves, [shape.width] * 2)
        x = graph.node("Mul", [halves[0], graph.node("Sigmoid", [halves[1]])])
        x = graph.node("Transpose", [x], perm=[0, 2, 1])
        weights = [self.weight(f"{name}.depthwise_conv.{kind}") for kind in ("weight", "bias")]
        x = graph.node("Conv", [x, *weights], group=shape.width)
        x = graph.node("Transpose", [x], perm=[0, 2, 1])  # (1, frames, width)
        if shape.conv_norm == "layer_norm":
            x = self.norm(x, f"{name}.norm")
        return self.linear(self.swish(x), f"{name}.pointwise_conv2")

    def next_caches(self) -> None:
        """Keep the last frames of all layers."""
        graph, shape = self.graph, self.shape
        layers = range(shape.layers)
        first = graph.node("Sub", ["keys", "required_cache_size"])
        first = graph.node("Max", [first, graph.integers(0)])
        both = graph.node("Concat", [f"keys_values_{i}" for i in layers], axis=0)
        far = graph.constant("far", np.array([2**31 - 1], np.int64))
        graph.node("Slice", [both, first, far, graph.integers(2)], ["next_att_cache"])
        past = graph.node("Concat", [f"convolved_{i}" for i in layers], axis=0)
        begin = graph.constant("past", np.array([1 - shape.kernel], np.int64))
        past = graph.node("Slice", [past, begin, far, graph.integers(1)])
        past = graph.node("Transpose", [past], perm=[0, 2, 1])
        graph.node("Unsqueeze", [past, graph.integers(1)], ["next_conv_cache"])
