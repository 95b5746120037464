"""Installs a model package that already lies in a folder, as on a USB stick.

In: a folder with a `model.yaml`, such as `harkd-convert` makes, or an unpacked streaming model of
sherpa-onnx, for which the manifest is made here. Out: a copy in the store, each byte compared with
its checksum and the model run once, or an error and nothing changed. Never touches the network, and
never writes to the folder. Runs on the caller's thread.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from harkd.errors import (
    HarkdError,
    ModelDamagedError,
    ModelError,
    ModelMissingError,
    ModelTooLargeError,
)
from harkd.memory_check import require_memory
from harkd.model_catalogue import Progress
from harkd.model_package import (
    MANIFEST_NAME,
    FileFault,
    Manifest,
    PackagedFile,
    load_manifest,
    sha256_of,
    verify_files,
    write_manifest,
)
from harkd.model_store import IMPORT_MARK, InstalledModel, ModelStore, silent, unreadable
from harkd.settings import Settings
from harkd.sherpa_package import looks_published, manifest_of
from harkd.whole_file import sync_folder

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_COPY_BYTES = 1 << 20
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".zst", ".whl")


@dataclass(frozen=True)
class Imported:
    """What an import has led to."""

    model: InstalledModel
    """What lies in the store"""
    copied: bool
    """False where the same package was installed already"""


class _SourceError(Exception):
    """A file of the folder cannot be read; an OSError would be taken for the store's."""


def import_package(
    store: ModelStore,
    source: Path,
    *,
    name: str | None = None,
    languages: tuple[str, ...] = (),
    force: bool = False,
    trial: bool = True,
    progress: Progress = silent,
) -> Imported:
    """Install the package in a folder, unless the same one is installed and whole.

    It appears under its name all at once or not at all; what it replaces stays until then.

    Args:
        store: Where to; locked meanwhile.
        source: The folder.
        name: Install it under this name instead of its own.
        languages: BCP 47 tags, instead of what the package says.
        force: Replace another model of that name, and copy again in any case.
        trial: Load and run the copy once before it is installed.
        progress: Called from this thread with `waiting`, `verify`, `copy` and `try`.

    Raises:
        ModelMissingError: the folder is no package.
        ModelDamagedError: its manifest or its files are not what they should be.
        ModelError: it cannot run here, another model has the name, or the disk was at fault.
    """
    source = source.absolute()
    manifest = _read_package(source, store.root, languages)
    if languages:
        manifest = msgspec.structs.replace(manifest, languages=languages)
    if name is not None:
        manifest = msgspec.structs.replace(manifest, name=name)
    if not _NAME.fullmatch(manifest.name):
        raise ModelError(
            f"{manifest.name!r} is no name for a model",
            "Choose one of lower-case letters, digits, '.', '_' and '-' with --name",
        )
    _require_runnable(manifest)
    if verify_files(source, manifest, quick=True):
        raise _damaged(source, verify_files(source, manifest, quick=False))
    with store.staging(progress, ModelError) as staging:
        if not force and (same := _same_installed(store, source, manifest, progress)):
            return Imported(same, copied=False)
        store.require_space(manifest.size_bytes, f"the import of {manifest.name}", ModelError)
        package = _stage(source, manifest, staging, progress)
        if trial:
            progress("try", 0, 0)
            _try(package, source)
        store.install(manifest.name, package)
    return Imported(store.locate(manifest.name), copied=True)


def _read_package(source: Path, root: Path, languages: tuple[str, ...]) -> Manifest:
    """Return the manifest in a folder, or the one made for it; raises ModelError for no package."""
    try:
        if not source.exists():
            raise ModelMissingError(
                f"{source} does not exist", f"Name the folder that holds a {MANIFEST_NAME}"
            )
        if not source.is_dir():
            raise ModelMissingError(f"{source} is no folder", _mend_of_file(source))
        if source.resolve().is_relative_to(root.resolve()):
            raise ModelError(
                f"{source} lies in the store itself, {root}",
                "`harkd models list` shows what is installed; import from another folder",
            )
        if not (source / MANIFEST_NAME).is_file():
            if looks_published(source):
                return manifest_of(source, languages)
            raise ModelMissingError(
                f"{source} has no {MANIFEST_NAME}: it is not a package", _mend_of_folder(source)
            )
    except OSError as error:
        raise unreadable(source, error) from error
    manifest = load_manifest(source)
    for file in manifest.all_files():
        if Path(file.path).parts[0] == IMPORT_MARK:
            raise ModelDamagedError(
                f"{source / MANIFEST_NAME} names {file.path}, which harkd keeps for itself",
                "Make the package again with another file name",
            )
    return manifest


def _mend_of_file(source: Path) -> str:
    if source.name == MANIFEST_NAME:
        return f"Name its folder: `harkd models import {shlex.quote(str(source.parent))}`"
    if source.suffix in _ARCHIVES:
        return f"Unpack it, and name the folder that holds its {MANIFEST_NAME}"
    return f"Name the folder that holds a {MANIFEST_NAME}"


