"""Looks at the broker for `harkd doctor`: is it there, is it the right one, does it let us work.

In: the settings. Out: `Check` values. It connects as the daemon does, with a client id of its own
and without a will, and publishes one message that nobody waits for. Runs on the main thread.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from harkd import app, commands, hermes
from harkd.broker import LOOPBACK, is_taken
from harkd.discovery import birth_topic
from harkd.doctor_check import Check, Status
from harkd.errors import SettingsError
from harkd.messages import Message
from harkd.mqtt_connection import (
    ANSWER_S,
    Acknowledged,
    Address,
    Connection,
    Down,
    Inbox,
    NotSubscribed,
    connect,
)
from harkd.mqtt_tls import Session
from harkd.settings import Settings

SOON_DAYS = 14


def check_broker(settings: Settings) -> Iterator[Check]:
    """Log in to the broker with the settings' user, and try what the daemon will do there."""
    if not settings.mqtt.host and not is_taken(settings.mqtt.port):
        yield from check_embedded_broker()
        return
    try:
        address = app.make_address(settings, suffix="-doctor")
    except SettingsError as error:
        for line in error.message.splitlines():
            yield Check("broker", Status.FAIL, line)
        return
    inbox = Inbox()
    connection = connect(address, settings.mqtt.protocol, inbox)
    try:
        yield Check("broker", Status.OK, f"{address} takes the login, {connection}")
        if session := connection.session:
            yield check_session(address, session)
        root = f"{settings.mqtt.base_topic}/{settings.effective_device_id}"
        yield check_writing(address, connection, inbox, root)
        yield from check_reading(address, connection, inbox, read_topics(settings, root))
    finally:
        connection.close()


def check_session(address: Address, session: Session, now: datetime | None = None) -> Check:
    """Look at whose certificate the broker has, and until when."""
    what = f"{session.version}, {session.cipher}"
    if session.until is None:
        return Check(
            "tls",
            Status.WARN,
            f"{what}; mqtt.tls_verify is false: anybody can pose as the broker at {address}",
            "name the broker's authority in mqtt.tls_ca_file, and set mqtt.tls_verify: true",
        )
    days = (session.until - (now or datetime.now(UTC))).days
    what += (
        f'; the certificate of "{session.subject}", by "{session.issuer}", is valid until '
        f"{session.until:%Y-%m-%d} ({days} days)"
    )
    if days < SOON_DAYS:
        return Check("tls", Status.WARN, what, "renew it at the broker")
    return Check("tls", Status.OK, what)


def check_writing(address: Address, connection: Connection, inbox: Inbox, root: str) -> Check:
    """Publish a message that means nothing, and look whether the broker takes it."""
    topic = f"{root}/doctor"
    mid = connection.send(Message(topic, b"hello", 1))
    answer = await_answer(inbox, mid)
    if isinstance(answer, Down) or answer is None:
        why = answer.reason if answer else f"no answer within {ANSWER_S:g} s"
        return Check(
            "broker",
            Status.FAIL,
            f"it did not take a message to {topic} ({why})",
            "look into the broker's log",
        )
    if answer.refusal:
        return Check(
            "broker",
            Status.FAIL,
            f"it refuses messages to {topic} ({answer.refusal})",
            f'allow the user "{address.username}" to write {root}/#',
        )
    if connection.version == "5":
        return Check("broker", Status.OK, f"it takes messages to {topic}")
    note = f"with MQTT {connection.version} a broker cannot say whether it passed it on"
    return Check("broker", Status.OK, f"it answers a message to {topic}; {note}")


def check_reading(
    address: Address, connection: Connection, inbox: Inbox, topics: Sequence[str]
) -> Iterator[Check]:
    """Subscribe to what harkd listens to, and look whether the broker lets us."""
    connection.subscribe(topics)
    if not connection.subscribed.wait(ANSWER_S):
        yield Check(
            "broker",
            Status.FAIL,
            f"it did not answer when asked for {topics[0]}",
            "look into the broker's log",
        )
        return
    barred = False
    for event in drain(inbox):
        if isinstance(event, NotSubscribed):
            barred = True
            yield Check(
                "broker",
                Status.FAIL,
                f"it does not let us read {event.topic} ({event.refusal})",
                f'allow the user "{address.username}" to read it',
            )
    if not barred:
        yield Check("broker", Status.OK, f"it lets us read {topics[0]} and the like")


def read_topics(settings: Settings, root: str) -> list[str]:
    """Return the whole topics that the daemon subscribes to with these settings."""
    topics = [f"{root}/{name}" for name in commands.TOPICS]
    if settings.mqtt.discovery != "off":
        topics.append(birth_topic(settings.mqtt.discovery_prefix))
    return [*topics, *(hermes.TOPICS if settings.hermes.enabled else ())]


def await_answer(inbox: Inbox, mid: int | None) -> Acknowledged | Down | None:
    """Return the broker's answer to a message, or the end of the connection, or nothing."""
    deadline = time.monotonic() + ANSWER_S
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            event = inbox.get(timeout=left_s)
        except queue.Empty:
            break
        if isinstance(event, Down) or (isinstance(event, Acknowledged) and event.mid == mid):
            return event
    return None


def drain(inbox: Inbox) -> Iterator[object]:
    """Yield what lies in the inbox."""
    while not inbox.empty():
        yield inbox.get()


def check_embedded_broker() -> Iterator[Check]:
    """Look whether the embedded broker could be started."""
    try:
        import amqtt  # noqa: F401 - only whether it is there
    except ImportError:
        yield Check(
            "broker",
            Status.FAIL,
            "mqtt.host is not set, and the embedded broker is not installed",
            'set mqtt.host, or: pip install "harkd[broker]"',
        )
        return
    yield Check(
        "broker",
        Status.WARN,
        f"mqtt.host is not set: harkd will start a broker of its own on {LOOPBACK}",
        "fine to try it out; set mqtt.host to your broker for Home Assistant",
    )
