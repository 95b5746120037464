"""What `harkd-convert inspect` sees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harkd.errors import HarkdError, ModelDamagedError, ModelMissingError
from harkd.model_package import Limits
from harkd_convert.graph import Precision
from harkd_convert.inspection import as_plain, as_text, look_into
from harkd_convert.package import Options, completed, write_package
from harkd_convert.tables import aligned
from small_moonshine import random_source


def package(folder: Path, options: Options) -> Path:
    folder.mkdir()
    source = random_source()
    write_package(source, completed(source, options), Limits(), folder)
    return folder


def test_a_package_is_told_with_its_graphs_and_the_precision_of_each_layer(tmp_path: Path) -> None:
    folder = package(tmp_path / "small", Options(keep_float=("encoder.layers.0.mlp.*",)))
    found = look_into(folder)
    assert [file.name for file in found.files] == ["stem.onnx", "encoder.onnx", "decoder.onnx"]
    stem, encoder, decoder = found.files
    assert stem.nodes == 15
    assert stem.operators["MatMul"] == 2
    assert {weight.dtype for weight in stem.weights} == {"float32"}
    precisions = {f"{each.layer} {each.name}": each.dtype for each in encoder.weights}
    assert precisions == {
        " conv3": "float32",
        "encoder.layers.0 self_attn.qkv_proj": "int8",
        "encoder.layers.0 self_attn.o_proj": "int8",
        "encoder.layers.0 mlp.fc1": "float32",
        "encoder.layers.0 mlp.fc2": "float32",
        " decoder.layers.encoder_attn.kv_proj": "int8",
    }
    (ids,) = (value for value in decoder.inputs if value.name == "ids")
    assert (ids.dtype, ids.dims) == ("int64", ("batch", "tokens"))
    assert decoder.constant_bytes["int8"] == sum(
        each.size_bytes for each in decoder.weights if each.dtype == "int8"
    )
    text = as_text(found)
    assert "encoder.layers.0  int8" in text
    assert "self_attn.qkv_proj, self_attn.o_proj" in text
    assert "kept in float: encoder.layers.0.mlp.*" in text
    assert "not verified" in text
    assert "3 × key_* float32 (batch, 2, capacity, 48)" in text
    plain = json.loads(json.dumps(as_plain(found)))
    assert plain["manifest"]["name"] == "small-lean"
    assert plain["files"]["encoder.onnx"]["nodes"] == encoder.nodes


@pytest.mark.parametrize(
    ("precision", "dtype"), [(Precision.FP16, "float16"), (Precision.FP32, "float32")]
)
def test_other_precisions_are_seen(tmp_path: Path, precision: Precision, dtype: str) -> None:
    found = look_into(package(tmp_path / "small", Options(precision)) / "decoder.onnx")
    assert found.manifest is None
    assert {weight.dtype for weight in found.files[0].weights} == {dtype}


def test_a_directory_without_a_manifest_is_looked_into_as_well(tmp_path: Path) -> None:
    folder = package(tmp_path / "small", Options())
    (folder / "model.yaml").unlink()
    found = look_into(folder)
    assert [file.name for file in found.files] == ["decoder.onnx", "encoder.onnx", "stem.onnx"]


@pytest.mark.model
@pytest.mark.parametrize(
    ("fixture", "dtype", "layers"), [("model_dir", "uint8", 6), ("base_model_dir", "int8", 8)]
)
def test_published_files_are_looked_into_with_their_branches(
    request: pytest.FixtureRequest, fixture: str, dtype: str, layers: int
) -> None:
    folder: Path = request.getfixturevalue(fixture)
    found = look_into(folder)
    encoder, decoder = found.files
    assert decoder.nodes > 1500
    assert decoder.operators["If"] == 1
    weights = [each for each in decoder.weights if each.layer]
    assert {each.dtype for each in weights} == {dtype}
    assert len({each.layer for each in weights}) == layers
    names = {each.name for each in weights if each.layer.endswith("layers.0")}
    assert len(names) == 10
    assert encoder.inputs[0].name == "input_values"
    assert encoder.inputs[0].dtype == "float32"


def spoiled(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_what_cannot_be_looked_into_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cases: list[tuple[Path, type[HarkdError], str]] = [
        (tmp_path / "nothing", ModelMissingError, "is not there"),
        (tmp_path / "empty", ModelMissingError, r"holds no \.onnx"),
        (spoiled(tmp_path / "text.txt", b"x"), ModelMissingError, "neither a directory nor"),
        (spoiled(tmp_path / "page.onnx", b"<html>"), ModelDamagedError, "cannot be read"),
        (spoiled(tmp_path / "nothing.onnx", b""), ModelDamagedError, "holds no graph"),
        (spoiled(tmp_path / "page.ort", b"<html>" * 9), ModelDamagedError, r"page\.ort"),
    ]
    for path, kind, words in cases:
        with pytest.raises(kind, match=words) as refused:
            look_into(path)
        assert refused.value.mend


def test_columns_of_numbers_are_aligned_to_the_right() -> None:
    assert aligned([("NAME", "N", "NOTE"), ("a", "10", "–"), ("bcd", "9.5", "x")]) == [
        "NAME    N  NOTE",
        "a      10  –",
        "bcd   9.5  x",
    ]
