"""Finals through a broker, and out of a process, that are killed again and again.

The promise ends at the broker's acknowledgement: a broker that is killed may forget what it has
acknowledged, and what lies in a subscriber's socket is lost where that fails to send its own
acknowledgement. With QoS 0, mosquitto writes each message to the subscriber's socket before it
acknowledges it, and nothing but the subscriber's absence keeps it from being read. So these
subscribe with QoS 0, and the publisher waits for them.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from finals import final
from harkd.messages import About
from harkd.mqtt_connection import Address, Connection
from harkd.outbox import Outbox
from harkd.publisher import Publisher
from servers import Mosquitto, Received, Subscriber, wait_until

pytestmark = pytest.mark.integration

BROKER_KILLS = 20
PROCESS_KILLS = 200
MAX_AGE_S = 2.0
ABOUT = About("harkd", "kitchen", "0.1.0", "tiny", "CPU", retain_last=True, max_age_s=MAX_AGE_S)
PERSISTENCE = ("persistence true", "autosave_on_changes true", "autosave_interval 50")


class Patient(Publisher):
    """Connects only where it may."""

    may_connect = threading.Event()

    def _connect(self) -> Connection:
        while not self.may_connect.wait(0.02) and not self._stopping.is_set():
            pass
        return super()._connect()


def first_arrivals(messages: Iterable[Received]) -> list[str]:
    """Ids of finals in the order in which they came first, on time or late."""
    topics = {ABOUT.topic("transcript"), ABOUT.topic("transcript/missed")}
    idents = [json.loads(each.payload)["id"] for each in messages if each.topic in topics]
    return list(dict.fromkeys(idents))


def counts(messages: Iterable[Received]) -> dict[str, int]:
    names = [each.topic.removeprefix(ABOUT.topic("")) for each in messages]
    return {name: names.count(name) for name in ("transcript", "transcript/missed")}


def assert_none_is_old(messages: Iterable[Received]) -> None:
    on_time = [each for each in messages if each.topic == ABOUT.topic("transcript")]
    assert on_time
    for each in on_time:
        payload = json.loads(each.payload)
        assert payload["latency_ms"] <= 1000 * MAX_AGE_S
        assert payload["late"] is False
        # A final's text is when it was said. MQTT counts its expiry in whole seconds.
        age_s = each.received_ns / 1e9 - float(payload["text"])
        assert age_s <= MAX_AGE_S + 1.0


@pytest.mark.parametrize("persistence", [False, True])
def test_a_broker_that_is_killed_twenty_times_gets_every_final_in_order(
    persistence: bool, tmp_path: Path
) -> None:
    chance = random.Random(1)  # noqa: S311 - no secret
    kept = (*PERSISTENCE, f"persistence_location {tmp_path}/")
    more = kept if persistence else ("persistence false",)
    with (
        Mosquitto(tmp_path, more=more) as broker,
        Subscriber(broker, "harkd/#", qos=0) as subscriber,
    ):
        outbox = Outbox(tmp_path / "outbox.sqlite")
        address = Address("127.0.0.1", broker.port, "harkd-kitchen")
        publisher = Patient(address, "5", ABOUT, outbox, jitter=lambda: 0.05)
        publisher.start()
        count = itertools.count(1)

        def speak(seconds: float) -> None:
            end_s = time.monotonic() + seconds
            while time.monotonic() < end_s:
                now_ns = time.monotonic_ns()
                publisher.publish(final(f"{next(count)}", f"{now_ns / 1e9}", now_ns))
                time.sleep(chance.uniform(0, 0.02))

        try:
            for number in range(BROKER_KILLS):
                subscriber.wait_subscribed()
                publisher.may_connect.set()
                assert publisher.connected.wait(10)
                speak(chance.uniform(0, 0.4))
                publisher.may_connect.clear()
                broker.kill()
                speak(MAX_AGE_S + 0.5 if number % 7 == 3 else chance.uniform(0.05, 0.3))
                subscriber.wait_lost()
                broker.start()
            subscriber.wait_subscribed()
            publisher.may_connect.set()
            wait_until(lambda: publisher.outbox_facts().waiting == 0, "acknowledgements", 20)
        finally:
            publisher.stop()
        taken = [f"{number}" for number in range(1, next(count))]
        wait_until(lambda: taken[-1] in first_arrivals(subscriber.messages), "the last", 5)
        messages = subscriber.messages
    arrived = first_arrivals(messages)
    lost = set(taken) - set(arrived)
    print(
        f"\n{BROKER_KILLS} kills of the broker, persistence {persistence}: {len(taken)} finals, "
        f"all acknowledged; {len(lost)} of them lost in the broker; arrived {counts(messages)}"
    )
    assert lost == set()
    assert arrived == taken
    assert counts(messages)["transcript/missed"] > 0
    assert_none_is_old(messages)


FORKING = """
import os, random, signal, sys, time
from pathlib import Path
from finals import final
from harkd.messages import About
from harkd.mqtt_connection import Address
from harkd.outbox import Outbox
from harkd.publisher import Publisher

