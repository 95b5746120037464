"""One recording through a package, through its source in PyTorch, and through the published files.

In: the models and a recording. Out: `Pair`: what each side heard, how far its numbers are from
PyTorch's in float32, and what it cost. Runs on the caller's thread.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from harkd.audio import RATE_HZ
from harkd.model_package import MANIFEST_NAME, Manifest, PackagedFile, load_manifest
from harkd.recognizer.factory import load_recognizer
from harkd.recognizer.moonshine import Moonshine as Published
from harkd.recognizer.moonshine_lean import MoonshineLean
from harkd.speech_list import Recording
from harkd_convert.checkpoint import Float32
from harkd_convert.conversion import Int16, most_tokens, read_samples, to_floats
from harkd_convert.errors import ConvertError
from harkd_convert.export_check import relative_error
from harkd_convert.package import FAMILIES
from harkd_convert.reference import STEM_SAMPLES, Heard, Reference
from harkd_convert.sources import DECODER, ENCODER, TOKENIZER, open_source

THREADS = 1
"""CPU seconds are then those of the work itself."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of those that are compared, on one recording."""

    text: str
    """What it heard"""
    tokens: list[int]
    """The same"""
    cross_error: float = 0.0
    """Relative error of the decoder's keys and values, to those of PyTorch"""
    cpu_s: float = 0.0
    """CPU seconds; 0 where they are not measured"""


@dataclass(frozen=True, slots=True)
class Pair:
    """One recording."""

    recording: Recording
    """The recording"""
    seconds: float
    """Its length"""
    package: Side
    """The package"""
    torch: Side
    """The source in PyTorch"""
    published: Side | None
    """The source's published files, where it has them"""

    @property
    def reference(self) -> Side:
        """What the package is held against."""
        return self.published or self.torch


class Comparison:
    """The loaded models.

    Args:
        package: The package's directory.
        manifest: Its manifest.
        source: The directory that it was converted from.

    Raises:
        HarkdError: One of them cannot be loaded.
    """

    def __init__(self, package: Path, manifest: Manifest, source: Path) -> None:
        model = load_recognizer(package, _in_passes(manifest), THREADS)
        if not isinstance(model, MoonshineLean):
            raise other_family(package, manifest)
        self._package = model
        self._limits = manifest.limits
        opened = open_source(source)
        known = manifest.measured.get("source_sha256")
        if known is not None and known != dict(sorted(opened.checksums.items())):
            raise ConvertError(
                f"{package} was not made from {source}: the checksums in its {MANIFEST_NAME} are "
                "of other files",
                "name the directory that it was converted from",
            )
        self._torch = Reference(opened, len(model.tokenizer), manifest.streaming)
        # What the published files hear at once is nothing to hold a stream against.
        self._published = None if manifest.streaming else _load_published(source, manifest)
        self.reference = (
            "the published files, step by step" if self._published else "PyTorch, in float32"
        )
        """What the package is held against."""

    def compare(self, recording: Recording, *, package_first: bool) -> Pair:
        """Recognize one recording on all sides, in pieces where it is longer than they take."""
        samples = read_samples(recording.path)
        most = int(self._limits.max_segment_s * RATE_HZ)
        pieces = np.array_split(samples, -(-len(samples) // most))
        sides = [self._sides(piece, package_first=package_first) for piece in pieces]
        packages, torches, published = (list(each) for each in zip(*sides, strict=True))
        return Pair(
            recording,
            len(samples) / RATE_HZ,
            joined(packages),
            joined(torches),
            joined(published) if self._published else None,
        )

    def _sides(self, samples: Int16, *, package_first: bool) -> tuple[Side, Side, Side]:
        audio = to_floats(samples)
        audio = np.pad(audio, (0, max(0, STEM_SAMPLES - len(audio))))
        hidden: Float32 | None = None
        sides = dict[str, Side]()
        for package_turn in (package_first, not package_first):
            if package_turn:
                sides["package"] = _heard_by_package(self._package, samples)
            elif self._published:
                sides["published"], hidden = _heard_by_published(self._published, audio)
        most, guess = most_tokens(len(samples), self._limits), sides["package"].tokens
        heard = self._torch.hear(audio, most, guess)
        torch = Side(self._package.tokenizer.text(heard.tokens), heard.tokens)
        package = _with_error(sides["package"], heard, _cross(self._package, audio))
        if hidden is None:
            return package, torch, torch
        return package, torch, _with_error(sides["published"], heard, self._torch.cross(hidden))


def _in_passes(manifest: Manifest) -> Manifest:
    """Let a streaming package hear in passes alone, as PyTorch does that it is held against."""
    if manifest.streaming is None:
        return manifest
    streaming = msgspec.structs.replace(manifest.streaming, doubt_below=0.0)
    return msgspec.structs.replace(manifest, streaming=streaming)


def joined(sides: Sequence[Side]) -> Side:
    """Make one of the pieces of a recording."""
    return Side(
        text=" ".join(side.text for side in sides if side.text),
        tokens=[token for side in sides for token in side.tokens],
        cross_error=max(side.cross_error for side in sides),
        cpu_s=sum(side.cpu_s for side in sides),
    )


def other_family(package: Path, manifest: Manifest) -> ConvertError:
    """Say that a package was not made by this converter."""
    return ConvertError(
        f"{package} is of the family {manifest.family} and not {' or '.join(FAMILIES)}",
        "name a package that harkd-convert has made",
    )


def _load_published(source: Path, package: Manifest) -> Published | None:
    """Load the published files of a source, if it has any."""
    roles = {"encoder": ENCODER, "decoder": DECODER, "tokenizer": TOKENIZER}
    if not (source / ENCODER).is_file():
        return None
    manifest = package
    if (source / MANIFEST_NAME).is_file():
        manifest = load_manifest(source)
    else:
        files = {
            role: PackagedFile(path=name, sha256="0" * 64, size_bytes=0)
            for role, name in roles.items()
        }
        manifest = msgspec.structs.replace(package, files=files)
    manifest = msgspec.structs.replace(manifest, family="moonshine", limits=package.limits)
    model = load_recognizer(source, manifest, THREADS)
    return model if isinstance(model, Published) else None


def _heard_by_package(model: MoonshineLean, samples: Int16) -> Side:
    """Recognize as the daemon would, at once."""
    begin_s = time.process_time()
    stream = model.stream()
    stream.accept(samples)
    hypothesis = stream.finish()
    cpu_s = time.process_time() - begin_s
    return Side(hypothesis.text, list(hypothesis.tokens), cpu_s=cpu_s)


def _heard_by_published(model: Published, audio: Float32) -> tuple[Side, Float32]:
    """Recognize step by step; return the hidden states as well, (1, frames, width)."""
    begin_s = time.process_time()
    hidden = model.encode(audio)
    decoded = model.decode(hidden, len(audio))
    cpu_s = time.process_time() - begin_s
    return Side(model.tokenizer.text(decoded.tokens), decoded.tokens, cpu_s=cpu_s), hidden


def _cross(model: MoonshineLean, audio: Float32) -> list[Float32]:
    encoding = model.begin(0.0)
    encoding.accept(audio)
    encoding.encode(exact=True, incremental=False)
    return [each[0].astype(np.float32) for each in encoding.cross()]


def _with_error(side: Side, heard: Heard, cross: list[Float32]) -> Side:
    """Add the error over all keys and values, each counted alike."""
    errors = [relative_error(*both) for both in zip(heard.cross, cross, strict=True)]
    return Side(side.text, side.tokens, float(np.mean(errors)), side.cpu_s)
