"""The manifest of a model: the contract between the converter and the daemon.

A model is a directory with a `model.yaml`. In: such a directory. Out: a frozen `Manifest`, and the
faults of the files that it names. Pure but for reading those files; runs on the caller's thread,
and never touches the network.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import msgspec
import yaml

from harkd.errors import ModelDamagedError

MANIFEST_NAME = "model.yaml"
FORMAT = 1
"""The only manifest format there is; it grows when an older daemon could misread a newer file."""

_READ_BYTES = 1 << 20

PackagePath = Annotated[str, msgspec.Meta(min_length=1)]
"""A path with forward slashes, relative to the package directory and inside it."""
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]


class PackagedFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a model, pinned."""

    path: PackagePath
    """Relative to the package directory"""
    sha256: Sha256
    """Lower-case hex"""
    size_bytes: Annotated[int, msgspec.Meta(ge=0)] = msgspec.field(name="bytes")
    """Bytes; the key in the file is `bytes`"""


class Sample(PackagedFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recording that comes along, to try the model with."""

    text: str | None = None
    """What is said in it, where that is known"""


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Decoding limits."""

    max_tokens_per_s: Annotated[float, msgspec.Meta(gt=0)] = 6.5
    """Tokens per second of audio, above 0; decoding stops there"""
    max_segment_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    """Seconds of audio in one segment, above 0"""


PRIOR_TAPS, PRIOR_VARIANCE = 100, 0.0029
"""What the norm of a streaming Moonshine has heard before the audio, with which weights are taught:
at first it has heard too little to know how loud the speech is."""


LEFT_CONTEXT_FRAMES, FIRST_FRAMES = 166, 125
"""What a pass of one looks back at, with which weights are taught, too."""


class Streaming(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the family `moonshine-streaming` listens; frames are those of its encoder."""

    chunk_frames: Annotated[int, msgspec.Meta(ge=1)]
    """Frames that a pass encodes for good, 1 at least"""
    look_ahead_frames: Annotated[int, msgspec.Meta(ge=0)]
    """Frames behind these that it hears besides; the next pass encodes them again"""
    left_context_frames: Annotated[int, msgspec.Meta(ge=0)] = LEFT_CONTEXT_FRAMES
    """Frames before these that it looks back at"""
    first_frames: Annotated[int, msgspec.Meta(ge=0)] = FIRST_FRAMES
    """Frames at the begin of the utterance that it looks back at besides"""
    prior_taps: Annotated[int, msgspec.Meta(ge=0)] = PRIOR_TAPS
    """So many taps of the first convolution count as heard before the audio begins"""
    prior_variance: Annotated[float, msgspec.Meta(gt=0)] = PRIOR_VARIANCE
    """And had this variance, above 0, around 0"""
    doubt_below: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.45
    """A final whose three least likely tokens are less likely than this (their geometric mean), or
    which ran into a loop, is heard both in passes and at once; 0: all are heard in passes alone"""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `model.yaml` says."""

    format: int = FORMAT
    """Always 1"""
    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    """Lower case, digits, `.`, `_`, `-`; also the directory's name in a store"""
    family: NonEmpty
    """Which recognizer reads the files, such as `moonshine`"""
    version: NonEmpty
    """Free text; another version means other files"""
    languages: Annotated[tuple[NonEmpty, ...], msgspec.Meta(min_length=1)]
    """BCP 47 tags"""
    licence: NonEmpty
    """SPDX identifier"""
    licence_file: PackagePath
    """Relative to the package directory"""
    source: str = ""
    """Free text: where the weights come from"""
    sample_rate_hz: Annotated[int, msgspec.Meta(gt=0)] = 16000
    """Hertz of the audio that the model wants"""
    files: Annotated[dict[str, PackagedFile], msgspec.Meta(min_length=1)]
    """By role, such as `encoder`, `decoder`, `tokenizer`, `licence`"""
    samples: tuple[Sample, ...] = ()
    """May be empty"""
    limits: Limits = Limits()
    """Decoding limits"""
    streaming: Streaming | None = None
    """Only of the family `moonshine-streaming`, which needs it"""
    measured: dict[str, Any] = {}
    """Free-form figures"""

    def all_files(self) -> list[PackagedFile]:
        """Return every pinned file, the samples last."""
        return [*self.files.values(), *self.samples]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.size_bytes for file in self.all_files())


class FileFault(msgspec.Struct, frozen=True):
    """One file that is not what the manifest says."""

    path: str
    """Relative to the package directory"""
    what: str
    """`missing`, `truncated: N of M bytes`, `altered: checksum differs`, or why it is unreadable"""

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


def load_manifest(package_dir: Path) -> Manifest:
    """Read `model.yaml` of a package directory.

    Raises:
        ModelDamagedError: it is missing, unreadable, no YAML, or not a manifest of this format.
    """
    file = package_dir / MANIFEST_NAME
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _damaged(file, "is missing") from error
    except OSError as error:
        raise _damaged(file, f"cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _damaged(file, f"is no YAML: {' '.join(str(error).split())}") from error
    return _validated(file, raw)


def write_manifest(package_dir: Path, manifest: Manifest) -> Path:
    """Write `model.yaml` into a package directory, whole or not at all, and return its path.

    Raises:
        ModelDamagedError: the manifest would not be readable again.
        OSError: the file cannot be written.
    """
    file = package_dir / MANIFEST_NAME
    plain = msgspec.to_builtins(manifest)
    plain["samples"] = [
        {key: value for key, value in sample.items() if value is not None}
        for sample in plain["samples"]
    ]
    plain["languages"] = list(plain["languages"])
    if manifest.streaming is None:
        del plain["streaming"]  # older versions do not know it
    _validated(file, plain)
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
    new = package_dir / f".{MANIFEST_NAME}.new"
    with new.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    return new.replace(file)


def verify_files(package_dir: Path, manifest: Manifest, *, quick: bool) -> list[FileFault]:
    """Compare the files of a package with its manifest.

    Args:
        package_dir: Where the manifest lies.
        manifest: What should be there.
        quick: Look at existence and size only, as at each start; else compute every SHA-256.

    Returns:
        The faults in the manifest's order; none when all is well.
    """
    faults = []
    for file in manifest.all_files():
        try:
            what = _fault(package_dir / file.path, file, quick=quick)
        except (FileNotFoundError, NotADirectoryError):
            what = "missing"
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
        if what:
            faults.append(FileFault(file.path, what))
    return faults


def _validated(file: Path, raw: object) -> Manifest:
    if not isinstance(raw, dict):
        raise _damaged(file, "is no mapping of keys to values")
    if raw.get("format") != FORMAT:
        raise ModelDamagedError(
            f"{file} has format {raw.get('format')!r} and this harkd reads format {FORMAT}",
            "Update harkd, or install a model made for this version",
        )
    try:
        manifest = msgspec.convert(raw, Manifest)
    except msgspec.ValidationError as error:
        raise _damaged(file, f"is no manifest: {error}") from error
    if faults := _path_faults(manifest):
        raise _damaged(file, f"is no manifest: {'; '.join(faults)}")
    return manifest


def _fault(path: Path, wanted: PackagedFile, *, quick: bool) -> str:
    """Return what is wrong with one file, or nothing; raises OSError."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        return "no regular file"
    if found.st_size < wanted.size_bytes:
        return f"truncated: {found.st_size} of {wanted.size_bytes} bytes"
    if found.st_size > wanted.size_bytes:
        return f"altered: {found.st_size} bytes instead of {wanted.size_bytes}"
    if not quick and sha256_of(path) != wanted.sha256:
        return "altered: checksum differs"
    return ""


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in lower-case hex; raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _path_faults(manifest: Manifest) -> list[str]:
    """Return the paths that lead out of the package, or onto the manifest itself."""
    named = [(f"files.{role}.path", file.path) for role, file in manifest.files.items()]
    named += [(f"samples[{i}].path", file.path) for i, file in enumerate(manifest.samples)]
    named.append(("licence_file", manifest.licence_file))
    return [
        f"{key} {path!r} must be a file inside the package directory"
        for key, path in named
        if not _is_inside(path)
    ]


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return (
        bool(parts)
        and not path.startswith("/")
        and ".." not in parts
        and parts != (MANIFEST_NAME,)
        and not re.search(r"[\\\x00-\x1f]", path)
    )


def _damaged(file: Path, what: str) -> ModelDamagedError:
    return ModelDamagedError(f"{file} {what}", "Install the model again, or correct the file")
