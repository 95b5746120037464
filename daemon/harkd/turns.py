"""Whose turn it is: several recognition threads, one model.

In: threads that want to recognize. Out: one of them at a time, so that a model sees one pass at a
time and the processor is not shared out among several. Any thread.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Gives turns: first to what is urgent, else in the order in which they were asked for.

    A final is urgent, a partial is not: where there is too much to do, partials become rarer.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._order = itertools.count()
        self._waiting: list[tuple[bool, int]] = []  # a heap; False comes first
        self._taken = False

    @contextmanager
    def take(self, *, urgent: bool) -> Iterator[None]:
        """Wait for a turn, and have it within the context."""
        with self._changed:
            mine = (not urgent, next(self._order))
            heapq.heappush(self._waiting, mine)
            self._changed.wait_for(lambda: not self._taken and self._waiting[0] == mine)
            heapq.heappop(self._waiting)
            self._taken = True
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()
