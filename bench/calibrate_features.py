"""What calibration looks at: each segment of speech and of noise, and what was made of it.

In: lists of recordings. Out: `Case` values, as lines of JSON in a file; what is in the file already
is not computed again. Segments are cut by the daemon's own segmenter; each goes through Silero VAD
and the recognizer, whatever they say of it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harkd.audio import RATE_HZ, AudioBlock, Int16
from harkd.recognizer.protocol import Recognizer
from harkd.recognizer.silero import Silero
from harkd.segmenter import Segmenter, SpeechEnded, SpeechStarted, within
from harkd.settings import Settings
from harkd.transcribe import QuickFileSource

Float = NDArray[np.float64]
AROUND_S = 1.0
"""So much silence, or noise, is put before and after a recording of speech."""


@dataclass(frozen=True)
class Piece:
    """One segment, and what was made of it."""

    start_s: float
    """From the start of the stream to the first sample of the audio"""
    audio_s: float
    """Length of its audio"""
    voiced_ms: int
    """What webrtcvad took for speech"""
    probabilities: list[float]
    """Silero's, of each 32 ms"""
    text: str
    """What was recognized"""
    log_probs: list[float]
    """Of its tokens, and of the end"""
    tokens: int
    """How many"""
    looped: bool
    """Whether the decoder ran into a loop"""


@dataclass(frozen=True)
class Case:
    """One recording under one condition."""

    kind: str
    """speech or noise"""
    category: str
    """Folder of the recording"""
    recording: str
    """Its file"""
    condition: str
    """What was done to it"""
    seconds: float
    """Of the stream"""
    reference: str
    """What is said in it; empty for noise"""
    pieces: list[Piece] = field(default_factory=list)
    """Its segments"""


def decoded(path: Path) -> Float:
    """Return a file at 16 kHz, first channel: float64, shape (n,), in steps of int16."""
    events = QuickFileSource(path, "0", paced=False).events()
    blocks = [event.samples for event in events if isinstance(event, AudioBlock)]
    return np.concatenate(blocks).astype(np.float64)


def level(samples: Float) -> float:
    """Return the root mean square of what is not digital silence."""
    sounding = samples[samples != 0]
    return float(np.sqrt(np.mean(sounding**2))) if len(sounding) else 0.0


def whole(samples: Float) -> Int16:
    """Return samples as a sound card delivers them."""
    rounded: Int16 = np.rint(samples).clip(-32768, 32767).astype(np.int16)
    return rounded


def seed_of(name: str) -> int:
    """Return a number that is the same for the same name in every run."""
    return zlib.crc32(name.encode())


def in_room(samples: Float, response: Float) -> Float:
    """Return the sound as it arrives in a room, as loud as before: float64, shape (n + m - 1,)."""
    from scipy.signal import fftconvolve

    heard: Float = fftconvolve(samples, response / np.sqrt(np.sum(response**2)))
    before, after = level(samples), level(heard)
    return heard * (before / after) if after else heard


def in_noise(samples: Float, noise: Float, snr_db: float, name: str) -> Float:
    """Return speech with noise under it: another part of the noise for each name."""
    begin = seed_of(name) % len(noise)
    under = np.resize(np.roll(noise, -begin), len(samples))
    if not (loudness := level(under)):
        return samples
    return samples + under * (level(samples) * 10 ** (-snr_db / 20) / loudness)


def padded(samples: Float) -> Float:
    """Return a recording with silence around it."""
    return np.pad(samples, int(AROUND_S * RATE_HZ))


def pink(seconds: float, name: str) -> Float:
    """Return noise like that of a silent room: −3 dB per octave, root mean square 1."""
    random = np.random.default_rng(seed_of(name))
    count = int(seconds * RATE_HZ)
    spectrum = np.fft.rfft(random.standard_normal(count))
    shape = 1 / np.sqrt(np.maximum(np.arange(len(spectrum)), 20 * seconds))
    sound: Float = np.fft.irfft(spectrum * shape, count)
    return sound / level(sound)


class Features:
    """Computes cases, and keeps them in a file.

    Args:
        path: The file; lines are added.
        recognizer: The loaded model.
        silero: The loaded network.
        settings: `vad` and `endpoint` are used.
        only: Conditions that are computed; all if empty.
    """

    def __init__(
        self,
        path: Path,
        recognizer: Recognizer,
        silero: Silero,
        settings: Settings,
        only: Collection[str] = (),
    ) -> None:
        self._only = only
        self._path = path
        self._recognizer, self._silero = recognizer, silero
        self._vad = settings.vad
        self._endpoint = within(settings.endpoint, recognizer.max_segment_s)
        self._known = {key(case) for case in read(path)} if path.exists() else set()

    def add(
        self, kind: str, recording: Path, condition: str, reference: str, make: Callable[[], Float]
    ) -> None:
        """Add one case, unless it is there; `make` returns its stream."""
        folder = recording.parent.name
        case = Case(kind, folder, recording.name, condition, 0.0, reference)
        if key(case) in self._known or (self._only and condition not in self._only):
            return
        stream = whole(make())
        pieces = list(self._pieces(stream))
        found = Case(
            kind, folder, recording.name, condition, len(stream) / RATE_HZ, reference, pieces
        )
        with self._path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(asdict(found), ensure_ascii=False) + "\n")

    def _pieces(self, stream: Int16) -> Iterator[Piece]:
        segmenter = Segmenter(self._vad, self._endpoint)
        begin = 0
        for event in [*segmenter.push(stream), *segmenter.flush()]:
            if isinstance(event, SpeechStarted):
                begin = event.audio_start
            elif isinstance(event, SpeechEnded):
                yield self._piece(stream[begin : event.audio_end], begin, event.voiced_ms)

    def _piece(self, audio: Int16, begin: int, voiced_ms: int) -> Piece:
        probabilities = self._silero.stream().accept(audio)
        stream = self._recognizer.stream()
        stream.accept(audio)
        heard = stream.finish()
        return Piece(
            start_s=begin / RATE_HZ,
            audio_s=len(audio) / RATE_HZ,
            voiced_ms=voiced_ms,
            probabilities=[round(each, 4) for each in probabilities],
            text=heard.text,
            log_probs=[round(each, 4) for each in heard.log_probs],
            tokens=len(heard.tokens),
            looped=heard.looped,
        )


def key(case: Case) -> tuple[str, str, str]:
    """Return what names a case."""
    return case.category, case.recording, case.condition


def read(path: Path) -> Iterator[Case]:
    """Yield the cases of a file."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            fields = json.loads(line)
            pieces = [Piece(**piece) for piece in fields.pop("pieces")]
            yield Case(**fields, pieces=pieces)
