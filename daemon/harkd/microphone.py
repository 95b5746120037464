"""Keeps a microphone open for ever: starts, watches and replaces the capture process.

In: the `audio` settings. Out: `SourceOpened`, `AudioBlock`, `SourceLost` and `SourceMuted` events,
on the thread that iterates. A capture process that sends nothing for `stall_s`, or ends, is killed
and replaced after a growing, jittered wait; blocks are what counts, not exit codes. Muted, none
runs.
"""

from __future__ import annotations

import json
import logging
import math
import os
import random
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Any

from harkd import capture
from harkd.audio import (
    AudioBlock,
    MonoConverter,
    SourceEvent,
    SourceLost,
    SourceMuted,
    SourceOpened,
    Waker,
)
from harkd.settings import AudioSettings

log = logging.getLogger(__name__)

FIRST_BLOCK_S, FIRST_BLOCK_MOST_S = 5.0, 20.0
"""How long a capture process may take to its first block, and after how many failures at most."""
STEADY_S = 10.0
"""A microphone that delivered for so long resets the wait before the next start."""
KILL_S = 2.0
STALLED = "stalled"
BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.25, 4.0
PIPE_BYTES = 1 << 20
STDERR_LINES = 10
STDERR_CHARACTERS = 500
STDERR_PACE_S = 0.05
ALIVE_S = 2.0
"""So often life is shown while nothing comes."""


class Ready(Enum):
    """Why a wait for the capture process ended."""

    RECORDS = auto()
    WOKEN = auto()
    LATE = auto()


