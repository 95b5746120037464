"""Converts a streaming checkpoint: checks the export, quantizes, counts word errors, packs.

In: a checkpoint's files and options. Out: a package of the family `streaming-ctc`, whole or not at
all, and what was seen on the way. Runs on the caller's thread; needs no network.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from harkd import __version__
from harkd.bench_words import WordErrors, count_errors
from harkd.model_package import Manifest, sha256_of, write_manifest
from harkd.speech_list import Recording, read_list, spread
from harkd_convert.checkpoint import Float32
from harkd_convert.conformer_check import StreamingAgreement, check_conformer, measured_ranges
from harkd_convert.conformer_graph import conformer_graph
from harkd_convert.conformer_run import (
    ExportedConformer,
    greedy,
    text_of,
    whole_log_probs,
    with_tail,
)
from harkd_convert.conformer_shape import Chunking
from harkd_convert.conformer_source import ConformerSource, open_conformer, read_units
from harkd_convert.conformer_weights import quantizable
from harkd_convert.conversion import read_samples, to_samples
from harkd_convert.errors import ConvertError
from harkd_convert.export_check import pseudo_speech
from harkd_convert.graph import Precision
from harkd_convert.mel_features import mel_features
from harkd_convert.package import (
    NAME,
    SPDX,
    check_kept,
    check_target,
    packaged_files,
    staged,
    version_of,
)
from harkd_convert.progress import Progress, silent
from harkd_convert.verify import MOST_GROWTH, require_normalizer

FAMILY = "streaming-ctc"
FILES = {"model": "model.onnx", "tokens": "tokens.txt", "licence": "LICENSE"}
"""By role; the manifest comes on top"""
CALIBRATED = 100
"""Recordings of a list, evenly spread: more change little."""


@dataclass(frozen=True, slots=True)
class Files:
    """What a training left."""

    checkpoint: Path
    """PyTorch's weights, such as `final.pt`"""
    config: Path
    """`train.yaml`"""
    tokens: Path
    """`units.txt`"""


@dataclass(frozen=True, slots=True)
class StreamingOptions:
    """What is asked of a conversion."""

    licence: str
    """SPDX identifier"""
    licence_text: str
    """Its text"""
    languages: tuple[str, ...]
    """BCP 47 tags"""
    precision: Precision = Precision.INT8
    """Of the products: int8 or fp32"""
    keep_float: tuple[str, ...] = ()
    """Shell patterns of weights that stay in float though the precision is int8"""
    calibration: Path | None = None
    """A list of recordings for static quantization; dynamic where there is none"""
    speech: Path | None = None
    """A list of recordings with their text, to count word errors on"""
    chunking: Chunking = field(default_factory=Chunking)
    """What is encoded at once"""
    name: str = ""
    """Of the package; that of the checkpoint's directory where empty"""


@dataclass(frozen=True, slots=True)
class Counted:
    """Word errors of the package, and of the same model in float32."""

    package: WordErrors
    """Of the package, by chunks"""
    torch: WordErrors
    """Of PyTorch, at once under the chunks' mask"""

    @property
    def allowed(self) -> int:
        """Return the most errors of a package that passes: 5 % more, or one."""
        return max(int(self.torch.errors * (1 + MOST_GROWTH) + 1e-9), self.torch.errors + 1)


@dataclass(frozen=True, slots=True)
class StreamingConversion:
    """What a conversion has led to."""

    manifest: Manifest
    """Of the package"""
    agreement: StreamingAgreement
    """Of the export with PyTorch, in float32"""
    counted: Counted | None
    """None where no speech was given"""


def convert_streaming(
    files: Files,
    target: Path,
    options: StreamingOptions,
    *,
    force: bool = False,
    progress: Progress = silent,
) -> StreamingConversion:
    """Convert a streaming Conformer with a CTC head into a package.

    Args:
        files: The checkpoint.
        target: Where the package is to be.
        options: What is asked.
        force: Replace a package that is there.
        progress: Is told of each stage.

    Raises:
        ModelMissingError, ModelDamagedError, ConvertError: The checkpoint or an option is at fault,
            the export is not the model, or too many words are lost; nothing is written then.
        SpeechListError: A list cannot be used.
        OSError: The disk.
    """
    check_target(target, force=force)
    progress("Reading the checkpoint", 0, 0)
    source = open_conformer(files.checkpoint, files.config, files.tokens)
    name = options.name or source.name
    _check_options(source, name, options)
    chunking = options.chunking
    with staged(target, force=force) as staging:
        scratch = staging / "scratch"
        scratch.mkdir()
        progress("Comparing the export with PyTorch", 0, 0)
        sample = mel_features(with_tail(to_samples(pseudo_speech(80_000))), source.shape.bins)
        agreement = check_conformer(source, chunking, sample, scratch)
        ranges = None
        if options.calibration and options.precision is Precision.INT8:
            recordings = spread(read_list(options.calibration), CALIBRATED)
            progress("Measuring the products", 0, 0)
            speech = (_features(each, source) for each in recordings)
            ranges = measured_ranges(source, chunking, speech, scratch)
        shutil.rmtree(scratch)
        model = conformer_graph(source, chunking, options.precision, options.keep_float, ranges)
        onnx.save(model, staging / FILES["model"])
        shutil.copyfile(files.tokens, staging / FILES["tokens"])
        (staging / FILES["licence"]).write_bytes(options.licence_text.encode())
        counted = None
        if options.speech:
            counted = _count(source, staging, files, options.speech, options, progress)
        manifest = _manifest(source, name, options, counted, staging, static=ranges is not None)
        write_manifest(staging, manifest)
    return StreamingConversion(manifest, agreement, counted)


