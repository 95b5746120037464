"""Several recognition threads and one model: whose turn it is, and for whom a thread works."""

from __future__ import annotations

import logging
import threading

import pytest

from harkd import logs
from harkd.threads import Thread
from harkd.turns import Turns


def test_one_has_it_at_a_time_and_what_is_urgent_comes_first() -> None:
    turns = Turns()
    order: list[str] = []

    def work(name: str, *, urgent: bool) -> None:
        with turns.take(urgent=urgent):
            order.append(name)
            order.append(f"{name} done")

    threads = []
    with turns.take(urgent=False):
        jobs = [("partial", False), ("other partial", False), ("final", True), ("last", True)]
        for name, urgent in jobs:
            thread = threading.Thread(target=work, args=(name,), kwargs={"urgent": urgent})
            thread.start()
            threads.append(thread)
            while len(turns._waiting) < len(threads):
                pass
        assert order == []
    for thread in threads:
        thread.join(10)
    names = ["final", "last", "partial", "other partial"]
    assert order == [word for name in names for word in (name, f"{name} done")]


def test_who_fails_in_a_turn_gives_it_up() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="no"), turns.take(urgent=True):
        raise ValueError("no")
    with turns.take(urgent=False):
        pass


def test_a_thread_logs_for_the_input_for_which_it_was_made() -> None:
    lines: list[str] = []

    def speak() -> None:
        record = logging.LogRecord("harkd", logging.INFO, "", 0, "here", (), None)
        lines.append(logs.HumanFormatter(colour=False).format(record).split(maxsplit=1)[1])
        lines.append(logs.JsonFormatter().format(record))

    token = logs.INPUT.set("kitchen")
    thread = Thread(target=speak)
    logs.INPUT.reset(token)
    thread.start()
    thread.join(10)
    speak()
    assert lines[0] == "kitchen: here"
    assert '"input": "kitchen"' in lines[1]
    assert lines[2] == "here"
    assert "input" not in lines[3]
