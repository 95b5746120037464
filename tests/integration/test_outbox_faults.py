"""The outbox through bad days of the disk, and finals that a real broker does not take."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from finals import final
from harkd import boot_time, delivery, final_sender
from harkd.messages import About
from harkd.mqtt_connection import Address
from harkd.outbox import Outbox
from harkd.outbox_file import Kept
from harkd.publisher import Publisher
from servers import Mosquitto, Subscriber, free_port, wait_until

pytestmark = pytest.mark.integration

ABOUT = About("harkd", "kitchen", "0.1.0", "tiny", "CPU", retain_last=True, max_age_s=30)
COUNT = itertools.count(1)


@contextlib.contextmanager
def publishing(port: int, outbox: Outbox, *, wait: bool = True, **more: Any) -> Iterator[Publisher]:
    address = Address("127.0.0.1", port, "harkd-kitchen", **more)
    publisher = Publisher(address, "5", ABOUT, outbox, jitter=lambda: 0.1)
    publisher.start()
    try:
        if wait:
            assert publisher.connected.wait(5)
        yield publisher
    finally:
        publisher.stop()


def say(publisher: Publisher, *idents: str) -> None:
    for ident in idents:
        publisher.publish(final(ident, spoken_ns=time.monotonic_ns()))


def arrived(subscriber: Subscriber, name: str = "transcript") -> list[str]:
    topic = ABOUT.topic(name)
    return [json.loads(each.payload)["id"] for each in subscriber.messages if each.topic == topic]


def idents(path: Path) -> list[str]:
    """What waits in an outbox that nobody uses."""
    box = Outbox(path)
    box.open()
    assert box.on_disk, box.problem
    found = [each.final.id for each in box.after(-(10**9), 10**6)]
    box.close()
    return found


# ------------------------------------------------------------------------------------ restarts


def test_finals_that_met_no_broker_are_published_by_the_next_daemon_in_order_and_with_their_age(
    broker: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "outbox.sqlite"
    caplog.set_level(logging.INFO, "harkd")
    with publishing(free_port(), Outbox(path), wait=False) as publisher:
        old_ns = time.monotonic_ns() - 29 * 10**9
        publisher.publish(final("will be late", spoken_ns=old_ns))
        say(publisher, "a", "b")
    assert f"3 final(s) wait in {path} for the next start" in caplog.text
    assert idents(path) == ["will be late", "a", "b"], "written before the exit"
    time.sleep(1.1)
    with Subscriber(broker) as subscriber, publishing(broker.port, Outbox(path)) as publisher:
        say(publisher, "c")
        wait_until(lambda: len(arrived(subscriber)) == 3, "finals", 5)
        assert arrived(subscriber) == ["a", "b", "c"]
        assert arrived(subscriber, "transcript/missed") == ["will be late"]
        on_time = [m for m in subscriber.messages if m.topic == ABOUT.topic("transcript")]
        assert json.loads(on_time[0].payload)["latency_ms"] >= 1100
        assert [each.expiry_s for each in on_time] in ([29, 29, 30], [28, 28, 30])
        wait_until(lambda: publisher.outbox_facts().waiting == 0, "acknowledgements", 5)
    assert idents(path) == []


def test_finals_from_before_a_reboot_are_missed(
    broker: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However young the clock says they are: it may have stood still while the machine was off."""
    path = tmp_path / "outbox.sqlite"
    with publishing(free_port(), Outbox(path), wait=False) as publisher:
        say(publisher, "before")
    monkeypatch.setattr(boot_time, "boot_id", lambda: "the next one")
    with Subscriber(broker) as subscriber, publishing(broker.port, Outbox(path)) as publisher:
        say(publisher, "after")
        wait_until(lambda: arrived(subscriber) == ["after"], "the new one", 5)
        assert arrived(subscriber, "transcript/missed") == ["before"]
        (missed,) = [m for m in subscriber.messages if m.topic == ABOUT.topic("transcript/missed")]
    assert json.loads(missed.payload)["latency_ms"] is None


# ---------------------------------------------------------------------------------- the disk


