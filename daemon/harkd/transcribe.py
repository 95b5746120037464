"""Recorded files → text, through the same segmenter and recognizer as live audio.

In: a sound file of any rate and channel count. Out: its `FileSegment` values, and what became of
each (`Utterance`, `Discarded`), in order. Runs on the thread that iterates, as fast as the machine
can; `transcribe_many` spreads the same steps over threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harkd.audio import RATE_HZ, AudioBlock, FileSource, Int16, open_sound_file
from harkd.events import RejectReason
from harkd.hotword_list import from_text
from harkd.phrase_matching import PhraseMatching
from harkd.recognizer.protocol import Recognizer
from harkd.second_look import Look, SecondLook
from harkd.segment import History
from harkd.segmenter import Segmenter, SegmentEvent, SpeechEnded, SpeechStarted, within
from harkd.settings import Settings
from harkd.signal_processing import signal_stage
from harkd.text_style import styled
from harkd.transcript_formats import Utterance
from harkd.verdict import rejection, too_short

__all__ = ["Discarded", "Ears", "FileSegment", "FileSegments", "FileTranscriber", "Utterance"]


@dataclass(frozen=True, slots=True)
class Discarded:
    """One segment of a file that gave no text."""

    start_s: float
    """Seconds from the file's start to the first speech."""
    reason: RejectReason
    """Why."""


Outcome = Utterance | Discarded


@dataclass(frozen=True, slots=True, eq=False)
class FileSegment:
    """One segment of a file, before it is recognized."""

    start_s: float
    """Seconds from the file's start to the first speech."""
    end_s: float
    """Seconds from the file's start to the last speech."""
    audio: Int16 | None
    """int16, shape (n,), 16 kHz mono; None where there is too little speech in it."""


class QuickFileSource(FileSource):
    """A file that is read ahead, in pieces that are worth the effort."""

    BLOCK_S = 0.2  # reads a flac file in a quarter of the time that 0.03 takes


class FileSegments:
    """The segments of one file, cut as live audio is.

    Args:
        path: wav, flac, ogg or mp3.
        settings: `audio.channel` and its signal options, `vad` and `endpoint` are used.
        max_segment_s: The longest audio that the model takes well.

    Raises:
        AudioFileError: The file cannot be opened, or has no such channel.
        SettingsError: The signal is to be processed, and the library for it is not there.
    """

    def __init__(self, path: Path, settings: Settings, max_segment_s: float) -> None:
        channel = str(settings.audio.channel)
        self._process = signal_stage(settings.audio)
        with open_sound_file(path) as sound:
            self.length_s: float = sound.frames / sound.samplerate
            """Seconds of audio that the file claims to hold."""
        self._source = QuickFileSource(path, channel, paced=False)
        endpoint, self._vad = within(settings.endpoint, max_segment_s), settings.vad
        self._segmenter = Segmenter(self._vad, endpoint)
        # An ended segment reaches back its whole length, its end silence and the pre-roll.
        reach_s = endpoint.max_utterance_s + (endpoint.silence_ms + self._vad.pre_roll_ms) / 1000
        self._history = History(int((reach_s + 2) * RATE_HZ))
        self._audio_start = 0
        self._closed = False

    @property
    def duration_s(self) -> float:
        """Seconds of audio read so far."""
        return self._history.end / RATE_HZ

    def __iter__(self) -> Iterator[FileSegment]:
        """Yield the segments, once. Raises AudioFileError where the file is damaged."""
        for block in self._process(self._source.events()):
            if isinstance(block, AudioBlock):
                self._history.append(block.samples)
                yield from self._cut(self._segmenter.push(block.samples))
        if not self._closed:
            yield from self._cut(self._segmenter.flush())

    def close(self) -> None:
        """Yield no more. May be called from any thread."""
        self._closed = True
        self._source.close()

    def _cut(self, events: list[SegmentEvent]) -> Iterator[FileSegment]:
        for event in events:
            if isinstance(event, SpeechStarted):
                self._audio_start = event.audio_start
            elif isinstance(event, SpeechEnded):
                short = too_short(event.voiced_ms, self._vad.min_speech_ms)
                yield FileSegment(
                    start_s=round(event.speech_start / RATE_HZ, 2),
                    end_s=round(event.speech_end / RATE_HZ, 2),
                    audio=None
                    if short
                    else self._history.between(self._audio_start, event.audio_end),
                )


