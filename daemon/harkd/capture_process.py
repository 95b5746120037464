"""One running capture process, `harkd.capture`, as its parent sees it: two pipes and a kill.

In: the `audio` settings and what the process should know. Out: its records. Runs on the thread that
calls; nothing here waits but `kill`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from collections import deque
from typing import Any

from harkd import capture
from harkd.settings import AudioSettings

log = logging.getLogger(__name__)

KILL_S = 2.0
PIPE_BYTES = 1 << 20
JOINED_MOST = 4
"""So many blocks that are there together are one to whoever reads: each costs, however short."""
STDERR_LINES = 10
STDERR_CHARACTERS = 500
STDERR_PACE_S = 0.05


class CaptureProcess:
    """One running capture process and the two pipes from it.

    Args:
        settings: The `audio` section.
        command: The capture program, for tests.
        known: What else the process should know, see `harkd.capture`.
    """

    def __init__(
        self, settings: AudioSettings, command: list[str] | None = None, **known: Any
    ) -> None:
        request = {
            "device": settings.device,
            "channel": str(settings.channel),
            "latency_ms": settings.latency_ms,
            "block_ms": settings.block_ms,
            **known,
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
        """Read what is there: (kind, flags, stamp_ns, payload) each; None at the pipe's end.

        Audio that follows without a loss is joined, up to `JOINED_MOST` blocks.
        """
        data = os.read(self.out_fd, 1 << 16)
        if not data:
            return None
        self._buffer += data
        records: list[tuple[int, int, int, bytes]] = []
        joined = 0
        while len(self._buffer) >= capture.HEADER.size:
            magic, kind, flags, _, length, stamp_ns = capture.HEADER.unpack_from(self._buffer)
            if magic != capture.MAGIC:
                log.error("the capture process sent something that is no record; replacing it")
                return None
            end = capture.HEADER.size + length
            if len(self._buffer) < end:
                break
            payload = bytes(self._buffer[capture.HEADER.size : end])
            del self._buffer[:end]
            if kind == capture.KIND_AUDIO and not flags and 0 < joined < JOINED_MOST:
                _, first_flags, first_ns, before = records[-1]
                records[-1] = kind, first_flags, first_ns, before + payload
                joined += 1
            else:
                records.append((kind, flags, stamp_ns, payload))
                joined = int(kind == capture.KIND_AUDIO)
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
