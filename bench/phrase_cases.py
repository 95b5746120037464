"""Recordings under conditions, heard openly and as phrases, for `phrase_scores.py`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from calibrate_features import Float, decoded, in_noise, in_room, level, padded, whole

from harkd.audio import RATE_HZ
from harkd.phrases import PhraseGraph
from harkd.recognizer.phrase_scorer import (
    OpenText,
    PhraseRecognizer,
    PhraseScorer,
    PhraseScores,
    PhraseStream,
)
from harkd.recognizer.protocol import Recognizer
from harkd.settings import Settings
from harkd.transcribe import FileSegments

CLEAN, ROOM = "clean", "room"


@dataclass(frozen=True)
class Case:
    """A recording under one condition."""

    path: str
    """In its list"""
    file: Path
    """What is heard"""
    reference: str
    """What is said in it; a kind, for noise"""
    condition: str
    """Clean, room, or how loud the noise is"""
    noise: bool
    """Whether nothing is said in it"""


@dataclass(frozen=True)
class Heard:
    """One segment, and what was found in it; a command is one, however it was cut."""

    case: Case
    scores: PhraseScores
    right: bool
    """Whether the best phrase is what was said: the same intent with the same slots"""
    sayable: bool
    """Whether what was said can be said"""
    open_s: float
    """CPU time of open recognition"""
    phrases_s: float
    """CPU time of the search"""

    @property
    def category(self) -> str:
        """Return the folder that it lies in."""
        return self.case.path.partition("/")[0]

    def matched(self, margin: float, evidence: float) -> bool:
        """Whether the best phrase is a match at these thresholds."""
        best = self.scores.phrases[:1]
        return any(each.margin <= margin and each.evidence >= evidence for each in best)


def cases(speech: Path, noise: Path | None, snrs_db: list[int], *, rooms: bool) -> Iterator[Case]:
    """Yield all recordings as they are, then speech in noise and in rooms, the same in each run.

    Args:
        speech: A list of recordings.
        noise: A list of sounds in which nothing is said; those in the folder ``rir`` are rooms.
        snrs_db: How loud the noise is.
        rooms: Whether to hear speech in rooms, too.
    """
    for path, reference in listed(speech):
        yield Case(path, speech.parent / path, reference, CLEAN, noise=False)
    if noise is None:
        return
    sounds = [path for path, _ in listed(noise)]
    responses = [decoded(noise.parent / path) for path in sounds if path.startswith("rir/")]
    sounds = [path for path in sounds if not path.startswith("rir/")]
    for path in sounds:
        yield Case(path, noise.parent / path, "", CLEAN, noise=True)
    bed = np.concatenate([some_of(decoded(noise.parent / path)) for path in sounds])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "heard.wav"
        for number, (path, reference) in enumerate(listed(speech)):
            said = padded(decoded(speech.parent / path))
            made = {f"{snr} dB": in_noise(said, bed, snr, Path(path).name) for snr in snrs_db}
            if rooms:
                made[ROOM] = in_room(said, responses[number % len(responses)])
            for condition, sound in made.items():
                soundfile.write(file, whole(sound), RATE_HZ)
                yield Case(path, file, reference, condition, noise=False)


def listed(path: Path) -> Iterator[tuple[str, str]]:
    """Yield paths and what is said there, or the kind of noise."""
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, _, reference, *_ = line.split("\t")
        yield name, reference


def some_of(sound: Float) -> Float:
    """Return the first seconds of a sound, as loud as others."""
    return sound[: 10 * RATE_HZ] / level(sound)


class Listening:
    """Hears cases.

    Args:
        recognizer: The loaded model, which must score phrases.
        scorer: The phrases.
        graph: The same, to be asked what they mean.
        live: Ask for a partial first, behind which a streaming model hears in passes.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        scorer: PhraseScorer,
        graph: PhraseGraph,
        *,
        live: bool = False,
    ) -> None:
        if not isinstance(recognizer, PhraseRecognizer):
            raise SystemExit(f"{recognizer.name} is of a family that scores no phrases")
        self._recognizer, self._scorer, self._graph = recognizer, scorer, graph
        self._live = live

    def hear(self, case: Case) -> list[Heard]:
        """Return a case's segments; of a command, the best and what was taken for another."""
        said = None if case.noise else self._graph.match(case.reference)
        wanted = (said.intent, said.slots) if said else None
        found = []
        for segment in FileSegments(case.file, Settings(), self._recognizer.max_segment_s):
            if segment.audio is None:
                continue
            stream = self._recognizer.stream()
            stream.accept(segment.audio)
            if self._live:
                stream.hypothesis()
            start = time.process_time()
            stream.finish()
            between = time.process_time()
            if not isinstance(stream, PhraseStream):
                raise TypeError(f"a stream of {self._recognizer.name} scores no phrases")
            scores = stream.phrases(self._scorer)
            end = time.process_time()
            best = [self._graph.interpret(phrase.arcs) for phrase in scores.phrases[:1]]
            right = bool(wanted) and [(match.intent, match.slots) for match in best] == [wanted]
            found.append(Heard(case, scores, right, bool(said), between - start, end - between))
        if said is None:
            return found
        # Noise around a command may be segments of its own; a command without any is missed.
        nothing = Heard(case, PhraseScores(OpenText("", (), 0.0)), False, True, 0.0, 0.0)
        found.sort(key=lambda each: (not each.right, len(each.scores.phrases) == 0))
        return found[:1] or [nothing]
