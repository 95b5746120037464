"""What two texts of one utterance agree on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harkd.stability import has_words, same_words, stable_chars


@pytest.mark.parametrize(
    ("previous", "text", "stable"),
    [
        ("", "Turn on", ""),
        ("turn on", "Turn on the", "Turn on"),
        ("Turn on the kit", "Turn on the kitchen", "Turn on the"),
        ("Turn on.", "Turn on, the kitchen light.", "Turn on"),
        ("Turn on the light.", "Turn on the light!", "Turn on the light"),
        ("Turn on the light", "Turn on", "Turn on"),
        ("Turn of the light", "Turn on the light", "Turn"),
        ("It's", "Its", ""),
        ("He said “stop", "He said: “Stop”, and left", "He said: “Stop"),
        ("one - two", "one two three", "one two"),
        ("Schalte das Küchenlicht", "schalte das Küchenlicht  ein", "schalte das Küchenlicht"),
        ("बत्ती की", "बत्ती की ओर", "बत्ती की"),
        ("a b", "  a b", "  a b"),
        ("...", "...", ""),
    ],
)
def test_the_stable_part_ends_with_the_last_word_that_was_there_before(
    previous: str, text: str, stable: str
) -> None:
    assert text[: stable_chars(previous, text)] == stable


TEXTS = st.text(st.sampled_from("ab ,.\n"), max_size=12)


@given(TEXTS, TEXTS)
def test_the_stable_part_ends_a_word_or_is_empty(previous: str, text: str) -> None:
    chars = stable_chars(previous, text)
    assert 0 <= chars <= len(text)
    if chars:
        assert text[chars - 1] in "ab"
        assert text[chars:].strip(",.")[:1] in ("", " ", "\n")


@given(TEXTS)
def test_a_text_is_stable_against_itself_up_to_its_last_word(text: str) -> None:
    assert stable_chars(text, text) == len(text.rstrip(" ,.\n"))


def test_words_are_the_same_without_case_and_punctuation() -> None:
    assert same_words("turn on", "Turn, on!")
    assert not same_words("turn on", "turn on the")
    assert not same_words("", "turn")
    assert same_words("", "…")


def test_punctuation_is_no_word() -> None:
    assert has_words("a")
    assert has_words(" 7. ")
    assert not has_words("… - !")
