"""Commands and phrases through a real broker: never late, never lost, set from afar."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finals import final
from harkd.events import Final, PhraseMatch
from harkd.messages import About
from harkd.mqtt_connection import Address
from harkd.outbox import Outbox
from harkd.phrases.sent import MOST_BYTES
from harkd.publisher import Publisher
from mqtt_house import MqttHouse
from servers import Mosquitto, Received, Subscriber, wait_until

pytestmark = pytest.mark.integration

ABOUT = About("harkd", "kitchen", "0.1.0", "tiny", "CPU", retain_last=True, max_age_s=20)
ROOT = "harkd/kitchen"
COUNT = itertools.count(1)


def command(intent: str, age_s: float = 0.0) -> Final:
    """A final that is a phrase, whose last word was spoken so long ago."""
    spoken_ns = time.monotonic_ns() - round(age_s * 1e9)
    return replace(
        final(f"{intent}-{next(COUNT)}", intent, spoken_ns),
        match=PhraseMatch(intent, intent, {"lamp": "desk lamp", "percent": 50}, 0.9, 0.1),
        open_text="open text",
    )


@contextlib.contextmanager
def publishing(broker: Mosquitto, database: Path, *, jitter: float = 0.1) -> Iterator[Publisher]:
    """A publisher as of a daemon that was just started; it waits so much of its usual times."""
    address = Address("127.0.0.1", broker.port, "harkd-kitchen")
    publisher = Publisher(address, "5", ABOUT, Outbox(database), jitter=lambda: jitter)
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.stop()


def on(name: str) -> Callable[[Received], bool]:
    return lambda message: message.topic == f"{ROOT}/{name}"


def online(message: Received) -> bool:
    """Sent just now, and not what a daemon before this one has left at the broker."""
    return on("availability")(message) and message.payload == b"online" and not message.retain


def commands(subscriber: Subscriber) -> list[Received]:
    return [each for each in subscriber.messages if each.topic.startswith(f"{ROOT}/command/")]


def missed(subscriber: Subscriber) -> list[Any]:
    found = (each for each in subscriber.messages if on("transcript/missed")(each))
    return [json.loads(each.payload) for each in found]


# ------------------------------------------------------------------ never late, never lost


def test_a_command_arrives_once_beside_its_transcript(broker: Mosquitto, tmp_path: Path) -> None:
    with (
        Subscriber(broker) as subscriber,
        publishing(broker, tmp_path / "outbox.sqlite") as publisher,
    ):
        publisher.publish(command("light_on"))
        subscriber.wait_for(on("transcript/last"), 10)
        (received,) = commands(subscriber)
        assert received.topic == f"{ROOT}/command/light_on"
        assert (received.qos, received.retain) == (1, False)
        assert 17 <= (received.expiry_s or 0) <= 20
        body = json.loads(received.payload)
        assert (body["event_type"], body["slots"]["percent"]) == ("light_on", 50)
    with Subscriber(broker) as late:
        late.wait_for(on("availability"), 5)
        assert commands(late) == [], "the broker keeps none"


def test_commands_survive_an_outage_and_a_restart_and_late_ones_are_never_sent(
    broker: Mosquitto, tmp_path: Path
) -> None:
    """Three that were spoken without a broker; the daemon ends; the broker comes; it starts."""
    database = tmp_path / "outbox.sqlite"
    broker.kill()
    with publishing(broker, database) as publisher:
        publisher.publish(command("too_late", age_s=19.5))
        publisher.publish(command("in_time", age_s=5))
        publisher.publish(command("just_now"))
        wait_until(lambda: publisher.outbox_facts().on_disk, "the disk", 10)
    broker.start()
    time.sleep(0.6)  # the first is too old now
    # After the second outage it comes back when the subscriber has.
    with Subscriber(broker) as subscriber, publishing(broker, database, jitter=3.0) as publisher:
        wait_until(lambda: len(commands(subscriber)) == 2, "two commands", 15)
        broker.kill()
        publisher.publish(command("during_an_outage"))
        publisher.publish(command("late_by_far", age_s=60))
        subscriber.wait_lost()
        broker.start()
        wait_until(lambda: len(missed(subscriber)) == 2, "both late ones", 15)
        wait_until(lambda: len(commands(subscriber)) == 3, "the third command", 15)
        heard = commands(subscriber)
    assert [each.topic.rpartition("/")[2] for each in heard] == [
        *("in_time", "just_now", "during_an_outage")
    ]
    assert [each["text"] for each in missed(subscriber)] == ["too_late", "late_by_far"]
    for each in missed(subscriber):
        assert each["match"]["slots"] == {"lamp": "desk lamp", "percent": 50}, "kept on the disk"
        assert each["open_text"] == "open text"
    expiry_s = heard[0].expiry_s or 0
    assert 0 < expiry_s <= 15, "what is left, not the whole of max_age_s"


# ------------------------------------------------------------------ phrases from afar


def states(subscriber: Subscriber) -> list[Any]:
    found = (each for each in subscriber.messages if on("phrases/state")(each))
    return [json.loads(each.payload) for each in found]


def last_event_types(subscriber: Subscriber) -> list[str] | None:
    """What Home Assistant was told last; None where the entity is to go."""
    found = [each for each in subscriber.messages if each.topic.endswith("harkd_kitchen/config")]
    component = json.loads(found[-1].payload)["components"]["command"] if found else {}
    types: list[str] | None = component.get("event_types")
    return types


def test_phrases_are_set_tried_and_taken_back_over_mqtt(broker: Mosquitto, tmp_path: Path) -> None:
    with Subscriber(broker) as subscriber, MqttHouse(broker, tmp_path).running():
        wait_until(lambda: last_event_types(subscriber) == ["light_on"], "the announcement", 10)
        ask = json.dumps({"command": "test_final", "phrase": "Turn on the desk lamp."})
        subscriber.publish(f"{ROOT}/command", ask)
        body = json.loads(subscriber.wait_for(on("command/light_on"), 10).payload)
        assert (body["slots"], body["test"]) == ({"lamp": "desk lamp"}, True)

        phrases = json.dumps({"intents": {"go_away": ["go away"]}})
        subscriber.publish(f"{ROOT}/phrases/set", phrases.ljust(MOST_BYTES), retain=True)
        wait_until(lambda: last_event_types(subscriber) == ["go_away"], "the new event types", 20)
        wait_until(lambda: states(subscriber)[-1]["source"] == "mqtt", "the new state", 10)
        subscriber.publish(f"{ROOT}/command", ask)
        error = json.loads(subscriber.wait_for(on("error"), 10).payload)
        assert "is none of the phrases" in error["error"]

        seen = len(subscriber.messages)
        subscriber.publish(f"{ROOT}/phrases/set", '{"intents":{"a":["[b"]}}')
        error = json.loads(subscriber.wait_for(on("error"), 10, after=seen).payload)
        assert error["error"].startswith('phrases/set:1:19: "[b" "[" is never closed')
        assert states(subscriber)[-1]["intents"] == ["go_away"]

    with Subscriber(broker) as subscriber, MqttHouse(broker, tmp_path).running():
        subscriber.wait_for(online, 10)
        wait_until(lambda: states(subscriber)[-1]["intents"] == ["go_away"], "its state", 10)
        wait_until(lambda: last_event_types(subscriber) == ["go_away"], "the announcement", 10)
        subscriber.publish(f"{ROOT}/phrases/set", '{"intents":{}}')
        wait_until(lambda: states(subscriber)[-1]["intents"] == [], "an empty set", 20)
        wait_until(lambda: last_event_types(subscriber) is None, "no event types", 10)
        subscriber.publish(f"{ROOT}/phrases/set", "{}")
        wait_until(
            lambda: last_event_types(subscriber) == ["light_on"], "the settings' phrases", 20
        )

    with Subscriber(broker) as subscriber, MqttHouse(broker, tmp_path).running() as side:
        assert side.publisher.connected.wait(10)
        wait_until(lambda: bool(states(subscriber)), "its state", 10)
        time.sleep(0.5)  # the retained message has come by now, for the third time
        assert states(subscriber)[-1]["intents"] == ["light_on"], "it is older than {}"
