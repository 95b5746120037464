"""What Home Assistant is told of this device, so that its entities appear by themselves. Pure.

In: what there is to tell (`Device`). Out: the `Message` values of MQTT discovery, as one message
for the device or as one for each component, and those that take them back. Any thread.
Format: https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery, held against a real Home
Assistant by ``scripts/test-home-assistant``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import msgspec

from harkd.messages import OFFLINE, ONLINE, About, Message

Variant = Literal["device", "component", "off"]
Payload = dict[str, Any]

STATE_MOST_CHARS: Final = 255
"""Longest state that Home Assistant takes; a longer one becomes `unknown`."""
NODE: Final = "harkd_"
"""What our name at Home Assistant begins with; the device id follows."""
OURS: Final = re.compile(
    r"(?P<prefix>(?:[A-Za-z0-9_-]+/)+)[a-z_]+"
    rf"/(?P<node>{NODE}[A-Za-z0-9_-]+)(?P<part>/[a-z_]+)?/config"
)
"""Every topic that any harkd announces anything on, with whatever prefix."""


@dataclass(frozen=True, slots=True)
class Device:
    """What there is to tell."""

    about: About
    """Topics, name and version of this device."""
    machine: str
    """What it runs on, for a person."""
    silence_ms: tuple[int, int]
    """Least and most that `endpoint/silence_ms/set` takes, in milliseconds."""
    wake: bool = False
    """Whether it waits for a wake word."""
    intents: tuple[str, ...] = ()
    """What can be commanded; none without phrases."""

    @property
    def node(self) -> str:
        """Its name at Home Assistant, unique as far as device ids are."""
        return NODE + self.about.device_id


def announcements(variant: Variant, prefix: str, device: Device) -> list[Message]:
    """Return the retained messages that announce the device.

    Args:
        variant: ``device`` for one message (Home Assistant from 2024.11), ``component`` for one
            message each (older ones, and older openHAB), ``off`` for none.
        prefix: First levels of the topics, ``homeassistant`` unless both sides say otherwise.
        device: What to tell.
    """
    common: Payload = {
        "device": _device(device),
        "origin": {"name": "harkd", "sw_version": device.about.version},
    }
    components = _components(device)
    if variant == "device":
        # Home Assistant keeps what a new announcement leaves out, and removes what has nothing
        # but its platform. Where it was never there, that does nothing.
        absent = {
            name: {"platform": component["platform"]}
            for name, component in _all_components(device).items()
            if name not in components
        }
        # What a component does not say itself, it takes from here.
        whole = common | _available(device) | {"components": components | absent}
        return [_announcement(_device_topic(prefix, device.node), whole)]
    if variant == "component":
        return [
            _announcement(
                _component_topic(prefix, device.node, component["platform"], name),
                common | _available(device) | component,
            )
            for name, component in components.items()
        ]
    return []


def possible_topics(prefix: str, device: Device) -> set[str]:
    """Return every topic on which any variant announces this device."""
    parts = ((part["platform"], name) for name, part in _all_components(device).items())
    topics = {_component_topic(prefix, device.node, platform, name) for platform, name in parts}
    return topics | {_device_topic(prefix, device.node)}


def birth_topic(prefix: str) -> str:
    """Return the topic on which Home Assistant says ``online`` when it has started."""
    return f"{prefix}/status"


def removal(topic: str) -> Message:
    """Return the message that takes an announcement back."""
    return Message(topic, b"", 1, retain=True)


def farewell(topic: str) -> Message:
    """Return the message that keeps entities while their announcement moves to another topic.

    Without it, Home Assistant forgets names, icons and rooms that its user gave them. Not
    retained: a Home Assistant that is away finds only the new announcement, of the same entities.
    """
    return Message(topic, b'{"migrate_discovery":true}', 1)


def is_ours(topic: str) -> bool:
    """Return whether it can be a topic of an announcement by harkd."""
    return OURS.fullmatch(topic) is not None


def moved(old: Iterable[str], new: Iterable[str]) -> set[str]:
    """Return those of the old topics whose device is announced in the other variant now.

    In the same variant, an entity whose topic is not there any more is gone.
    """
    staying = {_place(topic) for topic in new}
    places = ((topic, _place(topic)) for topic in old)
    return {topic for topic, (*place, whole) in places if (*place, not whole) in staying}


def _place(topic: str) -> tuple[str, str, bool]:
    """Return the prefix and the node of a topic that `is_ours`, and whether it has all of it."""
    match = OURS.fullmatch(topic)
    return (match["prefix"], match["node"], not match["part"]) if match else ("", "", False)


def _device_topic(prefix: str, node: str) -> str:
    return f"{prefix}/device/{node}/config"


def _component_topic(prefix: str, node: str, platform: str, name: str) -> str:
    return f"{prefix}/{platform}/{node}/{name}/config"


def _announcement(topic: str, payload: Payload) -> Message:
    return Message(topic, msgspec.json.encode(payload), 1, retain=True)


def _device(device: Device) -> Payload:
    return {
        "identifiers": [device.node],
        "name": f"harkd {device.about.device_id}",
        "manufacturer": "harkd",
        "model": device.machine,
        "sw_version": device.about.version,
    }


def _available(device: Device, *more: str) -> Payload:
    """Return that these must be online: our `availability`, and what else is given."""
    needed = [
        {
            "topic": device.about.topic(topic),
            "payload_available": ONLINE.decode(),
            "payload_not_available": OFFLINE.decode(),
        }
        for topic in ("availability", *more)
    ]
    return {"availability": needed, "availability_mode": "all"}


def _components(device: Device) -> dict[str, Payload]:
    """Return what Home Assistant shows, by its stable name.

    What follows the microphone's availability, too, is what has no meaning without it. Not the
    switch and the numbers: who has muted must be able to unmute. Not the event and the last
    transcript: each time that an entity becomes available again, Home Assistant reports its old
    state as a change, and an automation on that would act on what was said long ago.
    """
    named = _spoken(device) | _microphone(device) | _options(device) | _diagnostics(device)
    if device.wake:
        named |= _wake(device)
    if device.intents:
        named |= _command(device)
    slug = re.sub(r"[^a-z0-9]+", "_", device.node.lower()).strip("_")
    return {
        name: {
            **component,
            "unique_id": f"{device.node}_{name}",
            # The entity id that Home Assistant makes of device and name; said, so that it stays.
            "default_entity_id": f"{component['platform']}.{slug}_{name}",
        }
        for name, component in named.items()
    }


def _all_components(device: Device) -> dict[str, Payload]:
    """Return what it would show with everything turned on."""
    return _components(replace(device, wake=True, intents=("any",)))


def _spoken(device: Device) -> dict[str, Payload]:
    about = device.about
    last = about.topic("transcript/last" if about.retain_last else "transcript")
    return {
        "transcript": {
            "platform": "event",
            "name": "Transcript",
            "state_topic": about.topic("transcript"),
            "event_types": ["final"],
            "icon": "mdi:message-text",
            "qos": 1,
        },
        "last_transcript": {
            "platform": "sensor",
            "name": "Last transcript",
            "state_topic": last,
            "value_template": f"{{{{ value_json.text[:{STATE_MOST_CHARS}] }}}}",
            "json_attributes_topic": last,
            "icon": "mdi:format-quote-close",
            "qos": 1,
        },
    }


def _command(device: Device) -> dict[str, Payload]:
    return {
        "command": {
            "platform": "event",
            "name": "Command",
            # A state_topic may have wildcards; a type that is not announced is ignored there.
            "state_topic": device.about.topic("command/+"),
            "event_types": list(device.intents),
            "icon": "mdi:account-voice",
            "qos": 1,
        },
    }


def _wake(device: Device) -> dict[str, Payload]:
    about = device.about
    return {
        "wake_word": {
            "platform": "event",
            "name": "Wake word",
            "state_topic": about.topic("wake"),
            "event_types": ["wake"],
            "icon": "mdi:ear-hearing",
            "qos": 1,
        },
        "awake": {
            "platform": "binary_sensor",
            "name": "Awake",
            "state_topic": about.topic("wake/state"),
            "icon": "mdi:led-on",
            "qos": 1,
            **_available(device, "microphone/availability"),
        },
    }


def _microphone(device: Device) -> dict[str, Payload]:
    about = device.about
    return {
        "speaking": {
            "platform": "binary_sensor",
            "name": "Speaking",
            "device_class": "sound",
            "state_topic": about.topic("state"),
            "value_template": "{{ 'ON' if value_json.state == 'speech' else 'OFF' }}",
            "qos": 1,
            **_available(device, "microphone/availability"),
        },
        # Not from the availability: a microphone that is closed because somebody wants it so, or
        # that is just being opened, has no problem.
        "microphone_problem": {
            "platform": "binary_sensor",
            "name": "Microphone problem",
            "device_class": "problem",
            "entity_category": "diagnostic",
            "state_topic": about.topic("state"),
            "value_template": "{{ 'ON' if value_json.state == 'no_microphone' else 'OFF' }}",
            "json_attributes_topic": about.topic("state"),
            # The rest changes with every word that is spoken, and each change would be recorded.
            "json_attributes_template": "{{ {'reason': value_json.reason} | tojson }}",
            "qos": 1,
        },
    }


def _options(device: Device) -> dict[str, Payload]:
    least_ms, most_ms = device.silence_ms

    def option(topic: str, **more: object) -> Payload:
        about = device.about
        topics = {
            "command_topic": about.topic(f"{topic}/set"),
            "state_topic": about.topic(f"{topic}/state"),
        }
        return topics | {"entity_category": "config", "qos": 1} | more

    listening = option(
        "listen",
        platform="switch",
        name="Listening",
        icon="mdi:microphone",
        payload_on="ON",
        payload_off="OFF",
    )
    del listening["entity_category"]  # what one does every day belongs on the dashboard
    return {
        "listening": listening,
        "vad_aggressiveness": option(
            "vad/aggressiveness",
            platform="number",
            name="VAD aggressiveness",
            icon="mdi:tune-vertical",
            min=0,
            max=3,
            step=1,
            mode="slider",
        ),
        "end_silence": option(
            "endpoint/silence_ms",
            platform="number",
            name="End silence",
            icon="mdi:timer-sand",
            min=least_ms,
            max=most_ms,
            step=1,
            mode="box",
            unit_of_measurement="ms",
        ),
    }


def _diagnostics(device: Device) -> dict[str, Payload]:
    def gauge(name: str, key: str, icon: str, **more: object) -> Payload:
        return {
            "platform": "sensor",
            "name": name,
            "state_topic": device.about.topic("health"),
            # "None" is what Home Assistant takes for unknown: before the first utterance.
            "value_template": f"{{{{ value_json.{key} | default(none) }}}}",
            "entity_category": "diagnostic",
            "state_class": "measurement",
            "icon": icon,
            **more,
        }

    return {
        "latency": gauge("Latency", "latency_ms", "mdi:timer-outline", unit_of_measurement="ms"),
        "real_time_factor": gauge(
            "Real-time factor", "rtf", "mdi:speedometer", suggested_display_precision=2
        ),
        "cpu": gauge("CPU", "cpu_percent", "mdi:cpu-64-bit", unit_of_measurement="%"),
        "memory": gauge("Memory", "rss_mb", "mdi:memory", unit_of_measurement="MB"),
    }
