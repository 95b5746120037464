"""How hotwords are written down, and what is said of those that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harkd.hotword_list import (
    DEFAULT_BOOST,
    LONGEST,
    MOST,
    Hotword,
    from_json,
    from_lines,
    from_text,
    resolved,
    to_json,
    to_text,
)

WORDS = st.text("abYZäé '.&-", max_size=12).map(lambda each: f"B{each}")
LISTS = st.lists(
    st.builds(
        Hotword,
        WORDS.map(lambda each: " ".join(each.split())),
        st.integers(0, 20).map(lambda each: each / 2),
    ),
    max_size=10,
    unique_by=lambda each: each.phrase,
).map(tuple)


def test_a_word_may_have_a_boost() -> None:
    assert from_text(" Siobhan:2.5,Drury  Lane ,") == (
        Hotword("Siobhan", 2.5),
        Hotword("Drury Lane", DEFAULT_BOOST),
    )
    assert from_text("") == ()


def test_a_file_has_one_in_each_line() -> None:
    assert from_lines("# names\nSiobhan: 1  # my wife\n\nIkea\n") == (
        Hotword("Siobhan", 1.0),
        Hotword("Ikea"),
    )


def test_a_json_list_has_words_or_objects() -> None:
    assert from_json(b'["Ikea", {"word": "Siobhan", "boost": 3}, {"word": "Aoife"}]') == (
        Hotword("Ikea"),
        Hotword("Siobhan", 3.0),
        Hotword("Aoife"),
    )
    assert from_json(b"[]") == ()


@given(LISTS)
def test_what_was_written_is_read(hotwords: tuple[Hotword, ...]) -> None:
    assert from_text(to_text(hotwords)) == hotwords
    assert from_json(to_json(hotwords).encode()) == hotwords


@given(st.text(max_size=60))
def test_any_text_is_a_list_or_says_why_not(text: str) -> None:
    try:
        found = from_text(text)
    except ValueError:
        return
    assert from_text(to_text(found)) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Ikea:loud", '"loud" is no boost; write a number from 0 to 10'),
        ("Ikea:11", 'the boost of "Ikea" is 11; take one from 0 to 10'),
        ("Ikea:nan", 'the boost of "Ikea" is nan; take one'),
        ("x" * (LONGEST + 1), f"has {LONGEST + 1} characters; take {LONGEST} at most"),
        ("42", '"42" is no word; write letters'),
        ("what?", '"what?" is no word; write letters'),
        (",".join(f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(MOST + 1)), "201 hotw"),
    ],
)
def test_what_is_wrong_is_told_with_its_mend(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("?", r"\?")):
        from_text(text)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"Ikea", "this is not JSON; send a list such as"),
        (b'"Ikea"', "this is no list; send a list such as"),
        (b"[1]", "1 is no hotword; send a list such as"),
        (b'[{"word": "Ikea", "boost": "2"}]', "is no hotword; send a list such as"),
        (b'[{"word": "Ikea", "boost": true}]', "is no hotword; send a list such as"),
        (b'[{"word": "Ikea", "score": 2}]', "is no hotword; send a list such as"),
        (b"[" * 100_000, "this is not JSON"),
    ],
)
def test_what_is_no_list_of_words_is_told_with_an_example(payload: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        from_json(payload)


def test_a_file_is_named_after_an_at_sign(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("Siobhan:3\nIkea\n")
    assert resolved(f"@{tmp_path}/words.txt") == "Siobhan:3, Ikea"
    assert resolved("@words.txt", tmp_path) == "Siobhan:3, Ikea"


def test_a_file_that_is_wrong_is_named_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("Ikea\n\n42\n")
    with pytest.raises(ValueError, match=r'words.txt: line 3: "42" is no word'):
        resolved("@words.txt", tmp_path)
    with pytest.raises(ValueError, match=r"none.txt cannot be read \(No such file"):
        resolved("@none.txt", tmp_path)
