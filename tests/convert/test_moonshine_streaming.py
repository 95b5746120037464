"""Moonshine that listens chunk by chunk: streaming is masked full context, and packages say so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from harkd.errors import ModelDamagedError
from harkd.model_package import Streaming, load_manifest, write_manifest
from harkd_convert.cli_extra import plan_of
from harkd_convert.conversion import Conversion, convert
from harkd_convert.errors import ConvertError
from harkd_convert.export_check import check_export, pseudo_speech
from harkd_convert.graph import Precision
from harkd_convert.moonshine import Moonshine
from harkd_convert.package import Options
from harkd_convert.reference import Reference
from harkd_convert.streaming_reference import Pass, encode_in_passes, passes_of
from harkd_convert.verify import verify
from small_moonshine import SHAPES, SMALL, random_source, write_directory

AUDIO = pseudo_speech(40_000)
PLAN = Streaming(chunk_frames=16, look_ahead_frames=16)


def plan(chunk: int, ahead: int, left: int = 166, first: int = 125, taps: int = 100) -> Streaming:
    return Streaming(
        chunk_frames=chunk,
        look_ahead_frames=ahead,
        left_context_frames=left,
        first_frames=first,
        prior_taps=taps,
    )


# --------------------------------------------------------------- streaming = masked full context


@pytest.mark.parametrize("name", SHAPES)
def test_in_float32_a_stream_is_pytorch_at_once_under_the_mask(name: str, tmp_path: Path) -> None:
    source = random_source(SHAPES[name])
    agreement = check_export(source, source.shape.vocabulary, AUDIO, tmp_path, PLAN)
    assert agreement.cross_error < 2e-5
    assert agreement.log_prob_error < 1e-4


@pytest.mark.parametrize(
    "streaming",
    [
        plan(8, 8, 20, 0),
        plan(8, 8, 20, 12),
        plan(5, 0, 7, 3),
        plan(1, 3, 0, 0),
        plan(7, 5, 13, 20, taps=0),
        plan(4, 9, 0, 10),
        plan(90, 33),
    ],
)
def test_whatever_the_plan(streaming: Streaming, tmp_path: Path) -> None:
    """With a left context that is shorter than the audio, too, with and without first frames."""
    agreement = check_export(random_source(), SMALL.vocabulary, AUDIO, tmp_path, streaming)
    assert agreement.cross_error < 2e-5


@pytest.mark.parametrize(
    ("field", "value"),
    [("chunk_frames", 15), ("left_context_frames", 30), ("first_frames", 7), ("prior_taps", 99)],
)
def test_a_stream_of_another_plan_is_found_out(
    field: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = plan(16, 16, 40, 8)
    other = msgspec.structs.replace(small, **{field: value})
    monkeypatch.setattr(
        "harkd_convert.export_check.Reference",
        lambda source, tokens, _plan: Reference(source, tokens, other),
    )
    source = random_source()
    monkeypatch.setattr("harkd_convert.export_check.MOST_ERROR", 1e-5)
    with pytest.raises(ConvertError, match="not the model in PyTorch"):
        check_export(source, SMALL.vocabulary, AUDIO, tmp_path, small)


def test_one_chunk_of_everything_without_a_prior_is_the_whole_model() -> None:
    model = Moonshine.from_source(random_source())
    audio = torch.from_numpy(AUDIO[: 384 * 100 + 511])[None]
    with torch.inference_mode():
        found = encode_in_passes(model.encoder, audio, plan(10_000, 0, taps=0))
        wanted = model.encode(audio)
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), atol=2e-4)


def test_each_chunk_is_a_pass_with_its_look_ahead_and_the_last_keeps_what_is_left() -> None:
    assert passes_of(20, plan(8, 4)) == [Pass(0, 8, 12), Pass(8, 16, 20), Pass(16, 20, 20)]
    assert passes_of(19, plan(8, 4)) == [Pass(0, 8, 12), Pass(8, 19, 19)]
    assert passes_of(3, plan(8, 4)) == [Pass(0, 3, 3)]
    assert passes_of(16, plan(8, 0)) == [Pass(0, 8, 8), Pass(8, 16, 16)]


# ----------------------------------------------------------------------------------- packages


def converted(folder: Path, **options: object) -> tuple[Path, Conversion]:
    source = folder / "small"
    if not source.exists():
        write_directory(source)
    target = folder / "package"
    chosen = replace(Options(streaming=PLAN), **options)  # type: ignore[arg-type]
    return target, convert(source, target, chosen, force=True)


def test_a_package_tells_how_it_listens(tmp_path: Path) -> None:
    target, done = converted(tmp_path)
    manifest = load_manifest(target)
    assert manifest == done.manifest
    assert manifest.name == "small-streaming"
    assert manifest.family == "moonshine-streaming"
    assert manifest.streaming == PLAN
    other = converted(tmp_path, streaming=plan(8, 8))[1].manifest
    assert other.version != manifest.version
    assert other.files == manifest.files, "the same weights serve any plan"


def test_a_package_without_a_plan_is_written_as_before(tmp_path: Path) -> None:
    """So that older versions read it."""
    target, _ = converted(tmp_path, streaming=None)
    assert "streaming" not in (target / "model.yaml").read_text()
    assert load_manifest(target).family == "moonshine-lean"


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8, Precision.FP16])
def test_a_package_of_any_precision_is_verified_against_the_stream_in_pytorch(
    tmp_path: Path, precision: Precision
) -> None:
    import soundfile

    target, _ = converted(tmp_path, precision=precision)
    soundfile.write(tmp_path / "one.wav", AUDIO, 16_000)
    (tmp_path / "list.tsv").write_text("one.wav\t2.5\t16000\talder birch\ta test")
    found = verify(target, tmp_path / "small", tmp_path / "list.tsv")
    assert found.reference == "PyTorch, in float32"
    limit = {Precision.FP32: 1e-5, Precision.FP16: 0.03, Precision.INT8: 0.2}[precision]
    assert found.cross_error("package")[1] < limit
    if precision is Precision.FP32:
        assert found.pairs[0].package.tokens == found.pairs[0].torch.tokens


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("chunk_frames", 0, "streaming.chunk_frames"),
        ("look_ahead_frames", -1, "streaming.look_ahead_frames"),
        ("prior_variance", 0.0, "streaming.prior_variance"),
        ("prior_taps", "many", "streaming.prior_taps"),
        ("step", 3, "step"),
    ],
)
def test_a_plan_that_is_none_is_told(tmp_path: Path, field: str, value: object, words: str) -> None:
    import yaml

    target, _ = converted(tmp_path)
    file = target / "model.yaml"
    plain = yaml.safe_load(file.read_text())
    plain["streaming"][field] = value
    file.write_text(yaml.safe_dump(plain))
    with pytest.raises(ModelDamagedError, match=words) as damaged:
        load_manifest(target)
    assert damaged.value.mend


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    target, done = converted(tmp_path)
    write_manifest(target, done.manifest)
    assert load_manifest(target) == done.manifest


def test_a_plan_is_two_numbers_of_frames() -> None:
    import click

    context, option = click.Context(click.Command("c")), click.Option(["--streaming"])
    assert plan_of(context, option, "24:8") == plan(24, 8)
    assert plan_of(context, option, "16:0") == plan(16, 0)
    assert plan_of(context, option, None) is None
    for wrong in ("", "16", "16:", ":16", "0:16", "-1:3", "1.5:3", "a:b", "1:2:3"):
        with pytest.raises(click.BadParameter, match="such as 16:16"):
            plan_of(context, option, wrong)
