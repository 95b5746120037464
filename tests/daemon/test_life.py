"""A thread that works, or waits for work, is live; one that hangs or has died is not."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from harkd.life import Finding, LifeSign, worst


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_thread_that_has_not_begun_is_no_fault(clock: Clock) -> None:
    sign = LifeSign("control", 10, monotonic=clock)
    clock.now_s += 1e6
    assert sign.finding() == Finding("control", True)
    assert sign.ident is None


def test_a_step_may_take_its_time_and_no_longer(clock: Clock) -> None:
    sign = LifeSign("control", 10, monotonic=clock)
    sign.begin()
    sign.beat()
    clock.now_s += 10
    assert sign.finding().ok
    clock.now_s += 2
    assert sign.finding() == Finding(
        "control", False, "the control thread has made no progress for 12 s"
    )
    sign.beat()
    assert sign.finding().ok
    assert sign.ident == threading.get_ident()


def test_a_step_can_be_given_more_time(clock: Clock) -> None:
    sign = LifeSign("recognition", 60, monotonic=clock)
    sign.begin()
    sign.beat(150)
    clock.now_s += 149
    assert sign.finding().ok
    clock.now_s += 2
    assert not sign.finding().ok


def test_who_waits_for_work_may_wait_for_ever(clock: Clock) -> None:
    sign = LifeSign("delivery", 10, monotonic=clock)
    sign.begin()
    sign.beat()
    sign.rest()
    clock.now_s += 1e6
    assert sign.finding().ok


def test_work_that_nobody_takes_is_noticed(clock: Clock) -> None:
    """But what lay there before the thread began to rest counts from then on."""
    overdue_s = 500.0
    sign = LifeSign("recognition", 60, overdue_s=lambda: overdue_s, monotonic=clock)
    sign.begin()
    sign.rest()
    clock.now_s += 50
    assert sign.finding().ok
    clock.now_s += 11
    assert sign.finding().reason == "the recognition thread has made no progress for 61 s"
    overdue_s = 0.0
    assert sign.finding().ok


def test_a_thread_that_died_is_told_and_one_that_ended_is_not(clock: Clock) -> None:
    died, ended = LifeSign("mqtt", 10, monotonic=clock), LifeSign("outbox", 10, monotonic=clock)

    def run() -> None:
        died.begin()
        ended.begin()
        ended.end()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert died.finding() == Finding("mqtt", False, "the mqtt thread died")
    assert ended.finding().ok


def test_the_worst_is_the_first_that_is_not_as_it_should_be() -> None:
    good, bad, worse = Finding("a", True), Finding("b", False, "x"), Finding("c", False, "y")
    assert worst([good, bad, worse]) is bad
    assert worst([good]) is None
