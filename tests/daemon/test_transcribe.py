"""A recorded file becomes utterances, through the same segmenter as live audio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from fakes import NOTHING, FakeRecognizer, silence, speech
from harkd.errors import AudioFileError, RecognitionError
from harkd.events import RejectReason
from harkd.recognizer.protocol import Hypothesis, Recognizer
from harkd.second_look import find_second_look
from harkd.segmenter import Segmenter, SegmentEvent, SpeechEnded, SpeechStarted
from harkd.settings import EndpointSettings, RecognizerSettings, Settings, VadSettings
from harkd.transcribe import Discarded, FileSegments, FileTranscriber

AUDIO = np.concatenate(
    [silence(500), speech(1000), silence(1000), speech(600, seed=2), silence(1000)]
)


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    """Speech at 0.5…1.5 s and 2.5…3.1 s."""
    path = tmp_path / "two.wav"
    soundfile.write(path, AUDIO, 16000)
    return path


def segments_of(
    audio: NDArray[np.int16], settings: Settings
) -> list[tuple[SpeechStarted, SpeechEnded]]:
    one = Segmenter(settings.vad, settings.endpoint)
    events: list[SegmentEvent] = [*one.push(audio), *one.flush()]
    begun = [event for event in events if isinstance(event, SpeechStarted)]
    ended = [event for event in events if isinstance(event, SpeechEnded)]
    return list(zip(begun, ended, strict=True))


def transcriber(
    path: Path, recognizer: Recognizer, settings: Settings | None = None
) -> FileTranscriber:
    return FileTranscriber(path, recognizer, settings or Settings())


def test_each_utterance_is_given_with_its_place_in_the_file(wav: Path) -> None:
    first, second = transcriber(wav, FakeRecognizer()).utterances()
    assert abs(first.start_s - 0.5) <= 0.04
    assert 1.5 <= first.end_s <= 1.7
    assert abs(second.start_s - 2.5) <= 0.04
    assert 3.1 <= second.end_s <= 3.3
    assert first.text.endswith("samples")
    assert first.confidence == 0.9


def test_the_recognizer_hears_the_segments_as_live_audio_would_give_them(wav: Path) -> None:
    recognizer = FakeRecognizer()
    list(transcriber(wav, recognizer).utterances())
    expected = segments_of(AUDIO, Settings())
    assert len(recognizer.streams) == len(expected) == 2
    for stream, (begun, ended) in zip(recognizer.streams, expected, strict=True):
        assert np.array_equal(stream.audio, AUDIO[begun.audio_start : ended.audio_end])
        assert stream.finished
        assert stream.asked_at == [], "a file needs no partials"


def test_a_long_monologue_is_given_in_parts_without_a_gap(tmp_path: Path) -> None:
    audio = speech(70_000)
    path = tmp_path / "long.wav"
    soundfile.write(path, audio, 16000)
    settings = Settings(
        endpoint=EndpointSettings(max_utterance_s=30, silence_ms=5000),
        vad=VadSettings(pre_roll_ms=2000),
    )
    recognizer = FakeRecognizer()
    assert len(list(transcriber(path, recognizer, settings).utterances())) == 3
    heard = np.concatenate([stream.audio for stream in recognizer.streams])
    assert len(audio) - len(heard) < 320
    assert np.array_equal(heard, audio[: len(heard)])


def test_speech_at_the_very_end_of_the_file_is_recognized(tmp_path: Path) -> None:
    path = tmp_path / "end.wav"
    soundfile.write(path, speech(500), 16000)
    (only,) = transcriber(path, FakeRecognizer()).utterances()
    assert only.end_s == 0.5


def test_what_is_too_short_is_not_even_recognized(wav: Path) -> None:
    recognizer = FakeRecognizer()
    settings = Settings(vad=VadSettings(min_speech_ms=900))
    assert len(list(transcriber(wav, recognizer, settings).utterances())) == 1
    assert len(recognizer.streams) == 1


@pytest.mark.parametrize(
    ("hypothesis", "min_confidence"),
    [
        (NOTHING, 0.0),
        (Hypothesis("ha ha ha ha", 1.0, looped=True), 0.0),
        (Hypothesis("perhaps", 0.3), 0.5),
    ],
)
def test_what_would_be_rejected_live_is_left_out(
    wav: Path, hypothesis: Hypothesis, min_confidence: float
) -> None:
    settings = Settings(recognizer=RecognizerSettings(min_confidence=min_confidence))
    recognizer = FakeRecognizer(lambda _: hypothesis)
    assert list(transcriber(wav, recognizer, settings).utterances()) == []
    assert len(recognizer.streams) == 2


def test_what_has_no_voice_is_not_even_recognized(wav: Path) -> None:
    """Silero VAD is not taken in by noise with the rhythm of speech."""
    recognizer = FakeRecognizer()
    second_look = find_second_look(VadSettings())
    assert second_look
    outcomes = list(FileTranscriber(wav, recognizer, Settings(), second_look).outcomes())
    reasons = [each.reason for each in outcomes if isinstance(each, Discarded)]
    assert reasons == [RejectReason.NO_VOICE] * 2
    assert not recognizer.streams


def test_the_duration_is_that_of_the_file_once_it_is_read(wav: Path) -> None:
    one = transcriber(wav, FakeRecognizer())
    assert one.duration_s == 0
    list(one.utterances())
    assert one.duration_s == len(AUDIO) / 16000


def test_utterances_come_as_they_are_found(wav: Path) -> None:
    recognizer = FakeRecognizer()
    utterances = transcriber(wav, recognizer).utterances()
    next(utterances)
    assert len(recognizer.streams) == 1


def test_a_file_that_is_missing_or_damaged_is_told(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match="does not exist"):
        list(transcriber(tmp_path / "none.wav", FakeRecognizer()).utterances())
    path = tmp_path / "damaged.flac"
    soundfile.write(path, AUDIO, 16000)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))
    with pytest.raises(AudioFileError, match="damaged after"):
        list(transcriber(path, FakeRecognizer()).utterances())


def test_a_failing_recognizer_is_told(wav: Path) -> None:
    def fail(_: int) -> Hypothesis:
        raise RecognitionError("it failed", "mend it")

    with pytest.raises(RecognitionError):
        list(transcriber(wav, FakeRecognizer(fail)).utterances())


def test_a_file_is_cut_into_segments_without_any_recognizer(wav: Path) -> None:
    segments = FileSegments(wav, Settings(), max_segment_s=30)
    assert segments.length_s == len(AUDIO) / 16000
    assert segments.duration_s == 0
    expected = segments_of(AUDIO, Settings())
    for segment, (begun, ended) in zip(segments, expected, strict=True):
        assert segment.audio is not None
        assert np.array_equal(segment.audio, AUDIO[begun.audio_start : ended.audio_end])
        assert segment.start_s == round(begun.speech_start / 16000, 2)
        assert segment.end_s == round(ended.speech_end / 16000, 2)
    assert segments.duration_s == segments.length_s


def test_a_segment_s_audio_is_its_own(wav: Path) -> None:
    """It outlives the history that it was cut from, and holds no more of it."""
    for segment in FileSegments(wav, Settings(), max_segment_s=30):
        assert segment.audio is not None
        assert segment.audio.base is None


def test_a_closed_file_gives_no_more_and_invents_no_end(wav: Path) -> None:
    segments = FileSegments(wav, Settings(), max_segment_s=30)
    given = 0
    for _ in segments:
        given += 1
        segments.close()
    assert given == 1
    assert segments.duration_s < segments.length_s
