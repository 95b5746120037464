"""An ONNX file with one more output, without the library that writes such files.

In: a file's bytes. Out: the same with the result of a node inside as an output, too. A file is a
protobuf message, and a parser merges what follows it into it: repeated fields grow
(https://protobuf.dev/programming-guides/encoding/#last-one-wins). Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

FLOAT = 1
"""TensorProto.FLOAT"""
MODEL_GRAPH, GRAPH_NODE, GRAPH_OUTPUT, NODE_OUTPUT, NODE_OP = 7, 1, 12, 2, 4
"""Numbers of fields (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto)."""
VARINT, EIGHT_BYTES, COUNTED, FOUR_BYTES = 0, 1, 2, 5
"""How a field is written."""


def result_of(model: memoryview, op: str) -> str:
    """Return the name of the first result of the only node of a kind. Raises ValueError."""
    names = []
    for graph in _fields(model, MODEL_GRAPH):
        for node in _fields(graph, GRAPH_NODE):
            if [bytes(each) for each in _fields(node, NODE_OP)] == [op.encode()]:
                names.append(bytes(next(_fields(node, NODE_OUTPUT))).decode())
    if len(names) != 1:
        raise ValueError(f"{len(names)} nodes {op}, not one")
    return names[0]


def with_output(model: bytes, name: str) -> bytes:
    """Return the file with an output of floats of this name, whose shape is left open."""
    kind = _field(1, _field(1, FLOAT))  # TypeProto.tensor_type, .elem_type
    info = _field(1, name.encode()) + _field(2, kind)  # ValueInfoProto.name, .type
    return model + _field(MODEL_GRAPH, _field(GRAPH_OUTPUT, info))


def _field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3 | VARINT) + _varint(value)
    return _varint(number << 3 | COUNTED) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _fields(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """Yield each field of a number that is written with its length. Raises ValueError."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            _, at = _read_varint(message, at)
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            at += 8 if kind == EIGHT_BYTES else 4
        elif kind == COUNTED:
            length, at = _read_varint(message, at)
            if at + length > len(message):
                raise ValueError("it is cut off")
            if number == wanted:
                yield message[at : at + length]
            at += length
        else:
            raise ValueError(f"a field of the kind {kind}")


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("it is cut off")
