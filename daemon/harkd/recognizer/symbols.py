"""`tokens.txt` of sherpa-onnx: token ids → text and words.

In: a file with a symbol and its id in each line. Out: text, in which a symbol that begins with ▁
begins a word, and bytes such as <0xE4> are put together. Runs on the thread that uses the stream.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from harkd.errors import ModelDamagedError
from harkd.events import Word

BLANKS = ("<blk>", "<eps>", "<blank>")
"""The blank's names, the first that is there counts (sherpa-onnx, online-recognizer-ctc-impl.h)."""
UNKNOWN = "<unk>"
BOUNDARY = "▁"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_MARK = re.compile(r"<[^<>0-9][^<>]*>")
"""Such as <sos/eos>: nothing that is said."""


def is_word(symbol: str) -> bool:
    """Tell whether a symbol is a word by itself, as a Chinese character is."""
    return bool(symbol) and unicodedata.east_asian_width(symbol[0]) == "W"


class Symbols:
    """The symbols of a model.

    Args:
        path: The file.

    Raises:
        ModelDamagedError: It cannot be read, or is no list of symbols.
    """

    def __init__(self, path: Path) -> None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ModelDamagedError(
                f"{path} cannot be read ({error})", "`harkd models verify` checks the model's files"
            ) from error
        self.symbols: dict[int, str] = {}
        for number, line in enumerate(lines, 1):
            # One field alone is the id of a space, which some files write as it is.
            *symbol, ident = line.split() or [""]
            if not line.strip():
                continue
            if not ident.isdecimal() or int(ident) in self.symbols or len(symbol) > 1:
                raise ModelDamagedError(
                    f"{path} is no list of tokens: line {number} is {line[:40]!r}",
                    "take the tokens.txt that belongs to the model",
                )
            self.symbols[int(ident)] = symbol[0] if symbol else BOUNDARY
        self.ids = {symbol: ident for ident, symbol in self.symbols.items()}

    def __len__(self) -> int:
        return max(self.symbols, default=-1) + 1

    @property
    def blank(self) -> int | None:
        """The blank's id, where it has a name."""
        return next((self.ids[name] for name in BLANKS if name in self.ids), None)

    def text(self, tokens: Sequence[int]) -> str:
        """Return what tokens say, words apart by one space."""
        return " ".join(self._said(tokens).split())

    def words(self, tokens: Sequence[int], at_s: Sequence[float], token_s: float) -> list[Word]:
        """Return the words of `text`, each from its first token to its last.

        Args:
            tokens: All of them.
            at_s: When each was heard, in seconds.
            token_s: How long one lasts, in seconds.
        """
        groups: list[tuple[list[int], list[float]]] = []
        alone = True
        for token, at in zip(tokens, at_s, strict=True):
            symbol, before = self.symbols.get(token, ""), alone
            alone = is_word(symbol)
            if before or alone or symbol.startswith(BOUNDARY):
                groups.append(([], []))
            groups[-1][0].append(token)
            groups[-1][1].append(at)
        return [
            Word(text, round(times[0], 3), round(times[-1] + token_s, 3))
            for group, times in groups
            if (text := self.text(group))
        ]

    def _said(self, tokens: Sequence[int]) -> str:
        said = b""
        for token in tokens:
            symbol = self.symbols.get(token, "")
            if byte := _BYTE.fullmatch(symbol):
                said += bytes([int(byte[1], 16)])
            elif not _MARK.fullmatch(symbol):
                said += symbol.encode()
        return said.decode("utf-8", "replace").replace(BOUNDARY, " ")