FULL = """
import json, os, sys, time
from pathlib import Path
from finals import final
from harkd.messages import About
from harkd import outbox
from harkd.mqtt_connection import Address
from harkd.outbox import Outbox
from harkd.publisher import Publisher
outbox.RETRY_S = 0.5
disk = Path(sys.argv[2])
ballast = disk / "ballast"
about = About("harkd", "kitchen", "0.1.0", "tiny", "CPU", True, 30)
box = Outbox(disk / "state" / "outbox.sqlite")
publisher = Publisher(Address("127.0.0.1", int(sys.argv[1]), "k"), "5", about, box)
publisher.start()

def say(*idents):
    for ident in idents:
        publisher.publish(final(ident, spoken_ns=time.monotonic_ns()))

def until(condition):
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition(), publisher.outbox_facts()

say("a")
until(lambda: publisher.outbox_facts().on_disk and publisher.outbox_facts().waiting == 1)
with ballast.open("wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
say(*[f"b{n}" for n in range(100)])
until(lambda: publisher.outbox_facts().waiting == 101 and not publisher.outbox_facts().on_disk)
full = publisher.outbox_facts().problem
ballast.unlink()
until(lambda: publisher.outbox_facts().on_disk)
say("c")
until(lambda: publisher.outbox_facts().waiting == 102)
until(lambda: box.count == 102)
again = Path(sys.argv[2]) / "copy"
again.mkdir()
for part in (disk / "state").iterdir():
    (again / part.name).write_bytes(part.read_bytes())
copy = Outbox(again / "outbox.sqlite")
copy.open()
print(json.dumps([full, [each.final.id for each in copy.after(-999, 999)]]), flush=True)
os._exit(0)
"""


def test_a_full_disk_is_reported_and_what_came_meanwhile_is_written_when_there_is_room(
    tmp_path: Path,
) -> None:
    """A real one, of 1 MB, in a mount namespace of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    own = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-r", "-m"]
    if subprocess.run([*own, "true"], check=False).returncode:
        pytest.skip("this kernel, or container, lets nobody mount a small disk")
    script = f'mount -t tmpfs -o size=1M none {disk} && exec "$@"'
    words = [sys.executable, "-c", FULL, str(free_port()), str(disk)]
    done = subprocess.run(
        [*own, "sh", "-c", script, "sh", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    problem, kept = json.loads(done.stdout)
    assert "cannot grow" in problem
    assert "Make room on the disk" in problem
    assert kept == ["a", *[f"b{number}" for number in range(100)], "c"]
    assert done.stderr.count("cannot grow") == 1, "once, however often it is tried"


class Slow(Outbox):
    """An outbox on a disk that may hang."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.goes = threading.Event()
        self.goes.set()

    def add(self, kept: Sequence[Kept]) -> list[int]:
        self.goes.wait()
        return super().add(kept)


