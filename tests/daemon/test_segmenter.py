"""The segmenter finds speech, decided on audio alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fakes import frames_of, is_loud, silence, speech, split
from harkd.audio import RATE_HZ
from harkd.segmenter import (
    FRAME_MS,
    FRAME_SAMPLES,
    Cause,
    CutAnnounced,
    Segmenter,
    SegmentEvent,
    SpeechEnded,
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    within,
)
from harkd.settings import EndpointSettings, VadSettings

Int16 = NDArray[np.int16]
FRAME = FRAME_SAMPLES

VAD = VadSettings(pre_roll_ms=100, start_ms=60)
ENDPOINT = EndpointSettings(pause_ms=100, silence_ms=200, max_utterance_s=2)
"""In frames: starts with 3, pre-roll 5, pauses after 5, ends after 10, cut at 100.

A cut is announced at 75, within the 50 before.
"""

FINEST = EndpointSettings(pause_ms=60, silence_ms=100, max_utterance_s=2)
SETTINGS = [
    (VAD, ENDPOINT),
    (VadSettings(pre_roll_ms=0, start_ms=20), FINEST),
    (VadSettings(pre_roll_ms=2000, start_ms=500), ENDPOINT),
    (VadSettings(pre_roll_ms=2000, start_ms=20), ENDPOINT),
    (VAD, EndpointSettings(pause_ms=200, silence_ms=200, max_utterance_s=2)),
    (VAD, EndpointSettings(pause_ms=70, silence_ms=130, max_utterance_s=2.01)),
    (VAD, EndpointSettings(pause_ms=2000, silence_ms=5000, max_utterance_s=2)),
    (VAD, EndpointSettings(pause_ms=60, silence_ms=5000, max_utterance_s=2)),
    (VAD, within(FINEST, 0.3)),
]

# Runs make long pauses and long speech likely, where single coin flips would never make them.
RUNS = st.lists(st.tuples(st.booleans(), st.integers(1, 60)), max_size=12)
PATTERNS = RUNS.map(lambda runs: [voiced for voiced, count in runs for _ in range(count)])
NOISY = st.tuples(PATTERNS, st.lists(st.integers(0, 400), max_size=20)).map(
    lambda made: [mark != (at in made[1]) for at, mark in enumerate(made[0])]
)
SIZES = st.lists(st.one_of(st.just(0), st.just(1), st.integers(0, 2000)), max_size=60)


def segmenter(vad: VadSettings = VAD, endpoint: EndpointSettings = ENDPOINT) -> Segmenter:
    return Segmenter(vad, endpoint, is_loud)


def events_of(
    pattern: Sequence[bool] | str,
    vad: VadSettings = VAD,
    endpoint: EndpointSettings = ENDPOINT,
    *,
    flush: bool = True,
) -> list[SegmentEvent]:
    one = segmenter(vad, endpoint)
    events = one.push(frames_of(pattern))
    return [*events, *one.flush()] if flush else events


def ends(events: list[SegmentEvent]) -> list[SpeechEnded]:
    return [event for event in events if isinstance(event, SpeechEnded)]


def starts(events: list[SegmentEvent]) -> list[SpeechStarted]:
    return [event for event in events if isinstance(event, SpeechStarted)]


# ------------------------------------------------------------------------- streaming laws


@given(pattern=NOISY, sizes=SIZES, extra=st.integers(0, FRAME - 1), case=st.sampled_from(SETTINGS))
@settings(max_examples=80, deadline=None)
def test_any_split_of_the_audio_gives_the_same_events(
    pattern: list[bool],
    sizes: list[int],
    extra: int,
    case: tuple[VadSettings, EndpointSettings],
) -> None:
    audio = np.concatenate([frames_of(pattern), frames_of("#")[:extra]])
    whole, pieces = segmenter(*case), segmenter(*case)
    expected = whole.push(audio)
    found = [event for piece in split(audio, sizes) for event in pieces.push(piece)]
    assert found == expected
    assert pieces.position == whole.position == len(pattern) * FRAME
    assert pieces.flush() == whole.flush()
    assert pieces.position == whole.position == len(audio)


SPOKEN = np.concatenate([silence(330), speech(700), silence(450), speech(900, 2), silence(1000)])


@given(sizes=SIZES)
@settings(max_examples=25, deadline=None)
def test_any_split_gives_the_same_events_with_webrtcvad(sizes: list[int]) -> None:
    whole, pieces = Segmenter(VAD, ENDPOINT), Segmenter(VAD, ENDPOINT)
    expected = whole.push(SPOKEN)
    assert len(ends(expected)) == 2
    assert [event for piece in split(SPOKEN, sizes) for event in pieces.push(piece)] == expected


def test_one_sample_at_a_time_gives_the_same_events() -> None:
    audio = frames_of("..####......###" + "." * 10)
    one = segmenter()
    assert [event for sample in audio for event in one.push(np.array([sample], np.int16))] == (
        segmenter().push(audio)
    )


@pytest.mark.parametrize("aggressiveness", [0, 1, 2, 3])
def test_webrtcvad_takes_the_synthetic_speech_for_speech(aggressiveness: int) -> None:
    """The other tests' audio is worth something: one utterance, where it was put."""
    one = Segmenter(VadSettings(aggressiveness=aggressiveness), EndpointSettings())
    events = one.push(np.concatenate([silence(1000), speech(1500), silence(1500)]))
    (start,), (end,) = starts(events), ends(events)
    assert abs(start.speech_start - RATE_HZ) <= 2 * FRAME
    assert RATE_HZ * 5 // 2 - FRAME <= end.speech_end <= RATE_HZ * 5 // 2 + RATE_HZ // 4
    assert end.voiced_ms >= 1450


