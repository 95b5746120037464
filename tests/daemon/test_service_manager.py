"""systemd learns the truth over a real datagram socket."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harkd.service_manager import ServiceManager, Watchdog
from servers import wait_until


class Systemd:
    """The other end of $NOTIFY_SOCKET."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + name[1:] if name.startswith("@") else name)
        self.socket.settimeout(5)

    def heard(self) -> str:
        return self.socket.recv(4096).decode()

    def heard_now(self) -> list[str]:
        self.socket.setblocking(False)
        found = []
        try:
            while True:
                found.append(self.socket.recv(4096).decode())
        except BlockingIOError:
            self.socket.settimeout(5)
            return found


@pytest.fixture(params=["file", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    name = f"@harkd-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    server = Systemd(name)
    yield server
    server.socket.close()


def test_the_course_of_a_service_is_told(systemd: Systemd) -> None:
    manager = ServiceManager(systemd.name)
    manager.status("loading the model tiny")
    manager.extend(30)
    manager.ready()
    manager.status("listening\nto the desk")
    manager.status("listening to the desk")
    begun_us = time.monotonic_ns() // 1000
    with manager.reloading():
        assert manager.asks
    manager.stopping()
    told = systemd.heard_now()
    match = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", told.pop(4))
    assert match
    assert begun_us <= int(match[1]) <= time.monotonic_ns() // 1000
    assert told == [
        "STATUS=loading the model tiny",
        "EXTEND_TIMEOUT_USEC=30000000",
        "READY=1",
        "STATUS=listening to the desk",
        "READY=1",
        "STOPPING=1",
    ], "a status is one line, and is told where it has changed"
    manager.close()
    manager.ready()
    assert not systemd.heard_now()


def test_the_environment_is_taken_away_so_that_no_child_notifies(systemd: Systemd) -> None:
    environ = {
        "NOTIFY_SOCKET": systemd.name,
        "WATCHDOG_USEC": "4000000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/root",
    }
    manager = ServiceManager.take_over(environ)
    assert environ == {"HOME": "/root"}
    assert manager.watchdog_s == 4.0
    manager.ready()
    assert systemd.heard() == "READY=1"
    manager.close()


@pytest.mark.parametrize(
    "watchdog",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"},
    ],
)
def test_a_watchdog_that_is_not_meant_for_us_gets_nothing(
    watchdog: dict[str, str], tmp_path: Path
) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), **watchdog}
    manager = ServiceManager.take_over(environ)
    assert manager.watchdog_s is None
    assert not environ
    manager.close()


def test_without_systemd_nothing_is_told_and_no_thread_runs() -> None:
    manager = ServiceManager.take_over({"WATCHDOG_USEC": "4000000"})
    assert not manager.asks
    manager.ready()
    with manager.reloading():
        pass
    watchdog = Watchdog(manager, lambda: "", lambda _reason: None)
    watchdog.start()
    watchdog.ready()
    watchdog.stop()


def test_a_socket_that_is_gone_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = ServiceManager(str(tmp_path / "gone"))
    manager.ready()
    manager.alive()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    manager.close()


def test_a_systemd_that_does_not_read_holds_nobody_up(systemd: Systemd) -> None:
    manager = ServiceManager(systemd.name)
    begin = time.monotonic()
    for number in range(2000):
        manager.status(f"{number} " + "x" * 200)
    assert time.monotonic() - begin < 5
    manager.close()


def test_what_must_arrive_waits_for_a_full_queue_and_a_status_comes_later(
    systemd: Systemd,
) -> None:
    manager = ServiceManager(systemd.name)
    number = 0
    while not manager._untold:
        manager.status(f"number {number}")
        number += 1
    reader = threading.Timer(0.1, systemd.heard)
    reader.start()
    manager.ready()
    reader.join()
    assert systemd.heard_now()[-1] == "READY=1"
    manager.alive()
    manager.alive()
    assert systemd.heard_now() == [f"STATUS=number {number - 1}\nWATCHDOG=1", "WATCHDOG=1"]
    manager.close()


def test_a_slow_start_asks_for_more_time_and_the_watchdog_begins_after_it(
    systemd: Systemd,
) -> None:
    manager = ServiceManager(systemd.name, watchdog_s=0.1)
    watchdog = Watchdog(manager, lambda: "", lambda _reason: None, extend_every_s=0.02)
    watchdog.start()
    told = [systemd.heard() for _ in range(3)]
    assert set(told) == {"EXTEND_TIMEOUT_USEC=30000000"}
    watchdog.ready()
    wait_until(lambda: "WATCHDOG=1" in systemd.heard_now(), "sign of life", 5)
    wait_until(lambda: "WATCHDOG=1" in systemd.heard_now(), "another", 5)
    watchdog.stop()
    manager.close()


def test_a_daemon_that_hangs_gives_no_sign_of_life_and_says_once_why(systemd: Systemd) -> None:
    manager = ServiceManager(systemd.name, watchdog_s=60)
    problem, told = "", list[str]()
    watchdog = Watchdog(manager, lambda: problem, told.append)
    watchdog.look()
    assert systemd.heard_now() == ["WATCHDOG=1"]
    problem = "the recognition thread has made no progress for 61 s"
    watchdog.look()
    problem = "the recognition thread has made no progress for 91 s"
    watchdog.look()
    assert systemd.heard_now() == []
    assert told == ["the recognition thread has made no progress for 61 s"]
    problem = ""
    watchdog.look()
    assert systemd.heard_now() == ["WATCHDOG=1"]
    manager.close()


def test_the_module_alone_is_enough_for_a_service(systemd: Systemd) -> None:
    """A process whose environment is what systemd makes it; its child has none of it."""
    script = (
        "import os, subprocess\n"
        "from harkd.service_manager import ServiceManager\n"
        "ServiceManager.take_over(os.environ).ready()\n"
        "print(subprocess.run(['env'], capture_output=True, text=True).stdout)"
    )
    env = {**os.environ, "NOTIFY_SOCKET": systemd.name, "WATCHDOG_USEC": "1000000"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True
    )
    assert systemd.heard() == "READY=1"
    assert "NOTIFY_SOCKET" not in done.stdout
    assert "WATCHDOG" not in done.stdout
