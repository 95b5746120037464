"""What a source yields → segments in the backlog, and the daemon's state.

In: `SourceOpened`, `AudioBlock`, `SourceLost` and `SourceMuted`, one after the other. Out:
`Segment`s, which grow in the `Backlog`, and `StateChanged`. Runs on the listening thread, or in
virtual time; never waits for a decode, but where the source can wait, too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from harkd import overruns
from harkd.audio import (
    RATE_HZ,
    AudioBlock,
    Int16,
    SampleClock,
    SourceEvent,
    SourceLost,
    SourceMuted,
    SourceOpened,
)
from harkd.counters import Counters
from harkd.events import (
    AwakeChanged,
    Event,
    Rejected,
    RejectReason,
    State,
    StateChanged,
    Woken,
)
from harkd.overruns import LATE_S, Overruns
from harkd.segment import MOST_WAITING, Backlog, History, Segment
from harkd.segmenter import (
    Cause,
    CutAnnounced,
    Segmenter,
    SegmentEvent,
    SpeechEnded,
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
)
from harkd.settings import Settings
from harkd.signal_level import SignalAdvice, SignalLevel
from harkd.verdict import too_short
from harkd.waking import Awake, WakeWordSaid, WakingEvent, WakingSegmenter

log = logging.getLogger(__name__)

HISTORY_S = 5
"""Covers the longest pre-roll and the onset window, and what lies after a cut."""


class Clock(Protocol):
    """Tells the time."""

    def monotonic_ns(self) -> int:
        """Return the time by which blocks are stamped, in nanoseconds."""

    def utc(self) -> datetime:
        """Return the time of day, UTC."""


class SystemClock:
    """The machine's clocks."""

    def monotonic_ns(self) -> int:
        """Return `time.monotonic_ns()`."""
        return time.monotonic_ns()

    def utc(self) -> datetime:
        """Return the time of day, UTC."""
        return datetime.now(UTC)


