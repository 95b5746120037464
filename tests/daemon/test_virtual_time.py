"""Lockstep without threads: decisions fall where live ones would, and never differ between runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fakes import FakeRecognizer, ScriptedSource, Step, frames_of, is_loud, said, split
from harkd.audio import AudioBlock, FileSource, SourceEvent, SourceLost, SourceOpened
from harkd.errors import AudioFileError, RecognitionError
from harkd.events import Event, Final, Partial, Rejected, RejectReason, State, StateChanged
from harkd.model_package import load_manifest
from harkd.pipeline import Pipeline
from harkd.recognizer.factory import load_recognizer
from harkd.recognizer.protocol import Effort, Hypothesis, Recognizer, Work
from harkd.segmenter import FRAME_SAMPLES as FRAME
from harkd.settings import (
    AudioSettings,
    EndpointSettings,
    RecognizerSettings,
    Settings,
    VadSettings,
)
from harkd.virtual_time import EPOCH, in_blocks, run_in_virtual_time

Int16 = NDArray[np.int16]
SETTINGS = Settings(
    audio=AudioSettings(block_ms=20),
    vad=VadSettings(pre_roll_ms=100, start_ms=60, min_speech_ms=120),
    endpoint=EndpointSettings(pause_ms=100, silence_ms=200, max_utterance_s=15),
    recognizer=RecognizerSettings(partial_interval_ms=500, partial_share=0),
)
"""In frames: a block is one, pre-roll 5, pause 5, end 10, partials every 25."""
PRE, PAUSE, END, INTERVAL = 5, 5, 10, 25
QUIET = "." * 12
OPENED = SourceOpened("desk", 16000, 1)
LOST = SourceLost("no_device", "the microphone is gone; plug it in")
Cost = float | Callable[[Work], float]


def run(
    audio: str | Sequence[Step],
    recognizer: FakeRecognizer | None = None,
    settings: Settings = SETTINGS,
    cost_s: Cost = 0.0,
) -> list[tuple[Event, int]]:
    """The events of a pattern or a script, with the frames heard by then."""
    found: list[tuple[Event, int]] = []
    steps: Sequence[Step] = (
        [OPENED, AudioBlock(frames_of(audio), 0)] if isinstance(audio, str) else audio
    )
    run_in_virtual_time(
        ScriptedSource(steps),
        recognizer or FakeRecognizer(),
        settings,
        lambda event, position: found.append((event, position // FRAME)),
        cost_s=cost_s,
        is_speech=is_loud,
    )
    return found


def kinds(found: list[tuple[Event, int]]) -> list[tuple[object, int]]:
    return [(e.state if isinstance(e, StateChanged) else type(e), at) for e, at in found]


# ----------------------------------------------------------------------------- positions


def test_events_come_where_they_would_in_live_audio_although_it_comes_in_one_piece() -> None:
    assert kinds(run(QUIET + "#" * 60 + "." * 20)) == [
        (State.LISTENING, 1),
        (State.SPEECH, 12 + 3),
        (Partial, 12 + INTERVAL),
        (Partial, 12 + 2 * INTERVAL),
        (Partial, 12 + 60 + PAUSE),
        (State.LISTENING, 12 + 60 + END),
        (Final, 12 + 60 + END),
    ]


def test_decisions_fall_on_the_ends_of_blocks_as_live_ones_do() -> None:
    audio = QUIET + "#" * 60 + "." * 20
    coarse = run(audio, settings=replace(SETTINGS, audio=AudioSettings(block_ms=100)))
    assert {at % 5 for _, at in coarse[:-1]} == {0}
    assert kinds(coarse)[-1] == (Final, 85)


def test_times_and_latencies_come_from_the_audio() -> None:
    *_, (final, _) = run(QUIET + "#" * 60 + "." * 20)
    assert isinstance(final, Final)
    assert final.started_at == EPOCH + timedelta(milliseconds=12 * 20)
    assert final.ended_at == EPOCH + timedelta(milliseconds=72 * 20)
    assert final.speech_end_ns == 72 * 20_000_000
    assert final.endpoint_ns - final.speech_end_ns == 200_000_000


def test_it_returns_the_audios_length() -> None:
    source = ScriptedSource([OPENED, AudioBlock(frames_of("...")[:-7], 0)])
    assert run_in_virtual_time(source, FakeRecognizer(), SETTINGS, lambda *_: None) == 3 * FRAME - 7


@given(sizes=st.lists(st.integers(0, 5000), max_size=30), gaps=st.sets(st.integers(0, 20)))
@example_settings(max_examples=60, deadline=None)
def test_audio_is_cut_anew_into_blocks_of_one_size(sizes: list[int], gaps: set[int]) -> None:
    audio = frames_of("#" * 60)
    pieces = split(audio, sizes)
    given_blocks = [AudioBlock(piece, 0, at in gaps) for at, piece in enumerate(pieces)]
    cut: list[SourceEvent] = list(in_blocks(iter([OPENED, *given_blocks, LOST]), 480))
    assert cut[0] == OPENED
    assert cut[-1] is LOST
    blocks = [event for event in cut if isinstance(event, AudioBlock)]
    assert np.array_equal(np.concatenate([block.samples for block in blocks]), audio)
    gap_at, at = set(), 0
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        assert len(block.samples) == 480 or after is None or after.gap
        gap_at |= {at} if block.gap else set()
        at += len(block.samples)
    starts = np.cumsum([0, *map(len, pieces)])
    told = {int(starts[n]) for n in gaps if n < len(pieces) and starts[n] < len(audio)}
    assert gap_at == told


# --------------------------------------------------------------------------- determinism

RUNS = st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=14)
PATTERNS = RUNS.map(lambda runs: "".join("#."[not voiced] * count for voiced, count in runs))
TEXTS = st.lists(
    st.sampled_from(["Stop.", "Stop it.", "stop it", "Stop it, now", ""]), min_size=1, max_size=5
)
ADAPTIVE = replace(
    SETTINGS,
    endpoint=EndpointSettings(
        pause_ms=100,
        silence_ms=300,
        max_utterance_s=4,
        adaptive=True,
        min_silence_ms=160,
        max_silence_ms=500,
    ),
    recognizer=RecognizerSettings(partial_interval_ms=300, partial_share=0.3),
)


def says(texts: list[str]) -> FakeRecognizer:
    """One that says these texts in turn, by how much it has heard."""
    return FakeRecognizer(lambda samples: Hypothesis(texts[samples // 4000 % len(texts)], 0.9))


@given(pattern=PATTERNS, texts=TEXTS)
@example_settings(max_examples=50, deadline=None)
def test_two_runs_have_the_same_events_and_the_same_work(pattern: str, texts: list[str]) -> None:
    recognizer = says(texts)
    runs = []
    for _ in range(2):
        before = recognizer.work.snapshot()
        found = run(pattern, recognizer, ADAPTIVE, cost_s=0.1)
        runs.append((found, recognizer.work.since(before)))
    assert runs[0] == runs[1]


def transcripts(events: list[Event]) -> list[object]:
    """What is the same whatever the clock says."""
    return [
        (type(e), *((e.text, e.rev, e.stable_chars) if isinstance(e, Partial) else (e.duration_s,)))
        for e in events
        if isinstance(e, Partial | Final | Rejected)
    ]


def in_threads(source: ScriptedSource | FileSource, recognizer: Recognizer) -> list[Event]:
    events: list[Event] = []
    judge = is_loud if isinstance(source, ScriptedSource) else None
    pipeline = Pipeline(source, recognizer, SETTINGS, events.append, is_speech=judge)
    pipeline.start()
    assert pipeline.wait(60)
    assert pipeline.failure is None
    return events


@given(pattern=PATTERNS)
@example_settings(max_examples=30, deadline=None)
def test_with_threads_the_finals_are_the_same(pattern: str) -> None:
    blocks: list[Step] = [AudioBlock(frame, 0) for frame in frames_of(pattern).reshape(-1, FRAME)]
    threads = in_threads(ScriptedSource([OPENED, *blocks], lossless=True), FakeRecognizer())
    virtual = [event for event, _ in run(pattern)]
    assert finals(threads) == finals(virtual)


def finals(events: list[Event]) -> list[object]:
    return [
        (e.text, e.confidence, e.duration_s) if isinstance(e, Final) else e.reason
        for e in events
        if isinstance(e, Final | Rejected)
    ]


@pytest.mark.model
def test_a_real_recording_gives_what_it_gives_with_threads_in_each_run(model_dir: Path) -> None:
    """Without drafts: all tokens of one are quantized together, so a near tie may fall otherwise
    where updates fall elsewhere.
    """
    manifest = load_manifest(model_dir)
    recognizer = load_recognizer(model_dir, manifest, threads=2, effort=Effort(draft=False))
    path = next(model_dir / each.path for each in manifest.samples if "beckett" in each.path)

    def once() -> tuple[list[tuple[Event, int]], Work]:
        found: list[tuple[Event, int]] = []
        before = recognizer.work.snapshot()
        source = FileSource(path, paced=False)
        run_in_virtual_time(source, recognizer, Settings(), lambda *one: found.append(one))
        return found, recognizer.work.since(before)

    (first, work), (second, again) = once(), once()
    assert [at for _, at in first] == [at for _, at in second]
    assert transcripts([e for e, _ in first]) == transcripts([e for e, _ in second])
    assert work == again
    assert work.encoder_passes > 3
    events: list[Event] = []
    pipeline = Pipeline(FileSource(path, paced=False), recognizer, Settings(), events.append)
    pipeline.start()
    assert pipeline.wait(120)
    assert finals([event for event, _ in first]) == finals(events)
    assert finals(events)


# --------------------------------------------------------------------------------- cadence


def asked(settings: RecognizerSettings, cost_s: Cost = 0.0, frames: int = 300) -> list[int]:
    """At how many frames of speech updates came in so much speech, which does not pause."""
    recognizer = FakeRecognizer()
    run(QUIET + "#" * frames, recognizer, replace(SETTINGS, recognizer=settings), cost_s)
    (stream,) = recognizer.streams
    return [at // FRAME - PRE for at in stream.asked_at if at not in stream.prepared_at]


def interval(ms: int = 500, share: float = 0.0) -> RecognizerSettings:
    return RecognizerSettings(partial_interval_ms=ms, partial_share=share)


def test_without_a_share_and_without_costs_updates_come_every_interval() -> None:
    assert asked(interval()) == list(range(25, 301, 25))


def test_with_a_share_they_come_the_less_often_the_longer_the_utterance() -> None:
    """At 25 frames of speech, 30 of audio with the pre-roll: a share of 1 doubles it."""
    assert asked(interval(share=1)) == [25, 55, 115, 235]
    gaps = np.diff(asked(interval(share=0.2)))
    assert gaps[0] == 25, "the interval still is the least"
    assert all(gaps[1:] >= gaps[:-1])
    assert gaps[-1] > 40


def test_the_share_bounds_what_all_updates_together_encode() -> None:
    """A geometric series: less than (1 + 1/share) times the utterance, however long it is."""
    for frames in (300, 700):
        at = asked(interval(ms=100, share=0.25), frames=frames)
        assert sum(each + PRE for each in at) < (1 + 1 / 0.25) * (frames + PRE) + 25


def test_an_update_waits_for_twice_what_the_last_one_cost() -> None:
    """A second of audio costs 0.5 s: after 0.6 s of it comes a wait of 0.6 s."""
    assert asked(interval(), cost_s=0.5)[:3] == [25, 25 + 30, 25 + 30 + 60]


def test_the_cost_may_be_a_function_of_the_work_of_that_one_update() -> None:
    seen: list[Work] = []

    def cost_s(work: Work) -> float:
        seen.append(work)
        return 0.4 * work.encoder_passes

    assert asked(interval(), cost_s) == list(range(25, 301, 40))
    assert {work.encoder_passes for work in seen} == {0, 1}


def test_without_new_speech_there_is_no_update() -> None:
    recognizer = FakeRecognizer()
    long_pause = replace(SETTINGS, endpoint=replace(SETTINGS.endpoint, silence_ms=4000))
    run(QUIET + "#" * 30 + "." * 150, recognizer, long_pause)
    (stream,) = recognizer.streams
    assert stream.asked_at == [(PRE + 25) * FRAME, (PRE + 35) * FRAME]
    assert stream.prepared_at == [(PRE + 35) * FRAME]


# ------------------------------------------------------------------------------------ cuts

CUTTING = replace(
    SETTINGS,
    endpoint=replace(SETTINGS.endpoint, max_utterance_s=4),
    recognizer=interval(ms=100),
)
"""In frames: cut at 200, announced at 175, an update every 5."""


def test_from_an_announced_cut_on_no_partial_hears_what_comes_after_it() -> None:
    begin, cut = 12 - PRE, 153
    audio = frames_of(QUIET + "#" * 260).reshape(-1, FRAME)  # (frames, samples)
    audio[begin + cut - 2 : begin + cut + 1, 1:] = 0
    found = run([OPENED, AudioBlock(audio.reshape(-1), 0)], settings=CUTTING)
    heard = [(e, at - begin) for e, at in found if isinstance(e, Partial | Final)]
    first = [(e, at) for e, at in heard if e.id == heard[0][0].id]
    before = [e for e, at in first if at < 175]
    (prepared, told_at), (final, ended_at) = [one for one in first if one[1] >= 175]
    assert len(before) > 20
    assert isinstance(prepared, Partial)
    assert isinstance(final, Final)
    assert (told_at, ended_at) == (175, 200)
    assert prepared.text == final.text == f"{cut * FRAME} samples"
    after = [at for e, at in heard if e.id != final.id]
    assert after[0] == 200, "the next segment begins with what it has already heard"


def test_a_cut_needs_one_pass_of_its_own_and_no_other() -> None:
    recognizer = FakeRecognizer()
    run(QUIET + "#" * 260 + QUIET, recognizer, replace(CUTTING, recognizer=interval(ms=10_000)))
    streams = recognizer.streams
    assert [(len(one.asked_at), one.new_in_finish) for one in streams] == [(1, 0), (1, 0)]


# -------------------------------------------------------------------------- stable prefixes


def test_a_partial_tells_what_the_hypothesis_before_it_had_too() -> None:
    texts = {1: "turn on", 2: "Turn on the kit", 3: "Turn on the kitchen", 4: "Turn off the"}
    recognizer = FakeRecognizer(lambda n: Hypothesis(texts[(n // FRAME - PRE) // 25], 0.9))
    found = run(QUIET + "#" * 120, recognizer)
    partials = [event for event, _ in found if isinstance(event, Partial)]
    assert [p.text[: p.stable_chars] for p in partials] == ["", "Turn on", "Turn on the", "Turn"]


def test_a_loop_that_was_not_told_makes_nothing_stable() -> None:
    recognizer = FakeRecognizer(
        lambda n: Hypothesis("go go go go", 0.9, looped=n < (PRE + 40) * FRAME)
    )
    found = run(QUIET + "#" * 60, recognizer)
    assert [e.stable_chars for e, _ in found if isinstance(e, Partial)] == [0]


def test_the_next_segments_first_partial_has_nothing_stable() -> None:
    recognizer = FakeRecognizer(lambda _: Hypothesis("on", 0.9))
    found = run((QUIET + "#" * 30 + QUIET) * 2, recognizer)
    assert [e.stable_chars for e, _ in found if isinstance(e, Partial)] == [0, 0]


# -------------------------------------------------------------------------------- failures


def test_what_was_said_before_a_lost_microphone_is_recognized_and_it_goes_on() -> None:
    audio = AudioBlock(frames_of(QUIET + "#" * 20), 0)
    found = run([OPENED, audio, LOST, OPENED, audio])
    assert len([event for event, _ in found if isinstance(event, Final)]) == 2
    assert State.NO_MICROPHONE in [kind for kind, _ in kinds(found)]


def test_a_source_that_fails_is_raised_after_what_was_said() -> None:
    error = AudioFileError("the file is damaged", "convert it anew")
    events: list[Event] = []
    source = ScriptedSource([OPENED, AudioBlock(frames_of(QUIET + "#" * 60), 0), error])
    with pytest.raises(AudioFileError, match="damaged"):
        run_in_virtual_time(
            source, FakeRecognizer(), SETTINGS, lambda e, _: events.append(e), is_speech=is_loud
        )
    assert len([event for event in events if isinstance(event, Final)]) == 1


def test_a_model_that_fails_three_times_is_raised_and_each_segment_has_its_end() -> None:
    def fails(_: int) -> Hypothesis:
        raise RecognitionError("it failed", "check the model")

    events: list[Event] = []
    pieces = [AudioBlock(frames_of(QUIET + "#" * 20 + QUIET), 0) for _ in range(6)]
    source = ScriptedSource([OPENED, *pieces])
    with pytest.raises(RecognitionError, match="it failed"):
        run_in_virtual_time(
            source,
            FakeRecognizer(fails),
            SETTINGS,
            lambda e, _: events.append(e),
            is_speech=is_loud,
        )
    reasons = [event.reason for event in events if isinstance(event, Rejected)]
    assert reasons == [RejectReason.FAILED] * 3


def test_one_failure_is_one_rejection() -> None:
    recognizer = FakeRecognizer()

    def first_fails(samples: int) -> Hypothesis:
        if len(recognizer.streams) == 1:
            raise RecognitionError("it failed")
        return said(samples)

    recognizer.script = first_fails
    found = run((QUIET + "#" * 20 + QUIET) * 2, recognizer)
    ends = [type(event) for event, _ in found if isinstance(event, Final | Rejected)]
    assert ends == [Rejected, Final]
