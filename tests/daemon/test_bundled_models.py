"""Models that come in the Python package: found without a pull, never written to, and whole."""

import hashlib
import json
import re
import stat
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from harkd import bundled_models, model_catalogue
from harkd.bundled_models import BUNDLED, BUNDLED_DIR
from harkd.cli_models import models as models_command
from harkd.errors import HarkdError, ModelDamagedError, ModelMissingError
from harkd.memory_check import candidates
from harkd.memory_need import need_of
from harkd.model_catalogue import DEFAULT_MODEL
from harkd.model_import import import_package
from harkd.model_package import (
    MANIFEST_NAME,
    Manifest,
    PackagedFile,
    load_manifest,
    verify_files,
    write_manifest,
)
from harkd.model_store import IMPORT_MARK, InstalledModel, ModelStore, find_model
from harkd.recognizer.factory import load_recognizer
from harkd.recognizer.onnx import fetch_anew
from harkd.service_needs import Machine, lacks
from harkd.settings import EndpointSettings, ModelsSettings, RecognizerSettings, Settings

NAME = BUNDLED[0]
MOST_ZIPPED_BYTES = 30_000_000
"""What the project ships of one model, at most: issue 9."""
COME_ALONG = sorted(path for path in BUNDLED_DIR.glob("*") if path.is_dir())


def make_package(folder: Path, name: str, tokens: bytes = b"tokens") -> Path:
    """A package that passes every check of the store; nothing can be heard with it."""
    package = folder / name
    package.mkdir(parents=True)
    contents = {"encoder.onnx": b"encoder" * 9, "tokenizer.bin": tokens, "LICENSE": b"MIT"}
    for path, content in contents.items():
        (package / path).write_bytes(content)
    files = {
        path.partition(".")[0].lower(): PackagedFile(
            path=path, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content)
        )
        for path, content in contents.items()
    }
    manifest = Manifest(
        name=name,
        family="moonshine-streaming",
        version="1",
        languages=("en",),
        licence="MIT",
        licence_file="LICENSE",
        files=files,
    )
    write_manifest(package, manifest)
    return package


def state_of(folder: Path) -> dict[str, int]:
    """Every file and folder, with the time of its last change."""
    paths = [folder, *folder.rglob("*")]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in paths}


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models of harkd's own, with one in it."""
    folder = tmp_path / "site-packages" / "harkd" / "models"
    make_package(folder, NAME)
    monkeypatch.setattr("harkd.model_store.BUNDLED_DIR", folder)
    return folder


@pytest.fixture
def store(bundled: Path, tmp_path: Path) -> ModelStore:
    """A store with nothing of its own."""
    assert bundled.is_dir()
    return ModelStore(tmp_path / "store", {})


def run(store: ModelStore, *words: str) -> tuple[int, str]:
    """What `harkd models` says."""
    result = CliRunner().invoke(models_command, ["--models-dir", str(store.root), *words])
    if isinstance(result.exception, HarkdError):
        raise result.exception
    return result.exit_code, result.output


# The store


def test_it_is_found_by_name_without_a_pull_and_without_a_store(
    store: ModelStore, bundled: Path
) -> None:
    assert store.locate(NAME).dir == bundled / NAME
    assert store.is_bundled(NAME)
    assert [each.name for each in store.installed()] == [NAME]
    assert store.verify(NAME) == []
    assert not store.root.exists()


def test_the_settings_find_it(store: ModelStore, bundled: Path) -> None:
    settings = replace(
        Settings(),
        models=ModelsSettings(dir=str(store.root)),
        recognizer=RecognizerSettings(model=NAME),
    )
    assert find_model(settings).dir == bundled / NAME


def test_a_store_and_a_system_that_have_one_of_the_name_come_first(
    store: ModelStore, bundled: Path, tmp_path: Path
) -> None:
    system = make_package(tmp_path / "system", NAME, b"system")
    with_system = ModelStore(store.root, {}, shipped=system.parent)
    assert with_system.locate(NAME).dir == system
    own = make_package(store.root, NAME, b"own")
    assert with_system.locate(NAME).dir == own
    assert not with_system.is_bundled(NAME)
    assert [each.dir for each in with_system.installed()] == [own]
    assert with_system.remove(NAME) == own
    assert store.locate(NAME).dir == bundled / NAME


def test_a_pull_has_nothing_to_fetch(store: ModelStore, bundled: Path) -> None:
    for force in (False, True):
        assert store.pull(NAME, force=force).dir == bundled / NAME
    assert not store.root.exists()


def test_it_cannot_be_removed(store: ModelStore) -> None:
    with pytest.raises(ModelMissingError, match="comes with harkd and lies in") as caught:
        store.remove(NAME)
    assert caught.value.mend == "Leave it there: it goes when harkd is uninstalled"
    assert not store.root.exists()


