"""Events to a real broker, through its outages and its bad days."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

import finals
from harkd import boot_time, mqtt_connection
from harkd import publisher as publisher_module
from harkd.broker import EmbeddedBroker, is_taken
from harkd.errors import BrokerError
from harkd.events import Event, Final, Partial, Rejected, RejectReason, State, StateChanged
from harkd.messages import About, Message
from harkd.mqtt_connection import Address, Connection, Inbox, ProtocolRefusedError
from harkd.publisher import Publisher
from listeners import listener, say_nothing
from servers import Mosquitto, Received, Subscriber, free_port, wait_until

pytestmark = pytest.mark.integration

ABOUT = About("harkd", "kitchen", "0.1.0", "tiny", "CPU", retain_last=True, max_age_s=30)
ROOT = "harkd/kitchen"
NOW = datetime(2026, 11, 22, 18, 4, 5, tzinfo=UTC)
LISTENING = StateChanged(State.LISTENING, NOW, "", "USB mic", 48000)
COUNT = itertools.count(1)


def final(text: str, age_s: float = 0.0) -> Final:
    """A final whose last word was spoken so long ago."""
    spoken_ns = time.monotonic_ns() - round(age_s * 1e9)
    return finals.final(f"id-{next(COUNT)}", text, spoken_ns)


def partial(text: str) -> Partial:
    return Partial("id-0", 1, text, 0.9, NOW, 1.0, "en", "tiny")


def address(port: int, **more: Any) -> Address:
    return Address("127.0.0.1", port, "harkd-kitchen", **more)


@contextlib.contextmanager
def publishing(
    port: int,
    protocol: str = "auto",
    about: About = ABOUT,
    *,
    jitter: float = 0.1,
    wait: bool = True,
    **login: Any,
) -> Iterator[Publisher]:
    """A publisher; it waits a tenth of its usual times unless told otherwise."""
    publisher = Publisher(address(port, **login), protocol, about, jitter=lambda: jitter)
    publisher.start()
    try:
        if wait:
            assert publisher.connected.wait(5)
        yield publisher
    finally:
        publisher.stop()


def on(name: str) -> Callable[[Received], bool]:
    return lambda message: message.topic == f"{ROOT}/{name}"


def payloads(subscriber: Subscriber, name: str) -> list[Any]:
    return [json.loads(each.payload) for each in subscriber.messages if on(name)(each)]


def texts(subscriber: Subscriber, name: str) -> list[str]:
    return [each["text"] for each in payloads(subscriber, name)]


@contextlib.contextmanager
def client(port: int) -> Iterator[paho.Client]:
    """A client of somebody else."""
    other, over = paho.Client(CallbackAPIVersion.VERSION2), threading.Event()
    other.on_disconnect = lambda *_: over.set()
    other.connect("127.0.0.1", port)
    other.loop_start()
    try:
        yield other
    finally:
        other.disconnect()
        over.wait(2)
        other.loop_stop()


def said(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= level]


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "harkd")


# ------------------------------------------------------------------ while all is well


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_each_event_arrives_with_its_qos_retention_and_expiry(
    broker: Mosquitto, protocol: str
) -> None:
    with Subscriber(broker) as subscriber, publishing(broker.port, protocol) as publisher:
        events: list[Event] = [
            LISTENING,
            partial("Turn"),
            final("Turn on the light."),
            Rejected("id-00", RejectReason.NO_SPEECH, NOW, 0.5),
        ]
        for event in events:
            publisher.publish(event)
        subscriber.wait_for(on("transcript/rejected"), 2)
        wait_until(lambda: len(subscriber.messages) == 7, "7 messages", 2)
        seen = {each.topic.removeprefix(f"{ROOT}/"): each for each in subscriber.messages}
        assert seen["availability"].payload == b"online"
        assert {name: each.qos for name, each in seen.items()} == {
            "availability": 1,
            "state": 1,
            "transcript/partial": 0,
            "transcript": 1,
            "transcript/text": 1,
            "transcript/last": 1,
            "transcript/rejected": 0,
        }
        for name in ("transcript", "transcript/text"):
            expiry_s = seen[name].expiry_s
            if protocol == "5":
                assert expiry_s is not None
                assert 29 <= expiry_s <= 30
            else:
                assert expiry_s is None
        wait_until(lambda: publisher.outbox_facts().waiting == 0, "acknowledgement", 2)
    with Subscriber(broker) as late:
        wait_until(lambda: len(late.messages) == 3, "3 retained messages", 2)
        retained = {each.topic.removeprefix(f"{ROOT}/") for each in late.messages if each.retain}
    assert retained == {"availability", "state", "transcript/last"}


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_what_is_sent_to_a_topic_that_is_listened_to_is_taken_at_each_connection(
    broker: Mosquitto, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[mqtt_connection.Received] = []

    def take(received: mqtt_connection.Received) -> None:
        heard.append(received)
        if received.payload == b"bad":
            raise ValueError(received.payload)

    topic = f"{ROOT}/listen/set"
    with client(broker.port) as other:
        other.publish(topic, b"OFF", 1, retain=True).wait_for_publish(2)
        publisher = Publisher(address(broker.port), protocol, ABOUT, jitter=lambda: 0.1)
        publisher.listen([topic], take)
        publisher.start()
        try:
            wait_until(lambda: len(heard) == 1, "the retained message", 2)
            for payload in (b"bad", b"\x00\xff"):
                other.publish(topic, payload, 1).wait_for_publish(2)
            wait_until(lambda: len(heard) == 3, "two messages", 2)
            publisher._connection._client.socket().shutdown(socket.SHUT_RDWR)  # type: ignore
            wait_until(lambda: len(heard) == 4, "the retained message again", 5)
        finally:
            publisher.stop()
    assert heard == [
        mqtt_connection.Received(topic, b"OFF", retained=True),
        mqtt_connection.Received(topic, b"bad", retained=False),
        mqtt_connection.Received(topic, b"\x00\xff", retained=False),
        mqtt_connection.Received(topic, b"OFF", retained=True),
    ]
    assert f"a message on {topic} could not be handled" in said(caplog, logging.ERROR)


def test_what_is_kept_is_sent_at_once_and_again_when_asked(broker: Mosquitto) -> None:
    message = Message(f"{ROOT}/listen/state", b"ON", 1, retain=True)
    with Subscriber(broker) as subscriber, publishing(broker.port) as publisher:
        publisher.keep(message)
        publisher.send(Message(f"{ROOT}/error", b"{}", 1))
        subscriber.wait_for(on("error"), 2)
        publisher.repeat()
        wait_until(
            lambda: (
                [each.payload for each in subscriber.messages if on("listen/state")(each)]
                == [b"ON", b"ON"]
            ),
            "the kept message twice",
            2,
        )
        said = [each.payload for each in subscriber.messages if on("availability")(each)]
        assert said == [b"online", b"online"]


def test_once_it_stops_nothing_that_is_kept_is_sent_again(broker: Mosquitto) -> None:
    """Home Assistant may start at that moment, and would read `online` behind `offline`."""
    with Subscriber(broker) as subscriber:
        with publishing(broker.port) as publisher:
            subscriber.wait_for(on("availability"), 2)
            publisher._stopping.set()
            publisher.repeat()
        subscriber.wait_for(lambda each: each.payload == b"offline", 2)
        said = [each.payload for each in subscriber.messages if on("availability")(each)]
    assert said == [b"online", b"offline"]


def test_a_clean_stop_says_offline_after_all_that_was_published(broker: Mosquitto) -> None:
    with Subscriber(broker) as subscriber:
        with publishing(broker.port) as publisher:
            for number in range(50):
                publisher.publish(final(f"{number}"))
            begin = time.monotonic()
        assert time.monotonic() - begin < 1.0
        subscriber.wait_for(lambda each: each.payload == b"offline", 2)
        assert texts(subscriber, "transcript") == [f"{number}" for number in range(50)]
        assert subscriber.messages[-1].payload == b"offline"


VANISHING = """
import sys, time
from harkd.messages import About, Message
from harkd.mqtt_connection import Address
from harkd.publisher import Publisher
about = About("harkd", "kitchen", "0", "m", "", True, 30)
publisher = Publisher(Address("127.0.0.1", int(sys.argv[1]), "harkd-kitchen"), sys.argv[2], about)
publisher.start()
publisher.connected.wait()
print("connected", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_the_broker_says_offline_for_a_daemon_that_is_killed(
    broker: Mosquitto, protocol: str
) -> None:
    with Subscriber(broker) as subscriber:
        with subprocess.Popen(
            [sys.executable, "-c", VANISHING, str(broker.port), protocol], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == b"connected\n"
            subscriber.wait_for(lambda each: each.payload == b"online", 2)
            process.send_signal(signal.SIGKILL)
        subscriber.wait_for(on("availability"), 2, after=1)
        assert [each.payload for each in subscriber.messages] == [b"online", b"offline"]
    with Subscriber(broker) as late:
        will = late.wait_for(on("availability"), 2)
    assert (will.payload, will.retain, will.qos) == (b"offline", True, 1)


# ------------------------------------------------------------------ outages


def test_a_restarted_broker_without_memory_is_told_availability_and_state_again(
    broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    with publishing(broker.port) as publisher:
        publisher.publish(LISTENING)
        broker.kill()
        wait_until(lambda: not publisher.connected.is_set(), "loss of the broker", 2)
        publisher.publish(replace(LISTENING, state=State.SPEECH))
        broker.start()
        with Subscriber(broker) as subscriber:
            state = subscriber.wait_for(on("state"), 5)
            online = subscriber.wait_for(on("availability"), 2)
        assert online.payload == b"online"
        assert json.loads(state.payload)["state"] == "speech", "the state as it is now"
    assert len([line for line in said(caplog, logging.WARNING) if "lost the broker" in line]) == 1


def test_finals_of_an_outage_arrive_after_it_in_order_and_the_old_ones_apart(
    broker: Mosquitto,
) -> None:
    about = replace(ABOUT, max_age_s=20)
    with publishing(broker.port, about=about, jitter=0.5) as publisher:
        broker.kill()
        wait_until(lambda: not publisher.connected.is_set(), "loss of the broker", 2)
        publisher.publish(final("too old", age_s=19.5))
        publisher.publish(final("ten seconds old", age_s=10))
        publisher.publish(partial("never heard"))
        publisher.publish(Rejected("id-00", RejectReason.NO_SPEECH, NOW, 0.5))
        publisher.publish(final("new"))
        time.sleep(0.6)
        broker.start()
        with Subscriber(broker) as subscriber:
            subscriber.wait_for(lambda each: b'"new"' in each.payload, 5)
            publisher.publish(final("after"))
            last = on("transcript/last")
            subscriber.wait_for(lambda each: last(each) and b'"after"' in each.payload, 5)
            on_time = [each for each in subscriber.messages if on("transcript")(each)]
            assert texts(subscriber, "transcript") == ["ten seconds old", "new", "after"]
            assert [each["late"] for each in payloads(subscriber, "transcript")] == [False] * 3
            (missed,) = payloads(subscriber, "transcript/missed")
            assert (missed["text"], missed["late"]) == ("too old", True)
            assert missed["latency_ms"] > 20_000
            assert payloads(subscriber, "transcript/partial") == []
            assert payloads(subscriber, "transcript/rejected") == []
            text = on("transcript/text")
            said_alone = [each.payload for each in subscriber.messages if text(each)]
            assert said_alone == [b"ten seconds old", b"new", b"after"]
            assert texts(subscriber, "transcript/last")[-1] == "after"
    expiries = [each.expiry_s or 0 for each in on_time]
    assert 7 <= expiries[0] <= 10, "what is left, not the whole of max_age_s"
    assert 17 <= expiries[1] <= 20


def test_a_broker_that_comes_late_is_one_warning_and_then_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Mosquitto(tmp_path)
    with publishing(server.port, wait=False) as publisher:
        publisher.publish(LISTENING)
        publisher.publish(final("while nobody listened"))
        wait_until(lambda: len(said(caplog, logging.DEBUG)) >= 3, "attempts", 5)
        with server, Subscriber(server) as subscriber:
            begin = time.monotonic()
            subscriber.wait_for(on("transcript"), 5)
            took_s = time.monotonic() - begin
            assert took_s < 2
            assert texts(subscriber, "transcript") == ["while nobody listened"]
            publisher.stop()
    (warning,) = said(caplog, logging.WARNING)
    assert "nothing listens" in warning
    assert "Start the broker" in warning


# ------------------------------------------------------------------ brokers that say no


def test_a_refused_login_is_one_error_that_names_the_settings_but_not_the_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = f"not {tmp_path.name}"
    with (
        Mosquitto(tmp_path, user="ha", password=tmp_path.name) as server,
        publishing(server.port, wait=False, jitter=0.001, username="ha", password=secret) as mine,
    ):
        refused = "refused the login"
        wait_until(lambda: str(said(caplog, logging.DEBUG)).count(refused) >= 3, "attempts", 5)
        assert not mine.connected.is_set()
    (error,) = said(caplog, logging.WARNING)
    assert [each.levelname for each in caplog.records if each.levelno > logging.INFO] == ["ERROR"]
    assert refused in error
    assert "mqtt.username and mqtt.password" in error
    assert secret not in caplog.text


def test_the_right_login_is_taken(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path, user="ha", password=tmp_path.name) as server,
        publishing(server.port, username="ha", password=tmp_path.name),
    ):
        pass


def hang_up(client: socket.socket) -> None:
    client.close()


def speak_http(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("answer", [say_nothing, hang_up, speak_http])
def test_a_port_that_is_no_broker_is_one_warning_and_tried_on_at_the_usual_pace(
    answer: Callable[[socket.socket], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A broker that only just starts looks the same, so a minute's wait would be wrong."""
    monkeypatch.setattr(publisher_module, "ANSWER_S", 0.2)
    monkeypatch.setattr(publisher_module, "HASTY_S", 0.2)
    monkeypatch.setattr(mqtt_connection, "GOODBYE_S", 0.1)
    no_answer = "did not answer as an MQTT broker"
    with (
        listener(answer) as port,
        publishing(port, wait=False) as publisher,
    ):
        # Each attempt tries both versions.
        wait_until(lambda: str(said(caplog, logging.DEBUG)).count(no_answer) >= 4, "attempts", 5)
        assert not publisher.connected.is_set()
    (warning,) = said(caplog, logging.WARNING)
    assert no_answer in warning
    assert "mqtt.port" in warning


def test_a_broker_that_hung_up_while_it_started_is_spoken_to_in_mqtt_5_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Mosquitto(tmp_path)
    with publishing(server.port, wait=False) as publisher:
        with socket.create_server(("127.0.0.1", server.port)) as starting:
            for _ in range(2):
                client, _ = starting.accept()
                client.close()
        with server, Subscriber(server) as subscriber:
            assert publisher.connected.wait(5)
            publisher.publish(final("hello"))
            assert subscriber.wait_for(on("transcript"), 5).expiry_s
            publisher.stop()
    assert "with MQTT 5" in caplog.text


def test_a_broker_that_speaks_the_other_version_now_is_found_again(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where one that knew only 3.1.1 is replaced by one that knows only 5."""
    really_open = Connection.open
    wanted = ["3.1.1"]

    def only_wanted(self: Connection, answer_s: float) -> None:
        if self.version not in wanted:
            raise ProtocolRefusedError(f"does not speak MQTT {self.version}")
        really_open(self, answer_s)

    monkeypatch.setattr(Connection, "open", only_wanted)
    with publishing(broker.port) as publisher:
        wanted[:] = ["5"]
        broker.kill()
        wait_until(lambda: not publisher.connected.is_set(), "loss of the broker", 5)
        broker.start()
        assert publisher.connected.wait(10)


CONNACK_OLD_VERSION = b"\x20\x02\x00\x01"


def test_an_old_broker_that_refuses_mqtt_5_is_spoken_to_in_3_1_1(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As a broker of before 2018 does: its answer has the form of its own version."""

    def refuse_5(client: socket.socket) -> None:
        version = client.recv(100)[8]
        versions.append(version)
        client.sendall(CONNACK_OLD_VERSION if version == 5 else b"\x20\x02\x00\x00")

    versions: list[int] = []
    with listener(refuse_5) as port, publishing(port):
        pass
    assert versions == [5, 4]
    assert said(caplog, logging.WARNING) == []


def test_a_broker_without_room_is_no_refused_login() -> None:
    def refuse(client: socket.socket) -> None:
        client.recv(100)
        client.sendall(b"\x20\x02\x00\x03")  # 3.1.1: server unavailable

    with listener(refuse) as port, pytest.raises(BrokerError, match="cannot take us now") as told:
        Connection(address(port), "3.1.1", None, Inbox()).open()
    assert type(told.value) is BrokerError


def test_failed_connections_leave_nothing_open() -> None:
    """A broker may be away for weeks."""
    fds = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(20):
        with pytest.raises(BrokerError):
            Connection(address(free_port()), "5", None, Inbox()).open()
    assert len(os.listdir("/proc/self/fd")) <= fds  # noqa: PTH208


# ------------------------------------------------------------------ stopping


def test_stop_returns_in_time_from_a_broker_that_hangs_and_counts_what_is_lost(
    broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    with publishing(broker.port) as publisher:
        broker.stop_signal()
        publisher.publish(final("one"))
        publisher.publish(final("two"))
        begin = time.monotonic()
        publisher.stop()
        took_s = time.monotonic() - begin
        publisher.stop = lambda: None  # type: ignore[method-assign]
        assert took_s < 6.0
        assert not publisher._thread.is_alive()
    assert "2 final(s) never reached the broker" in said(caplog, logging.WARNING)[-1]


def test_stop_without_a_broker_is_quick_and_counts_what_is_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with publishing(free_port(), wait=False, jitter=1.0) as publisher:
        publisher.publish(final("one"))
        begin = time.monotonic()
    assert time.monotonic() - begin < 0.5
    assert "1 final(s) never reached the broker" in str(said(caplog, logging.WARNING))


# ------------------------------------------------------------------ the embedded broker


# amqtt leaves connections that never logged in to the garbage collector.
AMQTT = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def embedded() -> Iterator[int]:
    """The port of a running embedded broker."""
    port = free_port()
    assert not is_taken(port)
    server = EmbeddedBroker(port)
    server.start()
    assert is_taken(port)
    yield port
    server.stop()
    assert not is_taken(port)
    assert not server._thread.is_alive()
    del server
    gc.collect()


@AMQTT
def test_the_embedded_broker_serves_the_publisher_mosquitto_sub_and_paho(embedded: int) -> None:
    heard: list[bytes] = []
    subscribed = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
    client.on_connect = lambda c, *_: c.subscribe(f"{ROOT}/#", 1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: heard.append(bytes(message.payload))
    client.connect("127.0.0.1", embedded)
    client.loop_start()
    assert subscribed.wait(5)
    with publishing(embedded, "3.1.1") as publisher:
        publisher.publish(LISTENING)
        publisher.publish(final("Turn on the light."))
        wait_until(lambda: b"Turn on the light." in heard, "transcript/text", 5)
        wait_until(lambda: publisher.outbox_facts().waiting == 0, "acknowledgement", 2)
        printed = subprocess.run(
            ["mosquitto_sub", "-p", str(embedded), "-t", f"{ROOT}/state", "-v", "-W", "1"],
            capture_output=True,
            check=False,
        )
        (line,) = printed.stdout.splitlines()
        assert line.startswith(f'{ROOT}/state {{"state":"listening",'.encode())
    wait_until(lambda: heard[-1] == b"offline", "offline", 2)
    client.disconnect()
    client.loop_stop()


@AMQTT
def test_the_embedded_broker_loses_nothing_of_who_sends_and_hangs_up(embedded: int) -> None:
    """As `mosquitto_pub` does; it once was greeted with what others had subscribed to."""
    send = ["mosquitto_pub", "-p", str(embedded)]
    for name in ("state", "health", "listen/state"):
        subprocess.run([*send, "-r", "-t", f"{ROOT}/{name}", "-m", "x" * 500], check=True)
    with subprocess.Popen(
        ["mosquitto_sub", "-p", str(embedded), "-t", "#", "-C", "23", "-W", "10", "-F", "%p"],
        stdout=subprocess.PIPE,
    ) as listening:
        assert listening.stdout
        greeting = [listening.stdout.readline() for _ in range(3)]
        assert set(greeting) == {b"x" * 500 + b"\n"}
        for number in range(20):
            subprocess.run([*send, "-t", f"{ROOT}/listen/set", "-m", str(number)], check=True)
        heard = listening.stdout.read().split()
    assert heard == [str(number).encode() for number in range(20)]


@AMQTT
def test_with_auto_a_3_1_1_broker_that_keeps_silent_on_mqtt_5_is_found_too(
    embedded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """amqtt waits for ever for the rest of what it takes for a will."""
    monkeypatch.setattr(publisher_module, "HASTY_S", 0.5)
    with publishing(embedded, "auto"):
        pass


@AMQTT
def test_the_embedded_broker_lets_only_this_machine_in(embedded: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", embedded), 1)


@AMQTT
def test_an_embedded_broker_on_a_taken_port_says_what_to_set(broker: Mosquitto) -> None:
    begin = time.monotonic()
    with pytest.raises(BrokerError, match=rf"cannot listen on 127\.0\.0\.1:{broker.port}") as told:
        EmbeddedBroker(broker.port).start()
    assert time.monotonic() - begin < 2
    assert "mqtt.port" in told.value.mend
    gc.collect()


# ------------------------------------------------------------------ what a review found


@contextlib.contextmanager
def slow_way_to(broker: Mosquitto, delay_s: float) -> Iterator[int]:
    """A port that leads to the broker, whose first answer takes its time."""
    server = socket.create_server(("127.0.0.1", 0))
    opened = [server]

    def pump(source: socket.socket, sink: socket.socket, wait_s: float) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                time.sleep(wait_s)
                wait_s = 0.0
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                onward = socket.create_connection((broker.host, broker.port))
                opened.extend((client, onward))
                threading.Thread(target=pump, args=(client, onward, 0.0), daemon=True).start()
                threading.Thread(target=pump, args=(onward, client, delay_s), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        for each in opened:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def test_a_stop_while_the_connection_comes_about_leaves_offline_behind(broker: Mosquitto) -> None:
    """Retained, and with it the state and the final that waited."""
    with slow_way_to(broker, 0.8) as port, publishing(port, wait=False) as publisher:
        publisher.publish(replace(LISTENING, state=State.FAILED))
        publisher.publish(final("Last words."))
        time.sleep(0.3)
        publisher.stop()
    with Subscriber(broker, f"{ROOT}/#") as late:
        late.wait_for(on("availability"), 5)
        late.wait_for(on("transcript/last"), 5)
        kept = {message.topic: message.payload for message in late.messages}
    assert kept[f"{ROOT}/availability"] == b"offline"
    assert json.loads(kept[f"{ROOT}/state"])["state"] == "failed"


def test_two_daemons_with_one_client_id_are_told_so(
    broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    with publishing(broker.port) as one, publishing(broker.port, wait=False) as other:
        wait_until(lambda: "seems to use the client id" in caplog.text, "word of the other", 20)
        del one, other
    (told, *more) = [line for line in said(caplog, logging.ERROR) if "client id" in line]
    assert '"harkd-kitchen"' in told
    assert "device_id" in told
    assert len(more) <= 1  # each of the two may say it


def test_a_final_from_before_the_machine_slept_is_late(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monotonic clock stands still in suspend; the time asleep is added."""
    # It comes back after the subscriber has.
    with Subscriber(broker) as subscriber, publishing(broker.port, jitter=3.0) as publisher:
        broker.kill()
        wait_until(lambda: not publisher.connected.is_set(), "loss of the broker", 5)
        publisher.publish(final("Lights on."))
        wait_until(lambda: publisher._finals.idle is False, "the final", 2)
        asleep = lambda: boot_time.now_ns() + 3600 * 10**9  # noqa: E731
        monkeypatch.setattr(publisher._finals._delivery, "_now_ns", asleep)
        broker.start()
        subscriber.wait_subscribed()
        missed = subscriber.wait_for(on("transcript/missed"), 15)
    assert json.loads(missed.payload)["late"] is True
    assert texts(subscriber, "transcript") == []


def test_a_fault_that_nobody_foresaw_is_logged_and_survived(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The daemon must not go on listening with a dead publisher."""
    really_open = Connection.open

    def fail_once(*_: object) -> None:
        monkeypatch.setattr(Connection, "open", really_open)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Connection, "open", fail_once)
    with publishing(broker.port) as publisher:
        assert publisher.connected.is_set()
    assert "can't start new thread" in caplog.text


def test_a_connection_gives_up_a_network_that_confirms_nothing(broker: Mosquitto) -> None:
    """Else the kernel would deliver a command minutes later, as if it were new."""
    connection = Connection(address(broker.port), "5", None, Inbox())
    connection.open()
    sock = connection._client.tcp
    assert sock
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
    connection.close()
