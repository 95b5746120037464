"""Writes a converted model as a package: graphs, tokenizer, licence and manifest.

In: a `Source` and options. Out: a directory that `harkd models import` takes, whole or not at all.
The same source and options give the same bytes on every machine. Runs on the caller's thread.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import onnx

from harkd import __version__
from harkd.errors import ModelDamagedError
from harkd.model_package import (
    MANIFEST_NAME,
    Limits,
    Manifest,
    PackagedFile,
    Streaming,
    load_manifest,
    sha256_of,
    write_manifest,
)
from harkd.recognizer.moonshine_tokens import Tokenizer
from harkd_convert.checkpoint import Source, tensor_shapes
from harkd_convert.errors import ConvertError
from harkd_convert.graph import Precision
from harkd_convert.moonshine_graphs import decoder_graph, encoder_graph, stem_graph
from harkd_convert.progress import Progress, silent
from harkd_convert.quantize import is_listed

LEAN, STREAMING = FAMILIES = ("moonshine-lean", "moonshine-streaming")
FILES = {
    "stem": "stem.onnx",
    "encoder": "encoder.onnx",
    "decoder": "decoder.onnx",
    "tokenizer": "tokenizer.bin",
    "licence": "LICENSE",
}
"""By role; the manifest comes on top"""
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+() -]*")
VERSION_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked of a conversion."""

    precision: Precision = Precision.INT8
    """Of the linear layers"""
    keep_float: tuple[str, ...] = ()
    """Shell patterns of weights that stay in float though the precision is int8"""
    name: str = ""
    """Of the package; made of the source's where empty"""
    languages: tuple[str, ...] = ()
    """BCP 47 tags, where the source does not say or is wrong"""
    licence: str = ""
    """SPDX identifier, likewise"""
    licence_text: str = ""
    """Its text, likewise"""
    streaming: Streaming | None = None
    """How it is to listen, chunk by chunk; None for the whole utterance at once"""


def quantizable(source: Source) -> list[str]:
    """Return the names of the weights that `keep_float` can name."""
    shapes = tensor_shapes(source.shape)
    return [name for name, dims in shapes.items() if len(dims) == 2]  # (out, in)


def completed(source: Source, options: Options) -> Options:
    """Return the options with what the source says filled in.

    Raises:
        ConvertError: Something is missing, or is nothing that a manifest takes.
    """
    suffix = "streaming" if options.streaming else "lean"
    if options.precision is not Precision.INT8:
        suffix += f"-{options.precision}"
    done = Options(
        precision=options.precision,
        keep_float=options.keep_float,
        name=options.name or f"{source.name}-{suffix}",
        languages=options.languages or source.languages,
        licence=options.licence or source.licence,
        licence_text=options.licence_text or source.licence_text,
        streaming=options.streaming,
    )
    if not NAME.fullmatch(done.name):
        raise ConvertError(
            f"{done.name!r} is no name for a model",
            "choose one of lower-case letters, digits, '.', '_' and '-' with --name",
        )
    wanted = {"--licence SPDX": done.licence.strip(), "--licence-file FILE": done.licence_text}
    if absent := [option for option, said in wanted.items() if not said.strip()]:
        raise ConvertError(
            f"the source does not say under which licence {source.name} is",
            f"add {' '.join(absent)}, as its publisher says (such as --licence MIT)",
        )
    if not SPDX.fullmatch(done.licence):
        raise ConvertError(
            f"{done.licence!r} is no SPDX identifier", "give one as in https://spdx.org/licenses"
        )
    if not done.languages or not all(each.strip() for each in done.languages):
        raise ConvertError(
            f"the source does not say which language {source.name} is for",
            "add --language TAG (such as --language en)",
        )
    check_kept(done.keep_float, done.precision, quantizable(source))
    return done


def check_kept(patterns: Sequence[str], precision: Precision, names: Sequence[str]) -> None:
    """Raise ConvertError for a pattern that keeps none of the named weights in float."""
    if patterns and precision is not Precision.INT8:
        raise ConvertError(
            f"with --precision {precision}, no weight is made int8", "leave out --keep-float"
        )
    for pattern in patterns:
        if not any(is_listed(name, (pattern,)) for name in names):
            raise ConvertError(
                f"--keep-float {pattern} names none of the weights",
                f"it is a shell pattern for names such as {names[0]} or {names[-1]}, quoted",
            )


