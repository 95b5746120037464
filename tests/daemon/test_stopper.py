"""What signals ask of the daemon, with real signals to a real process."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from harkd.stopper import Stopper

PROGRAM = """
import fcntl, os, sys, termios, threading, time
from harkd.stopper import Stopper
done = threading.Event()
def say(word):
    os.write(REPORT, word.encode() + b"\\n")
REPORT = int(sys.argv[1])
if "early" in sys.argv:
    import signal
if "terminal" in sys.argv:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
with Stopper() as stopper:
    if "early" in sys.argv:
        os.kill(os.getpid(), signal.SIGHUP)
    stopper.stop_with(lambda: (say("stop"), done.set()))
    stopper.reload_with(lambda: say("reload"))
    say("ready")
    done.wait(10)
"""


class Program:
    """A process with a `Stopper`, and the words that it reports."""

    def __init__(self, *words: str, terminal: int | None = None) -> None:
        self._read_fd, write_fd = os.pipe()
        standard = subprocess.DEVNULL if terminal is None else terminal
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(write_fd), *words],
            stdin=standard,
            stdout=standard,
            pass_fds=[write_fd],
        )
        os.close(write_fd)
        self._words = iter(lambda: self._word(), "")

    def _word(self) -> str:
        word = b""
        while (byte := os.read(self._read_fd, 1)) not in (b"", b"\n"):
            word += byte
        return word.decode()

    def next(self) -> str:
        return next(self._words, "")

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._read_fd)


@pytest.fixture
def program() -> Iterator[Program]:
    one = Program()
    assert one.next() == "ready"
    yield one
    one.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_is_asked_to_stop_by(number: int, program: Program) -> None:
    program.send(number)
    assert program.next() == "stop"
    assert program.process.wait(5) == 0


def test_a_hang_up_asks_for_the_settings_each_time_and_does_not_end_it(program: Program) -> None:
    for _ in range(3):
        program.send(signal.SIGHUP)
        assert program.next() == "reload"
    assert program.process.poll() is None
    program.send(signal.SIGTERM)
    assert program.next() == "stop"


def test_a_hang_up_that_comes_too_early_is_remembered() -> None:
    one = Program("early")
    assert [one.next(), one.next()] == ["reload", "ready"]
    one.end()


def test_a_hang_up_from_a_terminal_that_is_still_there_asks_for_the_settings() -> None:
    ours, theirs = pty.openpty()
    one = Program("terminal", terminal=theirs)
    os.close(theirs)
    assert one.next() == "ready"
    one.send(signal.SIGHUP)
    assert one.next() == "reload"
    one.end()
    os.close(ours)


def test_a_terminal_that_is_closed_ends_it() -> None:
    """Else it would go on to listen, and nobody would see it."""
    ours, theirs = pty.openpty()
    one = Program("terminal", terminal=theirs)
    os.close(theirs)
    assert one.next() == "ready"
    os.close(ours)  # the kernel sends SIGHUP
    assert one.next() == "stop"
    assert one.process.wait(5) == 0
    one.end()


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    with Stopper():
        assert signal.getsignal(signal.SIGHUP) != before[1]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


def test_an_ignored_hang_up_stays_ignored() -> None:
    """As nohup wants it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stopper() as stopper:
            stopper.reload_with(lambda: pytest.fail("it was not ignored"))
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
