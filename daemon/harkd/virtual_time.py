"""A source through listening and recognition in lockstep: no threads, and no clock but the audio.

In: a source, taken as fast as it gives. Out: each event, with the audio position at which live
audio would have brought it if recognition took no time. The same audio gives the same events and
the same work in every run: ids, times and the cost of an update come from the audio, too. Runs on
the calling thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import numpy as np

from harkd.audio import RATE_HZ, AudioBlock, FrameSource, Int16, SourceEvent
from harkd.errors import HarkdError
from harkd.events import Event
from harkd.listening import Listening
from harkd.phrase_matching import PhraseMatching
from harkd.recognizer.protocol import Recognizer, Work
from harkd.recognizing import Recognizing, fitted
from harkd.second_look import SecondLook
from harkd.segment import Backlog
from harkd.settings import Settings
from harkd.signal_processing import signal_stage
from harkd.wake_gate import WakeGate
from harkd.wake_models import waking_segmenter

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""The time of day at which the audio begins."""

Cost = float | Callable[[Work], float]


def run_in_virtual_time(
    source: FrameSource,
    recognizer: Recognizer,
    settings: Settings,
    on_event: Callable[[Event, int], None],
    *,
    cost_s: Cost = 0.0,
    is_speech: Callable[[bytes], bool] | None = None,
    second_look: SecondLook | None = None,
    gate: WakeGate | None = None,
    phrases: PhraseMatching | None = None,
) -> int:
    """Run a source to its end, deciding after each block of `audio.block_ms`, as live audio is.

    Args:
        source: Where audio comes from; its stamps are not used.
        recognizer: The loaded model.
        settings: `audio.block_ms`, its signal options, `vad`, `endpoint` and `recognizer` are used.
        on_event: Takes each event and the samples that had been heard by then. An event's `…_at`
            counts from `EPOCH`, its `…_ns` from 0, both at the first sample.
        cost_s: What an update costs, for the cadence of updates alone: seconds for each second of
            audio that it encodes, or a function of its work that returns seconds.
        is_speech: Judges frames in webrtcvad's place; see `Segmenter`.
        second_look: Hears whether there is a voice, where `vad.second_look` is on.
        gate: Where wake words are to be waited for; see `Pipeline`.
        phrases: Finds those that are said.

    Returns:
        The audio's length in samples.

    Raises:
        HarkdError: The source or the model failed; what had been said before it was told.
    """
    lockstep = _Lockstep(
        source, recognizer, settings, on_event, cost_s, is_speech, second_look, gate
    )
    lockstep.use_phrases(phrases)
    return lockstep.run()


class _Lockstep:
    """One run."""

    def __init__(
        self,
        source: FrameSource,
        recognizer: Recognizer,
        settings: Settings,
        on_event: Callable[[Event, int], None],
        cost_s: Cost,
        is_speech: Callable[[bytes], bool] | None,
        second_look: SecondLook | None,
        gate: WakeGate | None,
    ) -> None:
        self._source = source
        self._process = signal_stage(settings.audio)
        self._on_event = on_event
        self._gate = gate
        self._block_samples = settings.audio.block_ms * RATE_HZ // 1000
        self._failure: HarkdError | None = None
        settings = fitted(settings, recognizer)
        self._backlog = Backlog.of(settings.recognizer)
        ids = itertools.count(1)
        self._clock = _AudioClock()
        self._listening = Listening(
            settings,
            self._backlog,
            self._tell,
            clock=self._clock,
            new_id=lambda: f"{next(ids):026}",
            may_wait=False,
            is_speech=is_speech,
            segmenter=waking_segmenter(settings, gate, is_speech),
        )
        self._recognizing = Recognizing(
            settings,
            recognizer,
            self._backlog,
            self._tell,
            spent_ns=_Costs(recognizer.work, cost_s),
            fail=self._fail,
            second_look=second_look,
        )

    def use_phrases(self, phrases: PhraseMatching | None) -> None:
        """Find these phrases."""
        self._recognizing.use_phrases(phrases)

    def run(self) -> int:
        """Return the samples heard."""
        try:
            for event in in_blocks(self._process(self._source.events()), self._block_samples):
                self._take(event)
        except HarkdError as error:
            self._fail(error)
        self._listening.end()
        self._do_what_is_due()
        if self._failure:
            raise self._failure
        return self._listening.position

    def _take(self, event: SourceEvent) -> None:
        if isinstance(event, AudioBlock):
            event = AudioBlock(event.samples, self._clock.monotonic_ns(), event.gap)
            # A live block is there once its last sample is.
            self._clock.position += len(event.samples)
        self._listening.take(event)
        self._do_what_is_due()

    def _do_what_is_due(self) -> None:
        while work := self._backlog.poll(self._recognizing.progress):
            self._recognizing.do(*work)

    def _tell(self, event: Event) -> None:
        if self._gate:
            self._gate.hear(event)
        self._on_event(event, self._listening.position)

    def _fail(self, error: HarkdError) -> None:
        self._failure = self._failure or error
        self._source.close()


def in_blocks(events: Iterator[SourceEvent], block_samples: int) -> Iterator[SourceEvent]:
    """Yield the same events, with the audio in blocks of one size but before a break or the end.

    The blocks' stamps are lost.
    """
    held: Int16 = np.empty(0, np.int16)
    gap = False
    for event in events:
        if isinstance(event, AudioBlock) and not event.gap:
            held = np.concatenate([held, event.samples])
        else:
            if len(held):
                yield AudioBlock(held, 0, gap)
            held, gap = np.empty(0, np.int16), False
            if not isinstance(event, AudioBlock):
                yield event
                continue
            held, gap = event.samples, True
        while len(held) >= block_samples:
            yield AudioBlock(held[:block_samples], 0, gap)
            held, gap = held[block_samples:], False
    if len(held):
        yield AudioBlock(held, 0, gap)


class _AudioClock:
    """Stands where the audio stands."""

    position = 0
    """In samples."""

    def monotonic_ns(self) -> int:
        """Return nanoseconds since the first sample."""
        return self.position * 1_000_000_000 // RATE_HZ

    def utc(self) -> datetime:
        """Return the time since `EPOCH`."""
        return EPOCH + timedelta(microseconds=self.monotonic_ns() // 1000)


class _Costs:
    """Adds up what the work that was done between two calls costs, in nanoseconds."""

    def __init__(self, work: Work, cost_s: Cost) -> None:
        self._work = work
        self._seen = work.snapshot()
        self._cost_s = cost_s
        self._total_ns = 0

    def __call__(self) -> int:
        more = self._work.since(self._seen)
        self._seen = self._work.snapshot()
        cost_s = self._cost_s(more) if callable(self._cost_s) else self._cost_s * more.encoded_s
        self._total_ns += round(cost_s * 1e9)
        return self._total_ns