@contextmanager
def staged(target: Path, *, force: bool) -> Iterator[Path]:
    """Yield a new directory beside the target, which takes the target's place at the end.

    Args:
        target: Where the package is to be.
        force: Replace a package that is there.

    Raises:
        ConvertError: Something is there.
        OSError: The disk.
    """
    check_target(target, force=force)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f".{target.name}.new-{os.getpid()}"
    old = target.parent / f".{target.name}.old-{os.getpid()}"
    staging.mkdir()
    try:
        yield staging
        check_target(target, force=force)
        if target.is_dir():
            target.rename(old)
        try:
            staging.rename(target)
        except BaseException:
            if old.is_dir():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def check_target(target: Path, *, force: bool) -> None:
    """Raise ConvertError unless a package can be written there."""
    if not target.exists() and not target.is_symlink():
        return
    package = target.is_dir() and not target.is_symlink()
    package = package and (target / MANIFEST_NAME).is_file()
    if package and force:
        return
    if package:
        raise ConvertError(f"{target} exists", "give another --out, or --force to replace it")
    raise ConvertError(f"{target} exists, and is no model package", "give another --out")


def limits_of(folder: Path) -> Limits:
    """Return the limits of a harkd package; the default ones for another source."""
    if (folder / MANIFEST_NAME).is_file():
        return load_manifest(folder).limits
    return Limits()


def tokens_of(source: Source, scratch: Path) -> int:
    """Return how many of a source's tokens can be written.

    Args:
        source: The model.
        scratch: A directory, where the tokenizer is left.

    Raises:
        ConvertError: The tokenizer is none, or of another model.
    """
    file = scratch / FILES["tokenizer"]
    file.write_bytes(source.tokenizer)
    try:
        tokens = len(Tokenizer(file))
    except ModelDamagedError as error:
        raise ConvertError(
            f"the tokenizer of {source.name} is cut off or altered",
            "fetch the model's tokenizer again",
        ) from error
    if tokens > source.shape.vocabulary:
        raise ConvertError(
            f"the tokenizer of {source.name} has {tokens} tokens, and the model only "
            f"{source.shape.vocabulary}",
            "give tokenizer and weights of one model",
        )
    return tokens


def write_package(
    source: Source,
    options: Options,
    limits: Limits,
    folder: Path,
    progress: Progress = silent,
) -> Manifest:
    """Write all files of a package into an empty directory.

    Args:
        source: The model.
        options: From `completed`.
        limits: For the manifest.
        folder: The directory.
        progress: Is told of each file.

    Raises:
        ConvertError: The tokenizer does not fit the model.
        OSError: The disk.
    """
    tokens = tokens_of(source, folder)
    (folder / FILES["licence"]).write_bytes(options.licence_text.encode())
    precision, kept = options.precision, options.keep_float
    graphs: dict[str, Callable[[], onnx.ModelProto]] = {
        "stem": lambda: stem_graph(source),
        "encoder": lambda: encoder_graph(source, precision, kept),
        "decoder": lambda: decoder_graph(source, tokens, precision, kept),
    }
    for done, (role, graph) in enumerate(graphs.items()):
        progress("Writing the graphs", done, len(graphs))
        onnx.save(graph(), folder / FILES[role])
    progress("Writing the graphs", len(graphs), len(graphs))
    manifest = _manifest(source, options, limits, folder)
    write_manifest(folder, manifest)
    return manifest


def packaged_files(folder: Path, names: dict[str, str]) -> dict[str, PackagedFile]:
    """Return the files of a package by role, with size and checksum."""
    files = {}
    for role, name in names.items():
        path = folder / name
        size = path.stat().st_size
        files[role] = PackagedFile(path=name, sha256=sha256_of(path), size_bytes=size)
    return files


def version_of(files: dict[str, PackagedFile], measured: dict[str, Any]) -> str:
    """Return a package's version: another one means other files, or files from elsewhere."""
    identity = json.dumps([measured, {role: file.sha256 for role, file in files.items()}])
    return f"{__version__}+{hashlib.sha256(identity.encode()).hexdigest()[:VERSION_DIGITS]}"


def _manifest(source: Source, options: Options, limits: Limits, folder: Path) -> Manifest:
    files = packaged_files(folder, FILES)
    measured: dict[str, Any] = {
        "source_sha256": dict(sorted(source.checksums.items())),
        "converter": {
            "version": __version__,
            "precision": str(options.precision),
            "keep_float": list(options.keep_float),
        },
    }
    if options.streaming:
        measured["converter"]["streaming"] = msgspec.to_builtins(options.streaming)
    return Manifest(
        name=options.name,
        family=STREAMING if options.streaming else LEAN,
        version=version_of(files, measured),
        languages=options.languages,
        licence=options.licence,
        licence_file=FILES["licence"],
        source=f"{source.origin}, converted by harkd-convert {__version__} ({options.precision})",
        files=files,
        limits=limits,
        streaming=options.streaming,
        measured=measured,
    )
