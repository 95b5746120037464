"""What `harkd doctor` says of the broker, without one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from harkd import doctor_broker, mqtt_connection
from harkd.doctor_broker import check_broker, check_session
from harkd.doctor_check import Check, Status
from harkd.errors import BrokerError
from harkd.messages import Message
from harkd.mqtt_address import Address, Tls
from harkd.mqtt_connection import (
    Acknowledged,
    Down,
    Inbox,
    NoAnswerError,
    NotSubscribed,
    ProtocolRefusedError,
)
from harkd.mqtt_tls import Session
from harkd.settings import MqttSettings, Settings

NOW = datetime(2026, 11, 22, tzinfo=UTC)


class FakeConnection:
    """A connection as `outcome` says, which also collects what is done with it."""

    session = None
    outcome: dict[str, Any]

    def __init__(self, address: object, version: str, will: object, inbox: Inbox) -> None:
        assert will is None, "a doctor that dies must not tell the house that harkd is offline"
        self.outcome["tried"].append(version)
        self.outcome["address"] = address
        self.version = version
        self._inbox = inbox
        self.subscribed = Event()

    def open(self) -> None:
        if error := self.outcome.get(self.version):
            raise error

    def __str__(self) -> str:
        return f"MQTT {self.version}"

    def send(self, message: Message) -> int:
        self.outcome["sent"].append(message)
        if not self.outcome.get("silent"):
            self._inbox.put(self.outcome.get("down") or Acknowledged(7, self.outcome["refusal"]))
        return 7

    def subscribe(self, topics: list[str]) -> None:
        self.outcome["topics"] = topics
        for topic in self.outcome["barred"]:
            self._inbox.put(NotSubscribed(topic, "Not authorized"))
        if not self.outcome.get("silent"):
            self.subscribed.set()

    def close(self) -> None:
        self.outcome["closed"] = True


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What happens at a connection with each version; `tried` collects them."""
    outcome: dict[str, Any] = {"tried": [], "sent": [], "refusal": "", "barred": []}
    monkeypatch.setattr(FakeConnection, "outcome", outcome, raising=False)
    monkeypatch.setattr(mqtt_connection, "Connection", FakeConnection)
    monkeypatch.setattr(doctor_broker, "ANSWER_S", 0.05)
    return outcome


def with_broker(protocol: Any = "auto") -> Settings:
    mqtt = MqttSettings(host="broker", protocol=protocol, username="ha")
    return Settings(device_id="kitchen", mqtt=mqtt)


def test_a_broker_that_lets_us_work_is_fine(connections: dict[str, Any]) -> None:
    assert list(check_broker(with_broker())) == [
        Check("broker", Status.OK, "broker:1883 takes the login, MQTT 5"),
        Check("broker", Status.OK, "it takes messages to harkd/kitchen/doctor"),
        Check("broker", Status.OK, "it lets us read harkd/kitchen/listen/set and the like"),
    ]
    assert connections["closed"]
    assert connections["address"].client_id == "harkd-kitchen-doctor", "not to throw harkd out"
    assert connections["sent"] == [Message("harkd/kitchen/doctor", b"hello", 1, retain=False)]
    assert all("+" not in topic and "#" not in topic for topic in connections["topics"])


def test_a_broker_that_takes_no_messages_is_told_with_whom_to_allow_what(
    connections: dict[str, Any],
) -> None:
    connections["refusal"] = "Not authorized"
    check = list(check_broker(with_broker()))[1]
    assert check.status is Status.FAIL
    assert check.what == "it refuses messages to harkd/kitchen/doctor (Not authorized)"
    assert check.mend == 'allow the user "ha" to write harkd/kitchen/#'


def test_with_an_older_mqtt_a_broker_cannot_tell_whether_it_let_a_message_through(
    connections: dict[str, Any],
) -> None:
    check = list(check_broker(with_broker("3.1.1")))[1]
    assert check.status is Status.OK
    assert "with MQTT 3.1.1 a broker cannot say" in check.what
    assert connections["tried"] == ["3.1.1"]


