"""Moonshine → three lean ONNX graphs: stem, encoder, decoder.

In: a `Source`. Out: ONNX models for `harkd.recognizer.moonshine_lean`, which has the contract of
their inputs and outputs. What is different from the published graphs:

- The stem's convolutions are local, so they are a graph of their own that is run on new audio only.
  The norm between them needs the whole utterance's mean and variance; it is moved behind the second
  convolution (both are linear), where it is one multiplication and one addition of the kept rows.
- The encoder takes the keys and values of earlier frames, so that a longer utterance costs the new
  frames and those whose future was not known yet. It ends with the decoder's keys and values.
- The decoder has no branches, fused attention and merged matrices, appends to its cache in place,
  and ends with the best token and its log-probability.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto

from harkd.recognizer.lean_encoder import LAYOUT
from harkd_convert.checkpoint import STEM, Float32, Source
from harkd_convert.graph import CONTRIB, HEAD_STEP, Graph, Padding, Precision
from harkd_convert.quantize import quantized

MOST_FRAMES = 4096
"""Positions of the encoder: 98 s"""
MOST_TOKENS = 1024
"""Positions of the decoder"""
ENDLESS = 2**40
BLOCK_TOKENS = 128
"""The most tokens that are one block where the best is sought"""


def stem_graph(source: Source) -> onnx.ModelProto:
    """Make the graph of the first two convolutions; always float32, since sums need the range.

    steps float32 (t + 1, 64): the audio in steps of the first convolution, of which the last sample
    is not used; paired int64 (1,): 3 × (r + 1) → rows (r, 2 × width) of the second convolution
    before norm and bias, totals (t,) and squares (t,): sums over the features of each of the first
    convolution's frames.

    Each convolution is a product of windows, since onnxruntime packs the weights of a product once,
    those of a convolution in each run (1.32; a second of audio takes 1.4 ms instead of 1.8).
    """
    graph = Graph(source, Precision.FP32)
    weights, width = source.weights, source.shape.width
    graph.input("steps", TensorProto.FLOAT, ["steps", STEM["conv1"][1]])
    graph.input("paired", TensorProto.INT64, [1])
    kernel = weights["encoder.conv1.weight"].transpose(2, 1, 0).reshape(-1, width)  # (127, width)
    kernel = np.pad(kernel, ((0, 1), (0, 0)))
    y = graph.node("MatMul", [_pairs(graph, "steps"), graph.real_constant("conv1", kernel)])
    first = graph.node("Tanh", [y])  # (t, width)
    gain = weights["encoder.groupnorm.weight"][None, :, None]
    kernel = (weights["encoder.conv2.weight"] * gain).transpose(2, 1, 0)
    # Row r sees frames 3r … 3r + 6: two groups of three, and the first of the next group.
    zero, three = graph.integers(0), graph.integers(3)
    groups = graph.node("Slice", [first, zero, "paired", zero])
    pairs = _pairs(graph, graph.node("Reshape", [groups, graph.integers(-1, 3 * width)]))
    last = graph.node("Slice", [first, graph.integers(6), graph.integers(ENDLESS), zero, three])
    windows = graph.node("Concat", [pairs, last], axis=1)  # (r, 7 × width)
    second = graph.real_constant("conv2", kernel.reshape(7 * width, 2 * width))
    rows = graph.output("rows", TensorProto.FLOAT, ["rows", 2 * width])
    graph.node("MatMul", [windows, second], [rows])
    for op, name in (("ReduceSum", "totals"), ("ReduceSumSquare", "squares")):
        graph.output(name, TensorProto.FLOAT, ["frames"])
        graph.node(op, [first, graph.integers(1)], [name], keepdims=0)
    return graph.model("stem", _properties(source))


def _pairs(graph: Graph[Source], x: str) -> str:
    """Lay each row beside the next: (n + 1, w) → (n, 2 × w)."""
    zero = graph.integers(0)
    left = graph.node("Slice", [x, zero, graph.integers(-1), zero])
    right = graph.node("Slice", [x, graph.integers(1), graph.integers(ENDLESS), zero])
    return graph.node("Concat", [left, right], axis=1)


def encoder_graph(
    source: Source, precision: Precision, keep_float: tuple[str, ...] = ()
) -> onnx.ModelProto:
    """Make the graph of the third convolution and the encoder's layers.

    rows float32 (2s + 1, 2 × width), scale and shift float32 (1,) of the norm, start int64 (1,):
    position of the first new frame, past_key_i and past_value_i (1, p, width) of earlier frames →
    key_i and value_i (1, s, width) of the new ones, cross (2 × decoder layers, heads, s, head):
    the decoder's keys and values of them, in turn.
    """
    graph = Graph(source, precision, keep_float)
    shape = source.shape
    real, width = graph.onnx_real, shape.width
    graph.input("start", TensorProto.INT64, [1])
    x = _frames(graph)
    tables = graph.rotary_tables(graph.source.shape, MOST_FRAMES)
    pending = ""
    for i in range(shape.encoder_layers):
        layer = f"encoder.layers.{i}"
        if pending:
            y, x = graph.add_then_norm(pending, x, f"{layer}.input_layernorm.weight")
        else:
            y = graph.norm(x, f"{layer}.input_layernorm.weight")
        for kind in ("key", "value"):
            graph.input(f"past_{kind}_{i}", real, [1, "past", width])
            graph.output(f"{kind}_{i}", real, [1, "frames", width])
        attended = _encoder_attention(graph, y, i, tables)
        y = graph.linear(attended, [f"{layer}.self_attn.o_proj.weight"])
        y, x = graph.add_then_norm(y, x, f"{layer}.post_attention_layernorm.weight")
        y = graph.linear(y, [f"{layer}.mlp.fc1.weight"], f"{layer}.mlp.fc1.bias")
        y = graph.node("Gelu", [y])
        pending = graph.linear(y, [f"{layer}.mlp.fc2.weight"], f"{layer}.mlp.fc2.bias")
    y, _ = graph.add_then_norm(pending, x, "encoder.layer_norm.weight")
    _cross_keys_and_values(graph, y)
    return graph.model("encoder", _properties(source))


def _frames(graph: Graph[Source]) -> str:
    """Norm and activation of the kept rows, then the third convolution as one product."""
    source, width = graph.source, graph.source.shape.width
    weights = source.weights
    conv2, gain = weights["encoder.conv2.weight"], weights["encoder.groupnorm.weight"]
    offset = weights["encoder.groupnorm.bias"]
    # What a shift of all inputs, and the norm's bias, add to the second convolution's outputs.
    response = _summed(conv2 * gain[None, :, None])
    bias = _summed(conv2 * offset[None, :, None]) + weights["encoder.conv2.bias"]
    graph.input("rows", TensorProto.FLOAT, ["rows", 2 * width])
    graph.input("scale", TensorProto.FLOAT, [1])
    graph.input("shift", TensorProto.FLOAT, [1])
    shifted = graph.node("Mul", [graph.constant("stem_response", response), "shift"])
    constant = graph.node("Add", [shifted, graph.constant("stem_bias", bias)])  # (2 × width,)
    y = graph.node("Add", [graph.node("Mul", ["rows", "scale"]), constant])
    y = graph.node("Gelu", [y])
    if graph.precision is Precision.FP16:
        y = graph.node("Cast", [y], to=graph.onnx_real)
    # Frame f sees rows 2f, 2f + 1, 2f + 2: two of them lie side by side in a reshape.
    zero, two = graph.integers(0), graph.integers(2)
    pairs = graph.node("Slice", [y, zero, graph.integers(-1), zero])
    pairs = graph.node("Reshape", [pairs, graph.integers(-1, 4 * width)])
    third = graph.node("Slice", [y, two, graph.integers(ENDLESS), zero, two])
    windows = graph.node("Concat", [pairs, third], axis=1)  # (s, 6 × width)
    kernel = weights["encoder.conv3.weight"].transpose(2, 1, 0).reshape(6 * width, width)
    y = graph.node(
        "Gemm",
        [
            windows,
            graph.real_constant("conv3", kernel),
            graph.real_constant("conv3_bias", weights["encoder.conv3.bias"]),
        ],
    )
    return graph.node("Unsqueeze", [graph.node("Gelu", [y]), zero])  # (1, s, width)


def _summed(kernel: Float32) -> Float32:
    """Sum over inputs and taps, exactly, so that every machine gets the same: (out,)."""
    return np.array([math.fsum(each.ravel().tolist()) for each in kernel], np.float32)


def _encoder_attention(graph: Graph[Source], y: str, i: int, tables: tuple[str, str]) -> str:
    """Attend to all frames, earlier and new; (1, s, width) → the same."""
    shape = graph.source.shape
    names = [f"encoder.layers.{i}.self_attn.{letter}_proj.weight" for letter in "qkv"]
    together = f"encoder.layers.{i}.self_attn.qkv_proj.weight"
    merged = graph.linear(y, names, merged=together)  # (1, s, 3 × width)
    graph.split(merged, [f"unrotated_{i}", f"value_{i}"], [2 * shape.width, shape.width])
    rotated = graph.node(
        "RotaryEmbedding",
        [f"unrotated_{i}", "start", *tables],
        domain=CONTRIB,
        interleaved=1,
        num_heads=2 * shape.heads,
        rotary_embedding_dim=shape.rotary_dims,
    )
    graph.split(rotated, [f"query_{i}", f"key_{i}"], [shape.width, shape.width])
    keys = graph.node("Concat", [f"past_key_{i}", f"key_{i}"], axis=1)
    values = graph.node("Concat", [f"past_value_{i}", f"value_{i}"], axis=1)
    return graph.node(
        "MultiHeadAttention",
        [f"query_{i}", keys, values],
        domain=CONTRIB,
        num_heads=shape.heads,
        scale=shape.head_width**-0.5,
    )


def _cross_keys_and_values(graph: Graph[Source], y: str) -> None:
    shape = graph.source.shape
    layers = shape.decoder_layers
    names = [
        f"decoder.layers.{i}.encoder_attn.{letter}_proj.weight"
        for i in range(layers)
        for letter in "kv"
    ]
    merged = graph.linear(y, names, merged="decoder.layers.encoder_attn.kv_proj.weight")
    dims = [2 * layers, shape.heads, shape.head_width]
    merged = graph.node("Reshape", [merged, graph.integers(-1, *dims)])
    cross = graph.output("cross", graph.onnx_real, [*dims[:2], "frames", dims[2]])
    graph.node("Transpose", [merged], [cross], perm=[1, 2, 0, 3])


def decoder_graph(
    source: Source, tokens: int, precision: Precision, keep_float: tuple[str, ...] = ()
) -> onnx.ModelProto:
    """Make the decoder's graph.

    ids int64 (n, s) of n hypotheses (n > 1 only with s = 1, or without a past), last int32 (n,):
    position of the last of them, total int32 (1,): last + 1, key_i and value_i (n, heads, m, padded
    head): the caches, of fixed capacity m, cross_key_i and cross_value_i (1, heads, frames, head),
    the same for all → token int64 (n, s) and log_prob float32 (n, s): the best token after each of
    ids; log_probs float32 (n, s, tokens): of all tokens; new_key_i, new_value_i: the caches, in
    place if they are bound to the same memory.

    Args:
        source: The model.
        tokens: So many of the vocabulary can be written; the others are never chosen.
        precision: Of the linear layers.
        keep_float: Shell patterns of weights that stay in float though the precision is int8.
    """
    graph = Graph(source, precision, keep_float)
    shape, real = source.shape, graph.onnx_real
    head = shape.head_width
    padding = Padding(head, -(-head // HEAD_STEP) * HEAD_STEP)
    graph.input("ids", TensorProto.INT64, ["batch", "tokens"])
    graph.input("last", TensorProto.INT32, ["batch"])
    graph.input("total", TensorProto.INT32, [1])
    for i in range(shape.decoder_layers):
        for kind in ("key", "value"):
            dims: list[int | str] = ["batch", shape.heads, "capacity", padding.padded]
            graph.input(f"{kind}_{i}", real, dims)
            graph.output(f"new_{kind}_{i}", real, dims)
            graph.input(f"cross_{kind}_{i}", real, [1, shape.heads, "frames", head])
    tables = graph.rotary_tables(graph.source.shape, MOST_TOKENS, HEAD_STEP // 2)
    x = _embedding(graph, tokens)
    graph.node("Shape", [x], ["rows"])
    pending = ""
    for i in range(shape.decoder_layers):
        pending, x = _decoder_layer(graph, i, pending, x, padding, tables)
    y, _ = graph.add_norm(pending, x, "decoder.norm.weight")
    best_token(graph, graph.linear(y, [HEAD], keep_columns=tokens), tokens)
    return graph.model("decoder", _properties(source) | {"tokens": str(tokens)})


HEAD = "decoder.embed_tokens.weight"
"""The head is the embedding once more."""


def _embedding(graph: Graph[Source], tokens: int) -> str:
    """Look the tokens up; (n, s) → (n, s, width)."""
    published = graph.source.quantized.get(HEAD)
    if graph.precision is not Precision.INT8 or (graph.stays_float(HEAD) and not published):
        table = graph.real_constant("embedding", graph.source.weights[HEAD])
        return graph.node("Gather", [table, "ids"])
    if published:
        rows = graph.node("Gather", [graph.constant("embedding", published.values.T), "ids"])
        scale = graph.constant("embedding.scale", np.array(published.scale, np.float32))
        zero = graph.constant("embedding.zero", np.array(published.zero_point, np.uint8))
        return graph.node("DequantizeLinear", [rows, scale, zero])
    # A column, and so a scale, for each token: the head's own, so that it is in the file once.
    # onnxruntime transposes it when it loads; to gather columns would cost 5 % of a token.
    matrix = quantized(graph.source, HEAD)
    columns = graph.constant(HEAD, matrix.values[:, :tokens])
    scales = graph.constant(f"{HEAD}.scales", matrix.scales[:tokens])
    table = graph.node("Transpose", [columns], perm=[1, 0])
    rows = graph.node("Cast", [graph.node("Gather", [table, "ids"])], to=TensorProto.FLOAT)
    scales = graph.node("Gather", [graph.node("Unsqueeze", [scales, graph.integers(-1)]), "ids"])
    return graph.node("Mul", [rows, scales])


def _decoder_layer(
    graph: Graph[Source], i: int, pending: str, x: str, padding: Padding, tables: tuple[str, str]
) -> tuple[str, str]:
    """Add one layer; return its last output, not yet added, and the residual."""
    shape, layer = graph.source.shape, f"decoder.layers.{i}"
    if pending:
        y, x = graph.add_norm(pending, x, f"{layer}.input_layernorm.weight")
    else:
        y = graph.norm(x, f"{layer}.input_layernorm.weight")
    names = [f"{layer}.self_attn.{letter}_proj.weight" for letter in "qkv"]
    together = f"{layer}.self_attn.qkv_proj.weight"
    merged = graph.linear(y, names, merged=together, pad_out=padding)
    attended = graph.node(
        "GroupQueryAttention",
        [merged, "", "", f"key_{i}", f"value_{i}", "last", "total", *tables],
        [f"attended_{i}", f"new_key_{i}", f"new_value_{i}"],
        domain=CONTRIB,
        num_heads=shape.heads,
        kv_num_heads=shape.heads,
        scale=shape.head_width**-0.5,
        do_rotary=1,
        rotary_interleaved=1,
    )
    y = graph.linear(attended, [f"{layer}.self_attn.o_proj.weight"], pad_in=padding)
    y, x = graph.add_norm(y, x, f"{layer}.post_attention_layernorm.weight")
    query = graph.linear(y, [f"{layer}.encoder_attn.q_proj.weight"])
    # All hypotheses listen to the same audio: as one they need no copies of its keys and values.
    query = graph.node("Reshape", [query, graph.integers(1, -1, shape.width)])
    attended = graph.node(
        "MultiHeadAttention",
        [query, f"cross_key_{i}", f"cross_value_{i}"],
        domain=CONTRIB,
        num_heads=shape.heads,
        scale=shape.head_width**-0.5,
    )
    attended = graph.node("Reshape", [attended, "rows"])
    y = graph.linear(attended, [f"{layer}.encoder_attn.o_proj.weight"])
    y, x = graph.add_norm(y, x, f"{layer}.final_layernorm.weight")
    y = graph.linear(y, [f"{layer}.mlp.fc1.weight"], f"{layer}.mlp.fc1.bias")
    graph.split(y, [f"up_{i}", f"gate_{i}"], [shape.decoder_ffn, shape.decoder_ffn])
    gate = graph.node("QuickGelu", [f"gate_{i}"], domain=CONTRIB, alpha=1.0)  # SiLU
    y = graph.node("Mul", [f"up_{i}", gate])
    return graph.linear(y, [f"{layer}.mlp.fc2.weight"], f"{layer}.mlp.fc2.bias"), x


def best_token(graph: Graph[Source], logits: str, tokens: int) -> None:
    """End a decoder with the best token, the first of equals, and its log-probability.

    logits (n, s, tokens) → token int64 (n, s), log_prob float32 (n, s), log_probs of all. The best
    of each block of tokens is found first, and looked for in the best block: onnxruntime's ArgMax
    is not vectorized (1.32; over 32,768 tokens 40 µs, and 10 in this way).
    """
    if graph.precision is Precision.FP16:
        logits = graph.node("Cast", [logits], to=TensorProto.FLOAT)
    block = next(size for size in range(BLOCK_TOKENS, 0, -1) if tokens % size == 0)
    scores = graph.output("log_probs", TensorProto.FLOAT, ["batch", "tokens", tokens])
    graph.node("LogSoftmax", [logits], [scores], axis=-1)
    dims = graph.integers(0, 0, tokens // block, block)
    blocks = graph.node("Reshape", [scores, dims])
    best = graph.node("ReduceMax", [blocks, graph.integers(3)], keepdims=0)
    log_prob = graph.output("log_prob", TensorProto.FLOAT, ["batch", "tokens"])
    graph.node("ReduceMax", [best, graph.integers(2)], [log_prob], keepdims=0)
    number = graph.node("ArgMax", [best], axis=-1, keepdims=1)  # (1, s, 1)
    chosen = graph.node("GatherND", [blocks, number], batch_dims=2)  # (1, s, block)
    place = graph.node("ArgMax", [chosen], axis=-1, keepdims=0)
    begin = graph.node("Mul", [number, graph.integers(block)])
    begin = graph.node("Squeeze", [begin, graph.integers(2)])
    token = graph.output("token", TensorProto.INT64, ["batch", "tokens"])
    graph.node("Add", [begin, place], [token])


def _properties(source: Source) -> dict[str, str]:
    shape = source.shape
    return {
        "family": "moonshine-lean",
        "layout": LAYOUT,
        "heads": str(shape.heads),
        "width": str(shape.width),
        "encoder_layers": str(shape.encoder_layers),
        "decoder_layers": str(shape.decoder_layers),
        "norm_epsilon": str(shape.norm_epsilon),
        "most_frames": str(MOST_FRAMES),
        "most_tokens": str(MOST_TOKENS),
    }
