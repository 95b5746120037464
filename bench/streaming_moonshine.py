"""What live recognition costs by the utterance's length: a streaming Moonshine and others.

    .venv/bin/python bench/streaming_moonshine.py LIST MODEL MODEL… [--category libri_en]
        [--seconds 5 10 20 30] [--audio 120] [--repeat 3] [--plan 8:8 …]

MODEL is the name of an installed model or a package's folder; the first is what the others are held
against. `--plan` runs each package of the family moonshine-streaming with other plans instead of
its own. The recordings of one category are joined, and the same audio is cut into utterances of
each length, all of which is taken for speech: each is one segment, with a partial every 0.5 s
(`partial_share` is 0), whatever it costs. The subjects take turns on each utterance, in virtual
time: audio positions are those of live audio in which recognition takes no time. What the
recognizer took for the partials, for what it prepared in the pause, and for the final is measured
apart, in CPU seconds, and so is what each graph of a lean or streaming package took.

A word is shown late by the audio from when the first subject showed it to when the other did: the
median over the words on which their finals agree.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from harkd.audio import RATE_HZ, Int16
from harkd.bench_live import SpokenSamples
from harkd.bench_measure import read_samples
from harkd.bench_report import table
from harkd.events import Event, Final, Partial
from harkd.model_package import Limits, Manifest
from harkd.model_store import store_of
from harkd.recognizer.factory import load_recognizer
from harkd.recognizer.protocol import Recognizer, Work
from harkd.settings import EndpointSettings, RecognizerSettings, Settings
from harkd.speech_list import read_list
from harkd.virtual_time import run_in_virtual_time

LONGEST_S = 34.0
SETTINGS = Settings(
    endpoint=EndpointSettings(max_utterance_s=LONGEST_S),
    recognizer=RecognizerSettings(partial_share=0.0, min_confidence=0.0),
)
TAIL = np.zeros(RATE_HZ * 11 // 10, np.int16)
ASKED = ("hypothesis", "prepare", "finish")
GRAPHS = {
    "stem": ("encoder", "stem"),
    "encoder": ("encoder", "session"),
    "decoder": ("decoder", "session"),
}
"""Where a lean model keeps its graphs' sessions."""


@dataclass(slots=True)
class Turn:
    """One subject on one utterance."""

    cpu_s: float
    """All of it, segmentation included"""
    spent_s: dict[str, list[float]]
    """CPU seconds of each call of the recognizer, and of each graph"""
    work: Work
    """What was computed"""
    shown: dict[int, tuple[str, int]]
    """Each word of the final by its place, and the position at which it was first shown"""
    partials: int
    """How many there were"""
    endpoint_ms: float | None
    """Audio from the last speech to the final; None where it was rejected"""


@dataclass(slots=True)
class Watched:
    """A recognizer whose calls are timed.

    Args:
        name: For the report.
        recognizer: The loaded model.
    """

    name: str
    recognizer: Recognizer
    spent_s: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        begin = self.recognizer.stream
        setattr(self.recognizer, "stream", lambda *words: WatchedStream(begin(*words), self))  # noqa: B010
        getattr(self.recognizer, "spare", []).clear()  # what was made with the sessions as they are
        for part, (owner, name) in GRAPHS.items():
            if hasattr(holder := getattr(self.recognizer, owner, None), name):
                setattr(holder, name, WatchedSession(getattr(holder, name), part, self))

    def hear(self, audio: Int16) -> Turn:
        """Run it from its begin to its end."""
        self.spent_s = {name: [] for name in (*ASKED, *GRAPHS)}
        texts: list[tuple[int, Event]] = []
        before, begin_s = self.recognizer.work.snapshot(), time.process_time()
        run_in_virtual_time(
            SpokenSamples(np.concatenate([audio, TAIL])),
            self.recognizer,
            SETTINGS,
            lambda event, position: texts.append((position, event)),
            is_speech=any,
        )
        cpu_s = time.process_time() - begin_s
        finals = [(at, event) for at, event in texts if isinstance(event, Final)]
        position, final = finals[0] if finals else (0, None)
        return Turn(
            cpu_s,
            self.spent_s,
            self.recognizer.work.since(before),
            first_shown(texts, final.text) if final else {},
            sum(isinstance(event, Partial) for _, event in texts),
            position * 1000 / RATE_HZ - final.speech_end_ns / 1e6 if final else None,
        )


class WatchedStream:
    """A stream whose calls are timed."""

    def __init__(self, stream: Any, watched: Watched) -> None:
        self._stream, self._watched = stream, watched

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._stream, name)
        return timed(asked, name, self._watched) if name in ASKED else asked


class WatchedSession:
    """A graph whose runs are timed."""

    def __init__(self, session: Any, part: str, watched: Watched) -> None:
        self._session, self._part, self._watched = session, part, watched

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._session, name)
        return timed(asked, self._part, self._watched) if name.startswith("run") else asked


def timed(asked: Callable[..., Any], name: str, watched: Watched) -> Callable[..., Any]:
    """Return a call that adds its CPU seconds to what was spent under a name."""

    def measured(*words: Any) -> Any:
        begin_s = time.process_time()
        answer = asked(*words)
        watched.spent_s[name].append(time.process_time() - begin_s)
        return answer

    return measured


def first_shown(texts: list[tuple[int, Event]], final: str) -> dict[int, tuple[str, int]]:
    """Return each word of the final, and when a text first had it in its place."""
    wanted, shown = words_of(final), dict[int, tuple[str, int]]()
    for position, event in texts:
        if isinstance(event, Partial | Final):
            for place, word in enumerate(words_of(event.text)[: len(wanted)]):
                if word == wanted[place]:
                    shown.setdefault(place, (word, position))
    return shown


