"""What Home Assistant is told, held against what its documentation asks of each platform.

A real Home Assistant is asked in ``tests/home_assistant``.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harkd import discovery
from harkd.discovery import Device, Variant
from harkd.messages import About, Message

ROOT = "harkd/kitchen/"
ABOUT = About("harkd", "kitchen", "0.1.0", "tiny", "cpu", retain_last=True, max_age_s=30)
KITCHEN = Device(ABOUT, "Raspberry Pi 4 Model B Rev 1.4", (300, 5000))
DEVICE_TOPIC = "homeassistant/device/harkd_kitchen/config"

# https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery and the page of each platform.
ANYWHERE = {
    "availability",
    "availability_mode",
    "default_entity_id",
    "device",
    "entity_category",
    "icon",
    "json_attributes_template",
    "json_attributes_topic",
    "name",
    "origin",
    "platform",
    "qos",
    "unique_id",
}
NEEDED = {
    "event": {"state_topic", "event_types"},
    "sensor": {"state_topic"},
    "binary_sensor": {"state_topic"},
    "switch": {"command_topic"},
    "number": {"command_topic"},
}
ALLOWED = {
    "event": set[str](),
    "sensor": {
        "value_template",
        "state_class",
        "unit_of_measurement",
        "suggested_display_precision",
    },
    "binary_sensor": {"device_class", "payload_on", "payload_off", "value_template"},
    "switch": {"state_topic", "payload_on", "payload_off"},
    "number": {"state_topic", "min", "max", "step", "mode", "unit_of_measurement"},
}
OPTIONS = {"listening", "vad_aggressiveness", "end_silence"}
GAUGES = {"latency", "real_time_factor", "cpu", "memory"}
ids = st.from_regex(r"[A-Za-z0-9_-]{1,60}", fullmatch=True)
prefixes = st.from_regex(r"[A-Za-z0-9_-]{1,20}(/[A-Za-z0-9_-]{1,20}){0,2}", fullmatch=True)
variants: st.SearchStrategy[Variant] = st.sampled_from(["device", "component"])


def told(variant: Variant = "device", device: Device = KITCHEN) -> list[Message]:
    return discovery.announcements(variant, "homeassistant", device)


def whole() -> dict[str, Any]:
    (message,) = told()
    payload: dict[str, Any] = json.loads(message.payload)
    return payload


def components(device: Device = KITCHEN) -> dict[str, dict[str, Any]]:
    """Each component as Home Assistant sees it: with what it takes from the device message."""
    payload = json.loads(told("device", device)[0].payload)
    shared = {key: payload[key] for key in ("availability", "availability_mode")}
    parts = payload["components"].items()
    return {name: shared | one for name, one in parts if set(one) != {"platform"}}


def named(device_id: str) -> Device:
    about = About("harkd", device_id, "0.1.0", "tiny", "cpu", retain_last=True, max_age_s=30)
    return Device(about, "PC", (100, 5000))


def strings(value: Any, key: str = "") -> list[tuple[str, str]]:
    """All texts anywhere in a payload, each with the key that it stands under."""
    if isinstance(value, dict):
        return [one for k, v in value.items() for one in strings(v, k)]
    if isinstance(value, list):
        return [one for v in value for one in strings(v, key)]
    return [(key, value)] if isinstance(value, str) else []


# ------------------------------------------------------------------------------- the device message


def test_the_device_is_announced_by_one_retained_message() -> None:
    (message,) = told()
    assert (message.topic, message.qos, message.retain) == (DEVICE_TOPIC, 1, True)
    assert message.expiry_s is None
    assert set(whole()) == {"device", "origin", "availability", "availability_mode", "components"}


def test_it_says_what_the_device_is_and_who_says_so() -> None:
    assert whole()["device"] == {
        "identifiers": ["harkd_kitchen"],
        "name": "harkd kitchen",
        "manufacturer": "harkd",
        "model": "Raspberry Pi 4 Model B Rev 1.4",
        "sw_version": "0.1.0",
    }
    assert whole()["origin"] == {"name": "harkd", "sw_version": "0.1.0"}


def test_it_has_these_components_and_no_others() -> None:
    assert {name: one["platform"] for name, one in components().items()} == {
        "transcript": "event",
        "last_transcript": "sensor",
        "speaking": "binary_sensor",
        "microphone_problem": "binary_sensor",
        "listening": "switch",
        "vad_aggressiveness": "number",
        "end_silence": "number",
        "latency": "sensor",
        "real_time_factor": "sensor",
        "cpu": "sensor",
        "memory": "sensor",
    }


@pytest.mark.parametrize("name", components())
def test_each_component_has_what_its_platform_needs_and_nothing_that_it_does_not_know(
    name: str,
) -> None:
    component = components()[name]
    platform = component["platform"]
    assert NEEDED[platform] | {"unique_id", "name"} <= set(component)
    assert set(component) <= ANYWHERE | NEEDED[platform] | ALLOWED[platform]


@given(device_id=ids, prefix=prefixes, variant=variants)
def test_any_device_id_makes_good_topics_and_unique_ids_of_a_moderate_size(
    device_id: str, prefix: str, variant: Variant
) -> None:
    device = named(device_id)
    messages = discovery.announcements(variant, prefix, device)
    assert sum(len(message.payload) for message in messages) < 20_000
    payloads = [json.loads(message.payload) for message in messages]
    parts = payloads if variant == "component" else [*components(device).values()]
    assert len({part["unique_id"] for part in parts}) == len(parts) == 11
    assert len({part["default_entity_id"] for part in parts}) == len(parts)
    for message in messages:
        assert discovery.is_ours(message.topic)
        assert message.topic.startswith(f"{prefix}/")
        assert message.topic in discovery.possible_topics(prefix, device)
    for key, text in strings(payloads):
        if key.endswith("topic"):
            assert text.startswith(f"harkd/{device_id}/")
            assert not re.search(r"[+#\0]", text)
        if key == "default_entity_id":
            assert re.fullmatch(r"[a-z_]+\.(?!_)[a-z0-9_]+(?<!_)", text)


@given(one=ids, other=ids)
def test_two_devices_never_share_an_identity(one: str, other: str) -> None:
    if one != other:
        first, second = (
            {c["unique_id"] for c in components(named(x)).values()} for x in (one, other)
        )
        assert first.isdisjoint(second)


def test_what_a_user_sees_first_stands_on_the_dashboard_and_the_rest_apart() -> None:
    categories = {name: one.get("entity_category") for name, one in components().items()}
    assert {name for name, category in categories.items() if category is None} == {
        "transcript",
        "last_transcript",
        "speaking",
        "listening",
    }
    assert {name for name, category in categories.items() if category == "config"} == {
        "vad_aggressiveness",
        "end_silence",
    }


def test_what_must_not_be_lost_is_sent_with_qos_1() -> None:
    assert {name for name, one in components().items() if one.get("qos") == 1} == (
        set(components()) - GAUGES
    )


# ------------------------------------------------------------------------------------- availability


def needs(name: str) -> list[str]:
    component = components()[name]
    assert component["availability_mode"] == "all"
    return [one["topic"].removeprefix(ROOT) for one in component["availability"]]


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_who_has_muted_can_unmute(name: str) -> None:
    """The microphone is not available then; the switch must be."""
    assert needs(name) == ["availability"]


@pytest.mark.parametrize("name", ["transcript", "last_transcript"])
def test_what_was_said_is_no_news_when_the_microphone_comes_back(name: str) -> None:
    """From unavailable to its old state is a change, and automations act on changes."""
    assert needs(name) == ["availability"]


def test_nobody_can_be_heard_speaking_without_a_microphone() -> None:
    assert needs("speaking") == ["availability", "microphone/availability"]


def test_a_microphone_has_a_problem_only_where_it_is_wanted_and_missing() -> None:
    """Its availability is offline, too, while it is muted and while it is being opened."""
    problem = components()["microphone_problem"]
    assert problem["state_topic"] == problem["json_attributes_topic"] == f"{ROOT}state"
    assert "== 'no_microphone'" in problem["value_template"]
    assert needs("microphone_problem") == ["availability"]


@pytest.mark.parametrize("name", sorted(GAUGES))
def test_figures_are_there_as_long_as_the_daemon_is(name: str) -> None:
    assert needs(name) == ["availability"]


# -------------------------------------------------------------------------------- single components


def test_the_event_takes_the_payload_of_a_final_as_it_is() -> None:
    event = components()["transcript"]
    assert event["state_topic"] == f"{ROOT}transcript"
    assert event["event_types"] == ["final"]


@pytest.mark.parametrize(
    ("retain_last", "topic"), [(True, "transcript/last"), (False, "transcript")]
)
def test_the_last_transcript_comes_from_the_topic_that_there_is(
    retain_last: bool, topic: str
) -> None:
    about = About("harkd", "kitchen", "0.1.0", "tiny", "cpu", retain_last, max_age_s=30)
    sensor = components(Device(about, "PC", (100, 5000)))["last_transcript"]
    assert sensor["state_topic"] == sensor["json_attributes_topic"] == ROOT + topic


def test_its_state_is_no_longer_than_home_assistant_takes() -> None:
    """Jinja cuts by code points, so no character is cut in half."""
    assert components()["last_transcript"]["value_template"] == "{{ value_json.text[:255] }}"


def test_the_end_silence_has_the_bounds_of_the_settings() -> None:
    number = components()["end_silence"]
    assert (number["min"], number["max"], number["unit_of_measurement"]) == (300, 5000, "ms")


@pytest.mark.parametrize(
    ("name", "topic"),
    [
        ("listening", "listen"),
        ("vad_aggressiveness", "vad/aggressiveness"),
        ("end_silence", "endpoint/silence_ms"),
    ],
)
def test_each_option_is_set_and_shown_on_its_own_topics(name: str, topic: str) -> None:
    option = components()[name]
    assert option["command_topic"] == f"{ROOT}{topic}/set"
    assert option["state_topic"] == f"{ROOT}{topic}/state"


# ------------------------------------------------------------------------------- the other variants


def test_one_message_for_each_component_tells_the_same() -> None:
    messages = told("component")
    assert all(message.retain and message.qos == 1 for message in messages)
    apart = {message.topic: json.loads(message.payload) for message in messages}
    common = {"device": whole()["device"], "origin": whole()["origin"]}
    assert apart == {
        f"homeassistant/{one['platform']}/harkd_kitchen/{name}/config": common | one
        for name, one in components().items()
    }


def test_off_tells_nothing() -> None:
    assert told("off") == []


def test_a_wake_word_is_an_event_and_a_light_only_where_there_is_one() -> None:
    assert not {"wake_word", "awake"} & set(components(KITCHEN))
    waking = components(replace(KITCHEN, wake=True))
    assert waking["wake_word"]["state_topic"] == f"{ROOT}wake"
    assert waking["wake_word"]["event_types"] == ["wake"]
    assert waking["awake"]["state_topic"] == f"{ROOT}wake/state"
    for name in ("wake_word", "awake"):
        platform = waking[name]["platform"]
        assert NEEDED[platform] <= set(waking[name]) <= NEEDED[platform] | ANYWHERE


def test_commands_are_events_of_the_intents_in_force() -> None:
    device = replace(KITCHEN, intents=("light_on", "Licht aus"))
    command = components(device)["command"]
    assert command["state_topic"] == f"{ROOT}command/+", "one that it hears all of"
    assert command["event_types"] == ["light_on", "Licht aus"]
    assert command["default_entity_id"] == "event.harkd_kitchen_command"
    assert NEEDED["event"] <= set(command) <= NEEDED["event"] | ANYWHERE
    topic = "homeassistant/event/harkd_kitchen/command/config"
    assert topic in {message.topic for message in told("component", device)}


def test_without_intents_home_assistant_is_told_to_forget_the_entity() -> None:
    """As its documentation asks: a component with a platform alone is removed."""
    assert whole()["components"]["command"] == {"platform": "event"}
    assert "command" not in components(KITCHEN)
    assert not any("command/config" in message.topic for message in told("component"))


def test_what_is_turned_off_is_removed_where_home_assistant_has_it() -> None:
    """By its platform alone; a component that is left out would stay."""
    whole = json.loads(told("device")[0].payload)["components"]
    assert whole["wake_word"] == {"platform": "event"}
    assert whole["awake"] == {"platform": "binary_sensor"}
    assert whole.keys() == components(replace(KITCHEN, wake=True, intents=("any",))).keys()


def test_an_entity_has_the_id_that_home_assistant_makes_of_its_name() -> None:
    """So that it is the same in versions that do not ask for ours."""
    for component in components(replace(KITCHEN, wake=True)).values():
        slug = re.sub("[^a-z]+", "_", component["name"].lower())
        entity_id = f"{component['platform']}.harkd_kitchen_{slug}"
        assert component["default_entity_id"] == entity_id


def test_every_topic_of_every_variant_is_known() -> None:
    variants: list[Variant] = ["device", "component"]
    device = replace(KITCHEN, wake=True, intents=("light_on",))
    used = {message.topic for variant in variants for message in told(variant, device)}
    assert discovery.possible_topics("homeassistant", KITCHEN) == used


# -------------------------------------------------------------------------------------- taking back


def test_an_empty_retained_payload_takes_back() -> None:
    assert discovery.removal(DEVICE_TOPIC) == Message(DEVICE_TOPIC, b"", 1, retain=True)


def test_a_farewell_is_not_kept_by_the_broker() -> None:
    """A Home Assistant that comes later must not find it in place of an announcement."""
    message = discovery.farewell(DEVICE_TOPIC)
    assert (json.loads(message.payload), message.retain) == ({"migrate_discovery": True}, False)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "harkd/kitchen/state",
        "homeassistant/status",
        "homeassistant/sensor/zigbee_1/temperature/config",
        "homeassistant/device/harkd_kitchen",
        "homeassistant/device/harkd_+/config",
        "#",
        "device/harkd_kitchen/config",
    ],
)
def test_nothing_of_others_is_taken_for_ours(topic: str) -> None:
    assert not discovery.is_ours(topic)


def test_a_device_moves_only_where_it_goes_on_under_the_same_prefix_and_name() -> None:
    def topics(variant: Variant, prefix: str, device: Device) -> set[str]:
        return {m.topic for m in discovery.announcements(variant, prefix, device)}

    old = topics("component", "homeassistant", KITCHEN)
    assert discovery.moved(old, topics("device", "homeassistant", KITCHEN)) == old
    assert discovery.moved(old, topics("device", "home/assistant", KITCHEN)) == set()
    assert discovery.moved(old, topics("component", "homeassistant", named("attic"))) == set()
    assert discovery.moved(old, set()) == set()


def test_an_entity_that_is_gone_does_not_move() -> None:
    with_commands = {m.topic for m in told("component", replace(KITCHEN, intents=("on",)))}
    without = {m.topic for m in told("component", KITCHEN)}
    assert len(with_commands - without) == 1
    assert discovery.moved(with_commands - without, without) == set()