def test_a_topic_that_must_not_be_read_is_told_with_whom_to_allow_it(
    connections: dict[str, Any],
) -> None:
    connections["barred"] = ["harkd/kitchen/command"]
    *_, check = check_broker(with_broker())
    assert check.status is Status.FAIL
    assert check.what == "it does not let us read harkd/kitchen/command (Not authorized)"
    assert check.mend == 'allow the user "ha" to read it'


def test_a_broker_that_falls_silent_or_hangs_up_after_the_login_is_told(
    connections: dict[str, Any],
) -> None:
    connections["silent"] = True
    checks = list(check_broker(with_broker()))
    assert [check.status for check in checks] == [Status.OK, Status.FAIL, Status.FAIL]
    assert "no answer within" in checks[1].what
    connections["silent"] = False
    connections["down"] = Down("Server shutting down")
    assert "(Server shutting down)" in list(check_broker(with_broker()))[1].what
    assert connections["closed"]


@pytest.mark.parametrize("error", [ProtocolRefusedError("no"), NoAnswerError("silent")])
def test_an_older_mqtt_is_tried_where_the_settings_allow_it(
    connections: dict[str, Any], error: Exception
) -> None:
    connections["5"] = error
    assert "MQTT 3.1.1" in next(check_broker(with_broker())).what
    with pytest.raises(type(error)):
        list(check_broker(with_broker("5")))


def test_a_broker_that_is_not_there_is_told_in_its_words(connections: dict[str, Any]) -> None:
    connections["5"] = BrokerError("nothing listens at broker:1883", "start the broker")
    with pytest.raises(BrokerError, match="nothing listens"):
        list(check_broker(with_broker()))
    assert connections["tried"] == ["5"]


def test_each_file_that_is_of_no_use_is_a_line_of_its_own(connections: dict[str, Any]) -> None:
    mqtt = MqttSettings(host="h", tls=True, tls_ca_file="/no/ca", tls_cert_file="/no/cert")
    checks = list(check_broker(Settings(mqtt=mqtt)))
    assert [check.status for check in checks] == [Status.FAIL] * 2
    assert checks[0].what == "mqtt.tls_ca_file: /no/ca: there is no such file; correct the path"
    assert checks[1].what.startswith("mqtt.tls_cert_file: /no/cert: ")
    assert connections["tried"] == []


def test_without_a_broker_the_embedded_one_would_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor_broker, "is_taken", lambda _port: False)
    (check,) = check_broker(Settings())
    assert check.status is Status.WARN
    assert "127.0.0.1" in check.what


# ------------------------------------------------------------------ TLS


@pytest.mark.parametrize(("days", "status"), [(90, Status.OK), (14, Status.OK), (13, Status.WARN)])
def test_a_certificate_is_told_with_its_end_and_warned_of_below_two_weeks(
    days: int, status: Status
) -> None:
    until = NOW + timedelta(days=days)
    session = Session("TLSv1.3", "TLS_AES_256_GCM_SHA384", "pi", "Our CA", until)
    address = Address("pi", 8883, "harkd", tls=Tls(Path("ca.crt")))
    check = check_session(address, session, NOW)
    assert check.status is status
    assert check.what == (
        'TLSv1.3, TLS_AES_256_GCM_SHA384; the certificate of "pi", by "Our CA", is valid until '
        f"{until:%Y-%m-%d} ({days} days)"
    )
    assert bool(check.mend) == (status is Status.WARN)


def test_a_certificate_that_is_not_checked_is_a_warning() -> None:
    session = Session("TLSv1.3", "TLS_AES_256_GCM_SHA384", "", "", None)
    check = check_session(Address("pi", 8883, "harkd", tls=Tls(verify=False)), session)
    assert check.status is Status.WARN
    assert "anybody can pose as the broker at pi:8883" in check.what
