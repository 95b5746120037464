"""The whole daemon among those that it lives with: Home Assistant's discovery, Rhasspy's Hermes.

Everything is real but these two, for which a client of the broker speaks; a real Home Assistant is
asked in ``tests/home_assistant``.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from daemon_process import Daemon
from harkd import announcing
from mouth import Mouth
from servers import Mosquitto, Received, Subscriber, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.model]

CONFIG = "homeassistant/device/harkd_test/config"


def on(topic: str) -> Callable[[Received], bool]:
    return lambda message: message.topic == topic


def announced(message: Received) -> bool:
    return message.topic == CONFIG and bool(message.payload)


@pytest.fixture
def subscriber(broker: Mosquitto) -> Iterator[Subscriber]:
    with Subscriber(broker) as client:
        yield client


Running = Callable[..., AbstractContextManager[Mouth]]


@pytest.fixture
def running(env: dict[str, str], model_dir: Path, tmp_path: Path) -> Running:
    """Called with settings as variables: a daemon, and somebody who speaks to it."""

    @contextmanager
    def run(**settings: str) -> Iterator[Mouth]:
        own = {**env, **{f"HARKD_{name}": value for name, value in settings.items()}}
        with (
            Mouth(model_dir / "samples" / "beckett.wav") as mouth,
            Daemon("--source", "-", env=own, folder=tmp_path, stdin=mouth.ear),
        ):
            yield mouth

    return run


def test_home_assistant_is_told_and_told_again_when_it_starts(
    subscriber: Subscriber, running: Running
) -> None:
    with running():
        first = subscriber.wait_for(announced, 15)
        whole = json.loads(first.payload)
        assert whole["device"]["identifiers"] == ["harkd_test"]
        assert "event" in {part["platform"] for part in whole["components"].values()}
        seen = len(subscriber.messages)
        subscriber.publish("homeassistant/status", "online")
        again = subscriber.wait_for(announced, announcing.BIRTH_MOST_S + 2, after=seen)
        assert again.payload == first.payload
        for topic in ("availability", "state", "listen/state", "microphone/availability"):
            subscriber.wait_for(on(f"harkd/test/{topic}"), 1, after=seen)


def test_reannounce_tells_everything_again_once(subscriber: Subscriber, running: Running) -> None:
    with running():
        subscriber.wait_for(announced, 15)
        subscriber.wait_for(on("harkd/test/health"), 15)  # the next one comes after a minute
        seen = len(subscriber.messages)
        subscriber.publish("harkd/test/command", '{"command":"reannounce"}')
        subscriber.publish("harkd/test/command", '{"command":"test_final"}')
        subscriber.wait_for(on("harkd/test/transcript/last"), 5, after=seen)
        told = [m.topic.removeprefix("harkd/test/") for m in subscriber.messages[seen:]]
    again = [CONFIG, "availability", "health", "microphone/availability", "state"]
    again += ["listen/state", "vad/aggressiveness/state", "endpoint/silence_ms/state"]
    again += ["hotwords/state", "phrases/state", "wake/state"]
    asked = ["command", "command", "transcript", "transcript/text", "transcript/last"]
    assert sorted(told) == sorted(again + asked)


def test_what_was_told_is_taken_back_over_a_restart(
    broker: Mosquitto, subscriber: Subscriber, running: Running
) -> None:
    with running():
        subscriber.wait_for(announced, 15)
    seen = len(subscriber.messages)
    with running(MQTT__DISCOVERY="off"):
        subscriber.wait_for(lambda m: m.topic == CONFIG and not m.payload, 15, after=seen)
    with Subscriber(broker, "homeassistant/#") as late:
        late.publish("homeassistant/end", "")
        late.wait_for(on("homeassistant/end"), 5)
        assert [message.topic for message in late.messages] == ["homeassistant/end"]


def test_a_broker_that_forgets_is_told_again(
    broker: Mosquitto, subscriber: Subscriber, running: Running
) -> None:
    with running():
        subscriber.wait_for(announced, 15)
        broker.kill()
        seen = len(subscriber.messages)
        broker.start()
        subscriber.wait_subscribed()
        assert subscriber.wait_for(announced, 15, after=seen)


def test_a_hermes_session_is_answered_by_what_is_said_in_it(
    subscriber: Subscriber, running: Running
) -> None:
    """Beside `transcript`; outside of a session nothing is said on Hermes topics."""
    session = json.dumps({"siteId": "kitchen", "sessionId": "s1"})
    with running(HERMES__ENABLED="true", HERMES__SITE_ID="kitchen") as mouth:
        subscriber.wait_for(announced, 15)
        subscriber.publish("hermes/asr/startListening", "nonsense")
        error = json.loads(subscriber.wait_for(on("hermes/error/asr"), 5).payload)
        assert error["context"] == "nonsense"

        subscriber.publish("hermes/asr/startListening", session)
        mouth.speak()
        final = json.loads(subscriber.wait_for(on("harkd/test/transcript"), 30).payload)
        answer = json.loads(subscriber.wait_for(on("hermes/asr/textCaptured"), 5).payload)
        assert (answer["siteId"], answer["sessionId"]) == ("kitchen", "s1")
        assert answer["text"] == final["text"]
        assert answer["likelihood"] == final["confidence"]
        assert 0 <= answer["seconds"] < 5

        mouth.wait()  # the recording goes on, with another final, which no session waits for
        wait_until(lambda: state(subscriber) == "listening", "silence", 10)
        seen = len(subscriber.messages)
        subscriber.publish("hermes/asr/startListening", session)
        subscriber.publish("hermes/asr/stopListening", session)
        stopped = subscriber.wait_for(on("hermes/asr/textCaptured"), 5, after=seen)
        assert json.loads(stopped.payload)["text"] == ""
        finals = [each for each in subscriber.messages if on("harkd/test/transcript")(each)]
        answers = [each for each in subscriber.messages if on("hermes/asr/textCaptured")(each)]
        assert len(finals) > 1
        assert len(answers) == 2


def state(subscriber: Subscriber) -> str:
    """The daemon's last state."""
    states = [each for each in subscriber.messages if on("harkd/test/state")(each)]
    return str(json.loads(states[-1].payload)["state"])


