"""Recorded files → text, through the same segmenter and recognizer as live audio.

In: a sound file of any rate and channel count. Out: `Utterance` values in order. Runs on the
calling thread, as fast as the machine can.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harkd.audio import RATE_HZ, AudioBlock, FileSource
from harkd.events import RejectReason
from harkd.recognizer.protocol import Recognizer
from harkd.segment import History
from harkd.segmenter import Segmenter, SegmentEvent, SpeechEnded, SpeechStarted, within
from harkd.settings import Settings
from harkd.verdict import rejection, too_short


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recognized utterance of a file."""

    start_s: float
    """Seconds from the file's start to the first speech."""
    end_s: float
    """Seconds from the file's start to the last speech."""
    text: str
    """What was said."""
    confidence: float
    """exp(mean token log-probability), 0…1."""


@dataclass(frozen=True, slots=True)
class Discarded:
    """One segment of a file that gave no text."""

    start_s: float
    """Seconds from the file's start to the first speech."""
    reason: RejectReason
    """Why."""


class FileTranscriber:
    """Transcribes one file.

    Args:
        path: wav, flac, ogg or mp3.
        recognizer: The loaded model.
        settings: `audio.channel`, `vad`, `endpoint` and `recognizer` are used.

    """

    def __init__(self, path: Path, recognizer: Recognizer, settings: Settings) -> None:
        self.path = path
        self._recognizer = recognizer
        self._settings = settings
        endpoint, vad = within(settings.endpoint, recognizer.max_segment_s), settings.vad
        self._segmenter = Segmenter(vad, endpoint)
        # An ended segment reaches back its whole length, its end silence and the pre-roll.
        reach_s = endpoint.max_utterance_s + (endpoint.silence_ms + vad.pre_roll_ms) / 1000 + 2
        self._history = History(int(reach_s * RATE_HZ))
        self._audio_start = 0

    @property
    def duration_s(self) -> float:
        """Seconds of audio read so far."""
        return self._history.end / RATE_HZ

    def utterances(self) -> Iterator[Utterance]:
        """Yield what is said.

        Raises:
            AudioFileError: The file cannot be opened, or is damaged in the middle.
        """
        for outcome in self.outcomes():
            if isinstance(outcome, Utterance):
                yield outcome

    def outcomes(self) -> Iterator[Utterance | Discarded]:
        """Yield what became of each segment, in order. Raises as `utterances` does."""
        source = FileSource(self.path, str(self._settings.audio.channel), paced=False)
        for block in source.events():
            if isinstance(block, AudioBlock):
                self._history.append(block.samples)
                yield from self._recognized(self._segmenter.push(block.samples))
        yield from self._recognized(self._segmenter.flush())

    def _recognized(self, events: list[SegmentEvent]) -> Iterator[Utterance | Discarded]:
        for event in events:
            if isinstance(event, SpeechStarted):
                self._audio_start = event.audio_start
            elif isinstance(event, SpeechEnded):
                yield self._recognize(event)

    def _recognize(self, event: SpeechEnded) -> Utterance | Discarded:
        start_s = round(event.speech_start / RATE_HZ, 2)
        if too_short(event.voiced_ms, self._settings.vad.min_speech_ms):
            return Discarded(start_s, RejectReason.TOO_SHORT)
        stream = self._recognizer.stream()
        stream.accept(self._history.between(self._audio_start, event.audio_end))
        hypothesis = stream.finish()
        if reason := rejection(hypothesis, self._settings.recognizer.min_confidence):
            return Discarded(start_s, reason)
        return Utterance(
            start_s=start_s,
            end_s=round(event.speech_end / RATE_HZ, 2),
            text=hypothesis.text,
            confidence=round(hypothesis.confidence, 3),
        )
