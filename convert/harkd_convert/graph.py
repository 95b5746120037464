"""Writes ONNX graphs node by node, with onnxruntime's own operators where they are faster.

In: a source's weights by name. Out: an ONNX model. A linear layer becomes a dynamically quantized
product, or a plain one, as the precision says; nothing else here knows about precision. Runs on the
caller's thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from harkd_convert.checkpoint import Float32, Shape
from harkd_convert.quantize import SMALLEST, Matrix, Weights, is_listed, quantized
from harkd_convert.rotation_tables import rotation_tables

CONTRIB = "com.microsoft"
OPSET = 20
"""The first with Gelu."""
IR_VERSION = 10
"""What onnxruntime 1.20, the oldest that harkd takes, reads."""
HEAD_STEP = 16
"""GroupQueryAttention's rotation wants heads of a multiple of this, and tables of half of it."""


class Precision(StrEnum):
    """How the linear layers are stored and multiplied."""

    INT8 = "int8"
    """int8 weights by column, uint8 activations quantized at each run; for the CPU"""
    FP32 = "fp32"
    """float32 throughout"""
    FP16 = "fp16"
    """float16 weights, activations and caches; for GPUs"""


@dataclass(frozen=True, slots=True)
class Padding:
    """Widens each head with zeros, for a kernel that takes only some widths."""

    head: int
    """Features of a head in the source"""
    padded: int
    """Features of a head in the graph"""

    def columns(self, matrix: NDArray[Any], fill: float = 0) -> NDArray[Any]:
        """Widen the last axis, (…, heads × head) → (…, heads × padded)."""
        heads = matrix.shape[-1] // self.head
        split = matrix.reshape(*matrix.shape[:-1], heads, self.head)
        room = [(0, 0)] * (split.ndim - 1) + [(0, self.padded - self.head)]
        wide = np.pad(split, room, constant_values=fill)
        return wide.reshape(*matrix.shape[:-1], heads * self.padded)

    def rows(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """Widen the first axis, (heads × head, n) → (heads × padded, n)."""
        return np.ascontiguousarray(self.columns(np.ascontiguousarray(matrix.T)).T)


Range: TypeAlias = tuple[float, float]
SourceT = TypeVar("SourceT", bound=Weights)


class Graph(Generic[SourceT]):
    """A graph that grows.

    Args:
        source: Where weights come from.
        precision: Of the linear layers and of what flows between them.
        keep_float: Shell patterns of weights that stay in float though the precision is int8.
        ranges: The least and the greatest value that goes into a product, by its name. Those listed
            are quantized by that, the others anew at each run.
    """

    def __init__(
        self,
        source: SourceT,
        precision: Precision,
        keep_float: tuple[str, ...] = (),
        ranges: Mapping[str, Range] | None = None,
    ) -> None:
        self.source = source
        self.precision = precision
        self.real: DTypeLike = np.float16 if precision is Precision.FP16 else np.float32
        """dtype of what flows between the layers"""
        self.onnx_real = TensorProto.FLOAT16 if precision is Precision.FP16 else TensorProto.FLOAT
        self.products: dict[str, str] = {}
        """What goes into each product, by its name"""
        self._keep_float = keep_float
        self._ranges = ranges or {}
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, kind: int, dims: Sequence[int | str]) -> str:
        """Declare an input; return its name."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, dims))
        return name

    def output(self, name: str, kind: int, dims: Sequence[int | str]) -> str:
        """Declare an output; return its name."""
        self._outputs.append(helper.make_tensor_value_info(name, kind, dims))
        return name

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Store a tensor once; return its name."""
        if name not in self._constants:
            array = np.ascontiguousarray(values).reshape(np.shape(values))
            self._constants[name] = numpy_helper.from_array(array, name)
        return name

    def real_constant(self, name: str, values: Float32) -> str:
        """Store a tensor in the dtype that flows between the layers; return its name."""
        return self.constant(name, values.astype(self.real))

    def integers(self, *values: int) -> str:
        """Store a list of int64; return its name."""
        return self.constant("i" + "_".join(map(str, values)), np.array(values, np.int64))

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: Sequence[str] | None = None,
        *,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Add a node; return its first output."""
        number = len(self._nodes)
        named = [f"{op}_{number}"] if outputs is None else list(outputs)
        made = helper.make_node(
            op, list(inputs), named, name=f"{op}_{number}", domain=domain, **attributes
        )
        self._nodes.append(made)
        return named[0]

    def linear(
        self,
        x: str,
        names: Sequence[str],
        bias: str = "",
        *,
        merged: str = "",
        pad_out: Padding | None = None,
        pad_in: Padding | None = None,
        keep_columns: int | None = None,
    ) -> str:
        """Multiply by one or more weights side by side.

        Args:
            x: (…, in).
            names: Weights; their outputs follow each other. All stay in float where one is listed.
            bias: Name of the bias, of a single weight.
            merged: What several weights are called together.
            pad_out: Widen the heads of the output.
            pad_in: The heads of the input are widened.
            keep_columns: Only the first columns.

        Returns:
            (…, out).
        """
        name = merged or names[0]
        self.products[name] = x
        if self.precision is not Precision.INT8 or any(map(self.stays_float, names)):
            weight = np.concatenate([self.source.weights[each].T for each in names], axis=1)
            return self._product(x, name, weight[:, :keep_columns], bias, pad_out, pad_in)
        parts = [quantized(self.source, each) for each in names]
        matrix = Matrix(
            np.concatenate([part.values for part in parts], axis=1)[:, :keep_columns],
            np.concatenate([part.scales for part in parts])[:keep_columns],
        )
        return self._quantized_product(x, name, matrix, bias, pad_out, pad_in)

    def stays_float(self, name: str) -> bool:
        """Tell whether a weight is listed as one that stays in float."""
        return is_listed(name, self._keep_float)

    def _product(
        self,
        x: str,
        name: str,
        weight: Float32,
        bias: str,
        pad_out: Padding | None,
        pad_in: Padding | None,
    ) -> str:
        weight = pad_out.columns(weight) if pad_out else weight
        weight = pad_in.rows(weight) if pad_in else weight
        y = self.node("MatMul", [x, self.real_constant(name, weight)])
        if not bias:
            return y
        return self.node("Add", [y, self.real_constant(bias, self.source.weights[bias])])

    def _quantized_product(
        self,
        x: str,
        name: str,
        matrix: Matrix,
        bias: str,
        pad_out: Padding | None,
        pad_in: Padding | None,
    ) -> str:
        values: Any = matrix.values
        scales: Any = matrix.scales
        if pad_out:
            values, scales = pad_out.columns(values), pad_out.columns(scales, fill=1.0)
        values = pad_in.rows(values) if pad_in else values
        if name in self._ranges:
            return self._static_product(x, name, values, scales, bias)
        inputs = [x, self.constant(name, values), self.constant(f"{name}.scales", scales)]
        if bias:
            inputs += ["", self.constant(bias, self.source.weights[bias])]
        return self.node("DynamicQuantizeMatMul", inputs, domain=CONTRIB)

    def _static_product(self, x: str, name: str, values: Any, scales: Any, bias: str) -> str:
        low, high = self._ranges[name]
        low, high = min(low, 0.0), max(high, 0.0)
        step = np.float32(max((high - low) / 255, SMALLEST))
        zero = np.uint8(np.clip(np.rint(-low / step), 0, 255))
        around = [
            self.constant(f"{name}.input_scale", np.asarray(step)),
            self.constant(f"{name}.input_zero", np.asarray(zero)),
        ]
        inputs = [
            self.node("QuantizeLinear", [x, *around]),
            self.constant(name, values),
            around[0],
            self.constant(f"{name}.scales", scales),
            around[1],
        ]
        if bias:
            inputs += ["", self.constant(bias, self.source.weights[bias])]
        return self.node("MatMulIntegerToFloat", inputs, domain=CONTRIB)

    def norm(self, x: str, weight: str) -> str:
        """Normalize each row."""
        scale = self.real_constant(weight, self.source.weights[weight])
        epsilon = self.source.norm_epsilon
        return self.node("LayerNormalization", [x, scale], axis=-1, epsilon=epsilon)

    def add_norm(self, x: str, residual: str, weight: str) -> tuple[str, str]:
        """Add to the residual and normalize; return the normalized and the new residual."""
        scale = self.real_constant(weight, self.source.weights[weight])
        outputs = [f"normed_{len(self._nodes)}", "", "", f"residual_{len(self._nodes)}"]
        epsilon = self.source.norm_epsilon
        self.node(
            "SkipLayerNormalization",
            [x, residual, scale],
            outputs,
            domain=CONTRIB,
            epsilon=epsilon,
        )
        return outputs[0], outputs[3]

    def add_then_norm(self, x: str, residual: str, weight: str) -> tuple[str, str]:
        """Do as `add_norm` in two nodes, which are five times as fast where there are many rows.

        onnxruntime's fused kernel is not vectorized on the CPU (1.32; 69 rows of 288: 100 µs
        against 20).
        """
        total = self.node("Add", [x, residual])
        return self.norm(total, weight), total

    def split(self, x: str, names: Sequence[str], sizes: Sequence[int], axis: int = -1) -> None:
        """Split into named parts."""
        self.node("Split", [x, self.integers(*sizes)], names, axis=axis)

    def rotary_tables(self, shape: Shape, rows: int, step: int = 1) -> tuple[str, str]:
        """Store cosines and sines of the first `rows` positions, (rows, rotary_dims / 2).

        Args:
            shape: How many features are turned, and how fast.
            rows: Positions.
            step: The kernel wants a multiple of so many columns; those added turn by nothing.
        """
        cosines, sines = rotation_tables(shape.rotary_base, shape.rotary_dims, rows)
        room = ((0, 0), (0, -cosines.shape[1] % step))
        return (
            self.real_constant("rotary_cosines", np.pad(cosines, room, constant_values=1)),
            self.real_constant("rotary_sines", np.pad(sines, room)),
        )

    def model(self, name: str, properties: dict[str, str]) -> onnx.ModelProto:
        """Return the finished model, checked by onnx where its operators are known to it."""
        graph = helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, list(self._constants.values())
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="harkd-convert"
        )
        helper.set_model_props(model, properties)
        onnx.checker.check_model(model)
        return model
