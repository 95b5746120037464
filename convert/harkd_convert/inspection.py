"""Looks into a package or a graph: nodes, sizes, operators, and the precision of each layer.

In: a package's directory, or an `.onnx` or `.ort` file. Out: `Inspected`, as text or plain values.
Runs on the caller's thread.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from harkd.errors import ModelMissingError
from harkd.model_package import MANIFEST_NAME, Manifest, load_manifest
from harkd_convert.onnx_file import ModelFile, Value, read_model
from harkd_convert.ort_file import Array, Graph, Node
from harkd_convert.tables import aligned

SUFFIXES = (".onnx", ".ort")
WEIGHT_INPUT = {
    "Conv": 1,
    "DynamicQuantizeMatMul": 1,
    "FusedConv": 1,
    "Gather": 0,
    "Gemm": 1,
    "MatMul": 1,
    "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1,
    "MatMulNBits": 1,
}
"""Operators with a matrix or kernel, and which input that is"""
PASSED = {"Add", "Cast", "DequantizeLinear", "Mul", "Reshape", "Transpose"}
"""What base's published graphs do with a weight before they use it"""
Nested: TypeAlias = tuple[Graph, tuple[Graph, ...]]
"""A graph, and those that it lies in, the nearest first."""
_LAYER = re.compile(r"(.*?layers\.\d+)\.(.+)")


@dataclass(frozen=True, slots=True)
class Weight:
    """A matrix or kernel that an operator multiplies with, or looks rows up in."""

    layer: str
    """Such as `encoder.layers.0`; empty outside the layers"""
    name: str
    """Within the layer"""
    dtype: str
    """numpy's name"""
    dims: tuple[int, ...]
    """As it is stored"""
    size_bytes: int
    """Bytes"""


@dataclass(frozen=True, slots=True)
class InspectedFile:
    """One graph's file."""

    name: str
    """The file's"""
    size_bytes: int
    """Bytes"""
    nodes: int
    """Those of its subgraphs included"""
    operators: dict[str, int]
    """How often each occurs, the most frequent first"""
    constant_bytes: dict[str, int]
    """Bytes of the constants by dtype"""
    inputs: tuple[Value, ...]
    """In order"""
    outputs: tuple[Value, ...]
    """In order"""
    weights: tuple[Weight, ...]
    """In order of use"""


@dataclass(frozen=True, slots=True)
class Inspected:
    """What was found."""

    manifest: Manifest | None
    """None for what is no package"""
    files: tuple[InspectedFile, ...]
    """The graphs"""


def look_into(path: Path) -> Inspected:
    """Look into a package, a directory with graphs, or a single graph.

    Raises:
        ModelMissingError: There is nothing of the kind.
        ModelDamagedError: A file is not what it should be.
    """
    if path.is_file() and path.suffix in SUFFIXES:
        return Inspected(None, (_inspect(path),))
    if not path.is_dir():
        raise ModelMissingError(
            f"{path} is neither a directory nor an .onnx or .ort file"
            if path.exists()
            else f"{path} is not there",
            "give a package's directory, or a graph's file",
        )
    manifest = load_manifest(path) if (path / MANIFEST_NAME).is_file() else None
    named = [path / file.path for file in manifest.files.values()] if manifest else path.iterdir()
    files = [each for each in named if each.suffix in SUFFIXES]
    if not files:
        raise ModelMissingError(f"{path} holds no .onnx and no .ort file", "give a package")
    return Inspected(manifest, tuple(map(_inspect, files if manifest else sorted(files))))


def as_text(found: Inspected) -> str:
    """Return what was found, for people."""
    lines = _manifest_lines(found.manifest) if found.manifest else []
    for file in found.files:
        lines += [""] * bool(lines) + _file_lines(file)
    return "\n".join(lines)


def as_plain(found: Inspected) -> dict[str, Any]:
    """Return what was found as plain values."""
    about = found.manifest
    summary = about and {
        "name": about.name,
        "version": about.version,
        "family": about.family,
        "languages": list(about.languages),
        "licence": about.licence,
        "source": about.source,
        "bytes": about.size_bytes,
        "measured": about.measured,
    }
    files = {
        file.name: {
            "bytes": file.size_bytes,
            "nodes": file.nodes,
            "operators": file.operators,
            "constant_bytes": file.constant_bytes,
            "inputs": [_plain_value(value) for value in file.inputs],
            "outputs": [_plain_value(value) for value in file.outputs],
            "weights": [
                {
                    "layer": weight.layer,
                    "name": weight.name,
                    "dtype": weight.dtype,
                    "shape": list(weight.dims),
                    "bytes": weight.size_bytes,
                }
                for weight in file.weights
            ],
        }
        for file in found.files
    }
    return {"manifest": summary, "files": files}


