"""Measures subjects that turn recordings into text, side by side.

In: subjects and recordings. Out: for each subject what it heard and what that took. The subjects
take turns on each recording, in random order, so that whatever else the machine does hits them
alike. CPU seconds are those of the whole process, all its threads. Runs on the calling thread.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from harkd.audio import RATE_HZ, AudioBlock, Int16
from harkd.errors import HarkdError
from harkd.events import Rejected, RejectReason
from harkd.recognizer.protocol import Work
from harkd.speech_list import Recording
from harkd.transcribe import QuickFileSource

SEED = 1
WARM_UP_SAMPLES = 2 * RATE_HZ


class BenchError(HarkdError):
    """Something that was to be measured cannot be."""


def require_success(event: Rejected) -> None:
    """Raise BenchError where an utterance gave no text because the model failed on it."""
    if event.reason is RejectReason.FAILED:
        raise BenchError(
            f"the model failed on {event.duration_s:.1f} s of speech", "the log says why"
        )


@dataclass(frozen=True, slots=True)
class Heard:
    """What a subject made of one recording. The same in every run, where the subject is."""

    text: str
    """All that it took to be said."""
    work: Work = field(default_factory=Work)
    """What it computed, where it counts that."""
    partials: int = 0
    """Texts that it gave before the last ones."""
    rewrites: int = 0
    """Texts that took words back that an earlier one had shown."""
    words_taken_back: int = 0
    """Those words."""
    finals: int = 0
    """Utterances."""
    rejected: int = 0
    """Segments that gave no text."""
    endpoint_ms: tuple[float, ...] = ()
    """Of each final, milliseconds of audio from the last speech to the event."""


class Subject(Protocol):
    """What is measured."""

    name: str
    """For the report."""

    def prepare(self) -> None:
        """Make ready for a recording; not billed."""

    def hear(self, samples: Int16) -> Heard:
        """Turn a recording into text: int16, shape (n,), 16 kHz mono."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One subject on one recording."""

    recording: Recording
    """The recording."""
    length_s: float
    """Its seconds."""
    cpu_s: float
    """CPU seconds, all threads; the median of the repeats."""
    wall_s: float
    """Seconds; the median of the repeats."""
    heard: Heard
    """What it heard."""


def read_samples(path: Path, channel: str = "mix") -> Int16:
    """Return a sound file as the daemon hears it: int16, shape (n,), 16 kHz mono.

    Raises:
        AudioFileError: It cannot be read.
    """
    events = QuickFileSource(path, channel, paced=False).events()
    pieces = [event.samples for event in events if isinstance(event, AudioBlock)]
    return np.concatenate(pieces) if pieces else np.empty(0, np.int16)


def measure(
    subjects: Sequence[Subject],
    recordings: Sequence[Recording],
    *,
    repeat: int = 1,
    channel: str = "mix",
    done: Callable[[], None] = lambda: None,
) -> list[list[Timed]]:
    """Let each subject hear each recording, and return for each subject its recordings.

    Args:
        subjects: Take turns.
        recordings: Read anew in each round; that is not billed.
        repeat: Rounds over all recordings.
        channel: As `audio.channel`.
        done: Called after each turn.
    """
    order = random.Random(SEED)  # noqa: S311 - it chooses who comes first
    for subject in subjects:
        subject.hear(read_samples(recordings[0].path, channel)[:WARM_UP_SAMPLES])
    turns = {
        (subject, recording): list[tuple[float, float, Heard]]()
        for subject in range(len(subjects))
        for recording in range(len(recordings))
    }
    lengths_s = [0.0] * len(recordings)
    for _ in range(repeat):
        for number, recording in enumerate(recordings):
            samples = read_samples(recording.path, channel)
            lengths_s[number] = len(samples) / RATE_HZ
            for at in order.sample(range(len(subjects)), len(subjects)):
                turns[at, number].append(one_turn(subjects[at], samples))
                done()
    return [
        [
            median_of(turns[at, number], recording, lengths_s[number])
            for number, recording in enumerate(recordings)
        ]
        for at in range(len(subjects))
    ]


def one_turn(subject: Subject, samples: Int16) -> tuple[float, float, Heard]:
    """Return CPU seconds, seconds, and what was heard."""
    subject.prepare()
    begin_s, cpu_begin_s = time.perf_counter(), time.process_time()
    heard = subject.hear(samples)
    return time.process_time() - cpu_begin_s, time.perf_counter() - begin_s, heard


def median_of(
    turns: Sequence[tuple[float, float, Heard]], recording: Recording, length_s: float
) -> Timed:
    """Return one subject's turns on one recording as one."""
    cpu_s, wall_s, heard = zip(*turns, strict=True)
    return Timed(recording, length_s, statistics.median(cpu_s), statistics.median(wall_s), heard[0])


@dataclass(frozen=True, slots=True)
class Spread:
    """How values lie."""

    count: int
    """How many there are."""
    p50: float
    """The median."""
    p95: float
    """19 of 20 are at most that."""
    most: float
    """The greatest."""


def spread_of(values: Sequence[float], digits: int = 0) -> Spread | None:
    """Return how values lie, by nearest rank; None for no values."""
    if not values:
        return None
    ordered = sorted(values)

    def rank(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], digits)

    return Spread(len(ordered), rank(0.5), rank(0.95), rank(1.0))