def test_nothing_that_is_done_with_it_writes_to_its_folder(
    store: ModelStore, bundled: Path, tmp_path: Path
) -> None:
    before = state_of(bundled)
    other = make_package(tmp_path / "usb", "other")
    import_package(store, other, trial=False)
    import_package(store, make_package(tmp_path / "usb", NAME, b"new"), trial=False)
    for act in (store.locate, store.pull, store.verify, store.remove):
        act(NAME)
    run(store, "list")
    with pytest.raises(ModelMissingError):
        store.remove(NAME)
    assert state_of(bundled) == before


def test_a_damaged_one_is_mended_by_installing_harkd_again(
    store: ModelStore, bundled: Path
) -> None:
    (bundled / NAME / "encoder.onnx").write_bytes(b"short")
    (bundled / NAME / "LICENSE").unlink()
    for act in (store.locate, store.pull):
        with pytest.raises(ModelDamagedError, match=r"encoder\.onnx: truncated") as caught:
            act(NAME)
        assert caught.value.mend == bundled_models.REINSTALL
    assert [str(fault) for fault in store.verify(NAME)] == [
        "encoder.onnx: truncated: 5 of 63 bytes",
        "LICENSE: missing",
    ]


def test_one_that_does_not_load_is_mended_in_the_same_way() -> None:
    said = fetch_anew(BUNDLED_DIR / NAME / "encoder.onnx")
    assert said == f"`harkd models verify {NAME}` checks it. {bundled_models.REINSTALL}"
    assert "--force` replaces it" in fetch_anew(BUNDLED_DIR.parent / "other" / "encoder.onnx")


def test_a_damaged_one_of_the_store_can_make_way_for_it(store: ModelStore) -> None:
    own = make_package(store.root, NAME)
    (own / "LICENSE").unlink()
    with pytest.raises(ModelDamagedError) as caught:
        store.locate(NAME)
    assert caught.value.mend == (f"Use the one that comes with harkd: `harkd models remove {NAME}`")
    (own / IMPORT_MARK).write_text("/usb/new\n")
    assert store.mend(NAME) == (
        f"Import it again: `harkd models import /usb/new --name {NAME} --force`, or use the one "
        f"that comes with harkd: `harkd models remove {NAME}`"
    )


