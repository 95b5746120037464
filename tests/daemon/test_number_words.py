"""Numbers in digits and in words, and how a text is written."""

from __future__ import annotations

from typing import Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harkd.number_words import SMALL, TENS, cardinal, in_digits, in_words
from harkd.settings import TextSettings
from harkd.text_style import styled

Numbers = Literal["as_is", "digits", "words"]
Casing = Literal["as_is", "lower"]
STYLES = [
    TextSettings(numbers=numbers, casing=casing, punctuation=punctuation)
    for numbers in get_args(Numbers)
    for casing in get_args(Casing)
    for punctuation in (True, False)
]
SPOKEN = st.lists(
    st.sampled_from(
        [
            *(*SMALL, *TENS, "hundred", "thousand", "million", "and", "a", "point", "one", "first"),
            *("second", "at", "the", "of", "minus", "percent", "lights", "pm", "50%", "3.5"),
            *("6:30", "20°C", "$5", "1,234", "007", "-5", "A4", "21st", "it's", "e.g.", "Mr."),
            "twenty-one",
        ]
    ),
    max_size=8,
)


@given(st.integers(0, 999_999))
def test_digits_in_words_are_the_same_digits_again(number: int) -> None:
    assert in_digits(in_words(str(number))) == str(number)
    assert in_digits(f"about {cardinal(number)} things") == f"about {number} things"


@given(SPOKEN, st.sampled_from([" ", ", ", "-"]), st.sampled_from(STYLES))
def test_a_text_that_is_styled_stays_so(words: list[str], joint: str, style: TextSettings) -> None:
    once = styled(joint.join(words), style)
    assert styled(once, style) == once


@given(st.text(max_size=40), st.sampled_from(STYLES))
def test_any_text_can_be_styled(text: str, style: TextSettings) -> None:
    once = styled(text, style)
    assert styled(once, style) == once


@given(st.text(max_size=40))
def test_by_default_a_text_stays_as_it_is(text: str) -> None:
    assert styled(text, TextSettings()) == text


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("Set a timer for three hours and ten minutes.", "Set a timer for 3 hours and 10 minutes."),
        ("Set it to twenty-one degrees", "Set it to 21 degrees"),
        ("half past six", "half past 6"),
        ("fifty percent", "50 percent"),
        ("wake me at six thirty", "wake me at 6:30"),
        ("seven fifteen a.m.", "7:15 a.m."),
        ("nineteen sixty five", "1965"),
        ("eight ninety seven", "8 97"),
        ("one five two", "1 5 2"),
        ("three point one four", "3.14"),
        ("a hundred and five", "105"),
        ("two hundred three hundred", "200 300"),
        ("two thousand and twenty six", "2026"),
        ("one of the lights", "one of the lights"),
        ("the second one", "the second one"),
        ("the twenty first of May", "the twenty first of May"),
        ("five hundred thousand", "500000"),
        ("a light in the hundred", "a light in the hundred"),
        ("someone wants tension", "someone wants tension"),
    ],
)
def test_spelled_numbers_become_digits(said: str, written: str) -> None:
    assert in_digits(said) == written


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Set it to 20 degrees.", "Set it to twenty degrees."),
        ("50% of it", "Fifty percent of it"),
        ("It is 20°C, -5 ° outside.", "It is twenty degrees Celsius, minus five degrees outside."),
        ("at 6:30 or 6:05 or 7:00", "at six thirty or six oh five or seven o'clock"),
        ("3.14", "Three point one four"),
        ("$5", "Five dollars"),
        ("1,234", "One thousand two hundred thirty-four"),
        ("007", "Zero zero seven"),
        ("21st, A4, 1080p, 1/2, 10-12", "21st, A4, 1080p, 1/2, 10-12"),
    ],
)
def test_digits_become_words(text: str, said: str) -> None:
    assert in_words(text) == said


def test_capitals_and_punctuation_can_be_left_out() -> None:
    style = TextSettings(numbers="digits", casing="lower", punctuation=False)
    text = "Hello - it's twenty-five percent, isn't it? At 3.5, Mr. Smith!"
    assert styled(text, style) == "hello it's 25 percent isn't it at 3.5 mr smith"


@pytest.mark.parametrize(
    ("text", "written"),
    [("zero-50%", "zero fifty percent"), ("F-16, 10-12", "F sixteen ten twelve")],
)
def test_what_only_a_mark_kept_from_being_a_number_is_one_without_it(
    text: str, written: str
) -> None:
    assert styled(text, TextSettings(numbers="words", punctuation=False)) == written


def test_numbers_of_another_language_stay() -> None:
    assert styled("one gros, six", TextSettings(numbers="digits"), "fr") == "one gros, six"
