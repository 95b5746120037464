"""Signal processing changes what is heard, and neither when nor how much of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import FakeRecognizer, ScriptedSource, silence, speech, split
from harkd.audio import RATE_HZ, AudioBlock, Int16, SourceEvent, SourceLost, SourceMuted
from harkd.audio import SourceOpened as Opened
from harkd.errors import SettingsError
from harkd.listening import Listening, SystemClock
from harkd.pipeline import Pipeline
from harkd.segment import Backlog
from harkd.settings import AudioSettings, Settings
from harkd.signal_processing import signal_stage
from harkd.transcribe import FileSegments

OPENED = Opened("a microphone", 16000, 1)
ALL = AudioSettings(high_pass=True, noise_suppression=2, auto_gain_db=30)
EACH = [
    AudioSettings(high_pass=True),
    AudioSettings(noise_suppression=1),
    AudioSettings(noise_suppression=4),
    AudioSettings(auto_gain_db=30),
    ALL,
]


def stamp_ns(position: int) -> int:
    return 5_000_000_000 + position * 1_000_000_000 // RATE_HZ


def blocks(audio: Int16, sizes: Sequence[int] = (), at: int = 0) -> Iterator[AudioBlock]:
    """The audio as blocks of the given sizes, with true stamps."""
    for piece in split(audio, sizes):
        yield AudioBlock(piece, stamp_ns(at))
        at += len(piece)


def run(audio: AudioSettings, *events: SourceEvent) -> list[SourceEvent]:
    return list(signal_stage(audio)(iter(events)))


def heard(events: Sequence[SourceEvent]) -> Int16:
    return np.concatenate([e.samples for e in events if isinstance(e, AudioBlock)])


def lag_of(processed: Int16, original: Int16) -> int:
    """By how many samples one sounds most like the other: cross-correlation."""
    # In integers: for floats, numpy would start threads, which wait for each other here.
    a, b = original.astype(np.int64), processed.astype(np.int64)
    middle = a[1000:-1000]
    return max(range(-400, 401), key=lambda lag: int(middle @ b[1000 + lag : len(b) - 1000 + lag]))


def test_where_all_is_off_events_pass_untouched() -> None:
    events = iter([OPENED])
    assert signal_stage(AudioSettings())(events) is events


def test_where_all_is_off_the_library_is_not_loaded() -> None:
    script = (
        "import sys, json; from harkd.settings import AudioSettings; "
        "from harkd.signal_processing import signal_stage; signal_stage(AudioSettings()); "
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert not [name for name in json.loads(done.stdout) if "webrtc" in name]


@pytest.mark.parametrize("audio", EACH, ids=str)
def test_a_sound_stays_where_it_was(audio: AudioSettings) -> None:
    original = speech(3000)
    processed = heard(run(audio, OPENED, *blocks(original, [480] * 99)))
    assert len(processed) == len(original)
    assert not np.array_equal(processed, original)
    assert lag_of(processed, original) == 0


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 700), max_size=30))
def test_any_split_into_blocks_gives_the_same_audio_at_the_same_times(sizes: list[int]) -> None:
    original = speech(300)
    whole = heard(run(ALL, OPENED, *blocks(original)))
    events = run(ALL, OPENED, *blocks(original, sizes))
    assert np.array_equal(heard(events), whole)
    position = 0
    for event in events:
        if isinstance(event, AudioBlock):
            assert abs(event.captured_ns - stamp_ns(position)) <= 1
            position += len(event.samples)
    assert position == len(original)


@pytest.mark.parametrize("audio", EACH, ids=str)
def test_a_source_that_is_opened_again_is_heard_as_by_a_new_processor(audio: AudioSettings) -> None:
    before, after = speech(500, seed=1), speech(500, seed=2)
    fresh = heard(run(audio, OPENED, *blocks(after)))
    again = heard(run(audio, OPENED, *blocks(before), OPENED, *blocks(after)))
    assert np.array_equal(again[len(before) :], fresh)


def test_what_is_measured_is_what_the_device_gave() -> None:
    original = [replace(block, zeros_s=0.5) for block in blocks(speech(300), [480] * 9)]
    events = run(ALL, OPENED, *original)
    processed = [event for event in events if isinstance(event, AudioBlock)]
    raws = [event.raw for event in processed if event.raw is not None]
    assert np.array_equal(
        np.concatenate(raws), np.concatenate([block.samples for block in original])
    )
    assert all(event.zeros_s == 0.5 for event in processed[: len(original)])

    loud = np.full(RATE_HZ * 2, 8000, np.int16)
    heard_as = Listening(
        Settings(),
        Backlog.of(Settings().recognizer),
        lambda _: None,
        clock=SystemClock(),
        new_id=lambda: "A",
        may_wait=False,
    )
    for event in run(AudioSettings(high_pass=True), OPENED, *blocks(loud, [480] * 70)):
        heard_as.take(event)
    assert heard_as.signal.figures().dc_offset == pytest.approx(8000 / 32768, abs=0.01)


def test_silence_stays_silence() -> None:
    assert not heard(run(ALL, OPENED, *blocks(silence(1000)))).any()


@pytest.mark.parametrize("broken_by", [SourceLost("unplugged", "gone"), SourceMuted(), OPENED])
def test_all_that_was_heard_comes_before_a_break(broken_by: SourceEvent) -> None:
    original = speech(100)[:1234]
    *audio, last = run(ALL, OPENED, *blocks(original), broken_by)
    assert last == broken_by
    assert len(heard(audio)) == len(original)


def test_a_gap_stays_where_it_was() -> None:
    before, after = speech(100, seed=1)[:1111], speech(100, seed=2)
    gap = AudioBlock(after, stamp_ns(40_000), gap=True)
    events = run(ALL, OPENED, *blocks(before), gap)
    at = next(i for i, e in enumerate(events) if isinstance(e, AudioBlock) and e.gap)
    assert len(heard(events[:at])) == len(before)
    assert len(heard(events[at:])) == len(after)
    block = events[at]
    assert isinstance(block, AudioBlock)
    assert block.captured_ns == stamp_ns(40_000)


def test_the_high_pass_takes_out_a_constant_offset_and_hum_and_leaves_higher_tones() -> None:
    at = np.arange(2 * RATE_HZ) / RATE_HZ

    def left_of(sound: np.ndarray) -> Int16:
        original = np.rint(sound).astype(np.int16)
        return heard(run(AudioSettings(high_pass=True), OPENED, *blocks(original)))[RATE_HZ:]

    assert abs(float(left_of(np.full(len(at), 3000.0)).mean())) < 60
    assert float(left_of(3000 * np.sin(2 * np.pi * 50 * at)).std()) < 3000 / np.sqrt(2) / 3
    tone = left_of(3000 * np.sin(2 * np.pi * 500 * at))
    assert float(tone.std()) == pytest.approx(3000 / np.sqrt(2), rel=0.02)


def test_noise_suppression_takes_out_steady_noise() -> None:
    noise = np.random.default_rng(1).normal(0, 300, 4 * RATE_HZ).astype(np.int16)
    left = heard(run(AudioSettings(noise_suppression=3), OPENED, *blocks(noise)))[2 * RATE_HZ :]
    assert float(left.std()) < 300 / 4


def test_automatic_gain_makes_quiet_speech_louder_but_not_more_than_it_may() -> None:
    quiet = speech(6000, peak=200)
    gains_db = []
    for most_db in (6, 30):
        audio = AudioSettings(auto_gain_db=most_db)
        louder = heard(run(audio, OPENED, *blocks(quiet)))[4 * RATE_HZ :]
        gains_db.append(20 * np.log10(louder.std() / quiet[4 * RATE_HZ :].std()))
    assert gains_db[0] == pytest.approx(6, abs=0.5)
    assert 10 < gains_db[1] < 30


def test_a_missing_library_is_told_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    with pytest.raises(SettingsError) as raised:
        signal_stage(AudioSettings(high_pass=True, auto_gain_db=6))
    assert "audio.high_pass, audio.auto_gain_db are on" in str(raised.value)
    assert raised.value.mend.startswith("pip install 'harkd[signal]'")


def test_live_audio_and_files_are_processed_alike(tmp_path: Path) -> None:
    wanted = Settings(audio=AudioSettings(noise_suppression=2, auto_gain_db=20))
    audio = np.concatenate([silence(500), speech(1500), silence(1500)])
    recognizer = FakeRecognizer()
    pipeline = Pipeline(
        ScriptedSource([OPENED, *blocks(audio, [480] * 99)], lossless=True),
        recognizer,
        wanted,
        lambda _event: None,
    )
    pipeline.start()
    assert pipeline.wait(20)
    path = tmp_path / "sound.wav"
    soundfile.write(path, audio, RATE_HZ)
    (segment,) = FileSegments(path, wanted, max_segment_s=30)
    assert segment.audio is not None
    assert np.array_equal(segment.audio, recognizer.streams[0].audio)
