"""The gate: what is measured, what passes, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import soundfile

from harkd.errors import HarkdError, ModelDamagedError
from harkd.memory_need import measured_figures
from harkd.model_package import PackagedFile, load_manifest, sha256_of, write_manifest
from harkd.speech_list import Recording, SpeechListError
from harkd_convert.comparison import Pair, Side, joined
from harkd_convert.conversion import Conversion, convert
from harkd_convert.errors import ConvertError
from harkd_convert.export_check import pseudo_speech
from harkd_convert.graph import Precision
from harkd_convert.moonshine_graphs import decoder_graph
from harkd_convert.package import Options
from harkd_convert.verify import Verified, edit_distance, verify, write_figures
from harkd_convert.verify_report import as_plain, as_text
from small_moonshine import SMALL, random_source, write_directory


class Bench:
    """A source, its package in float32, and a list whose texts are what PyTorch hears."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "small"
        self.package = folder / "package"
        self.speech = folder / "speech" / "list.tsv"

    def make(self) -> None:
        write_directory(self.source)
        convert(self.source, self.package, Options(Precision.FP32))
        self.write(["-"] * 4)
        pairs = verify(self.package, self.source, self.speech).pairs
        self.write([pair.torch.text for pair in pairs])

    def write(self, texts: Sequence[str | None]) -> None:
        lines = []
        for number, text in enumerate(texts):
            path = self.speech.parent / ("quiet" if number % 2 else "loud") / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            audio = pseudo_speech(30_000 + 4_000 * number) * (0.1 if number % 2 else 1.0)
            soundfile.write(path, audio, 16_000)
            where = path.relative_to(self.speech.parent)
            lines.append(f"{where}\t2\t16000\t{text or ''}\ta test")
        self.speech.write_text("\n".join(lines))

    def spoil(self) -> None:
        """Put another model's decoder into the package."""
        path = self.package / "decoder.onnx"
        onnx.save(decoder_graph(random_source(seed=9), SMALL.vocabulary, Precision.FP32), path)
        manifest = load_manifest(self.package)
        size = path.stat().st_size
        file = PackagedFile(path="decoder.onnx", sha256=sha256_of(path), size_bytes=size)
        files = manifest.files | {"decoder": file}
        write_manifest(self.package, msgspec.structs.replace(manifest, files=files))


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = Bench(tmp_path_factory.mktemp("bench") / "all")
    bench.make()
    return bench


@pytest.fixture
def bench(once: Bench, tmp_path: Path) -> Bench:
    shutil.copytree(once.source.parent, tmp_path / "all")
    return Bench(tmp_path / "all")


def test_a_package_in_float32_is_the_source(bench: Bench) -> None:
    found = verify(bench.package, bench.source, bench.speech)
    assert found.passed
    assert found.reference == "PyTorch, in float32"
    assert found.categories == ["loud", "quiet"]
    assert found.errors("package").errors == found.errors("reference").errors
    assert found.token_edits("torch") == (0, 0)
    assert found.cross_error("package")[1] < 1e-4
    report = as_text(found)
    assert "passes" in report
    assert "Tokens other than PyTorch's: 0, in 0 of 4 recordings" in report
    assert "published" not in report


def test_the_figures_are_written_into_the_manifest_and_hold_no_path(bench: Bench) -> None:
    before = load_manifest(bench.package).measured
    found = verify(bench.package, bench.source, bench.speech, limit=3)
    assert load_manifest(bench.package).measured == before
    write_figures(bench.package, found)
    measured = load_manifest(bench.package).measured
    assert measured["converter"] == before["converter"]
    verified = measured["verified"]
    assert verified["speech"]["list"] == "list.tsv"
    assert verified["speech"]["recordings"] == 3
    assert verified["word_errors"]["package"] == verified["word_errors"]["reference"]
    memory = measured_figures(measured)
    assert memory
    assert 0 < memory.loaded_mb <= memory.load_mb < 100
    assert str(bench.package.parent) not in (bench.package / "model.yaml").read_text()


