"""What a microphone gives, collected on a thread with the time at which each event came."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from harkd.audio import AudioBlock, SourceEvent, SourceLost
from harkd.microphone import Microphone
from harkd.settings import AudioSettings

Float = np.ndarray[tuple[int], np.dtype[np.float64]]


class Listening:
    """What a microphone gives, with the monotonic second at which each event came."""

    def __init__(self, microphone: Microphone) -> None:
        self.microphone = microphone
        self._events: list[tuple[float, SourceEvent]] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for event in self.microphone.events():
            with self._changed:
                self._events.append((time.monotonic(), event))
                self._changed.notify_all()

    def of(self, kind: type[SourceEvent], after: float = 0.0) -> list[tuple[float, Any]]:
        """Events of a kind that came after a time."""
        with self._changed:
            return [
                (at, each) for at, each in self._events if isinstance(each, kind) and at > after
            ]

    def wait_for(
        self, kind: type[Any], timeout_s: float, *, after: float = 0.0, count: int = 1
    ) -> tuple[float, Any]:
        """The time and the event, once `count` of its kind came after a time."""
        with self._changed:
            found = self._changed.wait_for(lambda: len(self.of(kind, after)) >= count, timeout_s)
            lost = [each.reason for _, each in self.of(SourceLost)]
            assert found, f"no {kind.__name__} within {timeout_s} s; lost: {lost}"
            return self.of(kind, after)[count - 1]

    def samples(self) -> Float:
        """All that was heard, (samples,)."""
        return np.concatenate([each.samples for _, each in self.of(AudioBlock)]).astype(np.float64)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.microphone.close()
        self._thread.join(5)
        assert not self._thread.is_alive()


@contextmanager
def listening(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch, **audio: Any
) -> Iterator[Listening]:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    # The longest wait that there is, each time.
    heard = Listening(Microphone(AudioSettings(**audio), jitter=lambda: 1.0))
    heard.start()
    try:
        yield heard
    finally:
        heard.stop()
