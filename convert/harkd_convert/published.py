"""Takes the weights out of Moonshine AI's published `.ort` files.

In: the graphs of an encoder and a merged decoder. Out: a shape, weights, and the integers that they
were published as. The graphs were optimized, so initializers have lost their names
(`onnx::MatMul_2096_quantized`) or share one; but every node is still named for the module that it
came from (`/layers.0/self_attn/k_proj/MatMul_quant`), so weights are found at the nodes that use
them. Two generations are read:

- tiny (moonshine-voice 0.1.0): uint8 matrices in `MatMulIntegerToFloat` and
  `DynamicQuantizeMatMul`, float32 convolutions;
- base (moonshine-cpp 0.1.4): everything int8, made float32 by Cast → Mul → Add at each run, and
  older names (`dense`, `up_proj`, `down_proj`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np

from harkd_convert.checkpoint import Float32, Quantized, Shape
from harkd_convert.errors import ConvertError
from harkd_convert.ort_constants import Constant, Scope
from harkd_convert.ort_file import Graph, Node

RENAMED = {"dense": "o_proj", "up_proj": "fc1", "down_proj": "fc2"}
"""Base's names for a module → today's in Hugging Face's implementation."""
HEAD = "proj_out.weight"
EMBEDDING = "decoder.embed_tokens.weight"
_MODULE = re.compile(
    r"(conv[123]|groupnorm|layer_norm|norm|layers\.\d+\.\w+_layernorm|embed_tokens|proj_out"
    r"|layers\.\d+\.\w+_attn\.[qkvo]_proj|layers\.\d+\.mlp\.fc[12])"
)
_MEND = "give the files as Moonshine AI publishes them; other exports are not known here"


def read_published(
    encoder: Graph, decoder: Graph, origin: str
) -> tuple[Shape, dict[str, Float32], dict[str, Quantized]]:
    """Take shape, weights and integers out of a published model.

    Args:
        encoder: `encoder_model.ort`.
        decoder: `decoder_model_merged.ort`.
        origin: What messages name.

    Returns:
        The shape; float32 weights by name, PyTorch's layout; the integers of those that have them.

    Raises:
        ConvertError: The graphs are not those of a Moonshine, or its head is not tied.
    """
    found = _collect("encoder", [Scope(encoder)])
    branches = [
        value
        for node in decoder.nodes
        for value in node.attributes.values()
        if isinstance(value, Graph)
    ]
    outer = Scope(decoder)
    scopes = [Scope(branch, outer) for branch in branches] or [outer]
    found |= _collect("decoder", scopes)
    _untie(found, origin)
    shape = _shape(encoder, decoder, {name: one.values for name, one in found.items()}, origin)
    weights = {}
    quantized = {}
    for name, one in found.items():
        if one.integers is not None:
            quantized[name] = one.integers
            weights[name] = one.integers.dequantized()
        else:
            weights[name] = np.array(one.values, np.float32)
    return shape, weights, quantized


def _collect(side: str, scopes: list[Scope]) -> dict[str, Constant]:
    """Return the weights of one file by name. A branch that repeats another's adds nothing."""
    found: dict[str, Constant] = {}
    for scope in scopes:
        for node in scope.nodes:
            module = _module(node)
            if not module or node.op not in _READERS:
                continue
            for kind, constant in _READERS[node.op](scope, node):
                name = f"{module}.{kind}"
                found.setdefault(name if name == HEAD else f"{side}.{name}", constant)
    return found


def _module(node: Node) -> str:
    """Return `layers.0.self_attn.q_proj` for `/model/decoder/layers.0/self_attn/q_proj/MatMul`."""
    path = node.name.strip("/").split("/")[:-1]
    if node.op == "SkipLayerNormalization":
        # A fusion of two nodes, which has lost its name; the weight has kept its own.
        path = node.inputs[2].removeprefix("model.decoder.").rsplit(".weight", 1)[:1]
    if path[:2] == ["model", "decoder"]:
        path = path[2:]
    module = ".".join(RENAMED.get(part, part) for part in path)
    return module if _MODULE.fullmatch(module) else ""


def _matmul(scope: Scope, node: Node) -> Iterator[tuple[str, Constant]]:
    if constant := scope.constant(node.inputs[1]):
        yield "weight", _linear(constant)


def _integer_matmul(scope: Scope, node: Node) -> Iterator[tuple[str, Constant]]:
    # https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md has the inputs.
    places = (1, 3, 5, 6) if node.op == "MatMulIntegerToFloat" else (1, 2, 3, 4)
    named = [node.inputs[i] if i < len(node.inputs) else "" for i in places]
    if constant := scope.quantized(*named[:3]):
        yield "weight", _linear(constant)
    if named[3] and (bias := scope.constant(named[3])):
        yield "bias", bias


def _conv(scope: Scope, node: Node) -> Iterator[tuple[str, Constant]]:
    for kind, name in zip(("weight", "bias"), node.inputs[1:3], strict=False):
        if constant := scope.constant(name):
            yield kind, constant


