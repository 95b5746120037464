"""Turns Hugging Face's `tokenizer.json` into the bytes of Moonshine's `tokenizer.bin`.

In: the JSON of a byte-fallback BPE, as Llama's and Moonshine's. Out: every token's bytes after
their length, in order of ids, as `harkd.recognizer.moonshine.Tokenizer` reads them. The published
file of tiny has `<0x41>` as that byte, and the marks and special tokens (`<s>`, `<<ST_0>>`) as
their text; so do we.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from harkd.errors import ModelDamagedError
from harkd_convert.errors import ConvertError

MARKS = {0: "<unk>", 1: "<s>", 2: "</s>"}
"""The daemon starts with token 1 and stops at token 2."""
MOST_BYTES = 128 * 256 - 1
"""The longest token that two bytes of length can say."""
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_MEND = "use the tokenizer.json of the Moonshine that was fine-tuned"


def tokenizer_bytes(path: Path, vocabulary: int) -> bytes:
    """Read `tokenizer.json`.

    Args:
        path: The file.
        vocabulary: Tokens of the model, which may be more than those that have a text.

    Raises:
        ModelDamagedError: It cannot be read, or is no JSON of a tokenizer.
        ConvertError: It is of another kind than Moonshine's, or has other tokens than the model.
    """
    tokens = _tokens(path)
    for number, mark in MARKS.items():
        if tokens.get(number) != mark:
            raise ConvertError(
                f"token {number} of {path} is {tokens.get(number)!r} and not {mark!r}", _MEND
            )
    if max(tokens) >= vocabulary:
        raise ConvertError(
            f"{path} has the token {max(tokens)}, but the model only {vocabulary} tokens",
            "give tokenizer.json and weights of one model",
        )
    texts = (tokens.get(number, "") for number in range(max(tokens) + 1))
    return b"".join(map(_entry, texts))


def _tokens(path: Path) -> dict[int, str]:
    """Return the tokens by id, the added ones included."""
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
        model = raw["model"]
        kind = (model.get("type", "BPE"), bool(model.get("byte_fallback")))
        tokens = {int(number): str(text) for text, number in model["vocab"].items()}
        tokens |= {int(one["id"]): str(one["content"]) for one in raw.get("added_tokens") or []}
    except OSError as error:
        raise ModelDamagedError(
            f"{path} cannot be read ({error.strerror})",
            "put the model's tokenizer.json beside its config.json",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelDamagedError(
            f"{path} is no tokenizer in JSON ({type(error).__name__}: {error})", _MEND
        ) from error
    if kind != ("BPE", True):
        raise ConvertError(
            f"{path} is a {kind[0]} tokenizer {'with' if kind[1] else 'without'} byte fallback; "
            "Moonshine's is BPE with it",
            _MEND,
        )
    if not tokens or min(tokens) < 0:
        raise ModelDamagedError(f"{path} has no tokens, or negative ids", _MEND)
    return tokens


def _entry(text: str) -> bytes:
    byte = _BYTE.fullmatch(text)
    token = bytes([int(byte[1], 16)]) if byte else text.encode("utf-8")
    if len(token) > MOST_BYTES:
        raise ConvertError(f"a token has {len(token)} bytes, {MOST_BYTES} at most", _MEND)
    size = len(token)
    return (bytes([size]) if size < 128 else bytes([size % 128 + 128, size // 128])) + token
