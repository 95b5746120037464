"""Finds the constant values of a graph, however the optimizer wrote them down.

In: `Graph`. Out: `Constant`: float32 with the integers behind it, where the graph has Cast(int8)
× scale + offset (as base's does at each run), or as uint8 with scale and zero point.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harkd_convert.checkpoint import Float32, Quantized
from harkd_convert.ort_file import Array, Graph, Node

OFFSET_TOLERANCE = 1e-3
"""Base's offsets are whole multiples of their scale, within rounding: worst seen 2e-6."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A weight as the graph uses it: float32, and maybe the integers of the same layout."""

    values: Float32
    integers: Quantized | None = None

    def transposed(self) -> Constant:
        """Return it with its two axes exchanged."""
        kept = self.integers
        swapped = kept and Quantized(kept.values.T, kept.scale, kept.zero_point)
        return Constant(self.values.T, swapped)


class Scope:
    """A graph within the graphs around it: who makes a value, and which values are constant."""

    def __init__(self, graph: Graph, outer: Scope | None = None) -> None:
        self.nodes = graph.nodes
        self._initializers = graph.initializers
        self._makers = {output: node for node in graph.nodes for output in node.outputs}
        self._outer = outer

    def initializer(self, name: str) -> Array | None:
        """Return an initializer of this graph or of one around it."""
        if name in self._initializers:
            return self._initializers[name]
        return self._outer.initializer(name) if self._outer else None

    def maker(self, name: str) -> Node | None:
        """Return the node that makes a value, here or around."""
        if name in self._makers:
            return self._makers[name]
        return self._outer.maker(name) if self._outer else None

    def users(self, name: str, op: str) -> Iterator[Node]:
        """Yield the nodes of one operator, of this graph, that take a value."""
        return (node for node in self.nodes if node.op == op and name in node.inputs)

    def constant(self, name: str) -> Constant | None:
        """Return a value if it does not depend on the inputs, in any form that is known here."""
        values = self.initializer(name)
        if values is not None:
            return Constant(values) if values.dtype == np.float32 else None
        node = self.maker(name)
        if node is None:
            return None
        if node.op == "Transpose" and (inner := self.constant(node.inputs[0])):
            return inner.transposed()
        return self._affine(node) if node.op == "Add" else None

    def _affine(self, add: Node) -> Constant | None:
        """Return Cast(integers) × scale + offset, or nothing where the node is another Add."""
        mul = self.maker(add.inputs[0])
        cast = self.maker(mul.inputs[0]) if mul and mul.op == "Mul" else None
        if mul is None or cast is None or cast.op != "Cast":
            return None
        integers, scale, offset = (
            self.initializer(name) for name in (cast.inputs[0], mul.inputs[1], add.inputs[1])
        )
        if integers is None or scale is None or offset is None or scale.size != 1:
            return None
        values = (integers.astype(np.float32) * scale + offset).astype(np.float32)
        steps = float(offset.item() / scale.item())
        zero_point = 128 - round(steps)
        whole = abs(steps - round(steps)) <= OFFSET_TOLERANCE and 0 <= zero_point <= 255
        if integers.dtype != np.int8 or not whole:
            return Constant(values)
        shifted = (integers.astype(np.int16) + 128).astype(np.uint8)
        return Constant(values, Quantized(shifted, float(scale.item()), zero_point))

    def quantized(self, name: str, scale: str, zero_point: str) -> Constant | None:
        """Return a weight that an operator takes as integers, from the names of its parts."""
        values, step, zero = (self.initializer(each) for each in (name, scale, zero_point))
        if values is None or step is None or zero is None or values.dtype != np.uint8:
            return None
        if step.size != 1 or zero.size != 1:
            return None
        one = Quantized(values, float(step.item()), int(zero.item()))
        return Constant(one.dequantized().T, one)
