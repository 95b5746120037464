"""A real Node-RED with the flow that the README has, and the whole daemon.

Needs the ``red.js`` of an installed Node-RED in TEST_NODE_RED; ``scripts/test-node-red`` has one.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon_process import Daemon
from mouth import Mouth
from servers import Mosquitto, Received, Subscriber, end, free_port

RED = os.environ.get("TEST_NODE_RED", "")
START_S = 60
pytestmark = [
    pytest.mark.integration,
    pytest.mark.model,
    pytest.mark.skipif(not RED, reason="needs Node-RED: scripts/test-node-red"),
]
README = Path(__file__).parents[2] / "README.md"


def flow(port: int) -> list[dict[str, Any]]:
    """The README's flow as it is after an import, with a broker and a tab to be in.

    What its first node hears and what its second lets pass is published for the test.
    """
    (text,) = re.findall(
        r"^```json\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    nodes: list[dict[str, Any]] = json.loads(text)
    listening, switch, _debug = nodes
    listening["broker"] = "broker"
    listening["wires"][0].append("out-heard")
    switch["wires"][0].append("out-light")
    for name in ("heard", "light"):
        nodes.append(
            {
                "id": f"out-{name}",
                "type": "mqtt out",
                "topic": f"node-red/{name}",
                "qos": "1",
                "retain": "false",
                "broker": "broker",
                "wires": [],
            }
        )
    for node in nodes:
        node["z"] = "tab"
    broker = {
        "id": "broker",
        "type": "mqtt-broker",
        "broker": "127.0.0.1",
        "port": str(port),
        "protocolVersion": "5",
        "birthTopic": "node-red/here",
        "birthPayload": "yes",
        "birthRetain": "true",
    }
    return [{"id": "tab", "type": "tab", "label": "harkd"}, broker, *nodes]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    with Mosquitto(folder) as server:
        yield server


@pytest.fixture
def node_red(tmp_path: Path, broker: Mosquitto) -> Iterator[None]:
    folder = tmp_path / "node-red"
    folder.mkdir()
    (folder / "flows.json").write_text(json.dumps(flow(broker.port)))
    settings = {"uiHost": "127.0.0.1", "uiPort": free_port(), "flowFile": "flows.json"}
    telemetry = {"enabled": False, "updateNotification": False}
    (folder / "settings.js").write_text(
        f"module.exports = {json.dumps({**settings, 'telemetry': telemetry})}"
    )
    with Subscriber(broker, "node-red/#") as subscriber:
        log = (folder / "log").open("wb")
        process = subprocess.Popen(
            ["node", RED, "-u", folder, "-s", folder / "settings.js"], stdout=log, stderr=log
        )
        try:
            subscriber.wait_for(lambda message: message.topic == "node-red/here", START_S)
            time.sleep(1)  # it subscribes
            yield
        finally:
            end(process)
            log.close()


def on(topic: str) -> Any:
    return lambda message: message.topic == topic


def body(message: Received) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(message.payload)
    return payload


@pytest.mark.usefixtures("node_red")
def test_the_flow_hears_every_final_and_lets_pass_what_it_waits_for(
    broker: Mosquitto, model_dir: Path, tmp_path: Path
) -> None:
    env = {
        "HARKD_MODELS": str(model_dir.parent),
        "HARKD_RECOGNIZER__MODEL": model_dir.name,
        "HARKD_MQTT__HOST": broker.host,
        "HARKD_MQTT__PORT": str(broker.port),
        "HARKD_DEVICE_ID": "kitchen",
    }
    with (
        Subscriber(broker) as subscriber,
        Mouth(model_dir / "samples" / "beckett.wav") as mouth,
        Daemon("--source", "-", env=env, folder=tmp_path, stdin=mouth.ear),
    ):
        subscriber.wait_for(
            lambda m: m.topic == "harkd/kitchen/state" and body(m)["state"] == "listening", 15
        )
        mouth.speak()
        mouth.wait()
        said = subscriber.wait_for(on("harkd/kitchen/transcript"), 15)
        heard = subscriber.wait_for(on("node-red/heard"), 5)
        assert body(heard) == body(said)
        print(f"Node-RED answered {(heard.received_ns - said.received_ns) / 1e6:.1f} ms later")
        light = {**body(said), "text": "Turn on the LIGHT."}
        subscriber.publish("harkd/kitchen/transcript", json.dumps(light))
        assert body(subscriber.wait_for(on("node-red/light"), 5)) == light

        time.sleep(1)
        messages = subscriber.messages
        finals = [body(m) for m in messages if m.topic == "harkd/kitchen/transcript"]
        assert [body(m) for m in messages if m.topic == "node-red/heard"] == finals
        assert [body(m) for m in messages if m.topic == "node-red/light"] == [light]
