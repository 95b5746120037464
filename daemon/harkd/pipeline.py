"""Audio in, events out: the only file that owns the threads of recognition.

::

    source ──► listening thread ──► Backlog ──► recognition thread ──► sink
               segmenter            bounded     recognizer

The listening thread never waits for a decode (but for a file, which can wait), so a slow decode
delays text and never loses audio. Partials may be left out; each segment ends in exactly one
`Final` or `Rejected`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from ulid import ULID

from harkd.audio import RATE_HZ, AudioBlock, FrameSource, SampleClock, SourceLost, SourceOpened
from harkd.errors import HarkdError, RecognitionError
from harkd.events import Event, Final, Rejected, RejectReason, State, StateChanged
from harkd.recognition import SegmentRecognition
from harkd.recognizer.protocol import Recognizer
from harkd.segment import Backlog, History, Progress, Segment, Task
from harkd.segmenter import (
    Segmenter,
    SpeechEnded,
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    within,
)
from harkd.settings import Settings
from harkd.verdict import rejection, too_short

log = logging.getLogger(__name__)

MOST_WAITING = 16
"""Segments that may wait for recognition; at 15 s each they hold 8 MB."""
HISTORY_S = 5
"""Covers the longest pre-roll, the onset window and the search for a cut."""
COST_FACTOR = 2
"""An update is due after at least so many times what the last one took."""
LONG_SAMPLES = 5 * RATE_HZ
"""A pass over more than this leaves so much memory behind that giving it back pays."""
FAILURES_IN_A_ROW = 3
"""So many failed utterances mean that the model is broken, not the audio."""


class Pipeline:
    """Runs a source through segmenter and recognizer.

    Args:
        source: Where audio comes from.
        recognizer: The loaded model.
        settings: All settings; `vad`, `endpoint` and `recognizer` are used.
        sink: Takes each event; called from both threads, must not block.
    """

    def __init__(
        self,
        source: FrameSource,
        recognizer: Recognizer,
        settings: Settings,
        sink: Callable[[Event], None],
    ) -> None:
        self._source = source
        self._recognizer = recognizer
        self._sink = sink
        self._min_speech_ms = settings.vad.min_speech_ms
        self._min_confidence = settings.recognizer.min_confidence
        self._interval = settings.recognizer.partial_interval_ms * RATE_HZ // 1000
        endpoint = within(settings.endpoint, recognizer.max_segment_s)
        if endpoint != settings.endpoint:
            log.warning(
                "the model %s takes %g s at most: longer utterances are cut there, not at "
                "endpoint.max_utterance_s",
                recognizer.name,
                recognizer.max_segment_s,
            )
        self._segmenter = Segmenter(settings.vad, endpoint)
        self._history = History(HISTORY_S * RATE_HZ)
        self._clock = SampleClock()
        self._current: Segment | None = None
        self._capacity = int((endpoint.max_utterance_s + HISTORY_S) * RATE_HZ)
        self._partials = settings.recognizer.partials
        self._backlog = Backlog(MOST_WAITING, self._interval if self._partials else None)
        self._opened = SourceOpened("", 0, 0)
        self._heard = False
        self._state: tuple[State, str] | None = None
        self._failures = 0
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

    # ---------------------------------------------------------------- listening thread

    def _listen(self) -> None:
        try:
            for event in self._source.events():
                match event:
                    case AudioBlock():
                        self._take(event)
                    case SourceOpened():
                        self._opened, self._heard = event, False
                        self._clock.reset()
                    case SourceLost():
                        self._interrupt()
                        self._report_lost(event)
        finally:
            self._interrupt()
            if self._state == (State.SPEECH, ""):
                self._set_state(State.LISTENING)

    def _take(self, block: AudioBlock) -> None:
        if not self._heard:
            self._report_heard(self._opened)
        if block.gap:
            # Positions go on without the lost samples, so older stamps say nothing any more.
            self._clock.reset()
            log.debug("samples were lost before position %d", self._history.end)
        self._clock.update(self._history.end, block.captured_ns)
        self._history.append(block.samples)
        for event in self._segmenter.push(block.samples):
            self._follow(event)
        with self._backlog.changed:
            if self._current and self._feed(self._current, self._segmenter.position):
                self._backlog.changed.notify_all()
        self._set_state(State.SPEECH if self._segmenter.in_speech else State.LISTENING)

    def _interrupt(self) -> None:
        """The audio stops here: end what is being said."""
        for event in self._segmenter.flush():
            self._follow(event)

    def _follow(self, event: SpeechStarted | SpeechPaused | SpeechResumed | SpeechEnded) -> None:
        if isinstance(event, SpeechStarted):
            self._begin(event)
            return
        if (segment := self._current) is None:
            return
        with self._backlog.changed:
            match event:
                case SpeechPaused():
                    self._feed(segment, event.audio_end)
                    segment.paused = True
                case SpeechResumed():
                    segment.paused = False
                    self._feed(segment, event.position)
                case SpeechEnded():
                    self._finish(segment, event)
            self._backlog.changed.notify_all()
        if isinstance(event, SpeechEnded):
            self._current = None

    def _begin(self, event: SpeechStarted) -> None:
        started_at = self._time_of(event.speech_start)
        segment = Segment(
            str(ULID()), event.audio_start, event.speech_start, started_at, self._capacity
        )
        segment.worth = False
        if self._backlog.offer(segment, wait=self._source.lossless):
            self._current = segment
            return
        log.error(
            "recognition is %d segments behind; segment %s is dropped: use a smaller model or a "
            "faster machine",
            MOST_WAITING,
            segment.id,
        )
        self._sink(Rejected(segment.id, RejectReason.OVERLOADED, started_at, 0.0))

    def _feed(self, segment: Segment, position: int) -> bool:
        """Add the audio up to `position`; True where there is more to recognize now."""
        if position > segment.end_position:
            segment.extend(self._history.between(segment.end_position, position))
        if not segment.worth:
            segment.worth = not too_short(self._segmenter.voiced_ms, self._min_speech_ms)
        if segment.paused:
            return False
        segment.limit = position - segment.audio_start
        return True

    def _finish(self, segment: Segment, event: SpeechEnded) -> None:
        segment.paused = False
        self._feed(segment, max(event.audio_end, segment.end_position))
        segment.limit = event.audio_end - segment.audio_start
        segment.speech_end_ns = self._clock.at_ns(event.speech_end)
        segment.closed_ns = time.monotonic_ns()
        segment.ended = event

    def _time_of(self, position: int) -> datetime:
        """When the sample at `position` was captured, UTC."""
        ago_ns = time.monotonic_ns() - self._clock.at_ns(position)
        return datetime.now(UTC) - timedelta(microseconds=ago_ns // 1000)

    def _report_heard(self, event: SourceOpened) -> None:
        """The first audio is there: only now is it known that the source works."""
        self._heard = True
        many = "" if event.channels == 1 else "s"
        log.info(
            "listening to %s at %d Hz, %d channel%s",
            event.device,
            event.rate_hz,
            event.channels,
            many,
        )

    def _report_lost(self, event: SourceLost) -> None:
        if self._state != (State.NO_MICROPHONE, event.reason):
            log.warning("%s", event.reason)
        self._opened = SourceOpened("", 0, 0)
        self._set_state(State.NO_MICROPHONE, event.reason)

    def _set_state(self, state: State, reason: str = "") -> None:
        if self._state == (state, reason):
            return
        self._state = (state, reason)
        self._sink(
            StateChanged(
                state, datetime.now(UTC), reason, self._opened.device, self._opened.rate_hz
            )
        )

    # -------------------------------------------------------------- recognition thread

    def _recognize(self) -> None:
        worker: SegmentRecognition | None = None
        progress = Progress()
        while work := self._backlog.next_task(progress):
            segment, task, limit = work
            worker = worker or SegmentRecognition(segment, self._recognizer, self._sink)
            if task is Task.FINISH:
                self._sink(self._finished(worker, limit))
                worker, progress = None, Progress()
                if not len(self._backlog):
                    self._recognizer.rest()
                continue
            begin_ns = time.monotonic_ns()
            self._update(worker, limit)
            if limit > LONG_SAMPLES:
                self._recognizer.rest()
            cost = (time.monotonic_ns() - begin_ns) * RATE_HZ // 1_000_000_000
            progress.accepted = limit
            progress.next_at = limit + max(self._interval, COST_FACTOR * cost)

    def _update(self, worker: SegmentRecognition, limit: int) -> None:
        """Recognize what has been said so far; a failure here is not yet one of the segment."""
        if self._failures >= FAILURES_IN_A_ROW:
            return
        try:
            worker.update(limit, tell=self._partials)
        except RecognitionError as error:
            log.warning("segment %s, so far: %s", worker.segment.id, error)

    def _finished(self, worker: SegmentRecognition, limit: int) -> Final | Rejected:
        """Return the segment's end, whatever happens."""
        if self._failures >= FAILURES_IN_A_ROW:
            return worker.rejected(RejectReason.FAILED)
        try:
            verdict = self._verdict(worker, limit)
        except RecognitionError as error:
            self._failures += 1
            log.error("segment %s: %s", worker.segment.id, error)
            if self._failures >= FAILURES_IN_A_ROW:
                self._fail(error)
            return worker.rejected(RejectReason.FAILED)
        return verdict

    def _verdict(self, worker: SegmentRecognition, limit: int) -> Final | Rejected:
        ended = worker.segment.ended
        if ended and too_short(ended.voiced_ms, self._min_speech_ms):
            return worker.rejected(RejectReason.TOO_SHORT)
        hypothesis = worker.finish(limit)
        self._failures = 0
        reason = rejection(hypothesis, self._min_confidence)
        return worker.rejected(reason) if reason else worker.final(hypothesis)