def words_of(text: str) -> list[str]:
    """Return its words, without case and punctuation."""
    return re.findall(r"[\w']+", text.casefold())


def subjects(models: list[str], plans: list[str]) -> Iterator[Watched]:
    """Load each model, with each of the plans where it has one."""
    store = store_of(Settings())
    for name in models:
        found = store.locate(name)
        manifest = msgspec.structs.replace(found.manifest, limits=Limits(max_segment_s=LONGEST_S))
        for plan in plans if manifest.streaming and plans else [""]:
            planned = with_plan(manifest, plan)
            title = f"{manifest.name} {plan}".strip()
            yield Watched(title, load_recognizer(found.dir, planned, threads=1))


def with_plan(manifest: Manifest, plan: str) -> Manifest:
    """Return a manifest with a plan such as 8:8, or 8:8:166:64: left context, first frames."""
    if not plan or manifest.streaming is None:
        return manifest
    names = list(msgspec.structs.asdict(manifest.streaming))
    numbers = dict(zip(names, map(int, plan.split(":")), strict=False))
    streaming = msgspec.structs.replace(manifest.streaming, **numbers)
    return msgspec.structs.replace(manifest, streaming=streaming)


def utterances(path: Path, category: str, seconds: int, audio_s: int) -> list[Int16]:
    """Join the recordings of a category, and cut them: no sample is 0, which is silence here."""
    most = max(1, audio_s // seconds)
    wanted = [each for each in read_list(path) if not category or each.category == category]
    pieces, size = list[Int16](), 0
    for each in wanted:
        pieces.append(read_samples(each.path))
        size += len(pieces[-1])
        if size >= most * seconds * RATE_HZ:
            break
    joined = np.concatenate(pieces)
    joined[joined == 0] = 1
    count = min(most, len(joined) // (seconds * RATE_HZ))
    return list(joined[: count * seconds * RATE_HZ].reshape(count, -1))


def row(name: str, seconds: int, turns: list[list[Turn]], first: list[list[Turn]]) -> list[str]:
    """Return a line of the table: turns by utterance, then by round."""
    audio_s = seconds * len(turns)

    def median_sum(value: Callable[[Turn], float], of: list[list[Turn]] = turns) -> float:
        return sum(statistics.median(map(value, each)) for each in of)

    cpu_s = median_sum(lambda turn: turn.cpu_s)
    calls = [median_sum(lambda turn, n=each: sum(turn.spent_s[n])) for each in ASKED]  # type: ignore[misc]
    updates = sum(len(each[0].spent_s["hypothesis"]) for each in turns)
    parts = [median_sum(lambda turn, n=each: sum(turn.spent_s[n])) for each in GRAPHS]  # type: ignore[misc]
    parts.append(cpu_s - sum(parts))
    work = [each[0].work for each in turns]
    late = [
        (own[1] - other[1]) * 1000 / RATE_HZ
        for each, its in zip(turns, first, strict=True)
        for place, own in each[0].shown.items()
        if (other := its[0].shown.get(place)) and other[0] == own[0]
    ]
    ended = [at_ms for each in turns if (at_ms := each[0].endpoint_ms) is not None]
    return [
        str(seconds),
        name,
        f"{1000 * cpu_s / audio_s:.1f}",
        f"{cpu_s / median_sum(lambda turn: turn.cpu_s, first):.2f}",
        *(f"{1000 * each / audio_s:.1f}" for each in parts),
        f"{1000 * calls[0] / max(1, updates):.1f}",
        f"{1000 * calls[1] / len(turns):.1f}",
        f"{1000 * calls[2] / len(turns):.1f}",
        f"{sum(each.encoder_passes for each in work) / audio_s:.2f}",
        f"{sum(each.encoded_s for each in work) / audio_s:.2f}",
        f"{sum(each.decoder_passes for each in work) / audio_s:.2f}",
        f"{sum(each.decoder_rows for each in work) / audio_s:.1f}",
        f"{sum(each[0].partials for each in turns) / len(turns):.1f}",
        f"{statistics.fmean(ended):.0f}" if ended else "–",
        f"{statistics.median(late):+.0f}" if late else "–",
    ]


HEADER = [
    "s",
    "model",
    "CPU ms per s",
    "of the first",
    *GRAPHS,
    "other",
    "ms a partial",
    "ms prepared",
    "ms a final",
    "encoder passes per s",
    "encoded, s per s",
    "decoder passes per s",
    "rows per s",
    "partials",
    "speech → final, ms",
    "words later, ms",
]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("list", type=Path)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--category", default="libri_en")
    parser.add_argument("--seconds", type=int, nargs="+", default=[5, 10, 20, 30])
    parser.add_argument("--audio", type=int, default=120, help="seconds, cut to each length")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--plan", nargs="+", default=[], metavar="CHUNK:LOOK_AHEAD[:LEFT[:FIRST]]")
    words = parser.parse_args()
    watched = list(subjects(words.models, words.plan))
    order = random.Random(1)  # noqa: S311 - it chooses who comes first
    rows = [HEADER]
    for seconds in words.seconds:
        spoken = utterances(words.list, words.category, seconds, words.audio)
        turns: list[list[list[Turn]]] = [[[] for _ in spoken] for _ in watched]
        for _ in range(words.repeat):
            for number, audio in enumerate(spoken):
                for at in order.sample(range(len(watched)), len(watched)):
                    turns[at][number].append(watched[at].hear(audio))
        rows += [
            row(each.name, seconds, its, turns[0]) for each, its in zip(watched, turns, strict=True)
        ]
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
