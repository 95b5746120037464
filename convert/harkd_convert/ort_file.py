"""Reads onnxruntime's `.ort` format: a flatbuffer with an optimized graph and its weights.

In: a file. Out: `Graph`, plain values and numpy arrays. Runs on the caller's thread. The flatbuffer
is read by the classes that Microsoft generates from the schema and ships inside onnxruntime
(`tools/ort_format_model/ort_flatbuffers_py`). They need only the package `flatbuffers`, so they are
loaded from their folder, without onnxruntime itself. The schema:
https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/flatbuffers/schema/ort.fbs
"""

from __future__ import annotations

import functools
import importlib.util
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, Union

import numpy as np
from numpy.typing import NDArray

from harkd.errors import ModelDamagedError
from harkd_convert.errors import ConvertError

Array: TypeAlias = NDArray[Any]
Attribute: TypeAlias = Union[
    float, int, str, Array, "Graph", tuple[float, ...], tuple[int, ...], tuple[str, ...]
]
Dimension: TypeAlias = int | str | None
"""A fixed size, a named one, or one that nothing is known about."""

READER = "ort_flatbuffers_py"
_DTYPES: dict[int, type[np.generic]] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    4: np.uint16,
    5: np.int16,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
    12: np.uint32,
    13: np.uint64,
}
"""By `TensorDataType` of the schema; strings, complex numbers and 8-bit floats are not read."""
_DAMAGE = (
    struct.error,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What the generated classes raise when offsets and lengths of the file are wrong."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Node:
    """One operator."""

    op: str
    """Such as `MatMul`"""
    domain: str
    """Empty for ONNX's own operators, or such as `com.microsoft`"""
    name: str
    """As the exporter gave it, such as `/layers.0/mlp/fc1/MatMul`; may be empty"""
    inputs: tuple[str, ...]
    """Values by name; empty where an optional input is left out"""
    outputs: tuple[str, ...]
    """Values by name"""
    attributes: dict[str, Attribute]
    """By name; a subgraph is a `Graph`"""


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph or subgraph."""

    inputs: tuple[str, ...]
    """In order; initializers are not among them"""
    outputs: tuple[str, ...]
    """In order"""
    initializers: dict[str, Array]
    """Constant values by name, read-only"""
    nodes: tuple[Node, ...]
    """In the file's order, which is not that of execution"""
    shapes: dict[str, tuple[Dimension, ...]]
    """Declared shapes of the values that have one"""


def read_ort(path: Path) -> Graph:
    """Read an `.ort` file.

    Raises:
        ModelDamagedError: It cannot be read, is no `.ort` file, or is cut off or altered.
        ConvertError: The installed onnxruntime comes without the reader.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelDamagedError(
            f"{path} cannot be read ({error.strerror})", "check the path and its permissions"
        ) from error
    reader = _reader()
    session = reader.InferenceSession.InferenceSession
    try:
        if not session.InferenceSessionBufferHasIdentifier(data, 0):
            raise ModelDamagedError(
                f"{path} is no file in onnxruntime's format",
                "give the published .ort file, not an .onnx file or a page of the download site",
            )
        return _graph(session.GetRootAs(data, 0).Model().Graph())
    except _DAMAGE as error:
        raise ModelDamagedError(
            f"{path} is cut off or altered ({type(error).__name__}: {error})",
            "fetch the file again, and compare its checksum with the published one",
        ) from error


@functools.cache
def _reader() -> Any:
    """Load the generated classes from onnxruntime's folder, without importing onnxruntime."""
    spec = importlib.util.find_spec("onnxruntime")
    folder = Path(str(spec.origin if spec else "")).parent / "tools" / "ort_format_model" / READER
    found = importlib.util.spec_from_file_location(
        READER, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if not (folder / "fbs" / "InferenceSession.py").is_file() or not found or not found.loader:
        raise ConvertError(
            f"onnxruntime's reader for .ort files is not in {folder}",
            "install onnxruntime from PyPI: `pip install --force-reinstall onnxruntime`",
        )
    # The classes import one another by this name.
    package = sys.modules[READER] = importlib.util.module_from_spec(found)
    found.loader.exec_module(package)
    return importlib.import_module(f"{READER}.fbs")


def _graph(graph: Any) -> Graph:
    initializers = {}
    for tensor in _each(graph.InitializersLength(), graph.Initializers):
        initializers[_text(tensor.Name())] = _tensor(tensor)
    inputs = tuple(map(_text, _each(graph.InputsLength(), graph.Inputs)))
    return Graph(
        inputs=tuple(name for name in inputs if name not in initializers),
        outputs=tuple(map(_text, _each(graph.OutputsLength(), graph.Outputs))),
        initializers=initializers,
        nodes=tuple(map(_node, _each(graph.NodesLength(), graph.Nodes))),
        shapes=dict(_shapes(graph)),
    )


def _node(node: Any) -> Node:
    return Node(
        op=_text(node.OpType()),
        domain=_text(node.Domain()),
        name=_text(node.Name()),
        inputs=tuple(map(_text, _each(node.InputsLength(), node.Inputs))),
        outputs=tuple(map(_text, _each(node.OutputsLength(), node.Outputs))),
        attributes={
            _text(attribute.Name()): _attribute(attribute)
            for attribute in _each(node.AttributesLength(), node.Attributes)
        },
    )


def _attribute(attribute: Any) -> Attribute:
    """Return an attribute's value, by `AttributeType` of the schema."""
    readers: dict[int, Callable[[], Attribute]] = {
        1: lambda: float(attribute.F()),
        2: lambda: int(attribute.I()),
        3: lambda: _text(attribute.S()),
        4: lambda: _tensor(attribute.T()),
        5: lambda: _graph(attribute.G()),
        6: lambda: tuple(map(float, _each(attribute.FloatsLength(), attribute.Floats))),
        7: lambda: tuple(map(int, _each(attribute.IntsLength(), attribute.Ints))),
        8: lambda: tuple(map(_text, _each(attribute.StringsLength(), attribute.Strings))),
    }
    return readers[attribute.Type()]()


def _tensor(tensor: Any) -> Array:
    """Return a tensor's values, in the shape and type that it declares."""
    dtype = np.dtype(_DTYPES[tensor.DataType()]).newbyteorder("<")
    shape = tuple(_each(tensor.DimsLength(), tensor.Dims))
    raw = b"" if tensor.RawDataIsNone() else tensor.RawDataAsNumpy().tobytes()
    return np.frombuffer(raw, dtype).reshape(shape)


def _shapes(graph: Any) -> list[tuple[str, tuple[Dimension, ...]]]:
    found = []
    for value in _each(graph.NodeArgsLength(), graph.NodeArgs):
        kind = value.Type()
        # 1 is a tensor in `TypeInfoValue`; the others are sequences and maps.
        if kind is None or kind.ValueType() != 1:
            continue
        table = kind.Value()
        tensor = _reader().TensorTypeAndShape.TensorTypeAndShape()
        tensor.Init(table.Bytes, table.Pos)
        if (shape := tensor.Shape()) is not None:
            dims = tuple(map(_dimension, _each(shape.DimLength(), shape.Dim)))
            found.append((_text(value.Name()), dims))
    return found


def _dimension(dimension: Any) -> Dimension:
    value = dimension.Value()
    if value is None:
        return None
    # `DimensionValueType`: 0 unknown, 1 a number, 2 a name.
    kinds: dict[int, Dimension] = {1: value.DimValue(), 2: _text(value.DimParam()) or None}
    return kinds.get(value.DimType())


def _each(length: int, item: Callable[[int], T]) -> list[T]:
    return [item(i) for i in range(length)]


def _text(raw: bytes | None) -> str:
    return "" if raw is None else raw.decode("utf-8")
