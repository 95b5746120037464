"""Reads `.onnx` files into the same plain values as `ort_file` reads onnxruntime's own format.

In: a file. Out: its graph, and the types of what goes in and comes out. Runs on the caller's
thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from harkd.errors import ModelDamagedError
from harkd.recognizer.onnx import open_session
from harkd_convert.ort_file import Attribute, Dimension, Graph, Node, read_ort


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output."""

    name: str
    """As the graph calls it"""
    dtype: str
    """numpy's name, such as float32"""
    dims: tuple[Dimension, ...]
    """Its shape; a name where the size is free"""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file with a graph."""

    graph: Graph
    """The outermost graph"""
    inputs: tuple[Value, ...]
    """In order"""
    outputs: tuple[Value, ...]
    """In order"""


def read_model(path: Path) -> ModelFile:
    """Read an `.onnx` or `.ort` file.

    Raises:
        ModelDamagedError: It cannot be read, or is none.
    """
    return _read_ort(path) if path.suffix == ".ort" else _read_onnx(path)


def _read_onnx(path: Path) -> ModelFile:
    try:
        model = onnx.load(path)
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        reason = getattr(error, "strerror", None) or "it is cut off, altered, or something else"
        raise ModelDamagedError(
            f"{path} cannot be read as an ONNX file ({reason})", "fetch or make it again"
        ) from error
    if not model.graph.node:
        raise ModelDamagedError(f"{path} holds no graph", "fetch or make it again")
    graph = _graph(model.graph)
    inputs = [each for each in model.graph.input if each.name not in graph.initializers]
    return ModelFile(graph, _values(inputs), _values(model.graph.output))


def _read_ort(path: Path) -> ModelFile:
    graph = read_ort(path)
    session = open_session(path, 1, arena=False)

    def values(declared: Iterable[Any]) -> tuple[Value, ...]:
        return tuple(
            Value(each.name, _NUMPY_NAMES.get(each.type, each.type), tuple(each.shape))
            for each in declared
        )

    return ModelFile(graph, values(session.get_inputs()), values(session.get_outputs()))


_NUMPY_NAMES = {"tensor(float)": "float32", "tensor(double)": "float64"} | {
    f"tensor({name})": name for name in ("float16", "int64", "int32", "int8", "uint8", "bool")
}


def _graph(graph: onnx.GraphProto) -> Graph:
    values = [*graph.input, *graph.output, *graph.value_info]
    names = {tensor.name for tensor in graph.initializer}
    return Graph(
        inputs=tuple(each.name for each in graph.input if each.name not in names),
        outputs=tuple(each.name for each in graph.output),
        initializers={each.name: numpy_helper.to_array(each) for each in graph.initializer},
        nodes=tuple(map(_node, graph.node)),
        shapes={each.name: _dims(each) for each in values},
    )


def _node(node: onnx.NodeProto) -> Node:
    attributes = {each.name: _attribute(each) for each in node.attribute}
    known = {name: value for name, value in attributes.items() if value is not None}
    inputs, outputs = tuple(node.input), tuple(node.output)
    return Node(node.op_type, node.domain, node.name, inputs, outputs, known)


def _attribute(attribute: onnx.AttributeProto) -> Attribute | None:
    kind = onnx.AttributeProto
    if attribute.type == kind.GRAPH:
        return _graph(attribute.g)
    if attribute.type == kind.TENSOR:
        return numpy_helper.to_array(attribute.t)
    if attribute.type in (kind.FLOAT, kind.INT):
        number: float | int = helper.get_attribute_value(attribute)
        return number
    return None  # nothing here looks at the others


def _values(declared: Iterable[onnx.ValueInfoProto]) -> tuple[Value, ...]:
    return tuple(Value(each.name, _dtype(each), _dims(each)) for each in declared)


def _dtype(value: onnx.ValueInfoProto) -> str:
    return helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name


def _dims(value: onnx.ValueInfoProto) -> tuple[Dimension, ...]:
    return tuple(
        each.dim_value if each.HasField("dim_value") else each.dim_param or None
        for each in value.type.tensor_type.shape.dim
    )
