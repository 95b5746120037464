"""Commands in a real Home Assistant: the event entity, its types, and an automation on it."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from home_assistant.core import Core
from home_assistant.test_discovery import automation
from mqtt_house import MqttHouse
from servers import Mosquitto, Subscriber, wait_until

pytestmark = pytest.mark.integration

ROOT = "harkd/kitchen"
COMMAND = "event.harkd_kitchen_command"
LISTENING = "switch.harkd_kitchen_listening"


@pytest.fixture
def subscriber(broker: Mosquitto) -> Iterator[Subscriber]:
    with Subscriber(broker) as client:
        yield client


def set_phrases(subscriber: Subscriber, phrases: object) -> None:
    subscriber.publish(f"{ROOT}/phrases/set", json.dumps(phrases))


def say(subscriber: Subscriber, phrase: str) -> None:
    ask = json.dumps({"command": "test_final", "phrase": phrase})
    subscriber.publish(f"{ROOT}/command", ask)


def attributes(core: Core) -> dict[str, Any]:
    found: dict[str, Any] = core.entities.get(COMMAND, {}).get("attributes", {})
    return found


def wait_for_types(core: Core, *types: str) -> None:
    wait_until(lambda: attributes(core).get("event_types") == [*types], f"types {types}", 15)


def ready(core: Core) -> None:
    core.wait({LISTENING: "on"}, 30)
    time.sleep(0.5)  # it subscribes a moment after an announcement


@pytest.mark.parametrize("variant", ["device", "component"])
def test_commands_are_events_of_the_intents_in_force(
    core: Core, subscriber: Subscriber, broker: Mosquitto, tmp_path: Path, variant: str
) -> None:
    with core, MqttHouse(broker, tmp_path, discovery=variant).running():
        wait_for_types(core, "light_on")
        ready(core)
        core.rename(COMMAND, "Order")
        say(subscriber, "Turn on the bed light.")
        wait_until(lambda: attributes(core).get("event_type") == "light_on", "the event", 10)
        heard = attributes(core)
        assert heard["slots"] == {"lamp": "light.bed"}
        assert (heard["intent"], heard["phrase"]) == ("light_on", "turn on the bed light")
        assert heard["test"] is True

        set_phrases(
            subscriber, {"intents": {"dim": ["dim to {0..100:percent}"], "go away": ["go"]}}
        )
        wait_for_types(core, "dim", "go away")
        assert core.entities[COMMAND]["name"] == "Order"
        say(subscriber, "dim to 50")
        wait_until(lambda: attributes(core).get("event_type") == "dim", "the event", 10)
        assert attributes(core)["slots"] == {"percent": 50}
        say(subscriber, "go")
        wait_until(lambda: attributes(core).get("event_type") == "go away", "the event", 10)
        assert core.complaints == []

        before = core.state(COMMAND)
        subscriber.publish(f"{ROOT}/command/unknown", '{"event_type":"unknown"}')
        wait_until(lambda: len(core.complaints) == 1, "a warning", 10)
        assert "Invalid event type unknown" in core.complaints[0]
        assert core.state(COMMAND) == before

        set_phrases(subscriber, {"intents": {}})
        core.wait({COMMAND: None, LISTENING: "on"}, 15)
        assert COMMAND not in core.entities, "it is forgotten, too"
        set_phrases(subscriber, {})
        wait_for_types(core, "light_on")
        assert len(core.complaints) == 1


@pytest.mark.parametrize("document", ["README.md", "docs/mqtt.md"])
def test_the_automation_to_copy_acts_on_a_command_and_on_nothing_else(
    core: Core, subscriber: Subscriber, broker: Mosquitto, tmp_path: Path, document: str
) -> None:
    """Not when phrases change, harkd comes back, or Home Assistant does."""
    with core:
        pass  # the integration is there before the automation
    core.configuration = f"light:\n{automation(document, 'Lights by command')}"
    house = MqttHouse(broker, tmp_path)
    with core:
        with house.running():
            wait_for_types(core, "light_on")
            ready(core)
            say(subscriber, "turn on the bed light")
            wait_until(lambda: core.calls == ["light.turn_on"], "the call", 10)
            assert core.targets == [["light.bed"]]
            lists = {"lists": {"lamp": [{"in": "moon", "out": "light.moon"}]}}
            set_phrases(subscriber, lists)
            set_phrases(subscriber, {"intents": {"stop": ["stop"], "light_on": ["on"]}})
            wait_for_types(core, "stop", "light_on")
            say(subscriber, "stop")
            wait_until(lambda: attributes(core).get("event_type") == "stop", "the event", 10)
            set_phrases(subscriber, {})
            wait_for_types(core, "light_on")
            say(subscriber, "turn on the bed light")
            wait_until(lambda: len(core.calls) == 2, "the second call", 10)
        core.wait({COMMAND: "unavailable"}, 15)
        with house.running():
            ready(core)
            assert attributes(core)["event_type"] == "light_on"
            time.sleep(1)
            assert len(core.calls) == 2
    with core, house.running():
        ready(core)
        assert core.calls == []
