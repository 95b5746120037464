"""Keeps a microphone open for ever: starts, watches and replaces the capture process.

In: the `audio` settings. Out: `SourceOpened`, `AudioBlock`, `SourceLost` and `SourceMuted` events,
on the thread that iterates. A capture process that sends nothing for `stall_s`, or ends, is killed
and replaced after a growing, jittered wait; blocks are what counts, not exit codes. One that finds
no device waits for a change and ends then, which cuts that wait short. Where nothing but zeros
come, or the sound server has us hear something else, that is a loss, too. Muted, none runs.
"""

from __future__ import annotations

import json
import logging
import math
import random
import select
import time
from collections.abc import Callable, Iterator
from enum import Enum, auto

from harkd import all_zero, capture
from harkd.all_zero import ZeroSpell
from harkd.audio import (
    AudioBlock,
    SourceEvent,
    SourceLost,
    SourceMuted,
    Waker,
)
from harkd.capture_errors import ABSENT
from harkd.capture_process import CaptureProcess
from harkd.capture_stream import Stream, lost_by
from harkd.following import Following
from harkd.settings import AudioSettings

log = logging.getLogger(__name__)

FIRST_BLOCK_S, FIRST_BLOCK_MOST_S = 5.0, 20.0
"""How long a capture process may take to its first block, and after how many failures at most."""
STEADY_S = 10.0
"""A microphone that delivered for so long resets the wait before the next start."""
STALLED = "stalled"
BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.25, 3.0
ALIVE_S = 2.0
"""So often life is shown while nothing comes."""


