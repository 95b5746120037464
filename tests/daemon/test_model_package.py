"""`model.yaml`, and the files that it names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harkd.errors import ModelDamagedError
from harkd.model_catalogue import CATALOGUE, CatalogueEntry
from harkd.model_package import (
    FileFault,
    Limits,
    Manifest,
    PackagedFile,
    Sample,
    load_manifest,
    verify_files,
    write_manifest,
)


def _manifest(**changes: Any) -> Manifest:
    files = {
        "encoder": PackagedFile(
            path="encoder.ort", sha256=hashlib.sha256(b"enc").hexdigest(), size_bytes=3
        )
    }
    sample = Sample(path="samples/a.wav", sha256=hashlib.sha256(b"riff").hexdigest(), size_bytes=4)
    given: dict[str, Any] = {
        "name": "tiny",
        "family": "moonshine",
        "version": "1",
        "languages": ("en",),
        "licence": "MIT",
        "licence_file": "LICENSE",
        "files": files,
        "samples": (sample,),
    }
    return Manifest(**{**given, **changes})


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "samples").mkdir()
    (tmp_path / "encoder.ort").write_bytes(b"enc")
    (tmp_path / "samples" / "a.wav").write_bytes(b"riff")
    write_manifest(tmp_path, _manifest())
    return tmp_path


def _edit(package: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = package / "model.yaml"
    raw = yaml.safe_load(file.read_text())
    change(raw)
    file.write_text(yaml.safe_dump(raw))


def test_a_written_manifest_reads_back_the_same(tmp_path: Path) -> None:
    manifest = _manifest(
        limits=Limits(max_tokens_per_s=8.0, max_segment_s=12.0),
        measured={"wer_percent": 4.5, "on": "a test"},
        source="somewhere: with ünusual text",
    )
    write_manifest(tmp_path, manifest)
    assert load_manifest(tmp_path) == manifest
    assert [file.name for file in tmp_path.iterdir()] == ["model.yaml"]


def test_the_file_calls_the_size_bytes_and_leaves_an_unknown_text_out(package: Path) -> None:
    raw = yaml.safe_load((package / "model.yaml").read_text())
    assert raw["format"] == 1
    assert raw["files"]["encoder"]["bytes"] == 3
    assert sorted(raw["samples"][0]) == ["bytes", "path", "sha256"]


def test_what_may_be_omitted_has_the_usual_value(package: Path) -> None:
    _edit(package, lambda raw: [raw.pop(key) for key in ("sample_rate_hz", "limits", "samples")])
    manifest = load_manifest(package)
    assert manifest.sample_rate_hz == 16000
    assert manifest.limits == Limits(max_tokens_per_s=6.5, max_segment_s=30.0)
    assert manifest.samples == ()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda raw: raw.pop("family"), "family"),
        (lambda raw: raw.update(colour="red"), "colour"),
        (lambda raw: raw.update(languages=[]), "languages"),
        (lambda raw: raw.update(name="../evil"), "name"),
        (lambda raw: raw.update(files={}), "files"),
        (lambda raw: raw["files"]["encoder"].update(sha256="ABC"), "sha256"),
        (lambda raw: raw["files"]["encoder"].update(bytes="3"), "bytes"),
        (lambda raw: raw["limits"].update(max_segment_s=0), "max_segment_s"),
    ],
)
def test_a_fault_of_the_manifest_names_the_file_the_field_and_the_mend(
    package: Path, change: Callable[[dict[str, Any]], object], what: str
) -> None:
    _edit(package, change)
    with pytest.raises(ModelDamagedError) as caught:
        load_manifest(package)
    assert str(package / "model.yaml") in caught.value.message
    assert what in caught.value.message
    assert caught.value.mend


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../outside", "a/../../b", "a\\b", ".", "model.yaml", "a\x00b"]
)
def test_a_path_may_not_leave_the_package(package: Path, path: str) -> None:
    _edit(package, lambda raw: raw["files"]["encoder"].update(path=path))
    with pytest.raises(ModelDamagedError, match=r"files\.encoder\.path .* inside the package"):
        load_manifest(package)


def test_all_bad_paths_are_named_at_once(package: Path) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["samples"][0]["path"] = "/a"
        raw["licence_file"] = "../b"

    _edit(package, change)
    with pytest.raises(ModelDamagedError, match=r"samples\[0\]\.path.*licence_file"):
        load_manifest(package)


def test_a_manifest_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ModelDamagedError, match="licence_file"):
        write_manifest(tmp_path, _manifest(licence_file="/LICENSE"))
    with pytest.raises(ModelDamagedError, match="name"):
        write_manifest(tmp_path, _manifest(name="Not A Name"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: [", "is no YAML"),
        ("a: \x00", "is no YAML"),
        ("- 1", "no mapping"),
        ("", "no mapping"),
        ("name: x", "format None"),
    ],
)
def test_a_file_that_is_no_manifest_says_so(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "model.yaml").write_text(text)
    with pytest.raises(ModelDamagedError, match=what):
        load_manifest(tmp_path)


def test_a_missing_manifest_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelDamagedError, match=r"model\.yaml is missing"):
        load_manifest(tmp_path)


def test_a_newer_format_asks_for_an_update_whatever_else_it_holds(package: Path) -> None:
    _edit(package, lambda raw: raw.update(format=2, something="new"))
    with pytest.raises(ModelDamagedError, match="format 2") as caught:
        load_manifest(package)
    assert "Update harkd" in caught.value.mend


@pytest.mark.parametrize("quick", [True, False])
def test_a_whole_package_has_no_faults(package: Path, quick: bool) -> None:
    assert verify_files(package, load_manifest(package), quick=quick) == []


@pytest.mark.parametrize("quick", [True, False])
def test_missing_and_truncated_files_are_named_by_both_checks(package: Path, quick: bool) -> None:
    (package / "encoder.ort").write_bytes(b"e")
    (package / "samples" / "a.wav").unlink()
    assert verify_files(package, load_manifest(package), quick=quick) == [
        FileFault("encoder.ort", "truncated: 1 of 3 bytes"),
        FileFault("samples/a.wav", "missing"),
    ]


def test_an_altered_file_of_the_same_size_is_found_by_the_full_check_only(package: Path) -> None:
    (package / "encoder.ort").write_bytes(b"ENC")
    manifest = load_manifest(package)
    assert verify_files(package, manifest, quick=True) == []
    assert verify_files(package, manifest, quick=False) == [
        FileFault("encoder.ort", "altered: checksum differs")
    ]


def test_a_longer_file_or_a_directory_in_its_place_is_a_fault(package: Path) -> None:
    (package / "encoder.ort").write_bytes(b"encoder")
    (package / "samples" / "a.wav").unlink()
    (package / "samples" / "a.wav").mkdir()
    assert verify_files(package, load_manifest(package), quick=True) == [
        FileFault("encoder.ort", "altered: 7 bytes instead of 3"),
        FileFault("samples/a.wav", "no regular file"),
    ]


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=list(CATALOGUE))
def test_each_catalogue_entry_makes_a_readable_manifest_and_knows_every_member(
    entry: CatalogueEntry, tmp_path: Path
) -> None:
    write_manifest(tmp_path, entry.manifest)
    assert load_manifest(tmp_path) == entry.manifest
    assert {file.path for file in entry.manifest.all_files()} == set(entry.members)
    assert entry.manifest.licence_file == entry.manifest.files["licence"].path
    assert "==" in entry.requirement
    assert len(entry.wheel_sha256) == 64