def _mend_of_folder(source: Path) -> str:
    """Return what to do about a folder without a manifest; raises OSError."""
    below = sorted(path.parent for path in source.glob(f"*/{MANIFEST_NAME}"))
    if below:
        first = f"`harkd models import {shlex.quote(str(below[0]))}`"
        return f"There are packages in it: {first}" if below[1:] else f"There is one in it: {first}"
    return f"`harkd-convert` makes one; name the folder that holds the {MANIFEST_NAME}"


def _require_runnable(manifest: Manifest) -> None:
    """Raise ModelError for what no machine can run with this version."""
    # onnxruntime comes with it, which no other command of `harkd models` needs.
    from harkd.recognizer.factory import misfit

    if why := misfit(manifest):
        raise ModelError(f"the package {why}", "Update harkd, or import another package")


def _same_installed(
    store: ModelStore, source: Path, manifest: Manifest, progress: Progress
) -> InstalledModel | None:
    """Return the installed model if it is the same and whole, None if there is room for this one.

    One with the same manifest and damaged files counts as room: it is mended.

    Raises:
        ModelError: another one has the name.
    """
    target = store.root / manifest.name
    if not os.path.lexists(target):
        return None
    try:
        there = load_manifest(target)
    except ModelDamagedError:
        there = None
    # `measured` is free-form: its dates, for one, come back from the written file as text.
    if there is None or msgspec.to_builtins(there) != msgspec.to_builtins(manifest):
        raise ModelError(
            f"another {manifest.name} than that in {source} is installed in {target}",
            "Replace it with --force, or install this one beside it with --name NAME",
        )
    progress("verify", 0, 0)
    whole = not verify_files(target, there, quick=False)
    return InstalledModel(target, there) if whole else None


def _stage(source: Path, manifest: Manifest, staging: Path, progress: Progress) -> Path:
    """Copy what the manifest names, and return the package; raises ModelDamagedError, OSError."""
    package = staging / "model"  # below what mkdtemp has closed to every other user
    package.mkdir()
    faults = []
    done_bytes = 0
    for file in [*manifest.all_files(), *_licence(source, manifest)]:
        progress("copy", done_bytes, manifest.size_bytes)
        if what := _copy(source / file.path, package / file.path, file):
            faults.append(FileFault(file.path, what))
        done_bytes += file.size_bytes
    if faults:
        raise _damaged(source, faults)
    write_manifest(package, manifest)
    mark = f"{source}\n".encode(errors="surrogateescape")
    _write(package / IMPORT_MARK, iter([mark]))
    for directory, _, _ in os.walk(package):
        sync_folder(Path(directory))
    return package


def _licence(source: Path, manifest: Manifest) -> list[PackagedFile]:
    """Return the licence's text where the manifest names it without pinning it."""
    path = source / manifest.licence_file
    if manifest.licence_file in {file.path for file in manifest.all_files()}:
        return []
    try:
        if not path.is_file():
            return []
        size_bytes = path.stat().st_size
        return [
            PackagedFile(path=manifest.licence_file, sha256=sha256_of(path), size_bytes=size_bytes)
        ]
    except OSError as error:
        raise unreadable(path, error) from error


def _copy(source: Path, target: Path, wanted: PackagedFile) -> str:
    """Copy one file; return what is wrong with it, in the words of `verify_files`, or nothing."""
    digest = hashlib.sha256()

    def hashed() -> Iterator[bytes]:
        left_bytes = wanted.size_bytes
        for block in _blocks(source):
            left_bytes -= len(block)
            digest.update(block)
            if left_bytes < 0:
                return  # it grows meanwhile: no reason to fill the disk
            yield block

    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write(target, hashed())
    except _SourceError as error:
        return f"cannot be read: {error}"
    return "" if digest.hexdigest() == wanted.sha256 else "altered: checksum differs"


def _blocks(source: Path) -> Iterator[bytes]:
    try:
        with source.open("rb") as file:
            while block := file.read(_COPY_BYTES):
                yield block
    except OSError as error:
        raise _SourceError(error.strerror) from error


def _write(target: Path, blocks: Iterator[bytes]) -> None:
    with target.open("wb") as out:
        for block in blocks:
            out.write(block)
        out.flush()
        os.fsync(out.fileno())


def _try(package: Path, source: Path) -> None:
    """Load the model and run it once. Raises ModelError."""
    from harkd.recognizer.factory import load_recognizer

    manifest = load_manifest(package)
    try:
        require_memory(manifest, Settings())
        load_recognizer(package, manifest)
    except ModelTooLargeError as error:
        raise ModelTooLargeError(
            f"{error.message}; it is not installed", "install it untried with --no-try"
        ) from error
    except Exception as error:  # whatever onnxruntime makes of files that nobody has tried
        said = error.message if isinstance(error, HarkdError) else repr(error)
        raise ModelError(
            f"{manifest.name} does not run on this machine, and is not installed: "
            + said.replace(str(package), str(source)),
            "Make the package again, or install it untried with --no-try",
        ) from error


def _damaged(source: Path, faults: list[FileFault]) -> ModelDamagedError:
    return ModelDamagedError(
        f"{source} is damaged: {', '.join(map(str, faults))}",
        "Copy the package again from where it was made",
    )
