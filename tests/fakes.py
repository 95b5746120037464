"""What stands in for the microphone and the model in unit tests, and audio to feed them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harkd.audio import RATE_HZ, SourceEvent
from harkd.hotword_list import Hotwords
from harkd.recognizer.protocol import EVERYTHING, Effort, Hypothesis, Work
from harkd.segmenter import FRAME_SAMPLES

Int16 = NDArray[np.int16]

LOUD = 1000
"""`is_loud` takes a frame that reaches this for speech."""


def silence(ms: int) -> Int16:
    """Digital silence: int16, shape (n,), 16 kHz."""
    return np.zeros(ms * RATE_HZ // 1000, np.int16)


def speech(ms: int, seed: int = 1, peak: int = 20_000) -> Int16:
    """Noise with the rhythm of syllables, every frame of which webrtcvad takes for speech.

    Unlike itself at every other lag. Returns int16, shape (n,), 16 kHz.
    """
    noise = np.random.default_rng(seed).standard_normal(ms * RATE_HZ // 1000)
    smooth = np.convolve(noise, np.hanning(9), mode="same")
    rhythm = np.sin(np.pi * 4 * np.arange(len(noise)) / RATE_HZ) ** 2 + 0.05
    sound = smooth * rhythm
    return np.asarray(sound / np.abs(sound).max() * peak, np.int16)


def frames_of(pattern: Sequence[bool] | str, seed: int = 1) -> Int16:
    """One 20 ms frame for each mark: `is_loud` for True or ``#``, quieter for False or ``.``.

    The samples are noise, so that a slice of it occurs nowhere else. Returns int16, shape (n,).
    """
    voiced = np.array([mark in (True, "#") for mark in pattern], bool)
    noise = np.random.default_rng(seed).integers(
        -LOUD + 1, LOUD, (len(voiced), FRAME_SAMPLES), np.int16
    )  # (frames, samples)
    noise[voiced, 0] = LOUD
    return noise.reshape(-1)


def is_loud(frame: bytes) -> bool:
    """Judge one frame of `frames_of`, as webrtcvad would."""
    return int(np.frombuffer(frame, np.int16).max()) >= LOUD


def split(audio: Int16, sizes: Iterable[int]) -> list[Int16]:
    """Cut audio into pieces of the given sizes, in turn, and the rest as the last piece."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(audio[at : at + size])
        at += size
    return [*pieces, audio[at:]]


def said(samples: int) -> Hypothesis:
    """A hypothesis that tells how much audio it is over."""
    return Hypothesis(f"{samples} samples", 0.9, tokens=(samples,)) if samples else NOTHING


NOTHING = Hypothesis("", 0.0)


class FakeStream:
    """A stream that records what happens to it."""

    def __init__(self, recognizer: FakeRecognizer) -> None:
        self._recognizer = recognizer
        self.pieces: list[Int16] = []
        self.asked_at: list[int] = []
        """Samples taken before each `hypothesis` and each `prepare`."""
        self.prepared_at: list[int] = []
        """Samples taken before each `prepare`."""
        self.new_in_finish: int | None = None
        """Samples taken since it was last asked when `finish` came; None until then."""
        self.finished = False
        self.restarts = 0

    @property
    def audio(self) -> Int16:
        """All that was fed: int16, shape (n,)."""
        return np.concatenate(self.pieces) if self.pieces else np.empty(0, np.int16)

    @property
    def samples(self) -> int:
        """Length of all that was fed."""
        return sum(map(len, self.pieces))

    def accept(self, samples: Int16) -> None:
        """Take audio."""
        if self.finished:
            raise RuntimeError("audio after finish()")
        self.pieces.append(samples.copy())

    def hypothesis(self) -> Hypothesis:
        """Answer as the recognizer's script says."""
        self.asked_at.append(self.samples)
        return self._recognizer.answer(self)

    def prepare(self) -> Hypothesis:
        """Answer as the recognizer's script says; more audio may follow."""
        self.prepared_at.append(self.samples)
        return self.hypothesis()

    def restart(self) -> None:
        """Forget all audio."""
        self.pieces.clear()
        self.restarts += 1

    def finish(self) -> Hypothesis:
        """Answer as the recognizer's script says, for the last time."""
        self.new_in_finish = self.samples - (self.asked_at[-1] if self.asked_at else 0)
        self.finished = True
        return self._recognizer.answer(self)


@dataclass
class FakeRecognizer:
    """A recognizer whose answers are scripted."""

    script: Callable[[int], Hypothesis] = said
    """Samples → the hypothesis; may raise RecognitionError."""
    gate: threading.Event | None = None
    """Each answer waits for it, where there is one."""
    name: str = "fake"
    language: str = "en"
    provider: str = "cpu"
    max_segment_s: float = 30.0
    streams: list[FakeStream] = field(default_factory=list)
    hotwords: list[Hotwords] = field(default_factory=list)
    """Of each stream."""
    waiting: threading.Event = field(default_factory=threading.Event)
    """Set once an answer has been asked for."""
    work: Work = field(default_factory=Work)
    """One encoder pass over all its audio for each answer of a stream."""
    effort: Effort = EVERYTHING

    def stream(self, hotwords: Hotwords = ()) -> FakeStream:
        """Begin a segment."""
        self.hotwords.append(hotwords)
        self.streams.append(FakeStream(self))
        return self.streams[-1]

    def rest(self) -> None:
        """Nothing to give back."""

    def answer(self, stream: FakeStream) -> Hypothesis:
        """What the script says of a stream."""
        self.waiting.set()
        if self.gate and not self.gate.wait(10):
            raise RuntimeError("the test did not open the gate")
        self.work.add(Work(encoder_passes=1, encoded_s=stream.samples / RATE_HZ))
        return self.script(stream.samples)


Step = SourceEvent | Callable[[], object] | Exception


class ScriptedSource:
    """A `FrameSource` that plays a script.

    Args:
        script: Events to yield; functions, which are called in between; exceptions, to raise.
        lossless: Whether it can wait, as a file can.
        after_each: Called when the listening thread is done with an event and comes for the next.
    """

    def __init__(
        self,
        script: Iterable[Step],
        *,
        lossless: bool = False,
        after_each: Callable[[], object] = lambda: None,
    ) -> None:
        self._script = list(script)
        self._closed = threading.Event()
        self.lossless = lossless
        self.after_each = after_each

    def then(self, *steps: Step) -> None:
        """Add to the end of the script."""
        self._script.extend(steps)

    def events(self) -> Iterator[SourceEvent]:
        """Play the script until its end or `close()`."""
        for step in self._script:
            if self._closed.is_set():
                return
            if isinstance(step, Exception):
                raise step
            if callable(step):
                step()
            else:
                yield step
                self.after_each()

    def close(self) -> None:
        """Stop before the next step."""
        self._closed.set()
