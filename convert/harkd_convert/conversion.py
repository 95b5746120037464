"""Converts a source: opens it, checks the export against PyTorch, writes the package and tries it.

In: the source's directory and options. Out: a package, and what was seen on the way. Runs on the
caller's thread; needs no network.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harkd.audio import RATE_HZ, AudioBlock, FileSource
from harkd.errors import HarkdError
from harkd.model_package import MANIFEST_NAME, Limits, Manifest, load_manifest
from harkd.recognizer.factory import load_recognizer
from harkd.recognizer.moonshine_tokens import Tokenizer
from harkd_convert.checkpoint import Source
from harkd_convert.errors import ConvertError
from harkd_convert.export_check import (
    AUDIO_SAMPLES,
    MEND,
    Agreement,
    check_export,
    pseudo_speech,
)
from harkd_convert.package import (
    FILES,
    Options,
    check_target,
    completed,
    limits_of,
    staged,
    tokens_of,
    write_package,
)
from harkd_convert.progress import Progress, silent
from harkd_convert.reference import Reference
from harkd_convert.sources import open_source

Int16 = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Trial:
    """One recording, through the package and through PyTorch."""

    recording: str
    """Its file's name"""
    text: str
    """What the package hears"""
    wanted: str
    """What the source hears in PyTorch"""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion has led to."""

    manifest: Manifest
    """Of the package"""
    agreement: Agreement
    """Of the export with PyTorch, in float32"""
    trial: Trial | None
    """None where the source brings no recording"""


def convert(
    path: Path,
    target: Path,
    options: Options,
    *,
    force: bool = False,
    progress: Progress = silent,
) -> Conversion:
    """Convert a source into a package.

    Args:
        path: The source's directory.
        target: Where the package is to be.
        options: What is asked.
        force: Replace a package that is there.
        progress: Is told of each stage.

    Raises:
        ModelMissingError, ModelDamagedError, ConvertError: The source or an option is at fault, or
            the exported graphs are not the source's model.
        OSError: The disk.
    """
    check_target(target, force=force)
    _check_apart(path, target)
    progress("Reading the source", 0, 0)
    source = open_source(path)
    options = completed(source, options)
    limits = limits_of(path)
    recording = _recording(path)
    samples = read_samples(recording) if recording else to_samples(pseudo_speech())
    with staged(target, force=force) as staging:
        progress("Comparing the export with PyTorch", 0, 0)
        scratch = staging / "scratch"
        scratch.mkdir()
        tokens = tokens_of(source, scratch)
        audio = to_floats(samples[:AUDIO_SAMPLES])
        agreement = check_export(source, tokens, audio, scratch, options.streaming)
        shutil.rmtree(scratch)
        manifest = write_package(source, options, limits, staging, progress)
        progress("Trying the package", 0, 0)
        trial = _try(source, tokens, limits, staging, manifest, samples)
    named = Trial(recording.name, trial.text, trial.wanted) if recording else None
    return Conversion(manifest, agreement, named)


def read_samples(path: Path) -> Int16:
    """Return a sound file's audio: int16, (n,), 16 kHz mono; raises AudioFileError."""
    blocks = FileSource(path, paced=False).events()
    pieces = [block.samples for block in blocks if isinstance(block, AudioBlock)]
    return np.concatenate(pieces) if pieces else np.empty(0, np.int16)


def to_floats(samples: Int16) -> NDArray[np.float32]:
    """Return int16 (n,) as float32, -1…1."""
    return samples.astype(np.float32) / np.float32(32768)


def to_samples(audio: NDArray[np.float32]) -> Int16:
    """Return float32 (n,), -1…1, as int16."""
    return np.rint(audio * 32767).astype(np.int16)


def most_tokens(samples: int, limits: Limits) -> int:
    """Return how many tokens so much audio can hold, as the daemon's recognizers count."""
    return int(samples / RATE_HZ * limits.max_tokens_per_s) + 2


def _check_apart(path: Path, target: Path) -> None:
    one, other = path.resolve(), target.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise ConvertError(
            f"{target} and the source {path} lie in each other", "give another --out"
        )


def _recording(path: Path) -> Path | None:
    """Return the first recording that comes with a source, if there is one."""
    if not (path / MANIFEST_NAME).is_file():
        return None
    samples = load_manifest(path).samples
    return path / samples[0].path if samples else None


def _try(
    source: Source, tokens: int, limits: Limits, folder: Path, manifest: Manifest, samples: Int16
) -> Trial:
    """Load the package as the daemon would, and recognize; report what PyTorch makes of it."""
    samples = samples[: int(limits.max_segment_s * RATE_HZ)]
    try:
        recognizer = load_recognizer(folder, manifest, threads=1)
        stream = recognizer.stream()
        stream.accept(samples)
        heard = stream.finish()
    except HarkdError as error:
        said = re.sub(re.escape(str(folder)) + "/?", "", error.message)
        raise ConvertError(f"the package does not run: {said}", MEND) from error
    most = most_tokens(len(samples), limits)
    wanted = Reference(source, tokens, manifest.streaming).hear(
        to_floats(samples), most, heard.tokens
    )
    tokenizer = Tokenizer(folder / FILES["tokenizer"])
    return Trial("", heard.text, tokenizer.text(wanted.tokens))
