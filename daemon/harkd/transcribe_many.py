"""Many recorded files → their transcripts, on all cores.

In: paths. Out: `FileBegan`, `SegmentRecognized`, `FileEnded`, in the order of the paths and of the
audio, whatever the order in which the workers finish. One thread (``reading``) cuts the files into
segments, one file after the other; the workers (``recognition-N``) share one recognizer, each with
a stream of its own; the events come out on the thread that iterates.

A segment holds one of a fixed number of places from when it is cut until its event is taken. So
the memory in use does not depend on how long the files are, nor on how slow the reader of the
events is, and yet the segments of the next files are at hand while the last ones of this are
recognized.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Protocol, Self

from harkd.errors import AudioError, HarkdError, RecognitionError
from harkd.phrase_matching import PhraseMatching
from harkd.recognizer.protocol import Recognizer
from harkd.second_look import SecondLook
from harkd.settings import Settings
from harkd.transcribe import Ears, FileSegment, FileSegments, Outcome

PLACES_PER_JOB = 2
"""One segment that is recognized, and one that is ready for when it is done."""
MORE_PLACES = 2
"""For a segment that is long and holds up those behind it."""
REST_EVERY_SEGMENTS = 32
"""So often the recognizer gives memory back."""


@dataclass(frozen=True, slots=True)
class FileBegan:
    """A file was opened, or could not be: then its end follows."""

    path: Path
    """The file."""
    length_s: float
    """Seconds of audio that it claims to hold; 0 where it cannot be opened."""


@dataclass(frozen=True, slots=True)
class SegmentRecognized:
    """It is known what became of the file's next segment."""

    outcome: Outcome
    """The utterance, or why there is none."""
    end_s: float
    """Seconds from the file's start to the segment's last speech."""


@dataclass(frozen=True, slots=True)
class FileEnded:
    """All of a file is done, or something is wrong with it."""

    path: Path
    """The file."""
    duration_s: float
    """Seconds of audio that were read."""
    took_s: float
    """Seconds from opening it to its last segment's text."""
    fault: HarkdError | None
    """What is wrong with it; None where all was recognized."""


FileEvent = FileBegan | SegmentRecognized | FileEnded


class Cut(Protocol):
    """A file's segments, as `FileSegments` gives them."""

    length_s: float
    """Seconds of audio that the file claims to hold."""

    @property
    def duration_s(self) -> float:
        """Seconds of audio read so far."""

    def __iter__(self) -> Iterator[FileSegment]:
        """Yield the segments, once. Raises AudioFileError where the file is damaged."""

    def close(self) -> None:
        """Yield no more. May be called from any thread."""


@dataclass(slots=True)
class _File:
    """What the threads know together of one file."""

    path: Path
    begin_s: float
    recognized_s: float = 0.0
    failed: bool = False


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a segment's event will be, in order."""

    file: _File
    end_s: float
    outcome: Future[Outcome]


@dataclass(frozen=True, slots=True)
class _End:
    """The reading thread is done with a file."""

    file: _File
    duration_s: float
    fault: HarkdError | None


_Entry = FileBegan | _Place | _End | Exception | None
"""An exception for what nobody foresaw on the reading thread, None for the end of all."""