def _norm(scope: Scope, node: Node) -> Iterator[tuple[str, Constant]]:
    place = 2 if node.op == "SkipLayerNormalization" else 1
    for kind, name in zip(("weight", "bias"), node.inputs[place : place + 2], strict=False):
        constant = scope.constant(name)
        # Moonshine's norms have no bias, but a fused operator wants one: all zeros.
        if constant and (kind == "weight" or constant.values.any()):
            yield kind, constant


def _elementwise(kind: str) -> Callable[[Scope, Node], Iterator[tuple[str, Constant]]]:
    def reader(scope: Scope, node: Node) -> Iterator[tuple[str, Constant]]:
        for name in node.inputs:
            constant = scope.constant(name)
            if constant and constant.values.size > 1:  # an epsilon is one number
                yield kind, Constant(constant.values.reshape(-1))

    return reader


def _gather(scope: Scope, node: Node) -> Iterator[tuple[str, Constant]]:
    if constant := scope.constant(node.inputs[0]):
        yield "weight", _linear(constant.transposed())
    for user in scope.users(node.outputs[0], "DequantizeLinear"):
        if constant := scope.quantized(node.inputs[0], *user.inputs[1:3]):
            yield "weight", _linear(constant.transposed())
            return


def _linear(constant: Constant) -> Constant:
    """Turn MatMul's (in, out) into PyTorch's (out, in); the integers stay as they are."""
    return Constant(constant.values.T, constant.integers)


_READERS = {
    "MatMul": _matmul,
    "MatMulIntegerToFloat": _integer_matmul,
    "DynamicQuantizeMatMul": _integer_matmul,
    "Conv": _conv,
    "FusedConv": _conv,
    "LayerNormalization": _norm,
    "SkipLayerNormalization": _norm,
    "Mul": _elementwise("weight"),
    "Add": _elementwise("bias"),
    "Gather": _gather,
}


def _untie(found: dict[str, Constant], origin: str) -> None:
    """Drop the head, which must be the embedding once more."""
    head, embedding = found.pop(HEAD, None), found.get(EMBEDDING)
    if head is None or embedding is None:
        raise ConvertError(f"{origin} has no embedding or no head that is known here", _MEND)
    if not np.array_equal(head.values, embedding.values):
        raise ConvertError(
            f"the head of {origin} is not its embedding, which a Moonshine's is", _MEND
        )


def _shape(encoder: Graph, decoder: Graph, weights: dict[str, Float32], origin: str) -> Shape:
    """Read the sizes off the weights, the declared cache, and the rotation's constants."""
    cache = decoder.shapes.get("past_key_values.0.decoder.key", ())
    heads = cache[1] if len(cache) == 4 else None  # (batch, heads, tokens, head size)
    base, dims = _rotary(encoder, origin)
    epsilons = {
        float(f"{value:.6g}")
        for node in encoder.nodes
        if node.op == "InstanceNormalization"
        and isinstance(value := node.attributes.get("epsilon"), float)
    }
    try:
        (epsilon,) = epsilons
        vocabulary, width = weights[EMBEDDING].shape
        encoder_ffn, _ = weights["encoder.layers.0.mlp.fc1.weight"].shape
        _, decoder_ffn = weights["decoder.layers.0.mlp.fc2.weight"].shape
    except (KeyError, ValueError) as error:
        raise ConvertError(f"{origin} is no Moonshine: it lacks {error}", _MEND) from error
    if not isinstance(heads, int):
        raise ConvertError(f"{origin} does not say how many attention heads it has", _MEND)
    return Shape(
        width=width,
        heads=heads,
        encoder_layers=_layers(weights, "encoder"),
        decoder_layers=_layers(weights, "decoder"),
        encoder_ffn=encoder_ffn,
        decoder_ffn=decoder_ffn,
        vocabulary=vocabulary,
        rotary_dims=dims,
        rotary_base=base,
        norm_epsilon=epsilon,
    )


def _layers(weights: dict[str, Float32], side: str) -> int:
    numbers = [re.match(rf"{side}\.layers\.(\d+)\.", name) for name in weights]
    return max((int(number[1]) + 1 for number in numbers if number), default=0)


def _rotary(encoder: Graph, origin: str) -> tuple[float, int]:
    """Return base and number of the rotated features, from the table of inverse wavelengths."""
    for node in encoder.nodes:
        if not node.name.startswith("/rotary_emb/"):
            continue
        for name in node.inputs:
            table = encoder.initializers.get(name)
            if table is None or table.dtype != np.float32 or table.size < 2:
                continue
            inverse = table.reshape(-1).astype(np.float64)
            dims = 2 * inverse.size
            base = float(f"{inverse[1] ** (-dims / 2):.4g}")
            if np.allclose(inverse, base ** (-np.arange(0, dims, 2) / dims), rtol=1e-5):
                return base, dims
    raise ConvertError(f"the rotary position table of {origin} is not known here", _MEND)
