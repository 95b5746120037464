"""The child process around PortAudio: ``python -m harkd.capture JSON``.

In: one JSON object on the command line (device, channel, latency_ms, block_ms; where the parent
knows more, `no_monitor`, `server`, `stay`, see `Capture` and `main`), and stdin, whose end means
"stop". Out: records on stdout (see `HEADER`), first OPENED or ERROR, then AUDIO, and SOURCE where
the sound server has us hear another source, or that one's volume changes.

It is a process of its own because PortAudio must be killable: when an ALSA device vanishes,
PortAudio 19.6 stays in a C loop that no call ends and that floods stderr
(https://github.com/PortAudio/portaudio/issues/1037), and a stopped PulseAudio hangs every call.
So it imports nothing heavy (no numpy, no onnxruntime) and keeps nothing worth saving.

Threads: PortAudio's callback copies, stamps and queues a block; the main thread writes the pipe;
a third waits for the end of stdin, a fourth for the sound server (`harkd.sound_server`).
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from harkd.capture_choice import choose_device, formats_to_try, is_monitor
from harkd.capture_errors import (
    ABSENT,
    NO_MICROPHONE_LEFT,
    CaptureError,
    explain,
    explain_absence,
)
from harkd.sound_server import OwnRecording, fingerprint, mark_own, wait_for_change

HEADER = struct.Struct("<4sBBHIq")
"""Record header: MAGIC, kind, flags, 0, payload bytes, stamp (CLOCK_MONOTONIC, nanoseconds)."""
MAGIC = b"hkd1"
KIND_OPENED, KIND_AUDIO, KIND_ERROR, KIND_SOURCE = 1, 2, 3, 4
FLAG_OVERFLOW = 1
"""Samples were lost before this block, in the driver or because the pipe was full."""

QUEUE_BLOCKS = 400
AT_ONCE_S = 0.002
"""Blocks that come within so long were handed over at once."""
PULSE_S = 3.0
"""How long a sound server may take to list its sources."""
NAMED_S = 0.5
"""How long OPENED waits for the source's real name; audio waits meanwhile, and is not lost."""


Block = tuple[bytes, int, int] | dict[str, Any]
"""Audio with its flags and stamp, or what the sound server says."""


def import_portaudio() -> Any:
    """Import sounddevice, which loads and initializes PortAudio."""
    try:
        import sounddevice
    except (OSError, ImportError) as error:
        raise CaptureError(
            "no_portaudio",
            f"PortAudio cannot be loaded ({error})",
            "install it: sudo apt install libportaudio2 libasound2-plugins",
        ) from error
    except Exception as error:
        raise CaptureError("unknown", f"PortAudio does not start ({error})") from error
    return sounddevice


def input_devices(sd: Any) -> list[dict[str, Any]]:
    """PortAudio's devices that have inputs: index, name, host API, channels, default rate."""
    apis = [api["name"] for api in sd.query_hostapis()]
    return [
        {
            "index": index,
            "name": device["name"],
            "host_api": apis[device["hostapi"]],
            "max_channels": device["max_input_channels"],
            "default_rate_hz": round(device["default_samplerate"]),
        }
        for index, device in enumerate(sd.query_devices())
        if device["max_input_channels"] > 0
    ]


def pulse_sources() -> list[dict[str, Any]]:
    """PulseAudio's (or pipewire-pulse's) sources; empty where no server answers in time.

    In a thread of its own, which a server that hangs keeps for ever. pulsectl has a timeout for
    connecting, but its loop then always takes that long (24.12, `_pulse_poll`: entering
    `_pulse_loop` resets `_loop_stop`), and none for the questions after it.
    """
    found: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: found.extend(ask_pulse()), daemon=True)
    thread.start()
    thread.join(PULSE_S)
    return found.copy()


def ask_pulse() -> list[dict[str, Any]]:
    """Ask the sound server for its sources; may hang with it."""
    try:
        import pulsectl
    except (ImportError, OSError):  # no libpulse on this machine
        return []
    try:
        with pulsectl.Pulse("harkd", connect=False) as pulse:
            pulse.connect(autospawn=False)
            default = pulse.server_info().default_source_name
            return [
                {
                    "name": source.name,
                    "description": source.description,
                    "rate_hz": source.sample_spec.rate,
                    "channels": source.sample_spec.channels,
                    "muted": bool(source.mute),
                    "volume": round(source.volume.value_flat, 3),
                    "monitor": is_monitor(source.name),
                    "default": source.name == default,
                }
                for source in pulse.source_list()
            ]
    except pulsectl.PulseError:
        return []


