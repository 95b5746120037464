"""A recognizer counts what it computes, over all threads."""

from __future__ import annotations

import threading

from harkd.recognizer.protocol import Work


def test_what_something_cost_is_a_difference() -> None:
    work = Work(1, 2.0, 3, 4, 5)
    before = work.snapshot()
    work.add(Work(10, 20.0, 30, 40, 50))
    assert work.since(before) == Work(10, 20.0, 30, 40, 50)
    assert before == Work(1, 2.0, 3, 4, 5), "a snapshot moved"
    assert work == Work(11, 22.0, 33, 44, 55)


def test_no_thread_loses_a_count() -> None:
    work = Work()

    def run() -> None:
        for _ in range(1000):
            work.add(Work(1, 1.0, 1, 1, 1))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert work == Work(8000, 8000.0, 8000, 8000, 8000)
