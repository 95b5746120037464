"""One segment on its way from the listening thread to the recognition thread.

The listening thread writes, the recognition thread reads;
`Backlog` holds the segments between them under one lock, and decides what is to be done next.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

import numpy as np

from harkd.audio import RATE_HZ, Int16
from harkd.segmenter import SpeechEnded
from harkd.settings import RecognizerSettings

MOST_WAITING = 16
"""Segments that may wait for recognition; at 15 s each they hold 8 MB."""


class History:
    """The latest audio by position, for pre-roll.

    Args:
        keep_samples: How much it keeps at least, besides the latest piece.
    """

    def __init__(self, keep_samples: int) -> None:
        self._keep = keep_samples
        self._pieces: deque[Int16] = deque()
        self._held = 0
        self.end = 0
        """One past the last sample's position."""

    def append(self, samples: Int16) -> None:
        """Add the next audio: int16, shape (n,)."""
        self._pieces.append(samples)
        self._held += len(samples)
        self.end += len(samples)
        # The piece may be of any length, and what lies in it may begin in the one before.
        while self._held - len(samples) - len(self._pieces[0]) >= self._keep:
            self._held -= len(self._pieces.popleft())

    def between(self, start: int, end: int) -> Int16:
        """Return the audio of positions start…end as int16, shape (end - start,)."""
        oldest = self.end - self._held
        if start < oldest:
            raise IndexError(f"audio before sample {oldest} is gone, {start} was asked for")
        taken: list[Int16] = []
        after = self.end  # what is asked for mostly lies near the end
        for piece in reversed(self._pieces):
            if after <= start:
                break
            at = after - len(piece)
            if at < end:
                taken.append(piece[max(0, start - at) : end - at])
            after = at
        taken.reverse()
        return np.concatenate(taken) if taken else np.empty(0, np.int16)


class Segment:
    """One segment's audio and how far it may be read.

    Args:
        ident: ULID.
        audio_start: Position of its first sample.
        speech_start: Position at which speech begins in it.
        started_at: When that was, UTC.
        capacity: The most samples it will hold.
    """

    def __init__(
        self, ident: str, audio_start: int, speech_start: int, started_at: datetime, capacity: int
    ) -> None:
        self.id = ident
        self.audio_start = audio_start
        self.speech_start = speech_start
        self.started_at = started_at
        self._audio = np.empty(capacity, np.int16)  # (capacity,), filled up to _filled
        self._filled = 0
        self.limit = 0
        """So many samples are worth recognizing now; lags behind the audio while `held`."""
        self.worth = True
        """False while it has too little speech to be recognized: it may be a click."""
        self.paused = False
        """True while the speaker is silent."""
        self.cut_announced = False
        """True once it is to be cut at `limit`, until a pause makes that void.

        What it holds beyond goes to the next segment.
        """
        self.end_silence: int | None = None
        """Samples of silence that end it in this pause; None where that is not decided."""
        self.ended: SpeechEnded | None = None
        """How it ended; None while it is being spoken."""
        self.speech_start_ns = 0
        """Monotonic time at which speech begins in it; 0 where that is not known."""
        self.speech_end_ns = 0
        """Monotonic time of the last speech sample; known once it has ended."""
        self.closed_ns = 0
        """Monotonic time at which the endpoint was decided."""

    @property
    def end_position(self) -> int:
        """One past the position of its last sample."""
        return self.audio_start + self._filled

    @property
    def lead_samples(self) -> int:
        """Samples before speech begins: the pre-roll."""
        return self.speech_start - self.audio_start

    @property
    def held(self) -> bool:
        """True while `limit` stays where it is, and may be its end: its final can be prepared."""
        return self.paused or self.cut_announced

    def extend(self, samples: Int16) -> None:
        """Add audio: int16, shape (n,)."""
        self._audio[self._filled : self._filled + len(samples)] = samples
        self._filled += len(samples)

    def resume(self) -> None:
        """The pause is over, and what was decided for it is void."""
        self.paused = False
        self.end_silence = None

    def audio(self, start: int, end: int) -> Int16:
        """Return samples start…end of the segment: int16, shape (end - start,)."""
        return self._audio[start:end]


