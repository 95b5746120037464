"""Holds a streaming Conformer against itself: by chunks and at once, in PyTorch and exported.

In: a source and features. Out: how far they are apart, or an error, so that no bug of the export is
shipped. And what goes into its products, for static quantization. Runs on the caller's thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from harkd.errors import ModelDamagedError
from harkd_convert.checkpoint import Float32
from harkd_convert.conformer_graph import conformer_graph, probed_graph
from harkd_convert.conformer_run import (
    ExportedConformer,
    greedy,
    streamed_log_probs,
    whole_log_probs,
)
from harkd_convert.conformer_shape import Chunking
from harkd_convert.conformer_source import ConformerSource
from harkd_convert.errors import ConvertError
from harkd_convert.export_check import MEND, relative_error
from harkd_convert.graph import Precision, Range

MOST_ERROR = 1e-3
"""Relative, over all log-probabilities of an utterance; measured: 1e-6."""


@dataclass(frozen=True, slots=True)
class StreamingAgreement:
    """How far the ways to compute the same are apart, in float32."""

    streaming_error: float
    """Relative: PyTorch by chunks, from PyTorch at once under the chunks' mask"""
    export_error: float
    """Relative: the exported graph, from PyTorch by chunks"""
    frames: int
    """Compared"""
    tokens: int
    """Heard in them, the same in all three"""


def check_conformer(
    source: ConformerSource, chunking: Chunking, features: Float32, scratch: Path
) -> StreamingAgreement:
    """Compare the three ways.

    Args:
        source: The model.
        chunking: What is encoded at once.
        features: float32, (feature frames, bins), of some chunks at least.
        scratch: A directory, where the graph in float32 is left.

    Raises:
        ConvertError: They differ.
    """
    model = source.model()
    whole = whole_log_probs(model, features, chunking)
    streamed = streamed_log_probs(model, features, chunking)
    path = scratch / "float32.onnx"
    onnx.save(conformer_graph(source, chunking, Precision.FP32), path)
    try:
        exported = ExportedConformer(path, source.shape, chunking).log_probs(features)
    except ModelDamagedError as error:
        raise ConvertError(f"the exported graph does not run ({error.message})", MEND) from error
    errors = relative_error(whole, streamed), relative_error(streamed, exported)
    found = {
        f"by chunks it differs from the whole by {errors[0]:.2g}": not errors[0] < MOST_ERROR,
        f"the export differs from PyTorch by {errors[1]:.2g}": not errors[1] < MOST_ERROR,
        "nothing was compared": not len(whole),
    }
    if faults := [fault for fault, present in found.items() if present]:
        raise ConvertError(f"the export is not the model: {'; '.join(faults)}", MEND)
    return StreamingAgreement(*errors, len(whole), len(greedy(exported)))


def measured_ranges(
    source: ConformerSource, chunking: Chunking, speech: Iterable[Float32], scratch: Path
) -> dict[str, Range]:
    """Return the least and greatest value that goes into each product.

    Args:
        source: The model.
        chunking: What is encoded at once.
        speech: Features of utterances, (feature frames, bins) each.
        scratch: A directory, where a graph is left.

    Raises:
        ConvertError: No utterance fills a chunk.
    """
    model, products = probed_graph(source, chunking)
    path = scratch / "probed.onnx"
    onnx.save(model, path)
    runner = ExportedConformer(path, source.shape, chunking)
    names = list(dict.fromkeys(products.values()))
    low = np.full(len(names), np.inf)
    high = np.full(len(names), -np.inf)
    for features in speech:
        for step in runner.steps(features, names):
            low = np.minimum(low, [values.min() for values in step[3:]])
            high = np.maximum(high, [values.max() for values in step[3:]])
    if not np.isfinite(low).all():
        raise ConvertError(
            "the recordings to calibrate with are shorter than a chunk", "give longer ones"
        )
    by_name = {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}
    return {product: by_name[name] for product, name in products.items()}