port, path, kills, max_age_s = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
about = About("harkd", "kitchen", "0.1.0", "tiny", "CPU", True, float(max_age_s))

class Telling(Outbox):
    def add(self, kept):
        dropped = super().add(kept)
        assert self.on_disk, self.problem
        os.write(1, b"".join(f"kept {each.final.id}\\n".encode() for each in kept))
        return dropped

def begin():
    address = Address("127.0.0.1", port, "harkd-kitchen")
    publisher = Publisher(address, "5", about, Telling(path), jitter=lambda: 0.01)
    publisher.start()
    return publisher

def publish(name):
    publisher, chance = begin(), random.Random(name)
    for number in range(100_000):
        now_ns = time.monotonic_ns()
        publisher.publish(final(f"{name:03}-{number:05}", f"{now_ns / 1e9}", now_ns))
        time.sleep(chance.uniform(0, 0.004))

chance = random.Random(7)
for name in range(kills):
    # No thread has been started here, so a fork is safe.
    if not (child := os.fork()):
        publish(name)
    time.sleep(1.3 if name % 50 == 10 else chance.uniform(0, 0.12))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if name % 50 == 20:
        time.sleep(float(max_age_s) + 0.2)
publisher = begin()
end_s = time.monotonic() + 20
while not publisher._finals.idle and time.monotonic() < end_s:
    time.sleep(0.05)
publisher.stop()
os.write(1, f"waiting {publisher.outbox_facts().waiting}\\n".encode())
"""


def test_a_publisher_that_is_killed_two_hundred_times_loses_no_final_that_it_kept(
    broker: Mosquitto, tmp_path: Path
) -> None:
    path = tmp_path / "outbox.sqlite"
    with Subscriber(broker, "harkd/#", qos=0) as subscriber:
        begin_s = time.monotonic()
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                FORKING,
                str(broker.port),
                str(path),
                str(PROCESS_KILLS),
                str(MAX_AGE_S),
            ],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        took_s = time.monotonic() - begin_s
        lines = [line.split() for line in done.stdout.splitlines()]
        kept = [ident for what, ident in lines if what == "kept"]
        assert lines[-1] == ["waiting", "0"]
        wait_until(lambda: kept[-1] in first_arrivals(subscriber.messages), "the last one", 5)
        messages = subscriber.messages
    arrived = first_arrivals(messages)
    print(
        f"\n{PROCESS_KILLS} kills of the publisher in {took_s:.0f} s: {len(kept)} finals kept, "
        f"{len(set(kept) - set(arrived))} of them lost, arrived {counts(messages)}"
    )
    assert set(kept) - set(arrived) == set()
    assert arrived == sorted(arrived)
    assert len({ident[:3] for ident in kept}) > PROCESS_KILLS / 2, "most came as far as a final"
    assert counts(messages)["transcript/missed"] > 0
    assert_none_is_old(messages)