def test_sources_without_models_say_so_and_name_another(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store", bundled=tmp_path / "none")
    for act in (store.locate, store.pull, store.remove, store.verify):
        with pytest.raises(ModelMissingError, match="should come with harkd, and is not in") as it:
            act(NAME)
        assert "`harkd models pull moonshine-tiny-en`" in it.value.mend
    assert store.installed() == []
    assert "moonshine-tiny-en" in model_catalogue.CATALOGUE


def test_it_is_offered_where_another_model_is_too_large(store: ModelStore) -> None:
    assert (True, NAME) in [(there, manifest.name) for there, manifest in candidates(store)]


def test_the_service_misses_nothing(store: ModelStore, tmp_path: Path) -> None:
    file = tmp_path / "harkd.yaml"
    file.write_text(f"recognizer: {{model: {NAME}}}\n")
    machine = Machine(settings_file=file, models=store.root, password=tmp_path / "none")
    found = list(lacks(machine, tmp_path / "bin" / "harkd"))
    assert not [lack for lack in found if "model" in lack.what]


def test_the_service_of_sources_without_models_is_not_sent_to_pull_it(
    store: ModelStore, bundled: Path, tmp_path: Path
) -> None:
    bundled.rename(tmp_path / "elsewhere")
    file = tmp_path / "harkd.yaml"
    file.write_text(f"recognizer: {{model: {NAME}}}\n")
    machine = Machine(settings_file=file, models=store.root, password=tmp_path / "none")
    (lack,) = (each for each in lacks(machine, tmp_path / "harkd") if "model" in each.what)
    assert "should come with harkd" in lack.what
    assert lack.fatal


# The command line


def test_list_tells_that_it_comes_with_harkd_first_of_all(store: ModelStore, bundled: Path) -> None:
    _, table = run(store, "list")
    assert table.splitlines()[1].startswith(NAME)
    assert "comes with harkd" in table.splitlines()[1]
    assert f"{DEFAULT_MODEL} (default)" in table
    rows = {row["name"]: row for row in json.loads(run(store, "list", "--json")[1])}
    assert rows[NAME]["state"] == "installed"
    assert rows[NAME]["bundled"] is True
    assert rows[NAME]["dir"] == str(bundled / NAME)
    assert rows[NAME]["download_bytes"] == 0
    assert rows["moonshine-base-en"]["bundled"] is False


def test_list_tells_of_the_one_that_is_used_instead(store: ModelStore) -> None:
    own = make_package(store.root, NAME)
    (own / IMPORT_MARK).write_text("/usb/new\n")
    rows = {row["name"]: row for row in json.loads(run(store, "list", "--json")[1])}
    assert (rows[NAME]["bundled"], rows[NAME]["dir"]) == (False, str(own))
    said = run(store, "pull", NAME)[1].splitlines()
    assert said[0] == f"{NAME} is installed in {own}"
    assert "imported from /usb/new and is left as it is; to use the one that comes" in said[-1]


def test_pull_path_and_verify_succeed_without_a_network(
    store: ModelStore, bundled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a process was started"))
    status, said = run(store, "pull")
    assert status == 0
    assert f"{NAME} comes with harkd: nothing to fetch. It lies in {bundled / NAME}\n" in said
    assert run(store, "path", NAME) == (0, f"{bundled / NAME}\n")
    assert run(store, "verify") == (0, f"{NAME}: whole\n")
    assert not store.root.exists()


def test_verify_names_the_altered_file_and_the_mend(store: ModelStore, bundled: Path) -> None:
    (bundled / NAME / "tokenizer.bin").write_bytes(b"TOKENS")
    (bundled / NAME / "LICENSE").unlink()
    status, said = run(store, "verify", NAME)
    assert status == 1
    assert f"{NAME}: tokenizer.bin: altered: checksum differs" in said
    assert f"{bundled_models.REINSTALL}.\n" in said


def test_remove_refuses_before_it_asks(
    store: ModelStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelMissingError, match="comes with harkd"):
        run(store, "remove", NAME)
    assert "Delete" not in capsys.readouterr().out


# Those that really come along


def test_at_least_the_one_that_is_promised_comes_along() -> None:
    assert set(BUNDLED) <= {path.name for path in COME_ALONG}


def test_the_default_model_is_one_of_them_and_has_a_recording_to_try_it_with() -> None:
    """`scripts/quickstart` plays it, `harkd doctor` and `harkd bench` hear it."""
    assert Settings().recognizer.model == DEFAULT_MODEL
    found = find_model(Settings(models=ModelsSettings(dir="/nonexistent")))
    assert found.dir == BUNDLED_DIR / DEFAULT_MODEL
    assert "samples/commands.wav" in [sample.path for sample in found.manifest.samples]


@pytest.mark.parametrize("package", COME_ALONG, ids=lambda path: path.name)
def test_every_byte_of_it_is_what_its_manifest_says(package: Path) -> None:
    manifest = load_manifest(package)
    assert manifest.name == package.name
    assert verify_files(package, manifest, quick=False) == []
    named = {MANIFEST_NAME, *(file.path for file in manifest.all_files())}
    assert {
        str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()
    } == named
    assert all(path.stat().st_mode & stat.S_IROTH for path in package.rglob("*"))


@pytest.mark.parametrize("package", COME_ALONG, ids=lambda path: path.name)
def test_its_licence_comes_along(package: Path) -> None:
    manifest = load_manifest(package)
    assert manifest.licence == "MIT"
    text = (package / manifest.licence_file).read_text(encoding="utf-8")
    assert "Permission is hereby granted, free of charge" in text
    assert "Copyright" in text


@pytest.mark.parametrize("package", COME_ALONG, ids=lambda path: path.name)
def test_it_makes_the_wheel_no_larger_than_was_allowed(package: Path, tmp_path: Path) -> None:
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path in package.rglob("*"):
            out.write(path, path.relative_to(package))
    assert archive.stat().st_size <= MOST_ZIPPED_BYTES


@pytest.mark.model
@pytest.mark.parametrize("package", COME_ALONG, ids=lambda path: path.name)
def test_it_hears_speech_and_its_folder_stays_as_it_is(package: Path, model_dir: Path) -> None:
    before, manifest = state_of(package), load_manifest(package)
    recognizer = load_recognizer(package, manifest, threads=1)

    def words_in(recording: Path) -> list[str]:
        samples, _ = soundfile.read(recording, dtype="int16")
        stream = recognizer.stream()
        for block in np.array_split(samples, 20):
            stream.accept(block)
            stream.hypothesis()
        return words_of(stream.finish().text)

    for sample in manifest.samples:
        assert words_in(package / sample.path) == words_of(sample.text or "")
    words = words_in(model_dir / "samples" / "beckett.wav")  # somebody else reads there
    assert words[:8] == ["ever", "tried", "ever", "failed", "no", "matter", "try", "again"]
    assert words[-2:] == ["fail", "better"]
    assert state_of(package) == before


def words_of(text: str) -> list[str]:
    return re.findall("[a-z]+", text.lower())


@pytest.mark.parametrize("package", COME_ALONG, ids=lambda path: path.name)
def test_what_it_needs_of_memory_is_known(package: Path) -> None:
    assert need_of(load_manifest(package), EndpointSettings()) is not None


def test_those_that_come_along_are_found_by_every_store(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    for package in COME_ALONG:
        found = store.locate(package.name)
        assert found == InstalledModel(package, load_manifest(package))
