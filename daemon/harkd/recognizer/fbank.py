"""Log mel features as Kaldi computes them, while audio comes.

In: int16 audio in pieces of any length. Out: frames of 10 ms. A frame depends on nothing but its
own window, so those after the last one that is complete can be computed beside the stream, over
silence that is thought of, and audio may still follow. Runs on the thread that uses the stream.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import kaldi_native_fbank
import numpy as np
from numpy.typing import NDArray

from harkd.audio import RATE_HZ

SHIFT_SAMPLES = 160
WINDOW_SAMPLES = 400
LEAD_SAMPLES = (WINDOW_SAMPLES - SHIFT_SAMPLES) // 2
"""Where a window is centred on its 10 ms, the first one begins so far before the audio."""
FRAME_S = SHIFT_SAMPLES / RATE_HZ

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """What a model was trained on. The defaults are those of sherpa-onnx's features.h."""

    bins: int = 80
    """Mel bins"""
    scale: float = 1 / 32768
    """A sample is multiplied by this"""
    low_hz: float = 20.0
    """The lowest bin's lower edge"""
    high_hz: float = -400.0
    """The highest bin's upper edge; below 0 counted from the Nyquist frequency"""
    window: str = "povey"
    """Kaldi's name of the window"""
    remove_offset: bool = True
    """Subtract a window's mean"""
    librosa: bool = False
    """librosa's mel scale"""

    def extractor(self, *, whole: bool = False) -> Any:
        """Return an extractor whose frame i begins with sample 160 · i of what it is given.

        Or, for a whole utterance, is centred on its 10 ms, with the edges mirrored.
        """
        options = kaldi_native_fbank.FbankOptions()
        options.frame_opts.samp_freq = RATE_HZ
        options.frame_opts.dither = 0
        options.frame_opts.snip_edges = not whole
        options.frame_opts.window_type = self.window
        options.frame_opts.remove_dc_offset = self.remove_offset
        options.mel_opts.num_bins = self.bins
        options.mel_opts.low_freq = self.low_hz
        options.mel_opts.high_freq = self.high_hz
        options.mel_opts.is_librosa = self.librosa
        return kaldi_native_fbank.OnlineFbank(options)

    def frames(self, audio: Float32) -> Float32:
        """Return all frames of scaled audio, float32, (n,): float32, shape (frames, bins)."""
        extractor = self.extractor()
        extractor.accept_waveform(RATE_HZ, audio.tolist())
        return np.stack([extractor.get_frame(i) for i in range(extractor.num_frames_ready)])

    @functools.cache  # noqa: B019 - there are as many settings as models
    def silence(self) -> Float32:
        """Return the frame of silence: float32, shape (bins,)."""
        silence: Float32 = self.frames(np.zeros(WINDOW_SAMPLES, np.float32))[0]
        return silence


class Fbank:
    """The frames of one segment.

    Args:
        settings: How they are computed.
    """

    def __init__(self, settings: FeatureSettings) -> None:
        self._settings = settings
        self._extractor = settings.extractor()
        self._unsure: Float32 = np.empty(0, np.float32)
        """What is heard so far of the first `LEAD_SAMPLES`, which come mirrored before them."""
        self._begun = False
        self._open: Float32 = np.empty(0, np.float32)
        """Scaled audio from where the first frame begins that is not complete."""
        self._taken = 0
        """Frames that the extractor has forgotten."""
        self.samples = 0
        """All that was heard."""
        self.ready = 0
        """Frames that are complete, from the segment's first."""

    @property
    def begun(self) -> int:
        """Frames that hold any audio at their centre: complete or not."""
        return -(-self.samples // SHIFT_SAMPLES)

    def accept(self, samples: NDArray[np.int16]) -> None:
        """Take the next audio: int16, shape (n,)."""
        self.samples += len(samples)
        scaled = samples.astype(np.float32) * np.float32(self._settings.scale)
        if not self._begun:
            scaled = self._unsure = np.concatenate([self._unsure, scaled])
            if len(scaled) < LEAD_SAMPLES:
                return
            scaled, self._begun = mirrored(scaled), True
        # A list goes in faster than an array, each of whose elements becomes an object anyway.
        self._extractor.accept_waveform(RATE_HZ, scaled.tolist())
        before, self.ready = self.ready, int(self._extractor.num_frames_ready)
        kept = np.concatenate([self._open, scaled])
        self._open = kept[(self.ready - before) * SHIFT_SAMPLES :]

    def take(self, first: int, count: int, out: Float32) -> None:
        """Write complete frames, and forget what lies before them.

        Args:
            first: The first frame; never less than before.
            count: How many.
            out: float32, shape (count, bins).
        """
        self._extractor.pop(first - self._taken)
        self._taken = first
        for i in range(count):
            out[i] = self._extractor.get_frame(first + i)

    def followed_by_silence(self, first: int, count: int) -> Float32:
        """Return frames as if silence followed what was heard: float32, shape (count, bins).

        Args:
            first: The first frame; not before the last one that was taken.
            count: How many.
        """
        settings, frames = self._settings, np.empty((count, self._settings.bins), np.float32)
        complete = min(max(0, self.ready - first), count)
        for i in range(complete):
            frames[i] = self._extractor.get_frame(first + i)
        heard = self._open if self._begun else mirrored(np.pad(self._unsure, (0, LEAD_SAMPLES)))
        heard = heard[max(0, first - self.ready) * SHIFT_SAMPLES :]
        ending = min(-(-len(heard) // SHIFT_SAMPLES), count - complete)
        if ending > 0:
            needed = (ending - 1) * SHIFT_SAMPLES + WINDOW_SAMPLES
            computed = settings.frames(np.pad(heard[:needed], (0, max(0, needed - len(heard)))))
            frames[complete : complete + ending] = computed
        frames[complete + ending :] = settings.silence()
        return frames


def mirrored(audio: Float32) -> Float32:
    """Return audio with its first `LEAD_SAMPLES` mirrored before it, as Kaldi does at an edge."""
    return np.concatenate([audio[:LEAD_SAMPLES][::-1], audio])
