"""Moonshines of random weights, small enough to be converted in no time; all say words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from harkd_convert.checkpoint import Float32, Shape, Source, tensor_shapes

# fmt: off
WORDS = [
    "alder", "birch", "cedar", "dogwood", "elm", "fir", "ginkgo", "hazel", "ironwood", "juniper",
    "katsura", "larch", "maple", "nutmeg", "oak", "pine", "quince", "rowan", "spruce", "teak",
    "upas", "viburnum", "walnut", "xylosma", "yew", "zelkova",
]
# fmt: on
SHAPES = {
    "as tiny's heads": Shape(72, 2, 1, 3, 56, 56, 29, 32),
    "as base's heads": Shape(104, 2, 3, 2, 48, 32, 29, 32),
    "heads that fit": Shape(96, 3, 2, 2, 64, 48, 29, 16),
    "small heads, all of them rotated": Shape(24, 3, 2, 2, 32, 40, 29, 8),
}
"""By what is odd about it; a vocabulary is the marks and the words."""
SMALL = SHAPES["as tiny's heads"]


def random_weights(shape: Shape, seed: int = 7) -> dict[str, Float32]:
    """Weights under which a token depends on those before it, and on the audio."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, dims in tensor_shapes(shape).items():
        fan_in = int(np.prod(dims[1:])) if len(dims) > 1 else 100
        strong = name == "encoder.conv1.weight" or (name.startswith("decoder.l") and len(dims) > 1)
        scale = 3.0 if strong else 1.0
        values = rng.normal(0.0, scale / np.sqrt(fan_in), dims)
        if name.endswith("norm.weight"):
            values += 1.0
        weights[name] = values.astype(np.float32)
    # The head is the embedding, so each token would be followed by itself for ever.
    weights["decoder.norm.weight"] = 3 * rng.normal(size=shape.width).astype(np.float32)
    return weights


def random_source(shape: Shape = SMALL, seed: int = 7) -> Source:
    """A source as `open_source` would give it, out of nothing."""
    return Source(
        name="small",
        shape=shape,
        weights=random_weights(shape, seed),
        quantized={},
        tokenizer=b"".join(bytes([len(each)]) + each for each in map(str.encode, texts())),
        licence="MIT",
        licence_text="Do what you like.\n",
        languages=("en",),
        checksums={"model.safetensors": f"{seed:064x}"},
        origin="a test",
    )


def texts() -> list[str]:
    """Tokens by id."""
    return ["<unk>", "<s>", "</s>", *(f"▁{word}" for word in WORDS)]


def write_directory(
    path: Path, shape: Shape = SMALL, seed: int = 7, *, licensed: bool = True
) -> Path:
    """Write a random model as a Hugging Face directory."""
    path.mkdir(parents=True)
    config: dict[str, Any] = {
        "architectures": ["MoonshineForConditionalGeneration"],
        "model_type": "moonshine",
        "hidden_size": shape.width,
        "intermediate_size": shape.encoder_ffn,
        "encoder_num_hidden_layers": shape.encoder_layers,
        "decoder_num_hidden_layers": shape.decoder_layers,
        "encoder_num_attention_heads": shape.heads,
        "decoder_num_attention_heads": shape.heads,
        "encoder_hidden_act": "gelu",
        "decoder_hidden_act": "silu",
        "partial_rotary_factor": shape.rotary_dims / shape.head_width,
        "vocab_size": shape.vocabulary,
        "eos_token_id": 2,
    }
    vocabulary = {text: number for number, text in enumerate(texts())}
    model = {"type": "BPE", "byte_fallback": True, "vocab": vocabulary, "merges": []}
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_text(json.dumps({"model": model}))
    weights = random_weights(shape, seed)
    save_file({f"model.{n}": w for n, w in weights.items()}, path / "model.safetensors")
    if licensed:
        (path / "README.md").write_text("---\nlicense: mit\nlanguage: en\n---\n")
        (path / "LICENSE").write_text("Do what you like.\n")
    return path
