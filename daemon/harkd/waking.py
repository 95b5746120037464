"""A segmenter that lets only those segments through that a wake word has opened.

In: audio, as `harkd.segmenter` has it, and a `WakeGate`'s wishes. Out: the segmenter's events of
what is to be recognized, and `WakeWordSaid` and `Awake` between them. Decided on audio alone, but
for the wishes: any split of the same audio into pieces gives the same events. Runs on the listening
thread.

::

    asleep ── a wake word ──► what follows it, in the same utterance or the next ──► asleep
              │ said again, at the beginning of that: it counts from there
              └ nothing for `wake.listen_s` ───────────────────────────────────────► asleep

The detector hears only what webrtcvad takes for speech, and a second before that. Where a wake
word ended, the segmenter begins again, and judges what has come since once more: what follows is a
segment of its own, with a beginning and a pre-roll like any other, however soon it follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from harkd.audio import RATE_HZ, Int16
from harkd.counters import Counters
from harkd.segment import History
from harkd.segmenter import (
    FRAME_SAMPLES,
    Cause,
    Segmenter,
    SegmentEvent,
    SpeechEnded,
    SpeechStarted,
)
from harkd.settings import EndpointSettings, VadSettings, WakeSettings
from harkd.wake_gate import WakeGate, Wishes
from harkd.wake_word import WakeDetector, WordEnded, WordHeard, WordTracker

CONTEXT_SAMPLES: Final = RATE_HZ
"""The detector hears so much from before speech: what its models look back on."""
AGAIN_SAMPLES: Final = 2 * RATE_HZ
"""In what is recognized, a wake word counts up to here: later it is part of what is said."""
REST_BEGINS_SAMPLES: Final = 100 * RATE_HZ // 1000
REST_SAMPLES: Final = 300 * RATE_HZ // 1000
"""Speech that begins at once after a wake word and is over so soon is the rest of the word."""
TAIL_SAMPLES: Final = 600 * RATE_HZ // 1000
"""It is waited for so long after speech, also where `endpoint.silence_ms` is less."""
CATCH_UP_SAMPLES: Final = RATE_HZ
"""Who is told to listen while somebody speaks hears so much of what was said before."""
GO_ON_SAMPLES: Final = RATE_HZ
"""What was cut for its length goes on, if it does so this soon."""
HISTORY_SAMPLES: Final = 4 * RATE_HZ
"""Covers the longest way back: a plateau, its delay, and what goes before the speech."""


@dataclass(frozen=True, slots=True)
class WakeWordSaid:
    """A wake word was said."""

    word: str
    """Its name."""
    score: float
    """How sure the detector is, 0…1."""
    position: int
    """One past the sample at which that was known."""


@dataclass(frozen=True, slots=True)
class Awake:
    """From now on what is said is recognized, or is not any more."""

    awake: bool
    """Whether it is."""


WakingEvent = SegmentEvent | WakeWordSaid | Awake


class WakingSegmenter:
    """The segmenter of a microphone with wake words.

    Args:
        vad: The `vad` section.
        endpoint: The `endpoint` section.
        wake: The `wake` section.
        detector: Tells how likely wake words are.
        gate: What is wished from outside.
        is_speech: Judges frames in webrtcvad's place; see `Segmenter`.
        counters: Counts wake words, and what is not recognized for want of one.
    """

    def __init__(
        self,
        vad: VadSettings,
        endpoint: EndpointSettings,
        wake: WakeSettings,
        detector: WakeDetector,
        gate: WakeGate,
        is_speech: Callable[[bytes], bool] | None = None,
        counters: Counters | None = None,
    ) -> None:
        self._inner = Segmenter(vad, endpoint, is_speech)
        self._detector = detector
        self._gate = gate
        self._tracker = WordTracker()
        self._window = int(wake.listen_s * RATE_HZ)
        self._counters = counters or Counters()
        self._history = History(HISTORY_SAMPLES)
        self._rest = np.empty(0, np.int16)
        self._floor = 0  # the detector hears nothing from before this sample
        self._detecting_from = 0  # its first sample
        self._tail_until = 0  # it goes on up to here while no segment is open
        self._segment: SpeechStarted | None = None  # the one that is open
        self._open = False  # whether it is recognized
        self._woken = False  # whether a wake word was said in it
        self._word_end = -RATE_HZ  # where the last wake word ended
        self._held: list[SegmentEvent] = []  # of what may be the rest of a wake word
        self._until = 0  # what begins before this sample is recognized
        self._used_until = 0  # what that was before the last utterance took its turn
        self._session = False
        self._told: bool | None = None
        self._judged = 0
        self.voiced_frames = 0
        """So many frames were taken for speech so far."""

    @property
    def most_samples(self) -> int:
        """The most audio that a segment holds that begins now."""
        return self._inner.most_samples

    @property
    def position(self) -> int:
        """One past the last sample that has been judged."""
        return self._inner.position

    @property
    def in_speech(self) -> bool:
        """True while a segment is open that is recognized."""
        return self._open and not self._held

    @property
    def voiced_ms(self) -> int:
        """Voiced audio in it so far, in milliseconds; 0 while none is open."""
        return self._inner.voiced_ms if self._open else 0

    def change(self, vad: VadSettings, endpoint: EndpointSettings) -> None:
        """Go on with other settings; see `Segmenter.change`."""
        self._inner.change(vad, endpoint)

    def end_pause_after(self, silence: int) -> None:
        """Let the present pause end the segment; see `Segmenter.end_pause_after`."""
        if self._open:
            self._inner.end_pause_after(silence)

    def push(self, samples: Int16) -> list[WakingEvent]:
        """Judge the next piece of audio, int16, shape (n,), any n; return what happened."""
        events: list[WakingEvent] = []
        self._obey(self._gate.take(), events)
        held = np.concatenate([self._rest, samples])
        whole = len(held) - len(held) % FRAME_SAMPLES
        self._rest = held[whole:]
        for at in range(0, whole, FRAME_SAMPLES):
            self._history.append(held[at : at + FRAME_SAMPLES])
            self._catch_up(events)
        return events

    def flush(self) -> list[WakingEvent]:
        """End the stream here: what follows starts afresh, and needs a wake word anew."""
        events: list[WakingEvent] = []
        self._inner.push(self._rest)
        for event in self._inner.flush():
            self._pass(event, events)
        if len(self._rest):
            self._history.append(self._rest)
        self._rest = np.empty(0, np.int16)
        self._floor = self._inner.position
        self._tracker.reset()
        self._until = self._used_until = self._tail_until = 0
        if self._told:
            self._tell(False, events)
        return events

    def _obey(self, wishes: Wishes, events: list[WakingEvent]) -> None:
        opened = wishes.listen or (wishes.session and not self._session)
        self._session = wishes.session
        if wishes.listen:
            self._listen(self.position + self._window)
        if wishes.answered:
            self._used_until = 0
        if wishes.fruitless and self._used_until and not self._open:
            self._until, self._used_until = self._used_until, 0
            if self._segment and self._segment.speech_start < self._until:
                self._go_back_to(self._history.end - HISTORY_SAMPLES, events)
        if opened:
            self._go_back_to(self.position - CATCH_UP_SAMPLES, events)

    def _go_back_to(self, position: int, events: list[WakingEvent]) -> None:
        """Let what is being said, asleep, be heard from its beginning, or from here."""
        if self._segment and not self._open:
            self._begin_again(max(position, self._segment.audio_start), events)
            self._catch_up(events)

    def _listen(self, until: int) -> None:
        self._until, self._used_until = until, 0

    def _catch_up(self, events: list[WakingEvent]) -> None:
        """Judge all frames that have not been, or are to be judged anew."""
        while (at := self._inner.position) + FRAME_SAMPLES <= self._history.end:
            frame = self._history.between(at, at + FRAME_SAMPLES)
            voiced_before = self._inner.voiced_frames
            segment = self._segment
            happened = self._inner.push(frame)
            voiced = self._inner.voiced_frames
            for event in happened:
                self._pass(event, events)
                if self._inner.position <= at:
                    break  # it has begun again, and the rest is void
            if at >= self._judged:
                self._judged = at + FRAME_SAMPLES
                self.voiced_frames += voiced - voiced_before
            if self._held and voiced > voiced_before and at >= self._word_end + REST_SAMPLES:
                self._release(events)
            if segment is self._segment and self._attentive:
                self._detect(frame, events)
            self._tell(self._awake, events)

    @property
    def _awake(self) -> bool:
        return self._open or self._session or self._inner.position < self._until

    @property
    def _attentive(self) -> bool:
        """Whether a wake word counts here."""
        if self._segment is None:
            return self._inner.position <= self._tail_until
        since = self._inner.position - self._segment.speech_start
        return not self._open or self._tracker.within_word or since < AGAIN_SAMPLES

    def _pass(self, event: SegmentEvent, events: list[WakingEvent]) -> None:
        """Take an event of the segmenter, and hand it on where somebody is to be heard."""
        if isinstance(event, SpeechStarted):
            self._segment, self._woken = event, False
            self._open = self._session or event.speech_start < self._until
            if self._open and event.speech_start - self._word_end < REST_BEGINS_SAMPLES:
                self._held.append(event)
            elif self._open:
                events.append(event)
            self._begin_detecting(event, events)
            return
        if isinstance(event, SpeechEnded):
            self._end(event, events)
        elif self._open:
            (self._held or events).append(event)

    def _release(self, events: list[WakingEvent]) -> None:
        """It was not the rest of a word: tell what was held back."""
        events += self._held
        self._held.clear()

    def _end(self, event: SpeechEnded, events: list[WakingEvent]) -> None:
        within_word = self._tracker.within_word
        if self._held and event.speech_end - self._word_end < REST_SAMPLES:
            self._held.clear()
            self._woken, self._open = True, False
        self._release(events)
        if self._open:
            # Nothing may be recognized of a wake word, also where it is not yet told to its end.
            events.append(replace(event, cause=Cause.WAKE_WORD) if within_word else event)
        if not within_word and self._open:
            self._used_until = self._until
            go_on = event.cause is Cause.LENGTH
            self._until = event.audio_end + GO_ON_SAMPLES if go_on else 0
        elif not within_word and not self._woken:
            self._tail_until = event.speech_end + TAIL_SAMPLES
            self._counters.count("unwoken")
        self._segment, self._open = None, False
        told = [] if event.cause is Cause.STREAM_END else self._tracker.finish()
        self._tracker.reset()
        for each in told:
            self._take(each, events)

    def _begin_detecting(self, event: SpeechStarted, events: list[WakingEvent]) -> None:
        """Let the detector hear the speech that has begun, and what was before it."""
        self._detector.reset()
        self._tracker.reset()
        start = event.speech_start - CONTEXT_SAMPLES
        oldest = max(self._floor, self._history.end - HISTORY_SAMPLES)
        self._detecting_from = max(start, oldest)
        self._detect(self._history.between(self._detecting_from, self._inner.position), events)

    def _detect(self, samples: Int16, events: list[WakingEvent]) -> None:
        for reading in self._detector.push(samples):
            if told := self._tracker.follow(reading):
                ended = not isinstance(told, WordHeard)
                self._take(told, events)
                if ended:
                    return

    def _take(self, told: WordHeard | WordEnded, events: list[WakingEvent]) -> None:
        position = self._inner.position
        if isinstance(told, WordHeard):
            self._woken = True
            self._counters.count("wakes")
            self._listen(position + self._window)
            events.append(WakeWordSaid(told.word, told.score, position))
            return
        # At least a frame further than the detector's first sample: it never goes round in circles.
        ended = self._detecting_from + max(FRAME_SAMPLES, told.position)
        self._begin_again(min(position, ended), events)
        self._word_end = self._floor

    def _begin_again(self, position: int, events: list[WakingEvent]) -> None:
        """Let what is said begin at this sample."""
        if self._segment and self.in_speech:
            speech_start, end = self._segment.speech_start, self._inner.position
            voiced_ms = self._inner.voiced_ms
            events.append(SpeechEnded(speech_start, end, end, voiced_ms, Cause.WAKE_WORD))
        self._segment, self._open = None, False
        self._held.clear()
        self._tail_until = 0
        self._tracker.reset()
        behind = self._history.end - position
        self._floor = self._history.end - behind // FRAME_SAMPLES * FRAME_SAMPLES
        self._inner.begin_again(self._floor)

    def _tell(self, awake: bool, events: list[WakingEvent]) -> None:
        if awake is not self._told:
            self._told = awake
            events.append(Awake(awake))
