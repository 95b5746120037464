"""When a wake word was said, and where it ended, from how likely it is."""

from __future__ import annotations

import pytest

from harkd.wake_word import (
    DELAY_SAMPLES,
    PLATEAU_MOST_SAMPLES,
    Reading,
    WordEnded,
    WordHeard,
    WordTracker,
)

STEP = 480


def told(likelihoods: list[float], threshold: float = 0.5) -> list[tuple[int, object]]:
    """What a tracker tells of readings a step apart, each with the number of its reading."""
    tracker = WordTracker()
    found: list[tuple[int, object]] = []
    for i, likelihood in enumerate(likelihoods, 1):
        if tells := tracker.follow(Reading("jarvis", i * STEP, likelihood, threshold)):
            found.append((i, tells))
            if isinstance(tells, WordEnded):
                tracker.reset()
    return found


def test_a_word_is_told_once_its_likelihood_rises_no_more() -> None:
    assert told([0.1, 0.6, 0.8, 0.9, 0.9])[0] == (5, WordHeard("jarvis", 0.9))
    assert told([0.1, 0.6, 0.2])[0] == (3, WordHeard("jarvis", 0.6))


def test_what_stays_below_the_threshold_is_no_word() -> None:
    assert told([0.1, 0.49, 0.49, 0.1]) == []
    assert len(told([0.1, 0.49, 0.49, 0.1], threshold=0.4)) == 2


def test_a_word_ends_before_the_middle_of_what_is_likely() -> None:
    quiet, likely = [0.0] * 40, [0.9] * 11
    found = told([*quiet, *likely, 0.1])
    assert [type(each) for _, each in found] == [WordHeard, WordEnded]
    # Readings 41 to 51 are likely.
    assert found[1] == (52, WordEnded(46 * STEP - DELAY_SAMPLES))


def test_a_likelihood_that_never_falls_is_not_waited_out() -> None:
    found = told([0.9] * 100)
    assert found[1][0] == 1 + PLATEAU_MOST_SAMPLES // STEP + 1


def test_a_word_never_ends_before_the_first_sample() -> None:
    assert told([0.9, 0.9, 0.1, 0.1])[1][1] == WordEnded(0)


def test_another_word_that_becomes_likely_meanwhile_is_not_heard() -> None:
    tracker = WordTracker()
    assert tracker.follow(Reading("jarvis", STEP, 0.7, 0.5)) is None
    assert tracker.follow(Reading("alexa", STEP, 0.99, 0.5)) is None
    assert tracker.follow(Reading("jarvis", 2 * STEP, 0.6, 0.5)) == WordHeard("jarvis", 0.7)


@pytest.mark.parametrize("readings", [1, 2, 3])
def test_where_no_more_comes_a_word_is_told_to_its_end(readings: int) -> None:
    tracker = WordTracker()
    found = [tracker.follow(Reading("jarvis", i * STEP, 0.9, 0.5)) for i in range(readings)]
    kinds = [type(each) for each in [*found, *tracker.finish()] if each]
    assert kinds == [WordHeard, WordEnded]


def test_where_no_word_is_likely_there_is_nothing_to_finish() -> None:
    tracker = WordTracker()
    tracker.follow(Reading("jarvis", STEP, 0.4, 0.5))
    assert tracker.finish() == []
    assert not tracker.within_word
