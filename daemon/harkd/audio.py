"""Audio as the pipeline takes it: 16 kHz, mono, int16, with the time of its first sample.

In: interleaved PCM of any rate and channel count, from a microphone (`harkd.microphone`), a file
or stdin. Out: what a `FrameSource` yields. Runs on the thread that iterates the source.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soxr
from numpy.typing import NDArray

from harkd.errors import AudioError, AudioFileError

RATE_HZ = 16000
"""The rate that the segmenter and the recognizers work at."""

SOME_ZEROS = bytes(16)
"""Hardly any audio begins with so many, so that hardly any block is looked at as a whole."""

Int16 = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class SourceOpened:
    """A source began to deliver."""

    device: str
    """Its name."""
    rate_hz: int
    """The rate that it delivers."""
    channels: int
    """How many channels it delivers."""
    source: str = ""
    """The sound server's name of it; empty where there is none, or it does not tell."""


@dataclass(frozen=True, slots=True)
class SourceLost:
    """A source stopped delivering what may be listened to, and is tried again.

    Audio that still comes is no more than a sign of life, until the next `SourceOpened`.
    """

    kind: str
    """One word, see docs/mqtt.md: no_device, ambiguous, busy, permission, stalled, all_zero, …"""
    reason: str
    """What happened and how to mend it, for a person."""


@dataclass(frozen=True, slots=True)
class SourceMuted:
    """A source delivers nothing, as it was told; a microphone is closed."""


@dataclass(frozen=True, slots=True)
class AudioBlock:
    """A piece of audio at the device's rate turned to 16 kHz mono."""

    samples: Int16
    """int16, shape (n,), 16 kHz mono; n may be 0 while the resampler fills."""
    captured_ns: int
    """Monotonic time at which the first of these samples was captured."""
    gap: bool = False
    """Samples were lost right before this block."""
    zeros_s: float = 0.0
    """Seconds of nothing but zeros at the device up to this block's end; 0 where it has others."""
    raw: Int16 | None = None
    """What the device gave, int16, shape (m,), where `samples` were processed since."""


SourceEvent = SourceOpened | SourceLost | SourceMuted | AudioBlock


