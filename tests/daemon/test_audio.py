"""Audio of any rate and channel count becomes 16 kHz mono, with the time of each sample."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fakes import speech, split
from harkd.audio import (
    RATE_HZ,
    AudioBlock,
    FileSource,
    MonoConverter,
    SampleClock,
    SourceEvent,
    SourceOpened,
    StdinSource,
    Waker,
    open_sound_file,
)
from harkd.errors import AudioError, AudioFileError
from harkd.microphone import Microphone
from harkd.settings import AudioSettings

Int16 = NDArray[np.int16]
SECOND_NS = 1_000_000_000


def tone(hz: float, seconds: float, rate_hz: int, peak: float = 10_000) -> Int16:
    """A sine: int16, shape (n,)."""
    at = np.arange(int(seconds * rate_hz)) / rate_hz
    return np.asarray(np.rint(peak * np.sin(2 * np.pi * hz * at)), np.int16)


def interleaved(*channels: Int16) -> Int16:
    """Each of shape (n,) → (n × channels,)."""
    return np.stack(channels, axis=1).reshape(-1)


def blocks_of(events: list[SourceEvent]) -> list[AudioBlock]:
    return [event for event in events if isinstance(event, AudioBlock)]


def samples_of(events: list[SourceEvent]) -> Int16:
    return np.concatenate([block.samples for block in blocks_of(events)])


# -------------------------------------------------------------------------- MonoConverter


def test_16_khz_mono_passes_unchanged_and_at_once() -> None:
    audio = speech(100)
    mono, behind_s = MonoConverter(RATE_HZ, 1).convert(audio.tobytes())
    assert np.array_equal(mono, audio)
    assert behind_s == 0.0


def test_mix_is_the_mean_of_all_channels_and_never_wraps_around() -> None:
    left = np.array([100, 32767, -32768, 3, 0], np.int16)
    right = np.array([200, 32767, -32768, 0, -32768], np.int16)
    mono, _ = MonoConverter(RATE_HZ, 2).convert(interleaved(left, right))
    assert mono.dtype == np.int16
    assert mono.tolist() == [150, 32767, -32768, 2, -16384]


@pytest.mark.parametrize("channel", [1, 2, 3])
def test_one_channel_can_be_picked_counting_from_one(channel: int) -> None:
    channels = [speech(50, seed) for seed in (1, 2, 3)]
    mono, _ = MonoConverter(RATE_HZ, 3, str(channel)).convert(interleaved(*channels))
    assert np.array_equal(mono, channels[channel - 1])


def test_the_only_channel_is_taken_whatever_was_asked_for() -> None:
    audio = speech(20)
    assert np.array_equal(MonoConverter(RATE_HZ, 1, "1").convert(audio)[0], audio)


def test_bytes_and_arrays_are_converted_alike() -> None:
    pcm = interleaved(speech(60, 1), speech(60, 2))
    from_bytes, from_array = MonoConverter(48000, 2), MonoConverter(48000, 2)
    for piece in split(pcm, [960, 480]):
        assert np.array_equal(from_bytes.convert(piece.tobytes())[0], from_array.convert(piece)[0])


@pytest.mark.parametrize("rate_hz", [8000, 22050, 44100, 48000, 96000])
def test_a_1_khz_tone_keeps_its_frequency_and_level(rate_hz: int) -> None:
    audio = tone(1000, 1.0, rate_hz)
    converter = MonoConverter(rate_hz, 2)
    mono = np.concatenate(
        [converter.convert(interleaved(audio, audio))[0], converter.convert(b"", last=True)[0]]
    )
    assert abs(len(mono) - RATE_HZ) <= 1
    middle = mono[RATE_HZ // 4 : RATE_HZ * 3 // 4].astype(np.float64)  # half a second: 2 Hz steps
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * 2 == 1000
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(10_000 / np.sqrt(2), rel=0.01)


def test_what_lies_above_8_khz_is_filtered_out_and_not_folded_back() -> None:
    mono, _ = MonoConverter(48000, 1).convert(tone(11_000, 1.0, 48000))
    assert np.abs(mono[RATE_HZ // 4 : RATE_HZ * 3 // 4]).max() < 20


@pytest.mark.parametrize("rate_hz", [44100, 48000])
def test_behind_s_dates_each_sample_to_within_a_millisecond(rate_hz: int) -> None:
    """A click at a known time is found at that time, through blocks and resampler."""
    clicks_s = [0.111, 0.4567, 0.9]
    audio = np.zeros(rate_hz, np.int16)
    for at in clicks_s:
        audio[round(at * rate_hz)] = 30_000
    converter = MonoConverter(rate_hz, 2)
    times_s: list[float] = []
    levels: list[int] = []
    block = rate_hz * 30 // 1000
    pieces = [(at, audio[at : at + block], False) for at in range(0, rate_hz, block)]
    for at, piece, last in [*pieces, (rate_hz, audio[:0], True)]:
        mono, behind_s = converter.convert(interleaved(piece, piece), last=last)
        assert 0 <= behind_s < 0.1
        begin_s = at / rate_hz - behind_s
        times_s += [begin_s + i / RATE_HZ for i in range(len(mono))]
        levels += np.abs(mono).tolist()
    for click_s in clicks_s:
        near = [i for i, time_s in enumerate(times_s) if abs(time_s - click_s) < 0.02]
        found_s = times_s[max(near, key=lambda i: levels[i])]
        assert abs(found_s - click_s) < 0.001


@given(
    sizes=st.lists(st.integers(0, 3000), max_size=20),
    rate_hz=st.sampled_from([16000, 44100, 48000]),
)
@settings(max_examples=40, deadline=None)
def test_any_split_of_the_input_gives_the_same_audio(sizes: list[int], rate_hz: int) -> None:
    left, right = speech(600, 1), speech(600, 2)
    pcm = interleaved(left, right)

    def converted(pieces: list[Int16]) -> Int16:
        converter = MonoConverter(rate_hz, 2)
        out = [converter.convert(piece)[0] for piece in pieces]
        return np.concatenate([*out, converter.convert(b"", last=True)[0]])

    whole = converted([pcm])
    pieces = converted(split(pcm, [2 * size for size in sizes]))
    assert len(pieces) == len(whole)
    # soxr dithers what it rounds to int16, by up to a bit and a half.
    assert np.abs(pieces.astype(int) - whole).max() <= 3


# ---------------------------------------------------------------------------- SampleClock


def test_the_clock_tells_nothing_before_it_knows_anything() -> None:
    with pytest.raises(AudioError):
        SampleClock().at_ns(0)


def test_the_clock_counts_samples_from_a_stamp_both_ways() -> None:
    clock = SampleClock()
    clock.update(RATE_HZ, 5 * SECOND_NS)
    assert clock.at_ns(RATE_HZ) == 5 * SECOND_NS
    assert clock.at_ns(RATE_HZ * 3) == 7 * SECOND_NS
    assert clock.at_ns(0) == 4 * SECOND_NS


@given(late_ns=st.lists(st.integers(0, 10**9), min_size=2, max_size=60))
@settings(max_examples=50, deadline=None)
def test_late_stamps_do_not_move_the_clock(late_ns: list[int]) -> None:
    """Of blocks that were stamped late by any amount, the least late one dates them all."""
    clock = SampleClock()
    for number, late in enumerate(late_ns):
        clock.update(number * 480, number * 30_000_000 + late)
        least = min(late_ns[: number + 1])
        assert clock.at_ns(0) == least
        assert clock.at_ns(number * 480) == number * 30_000_000 + least


@pytest.mark.parametrize("drift_ppm", [-200, 0, 200])
def test_the_clock_follows_a_sound_card_that_drifts(drift_ppm: int) -> None:
    """After ten minutes, ±200 ppm are 120 ms; the window keeps it to 2 ms."""
    clock = SampleClock()
    stamp_ns = 0
    for position in range(0, 600 * RATE_HZ, 480):
        stamp_ns = position * SECOND_NS // RATE_HZ * (1_000_000 + drift_ppm) // 1_000_000
        clock.update(position, stamp_ns)
    assert clock.at_ns(position) == pytest.approx(stamp_ns, abs=2_100_000)


def test_a_reset_clock_forgets_the_earlier_stamps() -> None:
    clock = SampleClock()
    clock.update(0, 0)
    clock.reset()
    with pytest.raises(AudioError):
        clock.at_ns(0)
    clock.update(480, SECOND_NS)
    assert clock.at_ns(480) == SECOND_NS


# ----------------------------------------------------------------------------- FileSource


class Clockwork(threading.Event):
    """Stands in for the source's event, and makes waiting take no time but the clock's."""

    now_ns = 7 * SECOND_NS

    def wait(self, timeout: float | None = None) -> bool:
        self.now_ns += round((timeout or 0) * 1e9)
        return self.is_set()


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    """0.5 s of stereo at 48 kHz: speech on the left, a tone on the right."""
    path = tmp_path / "half.wav"
    soundfile.write(path, np.stack([speech(1500), tone(1000, 0.5, 48000)], axis=1), 48000)
    return path


@pytest.mark.parametrize("rate_hz", [8000, 16000, 44100])
def test_a_file_gives_all_of_its_samples_at_16_khz(tmp_path: Path, rate_hz: int) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(500, 0.777, rate_hz), rate_hz)
    source = FileSource(path, paced=False)
    events = list(source.events())
    assert events[0] == SourceOpened("tone.wav", rate_hz, 1)
    assert abs(len(samples_of(events)) - int(0.777 * rate_hz) * RATE_HZ / rate_hz) <= 1
    assert source.lossless


def test_a_16_khz_file_comes_out_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "same.flac"
    audio = speech(333)
    soundfile.write(path, audio, RATE_HZ)
    assert np.array_equal(samples_of(list(FileSource(path, paced=False).events())), audio)


def test_the_channel_of_a_file_can_be_picked(wav: Path) -> None:
    right = samples_of(list(FileSource(wav, "2", paced=False).events()))
    expected = tone(1000, 0.5, RATE_HZ)
    assert np.abs(right[1000:-1000].astype(int) - expected[1000:-1000]).max() < 20


def test_a_paced_file_keeps_the_pace_and_the_stamps_of_a_microphone(wav: Path) -> None:
    """A block comes when its last sample would have been captured, dated by its first."""
    clock = Clockwork()
    begin_ns = clock.now_ns
    source = FileSource(wav, monotonic_ns=lambda: clock.now_ns)
    source._closed = clock
    given = 0
    for event in source.events():
        if isinstance(event, AudioBlock):
            expected_ns = begin_ns + given * SECOND_NS // RATE_HZ
            assert event.captured_ns == pytest.approx(expected_ns, abs=1000)
            given += len(event.samples)
            assert given / RATE_HZ <= (clock.now_ns - begin_ns) / 1e9 + 1 / RATE_HZ
    assert given == pytest.approx(RATE_HZ // 2, abs=1)
    assert clock.now_ns - begin_ns == pytest.approx(SECOND_NS // 2, abs=1000)


def test_a_reader_that_was_late_does_not_wait_on_top(wav: Path) -> None:
    clock = Clockwork()
    source = FileSource(wav, monotonic_ns=lambda: clock.now_ns)
    source._closed = clock
    events = source.events()
    next(events)
    next(events)
    clock.now_ns += 10 * SECOND_NS
    late_ns = clock.now_ns
    assert len(list(events)) > 10
    assert clock.now_ns == late_ns


def test_a_closed_file_stops_at_the_next_block(wav: Path) -> None:
    source = FileSource(wav, paced=False)
    events = source.events()
    next(events)
    next(events)
    source.close()
    source.close()
    assert list(events) == []


def test_close_wakes_a_file_that_waits_for_its_pace(tmp_path: Path) -> None:
    path = tmp_path / "slow.wav"
    soundfile.write(path, speech(1000), RATE_HZ)
    # A clock that stands 100 s before the due time makes the real wait that long.
    stamps = iter([100 * SECOND_NS])
    source = FileSource(path, monotonic_ns=lambda: next(stamps, 0))
    events: list[SourceEvent] = []
    reader = threading.Thread(target=lambda: events.extend(source.events()), daemon=True)
    reader.start()
    source.close()
    reader.join(5)
    assert not reader.is_alive()
    assert blocks_of(events) == []


def broken(tmp_path: Path, what: str) -> Path:
    """A file that is no readable recording."""
    path = tmp_path / f"bad.{'raw' if what == 'headless' else 'wav'}"
    match what:
        case "missing":
            pass
        case "folder":
            path.mkdir()
        case "under a file":
            (tmp_path / "file").write_text("")
            path = tmp_path / "file" / "bad.wav"
        case "empty":
            path.write_bytes(b"")
        case "text" | "headless":
            path.write_bytes(b"this is no audio\n" * 200)
        case "mp3 by name only":
            path = path.with_suffix(".mp3")
            path.write_bytes(b"this is no audio\n" * 200)
        case "header cut off":
            soundfile.write(path, speech(100), RATE_HZ)
            path.write_bytes(path.read_bytes()[:20])
        case "no audio":
            soundfile.write(path, np.empty(0, np.int16), RATE_HZ)
        case "ogg cut off":
            path = path.with_suffix(".ogg")
            soundfile.write(path, speech(2500), RATE_HZ)
            path.write_bytes(path.read_bytes()[:4000])
        case _:
            raise ValueError(what)
    return path


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "does not exist"),
        ("folder", "is a folder"),
        ("under a file", "cannot be reached"),
        ("empty", "no audio file"),
        ("text", "no audio file"),
        ("headless", "no audio file"),
        ("mp3 by name only", "no audio file"),
        ("header cut off", "no audio file"),
        ("no audio", "holds no audio"),
        ("ogg cut off", "audio"),
    ],
)
def test_a_file_without_readable_audio_is_refused_at_once(
    tmp_path: Path, what: str, message: str
) -> None:
    path = broken(tmp_path, what)
    with pytest.raises(AudioFileError, match=message) as refused:
        FileSource(path)
    assert str(path) in refused.value.message
    assert refused.value.mend


@contextmanager
def nobody() -> Iterator[None]:
    """Root may read everything: become somebody else for a moment."""
    user = os.getresuid()
    if user[1]:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(*user)


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "message"),
    [(0o000, 0o755, "may not be read"), (0o644, 0o000, "cannot be reached")],
)
def test_a_file_that_may_not_be_read_is_refused_for_that(
    tmp_path: Path, file_mode: int, folder_mode: int, message: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "secret.wav"
    soundfile.write(path, speech(100), RATE_HZ)
    path.chmod(file_mode)
    folder.chmod(folder_mode)
    here = Path.cwd()
    tmp_path.chmod(0o755)
    os.chdir(tmp_path)  # whose parents only root may enter
    try:
        with nobody():
            relative = Path("folder/secret.wav")
            with pytest.raises(AudioFileError, match=message) as refused:
                open_sound_file(relative)
    finally:
        os.chdir(here)
        folder.chmod(0o755)
    assert "permissions" in refused.value.mend


def test_a_file_that_is_damaged_in_the_middle_gives_what_is_before_and_then_says_so(
    tmp_path: Path,
) -> None:
    path = tmp_path / "damaged.flac"
    soundfile.write(path, speech(2000), RATE_HZ)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))
    given: list[AudioBlock] = []

    def play() -> None:
        for event in FileSource(path, paced=False).events():
            given.extend(blocks_of([event]))

    with pytest.raises(AudioFileError, match=r"damaged after \d\.\d s") as refused:
        play()
    assert refused.value.mend
    assert 0.5 < sum(len(block.samples) for block in given) / RATE_HZ < 1.2


def test_a_wav_that_was_cut_short_plays_as_far_as_it_goes(tmp_path: Path) -> None:
    """As a recording that was ended by a power cut should."""
    path = tmp_path / "short.wav"
    audio = speech(1000)
    soundfile.write(path, audio, RATE_HZ)
    path.write_bytes(path.read_bytes()[:-16_000])
    heard = samples_of(list(FileSource(path, paced=False).events()))
    assert np.array_equal(heard, audio[:-8000])


@pytest.mark.parametrize("channel", ["3", "64"])
def test_a_channel_that_the_file_lacks_is_refused(wav: Path, channel: str) -> None:
    with pytest.raises(AudioFileError, match=rf"audio\.channel is {channel}") as refused:
        FileSource(wav, channel)
    assert "1…2" in refused.value.mend


# ---------------------------------------------------------------------------- StdinSource


@pytest.fixture
def pipe() -> Iterator[tuple[int, Callable[[bytes], int], Callable[[], None]]]:
    """The reading end, a function that writes, and one that closes the writing end."""
    reading, writing = os.pipe()
    ended = threading.Event()

    def end() -> None:
        if not ended.is_set():
            ended.set()
            os.close(writing)

    yield reading, lambda data: os.write(writing, data), end
    end()
    os.close(reading)


Pipe = tuple[int, Callable[[bytes], int], Callable[[], None]]


def test_stdin_joins_samples_that_are_split_across_reads(pipe: Pipe) -> None:
    """A pipe knows nothing of samples: one byte, three bytes, a frame and a half."""
    reading, write, end = pipe
    audio = speech(20)
    data = audio.tobytes()
    events = StdinSource(reading, RATE_HZ, 1).events()
    assert next(events) == SourceOpened("stdin", RATE_HZ, 1)
    got: list[int] = []
    at = 0
    for size in (1, 1, 3, 2, 101, len(data)):
        write(data[at : at + size])
        at += size
        block = next(events)
        assert isinstance(block, AudioBlock)
        got += block.samples.tolist()
        assert len(got) == min(at, len(data)) // 2
    end()
    assert list(events) == []
    assert got == audio.tolist()


def test_stdin_joins_frames_of_several_channels(pipe: Pipe) -> None:
    reading, write, end = pipe
    left, right = speech(20, 1), speech(20, 2)
    data = interleaved(left, right).tobytes()
    events = StdinSource(reading, RATE_HZ, 2, "2").events()
    heard: list[SourceEvent] = [next(events)]
    for at in range(0, len(data), 333):
        write(data[at : at + 333])
        heard.append(next(events))
    end()
    heard += events
    assert np.array_equal(samples_of(heard), right)


def test_stdin_ends_with_the_pipe_and_gives_the_resamplers_last_samples(pipe: Pipe) -> None:
    reading, write, end = pipe
    write(tone(440, 0.3, 44100).tobytes() + b"\x01")  # and half a sample, which is no audio
    end()
    heard = samples_of(list(StdinSource(reading, 44100, 1).events()))
    assert abs(len(heard) - RATE_HZ * 0.3) <= 1


def test_stdin_that_ends_at_once_is_no_error(pipe: Pipe) -> None:
    reading, _, end = pipe
    end()
    assert [type(event) for event in StdinSource(reading, RATE_HZ, 1).events()] == [SourceOpened]


def test_close_wakes_a_stdin_that_is_silent(pipe: Pipe) -> None:
    source = StdinSource(pipe[0], RATE_HZ, 1)
    opened = threading.Event()
    events: list[SourceEvent] = []

    def read() -> None:
        for event in source.events():
            events.append(event)
            opened.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    assert opened.wait(5)
    source.close()
    reader.join(5)
    assert not reader.is_alive()
    assert blocks_of(events) == []


def test_closing_stdin_before_and_after_it_is_read_is_harmless(pipe: Pipe) -> None:
    """A signal may come at any time, also when the pipe has just ended, and twice."""
    reading, write, _ = pipe
    write(b"data that nobody reads")
    source = StdinSource(reading, RATE_HZ, 1)
    source.close()
    assert blocks_of(list(source.events())) == []
    source.close()
    source.close()


def test_a_channel_that_stdin_lacks_is_refused() -> None:
    with pytest.raises(AudioError, match=r"audio\.channel is 3, but the input has 2") as refused:
        StdinSource(0, RATE_HZ, 2, "3")
    assert "1…2" in refused.value.mend


# ------------------------------------------------------------------------------ no leaks


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counts, and opens one itself


def leaked_by(use: Callable[[], object]) -> int:
    """Descriptors that twenty uses leave open; the first use may load and open for good."""
    use()
    before = descriptors()
    for _ in range(20):
        use()
    return descriptors() - before


def test_a_file_source_leaves_no_descriptor_open(wav: Path) -> None:
    def to_its_end() -> None:
        list(FileSource(wav, paced=False).events())

    def half_way() -> None:
        source = FileSource(wav, paced=False)
        events = source.events()
        next(events)
        next(events)
        source.close()
        list(events)

    def never_read() -> None:
        FileSource(wav).close()

    errors: list[AudioFileError] = []

    def refused() -> None:
        with pytest.raises(AudioFileError) as caught:
            FileSource(wav, "3")
        errors.append(caught.value)  # an error that is kept keeps the frames that it went through

    assert [leaked_by(use) for use in (to_its_end, half_way, never_read, refused)] == [0, 0, 0, 0]


def test_a_stdin_source_leaves_no_descriptor_open(pipe: Pipe) -> None:
    reading, _, end = pipe

    def never_read() -> None:
        StdinSource(reading, RATE_HZ, 1).close()

    def closed() -> None:
        source = StdinSource(reading, RATE_HZ, 1)
        events = source.events()
        next(events)
        source.close()
        list(events)

    def to_its_end() -> None:
        list(StdinSource(reading, RATE_HZ, 1).events())

    assert [leaked_by(use) for use in (never_read, closed)] == [0, 0]
    end()
    assert leaked_by(to_its_end) == 0


def test_a_microphone_leaves_no_descriptor_open() -> None:
    def closed() -> None:
        microphone = Microphone(AudioSettings(), command=["/bin/true"])
        events = microphone.events()
        next(events)  # the loss of a capture process that ended at once
        microphone.close()
        list(events)

    assert leaked_by(closed) == 0


def test_a_waker_stays_awake() -> None:
    waker = Waker()
    os.set_blocking(waker.fileno(), False)
    with pytest.raises(BlockingIOError):
        os.read(waker.fileno(), 1)
    waker.wake()
    waker.wake()
    assert os.read(waker.fileno(), 1) == b"x"
