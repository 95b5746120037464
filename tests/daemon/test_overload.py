"""A machine that is too slow is told so, once a spell."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest

from harkd.events import Rejected, RejectReason, State, StateChanged
from harkd.overload import Overload

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEECH = StateChanged(State.SPEECH, NOW)
DROPPED = Rejected("id", RejectReason.OVERLOADED, NOW, 0.0)


class House:
    def __init__(self) -> None:
        self.waiting = 0
        self.errors: list[str] = []
        self.overload = Overload(lambda: self.waiting, self.errors.append)

    def hear(self, waiting: int, event: StateChanged | Rejected = SPEECH) -> None:
        self.waiting = waiting
        self.overload.hear(event)


@pytest.fixture
def house() -> House:
    return House()


def test_a_backlog_is_one_warning_until_it_is_gone(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "harkd")
    for waiting in (1, 2, 3):
        house.hear(waiting)
    assert not caplog.records
    for waiting in (4, 5, 3, 2, 6):
        house.hear(waiting)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "4 segments behind" in caplog.messages[0]
    house.hear(1)
    house.hear(0)
    assert caplog.messages[1:] == ["recognition has caught up"]
    house.hear(4)
    assert len(caplog.records) == 3, "another spell"
    assert not house.errors, "nothing was lost"


def test_what_is_dropped_is_one_error_a_spell_with_the_mend(house: House) -> None:
    for _ in range(3):
        house.hear(16, DROPPED)
    assert len(house.errors) == 1
    assert "16 segments behind" in house.errors[0]
    assert "smaller model" in house.errors[0]
    house.hear(1)
    house.hear(16, DROPPED)
    assert len(house.errors) == 2


def test_other_rejections_are_none_of_its_business(house: House) -> None:
    house.hear(2, Rejected("id", RejectReason.NO_SPEECH, NOW, 1.0))
    assert not house.errors