class Listening:
    """Follows a source.

    Args:
        settings: `vad` and `endpoint` are used.
        backlog: Takes the segments.
        sink: Takes states and rejections.
        clock: Tells the time.
        new_id: Names a segment.
        may_wait: Whether to wait where the backlog is full; else the segment is rejected.
        is_speech: Judges frames in webrtcvad's place; see `Segmenter`.
        counters: Counts what is heard.
        segmenter: Finds the segments; of all speech unless another is given.
    """

    def __init__(
        self,
        settings: Settings,
        backlog: Backlog,
        sink: Callable[[Event], None],
        *,
        clock: Clock,
        new_id: Callable[[], str],
        may_wait: bool,
        is_speech: Callable[[bytes], bool] | None = None,
        counters: Counters | None = None,
        segmenter: WakingSegmenter | None = None,
    ) -> None:
        self._settings = self._wanted = settings
        self._counters = counters or Counters()
        self._min_speech_ms = settings.vad.min_speech_ms
        self._segmenter: Segmenter | WakingSegmenter = segmenter or Segmenter(
            settings.vad, settings.endpoint, is_speech
        )
        self._history = History(HISTORY_S * RATE_HZ)
        self._backlog = backlog
        self._sink = sink
        self._time = clock
        self._new_id = new_id
        self._may_wait = may_wait
        self._clock = SampleClock()
        self.signal = SignalLevel()
        """What the signal is like."""
        self._current: Segment | None = None
        self._opened = SourceOpened("", 0, 0)
        self._heard = False
        self._deaf = False
        self._overruns = Overruns()
        self._advice = SignalAdvice()
        self._state: tuple[State, str, str] | None = None

    @property
    def position(self) -> int:
        """Samples taken so far."""
        return self._history.end

    def take(self, event: SourceEvent) -> None:
        """Follow what the source yields next."""
        match event:
            case AudioBlock() if self._deaf:
                self.signal.take(raw_of(event), zeros_s=event.zeros_s, lag_s=self._lag_s(event))
            case AudioBlock():
                self._listen(event)
            case SourceOpened():
                self._deaf = False
                self.end()  # where the sound server moves us while somebody speaks
                self._opened, self._heard = event, False
                self._clock.reset()
                self.signal.reset()
            case SourceLost():
                self._deaf = True
                self._counters.count("losses")
                self._report_lost(event)
                self._interrupt()
            case SourceMuted():
                self._deaf = False
                self._opened = SourceOpened("", 0, 0)
                self._set_state(State.MUTED)
                self._interrupt()

    def change(self, settings: Settings) -> None:
        """Go on with other settings from the next block on. Any thread."""
        self._wanted = settings

    def end(self) -> None:
        """No more comes, or from elsewhere: end what is being said."""
        if self._state and self._state[0] is State.SPEECH:
            self._tell(State.LISTENING)
        self._interrupt()

    def _listen(self, block: AudioBlock) -> None:
        if self._wanted is not self._settings:
            self._follow_settings(self._wanted)
        if not self._heard:
            self._report_heard(self._opened)
        self._counters.count("samples", len(block.samples))
        if block.gap:
            # Positions go on without the lost samples, so older stamps say nothing any more.
            self._clock.reset()
            self._counters.count("gaps")
            log.debug("samples were lost before position %d", self._history.end)
        self._clock.update(self._history.end, block.captured_ns)
        self._history.append(block.samples)
        if self._current and (silence := self._backlog.end_silence_of(self._current)):
            self._segmenter.end_pause_after(silence)
        voiced_before = self._segmenter.voiced_frames
        for event in self._segmenter.push(block.samples):
            self._follow(event)
        lag_s = self._lag_s(block)
        if self.signal.take(
            raw_of(block),
            zeros_s=block.zeros_s,
            lag_s=lag_s,
            voiced_frames=self._segmenter.voiced_frames - voiced_before,
        ):
            self._advice.look(self.signal, self._opened.source)
        if (block.gap or lag_s > LATE_S or self._overruns.open) and not self._may_wait:
            self._overruns.note(self._time.monotonic_ns() / 1e9, gap=block.gap, lag_s=lag_s)
        with self._backlog.changed:
            if self._current and self._feed(self._current, self._segmenter.position):
                self._backlog.changed.notify_all()
        self._tell(State.SPEECH if self._segmenter.in_speech else State.LISTENING)

    def _tell(self, state: State) -> None:
        """Tell a state in which audio is heard, with what is wrong with that."""
        reason = self._overruns.reason
        self._set_state(state, reason, overruns.KIND if reason else "")

    def _lag_s(self, block: AudioBlock) -> float:
        """How far the block's end is behind its capture time now."""
        end_ns = block.captured_ns + len(block.samples) * 1_000_000_000 // RATE_HZ
        return max(0.0, (self._time.monotonic_ns() - end_ns) / 1e9)

    def _follow_settings(self, settings: Settings) -> None:
        self._settings = settings
        self._min_speech_ms = settings.vad.min_speech_ms
        self._segmenter.change(settings.vad, settings.endpoint)

    def _interrupt(self) -> None:
        """The audio stops here: end what is being said."""
        for event in self._segmenter.flush():
            self._follow(event)

    def _follow(self, event: WakingEvent) -> None:
        match event:
            case WakeWordSaid():
                self._sink(Woken(event.word, event.score, self._time_of(event.position)))
            case Awake():
                self._sink(AwakeChanged(event.awake))
            case _:
                self._follow_segment(event)

    def _follow_segment(self, event: SegmentEvent) -> None:
        if isinstance(event, SpeechStarted):
            self._begin(event)
            return
        if isinstance(event, SpeechEnded) and event.cause is Cause.SILENCE:
            # Told before its final can be: who follows both then knows that it is still to come.
            self._tell(State.LISTENING)
        if (segment := self._current) is None:
            return
        with self._backlog.changed:
            match event:
                case SpeechPaused():
                    segment.cut_announced = False
                    self._feed(segment, event.audio_end)
                    segment.paused = True
                case CutAnnounced():
                    self._feed(segment, max(event.audio_end, segment.end_position))
                    segment.limit = event.audio_end - segment.audio_start
                    segment.cut_announced = True
                case SpeechResumed():
                    segment.resume()
                    self._feed(segment, event.position)
                case SpeechEnded():
                    self._finish(segment, event)
            self._backlog.changed.notify_all()
        if isinstance(event, SpeechEnded):
            self._current = None

    def _begin(self, event: SpeechStarted) -> None:
        started_at = self._time_of(event.speech_start)
        capacity = self._segmenter.most_samples + HISTORY_S * RATE_HZ
        segment = Segment(
            self._new_id(), event.audio_start, event.speech_start, started_at, capacity
        )
        segment.speech_start_ns = self._clock.at_ns(event.speech_start)
        self._counters.count("segments")
        segment.worth = False
        if self._backlog.offer(segment, wait=self._may_wait):
            self._current = segment
            return
        # `Overload` tells it, once for all that are dropped in a row.
        log.debug("recognition is %d segments behind: %s is dropped", MOST_WAITING, segment.id)
        self._sink(Rejected(segment.id, RejectReason.OVERLOADED, started_at, 0.0))

    def _feed(self, segment: Segment, position: int) -> bool:
        """Add the audio up to `position`; True where there is more to recognize now."""
        if position > segment.end_position:
            segment.extend(self._history.between(segment.end_position, position))
        if segment.held:
            return False
        if not segment.worth:
            segment.worth = not too_short(self._segmenter.voiced_ms, self._min_speech_ms)
        segment.limit = position - segment.audio_start
        return True

    def _finish(self, segment: Segment, event: SpeechEnded) -> None:
        segment.resume()
        self._feed(segment, max(event.audio_end, segment.end_position))
        segment.limit = event.audio_end - segment.audio_start
        segment.speech_end_ns = self._clock.at_ns(event.speech_end)
        segment.closed_ns = self._time.monotonic_ns()
        segment.ended = event

    def _time_of(self, position: int) -> datetime:
        """When the sample at `position` was captured, UTC."""
        ago_ns = self._time.monotonic_ns() - self._clock.at_ns(position)
        return self._time.utc() - timedelta(microseconds=ago_ns // 1000)

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
        self._opened = SourceOpened("", 0, 0)
        if self._state != (State.NO_MICROPHONE, event.reason, ""):
            log.warning("%s", event.reason, extra={"fields": {"problem": event.kind}})
        self._set_state(State.NO_MICROPHONE, event.reason, event.kind)

    def _set_state(self, state: State, reason: str = "", problem: str = "") -> None:
        """Tell a state where it differs from the last one that was told."""
        opened = self._opened
        if self._state == (state, reason, opened.device):
            return
        self._state = (state, reason, opened.device)
        self._sink(
            StateChanged(state, self._time.utc(), reason, opened.device, opened.rate_hz, problem)
        )


def raw_of(block: AudioBlock) -> Int16:
    """Return what the device gave, before it was processed: int16, shape (n,)."""
    return block.samples if block.raw is None else block.raw