def open_first(
    sd: Any, index: int, name: str, tries: Sequence[tuple[int, int]], **options: Any
) -> tuple[Any, int, int]:
    """Open the first (rate, channels) that the device takes.

    Args:
        sd: The sounddevice module.
        index: PortAudio's index of the device.
        name: Its name, for messages.
        tries: (rate_hz, channels) in order.
        options: `block_ms`, `latency_ms`, `make_callback` (rate, channels → callback), `finished`.

    Returns:
        The stream (not started), its rate in Hz and its channel count.
    """
    first: CaptureError | None = None
    for rate_hz, channels in tries:
        try:
            stream = sd.RawInputStream(
                device=index,
                samplerate=rate_hz,
                channels=channels,
                dtype="int16",
                blocksize=max(1, rate_hz * options["block_ms"] // 1000),
                latency=options["latency_ms"] / 1000,
                callback=options["make_callback"](rate_hz, channels),
                finished_callback=options["finished"],
            )
        except sd.PortAudioError as error:
            explained = explain(error, name)
            if explained.report["kind"] != "unknown":
                raise explained from error
            first = first or explained
            continue
        return stream, rate_hz, channels
    tried = ", ".join(f"{rate} Hz × {count}" for rate, count in tries)
    raise CaptureError(
        "unsupported",
        f'"{name}" opens in none of the formats {tried}',
        "`harkd devices` shows what it opens",
    ) from first


def write_all(fd: int, data: bytes) -> None:
    """Write to a pipe whose reader may be slow."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def record_of(block: Block) -> bytes:
    """Return what the pipe gets of a block, or of what the sound server says."""
    if isinstance(block, dict):
        return record(KIND_SOURCE, json.dumps(block).encode())
    data, flags, stamp_ns = block
    return record(KIND_AUDIO, data, flags=flags, stamp_ns=stamp_ns)


def record(kind: int, payload: bytes, *, flags: int = 0, stamp_ns: int = 0) -> bytes:
    """Return a record."""
    return HEADER.pack(MAGIC, kind, flags, 0, len(payload), stamp_ns) + payload


def send(fd: int, kind: int, payload: bytes, *, flags: int = 0, stamp_ns: int = 0) -> None:
    """Write one record."""
    write_all(fd, record(kind, payload, flags=flags, stamp_ns=stamp_ns))


class Capture:
    """One open stream, from PortAudio's callback to the pipe."""

    def __init__(self, fd: int, request: dict[str, Any]) -> None:
        self._fd = fd
        self._request = request
        self._blocks: queue.SimpleQueue[Block | None] = queue.SimpleQueue()
        self._lost = False
        self._token = f"{os.getpid()}-{time.monotonic_ns()}"
        self.before = fingerprint(os.environ)
        """The sound system before it was asked for devices."""
        self.known: set[str] | None = None
        """Names of the sound server's sources; None while it was not asked."""

    def _sources(self) -> list[dict[str, Any]]:
        sources = pulse_sources()
        self.known = {source["name"] for source in sources}
        return sources

    def _choose(self, sd: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Find device and source; with `no_monitor`, refuse what a loudspeaker plays."""
        wanted = str(self._request["device"])
        try:
            found = choose_device(wanted, input_devices(sd), self._sources, sd.default.device[0])
        except CaptureError as error:
            server = bool(self._request.get("server"))
            raise explain_absence(error, wanted, server=server) from error
        if self._request.get("no_monitor"):
            self._refuse_monitor(wanted, found[1])
        return found

    def _refuse_monitor(self, wanted: str, source: dict[str, Any] | None) -> None:
        if source is None:
            sources = self._sources()
            if sources and all(source["monitor"] for source in sources):
                raise CaptureError("no_device", NO_MICROPHONE_LEFT, "plug one in")
        elif is_monitor(source["name"]) and source["name"] != wanted:
            raise CaptureError(
                "no_such_device",
                f'the microphone that audio.device "{wanted}" means is gone; "{source["name"]}" is '
                "what a loudspeaker plays",
                "plug it in, or set audio.device to another (`harkd devices`)",
            )

    def run(self) -> None:
        """Open, send blocks until the stream ends. Raises CaptureError where it cannot start."""
        mark_own(os.environ, self._token)
        sd = import_portaudio()
        device, source = self._choose(sd)
        if source:
            # The ALSA plugin reads it when it connects, which is when the stream is opened.
            os.environ["PULSE_SOURCE"] = source["name"]
        name = source["name"] if source else device["name"]
        stream, rate_hz, channels = open_first(
            sd,
            device["index"],
            name,
            formats_to_try(device, source, str(self._request["channel"])),
            block_ms=self._request["block_ms"],
            latency_ms=self._request["latency_ms"],
            make_callback=self._callback,
            finished=lambda: self._blocks.put(None),
        )
        opened = {"device": name, "rate_hz": rate_hz, "channels": channels}
        opened["latency_ms"] = round(stream.latency * 1000)
        try:
            stream.start()
        except sd.PortAudioError as error:
            raise explain(error, name) from error
        if source:
            opened["wanted"] = source["name"]
        if "(hw:" not in device["name"]:  # a bare card has no server behind it
            report = OwnRecording(self._token, self._blocks.put).start(NAMED_S)
            opened |= {"source": report} if report else {}
        send(self._fd, KIND_OPENED, json.dumps(opened).encode())
        for blocks in self._gathered():
            write_all(self._fd, b"".join(map(record_of, blocks)))

    def _gathered(self) -> Iterator[list[Block]]:
        """Yield what was queued, until the stream ends.

        A sound server hands over several blocks at a time (PulseAudio: 100 ms of them). To wait for
        the others saves a wake-up here and one in the parent for each, half of what silence costs.
        """
        at_once = False
        came_s = 0.0
        while (block := self._blocks.get()) is not None:
            before_s, came_s = came_s, time.monotonic()
            at_once = at_once or came_s - before_s < AT_ONCE_S
            if at_once:
                time.sleep(AT_ONCE_S)
            blocks = [block]
            with contextlib.suppress(queue.Empty):
                while (block := self._blocks.get_nowait()) is not None:
                    blocks.append(block)
            at_once = len(blocks) > 1
            yield blocks
            if block is None:
                return

    def _callback(self, rate_hz: int, channels: int) -> Callable[..., None]:
        del channels

        def on_block(data: Any, frames: int, times: Any, status: Any) -> None:
            now_ns = time.monotonic_ns()
            lag_s = times.currentTime - times.inputBufferAdcTime
            if not 0.0 <= lag_s <= 1.0:  # drivers without time stamps give zeros or nonsense
                lag_s = frames / rate_hz
            if self._blocks.qsize() >= QUEUE_BLOCKS:
                self._lost = True
                return
            flags = FLAG_OVERFLOW if status.input_overflow or self._lost else 0
            self._lost = False
            self._blocks.put((bytes(data), flags, now_ns - int(lag_s * 1e9)))

        return on_block


def exit_with_parent() -> None:
    """End this process when stdin ends: the parent closed it, or is gone."""
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    # Closing the stream may hang for good (see above): the kernel closes the device.
    os._exit(0)


def main(argv: Sequence[str]) -> int:
    """Run one capture; the parent reads the records. Exit codes: 0 asked to stop, 75 ended.

    With `stay` in the request, a process that found no device ends only when there may be one: that
    is how the parent learns of it.
    """
    # Ctrl-C and `systemctl stop` reach this process, too; the parent decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    out = os.dup(1)
    os.dup2(2, 1)  # nothing that prints may get between the records
    threading.Thread(target=exit_with_parent, daemon=True, name="parent").start()
    request = json.loads(argv[0])
    capture = Capture(out, request)
    try:
        capture.run()
    except BrokenPipeError:
        return 0
    except CaptureError as error:
        send(out, KIND_ERROR, json.dumps(error.report).encode())
        if request.get("stay") and error.report["kind"] in ABSENT:
            wait_for_change(capture.known, capture.before)
        return 1
    except MemoryError as error:  # of cffi, where a service may not write and execute memory
        mend = "if a unit sets MemoryDenyWriteExecute=, take it out"
        report = CaptureError("unknown", f"PortAudio does not start ({error})", mend).report
        send(out, KIND_ERROR, json.dumps(report).encode())
        return 1
    return 75


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # no atexit: sounddevice would call Pa_Terminate, which may hang