class ManyFiles:
    """Transcribes files in parallel, with results in order. A context, used once.

    Leaving it by an interruption (`KeyboardInterrupt` and its like) does not wait for
    the recognitions that run; leaving it in any other way does.

    Args:
        paths: The files.
        recognizer: The loaded model, whose streams may be used from several threads at once.
        settings: `audio.channel`, `vad`, `endpoint` and `recognizer` are used.
        jobs: Worker threads.
        cut: Opens one file; tests give another.
        second_look: Hears whether there is a voice, where `vad.second_look` is on.
        phrases: Finds those that are said.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        recognizer: Recognizer,
        settings: Settings,
        jobs: int,
        cut: Callable[[Path, Settings, float], Cut] = FileSegments,
        second_look: SecondLook | None = None,
        phrases: PhraseMatching | None = None,
    ) -> None:
        self._paths = paths
        self._ears = Ears(recognizer, settings, second_look, phrases)
        self._cut = cut
        self._free = threading.Semaphore(PLACES_PER_JOB * jobs + MORE_PLACES)
        self._work: SimpleQueue[tuple[FileSegment, _Place] | None] = SimpleQueue()
        self._ordered: SimpleQueue[_Entry] = SimpleQueue()
        self._stopping = threading.Event()
        self._open: Cut | None = None
        self._counting = threading.Lock()
        self._recognized = 0
        # Daemons: an interrupted command ends without waiting for a long segment's text.
        self._reader = threading.Thread(target=self._read_all, name="reading", daemon=True)
        self._workers = [
            threading.Thread(target=self._recognize_all, name=f"recognition-{n}", daemon=True)
            for n in range(1, jobs + 1)
        ]

    def __enter__(self) -> Self:
        for thread in (self._reader, *self._workers):
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._stop()
        if error is None or isinstance(error, Exception):
            for thread in (self._reader, *self._workers):
                thread.join()

    def events(self) -> Iterator[FileEvent]:
        """Yield what happens, in order. Raises what nobody foresaw on another thread."""
        fault: RecognitionError | None = None
        while (entry := self._ordered.get()) is not None:
            if isinstance(entry, Exception):
                raise entry
            if isinstance(entry, FileBegan):
                fault = None
                yield entry
            elif isinstance(entry, _End):
                yield self._ended(entry, fault)
            else:
                try:
                    outcome = entry.outcome.result()
                except RecognitionError as error:
                    fault = fault or error
                finally:
                    self._free.release()
                if fault is None:
                    yield SegmentRecognized(outcome, entry.end_s)

    def _ended(self, end: _End, fault: HarkdError | None) -> FileEnded:
        file = end.file
        took_s = max(file.recognized_s, file.begin_s) - file.begin_s
        return FileEnded(file.path, end.duration_s, took_s, fault or end.fault)

    def _stop(self) -> None:
        """Let the threads end soon."""
        self._stopping.set()
        if cut := self._open:
            cut.close()
        self._free.release()
        for _ in self._workers:
            self._work.put(None)

    def _read_all(self) -> None:
        """Cut one file after the other. Runs on the reading thread."""
        try:
            for path in self._paths:
                if self._stopping.is_set():
                    return
                self._read(path)
            self._ordered.put(None)
        except Exception as error:  # noqa: BLE001 - the top of a thread; raised by `events`
            self._ordered.put(error)

    def _read(self, path: Path) -> None:
        file = _File(path, time.perf_counter())
        fault: HarkdError | None = None
        try:
            ears = self._ears
            self._open = cut = self._cut(path, ears.settings, ears.recognizer.max_segment_s)
        except AudioError as error:
            self._ordered.put(FileBegan(path, 0.0))
            self._ordered.put(_End(file, 0.0, error))
            return
        self._ordered.put(FileBegan(path, cut.length_s))
        if self._stopping.is_set():
            return  # `_stop` may have looked for an open file too early
        try:
            for segment in cut:
                self._free.acquire()
                if self._stopping.is_set():
                    return
                place = _Place(file, segment.end_s, Future())
                self._ordered.put(place)
                self._work.put((segment, place))
                if file.failed:
                    break
        except AudioError as error:
            fault = error
        self._ordered.put(_End(file, cut.duration_s, fault))

    def _recognize_all(self) -> None:
        """Recognize what has been cut. Runs on each of the workers' threads."""
        while (work := self._work.get()) is not None and not self._stopping.is_set():
            segment, place = work
            try:
                outcome = self._ears.hear(segment)
            except Exception as error:  # noqa: BLE001 - the top of a thread; raised by `events`
                place.file.failed = True
                place.outcome.set_exception(error)
            else:
                place.file.recognized_s = time.perf_counter()
                place.outcome.set_result(outcome)
            del work, segment, place  # while it waits for the next, the audio is gone
            self._rest_now_and_then()

    def _rest_now_and_then(self) -> None:
        with self._counting:
            self._recognized += 1
            due = self._recognized % REST_EVERY_SEGMENTS == 0
        if due:
            self._ears.recognizer.rest()
