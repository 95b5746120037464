"""Wake words by the real library, and what is said where it or a model is missing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from fakes import FakeRecognizer, Int16, ScriptedSource, frames_of, is_loud, silence
from harkd import wake_models
from harkd.audio import RATE_HZ, AudioBlock, SourceMuted, SourceOpened
from harkd.errors import SettingsError
from harkd.events import AwakeChanged, Event, Final, StateChanged, Woken
from harkd.segmenter import FRAME_SAMPLES
from harkd.settings import Settings, WakeSettings
from harkd.virtual_time import run_in_virtual_time
from harkd.wake_gate import WakeGate
from harkd.wake_models import load_detector, waking_segmenter, wanted_words
from harkd.wake_word import DELAY_SAMPLES, Reading, WordHeard, WordTracker

OPENED = SourceOpened("desk", RATE_HZ, 1)


# ------------------------------------------------------------------------------ off, and missing


def test_without_a_word_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymicro_wakeword", None)
    assert waking_segmenter(Settings(), WakeGate()) is None
    assert waking_segmenter(Settings(wake=WakeSettings(word=" , ")), WakeGate()) is None


def test_recorded_files_need_no_wake_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymicro_wakeword", None)
    assert waking_segmenter(Settings(wake=WakeSettings(word="alexa")), None) is None


def test_a_missing_library_is_told_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymicro_wakeword", None)
    with pytest.raises(SettingsError, match=r"wake\.word is alexa.* pip install 'harkd\[wake\]'"):
        load_detector(WakeSettings(word="alexa"))


def test_words_stand_between_commas() -> None:
    assert wanted_words(WakeSettings(word="alexa, /srv/hey house.json ,")) == [
        "alexa",
        "/srv/hey house.json",
    ]


# ---------------------------------------------------------------------------- the way to a final


class OneWord:
    """A word is likely from `likely_from` to `likely_to`, in samples from `reset` on."""

    def __init__(self, likely_from: int, likely_to: int) -> None:
        self.span = likely_from, likely_to
        self.taken = 0

    def push(self, samples: Int16) -> list[Reading]:
        self.taken += len(samples)
        return [
            Reading("alexa", self.taken, float(self.span[0] <= self.taken <= self.span[1]), 0.5)
        ]

    def reset(self) -> None:
        self.taken = 0


def events_of(script: list[object], recognizer: FakeRecognizer) -> list[Event]:
    events: list[Event] = []
    run_in_virtual_time(
        ScriptedSource(script),  # type: ignore[arg-type]
        recognizer,
        Settings(wake=WakeSettings(word="alexa")),
        lambda event, _position: events.append(event),
        is_speech=is_loud,
        gate=WakeGate(),
    )
    return events


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> OneWord:
    """The first word of each utterance ends 0.6 s after its beginning (1 s of context before)."""
    middle = RATE_HZ + RATE_HZ * 6 // 10 + DELAY_SAMPLES
    one = OneWord(middle - 2 * FRAME_SAMPLES, middle + 2 * FRAME_SAMPLES)
    monkeypatch.setattr(wake_models, "load_detector", lambda _wake: one)
    return one


@pytest.mark.usefixtures("detector")
def test_only_what_follows_the_word_is_recognized() -> None:
    recognizer = FakeRecognizer()
    audio = frames_of("." * 60 + "#" * 80 + "." * 60)
    events = events_of([OPENED, AudioBlock(audio, 0)], recognizer)
    assert [type(each) for each in events if not isinstance(each, StateChanged)][:3] == [
        AwakeChanged,
        Woken,
        AwakeChanged,
    ]
    (stream,) = recognizer.streams
    start = (60 + 30) * FRAME_SAMPLES
    assert np.array_equal(stream.audio, audio[start : start + len(stream.audio)])
    (final,) = (each for each in events if isinstance(each, Final))
    assert final.duration_s == pytest.approx(50 * 0.02)


@pytest.mark.usefixtures("detector")
def test_muting_forgets_the_word() -> None:
    recognizer = FakeRecognizer()
    word = frames_of("." * 60 + "#" * 30 + "." * 40)
    command = frames_of("." * 5 + "#" * 20 + "." * 60)
    script = [OPENED, AudioBlock(word, 0), SourceMuted(), OPENED, AudioBlock(command, 0)]
    events = events_of([*script], recognizer)
    assert [each.awake for each in events if isinstance(each, AwakeChanged)] == [False, True, False]
    assert not recognizer.streams
    events = events_of([OPENED, AudioBlock(word, 0), AudioBlock(command, 0)], recognizer)
    assert len(recognizer.streams) == 1


# ------------------------------------------------------------------------------ the real library


@pytest.fixture
def library() -> None:
    pytest.importorskip("pymicro_wakeword", reason="pip install 'harkd[wake]'")


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("hey jarvis", "Write hey_jarvis"),
        ("computer", "Take okay_nabu, hey_jarvis, hey_mycroft, alexa or a .json file"),
        ("/none/there.json", r"/none/there.json cannot be read \(No such file"),
    ],
)
def test_a_word_that_is_none_is_told_with_its_mend(word: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_detector(WakeSettings(word=word))


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    "description",
    [
        "no json",
        "[]",
        "{}",
        json.dumps({"model": "gone.tflite"}),
        json.dumps({"model": "text.tflite", "wake_word": "house", "micro": {}}),
    ],
)
def test_a_file_that_is_no_model_is_told_and_does_no_harm(description: str, tmp_path: Path) -> None:
    path = tmp_path / "house.json"
    path.write_text(description)
    (tmp_path / "text.tflite").write_text("not one at all")
    with pytest.raises(SettingsError, match=r"house\.json|gone\.tflite"):
        load_detector(WakeSettings(word=str(path)))


def flite(folder: Path, text: str) -> Int16:
    """A text as flite says it: int16, shape (n,), 16 kHz."""
    path = folder / "said.wav"
    subprocess.run(["flite", "-voice", "rms", "-t", text, "-o", path], check=True)
    sound, rate_hz = soundfile.read(path, dtype="float32")
    said: Int16 = (soxr.resample(sound, rate_hz, RATE_HZ) * 32767).astype(np.int16)
    return np.concatenate([silence(500), said, silence(500)])


def words_in(detector: wake_models.MicroWakeWords, audio: Int16, piece: int) -> list[str]:
    """The words that are heard in audio that comes in pieces."""
    detector.reset()
    tracker = WordTracker()
    heard = []
    for at in range(0, len(audio), piece):
        for reading in detector.push(audio[at : at + piece]):
            told = tracker.follow(reading)
            if isinstance(told, WordHeard):
                heard.append(told.word)
            elif told:
                tracker.reset()
    return heard


@pytest.mark.usefixtures("library")
@pytest.mark.skipif(not shutil.which("flite"), reason="flite is not installed")
def test_real_models_hear_their_words_and_forget_them(tmp_path: Path) -> None:
    detector = load_detector(WakeSettings(word="hey_jarvis, alexa"))
    jarvis = flite(tmp_path, "hey jarvis, turn on the kitchen light")
    alexa = flite(tmp_path, "alexa, turn on the kitchen light")
    for piece in (480, 1001, len(jarvis)):
        assert words_in(detector, jarvis, piece) == ["hey_jarvis"]
        assert words_in(detector, alexa, piece) == ["alexa"]
    assert words_in(detector, flite(tmp_path, "turn on the kitchen light"), 480) == []
    detector.push(jarvis)  # to be forgotten
    readings = []
    for _ in range(2):
        detector.reset()
        readings.append(detector.push(alexa))
    assert readings[0] == readings[1]


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(("threshold", "thresholds"), [(0.0, {0.9, 0.97}), (0.6, {0.6})])
def test_the_threshold_is_the_models_own_unless_one_is_set(
    threshold: float, thresholds: set[float]
) -> None:
    detector = load_detector(WakeSettings(word="hey_jarvis, alexa", threshold=threshold))
    readings = detector.push(silence(200))
    assert {each.threshold for each in readings} == thresholds
    assert {each.word for each in readings} == {"hey_jarvis", "alexa"}


@pytest.mark.usefixtures("library")
def test_a_model_of_ones_own_is_named_for_its_file(tmp_path: Path) -> None:
    import pymicro_wakeword

    folder = Path(pymicro_wakeword.__file__).parent / "models"
    shutil.copy(folder / "alexa.tflite", tmp_path)
    shutil.copy(folder / "alexa.json", tmp_path / "hey_house.json")
    assert load_detector(WakeSettings(word=f"{tmp_path}/hey_house.json")).words == ["hey_house"]