class Waker:
    """Wakes a thread that waits in `select`, from any thread and from a signal handler.

    Its pipe is open for as long as the object lives, so that a late `wake` never writes to a
    closed descriptor, nor to one that has since been given to somebody else.
    """

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)

    def __del__(self) -> None:
        os.close(self._read_fd)
        os.close(self._write_fd)

    def fileno(self) -> int:
        """For `select`: readable from the first `wake` on, until `clear`."""
        return self._read_fd

    def wake(self) -> None:
        """Wake the thread, now and whenever it waits again."""
        os.write(self._write_fd, b"x")

    def clear(self) -> None:
        """Let the thread wait again; it has to look what it was woken for after this."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._read_fd, 1 << 16)


class FrameSource(Protocol):
    """Where audio comes from."""

    lossless: bool
    """True where the source can wait for the reader (a file), False for a microphone."""

    def events(self) -> Iterator[SourceEvent]:
        """Yield until the end of the source or `close()`."""

    def close(self) -> None:
        """Make `events()` return soon. May be called from any thread and from a signal handler."""


class MonoConverter:
    """Interleaved int16 PCM → 16 kHz mono int16, as a stream.

    Args:
        rate_hz: The input's rate.
        channels: The input's channel count.
        channel: ``mix`` for the mean of all, or the number of one channel, from 1.
    """

    def __init__(self, rate_hz: int, channels: int, channel: str = "mix") -> None:
        self.rate_hz = rate_hz
        self._channels = channels
        self._channel = None if channel == "mix" or channels == 1 else int(channel) - 1
        self._stream = (
            None
            if rate_hz == RATE_HZ
            else soxr.ResampleStream(rate_hz, RATE_HZ, 1, dtype="float32", quality="HQ")
        )
        self._taken = 0
        self._given = 0

    def is_zero(self, pcm: bytes) -> bool:
        """Tell whether all samples of a piece are zero in the channels that are used.

        Of the device's own samples: what is quieter than a step at 16 kHz may be a quiet room.
        """
        if self._channel is None:
            return pcm.startswith(SOME_ZEROS) and pcm == bytes(len(pcm))
        frames = np.frombuffer(pcm, "<i2").reshape(-1, self._channels)  # (frames, channels)
        return not frames[:, self._channel].any()

    def seconds(self, pcm: bytes) -> float:
        """Return how long a piece is."""
        return len(pcm) / (2 * self._channels * self.rate_hz)

    def convert(self, pcm: bytes | Int16, *, last: bool = False) -> tuple[Int16, float]:
        """Convert one piece.

        Args:
            pcm: Little-endian int16, interleaved; a whole number of frames.
            last: True flushes what the resampler still holds.

        Returns:
            int16, shape (n,), and by how many seconds its first sample lies before the piece's
            (the resampler keeps some milliseconds back).
        """
        frames = np.frombuffer(pcm, "<i2") if isinstance(pcm, bytes) else pcm
        if self._channels > 1:
            frames = frames.reshape(-1, self._channels)  # (frames, channels)
            if self._channel is None:
                frames = np.rint(frames.mean(axis=1, dtype=np.float32)).astype(np.int16)
            else:
                frames = np.ascontiguousarray(frames[:, self._channel])
        if self._stream is None:
            return frames, 0.0
        behind_s = self._taken / self.rate_hz - self._given / RATE_HZ
        # In float32: soxr dithers int16, and a muted microphone's zeros would not stay zeros.
        smooth = self._stream.resample_chunk(frames.astype(np.float32), last=last)
        mono: Int16 = np.rint(smooth).clip(-32768, 32767).astype(np.int16)
        self._taken += len(frames)
        self._given += len(mono)
        return mono, behind_s


class SampleClock:
    """Tells when a sample was captured, from the stamps of all blocks, not from one.

    A stamp can only be late (a callback that waited for the CPU), so the earliest offset of the
    last `WINDOW_S` seconds is the truest; that window also follows the sound card's drift.
    """

    WINDOW_S = 10
    LATE_MOST_NS = 1_000_000_000

    def __init__(self) -> None:
        self._offsets: deque[tuple[int, int]] = deque()

    def reset(self) -> None:
        """Forget everything: samples were lost, or the source is a new one."""
        self._offsets.clear()

    def update(self, position: int, captured_ns: int) -> None:
        """Learn that the sample at `position` was captured at `captured_ns` or before."""
        offset = captured_ns - position * 1_000_000_000 // RATE_HZ
        if self._offsets and offset - self._offsets[0][1] > self.LATE_MOST_NS:
            self._offsets.clear()  # no callback is that late: the source itself paused
        # The deque rises from left to right, so its left end is the minimum of the window.
        while self._offsets and self._offsets[-1][1] >= offset:
            self._offsets.pop()
        self._offsets.append((position, offset))
        while self._offsets[0][0] < position - self.WINDOW_S * RATE_HZ:
            self._offsets.popleft()

    def at_ns(self, position: int) -> int:
        """Return the monotonic time of a sample. Raises AudioError before the first `update`."""
        if not self._offsets:
            raise AudioError("no audio has been captured yet")
        return self._offsets[0][1] + position * 1_000_000_000 // RATE_HZ


def open_sound_file(path: Path) -> Any:
    """Open wav, flac, ogg or mp3 for reading. Raises AudioFileError."""
    import soundfile

    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise AudioFileError(f"{path} does not exist", "check the path") from error
    except OSError as error:
        raise AudioFileError(
            f"{path} cannot be reached ({error.strerror})", "check the path and its permissions"
        ) from error
    if stat.S_ISDIR(mode):
        raise AudioFileError(f"{path} is a folder", "name an audio file")
    if not os.access(path, os.R_OK):
        raise AudioFileError(f"{path} may not be read", "check its permissions")
    try:
        sound = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: a name that ends in .raw
        raise AudioFileError(
            f"{path} is no audio file that can be read "
            f"({getattr(error, 'error_string', 'it has no header').rstrip('.')})",
            "use wav, flac, ogg or mp3",
        ) from error
    if not sound.frames:
        sound.close()
        raise AudioFileError(f"{path} holds no audio", "check how it was recorded")
    return sound


def read_pieces(sound: Any, piece_s: float) -> Iterator[Int16]:
    """Yield int16 of shape (frames × channels,), interleaved. Raises AudioFileError."""
    import soundfile

    try:
        # As int16, libsndfile would turn all of a float file into zeros.
        while len(
            piece := sound.read(round(sound.samplerate * piece_s), "float32", always_2d=True)
        ):
            scaled = np.rint(np.nan_to_num(piece) * 32768).clip(-32768, 32767)
            yield scaled.astype(np.int16).reshape(-1)  # (frames, channels) → interleaved
    except soundfile.LibsndfileError as error:
        raise AudioFileError(
            f"{sound.name} is damaged after {sound.tell() / sound.samplerate:.1f} s "
            f"({error.error_string})",
            "convert it anew",
        ) from error


def up_to(channels: int) -> str:
    """Say which channels there are."""
    return "1" if channels == 1 else f"1…{channels}"


class FileSource:
    """An audio file in the microphone's place, paced in real time at the file's own rate."""

    lossless = True
    BLOCK_S = 0.03

    def __init__(
        self,
        path: Path,
        channel: str = "mix",
        *,
        paced: bool = True,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._path = path
        self._sound = open_sound_file(path)
        if channel != "mix" and int(channel) > (channels := self._sound.channels):
            self._sound.close()
            raise AudioFileError(
                f"audio.channel is {channel}, but {path} has {channels}",
                f"set audio.channel to {up_to(channels)} or mix",
            )
        self._channel = channel
        self._paced = paced
        self._monotonic_ns = monotonic_ns
        self._closed = threading.Event()

    def events(self) -> Iterator[SourceEvent]:
        """Yield the file's audio at the pace at which a microphone would."""
        sound = self._sound
        with sound:
            yield SourceOpened(self._path.name, sound.samplerate, sound.channels)
            converter = MonoConverter(sound.samplerate, sound.channels, self._channel)
            start_ns, frames = self._monotonic_ns(), 0
            for piece in read_pieces(sound, self.BLOCK_S):
                stamp_ns = start_ns + frames * 1_000_000_000 // sound.samplerate
                frames += len(piece) // sound.channels
                if self._paced:
                    due_ns = start_ns + frames * 1_000_000_000 // sound.samplerate
                    self._closed.wait(max(0, due_ns - self._monotonic_ns()) / 1e9)
                if self._closed.is_set():
                    return
                mono, behind_s = converter.convert(piece)
                yield AudioBlock(mono, stamp_ns - int(behind_s * 1e9))
            tail, behind_s = converter.convert(np.empty(0, np.int16), last=True)
            if len(tail):
                end_ns = start_ns + frames * 1_000_000_000 // sound.samplerate
                yield AudioBlock(tail, end_ns - int(behind_s * 1e9))

    def close(self) -> None:
        """Stop at the next block."""
        self._closed.set()


