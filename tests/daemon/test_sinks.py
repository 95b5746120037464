"""Where events go besides MQTT."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harkd.events import Final, PhraseMatch, Rejected, RejectReason, State, StateChanged
from harkd.messages import About, Message
from harkd.sinks import EventPrinter, MicrophoneAvailability, MicrophoneHint, log_event

ABOUT = About("harkd", "kitchen", "1.0", "tiny", "cpu", retain_last=True, max_age_s=30)
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FINAL = Final(
    id="01", rev=3, text="Licht an, „bitte“.", confidence=0.9, started_at=AT, ended_at=AT,
    duration_s=1.0, speech_end_ns=0, endpoint_ns=0, language="en", model="tiny",
)  # fmt: skip
NO_MICROPHONE = StateChanged(State.NO_MICROPHONE, AT, "no microphone found")
LISTENING = StateChanged(State.LISTENING, AT)


class Stdout(io.TextIOWrapper):
    """A text stream over bytes, as stdout is; may be closed at the other end."""

    def __init__(self) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes)


class Gone(io.BytesIO):
    """A pipe whose reader has left."""

    def write(self, _data: object, /) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_each_event_is_one_json_line_with_its_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Stdout()
    monkeypatch.setattr(sys, "stdout", out)
    printer = EventPrinter(lambda: ABOUT)
    printer(LISTENING)
    printer(FINAL)
    printer(Rejected("02", RejectReason.NO_SPEECH, AT, 0.5))
    printer.close()
    state, final, rejected = map(json.loads, out.bytes.getvalue().splitlines())
    assert (state["topic"], state["state"]) == ("state", "listening")
    assert (final["topic"], final["text"]) == ("transcript/missed", "Licht an, „bitte“.")
    assert (rejected["topic"], rejected["reason"]) == ("transcript/rejected", "no_speech")


def test_the_line_of_a_final_that_is_a_phrase_tells_what_it_stands_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    log_event(replace(FINAL, match=PhraseMatch("licht an", "light_on", {"lamp": "bed"}, 0.9, 0.1)))
    (record,) = caplog.records
    assert record.getMessage().startswith("\"Licht an, „bitte“.\", light_on {'lamp': 'bed'} (1.0 s")
    assert record.__dict__["fields"]["intent"] == "light_on"


def test_a_reader_that_leaves_is_told_once_and_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(Gone()))
    printer = EventPrinter(lambda: ABOUT)
    printer(LISTENING)
    printer(LISTENING)
    printer.close()
    assert caplog.text.count("stdout cannot be written (Broken pipe)") == 1
    monkeypatch.undo()


def test_a_reader_that_does_not_read_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `harkd run --print | less`: the pipe is full, and the daemon goes on listening."""
    read_fd, write_fd = os.pipe()
    out = os.fdopen(write_fd, "w")
    monkeypatch.setattr(sys, "stdout", out)
    printer = EventPrinter(lambda: ABOUT)
    for _ in range(3000):
        printer(LISTENING)
    os.close(read_fd)  # lets the printer's thread end
    printer.close()
    monkeypatch.undo()
    with contextlib.suppress(BrokenPipeError):
        out.close()


def test_an_utterance_is_one_line_at_info_with_its_fields(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "harkd")
    log_event(LISTENING)
    log_event(FINAL)
    (record,) = caplog.records
    assert FINAL.text in record.getMessage()
    fields = record.__dict__["fields"]
    assert fields["id"] == "01"
    assert {"latency_ms", "endpoint_ms", "confidence", "rev", "duration_s"} <= set(fields)


def test_who_has_no_microphone_is_told_once_how_to_try_without(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "harkd")
    hint = MicrophoneHint(Path("/models/sample.wav"))
    hint(NO_MICROPHONE)
    hint(NO_MICROPHONE)
    assert caplog.text.count("harkd run --source wav:/models/sample.wav") == 1


def test_who_had_a_microphone_needs_no_such_hint(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "harkd")
    hint = MicrophoneHint(Path("/models/sample.wav"))
    hint(LISTENING)
    hint(NO_MICROPHONE)
    assert caplog.text == ""


def test_a_microphone_is_available_while_it_is_listened_to_and_each_change_is_told_once() -> None:
    kept: list[Message] = []
    tell = MicrophoneAvailability(kept.append, lambda: ABOUT)
    steps = [
        (State.STARTING, b"offline"),
        (State.LISTENING, b"online"),
        (State.SPEECH, b""),
        (State.LISTENING, b""),
        (State.NO_MICROPHONE, b"offline"),
        (State.LISTENING, b"online"),
        (State.MUTED, b"offline"),
        (State.FAILED, b""),
        (State.SPEECH, b"online"),
    ]
    for state, payload in steps:
        kept.clear()
        tell(StateChanged(state, AT))
        assert [message.payload for message in kept] == ([payload] if payload else [])
    tell(FINAL)
    kept.clear()
    tell.close()
    (message,) = kept
    assert (message.topic, message.payload) == ("harkd/kitchen/microphone/availability", b"offline")
    assert message.retain
