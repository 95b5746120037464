"""One connection to an MQTT broker over paho, from connect to disconnect.

What happens on it is put into an inbox as `Acknowledged`, `Received`, `NotSubscribed` and `Down`:
paho holds its own locks while it calls back, so nothing else is done there.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from harkd.errors import BrokerError, BrokerRefusedError
from harkd.messages import Message

ANSWER_S = 10.0
"""How long a broker may take to accept a connection, and again to answer CONNECT."""
GOODBYE_S = 1.0
NETWORK_GONE_S = 10.0
"""A connection on which the broker's machine confirms nothing for so long is given up."""
VERSIONS = {"5": paho.MQTTv5, "3.1.1": paho.MQTTv311}
VERSION_REFUSED = 132
LOGIN_REFUSED = (134, 135)
BUSY = (136, 137, 151, 159)
"""Server unavailable, server busy, quota exceeded, connection rate exceeded: it will pass."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker is and how to log in."""

    host: str
    """Name or address."""
    port: int
    """TCP port."""
    client_id: str
    """MQTT client identifier; must be unique at the broker."""
    username: str = ""
    """Empty for none."""
    password: str = field(default="", repr=False)
    """Empty for none."""
    keepalive_s: int = 30
    """Seconds between signs of life."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class ProtocolRefusedError(BrokerRefusedError):
    """The broker says that it does not speak the version that was tried."""


class NoAnswerError(BrokerError):
    """It took the connection and then hung up or kept silent.

    So do old brokers on a version that they do not know, and so does a broker (or Docker's proxy
    in front of it) that is only just starting.
    """


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The broker answered a QoS 1 message."""

    mid: int
    """The message's id."""
    refusal: str
    """Why the broker refused it (MQTT 5 only); empty where it took it."""
    code: int = 0
    """The MQTT 5 reason code; 0x80 and more are refusals."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message on a topic that we subscribed to."""

    topic: str
    """The whole topic."""
    payload: bytes
    """Whatever was sent."""
    retained: bool
    """Whether it lay at the broker when we subscribed, and was not sent just now."""


@dataclass(frozen=True, slots=True)
class NotSubscribed:
    """The broker does not let us read a topic."""

    topic: str
    """The whole topic."""
    refusal: str
    """Why, in the broker's words."""


@dataclass(frozen=True, slots=True)
class Down:
    """The connection is over."""

    reason: str
    """Why, in words."""


Inbox = queue.SimpleQueue[Acknowledged | Received | NotSubscribed | Down]