class Task(Enum):
    """What the recognition thread does next with a segment."""

    UPDATE = auto()
    """Recognize what has been said so far, for a partial: the stream's `hypothesis`."""
    PREPARE = auto()
    """The speaker paused, or a cut was announced: this may be the final: the stream's `prepare`."""
    FINISH = auto()
    """The segment has ended: make its final: its `finish`."""


@dataclass(slots=True)
class Progress:
    """How far the recognition thread is with the segment at the head."""

    prepared: int = 0
    """Samples for which the final has been prepared; 0 once more of them have been recognized."""
    next_at: int = 0
    """The next update is due when the limit has come so far."""


def interval_of(settings: RecognizerSettings) -> int | None:
    """Return after how many samples the first update is due; None for no updates."""
    return settings.partial_interval_ms * RATE_HZ // 1000 if settings.partials else None


class Backlog:
    """Segments that wait for recognition, oldest first; bounded.

    Args:
        most: So many segments may wait.
        interval: The first update is due after so many samples of speech; None for no updates.
    """

    def __init__(self, most: int, interval: int | None) -> None:
        self._most = most
        self._interval = interval
        self._segments: deque[Segment] = deque()
        self.changed = threading.Condition()
        """Held while a segment in the backlog is changed; notified after."""
        self._closed = False

    @classmethod
    def of(cls, settings: RecognizerSettings) -> Backlog:
        """Return an empty backlog that asks for updates as the settings do."""
        return cls(MOST_WAITING, interval_of(settings))

    def offer(self, segment: Segment, *, wait: bool) -> bool:
        """Add a segment. Where it is full, wait for room or return False."""
        with self.changed:
            if wait:
                self.changed.wait_for(lambda: len(self._segments) < self._most or self._closed)
            if len(self._segments) >= self._most:
                return False
            self._segments.append(segment)
            self.changed.notify_all()
            return True

    def change(self, settings: RecognizerSettings) -> None:
        """Ask for updates as other settings do, from now on."""
        with self.changed:
            self._interval = interval_of(settings)
            self.changed.notify_all()

    def close(self) -> None:
        """No more segments come; `next_task` returns None once all are done."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()

    def __len__(self) -> int:
        return len(self._segments)

    def ended_ns(self) -> int | None:
        """Return when the oldest segment ended, where its final is still to be begun. Any thread.

        In nanoseconds, monotonic.
        """
        with self.changed:
            head = self._segments[0] if self._segments else None
            return head.closed_ns if head and head.ended else None

    def next_task(self, progress: Progress) -> tuple[Segment, Task, int] | None:
        """Wait for work on the oldest segment: it, the task, and up to which sample.

        Returns None when the backlog is closed and all that has ended is done.
        """
        with self.changed:
            while True:
                if work := self.poll(progress):
                    return work
                if self._closed and not any(segment.ended for segment in self._segments):
                    return None  # an open segment was given up: nobody is left to end it
                self.changed.wait()

    def poll(self, progress: Progress) -> tuple[Segment, Task, int] | None:
        """Return what `next_task` would, or None where it would wait."""
        with self.changed:
            if not self._segments:
                return None
            segment = self._segments[0]
            task = self._due(segment, progress)
            if task is Task.FINISH:
                self._segments.popleft()
                self.changed.notify_all()
            return (segment, task, segment.limit) if task else None

    def end_pause_after(self, segment: Segment, limit: int, silence: int) -> None:
        """Let a pause end its segment after so many samples of silence.

        Nothing happens where the segment is not, or no more, in the pause that was prepared up to
        sample `limit`: it was an announced cut that was prepared, which silence does not end; or
        the speaker went on, perhaps up to another pause; or the segment has ended.
        """
        with self.changed:
            if segment.paused and segment.limit == limit:
                segment.end_silence = silence

    def end_silence_of(self, segment: Segment) -> int | None:
        """Return the samples of silence that end a segment in its pause, once decided."""
        with self.changed:
            return segment.end_silence

    def _due(self, segment: Segment, progress: Progress) -> Task | None:
        if segment.ended:
            return Task.FINISH
        if not segment.worth:
            return None
        if segment.held:
            # A cut may lie before the pause that was prepared last.
            return Task.PREPARE if segment.limit != progress.prepared else None
        if self._interval is None:
            return None
        first_at = segment.lead_samples + self._interval
        return Task.UPDATE if segment.limit >= max(progress.next_at, first_at) else None
