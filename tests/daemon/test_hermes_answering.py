"""Hermes sessions on real threads, on a clock that a test sets."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from harkd import hermes
from harkd.events import State, StateChanged, Woken
from harkd.hermes_answering import TOPICS, HermesAnswerer
from harkd.messages import Message
from harkd.mqtt_connection import Received

START = b'{"siteId": "kitchen", "sessionId": "s1"}'
NOTHING_NEW = StateChanged(State.LISTENING, datetime(2026, 11, 22, tzinfo=UTC))


class Clock:
    """Seconds, when a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> int:
        return round(self.now_s * 1e9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said() -> queue.SimpleQueue[Message]:
    """What was sent."""
    return queue.SimpleQueue()


@pytest.fixture
def answerer(clock: Clock, said: queue.SimpleQueue[Message]) -> Iterator[HermesAnswerer]:
    one = HermesAnswerer("kitchen", said.put, clock)
    one.start()
    yield one
    one.stop()


def test_who_waits_for_wake_words_is_told_of_sessions(clock: Clock) -> None:
    open_now: list[bool] = []
    one = HermesAnswerer("kitchen", lambda _message: None, clock, on_session=open_now.append)
    one.take(Received(hermes.START, START, retained=False))
    assert open_now[-1] is True
    one.take(Received(hermes.TOGGLE_OFF, b'{"siteId": "kitchen"}', retained=False))
    assert open_now[-1] is False
    one.take(Received(hermes.TOGGLE_ON, b'{"siteId": "kitchen"}', retained=False))
    assert open_now[-1] is True
    one.take(Received(hermes.STOP, START, retained=False))
    assert open_now[-1] is False


def test_a_wake_word_is_a_hotword(
    answerer: HermesAnswerer, said: queue.SimpleQueue[Message]
) -> None:
    answerer.hear(Woken("alexa", 0.9, NOTHING_NEW.since))
    message = said.get(timeout=5)
    assert message.topic == "hermes/hotword/alexa/detected"
    assert json.loads(message.payload)["siteId"] == "kitchen"


def test_only_these_topics_are_listened_to() -> None:
    assert set(TOPICS) == {
        "hermes/asr/toggleOn",
        "hermes/asr/toggleOff",
        "hermes/asr/startListening",
        "hermes/asr/stopListening",
    }


def test_a_silent_session_ends_by_itself(
    answerer: HermesAnswerer, clock: Clock, said: queue.SimpleQueue[Message]
) -> None:
    answerer.take(Received(hermes.START, START, retained=False))
    clock.now_s += 29.9
    answerer.hear(NOTHING_NEW)
    time.sleep(0.3)
    assert said.empty()
    clock.now_s += 0.1
    message = said.get(timeout=5)
    assert message.topic == "hermes/asr/textCaptured"
    assert json.loads(message.payload)["text"] == ""


def test_what_lay_at_the_broker_is_of_long_ago(
    answerer: HermesAnswerer, said: queue.SimpleQueue[Message]
) -> None:
    answerer.take(Received(hermes.START, START, retained=True))
    answerer.take(Received(hermes.START, b"nonsense", retained=True))
    time.sleep(0.05)
    assert said.empty()


def test_a_fault_is_answered_at_once(
    answerer: HermesAnswerer, said: queue.SimpleQueue[Message]
) -> None:
    answerer.take(Received(hermes.STOP, b"nonsense", retained=False))
    assert said.get(timeout=1).topic == "hermes/error/asr"


def test_it_ends_at_once_with_a_session_open(said: queue.SimpleQueue[Message]) -> None:
    one = HermesAnswerer("kitchen", said.put)
    one.start()
    one.take(Received(hermes.START, START, retained=False))
    begin = time.monotonic()
    one.stop()
    assert time.monotonic() - begin < 5
    assert said.empty()