@given(ms=st.integers(0, 3000), sizes=SIZES)
@settings(max_examples=20, deadline=None)
def test_silence_yields_nothing(ms: int, sizes: list[int]) -> None:
    one = Segmenter(VadSettings(aggressiveness=0, start_ms=20), FINEST)
    assert [event for piece in split(silence(ms), sizes) for event in one.push(piece)] == []
    assert one.flush() == []
    assert not one.in_speech


@given(before=NOISY, after=NOISY, extra=st.integers(0, FRAME - 1), case=st.sampled_from(SETTINGS))
@settings(max_examples=60, deadline=None)
def test_after_a_flush_it_is_as_fresh(
    before: list[bool], after: list[bool], extra: int, case: tuple[VadSettings, EndpointSettings]
) -> None:
    """What follows a flush gives a fresh segmenter's events, with positions shifted."""
    used = segmenter(*case)
    used.push(np.concatenate([frames_of(before), frames_of("#")[:extra]]))
    used.flush()
    assert not used.in_speech
    shift = used.position
    assert shift == len(before) * FRAME + extra
    audio = frames_of(after, seed=2)
    # Positions are the only integers that are no milliseconds.
    expected = [_shifted(event, shift) for event in segmenter(*case).push(audio)]
    assert used.push(audio) == expected


def test_webrtcvad_is_as_fresh_after_a_flush() -> None:
    used = Segmenter(VAD, ENDPOINT)
    used.push(speech(777))
    assert len(used.flush()) == 1
    shift = used.position
    fresh = Segmenter(VAD, ENDPOINT).push(SPOKEN)
    assert used.push(SPOKEN) == [_shifted(event, shift) for event in fresh]


def _shifted(event: SegmentEvent, by: int) -> SegmentEvent:
    match event:
        case SpeechStarted(audio_start, speech_start):
            return SpeechStarted(audio_start + by, speech_start + by)
        case SpeechPaused(speech_end, audio_end):
            return SpeechPaused(speech_end + by, audio_end + by)
        case SpeechResumed(position):
            return SpeechResumed(position + by)
        case CutAnnounced(audio_end):
            return CutAnnounced(audio_end + by)
        case SpeechEnded(speech_start, speech_end, audio_end, voiced_ms, cause):
            return SpeechEnded(speech_start + by, speech_end + by, audio_end + by, voiced_ms, cause)