class Connection:
    """One connection.

    Args:
        address: The broker.
        version: ``5`` or ``3.1.1``.
        will: Sent by the broker if this process vanishes; None for none.
        inbox: Takes what happens.
    """

    def __init__(self, address: Address, version: str, will: Message | None, inbox: Inbox) -> None:
        self._address = address
        self.version = version
        self._inbox = inbox
        self._answered = threading.Event()
        self._over = threading.Event()
        self._code: Any = None
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=address.client_id,
            protocol=VERSIONS[version],
            reconnect_on_failure=False,
        )
        client.connect_timeout = ANSWER_S
        if address.username:
            client.username_pw_set(address.username, address.password or None)
        if will:
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        client.on_socket_open = self._on_socket_open
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        self._topics: Sequence[str] = ()

    def open(self, answer_s: float = ANSWER_S) -> None:
        """Connect and log in, within `answer_s` of the connection.

        Raises:
            ProtocolRefusedError: Another version is worth a try.
            NoAnswerError: Another version may be worth a try, or the same one later.
            BrokerRefusedError: The broker refused the login.
            BrokerError: It cannot be reached.
        """
        where = self._address
        try:
            self._client.connect(where.host, where.port, keepalive=where.keepalive_s)
        except (OSError, ValueError) as error:
            raise unreachable(where, error) from error
        self._client.loop_start()
        self._answered.wait(answer_s)
        if self._code is not None and not self._code.is_failure:
            return
        self.close()
        if self._code is None:
            raise NoAnswerError(
                f"{where} took the connection but did not answer as an MQTT broker",
                "check mqtt.host, mqtt.port and mqtt.protocol",
            )
        raise refused(where, self.version, self._code)

    def send(self, message: Message) -> int | None:
        """Hand one message to paho; return its id, or None where the connection is gone."""
        properties = None
        if message.expiry_s is not None and self.version == "5":
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = message.expiry_s
        try:
            info = self._client.publish(
                message.topic, message.payload, message.qos, message.retain, properties
            )
        except OSError:  # paho closes the socket by which it wakes its thread while we use it
            return None
        return info.mid if info.rc == paho.MQTT_ERR_SUCCESS else None

    def subscribe(self, topics: Sequence[str]) -> None:
        """Ask for all that is sent to these topics, and what lies retained on them; once only."""
        if topics:
            self._topics = topics
            self._client.subscribe([(topic, 1) for topic in topics])

    def close(self) -> None:
        """Say goodbye and free everything, also where the broker hangs."""
        self._client.disconnect()
        if not self._over.wait(GOODBYE_S) and (sock := self._client.socket()):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]
        client = self._client
        client.loop_stop()
        # paho closes the last of its sockets when it is freed, which a circle would put off.
        client.on_socket_open = client.on_connect = client.on_disconnect = None
        client.on_publish = client.on_message = client.on_subscribe = None

    def _on_socket_open(self, _client: Any, _data: Any, sock: Any) -> None:
        # Without it, a message lies in the kernel while the network is away, for as long as
        # keepalive, and is delivered late as if it were new: the broker counts its expiry anew.
        milliseconds = int(NETWORK_GONE_S * 1000)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, code: Any, _more: Any) -> None:
        self._code = code
        self._answered.set()

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, code: Any, _more: Any) -> None:
        self._over.set()
        self._answered.set()
        self._inbox.put(Down(str(code)))

    def _on_publish(self, _client: Any, _data: Any, mid: int, code: Any, _more: Any) -> None:
        self._inbox.put(Acknowledged(mid, str(code) if code.is_failure else "", code.value))

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        self._inbox.put(Received(message.topic, bytes(message.payload), bool(message.retain)))

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, codes: Any, _more: Any) -> None:
        for topic, code in zip(self._topics, codes, strict=False):
            if code.is_failure:
                self._inbox.put(NotSubscribed(topic, str(code)))


def unreachable(address: Address, error: Exception) -> BrokerError:
    """Say why no connection came about."""
    if isinstance(error, socket.gaierror):
        return BrokerError(
            f'the name "{address.host}" cannot be resolved ({error.strerror})',
            "check mqtt.host, or write the broker's address",
        )
    if isinstance(error, ConnectionRefusedError):
        return BrokerError(
            f"nothing listens at {address}", "start the broker, or check mqtt.host and mqtt.port"
        )
    if isinstance(error, TimeoutError):
        return BrokerError(f"{address} does not answer", "check mqtt.host, the network, a firewall")
    return BrokerError(f"no connection to {address} ({error})", "check mqtt.host and mqtt.port")


def refused(address: Address, version: str, code: Any) -> BrokerError:
    """Say why the broker refused the login; `code` is paho's reason code."""
    if code.value in BUSY:
        return BrokerError(f"the broker at {address} cannot take us now ({code})")
    if code.value == VERSION_REFUSED:
        return ProtocolRefusedError(
            f"the broker at {address} does not speak MQTT {version}",
            "set mqtt.protocol to auto",
        )
    if code.value in LOGIN_REFUSED:
        return BrokerRefusedError(
            f"the broker at {address} refused the login ({code})",
            "check mqtt.username and mqtt.password",
        )
    return BrokerRefusedError(f"the broker at {address} refused the connection ({code})")
