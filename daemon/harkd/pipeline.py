"""Audio in, events out: the only file that owns the threads of recognition.

::

    source ──► listening thread ──► Backlog ──► recognition thread ──► sink
               segmenter            bounded     recognizer

The listening thread never waits for a decode (but for a file, which can wait), so a slow decode
delays text and never loses audio. Partials may be left out; each segment ends in exactly one
`Final` or `Rejected`. `virtual_time` runs the same two parts without threads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from ulid import ULID

from harkd.audio import FrameSource
from harkd.counters import Counters
from harkd.errors import HarkdError
from harkd.events import Event
from harkd.listening import Listening, SystemClock
from harkd.recent_utterances import HeardUtterance
from harkd.recognizer.protocol import Recognizer
from harkd.recognizing import Recognizing, fitted
from harkd.segment import Backlog
from harkd.segmenter import within
from harkd.settings import Settings
from harkd.signal_processing import signal_stage

log = logging.getLogger(__name__)


class Pipeline:
    """Runs a source through segmenter and recognizer.

    Args:
        source: Where audio comes from.
        recognizer: The loaded model.
        settings: All settings; `audio` (what is done with the signal), `vad`, `endpoint` and
            `recognizer` are used.
        sink: Takes each event; called from both threads, must not block.
        is_speech: Judges frames in webrtcvad's place; see `Segmenter`.
        counters: Counts what happens.
        keep: Takes each segment's audio with its end, on the recognition thread; None keeps none.

    Raises:
        SettingsError: The signal is to be processed, and the library for it is not there.
    """

    def __init__(
        self,
        source: FrameSource,
        recognizer: Recognizer,
        settings: Settings,
        sink: Callable[[Event], None],
        *,
        is_speech: Callable[[bytes], bool] | None = None,
        counters: Counters | None = None,
        keep: Callable[[HeardUtterance], None] | None = None,
    ) -> None:
        self._source = source
        self._process = signal_stage(settings.audio)
        self._max_segment_s = recognizer.max_segment_s
        settings = fitted(settings, recognizer)
        self._backlog = Backlog.of(settings.recognizer)
        clock = SystemClock()
        self._listening = Listening(
            settings,
            self._backlog,
            sink,
            clock=clock,
            new_id=lambda: str(ULID()),
            may_wait=source.lossless,
            is_speech=is_speech,
            counters=counters,
        )
        self._recognizing = Recognizing(
            settings,
            recognizer,
            self._backlog,
            sink,
            spent_ns=clock.monotonic_ns,
            fail=self._fail,
            counters=counters,
            keep=keep,
        )
        self._done = threading.Event()
        self.failure: BaseException | None = None
        """Why a thread died, if one did."""
        self._threads = [
            threading.Thread(target=self._guard, args=(run,), name=name, daemon=True)
            for name, run in (("listening", self._listen), ("recognition", self._recognize))
        ]

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Segments that wait for recognition or are at it."""
        return len(self._backlog)

    def change(self, settings: Settings) -> None:
        """Go on with other settings, without losing audio or a segment. Any thread.

        `vad`, `endpoint` and `recognizer` are used, but for the model and its threads.
        """
        endpoint = within(settings.endpoint, self._max_segment_s)
        settings = replace(settings, endpoint=endpoint)
        self._backlog.change(settings.recognizer)
        self._listening.change(settings)
        self._recognizing.change(settings)

    def stop(self) -> None:
        """End soon: what has been said so far is still recognized. Safe in a signal handler."""
        self._source.close()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all is done; False if the time ran out first."""
        if not self._done.wait(timeout_s):
            return False
        deadline = time.monotonic() + (timeout_s or 60.0)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return True

    def _guard(self, run: Callable[[], None]) -> None:
        name = threading.current_thread().name
        try:
            run()
        except HarkdError as error:
            log.error("%s", error)
            self._fail(error)
        except Exception as error:
            log.exception("the %s thread died", name)
            self._fail(error)
        finally:
            self._backlog.close()
            if run == self._recognize:
                self._done.set()

    def _fail(self, error: Exception) -> None:
        self.failure = self.failure or error
        self._source.close()

    def _listen(self) -> None:
        try:
            for event in self._process(self._source.events()):
                self._listening.take(event)
        finally:
            self._listening.end()

    def _recognize(self) -> None:
        while work := self._backlog.next_task(self._recognizing.progress):
            self._recognizing.do(*work)