def test_a_spoilt_package_is_refused_with_a_table_of_what_differs(bench: Bench) -> None:
    bench.spoil()
    found = verify(bench.package, bench.source, bench.speech)
    assert not found.passed
    assert found.errors("package").errors > found.allowed
    report = as_text(found)
    assert "is REFUSED" in report
    assert "Finals with other words than the reference's: 4" in report
    assert f"package:   {found.pairs[0].package.text}" in report
    for category in ("loud", "quiet", "all"):
        assert any(line.startswith(category) for line in report.splitlines())
    plain = json.loads(json.dumps(as_plain(found)))
    assert plain["passed"] is False
    assert plain["categories"]["loud"]["package"]["errors"] > 0
    assert len(plain["finals_that_differ"]) == 4


# ----------------------------------------------------------------------------- the limit


def verified(bench: Bench, said: int, reference: int, package: int) -> Verified:
    """A verification of one recording with so many words and errors."""

    def heard(errors: int) -> Side:
        return Side(" ".join(["oak"] * (said - errors) + ["elm"] * errors), [errors], cpu_s=0.1)

    recording = Recording(Path("a.wav"), "", " ".join(["oak"] * said))
    pair = Pair(recording, 1.0, heard(package), heard(reference), heard(reference))
    return Verified(load_manifest(bench.package), "x", "l", "0", [pair], normalizer=str.lower)


@pytest.mark.parametrize(
    ("reference", "package", "passes"),
    [
        (100, 90, True),
        (100, 100, True),
        (100, 105, True),
        (100, 106, False),
        (40, 42, True),
        (40, 43, False),
        (19, 20, True),  # a single word shows no growth
        (0, 1, True),
        (0, 2, False),
        (3, 5, False),
    ],
)
def test_word_errors_may_grow_by_5_percent_or_one_word(
    once: Bench, reference: int, package: int, passes: bool
) -> None:
    found = verified(once, 200, reference, package)
    assert found.passed is passes
    assert ("passes" if passes else "is REFUSED") in as_text(found)
    assert f"{package} word errors in 200 words, against {reference}" in as_text(found)


def test_only_the_first_finals_that_differ_are_shown(once: Bench) -> None:
    found = verified(once, 10, 0, 5)
    many = replace(found, pairs=found.pairs * 25)
    assert as_text(many).count("reference: ") == 20
    assert "and 5 more" in as_text(many)
    assert as_text(many, show_all=True).count("reference: ") == 25


# ----------------------------------------------------------------------------- published files


@pytest.mark.model
def test_published_files_are_the_reference_step_by_step(
    model_dir: Path, lean: tuple[Path, Conversion], tmp_path: Path
) -> None:
    package, _ = lean
    sample = model_dir / "samples" / "beckett.wav"
    audio, rate = soundfile.read(sample)
    (tmp_path / "en").mkdir()
    soundfile.write(tmp_path / "en" / "short.wav", audio[:500], rate)
    said = "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better."
    list_file = tmp_path / "list.tsv"
    list_file.write_text(f"{sample}\t10\t16000\t{said}\nen/short.wav\t0.03\t16000\t\n")
    found = verify(package, model_dir, list_file)
    assert found.passed
    assert found.reference == "the published files, step by step"
    assert found.errors("reference").errors == found.errors("package").errors == 0
    assert len(found.pairs) == 2
    assert 0.01 < found.cross_error("package")[0] < 0.1
    assert found.cpu("package") > 0
    assert "published" in as_text(found)
    told = as_plain(found)
    assert set(told["cpu_s_per_audio_s"]) == {"package", "reference", "machine"}


# ----------------------------------------------------------------------------- faults


def other_source(bench: Bench) -> None:
    for file in bench.source.iterdir():
        file.unlink()
    bench.source.rmdir()
    write_directory(bench.source, seed=8)


def altered(bench: Bench) -> None:
    with (bench.package / "stem.onnx").open("ab") as file:
        file.write(b"\0")


