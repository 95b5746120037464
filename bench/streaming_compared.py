"""What harkd and sherpa-onnx hear in the same audio: files, and the daemon's segments of them.

In: the subjects of `streaming_subjects` and recordings. Out: texts, and how often they are equal.
Nothing is timed. Runs on the calling thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from streaming_subjects import LONG_TAIL_S, Harkd, SherpaOnnx

from harkd.audio import RATE_HZ, Int16
from harkd.bench_live import SpokenSamples
from harkd.hotword_list import Hotwords
from harkd.recognizer.protocol import Hypothesis, Recognizer, Stream
from harkd.settings import Settings
from harkd.virtual_time import run_in_virtual_time


class Overheard:
    """A stream of harkd's whose audio is kept.

    Args:
        stream: That stream.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._audio: list[Int16] = []
        self.text = ""
        """The final one, or the last before it."""

    @property
    def audio(self) -> Int16:
        """All that it heard."""
        return np.concatenate(self._audio) if self._audio else np.empty(0, np.int16)

    def accept(self, samples: Int16) -> None:
        """Take the next audio."""
        self._audio.append(samples.copy())
        self._stream.accept(samples)

    def hypothesis(self) -> Hypothesis:
        """Return the text so far."""
        return self._told(self._stream.hypothesis())

    def prepare(self) -> Hypothesis:
        """Return what might be the final text."""
        return self._told(self._stream.prepare())

    def finish(self) -> Hypothesis:
        """Return the final text."""
        return self._told(self._stream.finish())

    def restart(self) -> None:
        """Forget all audio."""
        self._audio.clear()
        self._stream.restart()

    def _told(self, found: Hypothesis) -> Hypothesis:
        self.text = found.text
        return found


class Overhearing:
    """A recognizer of harkd's that keeps its streams.

    Args:
        model: That recognizer.
    """

    def __init__(self, model: Recognizer) -> None:
        self._model = model
        self.name, self.language, self.provider = model.name, model.language, model.provider
        self.max_segment_s, self.work = model.max_segment_s, model.work
        self.effort = model.effort
        self.streams: list[Overheard] = []
        """All of them, in order."""

    def stream(self, hotwords: Hotwords = ()) -> Stream:
        """Begin a segment."""
        self.streams.append(Overheard(self._model.stream(hotwords)))
        return self.streams[-1]

    def rest(self) -> None:
        """Give back memory."""
        self._model.rest()


def segments_of(model: Recognizer, samples: Int16) -> list[Overheard]:
    """Let the daemon's segmenter cut a recording, with silence around it; in virtual time."""
    overhearing = Overhearing(model)
    silence = np.zeros(int(LONG_TAIL_S * RATE_HZ), np.int16)
    source = SpokenSamples(np.concatenate([silence, samples, silence]))
    run_in_virtual_time(source, overhearing, Settings(), lambda _event, _position: None)
    return overhearing.streams


@dataclass(frozen=True, slots=True)
class Equal:
    """How often a peer heard what harkd heard."""

    recordings: int
    """All of them; or all segments."""
    texts: int
    """Those with the same text."""
    tokens: int
    """Those with the same tokens."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What was heard without a daemon."""

    texts: list[str]
    """harkd's, of the files."""
    equal: dict[str, Equal]
    """By peer."""
    said: dict[str, list[str]]
    """Each peer's texts of the files."""
    segmented: list[str] = field(default_factory=list)
    """harkd's texts of the segments, by recording."""
    segments: Equal | None = None
    """How often the first peer heard the same in a segment."""


def compare(harkd: Harkd, peers: Sequence[SherpaOnnx], audios: Sequence[Int16]) -> Compared:
    """Let all hear the files, as they are; nothing is timed."""
    texts: list[str] = []
    said: dict[str, list[str]] = {peer.name: [] for peer in peers}
    equal = {peer.name: [0, 0] for peer in peers}
    for audio in audios:
        text = harkd.hear(audio).text
        texts.append(text)
        for peer in peers:
            heard = peer.hear(audio).text
            said[peer.name].append(heard)
            equal[peer.name][0] += heard == text
            equal[peer.name][1] += peer.tokens == harkd.tokens
    counts = {name: Equal(len(audios), *each) for name, each in equal.items()}
    return Compared(texts, counts, said)


def compare_segments(
    harkd: Harkd, peers: Sequence[SherpaOnnx], audios: Sequence[Int16]
) -> Compared:
    """Let all hear the files, and the first peer besides what the daemon's segmenter cuts of them.

    Of a segment, harkd's text is that of the stream, with its partials and pauses; the tokens are
    those of the segment's audio, heard once more.
    """
    found = [segments_of(harkd.model, audio) for audio in audios]
    texts = tokens = 0
    segments = [segment for each in found for segment in each]
    for segment in segments:
        texts += peers[0].hear(segment.audio).text == segment.text
        harkd.hear(segment.audio)
        tokens += peers[0].tokens == harkd.tokens
    return replace(
        compare(harkd, peers, audios),
        segmented=[" ".join(segment.text for segment in each if segment.text) for each in found],
        segments=Equal(len(segments), texts, tokens),
    )
