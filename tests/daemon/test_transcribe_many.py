"""Many files, recognized in parallel: the results are those of one thread, in the same order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fakes import FakeRecognizer, FakeStream, said, silence, speech
from harkd.app import load
from harkd.errors import AudioFileError, RecognitionError
from harkd.hotword_list import Hotwords
from harkd.interruption import Interrupted
from harkd.model_store import ModelStore
from harkd.recognizer.protocol import Hypothesis
from harkd.second_look import find_second_look
from harkd.settings import Settings
from harkd.transcribe import Discarded, FileSegment, FileTranscriber, Outcome, Utterance
from harkd.transcribe_many import (
    MORE_PLACES,
    PLACES_PER_JOB,
    REST_EVERY_SEGMENTS,
    Cut,
    FileBegan,
    FileEnded,
    FileEvent,
    ManyFiles,
    SegmentRecognized,
)

Script = Sequence[int | Exception]


class ScriptedCut:
    """A file of segments of so many samples, and of exceptions in between."""

    def __init__(self, script: Script) -> None:
        self.length_s = float(len(script))
        self.duration_s = 0.0
        self._script = script

    def __iter__(self) -> Iterator[FileSegment]:
        for step in self._script:
            if isinstance(step, Exception):
                raise step
            self.duration_s += 1
            audio = np.zeros(step, np.int16) if step else None
            yield FileSegment(self.duration_s - 1, self.duration_s, audio)

    def close(self) -> None:
        """Nothing to end."""


def cut_as(files: dict[str, Script | Exception]) -> Callable[[Path, Settings, float], Cut]:
    """What opens these files."""

    def cut(path: Path, _settings: Settings, _max_segment_s: float) -> Cut:
        script = files[path.name]
        if isinstance(script, Exception):
            raise script
        return ScriptedCut(script)

    return cut


def happened(
    files: dict[str, Script | Exception], recognizer: FakeRecognizer, jobs: int = 2
) -> list[FileEvent]:
    paths = [Path(name) for name in files]
    with ManyFiles(paths, recognizer, Settings(), jobs, cut_as(files)) as many:
        return list(many.events())


def texts(events: list[FileEvent]) -> list[str]:
    outcomes = [event.outcome for event in events if isinstance(event, SegmentRecognized)]
    return [each.text for each in outcomes if isinstance(each, Utterance)]


def ends(events: list[FileEvent]) -> list[FileEnded]:
    return [event for event in events if isinstance(event, FileEnded)]


def test_each_file_begins_has_its_outcomes_and_ends() -> None:
    events = happened({"a.wav": [100, 0, 200], "b.wav": [], "c.wav": [300]}, FakeRecognizer())
    assert [type(event) for event in events] == [
        *(FileBegan, SegmentRecognized, SegmentRecognized, SegmentRecognized, FileEnded),
        *(FileBegan, FileEnded),
        *(FileBegan, SegmentRecognized, FileEnded),
    ]
    assert texts(events) == ["100 samples", "200 samples", "300 samples"]
    assert [str(end.path) for end in ends(events)] == ["a.wav", "b.wav", "c.wav"]
    assert [end.duration_s for end in ends(events)] == [3, 0, 1]
    assert [end.fault for end in ends(events)] == [None] * 3
    assert isinstance(events[2], SegmentRecognized)
    assert isinstance(events[2].outcome, Discarded), "too short"


def test_results_come_in_order_though_a_later_one_is_done_first() -> None:
    """The first segment waits until the last one of the next file is recognized."""
    last_is_done = threading.Event()

    def script(samples: int) -> Hypothesis:
        if samples == 100:
            assert last_is_done.wait(10)
        if samples == 400:
            last_is_done.set()
        return said(samples)

    events = happened({"a.wav": [100, 200], "b.wav": [300, 400]}, FakeRecognizer(script))
    assert texts(events) == [f"{samples} samples" for samples in (100, 200, 300, 400)]


def test_short_files_are_recognized_at_the_same_time() -> None:
    """Three files of one segment each: none is done before all have been begun."""
    all_begun = threading.Barrier(3)

    def script(samples: int) -> Hypothesis:
        all_begun.wait(10)
        return said(samples)

    events = happened({"a": [1], "b": [2], "c": [3]}, FakeRecognizer(script), jobs=3)
    assert texts(events) == ["1 samples", "2 samples", "3 samples"]


def test_each_stream_is_used_by_one_thread() -> None:
    threads: dict[int, set[str]] = {}

    class Watched(FakeRecognizer):
        def stream(self, hotwords: Hotwords = ()) -> FakeStream:
            stream = super().stream(hotwords)
            threads.setdefault(id(stream), set()).add(threading.current_thread().name)
            return stream

        def answer(self, stream: FakeStream) -> Hypothesis:
            threads[id(stream)].add(threading.current_thread().name)
            return super().answer(stream)

    happened({"a": [1] * 20}, Watched(), jobs=4)
    assert len(threads) == 20
    assert all(len(names) == 1 for names in threads.values())
    assert set.union(*threads.values()) <= {f"recognition-{n}" for n in range(1, 5)}


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_bounded_number_of_segments_is_under_way(jobs: int) -> None:
    """The reader goes so far ahead of who takes the results, and no farther."""
    places = PLACES_PER_JOB * jobs + MORE_PLACES
    count = 5 * places
    # The one that has just been given, and the one in the reader's hand, have no place.
    ahead = places + 2
    changed = threading.Condition()
    cut_out, given, most_ahead = 0, 0, 0

    class Counted(ScriptedCut):
        def __iter__(self) -> Iterator[FileSegment]:
            nonlocal cut_out, most_ahead
            for segment in super().__iter__():
                with changed:
                    cut_out += 1
                    most_ahead = max(most_ahead, cut_out - given)
                    changed.notify_all()
                yield segment

    def reader_is_at_its_limit() -> bool:
        return cut_out >= min(count, given + ahead)

    with ManyFiles(
        [Path("long.wav")], FakeRecognizer(), Settings(), jobs, lambda *_: Counted([1] * count)
    ) as many:
        for event in many.events():
            if isinstance(event, SegmentRecognized):
                with changed:
                    assert changed.wait_for(reader_is_at_its_limit, 10)
                    given += 1
    assert given == cut_out == count
    assert most_ahead == ahead


def test_a_reader_without_room_stops_when_the_context_is_left() -> None:
    gate = threading.Event()
    recognizer = FakeRecognizer(gate=gate)
    files: dict[str, Script | Exception] = {"a": [1] * 1000}
    with ManyFiles([Path("a")], recognizer, Settings(), 2, cut_as(files)) as many:
        next(many.events())
        assert recognizer.waiting.wait(10)
        gate.set()
    assert not any(t.name.startswith(("reading", "recognition-")) for t in threading.enumerate())
    assert len(recognizer.streams) < 1000


def test_an_interruption_does_not_wait_for_what_is_being_recognized() -> None:
    gate = threading.Event()
    recognizer = FakeRecognizer(gate=gate)
    files: dict[str, Script | Exception] = {"a": [1] * 1000}
    with (  # noqa: PT012 - leaving the context is what is tested
        pytest.raises(Interrupted),
        ManyFiles([Path("a")], recognizer, Settings(), 2, cut_as(files)) as many,
    ):
        next(many.events())
        assert recognizer.waiting.wait(10)
        raise Interrupted(2)
    left = [t for t in threading.enumerate() if t.name.startswith("recognition-")]
    assert left
    assert all(thread.daemon for thread in left)
    gate.set()
    for thread in left:
        thread.join(10)
    assert len(recognizer.streams) <= 2


def test_a_file_that_cannot_be_opened_does_not_keep_the_others() -> None:
    bad = AudioFileError("bad.wav is no audio", "mend it")
    events = happened({"a": [1], "bad.wav": bad, "c": [2]}, FakeRecognizer())
    assert texts(events) == ["1 samples", "2 samples"]
    assert [end.fault for end in ends(events)] == [None, bad, None]


def test_a_file_damaged_in_the_middle_gives_what_comes_before() -> None:
    damage = AudioFileError("b is damaged after 2.0 s")
    events = happened({"a": [1], "b": [2, 3, damage, 4], "c": [5]}, FakeRecognizer())
    assert texts(events) == [f"{n} samples" for n in (1, 2, 3, 5)]
    assert [end.fault for end in ends(events)] == [None, damage, None]
    assert ends(events)[1].duration_s == 2


@pytest.mark.parametrize("jobs", [1, 4])
def test_a_segment_that_fails_ends_its_file_and_no_other(jobs: int) -> None:
    """What is given does not depend on how many workers there are."""

    def script(samples: int) -> Hypothesis:
        if samples in (3, 4):
            raise RecognitionError(f"failed on {samples}")
        return said(samples)

    events = happened({"a": [1, 2, 3, 4, 5], "b": [6]}, FakeRecognizer(script), jobs)
    assert texts(events) == ["1 samples", "2 samples", "6 samples"]
    assert [str(end.fault) for end in ends(events)] == ["failed on 3", "None"]


def test_what_nobody_foresaw_is_raised_where_the_events_are_taken() -> None:
    def script(_: int) -> Hypothesis:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        happened({"a": [1]}, FakeRecognizer(script))
    with pytest.raises(ZeroDivisionError):
        happened({"a": [1, ZeroDivisionError()]}, FakeRecognizer())


def test_memory_is_given_back_now_and_then() -> None:
    rests: list[str] = []

    class Resting(FakeRecognizer):
        def rest(self) -> None:
            rests.append(threading.current_thread().name)

    happened({"a": [1] * (2 * REST_EVERY_SEGMENTS + 1)}, Resting())
    assert len(rests) == 2


def test_recorded_files_give_what_one_thread_gives(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.wav" for n in range(3)]
    for n, path in enumerate(paths):
        parts = [np.concatenate([speech(500 + 40 * k, n + k), silence(900)]) for k in range(4)]
        soundfile.write(path, np.concatenate(parts), 16000)
    wanted = [
        list(FileTranscriber(path, FakeRecognizer(), Settings()).outcomes()) for path in paths
    ]
    with ManyFiles(paths, FakeRecognizer(), Settings(), 3) as many:
        assert per_file(many) == wanted
    assert [len(outcomes) for outcomes in wanted] == [4, 4, 4]


def per_file(many: ManyFiles) -> list[list[Outcome]]:
    outcomes: list[list[Outcome]] = []
    for event in many.events():
        if isinstance(event, FileBegan):
            outcomes.append([])
        elif isinstance(event, SegmentRecognized):
            outcomes[-1].append(event.outcome)
    return outcomes


@pytest.mark.model
def test_the_text_is_the_same_for_any_number_of_jobs(model_dir: Path) -> None:
    """Real recordings, the real model: every text, time and confidence."""
    installed = ModelStore(model_dir.parent).locate(model_dir.name)
    settings = Settings()
    recognizer = load(installed, settings)
    paths = sorted((model_dir / "samples").glob("*.wav"))
    look = find_second_look(settings.vad)
    assert look
    alone = [list(FileTranscriber(path, recognizer, settings, look).outcomes()) for path in paths]
    assert sum(map(len, alone)) >= 9
    for jobs in (1, 4):
        with ManyFiles(paths, recognizer, settings, jobs, second_look=look) as many:
            assert per_file(many) == alone, f"{jobs} jobs"
