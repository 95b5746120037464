"""The audio of the last utterances is kept only where that was asked for, and within bounds."""

from __future__ import annotations

import json
import logging
import os
import resource
import stat
import wave
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from fakes import FakeRecognizer, ScriptedSource, silence, speech
from harkd.audio import RATE_HZ, AudioBlock, Int16, SourceOpened
from harkd.debug_capture import DebugCapture
from harkd.errors import CommandError, StateError
from harkd.events import Final, Rejected, RejectReason
from harkd.messages import About, Message
from harkd.pipeline import Pipeline
from harkd.recent_utterances import HeardUtterance, RecentUtterances
from harkd.recognizer.protocol import Hypothesis
from harkd.settings import DebugSettings, MqttSettings, RecognizerSettings, Settings

ABOUT = About("harkd", "kitchen", "1.0", "tiny", "cpu", retain_last=True, max_age_s=30)
SPOKEN = datetime(2026, 11, 22, 19, 29, 50, 720_000, tzinfo=UTC)
DAY_S = 86400.0


def ident(number: int) -> str:
    return f"01M82BRYP6B0C90APFNXEN{number:04}"


def utterance(
    number: int = 1, samples: Int16 | None = None, text: str = "Lights."
) -> HeardUtterance:
    audio = speech(100, seed=number) if samples is None else samples
    began = SPOKEN + timedelta(minutes=number)
    length_s = len(audio) / RATE_HZ
    end = Final(ident(number), 1, text, 0.9, began, began, length_s, 0, 0, "en", "tiny")
    return HeardUtterance(audio, end, Hypothesis(text, 0.9), Settings())


class Rig:
    """A capture in a folder, with a clock of its own."""

    def __init__(self, state: Path, settings: Settings | None = None, **debug: int) -> None:
        chosen = DebugSettings(**{"utterances": 10, **debug})
        self.sent: list[Message] = []
        self.now_s = datetime.now(UTC).timestamp()
        self.capture = DebugCapture(
            replace(settings or Settings(), debug=chosen),
            state,
            lambda: ABOUT,
            self.sent.append,
            now_s=lambda: self.now_s,
        )

    def hear(self, *numbers: int) -> None:
        assert self.capture.keep
        for number in numbers:
            self.capture.keep(utterance(number))

    @property
    def names(self) -> list[str]:
        folder = self.capture.folder
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    @property
    def recordings(self) -> list[str]:
        """Whose audio is there: the ends of their ids."""
        return [name.removesuffix(".wav")[-4:] for name in self.names if name.endswith(".wav")]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


# ------------------------------------------------------------------------------ in memory


def test_no_more_utterances_are_kept_than_asked_for() -> None:
    recent = RecentUtterances(3)
    for number in range(1, 6):
        recent.add(utterance(number))
    assert [each.end.id for each in recent.latest(10)] == [ident(3), ident(4), ident(5)]
    assert [each.end.id for each in recent.latest(2)] == [ident(4), ident(5)]


def test_no_more_seconds_are_kept_than_there_is_memory_for_but_always_the_last() -> None:
    recent = RecentUtterances(100, most_s=10)
    for number in range(1, 6):
        recent.add(utterance(number, silence(4000)))
    assert [each.end.id for each in recent.latest(100)] == [ident(4), ident(5)]
    recent.add(utterance(6, silence(60_000)))
    assert [each.end.id for each in recent.latest(100)] == [ident(6)]


def test_what_is_kept_is_what_the_recognizer_heard_and_how_it_ended() -> None:
    heard: list[HeardUtterance] = []
    told: list[object] = []
    recognizer = FakeRecognizer()
    audio = np.concatenate([silence(500), speech(1500), silence(1500)])

    def keep(one: HeardUtterance) -> None:
        assert one.end not in told  # whoever sees the final can have its audio
        heard.append(one)

    source = ScriptedSource([SourceOpened("", 16000, 1), AudioBlock(audio, 0)], lossless=True)
    pipeline = Pipeline(source, recognizer, Settings(), told.append, keep=keep)
    pipeline.start()
    assert pipeline.wait(20)
    (one,) = heard
    assert one.end in told
    assert np.array_equal(one.samples, recognizer.streams[0].audio)
    assert one.samples.base is None  # a view would hold all of the segment's buffer
    assert one.hypothesis
    assert isinstance(one.end, Final)
    assert one.hypothesis.text == one.end.text