def test_without_the_setting_hermes_is_not_answered(
    subscriber: Subscriber, running: Running
) -> None:
    with running():
        subscriber.wait_for(announced, 15)
        subscriber.publish("hermes/asr/startListening", "nonsense")
        seen = len(subscriber.messages)
        subscriber.publish("homeassistant/status", "online")
        subscriber.wait_for(announced, announcing.BIRTH_MOST_S + 2, after=seen)
        assert not any(message.topic == "hermes/error/asr" for message in subscriber.messages)


def test_with_a_wake_word_nothing_is_told_but_where_somebody_is_to_be_heard(
    subscriber: Subscriber, running: Running
) -> None:
    """The recording has no wake word; the command stands in for it."""
    pytest.importorskip("pymicro_wakeword", reason="pip install 'harkd[wake]'")
    with running(WAKE__WORD="alexa") as mouth:
        subscriber.wait_for(on("harkd/test/wake/state"), 15)
        mouth.speak()
        mouth.wait()
        assert not [
            each for each in subscriber.messages if each.topic.startswith("harkd/test/transcript")
        ]
        assert state(subscriber) == "listening"
        subscriber.publish("harkd/test/command", '{"command":"listen"}')
        mouth.speak()
        final = subscriber.wait_for(on("harkd/test/transcript"), 30)
        assert json.loads(final.payload)["text"]
        told = [each.payload for each in subscriber.messages if on("harkd/test/wake/state")(each)]
        assert told == [b"OFF", b"ON", b"OFF"]
    with running():
        subscriber.wait_for(lambda m: on("harkd/test/wake/state")(m) and not m.payload, 15)
        subscriber.wait_for(lambda m: announced(m) and b"/wake" not in m.payload, 15)
