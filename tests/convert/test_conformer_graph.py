"""The exported graph: it is the network, and sherpa-onnx, which reads the same file, is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import sherpa_onnx
import torch

from harkd_convert.checkpoint import Float32
from harkd_convert.conformer_check import check_conformer, measured_ranges
from harkd_convert.conformer_graph import (
    INPUTS,
    OUTPUTS,
    conformer_graph,
)
from harkd_convert.conformer_run import (
    ExportedConformer,
    greedy,
    streamed_log_probs,
    windows,
)
from harkd_convert.conformer_shape import Chunking
from harkd_convert.conformer_source import ConformerSource
from harkd_convert.conformer_weights import merged_weights, quantizable
from harkd_convert.conversion import to_samples
from harkd_convert.errors import ConvertError
from harkd_convert.export_check import pseudo_speech, relative_error
from harkd_convert.graph import Precision
from harkd_convert.mel_features import mel_features
from harkd_convert.verify import edit_distance
from small_conformer import SHAPES, TOKENS, open_checkpoint, write_checkpoint

SAMPLES = to_samples(pseudo_speech(80_000))
CHUNKINGS = [Chunking(16, 4), Chunking(8, 8), Chunking(4, 2)]


@pytest.fixture(scope="module", params=list(SHAPES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("conformer") / "small", request.param)


@pytest.fixture(scope="module")
def source(folder: Path) -> ConformerSource:
    return open_checkpoint(folder)


@pytest.fixture(scope="module")
def features() -> Float32:
    return mel_features(SAMPLES)


def exported(
    source: ConformerSource, chunking: Chunking, folder: Path, precision: Precision
) -> tuple[Path, ExportedConformer]:
    path = folder / f"{precision}.onnx"
    onnx.save(conformer_graph(source, chunking, precision), path)
    return path, ExportedConformer(path, source.shape, chunking)


@pytest.mark.parametrize("chunking", CHUNKINGS, ids=str)
def test_in_float_it_is_the_network_step_by_step(
    source: ConformerSource, features: Float32, chunking: Chunking, tmp_path: Path
) -> None:
    _, runner = exported(source, chunking, tmp_path, Precision.FP32)
    model = source.model()
    state = model.initial(chunking)
    pairs = zip(runner.steps(features), windows(features, chunking), strict=True)
    for found, window in pairs:
        with torch.no_grad():
            log_probs, state = model.step(torch.from_numpy(window), state, chunking)
        wanted = (log_probs, state.keys_values, state.convolved)
        for one, other in zip(wanted, found, strict=True):
            assert relative_error(one.numpy(), other) < 1e-4
    assert len(list(windows(features, chunking))) >= 7


def test_how_much_is_heard_at_once_can_be_chosen_after_the_export(
    source: ConformerSource, features: Float32, tmp_path: Path
) -> None:
    path, _ = exported(source, Chunking(16, 4), tmp_path, Precision.FP32)
    for chunking in (Chunking(8, 8), Chunking(4, 2)):
        found = ExportedConformer(path, source.shape, chunking).log_probs(features)
        wanted = streamed_log_probs(source.model(), features, chunking)
        assert relative_error(wanted, found) < 1e-4


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
@pytest.mark.parametrize("chunking", CHUNKINGS, ids=str)
def test_sherpa_onnx_hears_the_same_tokens_in_the_same_file(
    source: ConformerSource,
    folder: Path,
    features: Float32,
    chunking: Chunking,
    precision: Precision,
    tmp_path: Path,
) -> None:
    path, runner = exported(source, chunking, tmp_path, precision)
    ours = [TOKENS[token].replace("▁", " ") for token in greedy(runner.log_probs(features))]
    peer = sherpa_onnx.OnlineRecognizer.from_wenet_ctc(
        tokens=str(folder / "units.txt"),
        model=str(path),
        chunk_size=chunking.frames,
        num_left_chunks=chunking.left_chunks,
        num_threads=1,
    )
    stream = peer.create_stream()
    stream.accept_waveform(16000, SAMPLES.astype(np.float32) / 32768)
    stream.input_finished()
    while peer.is_ready(stream):
        peer.decode_stream(stream)
    assert len(set(ours)) > 3, "the test shows nothing"
    heard = peer.tokens(stream)
    if precision is Precision.FP32:
        assert heard == ours
    else:
        # In int8, what differs in the last bit becomes a step of 1/255, and weights that were
        # never trained leave many tokens nearly alike.
        numbers = {token: number for number, token in enumerate(sorted({*ours, *heard}))}
        edits = edit_distance([numbers[token] for token in ours], [numbers[t] for t in heard])
        assert edits <= 0.1 * len(ours) + 1


def test_its_inputs_outputs_and_metadata_are_those_of_wenets_export(
    source: ConformerSource,
) -> None:
    graph = conformer_graph(source, Chunking(8, 6))
    assert [each.name for each in graph.graph.input] == list(INPUTS)
    assert [each.name for each in graph.graph.output] == list(OUTPUTS)
    told = {each.key: each.value for each in graph.metadata_props}
    assert told["model_type"] == "wenet_ctc"
    sizes = {
        "head": 3,
        "num_blocks": 3,
        "output_size": 48,
        "cnn_module_kernel": 8,
        "right_context": 6,
        "subsampling_factor": 4,
        "vocab_size": len(TOKENS),
        "chunk_size": 8,
        "left_chunks": 6,
    }
    assert sizes.items() <= {key: int(v) for key, v in told.items() if v.isdecimal()}.items()


def test_all_matrices_become_int8_but_those_listed(source: ConformerSource) -> None:
    def by_kind(*keep: str) -> dict[str, int]:
        graph = conformer_graph(source, Chunking(), keep_float=keep)
        return {each.name: each.data_type for each in graph.graph.initializer}

    kinds = by_kind()
    int8 = {name for name, kind in kinds.items() if kind == onnx.TensorProto.INT8}
    assert int8 == {name for name in quantizable(source) if "linear_pos" not in name} | {
        "linear_pos"
    }
    assert kinds["encoder.embed.conv.2.weight"] == onnx.TensorProto.FLOAT
    assert kinds["encoder.encoders.0.conv_module.depthwise_conv.weight"] == onnx.TensorProto.FLOAT
    kept = by_kind("ctc.*", "encoder.encoders.1.*")
    assert kept["ctc.ctc_lo.weight"] == onnx.TensorProto.FLOAT
    assert kept["encoder.encoders.1.self_attn.query.weight"] == onnx.TensorProto.FLOAT
    assert kept["encoder.encoders.2.self_attn.query.weight"] == onnx.TensorProto.INT8


def test_int8_is_near_float_dynamic_and_static(
    source: ConformerSource, features: Float32, tmp_path: Path
) -> None:
    chunking = Chunking()
    wanted = streamed_log_probs(source.model(), features, chunking)
    _, dynamic = exported(source, chunking, tmp_path, Precision.INT8)
    ranges = measured_ranges(source, chunking, [features], tmp_path)
    graph = conformer_graph(source, chunking, ranges=ranges)
    assert not {node.op_type for node in graph.graph.node} & {
        "DynamicQuantizeMatMul",
        "MatMulNBits",
    }
    onnx.save(graph, tmp_path / "static.onnx")
    static = ExportedConformer(tmp_path / "static.onnx", source.shape, chunking)
    for runner in (dynamic, static):
        assert relative_error(wanted, runner.log_probs(features)) < 0.1


def test_static_quantization_needs_speech_that_fills_a_chunk(
    source: ConformerSource, features: Float32, tmp_path: Path
) -> None:
    with pytest.raises(ConvertError, match="shorter than a chunk"):
        measured_ranges(source, Chunking(), [features[:60]], tmp_path)


def test_the_check_tells_how_near_they_are(
    source: ConformerSource, features: Float32, tmp_path: Path
) -> None:
    found = check_conformer(source, Chunking(), features, tmp_path)
    assert found.streaming_error < 1e-5
    assert found.export_error < 1e-5
    assert found.frames >= 7 * 16
    assert found.tokens > 5


def test_the_check_refuses_an_export_that_is_not_the_network(
    source: ConformerSource, features: Float32, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(source: ConformerSource) -> ConformerSource:
        merged = merged_weights(source)
        name = "encoder.encoders.1.self_attn.linear_out.bias"
        return replace(merged, weights=merged.weights | {name: merged.weights[name] * 2})

    monkeypatch.setattr("harkd_convert.conformer_graph.merged_weights", wrong)
    with pytest.raises(ConvertError, match="the export differs from PyTorch"):
        check_conformer(source, Chunking(), features, tmp_path)
    with pytest.raises(ConvertError, match="nothing was compared"):
        check_conformer(source, Chunking(), features[:20], tmp_path)
