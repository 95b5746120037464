"""How long a pause may be, by what was said before it."""

from __future__ import annotations

import pytest

from harkd.endpointing import end_silence_ms, ends_sentence
from harkd.recognizer.protocol import Hypothesis
from harkd.settings import EndpointSettings

ENDPOINT = EndpointSettings(silence_ms=600, adaptive=True, min_silence_ms=400, max_silence_ms=1000)


@pytest.mark.parametrize(
    "text",
    ["Stop.", "Stop!", "Stop?", "Is it?!", 'He said "stop."', "‘Stop.’", "(Stop.)", "Stop. ",
     "„Halt.“", "„Halt“.", "止まれ。"],
)  # fmt: skip
def test_a_sentence_ends_with_its_mark_or_a_closing_quote_after_it(text: str) -> None:
    assert ends_sentence(text)


@pytest.mark.parametrize(
    "text",
    ["", "Stop", "Stop,", "Stop -", "Stop –", "Stop;", "Stop:", "Stop...", "Stop…", "Stop..",
     'He said "stop..."', 'He said "stop"', "."[:0]],
)  # fmt: skip
def test_without_such_a_mark_it_goes_on_and_an_ellipsis_is_none(text: str) -> None:
    assert not ends_sentence(text)


def silence_after(text: str, previous: str | None, *, looped: bool = False) -> int:
    before = None if previous is None else Hypothesis(previous, 0.9)
    return end_silence_ms(Hypothesis(text, 0.9, looped=looped), before, ENDPOINT)


@pytest.mark.parametrize(
    ("text", "previous", "silence_ms"),
    [
        ("Stop it.", "stop it", 400),
        ("Stop it.", "Stop it.", 400),
        ("Stop it.", "Stop", 600),
        ("Stop it.", None, 600),
        ("Stop it,", "Stop it,", 1000),
        ("Stop it", None, 1000),
        ("", None, 600),
        ("...", "...", 600),
    ],
)
def test_a_settled_sentence_ends_soon_and_an_open_one_late(
    text: str, previous: str | None, silence_ms: int
) -> None:
    assert silence_after(text, previous) == silence_ms


def test_a_loop_says_nothing_of_the_speaker() -> None:
    assert silence_after("go go go.", "go go go.", looped=True) == 600
    assert silence_after("go go go", "go go go", looped=True) == 600


def test_where_it_is_switched_off_the_silence_is_always_the_same() -> None:
    fixed = EndpointSettings(silence_ms=600)
    for text in ("Stop it.", "Stop it,"):
        heard = Hypothesis(text, 0.9)
        assert end_silence_ms(heard, heard, fixed) == 600
