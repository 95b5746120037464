"""High-pass, noise suppression and automatic gain before speech is looked for: all off by default.

In: what a source yields. Out: the same, with processed audio, each sample at the time and the place
of the one that it comes from. Runs on the thread that iterates. The only module that knows the
library, WebRTC's audio processing (pywebrtc-audio), which is loaded where something is on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np

from harkd.audio import RATE_HZ, AudioBlock, Int16, SourceEvent, SourceOpened
from harkd.errors import SettingsError
from harkd.settings import AudioSettings

FRAME_SAMPLES: Final = 160
"""The library takes 10 ms at a time, and fills up what is shorter with zeros."""
SUPPRESSION_DELAY_SAMPLES: Final = 96
"""By so much the noise suppression is late; found by cross-correlation, and held by a test."""
SIGNAL_OPTIONS: Final = ("high_pass", "noise_suppression", "auto_gain_db")

NOTHING: Final = np.empty(0, np.int16)

Stage = Callable[[Iterator[SourceEvent]], Iterator[SourceEvent]]


def wanted(audio: AudioSettings) -> list[str]:
    """Return the names of the options that are on."""
    return [f"audio.{name}" for name in SIGNAL_OPTIONS if getattr(audio, name)]


def signal_stage(audio: AudioSettings) -> Stage:
    """Return what a source's events go through; the events themselves where nothing is on.

    Raises:
        SettingsError: Something is on, and the library is not there.
    """
    return SignalProcessor(audio).events if wanted(audio) else _unchanged


class SignalProcessor:
    """Processes a source's audio.

    Args:
        audio: `high_pass`, `noise_suppression` and `auto_gain_db` are used; one is on.

    Raises:
        SettingsError: The library is not there.
    """

    def __init__(self, audio: AudioSettings) -> None:
        self._chain = _load(audio)
        self._delay = SUPPRESSION_DELAY_SAMPLES if audio.noise_suppression else 0
        self._begin()

    def events(self, events: Iterator[SourceEvent]) -> Iterator[SourceEvent]:
        """Yield what comes in, processed.

        What the library still holds comes before any break: a gap, a loss, muting, the end. A newly
        opened source begins with nothing learnt; a gap in one keeps what was learnt.
        """
        for event in events:
            if isinstance(event, AudioBlock) and not event.gap:
                yield self._processed(event)
                continue
            yield from self._rest()
            if isinstance(event, AudioBlock):
                yield self._processed(event)
                continue
            if isinstance(event, SourceOpened):
                self._chain.reset()
            yield event
        yield from self._rest()

    def _begin(self) -> None:
        """The next sample in is the first that comes out."""
        self._waiting: Int16 = NOTHING  # less than a frame
        self._skip = self._delay  # samples to come out that belong to nothing
        self._taken = self._given = 0
        self._anchor = (0, 0)  # a sample's number since the break, and when it was captured

    def _processed(self, block: AudioBlock) -> AudioBlock:
        self._anchor = (self._taken, block.captured_ns)
        self._taken += len(block.samples)
        held = np.concatenate([self._waiting, block.samples])
        whole = len(held) - len(held) % FRAME_SAMPLES
        self._waiting = held[whole:]
        out = self._out(held[:whole])
        return replace(block, samples=out.samples, captured_ns=out.captured_ns, raw=block.samples)

    def _rest(self) -> Iterator[AudioBlock]:
        """Yield what has gone in since the last break and not come out yet."""
        owed = self._taken - self._given
        if owed:
            padding = -(len(self._waiting) + self._delay) % FRAME_SAMPLES + self._delay
            padded = np.concatenate([self._waiting, np.zeros(padding, np.int16)])
            last = self._out(padded)
            yield AudioBlock(last.samples[:owed], last.captured_ns, raw=NOTHING)
        self._begin()

    def _out(self, frames: Int16) -> AudioBlock:
        """Run whole frames through the library: int16, shape (n × FRAME_SAMPLES,)."""
        processed: Int16 = self._chain.process(frames) if len(frames) else frames
        samples = processed[self._skip :]
        self._skip -= len(processed) - len(samples)
        number, captured_ns = self._anchor
        stamp_ns = captured_ns + (self._given - number) * 1_000_000_000 // RATE_HZ
        self._given += len(samples)
        return AudioBlock(samples, stamp_ns)


def _unchanged(events: Iterator[SourceEvent]) -> Iterator[SourceEvent]:
    return events


def _load(audio: AudioSettings) -> Any:
    """Return the library's processor. Raises SettingsError."""
    try:
        from pywebrtc_audio import AudioProcessor
    except ImportError as error:
        names = wanted(audio)
        raise SettingsError(
            f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} on, and the library for it "
            f"cannot be loaded ({error})",
            "pip install 'harkd[signal]', or turn it off",
        ) from error
    return AudioProcessor(
        sample_rate=RATE_HZ,
        high_pass_filter=audio.high_pass,
        noise_suppression=audio.noise_suppression > 0,
        ns_level=max(0, audio.noise_suppression - 1),
        auto_gain_control=audio.auto_gain_db > 0,
        agc_max_gain_db=float(audio.auto_gain_db),
    )
