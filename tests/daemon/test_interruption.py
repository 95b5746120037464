"""A signal becomes an exception on the main thread, and only within the context."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from harkd.interruption import Interrupted, interruptible


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_raised_and_the_handlers_are_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, interruptible():
        os.kill(os.getpid(), number)
    assert caught.value.number == number
    assert signal.getsignal(number) is before


def test_what_is_ignored_stays_ignored() -> None:
    """As for a job in the background, or under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def ended_by(script: str) -> int:
    imports = "import os, signal; from harkd.interruption import *; me = os.getpid()\n"
    return subprocess.run([sys.executable, "-c", imports + script], check=False).returncode


def test_a_second_signal_ends_the_process_at_once() -> None:
    assert (
        ended_by(
            "with interruptible():\n"
            "    try:\n"
            "        os.kill(me, signal.SIGINT)\n"
            "    except Interrupted:\n"
            "        os.kill(me, signal.SIGTERM)\n"
            "    os._exit(0)\n"
        )
        == 128 + signal.SIGTERM
    )


def test_leaving_does_not_wait_for_threads() -> None:
    assert (
        ended_by(
            "import threading\n"
            "threading.Thread(target=threading.Event().wait).start()\n"
            "leave_at_once(2)\n"
        )
        == 130
    )