def test_a_disk_that_hangs_holds_up_neither_the_caller_nor_for_long_the_finals(
    broker: Mosquitto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(delivery, "DISK_S", 0.4)
    outbox = Slow(tmp_path / "outbox.sqlite")
    with Subscriber(broker) as subscriber, publishing(broker.port, outbox) as publisher:
        say(publisher, "before")
        wait_until(lambda: arrived(subscriber) == ["before"], "the first", 2)
        outbox.goes.clear()
        begin_s = time.monotonic()
        say(publisher, "a", "b")
        assert time.monotonic() - begin_s < 0.1
        assert publisher.outbox_facts().waiting >= 2
        wait_until(lambda: len(arrived(subscriber)) == 3, "finals", 2)
        took_s = time.monotonic() - begin_s
        assert 0.4 <= took_s < 1.5
        facts = publisher.outbox_facts()
        assert (facts.on_disk, facts.problem) == (False, "the disk does not answer")
        say(publisher, "c")
        told = subscriber.wait_for(lambda m: m.topic == ABOUT.topic("error"), 2)
        assert "has not answered" in json.loads(told.payload)["error"]
        outbox.goes.set()
        wait_until(lambda: publisher.outbox_facts().waiting == 0, "the disk", 5)
        say(publisher, "d")
        wait_until(lambda: arrived(subscriber)[-1] == "d", "the last", 2)
        assert arrived(subscriber) == ["before", "a", "b", "c", "d"]
        assert publisher.outbox_facts().problem == ""
    assert caplog.text.count("has not answered") == 1
    assert idents(tmp_path / "outbox.sqlite") == []


def test_a_fault_that_nobody_foresaw_loses_nothing_and_is_tried_again(
    broker: Mosquitto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(final_sender, "RETRY_S", 0.2)
    really_after = Outbox.after

    def fail_once(*_: object) -> list[Kept]:
        monkeypatch.setattr(Outbox, "after", really_after)
        raise RuntimeError("what nobody foresaw")

    monkeypatch.setattr(Outbox, "after", fail_once)
    outbox = Outbox(tmp_path / "outbox.sqlite")
    with Subscriber(broker) as subscriber, publishing(broker.port, outbox) as publisher:
        say(publisher, "a", "b")
        wait_until(lambda: arrived(subscriber) == ["a", "b"], "finals", 5)
        wait_until(lambda: publisher.outbox_facts().waiting == 0, "acknowledgements", 5)
    assert "what nobody foresaw" in caplog.text


def test_an_exit_does_not_wait_for_ever_for_a_disk_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(final_sender, "CLOSE_S", 0.5)
    monkeypatch.setattr(final_sender.FinalSender.stop, "__defaults__", (0.5,))
    outbox = Slow(tmp_path / "outbox.sqlite")
    outbox.goes.clear()
    try:
        with publishing(free_port(), outbox, wait=False) as publisher:
            say(publisher, "a")
            wait_until(lambda: publisher.outbox_facts().waiting == 1, "it", 2)
            begin_s = time.monotonic()
            publisher.stop()
            assert time.monotonic() - begin_s < 3
        assert "1 final(s) never reached the broker" in caplog.text
    finally:
        outbox.goes.set()
        publisher._finals._keeper._thread.join(5)


def test_a_broken_file_is_told_on_the_error_topic_at_the_next_connect(
    broker: Mosquitto, tmp_path: Path
) -> None:
    path = tmp_path / "outbox.sqlite"
    path.write_bytes(b"rubbish " * 1000)
    reported: list[str] = []
    with Subscriber(broker) as subscriber:
        address = Address("127.0.0.1", broker.port, "harkd-kitchen")
        publisher = Publisher(address, "5", ABOUT, Outbox(path), report=reported.append)
        publisher.start()
        try:
            error = subscriber.wait_for(lambda m: m.topic == ABOUT.topic("error"), 5)
            say(publisher, "a")
            wait_until(lambda: arrived(subscriber) == ["a"], "a final", 2)
            assert publisher.outbox_facts().on_disk
        finally:
            publisher.stop()
    payload = json.loads(error.payload)
    assert [payload["error"]] == reported
    assert (payload["topic"], payload["payload"], error.retain) == ("", "", False)
    assert len([*tmp_path.glob("outbox.sqlite.broken-*Z")]) == 1


# ------------------------------------------------------------------------------------- rights


def test_finals_that_the_broker_lets_us_not_write_wait_until_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(delivery, "REFUSED_S", 1.0)
    acl = tmp_path / "acl"
    rights = "user ha\ntopic read #\ntopic write {}\n"
    acl.write_text(rights.format(f"{ABOUT.topic('availability')}\ntopic write harkd/kitchen/state"))
    more = ("persistence false", f"acl_file {acl}")
    box = Outbox(tmp_path / "outbox.sqlite")
    with (
        Mosquitto(tmp_path, user="ha", password=tmp_path.name, more=more) as server,
        Subscriber(server, user="ha", password=tmp_path.name) as subscriber,
        publishing(server.port, box, username="ha", password=tmp_path.name) as publisher,
    ):
        say(publisher, "a", "b")
        wait_until(lambda: "refused final a" in caplog.text, "word of it", 5)
        assert publisher.outbox_facts().waiting == 2
        acl.write_text(rights.format("harkd/kitchen/#"))
        subprocess.run(["kill", "-HUP", str(server.pid)], check=True)
        say(publisher, "c")
        wait_until(lambda: sorted(arrived(subscriber)) == ["a", "b", "c"], "all", 10)
        wait_until(lambda: publisher.outbox_facts().waiting == 0, "acknowledgements", 5)
    errors = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert len([each for each in errors if "refused final" in each]) == 1


def test_a_final_that_is_too_large_for_the_broker_does_not_stand_in_the_others_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = ("persistence false", "message_size_limit 2000")
    with (
        Mosquitto(tmp_path, more=more) as server,
        Subscriber(server) as subscriber,
        publishing(server.port, Outbox(tmp_path / "outbox.sqlite")) as publisher,
    ):
        publisher.publish(final("large", "x" * 3000, time.monotonic_ns()))
        say(publisher, "small")
        wait_until(lambda: publisher.outbox_facts().waiting == 1, "the small one's end", 20)
        assert set(arrived(subscriber)) == {"small"}
        assert "connections ended at final large" in caplog.text
        steady = publisher._connection
        say(publisher, "next")
        wait_until(lambda: arrived(subscriber)[-1] == "next", "the next one", 2)
        assert publisher._connection is steady
    assert idents(tmp_path / "outbox.sqlite") == ["large"]


# ------------------------------------------------------------------------------------- figures


def test_facts_tell_how_many_wait_and_for_how_long(tmp_path: Path) -> None:
    with publishing(free_port(), Outbox(tmp_path / "outbox.sqlite"), wait=False) as publisher:
        wait_until(lambda: publisher.outbox_facts().on_disk, "the disk", 5)
        facts = publisher.outbox_facts()
        assert facts == final_sender.OutboxFacts(0, None, on_disk=True, dropped=0, problem="")
        say(publisher, "a", "b")
        time.sleep(0.3)
        facts = publisher.outbox_facts()
        assert facts.waiting == 2
        assert 0.2 <= (facts.oldest_age_s or 0) <= 2.0
