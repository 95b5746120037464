"""Audio in, events out: the only file that owns the threads of recognition.

::

    source ──► listening thread ──► Backlog ──► recognition thread ──► sink
               segmenter            bounded     recognizer

The listening thread never waits for a decode (but for a file, which can wait), so a slow decode
delays text and never loses audio. Partials may be left out; each segment ends in exactly one
`Final` or `Rejected`. Several pipelines can share one recognizer, see `turns`. `virtual_time` runs
the same two parts without threads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, runtime_checkable

from ulid import ULID

from harkd.audio import RATE_HZ, AudioBlock, FrameSource
from harkd.counters import Counters
from harkd.errors import HarkdError
from harkd.events import Event
from harkd.life import LISTENING_S, RECOGNITION_FACTOR, RECOGNITION_S, LifeSign
from harkd.listening import Listening, SystemClock
from harkd.phrase_matching import PhraseMatching
from harkd.recent_utterances import HeardUtterance
from harkd.recognizer.protocol import Recognizer
from harkd.recognizing import Recognizing, fitted
from harkd.second_look import SecondLook
from harkd.segment import Backlog, Segment, Task
from harkd.segmenter import within
from harkd.settings import Settings
from harkd.signal_level import SignalFigures
from harkd.signal_processing import signal_stage
from harkd.threads import Thread
from harkd.turns import Turns
from harkd.wake_gate import WakeGate
from harkd.wake_models import waking_segmenter

log = logging.getLogger(__name__)


@runtime_checkable
class ShowsLife(Protocol):
    """A source that shows life while nothing comes."""

    alive: Callable[[], None]
    """Called every few seconds, and whenever it goes on."""


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
        turns: Shares the recognizer with other pipelines; it is this one's alone if omitted.
        when_done: Called once all is done.
        keep: Takes each segment's audio with its end, on the recognition thread; None keeps none.
        second_look: Hears whether there is a voice, on that thread, where `vad.second_look` is on.
        gate: What opens it besides wake words, where those of `wake` are to be waited for; with
            None, all speech is recognized.

    Raises:
        SettingsError: The signal is to be processed, or a wake word waited for, and the library for
            it is not there.
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
        turns: Turns | None = None,
        when_done: Callable[[], None] = lambda: None,
        keep: Callable[[HeardUtterance], None] | None = None,
        second_look: SecondLook | None = None,
        gate: WakeGate | None = None,
    ) -> None:
        self._source = source
        self._turns = turns
        self._when_done = when_done
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
            segmenter=waking_segmenter(settings, gate, is_speech, counters),
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
            second_look=second_look,
        )
        self._heard_s: float | None = None
        # A file waits where the backlog is full.
        patience_s = LISTENING_S + (RECOGNITION_S if source.lossless else 0.0)
        self._listening_life = LifeSign("listening", patience_s)
        self._recognition_life = LifeSign("recognition", RECOGNITION_S, overdue_s=self._overdue_s)
        self.life = (self._listening_life, self._recognition_life)
        """Whether the two threads make progress."""
        self._done = threading.Event()
        self.failure: BaseException | None = None
        """Why a thread died, if one did."""
        self._threads = [
            Thread(target=self._guard, args=(run,), name=name)
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

    @property
    def audio_age_s(self) -> float | None:
        """Seconds since the last audio came; None before the first."""
        heard_s = self._heard_s
        return None if heard_s is None else time.monotonic() - heard_s

    def signal(self) -> SignalFigures:
        """Return what the signal is like now. Any thread."""
        return self._listening.signal.figures()

    def change(self, settings: Settings) -> None:
        """Go on with other settings, without losing audio or a segment. Any thread.

        `vad`, `endpoint` and `recognizer` are used, but for the model and its threads.
        """
        endpoint = within(settings.endpoint, self._max_segment_s)
        settings = replace(settings, endpoint=endpoint)
        self._backlog.change(settings.recognizer)
        self._listening.change(settings)
        self._recognizing.change(settings)

    def use_phrases(self, phrases: PhraseMatching | None) -> None:
        """Find other phrases from the next segment on; None for none at all. Any thread."""
        self._recognizing.use_phrases(phrases)

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
                self._when_done()

    def _fail(self, error: Exception) -> None:
        self.failure = self.failure or error
        self._source.close()

    def _listen(self) -> None:
        life, shows_life = self._listening_life, False
        if isinstance(self._source, ShowsLife):
            self._source.alive, shows_life = life.beat, True
        life.begin()
        try:
            for event in self._process(self._source.events()):
                life.beat()
                if isinstance(event, AudioBlock):
                    self._heard_s = time.monotonic()
                self._listening.take(event)
                if not shows_life:
                    life.rest()
        finally:
            life.beat()
            self._listening.end()
            life.end()

    def _recognize(self) -> None:
        life, recognizing = self._recognition_life, self._recognizing
        life.begin()
        while work := self._backlog.next_task(recognizing.progress):
            if self._turns is None:
                self._do(work)
                continue
            update = work[1] is Task.UPDATE
            # Who has the turn shows life meanwhile, or does not.
            with self._turns.take(urgent=not update):
                # While a partial waited for its turn, more was said, or all.
                latest = self._backlog.poll(recognizing.progress) if update else work
                if latest:
                    self._do(latest)
        life.end()

    def _do(self, work: tuple[Segment, Task, int]) -> None:
        length_s = work[2] / RATE_HZ
        self._recognition_life.beat(max(RECOGNITION_S, RECOGNITION_FACTOR * length_s))
        self._recognizing.do(*work)
        self._recognition_life.rest()

    def _overdue_s(self) -> float:
        """For how long a segment has waited for its final."""
        ended_ns = self._backlog.ended_ns()
        return 0.0 if ended_ns is None else (time.monotonic_ns() - ended_ns) / 1e9
