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
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from harkd.errors import BrokerError, SettingsError
from harkd.messages import Message
from harkd.mqtt_address import Address
from harkd.mqtt_client import MOST_BYTES, Client
from harkd.mqtt_failures import (
    TLS,
    WEBSOCKET,
    NoAnswerError,
    ProtocolRefusedError,
    no_answer,
    not_websocket,
    refused,
    tls_failed,
    unreachable,
)
from harkd.mqtt_tls import Context, Session, make_context

__all__ = [
    "ANSWER_S",
    "CLOSED",
    "GOODBYE_S",
    "TAKEN_OVER",
    "WORDS",
    "Acknowledged",
    "Address",
    "Connection",
    "Down",
    "Inbox",
    "NoAnswerError",
    "NotSubscribed",
    "ProtocolRefusedError",
    "Received",
    "connect",
    "versions_of",
]

ANSWER_S = 10.0
"""How long a broker may take to accept a connection, again for TLS, and again for CONNECT."""
GOODBYE_S = 1.0
AUTO = ("5", "3.1.1")
VERSIONS = {"5": paho.MQTTv5, "3.1.1": paho.MQTTv311, "3.1": paho.MQTTv31}
CLOSED, TAKEN_OVER, SILENT = "Unspecified error", "Session taken over", "Keep alive timeout"
"""paho's names for three ends of a connection."""
WORDS = {CLOSED: "it closed the connection", SILENT: "it does not answer any more"}
"""Ours for them, to follow the broker's name in brackets."""


def versions_of(protocol: str) -> list[str]:
    """Return the MQTT versions to try for the setting, best first."""
    return list(AUTO) if protocol == "auto" else [protocol]


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
        version: ``5``, ``3.1.1`` or ``3.1``.
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
        self._context: Context | None = None
        self.session: Session | None = None
        """What TLS turned out to be; None without it."""
        self._client = client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=address.client_id,
            protocol=VERSIONS[version],
            transport="websockets" if address.websocket_path else "tcp",
            reconnect_on_failure=False,
        )
        client.connect_timeout = ANSWER_S
        if address.websocket_path:
            client.ws_set_options(address.websocket_path)
        if will:
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        self._topics: Sequence[str] = ()
        self.subscribed = threading.Event()
        """Set once the broker has answered `subscribe`, after its refusals are in the inbox."""

    def open(self, answer_s: float = ANSWER_S) -> None:
        """Connect and log in, within `answer_s` of the connection.

        Raises:
            ProtocolRefusedError: Another version is worth a try.
            NoAnswerError: Another version may be worth a try, or the same one later.
            BrokerRefusedError: The broker refused the login.
            BrokerUntrustedError: Its certificate does not prove who it is.
            BrokerError: It cannot be reached.
        """
        self._connect()
        self._client.loop_start()
        self._answered.wait(answer_s)
        if self._code is not None and not self._code.is_failure:
            return
        self.close()
        if self._code is not None:
            raise refused(self._address, self.version, self._code)
        if self._client.fault.isupper():
            raise tls_failed(self._address, self._client.fault)
        raise no_answer(self._address, self._client.heard)

    def _connect(self) -> None:
        where, client = self._address, self._client
        properties = None
        if self.version == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = MOST_BYTES
        try:
            if where.username:
                client.username_pw_set(where.username, where.read_password() or None)
            if where.tls:
                self._context = make_context(where.tls)
                client.tls_set_context(self._context)
            client.connect(where.host, where.port, where.keepalive_s, properties=properties)
            self.session = self._context.session() if self._context else None
        except SettingsError as error:
            self._abandon()
            faults = error.message.replace("\n", "; ")
            raise BrokerError(f"no connection to {where}: {faults}") from error
        except (paho.WebsocketConnectionError, IndexError) as error:
            # paho looks for what follows ": " in a line that may not have it.
            self._abandon()
            raise not_websocket(where) from error
        except (OSError, ValueError) as error:
            in_tls = self._context and not self._context.session()
            step = "" if not client.tcp else TLS if in_tls else WEBSOCKET
            self._abandon()
            raise unreachable(where, error, step) from error

    def __str__(self) -> str:
        way = [self.session.version] if self.session else []
        way += ["WebSocket"] if self._address.websocket_path else []
        return f"MQTT {self.version}" + (f" over {' and '.join(way)}" if way else "")

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
        if not self._over.wait(GOODBYE_S) and (sock := self._socket()):
            with contextlib.suppress(OSError):
                # Not SSLSocket's own: it would take TLS away under paho's thread.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        self._client.loop_stop()
        self._abandon()

    def _socket(self) -> socket.socket | None:
        return self._context.socket if self._context else self._client.tcp

    def _abandon(self) -> None:
        client = self._client
        # paho does not close a socket on which TLS or the WebSocket did not come about.
        if sock := self._socket():
            sock.close()
        if client.tcp:
            client.tcp.close()
        if self._context:
            self._context.socket = None
        # paho closes the last of its sockets when it is freed, which a circle would put off.
        client.on_connect = client.on_disconnect = None
        client.on_publish = client.on_message = client.on_subscribe = None

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, code: Any, _more: Any) -> None:
        self._code = code
        self._answered.set()

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, code: Any, _more: Any) -> None:
        self._over.set()
        self._answered.set()
        fault = self._client.fault
        if fault.isupper():
            fault = tls_failed(self._address, fault).message
        self._inbox.put(Down(fault or str(code)))

    def _on_publish(self, _client: Any, _data: Any, mid: int, code: Any, _more: Any) -> None:
        self._inbox.put(Acknowledged(mid, str(code) if code.is_failure else "", code.value))

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        self._inbox.put(Received(message.topic, bytes(message.payload), bool(message.retain)))

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, codes: Any, _more: Any) -> None:
        for topic, code in zip(self._topics, codes, strict=False):
            if code.is_failure:
                self._inbox.put(NotSubscribed(topic, str(code)))
        self.subscribed.set()


def connect(address: Address, protocol: str, inbox: Inbox) -> Connection:
    """Return a connection without a will, with the best version that the broker takes.

    Raises BrokerError.
    """
    versions = versions_of(protocol)
    for version in versions:
        connection = Connection(address, version, None, inbox)
        try:
            connection.open()
        except (ProtocolRefusedError, NoAnswerError):
            if version == versions[-1]:
                raise
            continue
        break
    return connection
