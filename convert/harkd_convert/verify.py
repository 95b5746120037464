"""Compares a package with its source on recorded speech: hidden states, tokens, words, and cost.

In: a package, the source in one of its published forms, and a list of recordings. Out: `Verified`.
The source runs in PyTorch, in float32; published `.ort` files also run step by step in harkd's own
recognizer, and are then what word errors are held against. Runs on the caller's thread.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from harkd.bench_measure import BenchError
from harkd.bench_memory import measure
from harkd.bench_words import MISSING, Normalizer, WordErrors, count_errors, load_normalizer
from harkd.errors import ModelDamagedError
from harkd.memory_need import MEASURED_KEY
from harkd.model_package import (
    MANIFEST_NAME,
    Manifest,
    load_manifest,
    sha256_of,
    verify_files,
    write_manifest,
)
from harkd.speech_list import read_list, spread
from harkd_convert.comparison import Comparison, Pair, other_family
from harkd_convert.errors import ConvertError
from harkd_convert.package import FAMILIES
from harkd_convert.progress import Progress, silent

MOST_GROWTH = 0.05
"""Of the word errors, as a part of the reference's."""


@dataclass(frozen=True)
class Verified:
    """The outcome."""

    manifest: Manifest
    """Of the package"""
    reference: str
    """What the package was held against, in words"""
    list_name: str
    """The list's file name"""
    list_sha256: str
    """Its checksum"""
    pairs: list[Pair] = field(repr=False)
    """One for each recording"""
    normalizer: Normalizer = field(repr=False)
    """Makes texts alike before words are compared"""

    def errors(self, side: str, category: str | None = None) -> WordErrors:
        """Return the word errors of a side (`package`, `reference`, `torch`)."""
        pairs = self.spoken(category)
        heard = [getattr(pair, side).text for pair in pairs]
        return count_errors([pair.recording.text or "" for pair in pairs], heard, self.normalizer)

    def spoken(self, category: str | None = None) -> list[Pair]:
        """Return the recordings whose text is known, of one category or all."""
        return [
            pair
            for pair in self.pairs
            if pair.recording.text is not None
            and (category is None or pair.recording.category == category)
        ]

    @property
    def categories(self) -> list[str]:
        """Return the categories in the list's order."""
        return list(dict.fromkeys(pair.recording.category for pair in self.spoken()))

    @property
    def allowed(self) -> int:
        """Return the most errors of a package that passes.

        One more than the reference's in any case: a single word shows no growth.
        """
        errors = self.errors("reference").errors
        return max(int(errors * (1 + MOST_GROWTH) + 1e-9), errors + 1)

    @property
    def passed(self) -> bool:
        """Tell whether the word errors grow by no more than `MOST_GROWTH`."""
        return self.errors("package").errors <= self.allowed

    def token_edits(self, side: str) -> tuple[int, int]:
        """Return in how many recordings the package's tokens differ from a side's, and by what."""
        edits = [edit_distance(getattr(p, side).tokens, p.package.tokens) for p in self.pairs]
        return sum(map(bool, edits)), sum(edits)

    def cross_error(self, side: str) -> tuple[float, float]:
        """Return mean and greatest error of a side's keys and values."""
        errors = [getattr(pair, side).cross_error for pair in self.pairs]
        return float(np.mean(errors)), max(errors)

    @property
    def audio_s(self) -> float:
        """Return the seconds of all recordings."""
        return sum(pair.seconds for pair in self.pairs)

    def cpu(self, side: str) -> float:
        """Return a side's CPU seconds for each second of audio."""
        return float(sum(getattr(pair, side).cpu_s for pair in self.pairs)) / self.audio_s


def verify(
    package: Path,
    source: Path,
    speech: Path,
    *,
    limit: int | None = None,
    progress: Progress = silent,
) -> Verified:
    """Compare a package with its source.

    Args:
        package: Its directory.
        source: The directory that it was converted from.
        speech: The list.
        limit: Take so many recordings, evenly spread.
        progress: Is told of each recording.

    Raises:
        HarkdError: A model, the list or a recording cannot be used; nothing is measured then.
    """
    manifest = _checked_manifest(package)
    recordings = spread(read_list(speech), limit)
    if not any(recording.text for recording in recordings):
        raise ConvertError(
            f"{speech} does not say what is said in its recordings",
            "write it into the fourth column",
        )
    normalizer = require_normalizer(manifest.languages[0])
    progress("Loading the models", 0, 0)
    comparison = Comparison(package, manifest, source)
    pairs = []
    for number, recording in enumerate(recordings):
        progress("Recognizing", number, len(recordings))
        pairs.append(comparison.compare(recording, package_first=number % 2 == 0))
    progress("Recognizing", len(recordings), len(recordings))
    return Verified(
        manifest, comparison.reference, speech.name, sha256_of(speech), pairs, normalizer
    )


def require_normalizer(language: str) -> Normalizer:
    """Return what makes texts alike before words are counted; raises ConvertError."""
    normalizer = load_normalizer(language)
    if normalizer is None:
        raise ConvertError(MISSING.partition(":")[0], "pip install 'harkd[convert]'")
    return normalizer


def edit_distance(one: Sequence[object], other: Sequence[object]) -> int:
    """Return how many insertions, deletions and substitutions make one of the other."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def figures(found: Verified) -> dict[str, Any]:
    """Return what a manifest tells of a verification: plain values."""
    sides = {"package": found.errors("package"), "reference": found.errors("reference")}
    differing, edits = found.token_edits("reference")
    mean, most = found.cross_error("package")
    told: dict[str, Any] = {
        "against": found.reference,
        "speech": {
            "list": found.list_name,
            "sha256": found.list_sha256,
            "recordings": len(found.pairs),
            "audio_s": round(found.audio_s, 1),
            "words": sides["package"].words,
        },
        "word_errors": {name: errors.errors for name, errors in sides.items()},
        "word_error_rate": {name: round(errors.rate or 0.0, 5) for name, errors in sides.items()},
        "cross_error_to_float32": {"mean": round(mean, 5), "max": round(most, 5)},
        "tokens": {"recordings_that_differ": differing, "edits": edits},
    }
    if found.pairs[0].published:
        told["cpu_s_per_audio_s"] = {
            "package": round(found.cpu("package"), 4),
            "reference": round(found.cpu("reference"), 4),
            "machine": platform.machine(),
        }
    return told


def write_figures(package: Path, found: Verified) -> None:
    """Write the figures into the package's manifest, and what memory it takes, where that is told.

    Raises:
        OSError: The manifest cannot be written.
    """
    measured = found.manifest.measured | {"verified": figures(found)}
    with contextlib.suppress(BenchError):  # the kernel keeps no peaks; then it is estimated
        measured[MEASURED_KEY] = asdict(measure(package).figures)
    write_manifest(package, msgspec.structs.replace(found.manifest, measured=measured))


def _checked_manifest(package: Path) -> Manifest:
    manifest = load_manifest(package)
    if manifest.family not in FAMILIES:
        raise other_family(package, manifest)
    if faults := verify_files(package, manifest, quick=False):
        raise ModelDamagedError(
            f"{package} is not what its {MANIFEST_NAME} says: {'; '.join(map(str, faults))}",
            "convert it again",
        )
    return manifest
