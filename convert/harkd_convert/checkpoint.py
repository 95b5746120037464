"""A Moonshine model as numbers: its shape, its weights by name, and where it comes from.

Pure values and their checks; `sources` fills them from files. Names of weights are those of
Hugging Face's `MoonshineForConditionalGeneration` without the leading ``model.``, and layouts are
PyTorch's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from harkd_convert.errors import ConvertError

Float32: TypeAlias = NDArray[np.float32]
MOST_LISTED = 8
"""A message names this many faulty weights, and counts the rest."""
STEM = {"conv1": (127, 64), "conv2": (7, 3), "conv3": (3, 2)}
"""Kernel and stride of each convolution, in its own input's frames: arXiv 2410.15608, 3.1."""


def frames_of(samples: int) -> int:
    """Return how many frames the stem makes of so many samples; 0 and up."""
    for kernel, stride in STEM.values():
        samples = (samples - kernel) // stride + 1
    return max(samples, 0)


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a Moonshine."""

    width: int
    """Features of a frame and of a token"""
    heads: int
    """Attention heads, each `width / heads` wide"""
    encoder_layers: int
    """1 and up"""
    decoder_layers: int
    """1 and up"""
    encoder_ffn: int
    """Features inside an encoder layer's feed-forward part"""
    decoder_ffn: int
    """Features inside a decoder layer's; its first matrix makes twice as many (value, gate)"""
    vocabulary: int
    """Tokens"""
    rotary_dims: int
    """Features of each head that are rotated by position; even, at most `head_width`"""
    rotary_base: float = 10000.0
    """Longest wavelength of the rotation is about 2π times this, in positions"""
    norm_epsilon: float = 1e-5
    """Added to the variance, in all norms"""

    @property
    def head_width(self) -> int:
        """Features of one head."""
        return self.width // self.heads

    def faults(self) -> list[str]:
        """Return what makes these sizes impossible."""
        faults = []
        sizes = {name: getattr(self, name) for name in self.__slots__[:-2]}
        faults += [f"{name} is {size}" for name, size in sizes.items() if size < 1]
        if faults:
            return faults
        if self.width % self.heads:
            faults.append(f"the width {self.width} does not divide into {self.heads} heads")
        if self.rotary_dims % 2 or self.rotary_dims > self.head_width:
            faults.append(
                f"{self.rotary_dims} rotated features do not fit a head of {self.head_width}"
            )
        if self.rotary_base <= 1 or self.norm_epsilon <= 0:
            faults.append(
                f"rotary base {self.rotary_base} or epsilon {self.norm_epsilon} is too small"
            )
        return faults


@dataclass(frozen=True, slots=True)
class Quantized:
    """The integers that a weight was published as: ``weight = (values - zero_point) × scale``."""

    values: NDArray[np.uint8]
    """uint8; of a matrix (in, out), the weight's transpose; of a convolution (out, in, kernel)"""
    scale: float
    """Exactly a float32, above 0"""
    zero_point: int
    """0…255"""

    def dequantized(self) -> Float32:
        """Return the weight: float32, PyTorch's layout ((out, in) for a matrix)."""
        centred = self.values.astype(np.float32) - np.float32(self.zero_point)
        weight = centred * np.float32(self.scale)
        return np.ascontiguousarray(weight.T if weight.ndim == 2 else weight)


@dataclass(frozen=True)
class Source:
    """A published model, opened."""

    name: str
    """A suggestion for the converted model's name, such as `moonshine-tiny-en`"""
    shape: Shape
    """Its sizes"""
    weights: dict[str, Float32] = field(repr=False)
    """float32 by name, PyTorch's layout; exactly the keys of `tensor_shapes`"""
    quantized: dict[str, Quantized] = field(repr=False)
    """For the weights whose published integers are known; `weights` has them dequantized"""
    tokenizer: bytes = field(repr=False)
    """The content of `tokenizer.bin`, as `harkd.recognizer.moonshine.Tokenizer` reads it"""
    licence: str
    """SPDX identifier; empty where the source does not say"""
    licence_text: str = field(repr=False)
    """Its full text; empty where the source does not bring it"""
    languages: tuple[str, ...]
    """BCP 47 tags; empty where the source does not say"""
    checksums: dict[str, str] = field(repr=False)
    """SHA-256 in lower-case hex, by file name, of every file that was read"""
    origin: str
    """Free text: where the weights come from"""

    @property
    def norm_epsilon(self) -> float:
        """Return what is added to the variance, in all norms."""
        return self.shape.norm_epsilon


