"""What is kept of finals that the broker has not taken."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from harkd.events import Final
from harkd.outbox import MOST_FINALS, MemoryOutbox

FINAL = Final(
    id="",
    rev=1,
    text="Turn on the light.",
    confidence=0.9,
    started_at=datetime(2026, 11, 22, 18, 4, 5, tzinfo=UTC),
    ended_at=datetime(2026, 11, 22, 18, 4, 6, tzinfo=UTC),
    duration_s=1.0,
    speech_end_ns=0,
    endpoint_ns=0,
    language="en",
    model="moonshine-tiny-en",
)


def fill(outbox: MemoryOutbox, numbers: range) -> None:
    for number in numbers:
        outbox.add(replace(FINAL, id=f"id-{number}"))


def kept(outbox: MemoryOutbox) -> list[str]:
    return [each.id for each in outbox.waiting()]


def test_finals_wait_in_the_order_in_which_they_came() -> None:
    outbox = MemoryOutbox()
    fill(outbox, range(3))
    assert kept(outbox) == ["id-0", "id-1", "id-2"]


def test_what_the_broker_has_is_forgotten_wherever_it_stands() -> None:
    outbox = MemoryOutbox()
    fill(outbox, range(3))
    outbox.remove("id-1")
    assert kept(outbox) == ["id-0", "id-2"]


def test_an_answer_to_what_is_not_kept_any_more_does_no_harm() -> None:
    outbox = MemoryOutbox()
    outbox.remove("id-9")
    assert outbox.waiting() == []


def test_the_list_is_a_copy_so_that_answers_may_come_while_it_is_sent() -> None:
    outbox = MemoryOutbox()
    fill(outbox, range(2))
    waiting = outbox.waiting()
    outbox.remove("id-0")
    assert [each.id for each in waiting] == ["id-0", "id-1"]


def test_it_is_bounded_and_the_log_names_the_oldest_final_that_gave_way(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outbox = MemoryOutbox(most=2)
    with caplog.at_level(logging.ERROR, "harkd"):
        fill(outbox, range(3))
    assert kept(outbox) == ["id-1", "id-2"]
    assert "id-0 is lost" in caplog.text
    assert FINAL.text not in caplog.text


def test_the_same_final_again_takes_no_other_ones_place() -> None:
    outbox = MemoryOutbox(most=2)
    fill(outbox, range(2))
    outbox.add(replace(FINAL, id="id-1", text="again"))
    assert kept(outbox) == ["id-0", "id-1"]


def test_unless_told_otherwise_it_keeps_a_day_of_talk() -> None:
    outbox = MemoryOutbox()
    fill(outbox, range(MOST_FINALS))
    assert len(outbox.waiting()) == MOST_FINALS == 1000
