"""Tokens to text, by the tokenizer of a source that is in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

from harkd.recognizer.moonshine_tokens import Tokenizer


class TokenText:
    """Makes texts of tokens, as the daemon does.

    Args:
        packed: What is in `tokenizer.bin`.
    """

    def __init__(self, packed: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "tokenizer.bin"
            file.write_bytes(packed)
            self._tokenizer = Tokenizer(file)

    def __call__(self, tokens: list[int]) -> str:
        """Return the text of tokens."""
        return self._tokenizer.text(tokens)
