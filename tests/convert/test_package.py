"""Packages: what is in them, that they are the same everywhere, and written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile

from harkd import __version__
from harkd.model_package import Limits, load_manifest, verify_files, write_manifest
from harkd.recognizer.factory import load_recognizer
from harkd_convert.checkpoint import Source
from harkd_convert.conversion import Conversion, convert, read_samples
from harkd_convert.errors import ConvertError
from harkd_convert.graph import Precision
from harkd_convert.package import (
    Options,
    completed,
    limits_of,
    quantizable,
    staged,
    tokens_of,
    write_package,
)
from small_moonshine import WORDS, random_source, write_directory

BECKETT = "ever tried ever failed no matter try again fail again fail better"


def plain(text: str) -> str:
    return text.lower().replace(",", "").replace(".", "")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def converted(tmp_path: Path, **options: object) -> tuple[Path, Conversion]:
    source = tmp_path / "small"
    if not source.exists():
        write_directory(source)
    target = tmp_path / "out" / "package"
    return target, convert(source, target, Options(**options), force=True)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------- what is in it


def test_it_has_graphs_tokenizer_licence_and_a_manifest_that_tells_where_it_is_from(
    tmp_path: Path,
) -> None:
    target, done = converted(tmp_path)
    assert sorted(contents(target)) == [
        "LICENSE",
        "decoder.onnx",
        "encoder.onnx",
        "model.yaml",
        "stem.onnx",
        "tokenizer.bin",
    ]
    manifest = load_manifest(target)
    assert manifest == done.manifest
    assert not verify_files(target, manifest, quick=False)
    assert manifest.name == "small-lean"
    assert manifest.family == "moonshine-lean"
    assert manifest.version.startswith(f"{__version__}+")
    assert (manifest.licence, manifest.languages) == ("MIT", ("en",))
    assert (target / manifest.licence_file).read_text() == "Do what you like.\n"
    assert manifest.source.startswith("the Hugging Face directory small")
    assert manifest.limits == Limits()
    checksums = {
        name: hashlib.sha256((tmp_path / "small" / name).read_bytes()).hexdigest()
        for name in ("config.json", "model.safetensors", "tokenizer.json")
    }
    assert manifest.measured == {
        "source_sha256": checksums,
        "converter": {"version": __version__, "precision": "int8", "keep_float": []},
    }
    assert str(tmp_path) not in (target / "model.yaml").read_text()
    assert done.trial is None
    assert done.agreement.tokens > 4


@pytest.mark.parametrize("precision", Precision)
def test_the_daemon_runs_it(tmp_path: Path, precision: Precision) -> None:
    target, done = converted(tmp_path, precision=precision)
    recognizer = load_recognizer(target, done.manifest, 1)
    stream = recognizer.stream()
    stream.accept(np.random.default_rng(0).integers(-3000, 3000, 40_000, np.int16))
    words = stream.finish().text.replace("<unk>", " ").replace("<s>", " ").split()
    assert words
    assert set(words) <= set(WORDS)
    suffix = "lean" if precision is Precision.INT8 else f"lean-{precision}"
    assert done.manifest.name == f"small-{suffix}"


@pytest.mark.model
def test_a_converted_tiny_hears_what_pytorch_hears(
    model_dir: Path, lean: tuple[Path, Conversion]
) -> None:
    _, done = lean
    assert done.agreement.cross_error < 1e-5
    assert done.manifest.limits == load_manifest(model_dir).limits
    assert done.manifest.samples == ()
    assert done.trial
    assert done.trial.recording == "beckett.wav"
    assert plain(done.trial.text) == plain(done.trial.wanted) == BECKETT


@pytest.mark.model
def test_tiny_in_float16_hears_the_same(model_dir: Path, tmp_path: Path) -> None:
    done = convert(model_dir, tmp_path / "lean", Options(Precision.FP16))
    assert done.trial
    assert plain(done.trial.text) == BECKETT


@pytest.mark.model
def test_a_converted_base_hears_what_pytorch_hears(base_model_dir: Path, tmp_path: Path) -> None:
    done = convert(base_model_dir, tmp_path / "lean", Options())
    assert done.trial
    assert done.trial.text == done.trial.wanted
    assert plain(done.trial.text) == BECKETT
    assert done.manifest.size_bytes < 100e6


def test_the_limits_are_those_of_a_harkd_package(tmp_path: Path) -> None:
    target, done = converted(tmp_path)
    assert limits_of(tmp_path / "small") == Limits()
    limits = Limits(max_tokens_per_s=13.0, max_segment_s=12.0)
    write_manifest(target, msgspec.structs.replace(done.manifest, limits=limits))
    assert limits_of(target) == limits


# ----------------------------------------------------------------------------- the same bytes


def test_two_conversions_are_the_same_to_the_last_byte(tmp_path: Path) -> None:
    """The second in another process, with another order of hashes."""
    target, _ = converted(tmp_path)
    other = tmp_path / "elsewhere" / "of-another-name"
    subprocess.run(
        [sys.executable, "-m", "harkd_convert", "moonshine", tmp_path / "small", "--out", other],
        env={
            **os.environ,
            "PYTHONHASHSEED": "1",
            "PYTHONPATH": str(Path(__file__).parents[2] / "convert"),
        },
        check=True,
        capture_output=True,
    )
    assert contents(target) == contents(other)


def test_another_source_or_option_has_another_version(tmp_path: Path) -> None:
    versions = {converted(tmp_path)[1].manifest.version}
    assert converted(tmp_path)[1].manifest.version in versions
    versions.add(converted(tmp_path, precision=Precision.FP32)[1].manifest.version)
    versions.add(converted(tmp_path, keep_float=("*.fc1.*",))[1].manifest.version)
    versions.add(converted(tmp_path, licence_text="Other words.")[1].manifest.version)
    source, limits = random_source(), Limits()
    for name, checksums in (("a", {"weights": "0" * 64}), ("b", {"weights": "1" * 64})):
        (tmp_path / name).mkdir()
        other = replace(source, checksums=checksums)
        written = write_package(other, completed(other, Options()), limits, tmp_path / name)
        versions.add(written.version)
    assert len(versions) == 6


# ----------------------------------------------------------------------------- all or nothing


def test_a_directory_that_is_there_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "package"
    target.mkdir()
    with (
        pytest.raises(ConvertError, match="exists, and is no model package"),
        staged(target, force=True),
    ):
        pass
    (target / "model.yaml").touch()
    with pytest.raises(ConvertError, match="exists") as refused, staged(target, force=False):
        pass
    assert "--force" in refused.value.mend
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("make", ["file", "link", "dangling"])
def test_what_is_no_directory_is_never_replaced(tmp_path: Path, make: str) -> None:
    target = tmp_path / "package"
    if make == "file":
        target.touch()
    else:
        to = tmp_path / "elsewhere"
        if make == "link":
            to.mkdir()
            (to / "model.yaml").touch()
        target.symlink_to(to)
    with pytest.raises(ConvertError, match="no model package"), staged(target, force=True):
        pass


def test_with_force_a_package_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "package"
    target.mkdir()
    (target / "model.yaml").write_text("old")
    (target / "other.onnx").touch()
    with staged(target, force=True) as staging:
        (staging / "model.yaml").write_text("new")
        assert (target / "model.yaml").read_text() == "old"
    assert contents(target) == {"model.yaml": b"new"}
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError(28, "No space left")])
def test_what_breaks_off_leaves_nothing_and_the_old_one(
    tmp_path: Path, error: BaseException
) -> None:
    target = tmp_path / "package"
    target.mkdir()
    (target / "model.yaml").write_text("old")

    def break_off() -> None:
        with staged(target, force=True) as staging:
            (staging / "stem.onnx").touch()
            raise error

    with pytest.raises(BaseException):  # noqa: B017
        break_off()
    assert contents(target) == {"model.yaml": b"old"}
    assert list(tmp_path.iterdir()) == [target]


def test_when_the_new_one_cannot_take_its_place_the_old_one_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "package"
    target.mkdir()
    (target / "model.yaml").write_text("old")
    rename = Path.rename

    def failing(path: Path, to: Path) -> Path:
        if ".new-" in path.name:
            raise OSError(5, "Input/output error")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Input/output"), staged(target, force=True):
        pass
    assert contents(target) == {"model.yaml": b"old"}
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("place", [".", "small", "small/package"])
def test_a_package_never_lies_in_its_source_nor_the_other_way_round(
    tmp_path: Path, place: str
) -> None:
    source = write_directory(tmp_path / "small")
    before = contents(source)
    with pytest.raises(ConvertError):
        convert(source, tmp_path / place, Options(), force=True)
    assert contents(source) == before


# ----------------------------------------------------------------------------- options


def unsaid(**changed: object) -> Source:
    return replace(random_source(), **changed)  # type: ignore[arg-type]


OPTION_FAULTS: dict[str, tuple[Source, Options, str, str]] = {
    "a source without a licence": (
        unsaid(licence="", licence_text=""),
        Options(),
        "under which licence",
        "--licence SPDX --licence-file FILE",
    ),
    "a licence without its text": (
        unsaid(licence_text=""),
        Options(),
        "under which licence",
        "add --licence-file FILE",
    ),
    "a text without its identifier": (
        unsaid(licence=""),
        Options(licence_text="Free."),
        "under which licence",
        "add --licence SPDX,",
    ),
    "a licence in a sentence": (
        random_source(),
        Options(licence="do what you like!"),
        "no SPDX identifier",
        "spdx.org",
    ),
    "no language": (unsaid(languages=()), Options(), "which language", "--language"),
    "an empty language": (random_source(), Options(languages=(" ",)), "which language", "--lang"),
    "a name of capitals": (random_source(), Options(name="Tiny"), "'Tiny' is no name", "--name"),
    "a name that leads elsewhere": (random_source(), Options(name="../x"), "no name", "--name"),
    "a pattern that names nothing": (
        random_source(),
        Options(keep_float=("*.fc3.*",)),
        r"--keep-float \*\.fc3\.\* names none",
        "shell pattern",
    ),
    "a pattern for the convolutions, which are float anyway": (
        random_source(),
        Options(keep_float=("encoder.conv1.weight",)),
        "names none",
        "shell pattern",
    ),
    "a pattern where nothing is made int8": (
        random_source(),
        Options(Precision.FP16, keep_float=("*",)),
        "no weight is made int8",
        "leave out --keep-float",
    ),
}


@pytest.mark.parametrize("name", OPTION_FAULTS)
def test_a_fault_of_an_option_is_said_with_its_mend(name: str) -> None:
    source, options, words, mend = OPTION_FAULTS[name]
    with pytest.raises(ConvertError, match=words) as refused:
        completed(source, options)
    assert mend in refused.value.mend


def test_what_is_given_goes_before_what_the_source_says() -> None:
    options = Options(name="mine", languages=("de", "en"), licence="CC0-1.0", licence_text="Free.")
    assert completed(random_source(), options) == options


def test_only_matrices_can_be_kept_in_float() -> None:
    source = random_source()
    names = quantizable(source)
    assert "decoder.embed_tokens.weight" in names
    assert all(source.weights[name].ndim == 2 for name in names)


CUT_OFF: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut off": (lambda tokenizer: tokenizer[:-3], "cut off or altered"),
    "longer than the vocabulary": (
        lambda tokenizer: tokenizer + b"\x01a",
        "has 30 tokens.*only 29",
    ),
}


@pytest.mark.parametrize("name", CUT_OFF)
def test_a_tokenizer_that_does_not_fit_is_said(tmp_path: Path, name: str) -> None:
    spoil, words = CUT_OFF[name]
    source = random_source()
    assert tokens_of(source, tmp_path) == 29
    with pytest.raises(ConvertError, match=words):
        tokens_of(replace(source, tokenizer=spoil(source.tokenizer)), tmp_path)


@pytest.mark.model
def test_recordings_are_read_as_the_daemon_hears_them(model_dir: Path) -> None:
    path = model_dir / "samples" / "beckett.wav"
    np.testing.assert_array_equal(read_samples(path), soundfile.read(path, dtype="int16")[0])