def test_the_text_of_what_was_rejected_is_kept_too() -> None:
    heard: list[HeardUtterance] = []
    recognizer = FakeRecognizer(script=lambda _: Hypothesis("Perhaps.", 0.2))
    audio = np.concatenate([silence(500), speech(1500), silence(1500)])
    source = ScriptedSource([SourceOpened("", 16000, 1), AudioBlock(audio, 0)], lossless=True)
    wanted = Settings(recognizer=RecognizerSettings(min_confidence=0.5))
    pipeline = Pipeline(source, recognizer, wanted, lambda _: None, keep=heard.append)
    pipeline.start()
    assert pipeline.wait(20)
    assert isinstance(heard[0].end, Rejected)
    assert heard[0].hypothesis == Hypothesis("Perhaps.", 0.2)


# ------------------------------------------------------------------------------- when off


def test_by_default_nothing_is_kept_and_the_command_says_how_to_change_that(state: Path) -> None:
    capture = DebugCapture(Settings(), state, lambda: ABOUT, lambda _: None)
    assert capture.keep is None
    with pytest.raises(CommandError, match=r"debug\.utterances is 0.*restart harkd"):
        capture.save(None)
    capture.sweep()
    assert not state.exists()


# ---------------------------------------------------------------------------- on the disk


def test_saved_audio_is_that_of_the_utterance_sample_by_sample(state: Path) -> None:
    rig = Rig(state)
    one = utterance(7)
    rig.capture._recent.add(one)
    rig.capture.save(None)
    name = f"20261122T193650Z-{ident(7)}"
    assert rig.names == [f"{name}.json", f"{name}.wav"]
    with wave.open(str(rig.capture.folder / f"{name}.wav")) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, 16000)
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
    assert np.array_equal(samples, one.samples)


def test_only_we_may_read_what_was_saved(state: Path) -> None:
    old = os.umask(0)
    try:
        rig = Rig(state)
        rig.capture.folder.mkdir(parents=True, mode=0o777)
        rig.hear(1)
        rig.capture.save(None)
    finally:
        os.umask(old)
    assert stat.S_IMODE(rig.capture.folder.stat().st_mode) == 0o700
    for name in rig.names:
        assert stat.S_IMODE((rig.capture.folder / name).stat().st_mode) == 0o600


def test_the_answer_says_what_was_written_and_where(state: Path) -> None:
    rig = Rig(state)
    rig.hear(1, 2, 3)
    rig.capture.save(2)
    (message,) = rig.sent
    assert (message.topic, message.qos, message.retain) == ("harkd/kitchen/debug/saved", 1, False)
    told = json.loads(message.payload)
    assert told["folder"] == str(rig.capture.folder)
    assert told["count"] == 2
    assert told["files"] == [name for name in rig.names if name.endswith(".wav")]
    assert rig.recordings == ["0002", "0003"]


def test_before_anybody_has_spoken_the_answer_is_none(state: Path) -> None:
    rig = Rig(state)
    rig.capture.save(None)
    assert json.loads(rig.sent[0].payload)["count"] == 0


def test_saving_twice_writes_the_same_files(state: Path) -> None:
    rig = Rig(state)
    rig.hear(1, 2)
    rig.capture.save(None)
    rig.capture.save(None)
    assert rig.recordings == ["0001", "0002"]


def facts_of(rig: Rig) -> dict[str, object]:
    (name,) = [name for name in rig.names if name.endswith(".json")]
    facts: dict[str, object] = json.loads((rig.capture.folder / name).read_bytes())
    return facts


def test_beside_the_audio_stands_what_was_heard_and_with_which_settings(state: Path) -> None:
    rig = Rig(state)
    rig.hear(1)
    rig.capture.save(None)
    facts = facts_of(rig)
    settings = facts.pop("settings")
    assert facts == {
        "id": ident(1),
        "device_id": "kitchen",
        "event_type": "final",
        "reason": "",
        "text": "Lights.",
        "confidence": 0.9,
        "started_at": "2026-11-22T19:30:50.720Z",
        "duration_s": 0.1,
        "audio_s": 0.1,
        "model": "tiny",
        "version": "1.0",
    }
    assert isinstance(settings, dict)
    assert list(settings) == ["audio", "vad", "endpoint", "recognizer"]
    assert settings["vad"]["aggressiveness"] == 2


