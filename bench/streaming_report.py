"""What `streaming_daemon.py` tells: figures of what a daemon published, and the texts.

In: what became of each recording, and what was heard without a daemon. Out: a `Report`, and lines
for people. Pure.
"""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from streaming_compared import Compared, Equal  # noqa: E402

from harkd.bench_measure import Spread, spread_of  # noqa: E402
from harkd.bench_words import WordErrors, count_errors, load_normalizer  # noqa: E402
from speech import plain  # noqa: E402 - the tests compare in the same way


@dataclass(slots=True)
class Utterance:
    """What became of one recording."""

    path: str
    """Its name."""
    said: str
    """What is said in it."""
    finals: list[dict[str, Any]] = field(default_factory=list)
    """Payloads of `transcript`, in order."""
    rejected: list[str] = field(default_factory=list)
    """Reasons of `transcript/rejected`."""
    partials: dict[str, list[str]] = field(default_factory=dict)
    """Texts of `transcript/partial`, in order, by segment."""

    @property
    def text(self) -> str:
        """What was heard."""
        return " ".join(final["text"] for final in self.finals)


@dataclass(frozen=True, slots=True)
class Report:
    """All figures."""

    machine: str
    """Where."""
    model: str
    """Its name."""
    recordings: int
    """All of them."""
    finals_each: dict[int, int]
    """Recordings by their number of finals."""
    rejected: dict[str, int]
    """Segments without text, by reason."""
    plain: WordErrors
    """Lower case, no punctuation."""
    whisper: WordErrors | None
    """After Whisper's normalizer; None where it is not installed."""
    partials_per_final: float
    """On average."""
    partials_again: int
    """Partials that are not the first of their final."""
    grown: int
    """Those of them that begin with the one before, and are longer."""
    finals_kept: int
    """Finals that begin with their last partial."""
    finals_with_partials: int
    """Those that had one."""
    latency_ms: Spread | None
    """From the end of speech to the final's hand-over: `latency_ms` of the finals."""
    against: dict[str, Equal] = field(default_factory=dict)
    """How often sherpa-onnx hears what harkd hears: in files, and in segments."""
    as_in_file: int = 0
    """Recordings of which the daemon's text is that of the file as it is."""
    as_segmented: int = 0
    """Recordings of which it is that of the file between silence, after the same segmenter."""


def report_of(
    machine: str, model: str, utterances: list[Utterance], compared: Compared | None
) -> Report:
    """Count."""
    said, heard = [each.said for each in utterances], [each.text for each in utterances]
    normalizer = load_normalizer("en")
    finals = [(final, each) for each in utterances for final in each.finals]
    shown = [(final["text"], each.partials.get(final["id"], [])) for final, each in finals]
    pairs = [pair for _, texts in shown for pair in pairwise(texts)]
    return Report(
        machine=machine,
        model=model,
        recordings=len(utterances),
        finals_each=dict(sorted(Counter(len(each.finals) for each in utterances).items())),
        rejected=dict(Counter(reason for each in utterances for reason in each.rejected)),
        plain=count_errors(said, heard, plain),
        whisper=count_errors(said, heard, normalizer) if normalizer else None,
        partials_per_final=statistics.mean([len(texts) for _, texts in shown] or [0]),
        partials_again=len(pairs),
        grown=sum(len(new) > len(old) and new.startswith(old) for old, new in pairs),
        finals_kept=sum(bool(texts) and text.startswith(texts[-1]) for text, texts in shown),
        finals_with_partials=sum(bool(texts) for _, texts in shown),
        latency_ms=spread_of([final["latency_ms"] for final, _ in finals]),
        against=against_of(compared) if compared else {},
        as_in_file=sum(map(str.__eq__, heard, compared.texts)) if compared else 0,
        as_segmented=sum(map(str.__eq__, heard, compared.segmented)) if compared else 0,
    )


def against_of(compared: Compared) -> dict[str, Equal]:
    """Return how often peers heard the same, with what they heard."""
    found = {f"{name}, files": each for name, each in compared.equal.items()}
    if compared.segments:
        found[f"{next(iter(compared.equal))}, segments"] = compared.segments
    return found


def lines_of(report: Report) -> list[str]:
    """Return the report for people."""
    each = ", ".join(f"{count} with {finals}" for finals, count in report.finals_each.items())
    lines = [
        report.machine,
        f"{report.model}: {report.recordings} recordings through PulseAudio and MQTT",
        f"finals: {each}; rejected: {report.rejected or 'none'}",
        *(
            f"word errors, {name}: {e.percent} % of {e.words} words ({e.substitutions} "
            f"substitutions, {e.deletions} deletions, {e.insertions} insertions)"
            for name, e in (("plain", report.plain), ("whisper", report.whisper))
            if e
        ),
        f"partials for each final: {report.partials_per_final:.1f}; of {report.partials_again} "
        f"that are not the first, {report.grown} have grown",
        f"finals that begin with their last partial: {report.finals_kept} of "
        f"{report.finals_with_partials}",
    ]
    if ms := report.latency_ms:
        lines.append(
            f"end of speech to final: {ms.p50:.0f} ms median, {ms.p95:.0f} ms p95, "
            f"{ms.most:.0f} ms at most"
        )
    lines += [
        f"harkd and {name}: {count.texts} of {count.recordings} texts equal, "
        f"{count.tokens} token sequences"
        for name, count in report.against.items()
    ]
    if report.against:
        lines.append(
            f"the daemon's text is that of the file: {report.as_in_file}; that of the file "
            f"between silence, through its segmenter: {report.as_segmented}"
        )
    return lines


def listing(utterances: list[Utterance], compared: Compared | None) -> list[str]:
    """Return each recording with its texts."""
    lines = []
    for number, each in enumerate(utterances):
        same = "=" if plain(each.said) == plain(each.text) else "≠"
        lines += [f"{same} {each.path}", f"    said   {each.said}", f"    heard  {each.text}"]
        if compared and compared.texts[number] != each.text:
            lines.append(f"    file   {compared.texts[number]}")
        if compared and compared.segmented[number] not in (each.text, compared.texts[number]):
            lines.append(f"    cut    {compared.segmented[number]}")
        for name, texts in (compared.said if compared else {}).items():
            if compared and texts[number] != compared.texts[number]:
                lines.append(f"    {name}: {texts[number]}")
        lines += [f"    rejected: {reason}" for reason in each.rejected]
    return lines