class Ready(Enum):
    """Why a wait for the capture process ended."""

    RECORDS = auto()
    WOKEN = auto()
    LATE = auto()


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
        self._zeros = ZeroSpell(settings.zeros_s)
        self._following = Following(settings.device, settings.follow)
        self._told_zero: SourceLost | None = None
        self._replacing = False
        self._waiting: CaptureProcess | None = None
        self.starts = 0
        """How many capture processes were started."""
        self.pid = 0
        """Process id of the capture process; 0 while none runs."""
        self.alive: Callable[[], None] = lambda: None
        """Called at least every `ALIVE_S` on the thread that iterates."""

    def events(self) -> Iterator[SourceEvent]:
        """Yield for ever, until `close()`."""
        try:
            yield from self._events()
        finally:
            self._end_waiting()

    def _events(self) -> Iterator[SourceEvent]:
        backoff_s, patience_s = BACKOFF_FIRST_S, FIRST_BLOCK_S
        interrupted = False
        while not self._closed:
            if self._muted or interrupted:
                interrupted = False
                self._zeros.reset()
                yield SourceMuted()
                while self._muted and not self._closed:
                    self._wait(None)
                backoff_s, patience_s = BACKOFF_FIRST_S, FIRST_BLOCK_S
                continue
            begin, heard, lost = self._monotonic(), False, None
            self._replacing = False
            for event in self._one_process(patience_s):
                if isinstance(event, SourceLost) and event.kind != all_zero.KIND:
                    lost = event
                    break
                heard = heard or isinstance(event, AudioBlock)
                yield event
            if lost is None:
                interrupted = not self._replacing
                continue
            self._zeros.reset()
            yield self._following.reword(lost)
            if heard:
                patience_s = FIRST_BLOCK_S
                if self._monotonic() - begin > STEADY_S:
                    backoff_s = BACKOFF_FIRST_S
            elif lost.kind == STALLED:
                # A cold, slow machine may need longer than this to open anything.
                patience_s = min(patience_s * 2, FIRST_BLOCK_MOST_S)
            changed = self._wait(backoff_s * self._jitter())
            backoff_s = BACKOFF_FIRST_S if changed else min(backoff_s * 2, BACKOFF_MOST_S)

    def _one_process(self, patience_s: float) -> Iterator[SourceEvent]:
        """Start a capture process, yield what it delivers, and end it."""
        self._end_waiting()
        self.starts += 1
        known = {"no_monitor": self._following.no_monitor, "server": self._following.server}
        try:
            process = CaptureProcess(
                self._settings,
                self._command,
                stay=True,
                **{name: value for name, value in known.items() if value},
            )
        except OSError as error:  # no memory, no process or no file descriptor left
            yield SourceLost("unknown", f"the capture process does not start ({error})")
            return
        self.pid = process.pid
        lost: SourceLost | None = None
        try:
            for event in self._run(process, patience_s):
                if isinstance(event, SourceLost) and event.kind != all_zero.KIND:
                    lost = event
                    break
                yield event
        finally:
            self.pid = 0
            if self._waiting is not process:
                end_process(process)
        if lost:
            yield lost

    def _end_waiting(self) -> None:
        if self._waiting:
            end_process(self._waiting)
            self._waiting = None

    def close(self) -> None:
        """Make `events()` return; the capture process is killed."""
        self._closed = True
        self._waker.wake()

    def mute(self, on: bool) -> None:
        """Close the microphone, or open it again. Any thread; a `SourceMuted` tells when it is."""
        self._muted = on
        self._waker.wake()

    def _wait(self, seconds: float | None) -> bool:
        """Wait, for ever where it is None, or until `close()` or `mute()`.

        True where it ended early because what was missing may be there now.
        """
        if self._closed:
            return False
        fds: list[int | Waker] = [self._waker]
        if self._waiting:
            fds.append(self._waiting.out_fd)
        left_s = math.inf if seconds is None else seconds
        woken: list[int | Waker] = []
        while left_s > 0 and not woken:
            self.alive()
            woken, _, _ = select.select(fds, [], [], min(left_s, ALIVE_S))
            left_s -= ALIVE_S
        changed = bool(woken) and self._waker not in woken
        self._end_waiting()
        if changed:
            # Most things need a moment to be there as a whole.
            woken, _, _ = select.select([self._waker], [], [], BACKOFF_FIRST_S)
        if self._waker in woken:
            self._waker.clear()
        return changed

    def _run(self, process: CaptureProcess, patience_s: float) -> Iterator[SourceEvent]:
        """Yield what one capture process delivers; the last event is its loss."""
        stream: Stream | None = None
        wait_s = patience_s
        deadline = self._monotonic() + wait_s
        while (ready := self._ready(process, deadline)) is not Ready.WOKEN:
            if ready is Ready.LATE:
                did = "did not open" if stream is None else "sent nothing"
                reason = f"the microphone {did} within {wait_s:g} s; opening it again"
                yield SourceLost(STALLED, reason)
                return
            records = process.read_records()
            if records is None:
                yield SourceLost("ended", "the microphone's stream ended; opening it again")
                return
            for kind, flags, stamp_ns, payload in records:
                if kind == capture.KIND_ERROR:
                    yield self._refused(process, payload)
                    return
                if kind == capture.KIND_AUDIO and stream:
                    if change := self._watch_zeros(stream, payload):
                        yield change
                    yield stream.block(flags, stamp_ns, payload, self._zeros.seconds)
                    wait_s = self._settings.stall_s
                else:
                    stream = self._described(stream, kind, payload)
                    if change := self._place(stream):
                        yield change
                deadline = self._monotonic() + wait_s
            if self._zeros.told and self._is_worth_replacing(stream):
                return

    def _described(self, stream: Stream | None, kind: int, payload: bytes) -> Stream:
        """Return the stream with what an OPENED or a SOURCE record says."""
        if kind == capture.KIND_SOURCE and stream:
            stream.report = json.loads(payload)
            return stream
        return Stream(json.loads(payload), str(self._settings.channel))

    def _refused(self, process: CaptureProcess, payload: bytes) -> SourceLost:
        """Return why a process cannot open anything; it may be kept, to tell when it can."""
        lost = lost_by(json.loads(payload))
        if lost.kind in ABSENT:
            self._waiting = process  # it has nothing open, and ends on a change
        return lost

    def _is_worth_replacing(self, stream: Stream | None) -> bool:
        """Tell whether opening the input anew may help against zeros now."""
        if not stream or not self._zeros.replace_now() or all_zero.is_explained(stream.report):
            return False
        log.debug("all is zero: opening the microphone anew")
        self._replacing = True
        return True

    def _place(self, stream: Stream) -> SourceEvent | None:
        """Return what the place that a stream has now means; None where it is as it was."""
        if lost := self._following.judge(stream.wanted, stream.report):
            return lost
        if self._zeros.told:
            if (zero := stream.all_zero) == self._told_zero:
                return None
            self._told_zero = zero  # somebody muted it meanwhile, say
            return zero
        if (opened := stream.opened) == stream.told:
            return None
        stream.told = opened
        return opened

    def _watch_zeros(self, stream: Stream, payload: bytes) -> SourceEvent | None:
        """Return what it means that a block is all zero, or not any more."""
        zeros = self._zeros
        zero = stream.converter.is_zero(payload)
        if not zero and not zeros.seconds:
            return None
        was_told = zeros.told
        zeros.add(stream.converter.seconds(payload), zero=zero)
        if zeros.told == was_told:
            return None
        if zeros.told:
            self._told_zero = stream.all_zero
            return self._told_zero
        stream.told = stream.opened
        return stream.told

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


def end_process(process: CaptureProcess) -> None:
    """Kill a capture process; its last words are for debugging."""
    code = process.kill()
    log.debug("capture process ended with %s: %s", code, process.last_words())