def _check_options(source: ConformerSource, name: str, options: StreamingOptions) -> None:
    if not NAME.fullmatch(name):
        raise ConvertError(
            f"{name!r} is no name for a model",
            "choose one of lower-case letters, digits, '.', '_' and '-' with --name",
        )
    if not SPDX.fullmatch(options.licence) or not options.licence_text.strip():
        raise ConvertError(
            f"it is not said under which licence {name} is",
            "add --licence SPDX and --licence-file FILE, as its publisher says",
        )
    if not options.languages or not all(each.strip() for each in options.languages):
        raise ConvertError(
            f"it is not said which language {name} is for",
            "add --language TAG (such as --language en)",
        )
    if options.precision is Precision.FP16:
        raise ConvertError("a streaming model is int8 or fp32", "choose one with --precision")
    check_kept(options.keep_float, options.precision, quantizable(source))


def _features(recording: Recording, source: ConformerSource) -> Float32:
    return mel_features(with_tail(read_samples(recording.path)), source.shape.bins)


def _count(
    source: ConformerSource,
    folder: Path,
    files: Files,
    speech: Path,
    options: StreamingOptions,
    progress: Progress,
) -> Counted:
    """Count the word errors of the package and of PyTorch; refuse a package that loses too much."""
    recordings = [each for each in read_list(speech) if each.text is not None]
    if not recordings:
        raise ConvertError(
            f"{speech} does not say what is said in its recordings",
            "write it into the fourth column",
        )
    normalizer = require_normalizer(options.languages[0])
    names, model = read_units(files.tokens), source.model()
    exported = ExportedConformer(folder / FILES["model"], source.shape, options.chunking)
    heard: dict[str, list[str]] = {"package": [], "torch": []}
    for number, recording in enumerate(recordings):
        progress("Recognizing", number, len(recordings))
        features = _features(recording, source)
        both: Sequence[tuple[str, Float32]] = (
            ("package", exported.log_probs(features)),
            ("torch", whole_log_probs(model, features, options.chunking)),
        )
        for side, log_probs in both:
            heard[side].append(text_of(greedy(log_probs), names).lower())
    progress("Recognizing", len(recordings), len(recordings))
    said = [each.text or "" for each in recordings]
    counted = Counted(*(count_errors(said, heard[side], normalizer) for side in heard))
    if counted.package.errors > counted.allowed:
        raise ConvertError(
            f"the package makes {counted.package.errors} word errors in {counted.package.words} "
            f"words, and PyTorch only {counted.torch.errors}",
            "keep more weights in float with --keep-float, or choose --precision fp32",
        )
    return counted


def _manifest(
    source: ConformerSource,
    name: str,
    options: StreamingOptions,
    counted: Counted | None,
    folder: Path,
    *,
    static: bool,
) -> Manifest:
    packaged = packaged_files(folder, FILES)
    measured: dict[str, Any] = {
        "source_sha256": dict(sorted(source.checksums.items())),
        "converter": {
            "version": __version__,
            "arch": "conformer_ctc",
            "precision": str(options.precision),
            "activations": "static" if static else "dynamic",
            "keep_float": list(options.keep_float),
            "chunk_ms": options.chunking.frames * 40,
            "left_chunks": options.chunking.left_chunks,
        },
    }
    version = version_of(packaged, measured)
    if counted and options.speech:
        measured["verified"] = {
            "speech": {
                "list": options.speech.name,
                "sha256": sha256_of(options.speech),
                "words": counted.package.words,
            },
            "word_errors": {
                "package": counted.package.errors,
                "reference": counted.torch.errors,
            },
            "word_error_rate": {
                "package": round(counted.package.rate or 0.0, 5),
                "reference": round(counted.torch.rate or 0.0, 5),
            },
        }
    return Manifest(
        name=name,
        family=FAMILY,
        version=version,
        languages=options.languages,
        licence=options.licence,
        licence_file=FILES["licence"],
        source=f"a WeNet checkpoint, converted by harkd-convert {__version__} "
        f"({options.precision})",
        files=packaged,
        measured=measured,
    )
