"""Reads a WeNet checkpoint: `final.pt`, `train.yaml` and `units.txt`, every key and shape checked.

In: the three files. Out: a `ConformerSource`. Of a U2++ checkpoint, the encoder and its CTC head
are taken; the attention decoders, which only rescore, are left. Nothing in the files is run. Runs
on the caller's thread.
"""

from __future__ import annotations

import io
import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from harkd.errors import ModelDamagedError, ModelMissingError
from harkd.model_package import sha256_of
from harkd_convert.checkpoint import MOST_LISTED, Float32, Quantized
from harkd_convert.conformer import Conformer
from harkd_convert.conformer_shape import ConformerShape
from harkd_convert.errors import ConvertError

BLANK = "<blank>"
FIXED = {
    "activation_type": "swish",
    "causal": True,
    "input_layer": "conv2d",
    "macaron_style": True,
    "normalize_before": True,
    "pos_enc_layer_type": "rel_pos",
    "positionwise_conv_kernel_size": 1,
    "selfattention_layer_type": "rel_selfattn",
    "use_cnn_module": True,
}
"""What the network here has."""
DEFAULTS = {"causal": False} | {key: value for key, value in FIXED.items() if key != "causal"}
"""What WeNet takes where `train.yaml` does not say (wenet/transformer/encoder.py)."""
UNUSED = re.compile(
    r"decoder\.|encoder\.embed\.pos_enc\.pe$|encoder\.encoders\.\d+\.concat_linear\."
    r"|encoder\.encoders\.\d+\.conv_module\.norm\.num_batches_tracked$"
)
"""Rescoring decoders; the table of positions, which is made anew; a layer that WeNet once saved
and never used; a counter of batches."""
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class ConformerSource:
    """A streaming Conformer, opened."""

    name: str
    """A suggestion for the converted model's name"""
    shape: ConformerShape
    """Its sizes"""
    weights: dict[str, Float32] = field(repr=False)
    """float32 by name, PyTorch's layout; exactly the keys of `tensor_shapes`"""
    units: bytes = field(repr=False)
    """The content of `units.txt`: a token and its number on each line"""
    checksums: dict[str, str] = field(repr=False)
    """SHA-256 in lower-case hex, by file name, of every file that was read"""
    quantized: dict[str, Quantized] = field(default_factory=dict, repr=False)
    """Empty: such checkpoints are published in float32"""

    @property
    def norm_epsilon(self) -> float:
        """Return what is added to the variance, in all norms."""
        return self.shape.norm_epsilon

    def model(self) -> Conformer:
        """Return the network with these weights, to evaluate."""
        model = Conformer(self.shape)
        state = {name: torch.from_numpy(values) for name, values in self.weights.items()}
        wanted = model.state_dict()
        state |= {name: value for name, value in wanted.items() if name.endswith(COUNTER)}
        model.load_state_dict(state, strict=True)
        return model.eval()


def tensor_shapes(shape: ConformerShape) -> dict[str, tuple[int, ...]]:
    """Return the name and PyTorch shape of every weight of a Conformer with these sizes."""
    with torch.device("meta"):
        state = Conformer(shape).state_dict()
    return {name: tuple(v.shape) for name, v in state.items() if not name.endswith(COUNTER)}


def open_conformer(checkpoint: Path, config: Path, units: Path) -> ConformerSource:
    """Read a checkpoint with its configuration and its tokens.

    Raises:
        ModelMissingError, ModelDamagedError: A file is not there, or cannot be read.
        ConvertError: It is of another network, or the files do not fit together; the message lists
            why.
    """
    found = read_weights(checkpoint)
    tokens = read_units(units)
    shape = read_config(config, len(tokens))
    weights = _taken(checkpoint, shape, found)
    checksums = {path.name: sha256_of(path) for path in (checkpoint, config, units)}
    name = re.sub(r"[^a-z0-9._-]+", "-", checkpoint.resolve().parent.name.lower()).strip("-._")
    return ConformerSource(name or "conformer", shape, weights, _bytes(units), checksums)


def read_units(path: Path) -> list[str]:
    """Return the tokens of `units.txt` by number.

    Raises:
        ModelMissingError, ModelDamagedError: The file is not there, or is no list of tokens.
    """
    lines = [line.split() for line in _bytes(path).decode("utf-8", "replace").splitlines()]
    pairs = [(line[0], int(line[1])) for line in lines if len(line) == 2 and line[1].isdecimal()]
    numbers = [number for _, number in pairs]
    tokens = [token for token, _ in pairs]
    faults = {
        "a line is not a token and a number": len(pairs) != len(lines) or not lines,
        "the numbers do not count up from 0": numbers != list(range(len(numbers))),
        f"number 0 is not {BLANK}": tokens[:1] != [BLANK],
        "a token is there twice": len(set(tokens)) != len(tokens),
    }
    if found := [fault for fault, there in faults.items() if there]:
        raise ModelDamagedError(
            f"{path} is no list of tokens: {'; '.join(found)}", "give the checkpoint's units.txt"
        )
    return tokens


