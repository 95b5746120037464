"""onnxruntime's own format: what is in a published model, and what a damaged file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from onnx import helper, numpy_helper

from harkd.errors import ModelDamagedError
from harkd.recognizer.onnx import open_session
from harkd_convert.ort_file import Graph, Node, read_ort


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelDamagedError, match=r"encoder_model\.ort cannot be read") as damaged:
        read_ort(tmp_path / "encoder_model.ort")
    assert damaged.value.mend


@pytest.mark.parametrize("data", [b"", b"ORTM", b"<html>404 not found</html>", bytes(4096)])
def test_a_file_of_another_kind_is_said(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "encoder_model.ort"
    path.write_bytes(data)
    with pytest.raises(ModelDamagedError, match=r"encoder_model\.ort") as damaged:
        read_ort(path)
    assert damaged.value.mend


def test_a_header_without_a_model_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "encoder_model.ort"
    path.write_bytes(b"\x08\0\0\0ORTM" + bytes(64))
    with pytest.raises(ModelDamagedError, match="cut off or altered"):
        read_ort(path)


@pytest.mark.model
@pytest.mark.parametrize("part", [0.0001, 0.1, 0.5, 0.9])
def test_a_file_that_was_cut_off_is_damaged(model_dir: Path, tmp_path: Path, part: float) -> None:
    whole = (model_dir / "encoder_model.ort").read_bytes()
    path = tmp_path / "encoder_model.ort"
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(ModelDamagedError, match="cut off or altered"):
        read_ort(path)


@pytest.mark.model
def test_the_decoder_is_read_with_its_two_branches(model_dir: Path) -> None:
    graph = read_ort(model_dir / "decoder_model_merged.ort")
    assert {"input_ids", "encoder_hidden_states", "use_cache_branch"} <= set(graph.inputs)
    assert graph.outputs[:2] == ("logits", "present.0.decoder.key")
    assert graph.shapes["past_key_values.0.decoder.key"][1::2] == (8, 36)
    (branch,) = (node for node in graph.nodes if node.op == "If")
    assert sorted(branch.attributes) == ["else_branch", "then_branch"]
    first = branch.attributes["else_branch"]
    assert isinstance(first, Graph)
    assert len(first.nodes) > 900
    embedding = graph.initializers["model.decoder.embed_tokens.weight_merged_0_quantized"]
    assert embedding.dtype == np.uint8
    assert embedding.shape == (32768, 288)


def rebuilt(graph: Graph) -> bytes:
    """The same graph as an ONNX file, with its nodes in an order of execution."""
    known = {"", *graph.initializers, *graph.inputs}
    waiting, ordered = list(graph.nodes), list[Node]()
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.inputs)]
        assert ready
        ordered += ready
        known.update(output for node in ready for output in node.outputs)
        waiting = [node for node in waiting if node not in ready]

    def plain(value: Any) -> Any:
        return numpy_helper.from_array(np.array(value)) if isinstance(value, np.ndarray) else value

    nodes = [
        helper.make_node(
            node.op,
            node.inputs,
            node.outputs,
            domain=node.domain,
            **{name: plain(value) for name, value in node.attributes.items()},
        )
        for node in ordered
    ]
    kinds = {"input_values": onnx.TensorProto.FLOAT, "attention_mask": onnx.TensorProto.INT64}
    inputs = [helper.make_tensor_value_info(name, kinds[name], None) for name in graph.inputs]
    outputs = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in graph.outputs
    ]
    values = [numpy_helper.from_array(np.array(v), n) for n, v in graph.initializers.items()]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    whole = helper.make_graph(nodes, "encoder", inputs, outputs, values)
    model: bytes = helper.make_model(whole, opset_imports=opsets, ir_version=9).SerializeToString()
    return model


@pytest.mark.model
def test_a_graph_made_anew_from_what_was_read_gives_the_same_numbers(
    model_dir: Path, tmp_path: Path
) -> None:
    """So every node, attribute and weight was read, and nothing else matters."""
    published = model_dir / "encoder_model.ort"
    anew = tmp_path / "encoder.onnx"
    anew.write_bytes(rebuilt(read_ort(published)))
    audio, _ = soundfile.read(model_dir / "samples" / "beckett.wav", dtype="float32")
    feed = {"input_values": audio[None], "attention_mask": np.ones((1, len(audio)), np.int64)}
    one, other = (
        open_session(path, 1, arena=False).run(None, feed)[0] for path in (published, anew)
    )
    np.testing.assert_array_equal(one, other)
