"""harkd and a real Home Assistant: what appears there, what it does, and how it goes again."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from home_assistant.conftest import Running
from home_assistant.core import NOTHING_THERE, Core
from servers import Mosquitto, Received, Subscriber, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.model]

ROOT = "harkd/kitchen"
APPEAR_MOST_S = 2.0
BIRTH_MOST_S = 30.0
"""Home Assistant says `online` 5 s after its last discovery message; harkd answers within 5 s."""
EVENT = "event.harkd_kitchen_transcript"
LAST = "sensor.harkd_kitchen_last_transcript"
SPEAKING = "binary_sensor.harkd_kitchen_speaking"
PROBLEM = "binary_sensor.harkd_kitchen_microphone_problem"
LISTENING = "switch.harkd_kitchen_listening"
AGGRESSIVENESS = "number.harkd_kitchen_vad_aggressiveness"
SILENCE = "number.harkd_kitchen_end_silence"
WAKE, AWAKE = "event.harkd_kitchen_wake_word", "binary_sensor.harkd_kitchen_awake"
GAUGES = {
    "sensor.harkd_kitchen_latency",
    "sensor.harkd_kitchen_real_time_factor",
    "sensor.harkd_kitchen_cpu",
    "sensor.harkd_kitchen_memory",
}
ALL = {EVENT, LAST, SPEAKING, PROBLEM, LISTENING, AGGRESSIVENESS, SILENCE, *GAUGES}
BOTH = pytest.mark.parametrize("variant", ["device", "component"])


@pytest.fixture
def subscriber(broker: Mosquitto) -> Iterator[Subscriber]:
    with Subscriber(broker) as client:
        yield client


def say(subscriber: Subscriber, topic: str, payload: str) -> None:
    subscriber.publish(f"{ROOT}/{topic}", payload, retain=True)


def on(topic: str) -> Any:
    return lambda message: message.topic == f"{ROOT}/{topic}"


def is_announcement(message: Received) -> bool:
    return message.topic.endswith("/config") and bool(message.payload)


def assert_content(core: Core) -> None:
    """It has logged no warning, but for one where we take back what may never have been there."""
    unexpected = [line for line in core.complaints if NOTHING_THERE not in line]
    assert unexpected == []
    assert len(core.complaints) <= 1


def wait_for_all(core: Core, timeout_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while (there := {name for name, one in core.entities.items() if one["state"]}) != ALL:
        if time.monotonic() > deadline_s:
            log = "\n".join(core.complaints)
            raise AssertionError(f"missing: {ALL - there}; too much: {there - ALL}; log:\n{log}")
        time.sleep(0.05)


@BOTH
def test_everything_appears_soon_and_works(
    core: Core, subscriber: Subscriber, running: Running, variant: str
) -> None:
    with core, running(MQTT__DISCOVERY=variant) as (daemon, mouth):
        announced = subscriber.wait_for(is_announcement, 15)
        wait_for_all(core)
        took_s = time.monotonic() - announced.received_ns / 1e9
        print(f"{variant}: {len(ALL)} entities {took_s:.2f} s after the first announcement")
        assert took_s <= APPEAR_MOST_S

        devices = [entity["device"] for entity in core.entities.values()]
        assert devices[0]["name"] == "harkd kitchen"
        assert devices[0]["manufacturer"] == "harkd"
        assert all(device == devices[0] for device in devices)

        core.wait({LISTENING: "on", PROBLEM: "off", SPEAKING: "off"})
        core.wait({AGGRESSIVENESS: "2", SILENCE: "600"})
        hears(core, subscriber, mouth)
        is_operated(core, subscriber, mouth)
        follows_the_microphone(core, subscriber)
        measures(core)

        assert daemon.stop() == 0
        core.wait(dict.fromkeys(ALL, "unavailable"))
        assert_content(core)


def hears(core: Core, subscriber: Subscriber, mouth: Any) -> None:
    """The sensor shows the text, the event fires, somebody speaks and stops."""
    seen, seen_changes = len(subscriber.messages), len(core.changes)
    mouth.speak()
    final = json.loads(subscriber.wait_for(on("transcript"), 30, after=seen).payload)
    core.wait({LAST: final["text"]})
    entities = core.entities
    for entity_id in (LAST, EVENT):
        attributes = entities[entity_id]["attributes"]
        assert attributes["text"] == final["text"]
        assert attributes["id"] == final["id"]
        assert attributes["confidence"] == final["confidence"]
    assert entities[EVENT]["attributes"]["event_type"] == "final"
    mouth.wait()
    core.wait({SPEAKING: "off"})
    assert not [change for change in core.changes[seen_changes:] if change.entity_id == PROBLEM]
    course = [change.state for change in core.changes if change.entity_id == SPEAKING]
    assert course[-2:] == ["on", "off"]


def is_operated(core: Core, subscriber: Subscriber, mouth: Any) -> None:
    """Clicks do what they say: the numbers change, the switch mutes, and unmutes again."""
    before = {entity_id: core.state(entity_id) for entity_id in (LAST, EVENT)}
    core.call("number", "set_value", entity_id=AGGRESSIVENESS, value=1)
    core.call("number", "set_value", entity_id=SILENCE, value=800)
    core.wait({AGGRESSIVENESS: "1", SILENCE: "800"})
    core.call("switch", "turn_off", entity_id=LISTENING)
    core.wait({LISTENING: "off", SPEAKING: "unavailable", PROBLEM: "off", **before})
    seen = len(subscriber.messages)
    mouth.speak()
    mouth.wait()
    assert not any(on("transcript")(message) for message in subscriber.messages[seen:])
    seen_changes = len(core.changes)
    core.call("switch", "turn_on", entity_id=LISTENING)
    core.wait({LISTENING: "on", SPEAKING: "off", PROBLEM: "off", **before})
    heard = {change.entity_id for change in core.changes[seen_changes:]}
    assert heard.isdisjoint({LAST, EVENT}), "what was said long ago is news again"
    hears(core, subscriber, mouth)


def follows_the_microphone(core: Core, subscriber: Subscriber) -> None:
    """A microphone that fails is a problem, and switches nothing else off but what hears."""
    before = {entity_id: core.state(entity_id) for entity_id in (LAST, EVENT)}
    say(subscriber, "state", '{"state": "no_microphone", "reason": "plug one in"}')
    say(subscriber, "microphone/availability", "offline")
    core.wait({PROBLEM: "on", SPEAKING: "unavailable", LISTENING: "on", **before})
    assert core.entities[PROBLEM]["attributes"]["reason"] == "plug one in"
    say(subscriber, "microphone/availability", "online")
    say(subscriber, "state", '{"state": "listening", "reason": ""}')
    core.wait({PROBLEM: "off", LISTENING: "on", SPEAKING: "off", **before})


def measures(core: Core) -> None:
    """The diagnostics have figures, which come once a minute."""
    wait_until(lambda: all(is_figure(core.state(each)) for each in GAUGES), "all figures", 70)
    print({each: core.state(each) for each in sorted(GAUGES)})


def is_figure(state: str | None) -> bool:
    return bool(re.fullmatch(r"\d+(\.\d+)?", state or ""))


@pytest.mark.parametrize("text", ["word " * 80, "\N{HOCHO}" * 300, 'say "{{ 1 }}"\n' * 50])
def test_a_long_text_is_cut_in_the_state_and_whole_in_the_attributes(
    core: Core, subscriber: Subscriber, running: Running, text: str
) -> None:
    with core, running():
        wait_for_all(core, 30)
        core.wait({LISTENING: "on"})  # it has subscribed, which it does 0.1 s after announcements
        payload = json.dumps({"event_type": "final", "text": text})
        say(subscriber, "transcript/last", payload)
        subscriber.publish(f"{ROOT}/transcript", payload)
        core.wait({LAST: text[:255].strip()})
        assert core.entities[LAST]["attributes"]["text"] == text
        assert core.entities[EVENT]["attributes"]["text"] == text


def test_without_a_retained_transcript_the_sensor_works_too(
    core: Core, subscriber: Subscriber, running: Running
) -> None:
    with core, running(MQTT__RETAIN_LAST="false") as (_, mouth):
        wait_for_all(core, 30)
        mouth.speak()
        final = json.loads(subscriber.wait_for(on("transcript"), 30).payload)
        core.wait({LAST: final["text"]})
        last = {m.payload for m in subscriber.messages if on("transcript/last")(m)}
        assert last == {b""}, "it clears what an earlier start may have left, and says no more"


def automation(document: str, name: str) -> str:
    """The automation of that name to copy that a document has."""
    text = (Path(__file__).parents[2] / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(automation:\n.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if f"alias: {name}\n" in block)
    return str(block)


@pytest.mark.parametrize("document", ["README.md", "docs/mqtt.md"])
def test_the_automations_to_copy_act_on_what_is_said_and_never_twice(
    core: Core, subscriber: Subscriber, running: Running, document: str
) -> None:
    """Not when harkd comes back, nor when Home Assistant does: a late command is none."""
    with core:
        pass  # the integration is there before the automation
    core.configuration = f"light:\n{automation(document, 'Kitchen light by voice')}"
    with running():
        with core:
            wait_for_all(core, 30)
            core.wait({LISTENING: "on"})
            for text in ("Turn on the kitchen light.", "What a day."):
                final = {"event_type": "final", "text": text, "confidence": 0.9}
                subscriber.publish(f"{ROOT}/transcript", json.dumps(final))
                wait_for_text(core, text)
            time.sleep(0.5)
            assert core.calls == ["light.turn_on"]
            final["text"] = "Turn on the kitchen light."
            subscriber.publish(f"{ROOT}/transcript", json.dumps(final))
            wait_until(lambda: len(core.calls) == 2, "second call", 5)
        with core:
            core.wait({LISTENING: "on"}, 30)
            assert heard(core) == final["text"]
    with core:
        core.wait({EVENT: "unavailable"}, 30)
        with running():
            core.wait({LISTENING: "on"}, 30)
            assert heard(core) == final["text"]
            time.sleep(1)
            assert core.calls == []


def wait_for_text(core: Core, text: str) -> None:
    wait_until(lambda: heard(core) == text, text, 5)


def heard(core: Core) -> object:
    return core.entities[EVENT]["attributes"].get("text")


@BOTH
def test_what_is_turned_off_goes(core: Core, running: Running, variant: str) -> None:
    with core:
        with running(MQTT__DISCOVERY=variant):
            wait_for_all(core, 30)
        with running(MQTT__DISCOVERY="off"):
            core.wait(dict.fromkeys(ALL, None), 15)
            assert core.entities == {}
        assert_content(core)


@BOTH
def test_without_a_wake_word_its_entities_go(core: Core, running: Running, variant: str) -> None:
    with core:
        with running(MQTT__DISCOVERY=variant, WAKE__WORD="alexa"):
            core.wait({LISTENING: "on", WAKE: "unknown", AWAKE: "off"}, 30)
        with running(MQTT__DISCOVERY=variant):
            core.wait({LISTENING: "on", WAKE: None, AWAKE: None}, 30)
            wait_for_all(core)
        assert_content(core)


def test_a_new_name_of_the_device_takes_the_old_one_back(core: Core, running: Running) -> None:
    with core:
        with running():
            wait_for_all(core, 30)
        with running(DEVICE_ID="attic"):
            core.wait({LISTENING: None}, 15)
            core.wait({"switch.harkd_attic_listening": "on"}, 15)
            assert len(core.entities) == len(ALL)
        assert_content(core)


@pytest.mark.parametrize("way", [("device", "component"), ("component", "device")])
def test_from_one_variant_to_the_other_everything_stays_as_its_user_made_it(
    core: Core, subscriber: Subscriber, running: Running, way: tuple[str, str]
) -> None:
    with core:
        with running(MQTT__DISCOVERY=way[0]):
            wait_for_all(core, 30)
            core.rename(LISTENING, "Ear")
        seen = len(subscriber.messages)
        with running(MQTT__DISCOVERY=way[1]):
            subscriber.wait_for(is_announcement, 15, after=seen)
            wait_for_all(core)
            core.wait({LISTENING: "on", EVENT: "unknown"})
            assert core.entities[LISTENING]["name"] == "Ear"
        core.wait(dict.fromkeys(ALL, "unavailable"))
        assert_content(core)


def test_where_the_memory_is_lost_nothing_of_the_other_variant_is_left(
    core: Core, subscriber: Subscriber, running: Running, tmp_path: Path
) -> None:
    with core:
        with running(MQTT__DISCOVERY="component"):
            wait_for_all(core, 30)
        (tmp_path / "state" / "discovery.json").unlink()
        with running(MQTT__DISCOVERY="device"):
            subscriber.wait_for(lambda m: "/device/" in m.topic and bool(m.payload), 30)
            wait_for_all(core, 30)
            core.wait({LISTENING: "on"})
    left = {m.topic: m.payload for m in subscriber.messages if m.topic.endswith("/config")}
    assert [topic for topic, payload in left.items() if payload] == [
        "homeassistant/device/harkd_kitchen/config"
    ]


def test_when_home_assistant_starts_it_is_told_again(
    core: Core, subscriber: Subscriber, running: Running
) -> None:
    """Also where the broker has forgotten the announcement meanwhile."""
    with running():
        with core:
            wait_for_all(core, 30)
        topic = "homeassistant/device/harkd_kitchen/config"
        subscriber.publish(topic, "", retain=True)
        say(subscriber, "state", "")
        seen = len(subscriber.messages)
        with core:
            subscriber.wait_for(
                lambda m: m.topic == "homeassistant/status" and m.payload == b"online",
                BIRTH_MOST_S,
                after=seen,
            )
            born = time.monotonic()
            subscriber.wait_for(lambda m: m.topic == topic and bool(m.payload), 6, after=seen)
            print(f"told again {time.monotonic() - born:.1f} s after its birth message")
            subscriber.wait_for(lambda m: on("state")(m) and bool(m.payload), 1, after=seen)
            core.wait({SPEAKING: "off", PROBLEM: "off", LISTENING: "on", LAST: "unknown"})
