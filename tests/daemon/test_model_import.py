"""Importing a package from a folder: whole, tried, and all at once; or not at all."""

from __future__ import annotations

import datetime
import errno
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner

import harkd
from harkd import model_import
from harkd.cli_models import models as models_command
from harkd.errors import HarkdError, ModelDamagedError, ModelError, ModelMissingError
from harkd.model_import import import_package
from harkd.model_package import (
    MANIFEST_NAME,
    Manifest,
    PackagedFile,
    Sample,
    load_manifest,
    write_manifest,
)
from harkd.model_store import IMPORT_MARK, ModelStore
from harkd.recognizer.factory import load_recognizer

NAME = "tiny-lean"
CONTENTS = {
    "encoder.ort": b"encoder" * 1000,
    "parts/tokenizer.bin": b"tokens",
    "LICENSE": b"MIT, more or less\n",
    "samples/hello.wav": b"RIFF",
}
ROLES = {"encoder": "encoder.ort", "tokenizer": "parts/tokenizer.bin", "licence": "LICENSE"}

IMPORT_IN_A_PROCESS = """
import sys
import harkd.recognizer.factory as factory
from harkd.cli import main

def tried(folder, manifest):
    print("trying", flush=True)
    sys.stdin.readline()

factory.load_recognizer = tried
main()
"""