class StdinSource:
    """Raw little-endian int16 PCM from a pipe, taken as fast as it comes."""

    lossless = True

    def __init__(self, fd: int, rate_hz: int, channels: int, channel: str = "mix") -> None:
        if channel != "mix" and int(channel) > channels:
            raise AudioError(
                f"audio.channel is {channel}, but the input has {channels}",
                f"set audio.channel to {up_to(channels)} or mix, or give --channels",
            )
        self._fd = fd
        self._rate_hz = rate_hz
        self._channels = channels
        self._channel = channel
        self._waker = Waker()

    def events(self) -> Iterator[SourceEvent]:
        """Yield until the pipe ends."""
        yield SourceOpened("stdin", self._rate_hz, self._channels)
        converter = MonoConverter(self._rate_hz, self._channels, self._channel)
        frame_bytes = 2 * self._channels
        pending = b""
        while True:
            readable, _, _ = select.select([self._fd, self._waker.fileno()], [], [])
            if self._waker.fileno() in readable:
                return
            if not (data := os.read(self._fd, self._rate_hz * frame_bytes // 10)):
                break
            pending += data
            whole = len(pending) - len(pending) % frame_bytes
            piece, pending = pending[:whole], pending[whole:]
            length_s = whole / frame_bytes / self._rate_hz
            mono, behind_s = converter.convert(piece)
            yield AudioBlock(mono, time.monotonic_ns() - int((length_s + behind_s) * 1e9))
        tail, behind_s = converter.convert(b"", last=True)
        if len(tail):
            yield AudioBlock(tail, time.monotonic_ns() - int(behind_s * 1e9))

    def close(self) -> None:
        """Stop at once, also while the pipe is silent."""
        self._waker.wake()
