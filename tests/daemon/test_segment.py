"""Segments wait for recognition in a bounded backlog that says what is due next."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from harkd.segment import Backlog, History, Progress, Segment, Task
from harkd.segmenter import Cause, SpeechEnded

Int16 = NDArray[np.int16]
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def count(start: int, end: int) -> Int16:
    """Samples that are their own positions."""
    return np.arange(start, end).astype(np.int16)


# ------------------------------------------------------------------------------- History


@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=30),
    keep=st.integers(1, 100),
    data=st.data(),
)
def test_history_gives_any_range_that_it_still_keeps(
    sizes: list[int], keep: int, data: st.DataObject
) -> None:
    """It keeps `keep_samples` besides the latest piece, so pieces may have any length."""
    history = History(keep)
    for size in sizes:
        history.append(count(history.end, history.end + size))
    total = sum(sizes)
    assert history.end == total
    oldest = max(0, total - sizes[-1] - keep)
    start = data.draw(st.integers(oldest, total))
    end = data.draw(st.integers(start, total))
    assert history.between(start, end).tolist() == list(range(start, end))


def test_history_forgets_what_is_older_than_it_must_keep() -> None:
    history = History(100)
    for at in range(0, 1000, 10):
        history.append(count(at, at + 10))
    with pytest.raises(IndexError, match="audio before sample"):
        history.between(800, 900)
    assert history.between(890, 900).tolist() == list(range(890, 900))


def test_a_piece_longer_than_the_history_does_not_drive_out_what_came_before() -> None:
    history = History(100)
    history.append(count(0, 100))
    history.append(count(100, 5000))
    assert history.between(20, 120).tolist() == list(range(20, 120))


# ------------------------------------------------------------------------------- Segment


def segment(name: str = "A", *, lead: int = 100, limit: int = 0) -> Segment:
    one = Segment(name, audio_start=1000, speech_start=1000 + lead, started_at=NOW, capacity=10_000)
    one.limit = limit
    return one


def ended(one: Segment) -> Segment:
    one.ended = SpeechEnded(1100, 1500, 1600, 25, Cause.SILENCE)
    return one


def test_a_segment_holds_its_audio_from_its_start_on() -> None:
    one = segment()
    assert one.end_position == 1000
    assert one.lead_samples == 100
    one.extend(count(0, 30))
    one.extend(count(30, 30))
    one.extend(count(30, 75))
    assert one.end_position == 1075
    assert one.audio(0, 75).tolist() == list(range(75))
    assert one.audio(20, 40).tolist() == list(range(20, 40))
    assert one.audio(75, 75).shape == (0,)


def test_a_segment_refuses_more_than_its_capacity() -> None:
    one = Segment("A", 0, 0, NOW, capacity=10)
    with pytest.raises(ValueError):
        one.extend(count(0, 11))


# ------------------------------------------------------------------------------- Backlog

INTERVAL = 500


def backlog(*segments: Segment, most: int = 4, interval: int | None = INTERVAL) -> Backlog:
    """With these segments, and closed: `next_task` returns None instead of waiting."""
    one = Backlog(most, interval)
    for each in segments:
        assert one.offer(each, wait=False)
    one.close()
    return one


def task_of(one: Backlog, progress: Progress | None = None) -> Task | None:
    work = one.next_task(progress or Progress())
    return work[1] if work else None


def test_a_full_backlog_refuses_at_once() -> None:
    one = Backlog(2, INTERVAL)
    assert one.offer(segment("A"), wait=False)
    assert one.offer(segment("B"), wait=False)
    assert not one.offer(segment("C"), wait=False)
    assert len(one) == 2


def in_a_thread(run: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(run()), daemon=True)
    thread.start()
    return thread, results


def test_a_full_backlog_makes_those_wait_who_can() -> None:
    one = Backlog(1, INTERVAL)
    one.offer(ended(segment("A")), wait=True)
    thread, accepted = in_a_thread(lambda: one.offer(segment("B"), wait=True))
    thread.join(0.02)
    assert thread.is_alive(), "it did not wait"
    work = one.next_task(Progress())
    assert work
    assert work[0].id == "A"
    thread.join(5)
    assert accepted == [True]
    assert len(one) == 1


def test_closing_frees_those_who_wait_for_room() -> None:
    one = Backlog(1, INTERVAL)
    one.offer(segment("A"), wait=True)
    thread, accepted = in_a_thread(lambda: one.offer(segment("B"), wait=True))
    one.close()
    thread.join(5)
    assert accepted == [False]


def test_segments_are_finished_oldest_first_and_then_gone() -> None:
    one = backlog(*(ended(segment(name, limit=600)) for name in "ABC"))
    works = [one.next_task(Progress()) for _ in range(4)]
    assert [(work[0].id, *work[1:]) for work in works if work] == [
        (name, Task.FINISH, 600) for name in "ABC"
    ]
    assert works[3] is None
    assert len(one) == 0


def test_a_later_segment_waits_for_the_one_that_is_being_spoken() -> None:
    one = backlog(segment("A", limit=50), ended(segment("B")))
    thread, works = in_a_thread(lambda: one.next_task(Progress()))
    thread.join(0.02)
    assert works == []
    with one.changed:
        ended(one._segments[0])
        one.changed.notify_all()
    thread.join(5)
    assert len(works) == 1


@pytest.mark.parametrize("paused", [True, False])
def test_finish_comes_before_all_else(paused: bool) -> None:
    one = ended(segment(limit=5000))
    one.paused = paused
    assert task_of(backlog(one)) is Task.FINISH


@pytest.mark.parametrize(
    ("limit", "next_at", "task"),
    [
        (599, 0, None),  # the pre-roll of 100 is no speech
        (600, 0, Task.UPDATE),
        (600, 601, None),
        (601, 601, Task.UPDATE),
    ],
)
def test_an_update_is_due_after_an_interval_of_speech_and_not_before_next_at(
    limit: int, next_at: int, task: Task | None
) -> None:
    assert task_of(backlog(segment(limit=limit)), Progress(next_at=next_at)) is task


def test_without_an_interval_there_are_no_updates() -> None:
    one = segment(limit=9000)
    assert task_of(backlog(one, interval=None)) is None
    one.paused = True
    assert task_of(backlog(one, interval=None)) is Task.PREPARE, "the final comes as soon as ever"


def test_a_pause_is_prepared_for_once() -> None:
    one = segment(limit=300)
    one.paused = True
    assert task_of(backlog(one), Progress(prepared=299, next_at=9999)) is Task.PREPARE
    assert task_of(backlog(one), Progress(prepared=300)) is None


def test_a_pause_is_prepared_for_also_where_an_update_has_seen_it_all() -> None:
    """An update's text may be approximate."""
    one = segment(limit=2000)
    one.paused = True
    assert task_of(backlog(one), Progress(next_at=2500)) is Task.PREPARE


