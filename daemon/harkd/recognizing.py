"""Tasks of the backlog → partials, finals and rejections.

In: one task at a time, with its segment. Out: `Partial`, `Final` and `Rejected`, and the silence
that ends a segment in its pause. Runs on the recognition thread, or in virtual time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from harkd.audio import RATE_HZ
from harkd.counters import Counters
from harkd.endpointing import end_silence_ms
from harkd.errors import RecognitionError
from harkd.events import Event, Final, Rejected, RejectReason
from harkd.hotword_list import from_text
from harkd.phrase_matching import PhraseMatching
from harkd.recent_utterances import HeardUtterance
from harkd.recognition import SegmentRecognition
from harkd.recognizer.protocol import Effort, Recognizer
from harkd.second_look import SecondLook
from harkd.segment import Backlog, Progress, Segment, Task
from harkd.segmenter import Cause, within
from harkd.settings import Settings
from harkd.verdict import rejection, too_short

log = logging.getLogger(__name__)

COST_FACTOR = 2
"""An update is due after at least so many times what the last one took."""
FAILURES_IN_A_ROW = 3
"""So many failed utterances mean that the model is broken, not the audio."""


def fitted(settings: Settings, recognizer: Recognizer) -> Settings:
    """Return the settings with utterances no longer than the model takes well."""
    endpoint = within(settings.endpoint, recognizer.max_segment_s)
    if endpoint != settings.endpoint:
        log.warning(
            "the model %s takes %g s at most: longer utterances are cut there, not at "
            "endpoint.max_utterance_s",
            recognizer.name,
            recognizer.max_segment_s,
        )
    return replace(settings, endpoint=endpoint)


def effort_of(settings: Settings) -> Effort:
    """Return what a recognizer may leave out."""
    wanted = settings.recognizer
    return Effort(
        incremental=wanted.incremental,
        draft=wanted.draft,
        partial_confidence=wanted.partial_confidence,
    )


class Recognizing:
    """Does what is due.

    Args:
        settings: `vad`, `endpoint` and `recognizer` are used.
        recognizer: The loaded model.
        backlog: Where the tasks come from.
        sink: Takes each event.
        spent_ns: What recognition has taken so far, in nanoseconds from any start.
        fail: Called once the model is found to be broken; later segments are rejected.
        counters: Counts what recognition costs.
        keep: Takes each segment's audio with its end, before that is told; None keeps none.
        second_look: Hears whether there is a voice, where `vad.second_look` is on; None never does.
    """

    def __init__(
        self,
        settings: Settings,
        recognizer: Recognizer,
        backlog: Backlog,
        sink: Callable[[Event], None],
        *,
        spent_ns: Callable[[], int],
        fail: Callable[[RecognitionError], None],
        counters: Counters | None = None,
        keep: Callable[[HeardUtterance], None] | None = None,
        second_look: SecondLook | None = None,
    ) -> None:
        self._second_look = second_look
        self._phrases: PhraseMatching | None = None
        self._keep = keep
        self._wanted = settings
        self._follow_settings(settings)
        self._counters = counters or Counters()
        self._spent = 0  # on the oldest segment, in nanoseconds
        self._recognizer = recognizer
        self._effort = effort_of(settings)  # a benchmark may have loaded it with another
        self._backlog = backlog
        self._sink = sink
        self._spent_ns = spent_ns
        self._fail = fail
        self._failures = 0
        self._worker: SegmentRecognition | None = None
        self.progress = Progress()
        """How far it is with the oldest segment; for the backlog to find what is due."""

    def change(self, settings: Settings) -> None:
        """Go on with other settings from the next task on. Any thread.

        With effort, hotwords and the text's style from the next segment on.
        """
        self._wanted = settings

    def use_phrases(self, phrases: PhraseMatching | None) -> None:
        """Find other phrases from the next segment on; None for none at all. Any thread."""
        self._phrases = phrases

    def do(self, segment: Segment, task: Task, limit: int) -> None:
        """Do one task on the oldest segment, up to sample `limit`."""
        if self._wanted is not self._settings:
            self._follow_settings(self._wanted)
        worker = self._worker or self._begun(segment)
        if task is Task.FINISH:
            begin_ns = self._spent_ns()
            end = self._finished(worker, limit)
            self._spent += self._spent_ns() - begin_ns
            self._counters.recognized(self._spent / 1e9, limit / RATE_HZ)
            if self._keep:
                audio = segment.audio(0, limit).copy()  # a view would hold all of its buffer
                self._keep(HeardUtterance(audio, end, worker.finished, self._settings))
            self._sink(end)
            self._worker, self.progress, self._spent = None, Progress(), 0
            if not len(self._backlog):
                self._recognizer.rest()
            return
        self._worker = worker
        begin_ns = self._spent_ns()
        if self._updated(worker, task, limit) and task is Task.PREPARE:
            self._judge_pause(worker, limit)
            worker.look_for_phrases(limit)  # so that the final need not wait for it
        spent = self._spent_ns() - begin_ns
        self._spent += spent
        cost = spent * RATE_HZ // 1_000_000_000
        self.progress.prepared = limit if task is Task.PREPARE else 0
        self.progress.next_at = limit + max(
            self._interval, round(self._share * limit), COST_FACTOR * cost
        )

    def _follow_settings(self, settings: Settings) -> None:
        self._settings = settings
        self._endpoint = settings.endpoint
        self._min_speech_ms = settings.vad.min_speech_ms
        self._min_confidence = settings.recognizer.min_confidence
        self._hotwords = from_text(settings.recognizer.hotwords)
        self._partials = settings.recognizer.partials
        self._interval = settings.recognizer.partial_interval_ms * RATE_HZ // 1000
        self._share = settings.recognizer.partial_share

    def _begun(self, segment: Segment) -> SegmentRecognition:
        effort = effort_of(self._settings)
        if effort != self._effort:
            self._effort = self._recognizer.effort = effort
        look = self._second_look.begin(self._settings.vad) if self._second_look else None
        return SegmentRecognition(
            segment,
            self._recognizer,
            self._sink,
            look,
            self._hotwords,
            self._settings.text,
            self._phrases,
        )

    def _updated(self, worker: SegmentRecognition, task: Task, limit: int) -> bool:
        """Recognize what has been said so far; a failure here is not yet one of the segment.

        What the second look takes for noise is not recognized.
        """
        if self._failures >= FAILURES_IN_A_ROW or not worker.has_voice(limit):
            return False
        try:
            tell = self._partials and not (worker.phrases and worker.phrases.only)
            worker.update(limit, prepare=task is Task.PREPARE, tell=tell)
        except RecognitionError as error:
            log.warning("segment %s, so far: %s", worker.segment.id, error)
            return False
        return True

    def _judge_pause(self, worker: SegmentRecognition, limit: int) -> None:
        """Tell the listener how much silence ends the segment in the pause at `limit`.

        Where an announced cut was prepared, the backlog takes no notice: there is no pause.
        """
        if not self._endpoint.adaptive or not worker.latest:
            return
        silence_ms = end_silence_ms(worker.latest, worker.previous, self._endpoint)
        self._backlog.end_pause_after(worker.segment, limit, silence_ms * RATE_HZ // 1000)

    def _finished(self, worker: SegmentRecognition, limit: int) -> Final | Rejected:
        """Return the segment's end, whatever happens."""
        if self._failures >= FAILURES_IN_A_ROW:
            return worker.rejected(RejectReason.FAILED)
        try:
            return self._verdict(worker, limit)
        except RecognitionError as error:
            self._failures += 1
            log.error("segment %s: %s", worker.segment.id, error)
            if self._failures >= FAILURES_IN_A_ROW:
                self._fail(error)
            return worker.rejected(RejectReason.FAILED)

    def _verdict(self, worker: SegmentRecognition, limit: int) -> Final | Rejected:
        ended = worker.segment.ended
        if ended and ended.cause is Cause.WAKE_WORD:
            return worker.rejected(RejectReason.WAKE_WORD)
        if ended and too_short(ended.voiced_ms, self._min_speech_ms):
            return worker.rejected(RejectReason.TOO_SHORT)
        if not worker.has_voice(limit):
            return worker.rejected(RejectReason.NO_VOICE)
        hypothesis = worker.finish(limit)
        self._failures = 0
        reason = rejection(hypothesis, self._min_confidence, worker.voice(limit))
        found = None
        if phrases := worker.phrases:
            reason, found = phrases.judge(reason, lambda: worker.look_for_phrases(limit))
        return worker.rejected(reason) if reason else worker.final(hypothesis, found)