def tensor_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Return the name and PyTorch shape of every weight of a Moonshine with these sizes."""
    width = shape.width
    wanted: dict[str, tuple[int, ...]] = {
        "encoder.conv1.weight": (width, 1, STEM["conv1"][0]),
        "encoder.groupnorm.weight": (width,),
        "encoder.groupnorm.bias": (width,),
        "encoder.conv2.weight": (2 * width, width, STEM["conv2"][0]),
        "encoder.conv2.bias": (2 * width,),
        "encoder.conv3.weight": (width, 2 * width, STEM["conv3"][0]),
        "encoder.conv3.bias": (width,),
        "encoder.layer_norm.weight": (width,),
        "decoder.embed_tokens.weight": (shape.vocabulary, width),
        "decoder.norm.weight": (width,),
    }
    sides = {
        "encoder": (shape.encoder_layers, ["self_attn"], shape.encoder_ffn, shape.encoder_ffn),
        "decoder": (
            shape.decoder_layers,
            ["self_attn", "encoder_attn"],
            2 * shape.decoder_ffn,
            shape.decoder_ffn,
        ),
    }
    for side, (layers, attentions, first, second) in sides.items():
        norms = ["input_layernorm", "post_attention_layernorm"]
        norms += ["final_layernorm"] if side == "decoder" else []
        for layer in (f"{side}.layers.{i}" for i in range(layers)):
            for attention in attentions:
                for letter in "qkvo":
                    wanted[f"{layer}.{attention}.{letter}_proj.weight"] = (width, width)
            wanted[f"{layer}.mlp.fc1.weight"] = (first, width)
            wanted[f"{layer}.mlp.fc1.bias"] = (first,)
            wanted[f"{layer}.mlp.fc2.weight"] = (width, second)
            wanted[f"{layer}.mlp.fc2.bias"] = (width,)
            for norm in norms:
                wanted[f"{layer}.{norm}.weight"] = (width,)
    return wanted


def check_weights(origin: str, shape: Shape, weights: dict[str, Float32]) -> None:
    """Compare weights with the sizes they should have.

    Args:
        origin: What the message names: a file or folder.
        shape: The sizes.
        weights: float32 by name.

    Raises:
        ConvertError: Sizes are impossible; weights are missing, unknown, of another shape, or have
            values that are no finite numbers. The message lists all of that.
    """
    if impossible := shape.faults():
        raise ConvertError(
            f"{origin} has sizes that no Moonshine has: {'; '.join(impossible)}",
            "check config.json against the published one",
        )
    wanted = tensor_shapes(shape)
    misshaped = [
        f"{name} {weights[name].shape} instead of {dims}"
        for name, dims in wanted.items()
        if name in weights and weights[name].shape != dims
    ]
    infinite = [name for name in wanted if name in weights and not np.isfinite(weights[name]).all()]
    faults = {
        "missing": sorted(wanted.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - wanted.keys()),
        "misshaped": misshaped,
        "with NaN or infinite values": infinite,
    }
    listed = [f"{what}: {_some(names)}" for what, names in faults.items() if names]
    if listed:
        diverged = infinite and len(listed) == 1
        raise ConvertError(
            f"the weights of {origin} are not those of a Moonshine with these sizes: "
            + "; ".join(listed),
            "take an earlier checkpoint: this training has diverged"
            if diverged
            else "give the model's own config and weights, merged with any adapter, all shards",
        )


def _some(names: list[str]) -> str:
    rest = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {rest} more" if rest > 0 else "")
