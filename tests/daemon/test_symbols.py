"""tokens.txt: symbols, and what tokens say."""

from __future__ import annotations

from pathlib import Path

import pytest

from harkd.errors import ModelDamagedError
from harkd.events import Word
from harkd.recognizer.symbols import LETTER_BYTES, Symbols, spells_bytes

LETTERS = {byte: letter for letter, byte in LETTER_BYTES.items()}


def symbols(tmp_path: Path, lines: str) -> Symbols:
    path = tmp_path / "tokens.txt"
    path.write_text(lines, encoding="utf-8")
    return Symbols(path)


@pytest.fixture
def english(tmp_path: Path) -> Symbols:
    names = ["<blk>", "<sos/eos>", "<unk>", "▁TURN", "▁O", "N", "▁", "<0xC3>", "<0xA9>", "'S"]
    return symbols(tmp_path, "".join(f"{name} {i}\n" for i, name in enumerate(names)))


def test_pieces_make_words(english: Symbols) -> None:
    assert english.text([3, 4, 5]) == "TURN ON"
    assert english.text([3, 9, 6, 5]) == "TURN'S N"
    assert english.text([]) == ""


def test_marks_say_nothing(english: Symbols) -> None:
    assert english.text([1, 3, 2, 99]) == "TURN"


def test_bytes_are_put_together(english: Symbols) -> None:
    assert english.text([3, 7, 8]) == "TURNé"
    assert english.text([3, 7]) == "TURN", "the rest of the character may follow"
    assert english.text([3, 7, 5]) == "TURN\ufffdN"


def test_a_word_lasts_from_its_first_token_to_its_last(english: Symbols) -> None:
    assert english.words([3, 4, 5], [0.2, 0.4, 0.48], 0.04) == [
        Word("TURN", 0.2, 0.24),
        Word("ON", 0.4, 0.52),
    ]
    assert english.words([1], [0.2], 0.04) == []


def test_a_chinese_character_is_a_word(tmp_path: Path) -> None:
    found = symbols(tmp_path, "<blk> 0\n你 1\n好 2\n▁HEL 3\nLO 4\n")
    assert found.text([1, 2, 3, 4]) == "你好 HELLO"
    words = found.words([1, 2, 3, 4, 1], [0.0, 0.1, 0.2, 0.3, 0.4], 0.04)
    assert [each.word for each in words] == ["你", "好", "HELLO", "你"]


def spelled(text: str) -> str:
    """Spell a text as icefall does: ▁ before each word, then a letter for each byte."""
    return "".join("▁" + "".join(LETTERS[byte] for byte in word.encode()) for word in text.split())


def test_each_byte_has_a_letter() -> None:
    assert sorted(LETTER_BYTES.values()) == list(range(256))
    # As sherpa-onnx's bbpe.cc and fairseq's and icefall's byte_utils.py have it.
    known = {"Ā": 0, "ğ": 31, "~": 126, "Ġ": 127, "Ĵ": 145, "Ł": 156, "ž": 216, "ƌ": 229, "Ʀ": 255}
    assert {letter: LETTER_BYTES[letter] for letter in known} == known


@pytest.fixture
def bytewise(tmp_path: Path) -> Symbols:
    pieces = ["<blk>", "<sos/eos>", "<unk>", spelled("你"), spelled("好")[:3], spelled("好")[3:]]
    pieces += ["▁HEL", "LO", "▁", spelled("é")[1:], spelled("世界").replace("▁", "")]
    return symbols(tmp_path, "".join(f"{each} {i}\n" for i, each in enumerate(pieces)))


def test_letters_that_are_bytes_are_put_together(bytewise: Symbols) -> None:
    assert bytewise.bytewise
    assert bytewise.text([3, 4, 5]) == "你好"
    assert bytewise.text([6, 7, 6, 7]) == "HELLO HELLO"
    assert bytewise.text([6, 7, 3, 4, 5, 6, 7]) == "HELLO 你好HELLO", "as sherpa-onnx does"
    assert bytewise.text([6, 9, 6, 7]) == "HELé HELLO", "which it would make one word"
    assert bytewise.text([8, 10]) == "世界"


def test_of_a_character_whose_last_byte_is_missing_nothing_is_told(bytewise: Symbols) -> None:
    assert bytewise.text([3, 4]) == "你"
    assert bytewise.text([3, 4, 6, 7]) == "你\ufffd HELLO", "it will never come"
    assert bytewise.text([2, 3, 0, 99]) == "你", "marks say nothing"


def test_words_of_letters_that_are_bytes_have_times(bytewise: Symbols) -> None:
    assert bytewise.words([3, 4, 5, 6, 7], [0.1, 0.2, 0.3, 0.4, 0.5], 0.04) == [
        Word("你", 0.1, 0.14),
        Word("好", 0.2, 0.34),
        Word("HELLO", 0.4, 0.54),
    ]


def test_other_letters_are_themselves() -> None:
    assert not spells_bytes(["<blk>", "▁ŁÓDŹ", "Ś"])
    assert not spells_bytes(["<blk>", "▁một", "ơ"]), "Vietnamese"
    assert not spells_bytes(["<blk>", "▁HEL", "LO", "'"])
    assert not spells_bytes(["<blk>", "你"])
    assert not spells_bytes([])


@pytest.mark.parametrize("line", ["  3\n", "3\n", "\t3\n"])
def test_a_space_may_be_written_as_it_is(tmp_path: Path, line: str) -> None:
    found = symbols(tmp_path, "<blank>\t0\na 1\n\n" + line)
    assert found.text([1, 3, 1]) == "a a"
    assert len(found) == 4
    assert found.blank == 0


@pytest.mark.parametrize("lines", ["a b 1\n", "a\n", "a 1\nb 1\n", "a -1\n"])
def test_what_is_no_list_is_refused(tmp_path: Path, lines: str) -> None:
    with pytest.raises(ModelDamagedError, match="no list of tokens"):
        symbols(tmp_path, lines)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelDamagedError, match="cannot be read"):
        Symbols(tmp_path / "tokens.txt")