def of_another_family(bench: Bench) -> None:
    manifest = load_manifest(bench.package)
    write_manifest(bench.package, msgspec.structs.replace(manifest, family="moonshine"))


def of_other_files(bench: Bench) -> None:
    """The files' checksums are right, but a graph is in another's place."""
    manifest = load_manifest(bench.package)
    files = manifest.files | {"decoder": manifest.files["stem"]}
    write_manifest(bench.package, msgspec.structs.replace(manifest, files=files))


FAULTS: dict[str, tuple[Any, type[HarkdError], str]] = {
    "another source": (other_source, ConvertError, "was not made from"),
    "a file that was altered": (altered, ModelDamagedError, r"stem\.onnx: altered"),
    "a package of another family": (of_another_family, ConvertError, "of the family moonshine"),
    "graphs in each other's place": (of_other_files, ModelDamagedError, "no lean Moonshine"),
    "no package": (
        lambda bench: (bench.package / "model.yaml").unlink(),
        ModelDamagedError,
        r"model\.yaml is missing",
    ),
    "no list": (lambda bench: bench.speech.unlink(), SpeechListError, "cannot be read"),
    "a list without texts": (
        lambda bench: bench.write([None] * 4),
        ConvertError,
        "does not say what is said",
    ),
    "a list of what is not there": (
        lambda bench: (bench.speech.parent / "loud" / "0.wav").unlink(),
        SpeechListError,
        "does not exist",
    ),
    "a recording that is none": (
        lambda bench: (bench.speech.parent / "loud" / "0.wav").write_bytes(b"x"),
        HarkdError,
        "no audio file",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_said_and_nothing_is_written(bench: Bench, name: str) -> None:
    spoil, kind, words = FAULTS[name]
    spoil(bench)
    manifest = bench.package / "model.yaml"
    before = manifest.read_text() if manifest.exists() else None
    with pytest.raises(kind, match=words) as refused:
        verify(bench.package, bench.source, bench.speech)
    assert refused.value.mend
    assert (manifest.read_text() if manifest.exists() else None) == before


def test_without_what_counts_words_it_says_how_to_get_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harkd_convert.verify.load_normalizer", lambda _language: None)
    with pytest.raises(ConvertError) as refused:
        verify(bench.package, bench.source, bench.speech)
    assert refused.value.mend == "pip install 'harkd[convert]'"


# ----------------------------------------------------------------------------- parts


def test_edit_distance_is_levenshteins() -> None:
    assert edit_distance([], []) == 0
    assert edit_distance([1, 2, 3], [1, 2, 3]) == 0
    assert edit_distance([1, 2, 3], []) == edit_distance([], [1, 2, 3]) == 3
    assert edit_distance([1, 2, 3, 4], [2, 3, 5]) == 2
    rng = np.random.default_rng(2)
    for _ in range(20):
        one, other = rng.integers(0, 3, 6).tolist(), rng.integers(0, 3, 5).tolist()
        assert edit_distance(one, other) == edit_distance(other, one)
        assert 1 <= edit_distance(one, other) <= 6


def test_pieces_of_a_recording_are_one_again() -> None:
    sides = [Side("a b", [1, 2], 0.1, 1.0), Side("", [], 0.3, 2.0), Side("c", [3], 0.2, 3.0)]
    assert joined(sides) == Side("a b c", [1, 2, 3], 0.3, 6.0)


def test_a_recording_longer_than_the_model_takes_is_recognized_in_pieces(bench: Bench) -> None:
    manifest = load_manifest(bench.package)
    limits = msgspec.structs.replace(manifest.limits, max_segment_s=0.8)
    write_manifest(bench.package, msgspec.structs.replace(manifest, limits=limits))
    found = verify(bench.package, bench.source, bench.speech)
    assert all(pair.seconds > 1.6 for pair in found.pairs)
    assert all(len(pair.package.tokens) <= 4 * 7 for pair in found.pairs)
    assert found.token_edits("torch") == (0, 0)
