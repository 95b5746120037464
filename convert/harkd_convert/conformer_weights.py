"""The weights of a streaming Conformer as its graph has them: merged, scaled, and turned. Pure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harkd_convert.checkpoint import Float32
from harkd_convert.conformer_source import ConformerSource

LAYER = "encoder.encoders.{}"


def merged_weights(source: ConformerSource) -> ConformerSource:
    """Return the source with its weights as the graph has them.

    Query, key and value become one product, whose keys and values follow each other head by head as
    in the cache; the half of the feed-forward parts (exact) and the root in the attention are put
    into the weights; convolutions of one frame become matrices; a batch norm goes into the
    convolution before it.
    """
    shape = source.shape
    weights = dict(source.weights)
    for i in range(shape.layers):
        layer = LAYER.format(i)
        _merge_attention(weights, f"{layer}.self_attn", shape.heads)
        for part in ("feed_forward_macaron", "feed_forward"):
            for kind in ("weight", "bias"):
                weights[f"{layer}.{part}.w_2.{kind}"] = (
                    np.float32(0.5) * weights[f"{layer}.{part}.w_2.{kind}"]
                )
        conv = f"{layer}.conv_module"
        for name in ("pointwise_conv1", "pointwise_conv2"):
            weights[f"{conv}.{name}.weight"] = weights[f"{conv}.{name}.weight"][..., 0]
        if shape.conv_norm == "batch_norm":
            _merge_batch_norm(weights, conv, shape.norm_epsilon)
    return replace(source, weights=weights)


def _merge_attention(weights: dict[str, Float32], name: str, heads: int) -> None:
    for kind in ("weight", "bias"):
        query, key, value = (weights.pop(f"{name}.linear_{part}.{kind}") for part in "qkv")
        head = len(query) // heads
        root = np.float32(1 / head**0.5)
        by_head = np.stack(  # (heads, 2, head width, …)
            [each.reshape(heads, head, *each.shape[1:]) for each in (key, value)], axis=1
        )
        weights[f"{name}.query.{kind}"] = query * root
        weights[f"{name}.keys_values.{kind}"] = by_head.reshape(-1, *key.shape[1:])
    for kind in ("pos_bias_u", "pos_bias_v"):
        weights[f"{name}.{kind}"] = weights[f"{name}.{kind}"] * root


def _merge_batch_norm(weights: dict[str, Float32], conv: str, epsilon: float) -> None:
    mean, variance, scale, bias = (
        weights[f"{conv}.norm.{kind}"].astype(np.float64)
        for kind in ("running_mean", "running_var", "weight", "bias")
    )
    factor = scale / np.sqrt(variance + epsilon)
    depthwise = f"{conv}.depthwise_conv"
    moved = (weights[f"{depthwise}.bias"] - mean) * factor + bias
    scaled = weights[f"{depthwise}.weight"] * factor[:, None, None]
    weights[f"{depthwise}.weight"] = scaled.astype(np.float32)
    weights[f"{depthwise}.bias"] = moved.astype(np.float32)


def quantizable(source: ConformerSource) -> list[str]:
    """Return the names of the weights that become int8: all matrices."""
    merged = merged_weights(source).weights
    return [name for name, value in merged.items() if value.ndim == 2 and "pos_bias" not in name]