def test_of_a_rejection_stands_its_reason(state: Path) -> None:
    rig = Rig(state)
    end = Rejected(ident(1), RejectReason.TOO_SHORT, SPOKEN, 0.1)
    assert rig.capture.keep
    rig.capture.keep(HeardUtterance(speech(100), end, None, Settings()))
    rig.capture.save(None)
    facts = facts_of(rig)
    assert (facts["event_type"], facts["reason"]) == ("rejected", "too_short")
    assert (facts["text"], facts["confidence"]) == (None, None)


def test_words_that_are_private_are_not_written(state: Path) -> None:
    rig = Rig(state, Settings(mqtt=MqttSettings(open_text=False)))
    rig.hear(1)
    rig.capture.save(None)
    assert rig.recordings == ["0001"]
    assert "text" not in facts_of(rig)
    (text,) = rig.capture.folder.glob("*.json")
    assert "Lights" not in text.read_text()


def test_no_more_are_on_the_disk_than_allowed(state: Path) -> None:
    rig = Rig(state, keep_files=3)
    for number in range(1, 6):
        rig.hear(number)
        rig.capture.save(1)
        path = next(rig.capture.folder.glob(f"*{ident(number)}.wav"))
        for each in (path, path.with_suffix(".json")):
            os.utime(each, (rig.now_s - 100 + number,) * 2)
        rig.capture.sweep()
    assert rig.recordings == ["0003", "0004", "0005"]
    assert len(rig.names) == 6


def test_of_more_than_are_allowed_the_newest_are_written(state: Path) -> None:
    rig = Rig(state, keep_files=2)
    rig.hear(1, 2, 3, 4)
    rig.capture.save(None)
    assert rig.recordings == ["0003", "0004"]


def test_what_is_too_old_is_removed_at_the_start_also_where_nothing_is_kept_any_more(
    state: Path,
) -> None:
    rig = Rig(state)
    rig.hear(1)
    rig.capture.save(None)
    later = Rig(state, utterances=0, keep_days=2)
    later.now_s += 1.9 * DAY_S
    later.capture.sweep()
    assert later.recordings == ["0001"]
    later.now_s += 0.2 * DAY_S
    later.capture.sweep()
    assert later.names == []


def test_what_a_crash_left_half_written_is_removed_as_well(state: Path) -> None:
    rig = Rig(state, keep_days=1)
    rig.capture.folder.mkdir(parents=True)
    (rig.capture.folder / f"20261122T193650Z-{ident(7)}.wav.new").write_bytes(b"RIFF")
    rig.now_s += 2 * DAY_S
    rig.capture.sweep()
    assert rig.names == []


def test_files_of_others_are_left_alone(state: Path) -> None:
    rig = Rig(state, keep_days=1, keep_files=1)
    rig.capture.folder.mkdir(parents=True)
    others = ["notes.txt", "20261122T193650Z.wav", f"my-20261122T193650Z-{ident(7)}.wav"]
    for name in others:
        (rig.capture.folder / name).write_bytes(b"")
    rig.now_s += 400 * DAY_S
    rig.capture.sweep()
    assert rig.names == sorted(others)


def test_a_disk_that_takes_no_more_is_one_error_with_its_mend_and_leaves_no_half_file(
    state: Path,
) -> None:
    rig = Rig(state)
    rig.hear(1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StateError, match=r"File too large.*Make room there"):
            rig.capture.save(None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert rig.names == []
    assert rig.sent == []
    rig.capture.save(None)
    assert rig.recordings == ["0001"]


def test_a_folder_that_cannot_be_made_is_one_error(state: Path) -> None:
    state.parent.mkdir(exist_ok=True)
    state.write_text("a file stands there")
    rig = Rig(state)
    rig.hear(1)
    with pytest.raises(StateError, match="cannot be written to"):
        rig.capture.save(None)


def test_that_old_recordings_cannot_be_removed_is_warned_of_once(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state.mkdir()
    (state / "debug").write_text("a file stands there")
    rig = Rig(state)
    with caplog.at_level(logging.WARNING):
        rig.capture.sweep()
        rig.capture.sweep()
    (record,) = caplog.records
    assert "cannot be removed" in record.message
