"""The chaos test can fail: its judgements of courses that break a bound, and that do not."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta

import pytest

from chaos_faults import ROOT, Fault, Sound, nothing, together
from chaos_run import is_warning
from chaos_truth import Told, fresh, known_share, lies, listens_since, states, unended
from harkd.logs import JsonFormatter
from servers import Received

S = 1_000_000_000
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def told(*said: tuple[float, str, str]) -> list[Told]:
    return [Told(int(at * S), state, problem, "") for at, state, problem in said]


def fault(sound: Sound, **more: object) -> Fault:
    return Fault("fault", nothing, sound=sound, problems=frozenset({"stalled"}), **more)  # type: ignore[arg-type]


def message(topic: str, **body: object) -> Received:
    return Received(5 * S, NOON, f"{ROOT}/{topic}", json.dumps(body).encode(), False, 0, None)


@pytest.mark.parametrize(
    ("course", "found"),
    [
        (told((0, "listening", "")), "listens, and nothing was heard"),
        (told((0, "listening", ""), (3, "no_microphone", "stalled")), ""),
        # Found, and then taken back while it still lasts.
        (
            told((0, "speech", ""), (3, "no_microphone", "stalled"), (6, "listening", "")),
            "listens, and nothing was heard",
        ),
        (told((0, "listening", ""), (3, "no_microphone", "busy")), 'said "busy"'),
    ],
)
def test_who_says_that_it_listens_while_nothing_comes_is_found(
    course: list[Told], found: str
) -> None:
    assert found in "".join(lies(course, fault(Sound.NONE), 1 * S, 11 * S))
    assert bool(found) == bool(lies(course, fault(Sound.NONE), 1 * S, 11 * S))


def test_who_says_too_long_that_there_is_no_microphone_is_found() -> None:
    short = told((0, "listening", ""), (2, "no_microphone", ""), (6, "listening", ""))
    long = told((0, "listening", ""), (2, "no_microphone", ""), (9, "listening", ""))
    assert lies(short, fault(Sound.GOOD), 1 * S, 11 * S) == []
    assert len(lies(long, fault(Sound.GOOD), 1 * S, 11 * S)) == 1
    assert lies(long, fault(Sound.GOOD, hides_state=True), 1 * S, 11 * S) == []


def test_a_state_that_falls_back_counts_from_its_last_return() -> None:
    course = told((1, "listening", ""), (2, "no_microphone", ""), (3, "listening", ""))
    assert listens_since(course) == 3 * S
    assert listens_since(course[:2]) == 0
    assert states([message("state", state="listening"), message("health")])[0].state == "listening"


def test_only_text_of_what_was_said_after_the_fault_is_fresh() -> None:
    before, after = (str((NOON + timedelta(seconds=s)).isoformat()) for s in (-2, 2))
    assert fresh(message("transcript/partial", started_at=after), NOON)
    assert fresh(message("transcript", started_at=before, ended_at=after), NOON)
    assert not fresh(message("transcript", started_at=before, ended_at=before), NOON)
    assert not fresh(message("transcript/last", started_at=after), NOON)


def test_each_segment_ends_once() -> None:
    partial, final = {"topic": "transcript/partial"}, {"topic": "transcript"}
    rejected = {"topic": "transcript/rejected"}
    good = [{**partial, "id": "a"}, {**final, "id": "a"}, {**rejected, "id": "b"}]
    assert unended([*good, {**partial, "id": "c"}]) == []
    assert unended([*good, {**final, "id": "a"}]) == ["segment a has 2 ends"]
    assert unended([{**partial, "id": "c"}, *good, {**partial, "id": "d"}]) == [
        "segment c has no end"
    ]
    assert len(unended([*good, {**partial, "id": "a"}])) == 1


def test_words_that_nobody_said_are_counted() -> None:
    assert known_share(["Try again.", "fail better"], frozenset({"try", "again", "fail"})) == 0.75
    assert known_share([], frozenset()) == 0.0


def test_two_faults_at_once_owe_what_both_owe() -> None:
    one = fault(Sound.NONE, recover_s=5.0, detect_s=3.0)
    other = Fault("other", nothing, sound=Sound.GOOD, recover_s=12.0, hides_state=True)
    both = together(one, other)
    assert (both.name, both.sound, both.recover_s) == ("fault + other", Sound.NONE, 12.0)
    assert both.hides_state
    assert not both.pairs


@pytest.mark.parametrize(("level", "counts"), [("info", False), ("warning", True), ("error", True)])
def test_the_daemons_warnings_are_counted(level: str, counts: bool) -> None:
    number = getattr(logging, level.upper())
    record = logging.LogRecord("harkd", number, "", 0, "here", (), None)
    assert is_warning(JsonFormatter().format(record)) is counts
    assert is_warning("Traceback (most recent call last):")