@dataclass(frozen=True, slots=True)
class Ears:
    """What hears the segments of files, all of them alike."""

    recognizer: Recognizer
    """The loaded model."""
    settings: Settings
    """`vad`, `recognizer` and `text` are used."""
    second_look: SecondLook | None = None
    """Hears whether there is a voice, where `vad.second_look` is on."""
    phrases: PhraseMatching | None = None
    """Finds phrases."""

    def hear(self, segment: FileSegment) -> Outcome:
        """Return what is said in a segment, judged as a live one. Raises RecognitionError."""
        look = self.second_look.begin(self.settings.vad) if self.second_look else None
        return recognize(segment, self, look)


def recognize(segment: FileSegment, ears: Ears, look: Look | None) -> Outcome:
    """Return what is said in a segment. Raises RecognitionError."""
    if segment.audio is None:
        return Discarded(segment.start_s, RejectReason.TOO_SHORT)
    if look:
        look.take(segment.audio)
        if not look.enough(len(segment.audio)):
            return Discarded(segment.start_s, RejectReason.NO_VOICE)
    wanted, recognizer = ears.settings, ears.recognizer
    stream = recognizer.stream(from_text(wanted.recognizer.hotwords))
    stream.accept(segment.audio)
    hypothesis = stream.finish()
    voice = look.voice(len(segment.audio)) if look else None
    reason = rejection(hypothesis, wanted.recognizer.min_confidence, voice)
    found = None
    if phrases := ears.phrases:
        reason, found = phrases.judge(reason, lambda: phrases.look(stream, hypothesis))
    if reason:
        return Discarded(segment.start_s, reason)
    said = found or hypothesis
    return Utterance(
        start_s=segment.start_s,
        end_s=segment.end_s,
        text=styled(said.text, wanted.text, recognizer.language),
        confidence=round(said.confidence, 3),
        match=found.match if found else None,
    )


class FileTranscriber:
    """Transcribes one file on the calling thread.

    Args:
        path: wav, flac, ogg or mp3.
        recognizer: The loaded model.
        settings: `audio.channel` and its signal options, `vad`, `endpoint` and `recognizer` are
            used.
        second_look: Hears whether there is a voice, where `vad.second_look` is on.
        phrases: Finds those that are said.
    """

    def __init__(
        self,
        path: Path,
        recognizer: Recognizer,
        settings: Settings,
        second_look: SecondLook | None = None,
        phrases: PhraseMatching | None = None,
    ) -> None:
        self.path = path
        self._ears = Ears(recognizer, settings, second_look, phrases)
        self._segments: FileSegments | None = None

    @property
    def duration_s(self) -> float:
        """Seconds of audio read so far."""
        return self._segments.duration_s if self._segments else 0.0

    def utterances(self) -> Iterator[Utterance]:
        """Yield what is said.

        Raises:
            AudioFileError: The file cannot be opened, or is damaged in the middle.
            RecognitionError: The model failed on a segment.
        """
        for outcome in self.outcomes():
            if isinstance(outcome, Utterance):
                yield outcome

    def outcomes(self) -> Iterator[Outcome]:
        """Yield what became of each segment, in order. Raises as `utterances` does."""
        ears = self._ears
        self._segments = FileSegments(self.path, ears.settings, ears.recognizer.max_segment_s)
        for segment in self._segments:
            yield ears.hear(segment)