@given(pattern=NOISY, case=st.sampled_from(SETTINGS))
@settings(max_examples=250, deadline=None)
def test_the_events_of_any_pattern_keep_their_contract(
    pattern: list[bool], case: tuple[VadSettings, EndpointSettings]
) -> None:
    vad, endpoint = case
    one, marks = segmenter(vad, endpoint), np.array([*pattern], bool)
    fed = [(event, one.position) for frame in frames_of(pattern).reshape(-1, FRAME)
           for event in one.push(frame)]  # fmt: skip
    fed += [(event, one.position) for event in one.flush()]
    assert not one.in_speech
    opened: SpeechStarted | None = None
    paused: SpeechPaused | None = None
    announced: CutAnnounced | None = None
    goes_on_at: int | None = None
    previous_end = noticed_at = 0
    for event, position in fed:
        if goes_on_at is not None:
            assert event == SpeechStarted(previous_end, goes_on_at), "speech was lost after a cut"
            goes_on_at = None
        match event:
            case SpeechStarted():
                assert opened is None, "a segment in a segment"
                assert previous_end <= event.audio_start <= event.speech_start < position
                # After a cut comes at most what was searched for it, and what announced it.
                assert event.speech_start - event.audio_start <= max(
                    vad.pre_roll_ms * RATE_HZ // 1000, RATE_HZ * 3 // 2
                )
                assert marks[event.speech_start // FRAME], "begins with an unvoiced frame"
                opened, paused = event, None
            case CutAnnounced():
                assert opened is not None
                assert paused is None, "announced in a pause"
                assert announced is None, "announced twice"
                assert opened.speech_start < event.audio_end <= position
                announced = event
            case SpeechPaused():
                assert opened is not None
                assert paused is None, "paused in a pause"
                assert opened.speech_start < event.speech_end < event.audio_end == position
                assert event.audio_end - event.speech_end >= endpoint.pause_ms * RATE_HZ // 1000
                assert marks[event.speech_end // FRAME - 1]
                paused, announced = event, None
            case SpeechResumed():
                assert paused is not None, "resumed without a pause"
                assert paused.audio_end < event.position == position
                paused = None
            case SpeechEnded():
                assert opened is not None, "ended what never began"
                assert event.speech_start == opened.speech_start
                assert event.speech_start < event.speech_end <= event.audio_end <= position
                if paused:
                    assert (event.speech_end, event.audio_end) == (
                        paused.speech_end,
                        paused.audio_end,
                    ), "the final prepared in the pause is of no use"
                elif event.cause is Cause.LENGTH:
                    assert announced, "cut without warning"
                    assert event.audio_end == announced.audio_end, "cut in another place"
                    after = np.flatnonzero(marks[event.audio_end // FRAME : position // FRAME])
                    goes_on_at = event.audio_end + int(after[0]) * FRAME if len(after) else None
                else:
                    assert event.cause is Cause.STREAM_END
                    assert event.audio_end == position
                longest = endpoint.max_utterance_s * RATE_HZ + FRAME
                assert event.audio_end - opened.audio_start <= longest
                inside = marks[event.speech_start // FRAME : event.audio_end // FRAME]
                assert event.voiced_ms == inside.sum() * FRAME_MS > 0
                previous_end, opened, paused, announced = event.audio_end, None, None, None
        assert position >= noticed_at
        noticed_at = position
    assert opened is None, "flush left a segment open"


# ---------------------------------------------------------------------------- what begins


def test_speech_begins_with_the_first_of_start_ms_voiced_frames() -> None:
    one = segmenter()
    assert one.push(frames_of("........##")) == []
    assert not one.in_speech
    assert one.push(frames_of("#")) == [
        SpeechStarted(audio_start=3 * FRAME, speech_start=8 * FRAME)
    ]
    assert one.in_speech


@pytest.mark.parametrize(
    ("start_ms", "needed"), [(20, 1), (21, 2), (40, 2), (60, 3), (100, 5), (500, 25)]
)
def test_start_ms_counts_voiced_frames_rounded_up(start_ms: int, needed: int) -> None:
    vad = VadSettings(start_ms=start_ms)
    assert events_of("#" * (needed - 1) + "." * 50, vad) == []
    assert len(starts(events_of("#" * needed, vad))) == 1


def test_one_unvoiced_frame_among_three_voiced_is_forgiven_at_the_onset() -> None:
    assert starts(events_of("##.#")) == [SpeechStarted(0, 0)]
    assert events_of("##..#" + "." * 20) == []


def test_a_single_voiced_frame_never_starts_speech() -> None:
    assert events_of("..#" * 40) == []


def test_a_single_voiced_frame_neither_resumes_speech_nor_puts_off_its_end() -> None:
    clicks = events_of("####" + "....." + "#.#.#.....")
    assert [type(event) for event in clicks] == [SpeechStarted, SpeechPaused, SpeechEnded]
    assert clicks == events_of("####" + "." * 15)


def test_clicks_in_the_end_silence_do_not_count_as_speech() -> None:
    """Else a click train would lift a cough over `vad.min_speech_ms`."""
    (end,) = ends(events_of("###" + "....." + "#.#.#"))
    assert end.voiced_ms == 60
    (before_the_pause,) = ends(events_of("###.#.#" + "." * 10))
    assert before_the_pause.voiced_ms == 100


def test_two_voiced_frames_in_a_row_resume_speech_and_both_count() -> None:
    events = events_of("####" + "......" + "##" + "." * 12)
    assert events[1:3] == [SpeechPaused(4 * FRAME, 9 * FRAME), SpeechResumed(12 * FRAME)]
    (end,) = ends(events)
    assert (end.speech_end, end.voiced_ms) == (12 * FRAME, 120)


def test_voiced_ms_counts_the_open_segment_as_its_end_will() -> None:
    one = segmenter()
    counts = []
    for frame in frames_of("..##" + "#####" + "......" + "#" + "......").reshape(-1, FRAME):
        one.push(frame)
        counts.append(one.voiced_ms // FRAME_MS)
    assert counts == [0, 0, 0, 0, 3, 4, 5, 6, 7, *[7] * 9, 0, 0, 0, 0]


# ----------------------------------------------------------------------------- what ends


def test_pause_and_silence_are_told_at_their_very_frame() -> None:
    one = segmenter()
    one.push(frames_of("####"))
    assert one.push(frames_of("....")) == []
    assert one.push(frames_of(".")) == [SpeechPaused(speech_end=4 * FRAME, audio_end=9 * FRAME)]
    assert one.push(frames_of("....")) == []
    assert one.push(frames_of(".")) == [
        SpeechEnded(
            speech_start=0,
            speech_end=4 * FRAME,
            audio_end=9 * FRAME,
            voiced_ms=80,
            cause=Cause.SILENCE,
        )
    ]
    assert not one.in_speech


def test_a_pause_that_ends_the_segment_is_told_first() -> None:
    endpoint = EndpointSettings(pause_ms=200, silence_ms=200)
    events = events_of("####" + "." * 10, VAD, endpoint, flush=False)
    assert [type(event) for event in events] == [SpeechStarted, SpeechPaused, SpeechEnded]


def test_flush_ends_the_speech_with_the_stream() -> None:
    assert events_of("....####.")[-1] == SpeechEnded(
        4 * FRAME, 8 * FRAME, 9 * FRAME, 80, Cause.STREAM_END
    )


@pytest.mark.parametrize("pause_ms", [60, 70, 100, 110])
def test_flush_in_a_pause_ends_where_the_pause_was_told(pause_ms: int) -> None:
    """So that the final prepared in the pause still stands."""
    endpoint = EndpointSettings(pause_ms=pause_ms, silence_ms=1000)
    paused, ended = events_of("####" + "." * 20, VAD, endpoint)[1:]
    assert isinstance(paused, SpeechPaused)
    assert isinstance(ended, SpeechEnded)
    assert ended.audio_end == paused.audio_end


def test_flush_without_speech_tells_nothing_and_skips_the_rest() -> None:
    one = segmenter()
    one.push(frames_of("##..")[: 3 * FRAME + 17])
    assert one.flush() == []
    assert one.position == 3 * FRAME + 17
    assert one.push(frames_of("##")) == [], "an onset was carried over the flush"


# ------------------------------------------------------------------------------ pre-roll


@pytest.mark.parametrize("pre_roll_ms", [0, 30, 300, 1000])
def test_pre_roll_ms_of_audio_come_before_the_speech(pre_roll_ms: int) -> None:
    (start,) = starts(events_of("." * 60 + "####", VadSettings(pre_roll_ms=pre_roll_ms)))
    assert start.speech_start == 60 * FRAME
    assert start.speech_start - start.audio_start == pre_roll_ms * RATE_HZ // 1000


def test_pre_roll_stops_at_the_beginning_of_the_stream() -> None:
    assert starts(events_of(".####")) == [SpeechStarted(0, FRAME)]


def test_pre_roll_never_reaches_into_the_previous_segment() -> None:
    vad = VadSettings(pre_roll_ms=1000)
    events = events_of("####" + "." * 10 + "####", vad)
    (first, second), end = starts(events), ends(events)[0]
    assert first.audio_start == 0
    assert second.audio_start == end.audio_end == 9 * FRAME


def test_pre_roll_never_reaches_over_a_flush() -> None:
    one = segmenter(VadSettings(pre_roll_ms=1000))
    one.push(frames_of("." * 20))
    one.flush()
    assert one.push(frames_of("..###")) == [SpeechStarted(20 * FRAME, 22 * FRAME)]


# ------------------------------------------------------------------------ overlong speech


def quiet_at(audio: Int16, frame: int) -> Int16:
    """Make the frame and its neighbours almost silent, but still "loud" for the judge."""
    spoilt = audio.copy().reshape(-1, FRAME)  # (frames, samples)
    spoilt[frame - 1 : frame + 2, 1:] = 0
    return spoilt.reshape(-1)


def when(audio: Int16, endpoint: EndpointSettings = ENDPOINT) -> list[tuple[SegmentEvent, int]]:
    """Each event, with the frames that had been heard by then."""
    one = segmenter(VAD, endpoint)
    return [
        (event, number)
        for number, frame in enumerate(audio.reshape(-1, FRAME), 1)
        for event in one.push(frame)
    ]


@pytest.mark.parametrize("quiet", [26, 50, 73])
def test_overlong_speech_is_cut_in_the_quietest_place_of_the_second_before_it_is_announced(
    quiet: int,
) -> None:
    audio = frames_of("#" * 101)
    for each in (quiet, 20, 90):
        audio = quiet_at(audio, each)
    events = segmenter().push(audio)
    cut = (quiet + 1) * FRAME
    assert events == [
        SpeechStarted(0, 0),
        CutAnnounced(cut),
        SpeechEnded(0, cut, cut, (quiet + 1) * FRAME_MS, Cause.LENGTH),
        SpeechStarted(cut, cut),
    ]


@pytest.mark.parametrize(
    ("most_s", "announced", "carried_out"),
    [(15, 725, 750), (2, 75, 100), (1, 38, 50), (0.5, 19, 25)],
)
def test_a_cut_is_announced_half_a_second_before_or_a_quarter_of_the_segment(
    most_s: float, announced: int, carried_out: int
) -> None:
    found = when(frames_of("#" * (carried_out + 2)), within(EndpointSettings(), most_s))
    assert [(type(event), at) for event, at in found] == [
        (SpeechStarted, 3),
        (CutAnnounced, announced),
        (SpeechEnded, carried_out),
        (SpeechStarted, carried_out),
    ]


@pytest.mark.parametrize("most_s", [1e-6, 0.02, 0.06, 0.1, 0.2, 0.5, 1.0, 1.99])
def test_however_little_a_model_takes_no_speech_is_lost(most_s: float) -> None:
    events = events_of("#" * 300 + "." * 12, endpoint=within(ENDPOINT, most_s))
    begun, ended = starts(events), ends(events)
    assert len(begun) == len(ended) > 2
    assert begun[0].audio_start == 0
    assert [end.audio_end for end in ended[:-1]] == [start.audio_start for start in begun[1:]]
    assert sum(end.voiced_ms for end in ended) == 300 * FRAME_MS
    lengths = [end.audio_end - start.audio_start for start, end in zip(begun, ended, strict=True)]
    assert 0 < min(lengths) <= max(lengths) <= max(most_s * RATE_HZ, 6 * FRAME)


ANNOUNCED = "#" * 80
"""A cut has been announced, and is 20 frames away."""


def test_a_pause_makes_an_announced_cut_void() -> None:
    paused_in_time = ANNOUNCED + "." * 10
    assert when(frames_of(paused_in_time))[1:] == [
        (CutAnnounced(ends(events_of("#" * 100))[0].audio_end), 75),
        (SpeechPaused(80 * FRAME, 85 * FRAME), 85),
        (SpeechEnded(0, 80 * FRAME, 85 * FRAME, 80 * FRAME_MS, Cause.SILENCE), 90),
    ]


def test_when_speech_resumes_a_cut_is_announced_anew_at_once() -> None:
    audio = frames_of(ANNOUNCED + "." * 8 + "#" * 20).reshape(-1, FRAME)
    audio[83:86] = 0
    assert when(audio.reshape(-1))[2:] == [
        (SpeechPaused(80 * FRAME, 85 * FRAME), 85),
        (SpeechResumed(90 * FRAME), 90),
        (CutAnnounced(85 * FRAME), 90),
        (SpeechEnded(0, 80 * FRAME, 85 * FRAME, 80 * FRAME_MS, Cause.LENGTH), 100),
        (SpeechStarted(85 * FRAME, 88 * FRAME), 100),
    ]


def test_a_cut_in_a_pause_of_more_than_a_second_knows_where_speech_ended() -> None:
    endpoint = EndpointSettings(pause_ms=100, silence_ms=5000, max_utterance_s=3)
    audio = frames_of("#" * 65 + "." * 62 + "#" * 40).reshape(-1, FRAME)
    audio[100:103] = 0
    (end,) = ends(segmenter(VAD, endpoint).push(audio.reshape(-1)))
    assert end == SpeechEnded(0, 65 * FRAME, 102 * FRAME, 65 * FRAME_MS, Cause.LENGTH)


def test_a_stream_that_ends_before_an_announced_cut_loses_nothing() -> None:
    *_, announced, end = events_of(ANNOUNCED)
    assert isinstance(announced, CutAnnounced)
    assert end == SpeechEnded(0, 80 * FRAME, 80 * FRAME, 80 * FRAME_MS, Cause.STREAM_END)


def test_a_cut_loses_and_doubles_nothing() -> None:
    events = events_of("." * 7 + "#" * 700 + "." * 20)
    begun, ended = starts(events), ends(events)
    assert len(ended) >= 7
    assert begun[0].audio_start == 2 * FRAME
    assert [end.audio_end for end in ended[:-1]] == [start.audio_start for start in begun[1:]]
    assert {end.cause for end in ended[:-1]} == {Cause.LENGTH}
    assert ended[-1].cause is Cause.SILENCE
    assert sum(end.voiced_ms for end in ended) == 700 * FRAME_MS
    assert ended[-1].speech_end == 707 * FRAME


def test_a_cut_between_words_ends_with_the_one_and_begins_with_the_other() -> None:
    audio = frames_of("#" * 70 + "..." + "#" * 40).reshape(-1, FRAME)
    audio[70:73] = 0
    events = segmenter().push(audio.reshape(-1))
    assert events == [
        SpeechStarted(0, 0),
        CutAnnounced(72 * FRAME),
        SpeechEnded(0, 70 * FRAME, 72 * FRAME, 1400, Cause.LENGTH),
        SpeechStarted(72 * FRAME, 73 * FRAME),
    ]


@pytest.mark.parametrize("more", [0, 1, 2])
def test_speech_that_ends_right_after_a_cut_is_not_shortened(more: int) -> None:
    first, second = ends(events_of("#" * (100 + more) + "." * 12))
    assert first.cause is Cause.LENGTH
    assert second.speech_end == (100 + more) * FRAME
    assert first.voiced_ms + second.voiced_ms == (100 + more) * FRAME_MS


def test_an_overlong_segment_in_a_pause_is_cut_at_the_pause() -> None:
    endpoint = EndpointSettings(pause_ms=100, silence_ms=5000, max_utterance_s=2)
    started, announced, *events = events_of("#" * 90 + "." * 40 + "####", VAD, endpoint)
    assert isinstance(announced, CutAnnounced)
    pause = 95 * FRAME
    assert [started, *events] == [
        SpeechStarted(0, 0),
        SpeechPaused(90 * FRAME, pause),
        SpeechEnded(0, 90 * FRAME, pause, 90 * FRAME_MS, Cause.LENGTH),
        SpeechStarted(125 * FRAME, 130 * FRAME),
        SpeechEnded(130 * FRAME, 134 * FRAME, 134 * FRAME, 80, Cause.STREAM_END),
    ]


def test_no_speech_after_the_cut_means_no_next_segment() -> None:
    """The place of the cut is the end: a segment of mere silence would be noise."""
    endpoint = EndpointSettings(pause_ms=2000, silence_ms=2000, max_utterance_s=2)
    audio = frames_of("#" * 60 + "." * 60).reshape(-1, FRAME)
    audio[60:63] = 0
    events = segmenter(VAD, endpoint).push(audio.reshape(-1))
    assert events == [
        SpeechStarted(0, 0),
        CutAnnounced(62 * FRAME),
        SpeechEnded(0, 60 * FRAME, 62 * FRAME, 1200, Cause.LENGTH),
    ]


def test_a_click_before_the_cut_is_not_where_speech_ended() -> None:
    endpoint = EndpointSettings(pause_ms=2000, silence_ms=2000, max_utterance_s=2)
    audio = frames_of("#" * 60 + "..#" + "." * 60).reshape(-1, FRAME)
    audio[65:68] = 0
    (end,) = ends(segmenter(VAD, endpoint).push(audio.reshape(-1)))
    assert end == SpeechEnded(0, 60 * FRAME, 67 * FRAME, 61 * FRAME_MS, Cause.LENGTH)


def test_a_cut_never_comes_before_the_speech_of_its_segment() -> None:
    """After the first cut comes more than a second of silence, which is still no pause."""
    endpoint = EndpointSettings(pause_ms=2000, silence_ms=2000, max_utterance_s=2)
    audio = frames_of("#" * 28 + "." * 69 + "#" * 40).reshape(-1, FRAME)
    audio[28:31] = 0
    audio[60:63] = 0  # as quiet, but later
    one = segmenter(VAD, endpoint)
    events = one.push(audio.reshape(-1))
    assert [start.speech_start for start in starts(events)][:2] == [0, 97 * FRAME]
    first, second = ends(events)
    assert first == SpeechEnded(0, 28 * FRAME, 30 * FRAME, 28 * FRAME_MS, Cause.LENGTH)
    assert second.audio_end > second.speech_start


def test_the_longest_pre_roll_leaves_room_for_speech_in_the_shortest_segment() -> None:
    """pre_roll_ms = max_utterance_s = 2 s are both allowed: half of it goes to the speech."""
    vad = VadSettings(pre_roll_ms=2000)
    events = events_of("." * 110 + "#" * 60, vad)
    first, end = starts(events)[0], ends(events)[0]
    assert first.speech_start - first.audio_start == RATE_HZ
    assert end.cause is Cause.LENGTH
    assert end.voiced_ms > 60


# ------------------------------------------------------------ a pause with a silence of its own

PAUSED = "####" + "....."
"""Ends in the frame in which the pause is told: 100 ms of silence."""


def ended_after(one: Segmenter, pattern: str) -> int | None:
    """Push frame by frame; in which frame, from 1, the segment ends."""
    for number, frame in enumerate(frames_of(pattern).reshape(-1, FRAME), 1):
        if any(isinstance(event, SpeechEnded) for event in one.push(frame)):
            return number
    return None


@pytest.mark.parametrize(
    ("silence_ms", "frames"), [(20, 1), (100, 1), (120, 1), (140, 2), (200, 5), (300, 10)]
)
def test_a_pause_may_be_given_a_silence_of_its_own(silence_ms: int, frames: int) -> None:
    """Where it is over already, the segment ends with the next frame."""
    one = segmenter()
    one.push(frames_of(PAUSED))
    one.end_pause_after(silence_ms * RATE_HZ // 1000)
    assert ended_after(one, "." * 20) == frames


def test_the_segment_then_ends_as_ever() -> None:
    one = segmenter()
    one.push(frames_of(PAUSED))
    one.end_pause_after(FRAME)
    assert one.push(frames_of(".")) == ends(events_of(PAUSED + "." * 5))


@pytest.mark.parametrize("silence_frames", [8, 30])
def test_when_speech_resumes_the_next_pause_ends_as_ever(silence_frames: int) -> None:
    """Also where the resumption and the next pause come in one piece of audio."""
    one = segmenter()
    one.push(frames_of(PAUSED))
    one.end_pause_after(silence_frames * FRAME)
    assert not ends(one.push(frames_of(".##" + "." * 9)))
    assert len(ends(one.push(frames_of(".")))) == 1


def test_it_is_void_for_the_next_segment() -> None:
    one = segmenter()
    one.push(frames_of(PAUSED))
    one.end_pause_after(FRAME)
    assert ended_after(one, ".") == 1
    assert ended_after(one, "####" + "." * 20) == 14


@pytest.mark.parametrize("pattern", ["", "..", "####", "####....", ANNOUNCED])
def test_where_there_is_no_pause_it_has_no_effect(pattern: str) -> None:
    one = segmenter()
    one.push(frames_of(pattern))
    one.end_pause_after(FRAME)
    spoken = one.push(frames_of("####" + "." * 9))
    assert not ends(spoken)
    assert len(ends(one.push(frames_of(".")))) == 1


@given(sizes=SIZES, frames=st.integers(1, 40), rest=NOISY)
@settings(max_examples=60, deadline=None)
def test_after_it_too_any_split_gives_the_same_events(
    sizes: list[int], frames: int, rest: list[bool]
) -> None:
    whole, pieces = segmenter(), segmenter()
    for one in (whole, pieces):
        one.push(frames_of(PAUSED))
        one.end_pause_after(frames * FRAME)
    audio = frames_of(rest, seed=2)
    expected = whole.push(audio)
    assert [event for piece in split(audio, sizes) for event in pieces.push(piece)] == expected


# ----------------------------------------------------------------------- other settings


@given(pattern=NOISY, sizes=SIZES, case=st.sampled_from(SETTINGS))
@settings(max_examples=60, deadline=None)
def test_the_same_settings_again_change_nothing_wherever_they_come(
    pattern: list[bool], sizes: list[int], case: tuple[VadSettings, EndpointSettings]
) -> None:
    audio = frames_of(pattern)
    one, found = segmenter(*case), []
    for piece in split(audio, sizes):
        one.change(*case)
        found += one.push(piece)
    assert found == segmenter(*case).push(audio)


@given(sizes=SIZES)
@settings(max_examples=25, deadline=None)
def test_the_same_settings_again_change_nothing_with_webrtcvad(sizes: list[int]) -> None:
    """It has learnt how the room sounds, and does not forget that."""
    one, found = Segmenter(VAD, ENDPOINT), []
    for piece in split(SPOKEN, sizes):
        one.change(VAD, ENDPOINT)
        found += one.push(piece)
    assert found == Segmenter(VAD, ENDPOINT).push(SPOKEN)


@given(
    pattern=NOISY,
    sizes=SIZES,
    cases=st.lists(st.sampled_from(SETTINGS), min_size=1, max_size=10),
)
@settings(max_examples=100, deadline=None)
def test_whatever_changes_each_segment_ends_once_and_holds_no_more_than_it_may(
    pattern: list[bool], sizes: list[int], cases: list[tuple[VadSettings, EndpointSettings]]
) -> None:
    one, found, mosts = segmenter(*cases[0]), [], []
    for number, piece in enumerate(split(frames_of(pattern), sizes)):
        one.change(*cases[number % len(cases)])
        events = one.push(piece)
        found += events
        mosts += [one.most_samples] * len(starts(events))
    found += one.flush()
    edges = [event for event in found if isinstance(event, SpeechStarted | SpeechEnded)]
    assert [type(edge) for edge in edges] == [SpeechStarted, SpeechEnded] * (len(edges) // 2)
    for start, end, most in zip(starts(found), ends(found), mosts, strict=True):
        assert start.audio_start <= start.speech_start <= end.speech_end
        assert end.audio_end - start.audio_start <= most + FRAME


def test_another_silence_holds_from_the_next_pause_on() -> None:
    one = segmenter()
    one.push(frames_of("#" * 10 + "." * 4))  # silent, but that is no pause yet
    one.change(VAD, EndpointSettings(pause_ms=100, silence_ms=400, max_utterance_s=2))
    assert ends(one.push(frames_of("." * 15))) == []
    assert len(ends(one.push(frames_of(".")))) == 1


def test_a_pause_that_was_told_keeps_the_silence_that_ends_it() -> None:
    one = segmenter()
    events = one.push(frames_of("#" * 10 + "." * 5))
    assert isinstance(events[-1], SpeechPaused)
    one.change(VAD, EndpointSettings(pause_ms=100, silence_ms=400, max_utterance_s=2))
    assert len(ends(one.push(frames_of("." * 5)))) == 1
    one.push(frames_of("#" * 10))
    assert ends(one.push(frames_of("." * 19))) == []
    assert len(ends(one.push(frames_of(".")))) == 1


def test_a_longer_utterance_is_allowed_once_this_one_has_ended() -> None:
    one = segmenter()
    one.push(frames_of("#" * 10))
    one.change(VAD, EndpointSettings(pause_ms=100, silence_ms=200, max_utterance_s=4))
    (cut,) = ends(one.push(frames_of("#" * 130 + "." * 5)))
    assert cut.cause is Cause.LENGTH
    one.push(frames_of("." * 20))
    assert one.most_samples == 2 * RATE_HZ
    assert ends(one.push(frames_of("#" * 190))) == []
    assert one.most_samples == 4 * RATE_HZ


def test_another_aggressiveness_holds_from_the_next_frame_on() -> None:
    """Faint noise is speech to the mildest, and not to the strictest, in the same segment."""
    faint = np.concatenate([silence(500), speech(700), speech(5000, 2, peak=160)])
    tail = len(faint) - 4000 * RATE_HZ // 1000
    found = {}
    for first, then in ((0, 0), (0, 3), (3, 3)):
        one = Segmenter(VadSettings(aggressiveness=first), EndpointSettings(silence_ms=300))
        events = one.push(faint[:tail])
        one.change(VadSettings(aggressiveness=then), EndpointSettings(silence_ms=300))
        found[first, then] = [*events, *one.push(faint[tail:])]
    assert ends(found[0, 0]) == []
    assert starts(found[0, 3]) == starts(found[0, 0])
    (end,) = ends(found[0, 3])
    assert tail <= end.audio_end < tail + RATE_HZ