def read_config(path: Path, vocabulary: int) -> ConformerShape:
    """Read `train.yaml`.

    Args:
        path: The file.
        vocabulary: Tokens of the model.

    Raises:
        ModelMissingError, ModelDamagedError: The file is not there, or is no YAML.
        ConvertError: It is not of a streaming Conformer; the message lists why.
    """
    try:
        config = yaml.safe_load(_bytes(path))
    except yaml.YAMLError as error:
        raise ModelDamagedError(
            f"{path} is no YAML ({' '.join(str(error).split())})", "give the one of the checkpoint"
        ) from error
    if not isinstance(config, dict) or not isinstance(config.get("encoder_conf"), dict):
        raise ModelDamagedError(f"{path} has no encoder_conf", "give the checkpoint's train.yaml")
    encoder = config["encoder_conf"]
    faults = [
        f"{key} is {found!r}, not {wanted!r}"
        for key, wanted in FIXED.items()
        if (found := encoder.get(key, DEFAULTS[key])) != wanted
    ]
    if config.get("encoder", "conformer") != "conformer":
        faults.append(f"encoder is {config['encoder']!r}, not 'conformer'")
    if not encoder.get("use_dynamic_chunk") and int(encoder.get("static_chunk_size", 0)) < 1:
        faults.append("it was not trained by chunks (use_dynamic_chunk, static_chunk_size)")
    tokens = config.get("output_dim", vocabulary)
    if tokens != vocabulary:
        faults.append(f"it has {tokens} tokens (output_dim), and the list {vocabulary}")
    shape = _sizes(path, config, vocabulary)
    if faults := faults + shape.faults():
        raise ConvertError(
            f"{path} is of no Conformer that can be streamed here: {'; '.join(faults)}",
            "take a U2 or U2++ Conformer, such as WeNet's u2pp_conformer recipes train",
        )
    return shape


def _sizes(path: Path, config: dict[str, Any], vocabulary: int) -> ConformerShape:
    encoder = config["encoder_conf"]
    try:
        return ConformerShape(
            bins=int(config.get("input_dim", 80)),
            width=int(encoder.get("output_size", 256)),
            heads=int(encoder.get("attention_heads", 4)),
            ffn=int(encoder.get("linear_units", 2048)),
            layers=int(encoder.get("num_blocks", 6)),
            kernel=int(encoder.get("cnn_module_kernel", 15)),
            vocabulary=vocabulary,
            conv_norm=str(encoder.get("cnn_module_norm", "batch_norm")),
            norm_epsilon=float(encoder.get("norm_eps", 1e-5)),
        )
    except (TypeError, ValueError) as error:
        raise ModelDamagedError(
            f"{path} has a size that is no number ({error})", "give the checkpoint's train.yaml"
        ) from error


def read_weights(path: Path) -> dict[str, Float32]:
    """Return all floating-point tensors of a checkpoint as float32, by name.

    Raises:
        ModelMissingError, ModelDamagedError: The file is not there, or is no checkpoint.
    """
    data = io.BytesIO(_bytes(path))
    try:
        state = torch.load(data, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelDamagedError(
            f"{path} is no PyTorch checkpoint of tensors alone", "give the model's final.pt"
        ) from error
    if not isinstance(state, dict):
        raise ModelDamagedError(f"{path} holds no weights by name", "give the model's final.pt")
    return {
        str(name): value.float().numpy()
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }


def _taken(path: Path, shape: ConformerShape, weights: dict[str, Float32]) -> dict[str, Float32]:
    """Return exactly the weights of the shape, or raise with all that differs."""
    wanted = tensor_shapes(shape)
    # Some checkpoints have no mean and spread of the bins: WeNet normalizes only where told to.
    if not any(name.startswith("encoder.global_cmvn.") for name in weights):
        weights = weights | {
            "encoder.global_cmvn.mean": np.zeros(shape.bins, np.float32),
            "encoder.global_cmvn.istd": np.ones(shape.bins, np.float32),
        }
    there = {name: weights[name] for name in wanted if name in weights}
    faults = {
        "missing": sorted(wanted.keys() - weights.keys()),
        "unexpected": sorted(
            name for name in weights.keys() - wanted.keys() if not UNUSED.match(name)
        ),
        "misshaped": [
            f"{name} {value.shape} instead of {wanted[name]}"
            for name, value in there.items()
            if value.shape != wanted[name]
        ],
        "with NaN or infinite values": [
            name for name, value in there.items() if not np.isfinite(value).all()
        ],
    }
    listed = [f"{what}: {_some(names)}" for what, names in faults.items() if names]
    if listed:
        raise ConvertError(
            f"the weights of {path} are not those of a Conformer as its configuration says: "
            + "; ".join(listed),
            "give final.pt, train.yaml and units.txt of one training",
        )
    return there


def _some(names: list[str]) -> str:
    rest = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelMissingError(f"{path} is not there", "check the path") from error
    except OSError as error:
        raise ModelDamagedError(
            f"{path} cannot be read ({error.strerror})", "check its permissions"
        ) from error