def cut_at(limit: int) -> Segment:
    one = segment(limit=limit)
    one.cut_announced = True
    return one


def test_an_announced_cut_is_prepared_for_once() -> None:
    assert task_of(backlog(cut_at(5000))) is Task.PREPARE
    assert task_of(backlog(cut_at(5000)), Progress(prepared=5000)) is None, "no update either"
    assert task_of(backlog(cut_at(5000), interval=None)) is Task.PREPARE


def test_a_cut_before_the_last_pause_is_prepared_for_all_the_same() -> None:
    assert task_of(backlog(cut_at(5000)), Progress(prepared=5600)) is Task.PREPARE


@pytest.mark.parametrize("paused", [True, False])
def test_what_may_still_be_a_click_is_not_recognized_before_its_end(paused: bool) -> None:
    one = segment(limit=5000)
    one.paused, one.worth = paused, False
    assert task_of(backlog(one)) is None
    assert task_of(backlog(ended(one))) is Task.FINISH


def test_a_closed_and_empty_backlog_has_no_more_tasks() -> None:
    assert backlog().next_task(Progress()) is None


def test_a_closed_backlog_gives_up_a_segment_that_nobody_is_left_to_end() -> None:
    """Else the recognition thread would wait for ever for a listening thread that has died."""
    assert backlog(segment(limit=50)).next_task(Progress()) is None


