"""Writes weights as a Hugging Face directory, which `harkd-convert moonshine` reads.

In: a source, and a model of the same shape. Out: `config.json`, `model.safetensors`,
`tokenizer.json`, a model card and the licence. Runs on the caller's thread.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from harkd_convert.checkpoint import Shape, Source
from harkd_convert.errors import ConvertError
from harkd_convert.hugging_face import CONFIG, FIXED, PARTIAL_ROTARY, WEIGHTS
from harkd_convert.moonshine import Moonshine
from harkd_convert.sources import SPDX, TOKENIZER_JSON
from harkd_convert.tokenizer_json import MARKS

BYTES = range(3, 259)
"""Tokens that stand for one byte each."""


def write_weights(target: Path, source: Source, model: Moonshine, notes: str) -> None:
    """Write a directory, in the place of one that was written before.

    Args:
        target: The directory.
        source: What the weights were made from: its tokens, licence and languages are theirs.
        model: The weights.
        notes: Markdown for the model card.

    Raises:
        ConvertError: The shape cannot be said in a `config.json`.
    """
    staged = target.with_name(f".{target.name}")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    (staged / CONFIG).write_text(json.dumps(_config(source.shape), indent=2), encoding="utf-8")
    (staged / TOKENIZER_JSON).write_text(_tokenizer(source.tokenizer), encoding="utf-8")
    state = {f"model.{name}": each.cpu().contiguous() for name, each in model.state_dict().items()}
    save_file(state, staged / WEIGHTS, metadata={"format": "pt"})
    (staged / WEIGHTS).chmod(0o644)  # safetensors makes it for its owner alone
    (staged / "README.md").write_text(_card(source, notes), encoding="utf-8")
    if source.licence_text:
        (staged / "LICENSE").write_text(source.licence_text, encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    staged.rename(target)


def _config(shape: Shape) -> dict[str, Any]:
    if shape.encoder_ffn != shape.decoder_ffn:
        raise ConvertError(
            f"encoder and decoder have layers of {shape.encoder_ffn} and {shape.decoder_ffn} "
            "features, for which config.json has but one number",
            "use a published moonshine-tiny or moonshine-base",
        )
    partial = PARTIAL_ROTARY
    if int(shape.head_width * partial) != shape.rotary_dims:
        partial = (
            shape.rotary_dims + 0.5
        ) / shape.head_width  # readers cut off what is after the point
    return FIXED | {
        "architectures": ["MoonshineForConditionalGeneration"],
        "model_type": "moonshine",
        "hidden_size": shape.width,
        "intermediate_size": shape.encoder_ffn,
        "encoder_num_hidden_layers": shape.encoder_layers,
        "decoder_num_hidden_layers": shape.decoder_layers,
        "encoder_num_attention_heads": shape.heads,
        "decoder_num_attention_heads": shape.heads,
        "encoder_num_key_value_heads": shape.heads,
        "decoder_num_key_value_heads": shape.heads,
        "partial_rotary_factor": partial,
        "rope_theta": shape.rotary_base,
        "vocab_size": shape.vocabulary,
    }


def _tokenizer(packed: bytes) -> str:
    """Return the JSON of which `tokenizer_json.tokenizer_bytes` makes these bytes."""
    vocabulary = dict[str, int]()
    added = list[dict[str, Any]]()
    for number, token in enumerate(_unpacked(packed)):
        text = token.decode("utf-8", "replace")
        if number in MARKS:
            text = MARKS[number]
        elif number in BYTES and len(token) == 1:
            text = f"<0x{token[0]:02X}>"
        if text in vocabulary:
            added.append({"id": number, "content": text, "special": False})
        else:
            vocabulary[text] = number
    model = {"type": "BPE", "byte_fallback": True, "vocab": vocabulary, "merges": []}
    return json.dumps({"model": model, "added_tokens": added}, ensure_ascii=False)


def _unpacked(packed: bytes) -> list[bytes]:
    out, at = list[bytes](), 0
    while at < len(packed):
        size, at = packed[at], at + 1
        if size >= 128:
            size, at = size + 128 * (packed[at] - 1), at + 1
        out.append(packed[at : at + size])
        at += size
    return out


def _card(source: Source, notes: str) -> str:
    licences = {spdx: name for name, spdx in SPDX.items()}
    lines = ["---"]
    if source.licence:
        lines.append(f"license: {licences.get(source.licence, 'other')}")
    if source.languages:
        lines.append(f"language: [{', '.join(source.languages)}]")
    return "\n".join([*lines, "---", f"Distilled from {source.origin}.", "", notes, ""])