def _inspect(path: Path) -> InspectedFile:
    model: ModelFile = read_model(path)
    graphs = list(_graphs(model.graph))
    nodes = [node for graph, _ in graphs for node in graph.nodes]
    constants: Counter[str] = Counter()
    for graph, _ in graphs:
        for array in graph.initializers.values():
            constants[array.dtype.name] += array.nbytes
    return InspectedFile(
        name=path.name,
        size_bytes=path.stat().st_size,
        nodes=len(nodes),
        operators=dict(Counter(node.op for node in nodes).most_common()),
        constant_bytes=dict(constants.most_common()),
        inputs=model.inputs,
        outputs=model.outputs,
        weights=tuple(_weights(graphs)),
    )


def _graphs(graph: Graph, around: tuple[Graph, ...] = ()) -> Iterator[Nested]:
    """Yield a graph and its subgraphs, each with those that it lies in."""
    yield graph, around
    for node in graph.nodes:
        for value in node.attributes.values():
            if isinstance(value, Graph):
                yield from _graphs(value, (graph, *around))


def _weights(graphs: list[Nested]) -> Iterator[Weight]:
    """Yield each weight once, though two branches use it."""
    known = set[Weight]()
    for graph, around in graphs:
        constants: dict[str, Array] = {}
        makers: dict[str, Node] = {}
        for each in (*reversed(around), graph):
            constants |= each.initializers
            makers |= {name: node for node in each.nodes for name in node.outputs}
        for node in graph.nodes:
            place = WEIGHT_INPUT.get(node.op)
            if place is None or place >= len(node.inputs):
                continue
            if (traced := _traced(node.inputs[place], constants, makers)) is None:
                continue
            weight = _weight(node, *traced)
            if weight not in known:
                known.add(weight)
                yield weight


def _traced(
    name: str, constants: dict[str, Array], makers: dict[str, Node]
) -> tuple[str, Array] | None:
    """Follow a value back to the matrix or kernel that it is made of, if it is."""
    while name not in constants:
        maker = makers.get(name)
        if maker is None or maker.op not in PASSED:
            return None
        name = maker.inputs[0]
    return (name, constants[name]) if constants[name].ndim > 1 else None


def _weight(node: Node, constant: str, array: Array) -> Weight:
    # Published graphs have named their nodes for the modules; ours have named the constants.
    path = node.name.strip("/").split("/")[:-1]
    name = ".".join(path) if path else constant.removesuffix(".weight")
    layered = _LAYER.fullmatch(name)
    layer, rest = layered.groups() if layered else ("", name)
    return Weight(layer, rest, array.dtype.name, array.shape, array.nbytes)


def _manifest_lines(manifest: Manifest) -> list[str]:
    about = (manifest.family, ", ".join(manifest.languages), manifest.licence)
    lines = [
        f"{manifest.name} {manifest.version}: {'; '.join(about)}; {_size(manifest.size_bytes)}",
        f"  source: {manifest.source}",
    ]
    converter = manifest.measured.get("converter")
    if isinstance(converter, dict):
        kept = converter.get("keep_float") or ["none"]
        lines.append(f"  precision: {converter.get('precision')}, kept in float: {', '.join(kept)}")
    verified = manifest.measured.get("verified")
    if isinstance(verified, dict):
        errors, speech = verified.get("word_errors", {}), verified.get("speech", {})
        lines.append(
            f"  verified: {errors.get('package')} word errors in {speech.get('words')} words, "
            f"against {errors.get('reference')} of {verified.get('against')}"
        )
    else:
        lines.append("  not verified")
    return lines


def _file_lines(file: InspectedFile) -> list[str]:
    operators = ", ".join(f"{op} {count}" for op, count in file.operators.items())
    constants = ", ".join(f"{dtype} {_size(size)}" for dtype, size in file.constant_bytes.items())
    layers: dict[tuple[str, str], list[Weight]] = defaultdict(list)
    for weight in file.weights:
        layers[weight.layer, weight.dtype].append(weight)
    rows = [("LAYER", "PRECISION", "SIZE", "WEIGHTS")]
    for (layer, dtype), weights in layers.items():
        size = _size(sum(weight.size_bytes for weight in weights))
        names = ", ".join(weight.name for weight in weights)
        rows.append((layer or "–", dtype, size, names))
    return [
        f"{file.name}: {file.nodes} nodes, {_size(file.size_bytes)}",
        f"  operators: {operators}",
        f"  constants: {constants}",
        f"  inputs: {_listed(file.inputs)}",
        f"  outputs: {_listed(file.outputs)}",
        *(f"  {line}" for line in aligned(rows)),
    ]


def _listed(values: tuple[Value, ...]) -> str:
    """List values; those that differ in a number only, such as the layer's, are one."""
    alike = Counter(
        f"{re.sub(r'[0-9]+', '*', value.name)} {value.dtype} ({', '.join(map(str, value.dims))})"
        for value in values
    )
    return ", ".join(f"{count} × {text}" if count > 1 else text for text, count in alike.items())


def _plain_value(value: Value) -> dict[str, Any]:
    return {"name": value.name, "dtype": value.dtype, "shape": list(value.dims)}


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.2f} MB"
