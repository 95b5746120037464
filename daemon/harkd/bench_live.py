"""Each recording as if it were being spoken: segmenter, partials and endpoints, in virtual time.

The same audio gives the same events and the same counts in every run, on every machine with the
same arithmetic. Runs on the calling thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from harkd.audio import RATE_HZ, AudioBlock, Int16, SourceEvent, SourceOpened
from harkd.bench_measure import Heard, require_success
from harkd.events import Event, Final, Partial, Rejected
from harkd.recognizer.protocol import Recognizer, Work
from harkd.second_look import SecondLook
from harkd.settings import EndpointSettings, Settings
from harkd.virtual_time import run_in_virtual_time

MARGIN_S = 0.5


def tail_s(endpoint: EndpointSettings) -> float:
    """Return the seconds of silence after a recording that end its last utterance in any case."""
    longest_ms = endpoint.silence_ms
    if endpoint.adaptive:
        longest_ms = max(longest_ms, endpoint.max_silence_ms)
    return longest_ms / 1000 + MARGIN_S


class Live:
    """A subject of `bench_measure`.

    Args:
        name: For the report.
        recognizer: The loaded model.
        settings: All settings; those that `run_in_virtual_time` uses are used.
        tail_s: Seconds of silence that are added to a recording.
        second_look: Hears whether there is a voice, where `vad.second_look` is on.
    """

    def __init__(
        self,
        name: str,
        recognizer: Recognizer,
        settings: Settings,
        tail_s: float = 0.0,
        second_look: SecondLook | None = None,
    ) -> None:
        self._second_look = second_look
        self.name = name
        self._recognizer = recognizer
        self._settings = settings
        self._tail = np.zeros(int(tail_s * RATE_HZ), np.int16)

    def prepare(self) -> None:
        """Nothing to do."""

    def hear(self, samples: Int16) -> Heard:
        """Run it from its begin to its end."""
        before = self._recognizer.work.snapshot()
        course = Course()
        run_in_virtual_time(
            SpokenSamples(np.concatenate([samples, self._tail])),
            self._recognizer,
            self._settings,
            course.follow,
            second_look=self._second_look,
        )
        return course.heard(self._recognizer.work.since(before))


class SpokenSamples:
    """A `FrameSource` of audio that is at hand.

    Args:
        samples: int16, shape (n,), 16 kHz mono.
    """

    lossless = True

    def __init__(self, samples: Int16) -> None:
        self._samples = samples

    def events(self) -> Iterator[SourceEvent]:
        """Yield it in one block."""
        yield SourceOpened("recording", RATE_HZ, 1)
        yield AudioBlock(self._samples, 0)

    def close(self) -> None:
        """Nothing to stop: the one block is out."""


class Course:
    """Counts what events tell."""

    def __init__(self) -> None:
        self._partials = 0
        self._rejected = 0
        self._finals: list[str] = []
        self._endpoint_ms: list[float] = []
        self._shown = Shown()

    def follow(self, event: Event, position: int) -> None:
        """Take an event, and the samples that had been heard by then."""
        match event:
            case Partial():
                self._partials += 1
                self._shown.show(event.id, event.text)
            case Final():
                self._finals.append(event.text)
                self._shown.show(event.id, event.text)
                heard_ms = position * 1000 / RATE_HZ
                self._endpoint_ms.append(round(heard_ms - event.speech_end_ns / 1e6, 1))
            case Rejected():
                require_success(event)
                self._rejected += 1

    def heard(self, work: Work) -> Heard:
        """Return all that was counted, with what was computed for it."""
        return Heard(
            text=" ".join(self._finals),
            work=work,
            partials=self._partials,
            rewrites=self._shown.rewrites,
            words_taken_back=self._shown.words_taken_back,
            finals=len(self._finals),
            rejected=self._rejected,
            endpoint_ms=tuple(self._endpoint_ms),
        )


class Shown:
    """What a reader has seen of each utterance, and how often it was taken back.

    A word is taken back where a later text of the utterance has not the same word in its place.
    Neither case nor punctuation counts.
    """

    def __init__(self) -> None:
        self._words: dict[object, list[str]] = {}
        self.rewrites = 0
        """Texts that took words back."""
        self.words_taken_back = 0
        """Those words, up to the text's end: all after the first that differs."""

    def show(self, ident: object, text: str) -> None:
        """Show the next text of an utterance."""
        words = re.findall(r"[\w']+", text.casefold())
        before = self._words.get(ident, [])
        pairs = enumerate(zip(before, words, strict=False))
        kept = next((at for at, (a, b) in pairs if a != b), min(len(before), len(words)))
        self.words_taken_back += len(before) - kept
        self.rewrites += kept < len(before)
        self._words[ident] = words
