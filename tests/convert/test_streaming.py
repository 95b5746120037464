"""`harkd-convert streaming`: a checkpoint becomes a package, or is refused and leaves nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest
import soundfile

from harkd.bench_words import WordErrors
from harkd.model_package import load_manifest, verify_files
from harkd_convert import streaming
from harkd_convert.cli import main
from harkd_convert.conversion import to_samples
from harkd_convert.errors import ConvertError
from harkd_convert.export_check import pseudo_speech
from harkd_convert.graph import Precision
from harkd_convert.streaming import Counted, Files, StreamingOptions, convert_streaming
from small_conformer import write_checkpoint

ASKED = {"licence": "MIT", "licence_text": "Do what you like.\n", "languages": ("en",)}


def files_of(folder: Path) -> Files:
    return Files(folder / "final.pt", folder / "train.yaml", folder / "units.txt")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return files_of(write_checkpoint(tmp_path / "small"))


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    lines = []
    for number in range(3):
        audio = to_samples(pseudo_speech(40_000 + 9_000 * number))
        soundfile.write(tmp_path / f"{number}.wav", audio, 16_000)
        lines.append(f"{number}.wav\t3\t16000\twords\ta test\n")
    (tmp_path / "list.tsv").write_text("".join(lines))
    return tmp_path / "list.tsv"


def asked(**more: object) -> StreamingOptions:
    return StreamingOptions(**(ASKED | more))  # type: ignore[arg-type]


def test_a_package_is_whole_and_says_what_it_is(files: Files, tmp_path: Path) -> None:
    target = tmp_path / "out" / "mine"
    done = convert_streaming(files, target, asked(name="mine"))
    manifest = load_manifest(target)
    assert manifest == done.manifest
    assert verify_files(target, manifest, quick=False) == []
    assert (manifest.name, manifest.family) == ("mine", "streaming-ctc")
    assert set(manifest.files) == {"model", "tokens", "licence"}
    assert manifest.measured["converter"]["activations"] == "dynamic"
    assert manifest.measured["converter"]["chunk_ms"] == 640
    assert (target / "tokens.txt").read_bytes() == files.tokens.read_bytes()
    assert sorted(path.name for path in target.iterdir()) == [
        "LICENSE",
        "model.onnx",
        "model.yaml",
        "tokens.txt",
    ]


def test_the_same_checkpoint_gives_the_same_bytes(files: Files, tmp_path: Path) -> None:
    one, other = (convert_streaming(files, tmp_path / each, asked()) for each in ("a", "b"))
    assert one.manifest == other.manifest


def test_recordings_quantize_it_statically(files: Files, speech: Path, tmp_path: Path) -> None:
    done = convert_streaming(files, tmp_path / "out", asked(calibration=speech))
    assert done.manifest.measured["converter"]["activations"] == "static"
    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    assert "MatMulIntegerToFloat" in {node.op_type for node in graph.node}


def test_word_errors_are_counted_and_told(files: Files, speech: Path, tmp_path: Path) -> None:
    options = asked(speech=speech, precision=Precision.FP32)
    done = convert_streaming(files, tmp_path / "out", options)
    assert done.counted
    assert done.counted.package == done.counted.torch
    assert done.manifest.measured["verified"]["speech"]["words"] == 3


def test_a_package_with_too_many_word_errors_is_not_written(
    files: Files, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([WordErrors(100, 13, 13, 0, 0), WordErrors(100, 10, 10, 0, 0)])
    monkeypatch.setattr(streaming, "count_errors", lambda *_: next(counts))
    with pytest.raises(ConvertError, match="13 word errors in 100 words, and PyTorch only 10"):
        convert_streaming(files, tmp_path / "out", asked(speech=speech))
    assert not (tmp_path / "out").exists()


def test_five_percent_more_word_errors_are_allowed_or_one() -> None:
    def allowed(errors: int) -> int:
        count = WordErrors(1000, errors, errors, 0, 0)
        return Counted(count, count).allowed

    assert [allowed(errors) for errors in (0, 3, 100, 119)] == [1, 4, 105, 124]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "No Name"}, "no name for a model"),
        ({"licence": ""}, "under which licence"),
        ({"licence_text": " "}, "under which licence"),
        ({"languages": ()}, "which language"),
        ({"keep_float": ("nothing.*",)}, "names none of the weights"),
        ({"precision": Precision.FP16}, "int8 or fp32"),
        ({"precision": Precision.FP32, "keep_float": ("ctc.*",)}, "no weight is made int8"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    files: Files, tmp_path: Path, options: dict[str, object], said: str
) -> None:
    with pytest.raises(ConvertError, match=said):
        convert_streaming(files, tmp_path / "out", asked(**options))
    assert not (tmp_path / "out").exists()


def test_a_package_that_is_there_is_replaced_only_by_force(files: Files, tmp_path: Path) -> None:
    convert_streaming(files, tmp_path / "out", asked())
    with pytest.raises(ConvertError, match="exists"):
        convert_streaming(files, tmp_path / "out", asked())
    convert_streaming(files, tmp_path / "out", asked(name="another"), force=True)
    assert load_manifest(tmp_path / "out").name == "another"


def test_recordings_without_text_count_no_errors(
    files: Files, speech: Path, tmp_path: Path
) -> None:
    speech.write_text("0.wav\t3\t16000\t\ta test\n")
    with pytest.raises(ConvertError, match="does not say what is said"):
        convert_streaming(files, tmp_path / "out", asked(speech=speech))


def test_on_the_command_line(
    files: Files,
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "LICENSE").write_text("Do what you like.\n")
    words = ["streaming", files.checkpoint, "--arch", "conformer_ctc", "--config", files.config]
    words += ["--tokens", files.tokens, "--out", tmp_path / "out", "--language", "en"]
    words += ["--licence", "MIT", "--licence-file", tmp_path / "LICENSE", "--chunk", "8"]
    words += ["--left-chunks", "8", "--speech", speech, "--precision", "fp32"]
    monkeypatch.setattr(sys, "argv", ["harkd-convert", *map(str, words)])
    main()
    printed = capsys.readouterr()
    assert f"is in {tmp_path / 'out'}: " in printed.out
    assert "the export as PyTorch within" in printed.out
    assert "Word errors in 3 words" in printed.out
    assert load_manifest(tmp_path / "out").measured["converter"]["chunk_ms"] == 320