def _pinned(content: bytes, path: str) -> dict[str, Any]:
    return {"path": path, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _make(folder: Path, contents: dict[str, bytes], **changes: Any) -> Path:
    """Write a package; its manifest has `changes`."""
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    files = {
        role: msgspec.convert(_pinned(contents[path], path), PackagedFile)
        for role, path in ROLES.items()
    }
    sample = _pinned(contents["samples/hello.wav"], "samples/hello.wav")
    manifest = Manifest(
        name=NAME,
        family="moonshine",
        version="1",
        languages=("en",),
        licence="MIT",
        licence_file="LICENSE",
        files=files,
        samples=(msgspec.convert(sample, Sample),),
    )
    write_manifest(folder, msgspec.structs.replace(manifest, **changes))
    return folder


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A whole package in a folder."""
    return _make(tmp_path / "usb" / "lean", CONTENTS)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A package of the same name with another content."""
    return _make(tmp_path / "usb" / "other", {**CONTENTS, "encoder.ort": b"another"})


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models", {})


@pytest.fixture(autouse=True)
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were tried, by a recognizer that takes anything."""
    folders: list[Path] = []

    def load(folder: Path, manifest: Manifest, threads: int = 0) -> None:
        assert load_manifest(folder) == manifest
        assert threads == 0
        folders.append(folder)

    monkeypatch.setattr("harkd.recognizer.factory.load_recognizer", load)
    return folders


@pytest.fixture
def before(store: ModelStore, package: Path) -> dict[str, bytes]:
    """What the store holds of the first package, to be found again later."""
    import_package(store, package)
    return _held(store.root / NAME)


def _held(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _left(store: ModelStore) -> list[str]:
    """What is in the store beside its lock."""
    if not store.root.exists():
        return []
    return sorted(path.name for path in store.root.iterdir() if path.name != ".lock")


def _run(store: ModelStore, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(models_command, ["--models-dir", str(store.root), *words])
    if isinstance(result.exception, HarkdError):
        raise result.exception
    return result.exit_code, result.output


# What is installed


def test_an_import_installs_the_files_of_the_manifest_and_no_others(
    store: ModelStore, package: Path
) -> None:
    (package / "notes.txt").touch()
    (package / "samples" / "private.wav").touch()
    kept = _held(package)
    done = import_package(store, package)
    assert done.copied
    assert done.model == store.locate(NAME)
    held = _held(store.root / NAME)
    assert held.pop(MANIFEST_NAME)
    assert held.pop(IMPORT_MARK) == f"{package}\n".encode()
    assert held == CONTENTS
    assert store.verify(NAME) == []
    assert _left(store) == [NAME]
    assert _held(package) == kept


def test_other_users_may_read_an_imported_model(store: ModelStore, package: Path) -> None:
    (package / "LICENSE").chmod(0o600)
    before = os.umask(0o022)
    try:
        found = import_package(store, package).model
    finally:
        os.umask(before)
    assert found.dir.stat().st_mode & 0o777 == 0o755
    assert (found.dir / "LICENSE").stat().st_mode & 0o777 == 0o644


def test_another_name_is_written_into_the_copy_alone(store: ModelStore, package: Path) -> None:
    assert import_package(store, package, name="kitchen").model.manifest.name == "kitchen"
    assert load_manifest(store.root / "kitchen").name == "kitchen"
    assert load_manifest(package).name == NAME
    assert _left(store) == ["kitchen"]


def test_links_to_files_are_copied_as_files(store: ModelStore, package: Path) -> None:
    elsewhere = package.parent / "elsewhere"
    (package / "encoder.ort").rename(elsewhere)
    (package / "encoder.ort").symlink_to(elsewhere)
    import_package(store, package)
    copy = store.root / NAME / "encoder.ort"
    assert not copy.is_symlink()
    assert copy.read_bytes() == CONTENTS["encoder.ort"]


def test_a_licence_that_is_named_and_not_pinned_comes_along(
    store: ModelStore, package: Path
) -> None:
    manifest = load_manifest(package)
    files = {role: file for role, file in manifest.files.items() if role != "licence"}
    write_manifest(package, msgspec.structs.replace(manifest, files=files))
    import_package(store, package)
    assert (store.root / NAME / "LICENSE").read_bytes() == CONTENTS["LICENSE"]


def test_the_copy_is_tried_before_it_is_visible(
    store: ModelStore, package: Path, tried: list[Path]
) -> None:
    import_package(store, package)
    (folder,) = tried
    assert folder.parent.parent == store.root
    assert folder.parent.name.startswith(".staging-")
    import_package(store, package, force=True, trial=False)
    assert len(tried) == 1


def test_progress_tells_the_stages_and_bytes(store: ModelStore, package: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    import_package(store, package, progress=lambda *step: steps.append(step))
    assert list(dict.fromkeys(stage for stage, _, _ in steps)) == ["copy", "try"]
    assert all(0 <= done_bytes <= total_bytes for _, done_bytes, total_bytes in steps)


# One that is there already


def test_the_same_package_is_not_copied_again(
    store: ModelStore, package: Path, before: dict[str, bytes], tried: list[Path]
) -> None:
    assert not import_package(store, package).copied
    assert len(tried) == 1
    assert _held(store.root / NAME) == before


def test_free_form_figures_do_not_make_the_same_package_another(
    store: ModelStore, tmp_path: Path
) -> None:
    package = _make(tmp_path / "usb", CONTENTS, measured={"wer": 0.1})
    file = package / MANIFEST_NAME
    file.write_text(file.read_text().replace("wer: 0.1", "day: 2026-01-02"))
    assert load_manifest(package).measured == {"day": datetime.date(2026, 1, 2)}
    assert import_package(store, package).copied
    assert not import_package(store, package).copied


def test_another_content_needs_force_or_another_name(
    store: ModelStore, other: Path, before: dict[str, bytes]
) -> None:
    with pytest.raises(ModelError, match=f"another {NAME}") as caught:
        import_package(store, other)
    assert "--force" in caught.value.mend
    assert "--name" in caught.value.mend
    assert _held(store.root / NAME) == before
    import_package(store, other, name="other")
    import_package(store, other, force=True)
    assert (store.root / NAME / "encoder.ort").read_bytes() == b"another"
    assert _left(store) == ["other", NAME]


def test_the_same_package_mends_a_damaged_copy_without_force(
    store: ModelStore, package: Path, before: dict[str, bytes]
) -> None:
    (store.root / NAME / "encoder.ort").write_bytes(b"ENCODER" * 1000)
    assert import_package(store, package).copied
    assert _held(store.root / NAME) == before


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_whatever_else_has_the_name_stays_without_force(
    store: ModelStore, package: Path, what: str
) -> None:
    store.root.mkdir()
    target = store.root / NAME
    if what == "file":
        target.touch()
    elif what == "folder":
        target.mkdir()
    else:
        target.symlink_to("nowhere")
    with pytest.raises(ModelError, match="another tiny-lean"):
        import_package(store, package)
    assert os.path.lexists(target)
    import_package(store, package, force=True)
    assert store.verify(NAME) == []


# What is no package


def test_what_is_no_folder_is_told(store: ModelStore, package: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match="does not exist"):
        import_package(store, tmp_path / "absent")
    with pytest.raises(ModelMissingError, match="is no folder") as caught:
        import_package(store, package / MANIFEST_NAME)
    assert f"`harkd models import {package}`" in caught.value.mend
    (tmp_path / "lean.tar.gz").touch()
    with pytest.raises(ModelMissingError, match="is no folder") as caught:
        import_package(store, tmp_path / "lean.tar.gz")
    assert caught.value.mend.startswith("Unpack it")


def test_a_folder_of_bare_model_files_is_no_package(store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "encoder.onnx").touch()
    with pytest.raises(ModelMissingError, match=r"has no model\.yaml: it is not a package") as e:
        import_package(store, tmp_path / "bare")
    assert "`harkd-convert` makes one" in e.value.mend
    assert _left(store) == []


def test_a_folder_above_a_package_names_it(store: ModelStore, package: Path) -> None:
    with pytest.raises(ModelMissingError) as caught:
        import_package(store, package.parent)
    assert f"`harkd models import {package}`" in caught.value.mend


def test_a_folder_in_the_store_is_refused(store: ModelStore, before: dict[str, bytes]) -> None:
    (store.root.parent / "link").symlink_to(store.root / NAME)
    for folder in (store.root, store.root / NAME, store.root.parent / "link"):
        with pytest.raises(ModelError, match="in the store itself"):
            import_package(store, folder, name="twin", force=True)
    assert _held(store.root / NAME) == before


@pytest.mark.parametrize("name", ["Upper", "a/b", "..", ".x", "", "two words", "line\n"])
def test_a_name_that_cannot_be_a_directory_of_the_store_is_refused(
    store: ModelStore, package: Path, name: str
) -> None:
    with pytest.raises(ModelError, match="is no name for a model"):
        import_package(store, package, name=name)
    assert _left(store) == []


def test_a_manifest_of_a_newer_format_says_to_update(store: ModelStore, package: Path) -> None:
    raw = yaml.safe_load((package / MANIFEST_NAME).read_text())
    (package / MANIFEST_NAME).write_text(yaml.safe_dump({**raw, "format": 2, "new": True}))
    with pytest.raises(ModelDamagedError, match="format 2 and this harkd reads format 1") as caught:
        import_package(store, package)
    assert "Update harkd" in caught.value.mend


@pytest.mark.parametrize("trial", [True, False])
@pytest.mark.parametrize(
    ("changes", "what"),
    [({"family": "whisper"}, 'family "whisper"'), ({"sample_rate_hz": 8000}, "wants 8000 Hz")],
)
def test_what_this_version_cannot_run_is_refused_even_untried_and_forced(
    store: ModelStore, tmp_path: Path, changes: dict[str, Any], what: str, trial: bool
) -> None:
    package = _make(tmp_path / "usb", CONTENTS, **changes)
    with pytest.raises(ModelError, match=what):
        import_package(store, package, force=True, trial=trial)
    assert _left(store) == []


def test_a_package_may_not_name_the_file_that_marks_an_import(
    store: ModelStore, package: Path
) -> None:
    text = (package / MANIFEST_NAME).read_text().replace("LICENSE", IMPORT_MARK)
    (package / MANIFEST_NAME).write_text(text)
    with pytest.raises(ModelDamagedError, match="which harkd keeps for itself"):
        import_package(store, package)


# What fails on the way


def test_each_damaged_file_is_named(store: ModelStore, package: Path) -> None:
    (package / "encoder.ort").write_bytes(b"enc")
    (package / "parts" / "tokenizer.bin").write_bytes(b"TOKENS")
    (package / "samples" / "hello.wav").unlink()
    (package / "LICENSE").unlink()
    (package / "LICENSE").symlink_to("/dev/zero")
    with pytest.raises(ModelDamagedError) as caught:
        import_package(store, package, force=True)
    for fault in (
        "encoder.ort: truncated: 3 of 7000 bytes",
        "parts/tokenizer.bin: altered: checksum differs",
        "samples/hello.wav: missing",
        "LICENSE: no regular file",
    ):
        assert fault in caught.value.message
    assert _left(store) == []


def test_an_altered_byte_is_found_while_copying(
    store: ModelStore, package: Path, before: dict[str, bytes], tried: list[Path]
) -> None:
    (package / "encoder.ort").write_bytes(b"ENCODER" * 1000)
    (package / "LICENSE").write_bytes(CONTENTS["LICENSE"].upper())
    with pytest.raises(ModelDamagedError) as caught:
        import_package(store, package, force=True)
    assert "encoder.ort: altered" in caught.value.message
    assert "LICENSE: altered" in caught.value.message
    assert len(tried) == 1
    assert _held(store.root / NAME) == before


def test_a_file_that_grows_meanwhile_does_not_fill_the_disk(
    store: ModelStore, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(_: Path) -> Any:
        while True:
            yield b"\0" * 1000

    monkeypatch.setattr(model_import, "_blocks", endless)
    with pytest.raises(ModelDamagedError, match=r"encoder\.ort: altered"):
        import_package(store, package)


def test_a_medium_that_fails_while_it_is_read_is_not_taken_for_the_store(
    store: ModelStore, package: Path
) -> None:
    """The memory of a process at address 0 looks like an empty file, and cannot be read."""
    (package / "encoder.ort").unlink()
    (package / "encoder.ort").symlink_to("/proc/self/mem")
    manifest = load_manifest(package)
    empty = msgspec.structs.replace(manifest.files["encoder"], size_bytes=0)
    files = {**manifest.files, "encoder": empty}
    write_manifest(package, msgspec.structs.replace(manifest, files=files))
    with pytest.raises(ModelDamagedError, match=r"encoder\.ort: cannot be read: Input/output"):
        import_package(store, package)
    assert _left(store) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_and_folders_that_may_not_be_read_are_told(store: ModelStore, package: Path) -> None:
    (package / "encoder.ort").chmod(0)
    with pytest.raises(ModelDamagedError, match=r"encoder\.ort: cannot be read: Permission"):
        import_package(store, package)
    package.chmod(0)
    with pytest.raises(ModelError, match="cannot be read: Permission"):
        import_package(store, package)
    package.chmod(0o700)


def test_a_full_disk_is_told_before_anything_is_copied(tmp_path: Path, package: Path) -> None:
    store = ModelStore(tmp_path / "models", {}, free_bytes=lambda _: 2_000_000)
    with pytest.raises(ModelError, match="has 2 MB free and the import of tiny-lean needs") as e:
        import_package(store, package)
    assert "HARKD_MODELS" in e.value.mend
    assert _left(store) == []


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), SystemExit(1)]
)
def test_what_ends_the_copy_leaves_the_old_model_and_nothing_else(
    store: ModelStore,
    other: Path,
    before: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    write = model_import._write

    def failing(target: Path, blocks: Any) -> None:
        if target.name == "tokenizer.bin":
            raise error
        write(target, blocks)

    monkeypatch.setattr(model_import, "_write", failing)
    with pytest.raises((ModelError, KeyboardInterrupt, SystemExit)) as caught:
        import_package(store, other, force=True)
    if isinstance(caught.value, ModelError):
        assert "cannot be written: No space left on device" in caught.value.message
        assert caught.value.mend.startswith("Free some space")
    assert _left(store) == [NAME]
    assert _held(store.root / NAME) == before
    monkeypatch.undo()
    assert import_package(store, other, force=True, trial=False).copied


@pytest.mark.parametrize(
    "error",
    [
        lambda folder: ModelDamagedError(f"{folder / 'encoder.ort'} is no model", "pull it"),
        lambda folder: ValueError(f"no such axis in {folder / 'encoder.ort'}"),
    ],
)
def test_a_model_that_does_not_run_here_is_not_installed(
    store: ModelStore,
    other: Path,
    before: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    error: Any,
) -> None:
    def fail(folder: Path, _: Manifest) -> None:
        raise error(folder)

    monkeypatch.setattr("harkd.recognizer.factory.load_recognizer", fail)
    with pytest.raises(ModelError, match="does not run on this machine") as caught:
        import_package(store, other, force=True)
    assert str(other / "encoder.ort") in caught.value.message
    assert ".staging-" not in str(caught.value)
    assert "pull" not in caught.value.mend
    assert "--no-try" in caught.value.mend
    assert _left(store) == [NAME]
    assert _held(store.root / NAME) == before
    assert import_package(store, other, force=True, trial=False).copied


def test_a_rename_that_fails_brings_the_old_model_back(
    store: ModelStore,
    other: Path,
    before: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name == "model":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(ModelError, match="cannot be written: Input/output error"):
        import_package(store, other, force=True)
    assert _left(store) == [NAME]
    assert _held(store.root / NAME) == before


# With other processes


def _start(store: ModelStore, package: Path) -> subprocess.Popen[str]:
    """Import in a process that waits for a line when it tries the model."""
    words = ["models", "--models-dir", str(store.root), "import", str(package)]
    return subprocess.Popen(
        [sys.executable, "-c", IMPORT_IN_A_PROCESS, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(harkd.__file__).parents[1])},
    )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_clears_what_was_staged(
    store: ModelStore, package: Path, number: signal.Signals, status: int
) -> None:
    with _start(store, package) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "trying\n"
        assert any(name.startswith(".staging-") for name in _left(store))
        process.send_signal(number)
        process.wait(20)
    assert process.returncode == status
    assert _left(store) == []


def test_what_a_killed_import_left_is_cleared_by_the_next(store: ModelStore, package: Path) -> None:
    with _start(store, package) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "trying\n"
        process.kill()
    assert any(name.startswith(".staging-") for name in _left(store))
    import_package(store, package)
    assert _left(store) == [NAME]


def test_of_two_imports_at_once_the_second_waits_and_copies_nothing(
    store: ModelStore, package: Path
) -> None:
    with _start(store, package) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "trying\n"
        stages = []

        def progress(stage: str, _done_bytes: int, _total_bytes: int) -> None:
            stages.append(stage)
            if stage == "waiting":
                first.communicate("go on\n")

        assert not import_package(store, package, progress=progress).copied
    assert first.returncode == 0
    assert stages == ["waiting", "verify"]


def test_an_import_holds_the_lock_that_a_pull_takes(store: ModelStore, package: Path) -> None:
    held = []

    def progress(_stage: str, _done_bytes: int, _total_bytes: int) -> None:
        with (store.root / ".lock").open("a") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held.append(True)

    import_package(store, package, progress=progress)
    assert held


# The command line


def test_import_says_where_it_lies_and_how_to_use_it(store: ModelStore, package: Path) -> None:
    status, said = _run(store, "import", str(package))
    assert status == 0
    assert said.splitlines() == [
        "Copying",
        "Trying it",
        f"{NAME} is installed in {store.root / NAME}",
        f"To use it, write `recognizer.model: {NAME}` in the settings, or set "
        f"HARKD_RECOGNIZER__MODEL={NAME}",
    ]
    assert f"{NAME} is already installed in" in _run(store, "import", str(package))[1]
    said = _run(store, "import", str(package), "--name", "kitchen", "--no-try")[1]
    assert "Trying" not in said
    assert f"kitchen is installed in {store.root / 'kitchen'}" in said


def test_a_damaged_imported_model_says_to_import_it_again(
    store: ModelStore, tmp_path: Path
) -> None:
    package = _make(tmp_path / "a stick", CONTENTS)
    import_package(store, package, name="kitchen")
    (store.root / "kitchen" / "LICENSE").unlink()
    again = f"harkd models import '{package}' --name kitchen --force"
    assert store.mend("kitchen") == f"Import it again: `{again}`"
    assert again in _run(store, "list")[1]
    status, said = _run(store, "verify", "kitchen")
    assert status == 1
    assert again in said
    assert "pull" not in said


def test_a_mark_that_is_gone_or_odd_does_no_harm(store: ModelStore, package: Path) -> None:
    import_package(store, package)
    (store.root / NAME / IMPORT_MARK).write_bytes(b"/mnt/\xff")
    assert store.imported_from(NAME) == os.fsdecode(b"/mnt/\xff")
    (store.root / NAME / IMPORT_MARK).unlink()
    assert store.imported_from(NAME) == ""
    assert store.mend(NAME) == "Copy the model's directory again from where it came"


@pytest.mark.parametrize("words", [["import", "--help"], ["--models-dir", "/nowhere", "list"]])
def test_onnxruntime_is_loaded_by_no_other_command_nor_by_its_help(words: list[str]) -> None:
    script = (
        "import sys; from harkd.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "sys.exit('onnxruntime' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "models", *words], capture_output=True, timeout=30
    )
    assert done.returncode == 0


# With the real model


@pytest.mark.model
def test_the_default_model_can_be_imported_under_another_name_and_run(
    store: ModelStore, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harkd.recognizer.factory.load_recognizer", load_recognizer)
    found = import_package(store, model_dir, name="my-tiny").model
    recognizer = load_recognizer(found.dir, found.manifest)
    assert recognizer.name == "my-tiny"
    assert store.verify("my-tiny") == []


@pytest.mark.model
def test_a_package_whose_files_belong_to_other_roles_is_refused_by_the_trial(
    store: ModelStore, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harkd.recognizer.factory.load_recognizer", load_recognizer)
    manifest = load_manifest(model_dir)
    for file in manifest.all_files():
        (tmp_path / "usb" / file.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "usb" / file.path).symlink_to(model_dir / file.path)
    files = {**manifest.files, "encoder": manifest.files["decoder"]}
    write_manifest(tmp_path / "usb", msgspec.structs.replace(manifest, files=files))
    with pytest.raises(ModelError, match="does not run on this machine"):
        import_package(store, tmp_path / "usb")
    assert _left(store) == []
