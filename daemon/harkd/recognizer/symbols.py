"""`tokens.txt` of sherpa-onnx: token ids → text and words.

In: a file with a symbol and its id in each line. Out: text, in which a symbol that begins with ▁
begins a word, and bytes are put together: those written <0xE4>, and those of icefall's byte-level
BPE, where each byte is a letter. Runs on the thread that uses the stream.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from harkd.errors import ModelDamagedError
from harkd.events import Word
from harkd.recognizer.spelling import casings, fewest, written

BLANKS = ("<blk>", "<eps>", "<blank>")
"""The blank's names, the first that is there counts (sherpa-onnx, online-recognizer-ctc-impl.h)."""
UNKNOWN = "<unk>"
BOUNDARY = "▁"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_MARK = re.compile(r"<[^<>0-9][^<>]*>")
"""Such as <sos/eos>: nothing that is said."""
_ASCII = range(0x20, 0x7F)
_LETTERS = [chr(each) for each in range(0x100, 0x1A7) if chr(each) not in "ĲĳĿŀŉſ"]
LETTER_BYTES = {chr(each): each for each in _ASCII} | dict(
    zip(_LETTERS, (each for each in range(256) if each not in _ASCII), strict=True)
)
"""How icefall writes a byte as a letter: what is printable in ASCII is itself, the other bytes are
the letters from Ā to Ʀ in order, but for six (sherpa-onnx, bbpe.cc; icefall, byte_utils.py)."""
BYTE_LETTERS = {byte: letter for letter, byte in LETTER_BYTES.items()}
WAYS = 4
"""A hotword is written in so many ways: nothing tells how a list of symbols was made."""
FIRST_RARE = "\u0180"
"""A list that spells in bytes has this letter or a later one, since all first bytes of Chinese
characters are among these; lists of other letters are taken as they are."""


def spells_bytes(symbols: Iterable[str]) -> bool:
    """Tell whether symbols are those of icefall's byte-level BPE, as sherpa-onnx guesses it.

    It looks at the least and greatest byte of all symbols (symbol-table.cc, `IsByteBPE`). Here, no
    letter may be one that stands for no byte.
    """
    letters = set("".join(each.lstrip(BOUNDARY) for each in symbols))
    return letters <= LETTER_BYTES.keys() and max(letters, default="") >= FIRST_RARE


def decoded(said: bytes, *, whole: bool) -> str:
    """Return bytes as text; unless `whole`, a last character may yet be incomplete: left out."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(said, final=whole)


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
        self.bytewise = spells_bytes(self.ids)
        """Whether each letter is a byte"""
        # Looked up for each word of each partial.
        self._alone = {ident for ident, symbol in self.symbols.items() if is_word(symbol)}
        self._letters = {
            ident: "" if _MARK.fullmatch(symbol) else symbol
            for ident, symbol in self.symbols.items()
        }
        self._bytes = {ident: spoken(symbol) for ident, symbol in self._letters.items()}

    def __len__(self) -> int:
        return max(self.symbols, default=-1) + 1

    @property
    def blank(self) -> int | None:
        """The blank's id, where it has a name."""
        return next((self.ids[name] for name in BLANKS if name in self.ids), None)

    def texts(self) -> list[str | None]:
        """Return each symbol as text, with a space where a word begins; None for marks."""
        found: list[str | None] = [None] * len(self)
        for ident, letters in self._letters.items():
            if letters:
                said = self.text([ident])
                found[ident] = " " + said if letters.startswith(BOUNDARY) else said
        return found

    def text(self, tokens: Sequence[int]) -> str:
        """Return what tokens say, words apart by one space."""
        return " ".join(self._said(tokens).split())

    def spelled(self, phrase: str) -> list[list[int]]:
        """Return the ways to write a phrase, in all casings that these symbols have."""
        forms = [written(form) for form in casings(phrase)]
        if self.bytewise:
            forms = ["".join(map(_as_letters, form)) for form in forms]
        return [way for form in forms for way in fewest(form, self.ids, WAYS)]

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
            before, alone = alone, token in self._alone
            if before or alone or self.symbols.get(token, "").startswith(BOUNDARY):
                groups.append(([], []))
            groups[-1][0].append(token)
            groups[-1][1].append(at)
        return [
            Word(text, round(times[0], 3), round(times[-1] + token_s, 3))
            for group, times in groups
            if (text := self.text(group))
        ]

    def _said(self, tokens: Sequence[int]) -> str:
        if self.bytewise:
            return _joined("".join(self._letters.get(token, "") for token in tokens))
        said = b"".join(self._bytes.get(token, b"") for token in tokens)
        return decoded(said, whole=False).replace(BOUNDARY, " ")


def _as_letters(character: str) -> str:
    """Return a character as the letters that stand for its bytes."""
    if character == BOUNDARY:
        return character
    return "".join(BYTE_LETTERS[byte] for byte in character.encode())


def spoken(symbol: str) -> bytes:
    """Return a symbol's bytes in UTF-8; of one such as <0xE4>, that byte."""
    byte = _BYTE.fullmatch(symbol)
    return bytes([int(byte[1], 16)]) if byte else symbol.encode()


def _joined(letters: str) -> str:
    """Return the text of letters that are bytes.

    Each Chinese character begins a word of its own, though no space is meant between them.
    sherpa-onnx leaves out the space after all that is not ASCII (`DecodeByteBpe`), also after é.
    """
    text = ""
    parts = letters.split(BOUNDARY)
    for number, part in enumerate(parts, 1):
        space = " " if text and not is_word(text[-1]) else ""
        said = bytes(LETTER_BYTES[each] for each in part)
        text += space + decoded(said, whole=number < len(parts))
    return text