def test_next_task_wakes_when_a_segment_changes() -> None:
    one = Backlog(2, INTERVAL)
    growing = segment()
    one.offer(growing, wait=False)
    thread, works = in_a_thread(lambda: one.next_task(Progress()))
    with one.changed:
        growing.limit = 700
        one.changed.notify_all()
    thread.join(5)
    assert works == [(growing, Task.UPDATE, 700)]


def test_next_task_wakes_when_the_backlog_is_closed() -> None:
    one = Backlog(2, INTERVAL)
    thread, works = in_a_thread(lambda: one.next_task(Progress()))
    one.close()
    thread.join(5)
    assert works == [None]


def test_poll_gives_what_is_due_and_never_waits() -> None:
    one = Backlog(2, INTERVAL)
    assert one.poll(Progress()) is None
    growing = segment(limit=599)
    one.offer(growing, wait=False)
    assert one.poll(Progress()) is None
    growing.limit = 600
    assert one.poll(Progress()) == (growing, Task.UPDATE, 600)
    ended(growing)
    assert one.poll(Progress()) == (growing, Task.FINISH, 600)
    assert len(one) == 0


# ------------------------------------------------------------- how much silence ends a pause


def paused_at(limit: int) -> Segment:
    one = segment(limit=limit)
    one.paused = True
    return one


def test_a_pauses_end_silence_is_told_once_it_is_decided() -> None:
    one, growing = Backlog(2, INTERVAL), paused_at(700)
    assert one.end_silence_of(growing) is None
    one.end_pause_after(growing, 700, 6400)
    assert one.end_silence_of(growing) == 6400


def test_a_decision_for_an_earlier_pause_is_ignored() -> None:
    one, growing = Backlog(2, INTERVAL), paused_at(700)
    growing.resume()
    growing.limit, growing.paused = 900, True
    one.end_pause_after(growing, 700, 6400)
    assert one.end_silence_of(growing) is None


def test_a_decision_is_ignored_once_speech_goes_on() -> None:
    one, growing = Backlog(2, INTERVAL), paused_at(700)
    growing.resume()
    one.end_pause_after(growing, 700, 6400)
    assert one.end_silence_of(growing) is None


def test_an_announced_cut_is_no_pause_that_silence_could_end() -> None:
    one, growing = Backlog(2, INTERVAL), cut_at(700)
    one.end_pause_after(growing, 700, 6400)
    assert one.end_silence_of(growing) is None


def test_a_decision_is_void_when_speech_resumes() -> None:
    one, growing = Backlog(2, INTERVAL), paused_at(700)
    one.end_pause_after(growing, 700, 6400)
    growing.resume()
    assert one.end_silence_of(growing) is None


# ------------------------------------------------------------------------------- too much waits


def test_a_segment_with_others_behind_it_gets_no_partial_only_its_final() -> None:
    """Others can only be behind it when it has ended: all work then goes into finals."""
    one = Backlog(4, INTERVAL)
    for name in "AB":
        one.offer(ended(segment(name, limit=600)), wait=False)
    one.offer(segment("C", limit=5000), wait=False)
    works = [one.poll(Progress()) for _ in range(3)]
    assert [(work[0].id, work[1]) for work in works if work] == [
        ("A", Task.FINISH),
        ("B", Task.FINISH),
        ("C", Task.UPDATE),
    ]


def test_the_backlog_tells_since_when_a_final_waits_to_be_begun() -> None:
    one, first, second = Backlog(4, INTERVAL), segment("A", limit=600), segment("B")
    assert one.ended_ns() is None
    one.offer(first, wait=False)
    assert one.ended_ns() is None, "it is being spoken"
    ended(first).closed_ns = 7
    one.offer(second, wait=False)
    assert one.ended_ns() == 7
    assert task_of(one) is Task.FINISH
    assert one.ended_ns() is None