class CaptureProcess:
    """One running capture process and the two pipes from it."""

    def __init__(self, settings: AudioSettings, command: list[str] | None = None) -> None:
        request = {
            "device": settings.device,
            "channel": str(settings.channel),
            "latency_ms": settings.latency_ms,
            "block_ms": settings.block_ms,
        }
        self._process = subprocess.Popen(
            [*(command or [sys.executable, "-m", "harkd.capture"]), json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        if not (self._process.stdout and self._process.stderr and self._process.stdin):
            raise RuntimeError("Popen gave no pipes")
        self.out_fd = self._process.stdout.fileno()
        self.err_fd = self._process.stderr.fileno()
        set_pipe_size(self.out_fd)
        self._buffer = bytearray()
        self._said: deque[str] = deque(maxlen=STDERR_LINES)
        self.stderr_from = 0.0
        """Monotonic seconds from which on stderr may be read again."""

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def read_records(self) -> list[tuple[int, int, int, bytes]] | None:
        """Read what is there: (kind, flags, stamp_ns, payload) each; None at the pipe's end."""
        data = os.read(self.out_fd, 1 << 16)
        if not data:
            return None
        self._buffer += data
        records = []
        while len(self._buffer) >= capture.HEADER.size:
            magic, kind, flags, _, length, stamp_ns = capture.HEADER.unpack_from(self._buffer)
            if magic != capture.MAGIC:
                log.error("the capture process sent something that is no record; replacing it")
                return None
            end = capture.HEADER.size + length
            if len(self._buffer) < end:
                break
            payload = bytes(self._buffer[capture.HEADER.size : end])
            records.append((kind, flags, stamp_ns, payload))
            del self._buffer[:end]
        return records

    def read_stderr(self, now: float) -> None:
        """Take a little of what the process says on stderr, and not again for a while.

        Only a little: a PortAudio that floods stderr (100,000 lines a second were seen) then
        waits in its own write instead of burning a core until it is killed.
        """
        data = os.read(self.err_fd, 4096)
        self._said.extend(data.decode("utf-8", "replace").splitlines())
        self.stderr_from = now + STDERR_PACE_S if data else math.inf

    def last_words(self) -> str:
        """The end of what the process wrote on stderr, on one line."""
        return " | ".join(line.strip() for line in self._said if line.strip())[-STDERR_CHARACTERS:]

    def kill(self) -> int | None:
        """End the process for sure, and return its exit code, if it has one yet."""
        self._process.kill()
        code = None
        try:
            code = self._process.wait(KILL_S)
        except subprocess.TimeoutExpired:  # in a driver that hangs; subprocess reaps it later
            log.warning("the capture process %d hangs in a driver and cannot be ended", self.pid)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()
        return code


def set_pipe_size(fd: int) -> None:
    """Let the pipe hold some seconds of audio, should this process be held up."""
    import fcntl

    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:  # over the user's limit: the default 64 KiB are 2 s at 16 kHz
        log.debug("the pipe from the capture process keeps its default size")


class Microphone:
    """A `FrameSource` over the machine's microphone that comes back after every fault.

    Args:
        settings: The `audio` section.
        muted: Whether it begins muted: not opened at all.
        command: The capture program, for tests.
        monotonic: Seconds; injected by tests.
        jitter: A factor for each wait, so that several daemons do not move in step.
    """

    lossless = False

    def __init__(
        self,
        settings: AudioSettings,
        *,
        muted: bool = False,
        command: list[str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = lambda: random.uniform(0.75, 1.0),  # noqa: S311 - no secret
    ) -> None:
        self._settings = settings
        self._command = command
        self._monotonic = monotonic
        self._jitter = jitter
        self._waker = Waker()
        self._closed = False
        self._muted = muted
        self.starts = 0
        """How many capture processes were started."""
        self.pid = 0
        """Process id of the capture process; 0 while none runs."""
        self.alive: Callable[[], None] = lambda: None
        """Called at least every `ALIVE_S` on the thread that iterates."""

    def events(self) -> Iterator[SourceEvent]:
        """Yield for ever, until `close()`."""
        backoff_s, patience_s = BACKOFF_FIRST_S, FIRST_BLOCK_S
        interrupted = False
        while not self._closed:
            if self._muted or interrupted:
                interrupted = False
                yield SourceMuted()
                while self._muted and not self._closed:
                    self._wait(None)
                backoff_s, patience_s = BACKOFF_FIRST_S, FIRST_BLOCK_S
                continue
            begin, heard, lost = self._monotonic(), False, None
            for event in self._one_process(patience_s):
                if isinstance(event, SourceLost):
                    lost = event
                    break
                heard = heard or isinstance(event, AudioBlock)
                yield event
            if lost is None:
                interrupted = True
                continue
            yield lost
            if heard:
                patience_s = FIRST_BLOCK_S
                if self._monotonic() - begin > STEADY_S:
                    backoff_s = BACKOFF_FIRST_S
            elif lost.kind == STALLED:
                # A cold, slow machine may need longer than this to open anything.
                patience_s = min(patience_s * 2, FIRST_BLOCK_MOST_S)
            self._wait(backoff_s * self._jitter())
            backoff_s = min(backoff_s * 2, BACKOFF_MOST_S)

    def _one_process(self, patience_s: float) -> Iterator[SourceEvent]:
        """Start a capture process, yield what it delivers, and end it."""
        self.starts += 1
        try:
            process = CaptureProcess(self._settings, self._command)
        except OSError as error:  # no memory, no process or no file descriptor left
            yield SourceLost("unknown", f"the capture process does not start ({error})")
            return
        self.pid = process.pid
        try:
            lost: SourceLost | None = None
            for event in self._run(process, patience_s):
                if isinstance(event, SourceLost):
                    lost = event
                    break
                yield event
        finally:
            code = process.kill()
            self.pid = 0
            log.debug("capture process ended with %s: %s", code, process.last_words())
        if lost:
            yield lost

    def close(self) -> None:
        """Make `events()` return; the capture process is killed."""
        self._closed = True
        self._waker.wake()

    def mute(self, on: bool) -> None:
        """Close the microphone, or open it again. Any thread; a `SourceMuted` tells when it is."""
        self._muted = on
        self._waker.wake()

    def _wait(self, seconds: float | None) -> None:
        """Wait, for ever where it is None, or until `close()` or `mute()`."""
        left_s = math.inf if seconds is None else seconds
        while left_s > 0 and not self._closed:
            self.alive()
            woken, _, _ = select.select([self._waker], [], [], min(left_s, ALIVE_S))
            if woken:
                self._waker.clear()
                return
            left_s -= ALIVE_S

    def _run(self, process: CaptureProcess, patience_s: float) -> Iterator[SourceEvent]:
        """Yield what one capture process delivers; the last event is its loss."""
        converter: MonoConverter | None = None
        wait_s = patience_s
        deadline = self._monotonic() + wait_s
        while (ready := self._ready(process, deadline)) is not Ready.WOKEN:
            if ready is Ready.LATE:
                did = "did not open" if converter is None else "sent nothing"
                reason = f"the microphone {did} within {wait_s:g} s; opening it again"
                yield SourceLost(STALLED, reason)
                return
            records = process.read_records()
            if records is None:
                yield SourceLost("ended", "the microphone's stream ended; opening it again")
                return
            for kind, flags, stamp_ns, payload in records:
                if kind == capture.KIND_ERROR:
                    yield lost_by(json.loads(payload))
                    return
                if kind == capture.KIND_OPENED:
                    opened: dict[str, Any] = json.loads(payload)
                    converter = self._converter(opened)
                    yield SourceOpened(opened["device"], opened["rate_hz"], opened["channels"])
                    deadline = self._monotonic() + wait_s
                elif kind == capture.KIND_AUDIO and converter is not None:
                    mono, behind_s = converter.convert(payload)
                    gap = bool(flags & capture.FLAG_OVERFLOW)
                    yield AudioBlock(mono, stamp_ns - int(behind_s * 1e9), gap)
                    wait_s = self._settings.stall_s
                    deadline = self._monotonic() + wait_s

    def _ready(self, process: CaptureProcess, deadline: float) -> Ready:
        """Wait for records, for `close()`, `mute()` or the deadline; take stderr in between."""
        while True:
            now = self._monotonic()
            fds: list[int | Waker] = [process.out_fd, self._waker]
            self.alive()
            wait_s = min(deadline - now, ALIVE_S)
            if process.stderr_from <= now:
                fds.append(process.err_fd)
            else:
                wait_s = min(wait_s, process.stderr_from - now)
            ready, _, _ = select.select(fds, [], [], max(0.0, wait_s))
            if self._waker in ready:
                self._waker.clear()
            if self._closed or self._muted:
                return Ready.WOKEN
            if process.err_fd in ready:
                process.read_stderr(self._monotonic())
            if process.out_fd in ready:
                return Ready.RECORDS
            if self._monotonic() >= deadline:
                return Ready.LATE

    def _converter(self, opened: dict[str, Any]) -> MonoConverter:
        channel = str(self._settings.channel)
        return MonoConverter(opened["rate_hz"], opened["channels"], channel)


def lost_by(report: dict[str, Any]) -> SourceLost:
    """Turn the capture process's error report into an event."""
    mend = f"; {report['mend']}" if report.get("mend") else ""
    return SourceLost(report["kind"], report["message"] + mend)
