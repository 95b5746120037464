"""What `harkd doctor` says of real brokers."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from certificates import Certificates, server_lines
from harkd import commands
from harkd.doctor_broker import check_broker, read_topics
from harkd.doctor_check import Check, Status
from harkd.errors import BrokerRefusedError
from harkd.settings import HermesSettings, MqttSettings, Settings
from servers import Mosquitto, Subscriber, wait_until

pytestmark = pytest.mark.integration


def settings(server: Mosquitto, **more: Any) -> Settings:
    mqtt = MqttSettings(host="localhost", port=server.port, **more)
    return Settings(device_id="kitchen", mqtt=mqtt)


@pytest.mark.parametrize(("protocol", "taken"), [("5", "it takes"), ("3.1.1", "it answers")])
def test_each_thing_that_the_daemon_will_do_is_tried_and_leaves_nothing_behind(
    tmp_path: Path, certificates: Certificates, protocol: Any, taken: str
) -> None:
    lines = server_lines(certificates, certificates.server, "require_certificate true")
    with Mosquitto(tmp_path, lines=lines) as server:
        checks = list(
            check_broker(
                settings(
                    server,
                    protocol=protocol,
                    tls=True,
                    tls_ca_file=str(certificates.ca),
                    tls_cert_file=str(certificates.client),
                    tls_key_file=str(certificates.client.with_suffix(".key")),
                )
            )
        )
        gone = "Client harkd-kitchen-doctor disconnected"
        wait_until(lambda: gone in server.log.read_text(), "the end of the connection", 5)
        log = server.log.read_text()
    assert [check.status for check in checks] == [Status.OK] * 4
    assert checks[0].what.endswith(f"takes the login, MQTT {protocol} over TLSv1.3")
    assert checks[1].name == "tls"
    assert (
        'the certificate of "localhost", by "The house\'s own CA", is valid until' in checks[1].what
    )
    assert checks[2].what.startswith(taken)
    assert "q1, r0" in log, "not retained"


def test_a_certificate_that_ends_soon_is_a_warning(
    tmp_path: Path, certificates: Certificates
) -> None:
    lines = server_lines(certificates, certificates.soon_over)
    with Mosquitto(tmp_path, lines=lines) as server:
        _, check, *_ = check_broker(settings(server, tls=True, tls_ca_file=str(certificates.ca)))
    assert check.status is Status.WARN
    assert "(4 days)" in check.what
    assert check.mend == "renew it at the broker"


def test_a_user_who_must_not_write_is_told(tmp_path: Path) -> None:
    secret = tmp_path.name
    acl = tmp_path / "acl"
    acl.write_text("user ha\ntopic read harkd/#\n")
    with Mosquitto(tmp_path, user="ha", password=secret, lines=[f"acl_file {acl}"]) as server:
        login, writing, _ = check_broker(settings(server, username="ha", password=secret))
        assert login.status is Status.OK
        assert writing == Check(
            "broker",
            Status.FAIL,
            "it refuses messages to harkd/kitchen/doctor (Not authorized)",
            'allow the user "ha" to write harkd/kitchen/#',
        )
        with pytest.raises(BrokerRefusedError, match="refused the login") as told:
            list(check_broker(settings(server, username="ha", password="wrong" + secret)))
    assert secret not in str(told.value)


def dynamic_security(folder: Path, user: str, password: str, writes: str) -> list[str]:
    """Lines for Mosquitto's plugin, which refuses subscriptions; its `acl_file` never does."""
    (plugin,) = Path("/usr/lib").glob("*/mosquitto_dynamic_security.so")
    salt = b"twelve bytes"
    hashed = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101)
    client = {
        "username": user,
        "password": base64.b64encode(hashed).decode(),
        "salt": base64.b64encode(salt).decode(),
        "iterations": 101,
        "roles": [{"rolename": "writer"}],
    }
    acl = {"acltype": "publishClientSend", "topic": writes, "allow": True}
    file = folder / "dynamic.json"
    content = {"clients": [client], "roles": [{"rolename": "writer", "acls": [acl]}]}
    file.write_text(json.dumps(content))
    return [f"plugin {plugin}", f"plugin_opt_config_file {file}"]


def test_topics_that_a_user_must_not_read_are_told_each(tmp_path: Path) -> None:
    secret = token_hex(8)
    lines = dynamic_security(tmp_path, "ha", secret, "harkd/#")
    with Mosquitto(tmp_path, user="ha", password=secret, lines=lines) as server:
        login, writing, *reading = check_broker(settings(server, username="ha", password=secret))
    assert (login.status, writing.status) == (Status.OK, Status.OK)
    topics = [f"harkd/kitchen/{name}" for name in commands.TOPICS]
    assert [check.what for check in reading] == [
        f"it does not let us read {topic} (Not authorized)"
        for topic in [*topics, "homeassistant/status"]
    ]
    assert {check.mend for check in reading} == {'allow the user "ha" to read it'}


def test_it_asks_for_what_the_daemon_subscribes_to_with_these_settings() -> None:
    plain = Settings(mqtt=MqttSettings(discovery="off"))
    assert read_topics(plain, "harkd/kitchen") == [
        f"harkd/kitchen/{name}" for name in commands.TOPICS
    ]
    home = Settings(mqtt=MqttSettings(discovery_prefix="ha"), hermes=HermesSettings(enabled=True))
    assert {"ha/status", "hermes/asr/startListening"} <= set(read_topics(home, "harkd/kitchen"))


def test_the_message_is_no_transcript_and_no_state(broker: Mosquitto) -> None:
    with Subscriber(broker) as subscriber:
        assert [check.status for check in check_broker(settings(broker))] == [Status.OK] * 3
        message = subscriber.wait_for(lambda _: True, 2)
        assert len(subscriber.messages) == 1
    assert (message.topic, message.payload, message.retain) == (
        "harkd/kitchen/doctor",
        b"hello",
        False,
    )
