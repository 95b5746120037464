"""Threads that know for whom they work: the log names the input, where there are several.

In: the context in which a thread is made. Out: the same in the thread.
"""

from __future__ import annotations

import contextvars
import threading
from typing import Any


class Thread(threading.Thread):
    """A thread that runs in the context in which it was made.

    A daemon thread, as all of ours are: none may keep the process from ending.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments, daemon=True)
        self._context = contextvars.copy_context()

    def run(self) -> None:
        """Run."""
        self._context.run(super().run)
