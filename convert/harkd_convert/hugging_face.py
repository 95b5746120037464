"""Reads a Moonshine from a Hugging Face directory: published, or fine-tuned by anybody.

In: `config.json` and `model.safetensors`, or its shards with `model.safetensors.index.json`. Out: a
shape and float32 weights; 16-bit ones are widened. PyTorch and transformers are not needed, and no
code of the directory is run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize

from harkd.errors import ModelDamagedError, ModelMissingError
from harkd_convert.checkpoint import Float32, Shape
from harkd_convert.errors import ConvertError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MODEL_TYPE = "moonshine"
HEAD = "proj_out.weight"
EMBEDDING = "decoder.embed_tokens.weight"
PARTIAL_ROTARY = 0.9
"""What transformers takes where config.json does not say (configuration_moonshine.py)."""
FIXED = {
    "encoder_hidden_act": "gelu",
    "decoder_hidden_act": "silu",
    "attention_bias": False,
    "decoder_start_token_id": 1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": True,
}
"""What the daemon and the converter take for granted; these are transformers' defaults as well."""
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def read_config(folder: Path) -> Shape:
    """Read `config.json`.

    Raises:
        ModelDamagedError: It cannot be read or is no JSON.
        ConvertError: It is not of a Moonshine that harkd can run; the message lists why.
    """
    path = folder / CONFIG
    config = _json(path)
    kind = str(config.get("model_type") or config.get("architectures") or "nothing named")
    if kind.startswith(f"{MODEL_TYPE}_"):
        raise ConvertError(
            f"{path} is of a {kind}, the second architecture of Moonshine, which is not supported "
            "yet",
            "use a moonshine-tiny or moonshine-base",
        )
    if kind != MODEL_TYPE:
        raise ConvertError(
            f"{path} is of another architecture ({kind})", "give a directory of a Moonshine"
        )
    rope = config.get("rope_parameters") or {}
    faults = []
    for key, value in FIXED.items():
        faults += _differs(config, key, value)
    heads = config.get("encoder_num_attention_heads", 8)
    for key in ("decoder_num_attention", "encoder_num_key_value", "decoder_num_key_value"):
        faults += _differs(config, f"{key}_heads", heads)
    scaling = config.get("rope_scaling") or {}
    rope_type = rope.get("rope_type") or scaling.get("rope_type") or scaling.get("type")
    if rope_type not in (None, "default"):
        faults.append(f"the rotation is scaled ({rope_type})")
    if faults:
        raise ConvertError(
            f"{path} is of a Moonshine that harkd cannot run: {'; '.join(faults)}",
            "fine-tune without changing the architecture",
        )
    return _sizes(path, config, rope, heads)


def _differs(config: dict[str, Any], key: str, wanted: object) -> list[str]:
    """Return the fault of a key that is there and says something else; `[2]` means 2."""
    found = config.get(key)
    return [] if found in (None, wanted, [wanted]) else [f"{key} is {found!r}, not {wanted!r}"]


def _sizes(path: Path, config: dict[str, Any], rope: dict[str, Any], heads: object) -> Shape:
    try:
        width = int(config.get("hidden_size", 288))
        ffn = int(config.get("intermediate_size", 1152))
        partial = rope.get("partial_rotary_factor", config.get("partial_rotary_factor"))
        partial = PARTIAL_ROTARY if partial is None else float(partial)
        return Shape(
            width=width,
            heads=int(str(heads)),
            encoder_layers=int(config.get("encoder_num_hidden_layers", 6)),
            decoder_layers=int(config.get("decoder_num_hidden_layers", 6)),
            encoder_ffn=ffn,
            decoder_ffn=ffn,
            vocabulary=int(config.get("vocab_size", 32768)),
            rotary_dims=int(width // int(str(heads)) * partial),
            rotary_base=float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
        )
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelDamagedError(
            f"{path} has a size that is no number ({error})", "take the published config.json"
        ) from error


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold the weights.

    Raises:
        ModelMissingError: There are none, or a shard is not there.
        ModelDamagedError: The shards' index is damaged.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        other = next((p.name for p in sorted(folder.glob("*.bin")) if "model" in p.name), "")
        adapter = (folder / "adapter_config.json").is_file()
        raise ModelMissingError(
            f"{folder} has no {WEIGHTS}" + (f", only {other}" if other else ""),
            "merge the adapter into its model and save that, with `merge_and_unload()`"
            if adapter
            else "save the model with transformers' `save_pretrained`, which writes it",
        )
    index = _json(folder / INDEX).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise ModelDamagedError(f"{folder / INDEX} names no files", "fetch it again")
    names = sorted({str(name) for name in index.values()})
    if outside := [name for name in names if Path(name).name != name]:
        raise ModelDamagedError(
            f"{folder / INDEX} names files elsewhere: {', '.join(outside)}", "fetch it again"
        )
    if absent := [name for name in names if not (folder / name).is_file()]:
        raise ModelMissingError(
            f"{folder} lacks {len(absent)} of {len(names)} shards: {', '.join(absent)}",
            "fetch the missing files",
        )
    return [folder / name for name in names]


def read_weights(folder: Path) -> dict[str, Float32]:
    """Read all weights.

    Returns:
        float32 by name without ``model.``, PyTorch's layout; without the head, which is tied.

    Raises:
        ModelMissingError: A file is not there.
        ModelDamagedError: A file is cut off or altered.
        ConvertError: A weight is no floating-point number, or the head is not the embedding.
    """
    weights: dict[str, Float32] = {}
    for path in weight_files(folder):
        try:
            tensors = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
        except OSError as error:
            raise ModelDamagedError(
                f"{path} cannot be read ({error.strerror})", "check its permissions"
            ) from error
        except SafetensorError as error:
            raise ModelDamagedError(
                f"{path} is cut off or altered ({error})", "fetch it again, or save it again"
            ) from error
        for name, tensor in tensors:
            weights[name.removeprefix("model.")] = _widened(path, name, tensor)
    head, embedding = weights.pop(HEAD, None), weights.get(EMBEDDING)
    if head is not None and embedding is not None and not np.array_equal(head, embedding):
        raise ConvertError(
            f"the head of {folder} ({HEAD}) is not its embedding, which a Moonshine's is",
            "fine-tune with tied weights (`tie_word_embeddings`), as transformers does by default",
        )
    return weights


def _widened(path: Path, name: str, tensor: Any) -> Float32:
    """Return one tensor as float32, in the shape that it declares."""
    dtype = _DTYPES.get(tensor["dtype"])
    if dtype is None:
        raise ConvertError(
            f"{name} in {path} is {tensor['dtype']}; only {', '.join(_DTYPES)} are read",
            "save the model unquantized, with `model.float().save_pretrained(…)`",
        )
    raw = np.frombuffer(tensor["data"], dtype).reshape(tensor["shape"])
    if tensor["dtype"] == "BF16":
        # bfloat16 is the upper half of a float32, and numpy has no such type.
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw.astype(np.float32)


def _json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelDamagedError(
            f"{path} cannot be read ({error.strerror})", "fetch it with the rest of the model"
        ) from error
    except ValueError as error:
        raise ModelDamagedError(f"{path} is no JSON ({error})", "fetch it again") from error
    if not isinstance(raw, dict):
        raise ModelDamagedError(f"{path} is no mapping of keys to values", "fetch it again")
    return raw
