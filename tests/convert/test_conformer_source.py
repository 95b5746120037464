"""What is read of a WeNet checkpoint, and what is said of one that does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from harkd.errors import ModelDamagedError, ModelMissingError
from harkd_convert.conformer_source import read_units, tensor_shapes
from harkd_convert.errors import ConvertError
from small_conformer import SHAPES, TOKENS, open_checkpoint, random_conformer, write_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "Small EN")


def altered(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    state = torch.load(folder / "final.pt", weights_only=True)
    change(state)
    torch.save(state, folder / "final.pt")
    return folder


def configured(folder: Path, **options: Any) -> Path:
    path = folder / "train.yaml"
    config = yaml.safe_load(path.read_text())
    config["encoder_conf"] |= options
    path.write_text(yaml.safe_dump(config))
    return folder


@pytest.mark.parametrize("norm", SHAPES)
def test_it_reads_every_weight(tmp_path: Path, norm: str) -> None:
    source = open_checkpoint(write_checkpoint(tmp_path / "small", norm))
    assert source.shape == SHAPES[norm]
    wanted = tensor_shapes(SHAPES[norm])
    assert {name: value.shape for name, value in source.weights.items()} == wanted
    state = random_conformer(SHAPES[norm]).state_dict()
    for name, value in source.model().state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[name].numpy())
    assert set(source.checksums) == {"final.pt", "train.yaml", "units.txt"}


def test_it_is_named_for_its_directory(folder: Path) -> None:
    assert open_checkpoint(folder).name == "small-en"


def test_of_u2pp_the_rescoring_decoders_and_what_is_never_used_are_left(tmp_path: Path) -> None:
    more = {
        "decoder.left_decoder.embed.0.weight": torch.zeros(4, 4),
        "decoder.right_decoder.embed.0.weight": torch.zeros(4, 4),
        "encoder.embed.pos_enc.pe": torch.zeros(1, 5000, 48),
        "encoder.encoders.0.concat_linear.weight": torch.zeros(48, 96),
    }
    assert open_checkpoint(write_checkpoint(tmp_path / "small", more=more))


def test_without_mean_and_spread_the_bins_stay_as_they_are(folder: Path) -> None:
    def strip(state: dict[str, Any]) -> None:
        for name in [name for name in state if "cmvn" in name]:
            del state[name]

    source = open_checkpoint(altered(folder, strip))
    assert (source.weights["encoder.global_cmvn.istd"] == 1).all()


def test_every_weight_that_differs_is_named(folder: Path) -> None:
    def spoil(state: dict[str, Any]) -> None:
        del state["ctc.ctc_lo.bias"]
        state["encoder.extra.weight"] = torch.zeros(2)
        state["encoder.after_norm.bias"] = torch.zeros(7)
        state["encoder.after_norm.weight"][3] = torch.nan

    with pytest.raises(ConvertError) as caught:
        open_checkpoint(altered(folder, spoil))
    message = caught.value.message
    assert "missing: ctc.ctc_lo.bias" in message
    assert "unexpected: encoder.extra.weight" in message
    assert "encoder.after_norm.bias (7,) instead of (48,)" in message
    assert "infinite values: encoder.after_norm.weight" in message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"causal": False}, "causal is False"),
        ({"pos_enc_layer_type": "abs_pos"}, "pos_enc_layer_type is 'abs_pos'"),
        ({"input_layer": "conv2d6"}, "input_layer is 'conv2d6'"),
        ({"use_dynamic_chunk": False}, "not trained by chunks"),
        ({"attention_heads": 5}, "does not divide into 5 heads"),
        ({"cnn_module_norm": "rms_norm"}, "norm is 'rms_norm'"),
    ],
)
def test_another_network_is_refused(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConvertError, match=said):
        open_checkpoint(configured(folder, **options))


def test_a_causal_convolution_must_be_said_since_wenet_has_others(folder: Path) -> None:
    path = folder / "train.yaml"
    config = yaml.safe_load(path.read_text())
    del config["encoder_conf"]["causal"]
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(ConvertError, match="causal is False"):
        open_checkpoint(folder)


def test_sizes_that_are_not_the_weights_are_told(folder: Path) -> None:
    with pytest.raises(ConvertError, match=r"missing: encoder\.encoders\.3"):
        open_checkpoint(configured(folder, num_blocks=4))


def test_tokens_of_another_model_are_refused(folder: Path) -> None:
    with (folder / "units.txt").open("a", encoding="utf-8") as units:
        units.write(f"more {len(TOKENS)}\n")
    with pytest.raises(ConvertError, match=f"{len(TOKENS)} tokens"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a token and a number"),
        ("<blank> 0\na\n", "not a token and a number"),
        ("<blank> 0\na 2\n", "do not count up"),
        ("a 0\nb 1\n", "number 0 is not <blank>"),
        ("<blank> 0\na 1\na 2\n", "there twice"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "units.txt"
    path.write_text(text)
    with pytest.raises(ModelDamagedError, match=said):
        read_units(path)


def test_files_that_are_not_there_or_none_are_told(folder: Path) -> None:
    (folder / "final.pt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ModelDamagedError, match="no PyTorch checkpoint"):
        open_checkpoint(folder)
    (folder / "final.pt").unlink()
    with pytest.raises(ModelMissingError, match="is not there"):
        open_checkpoint(folder)
    (folder / "train.yaml").write_text("[1")
    with pytest.raises(ModelMissingError):
        open_checkpoint(folder)


def test_a_configuration_that_is_none_is_told(folder: Path) -> None:
    (folder / "train.yaml").write_text("a: [1")
    with pytest.raises(ModelDamagedError, match="no YAML"):
        open_checkpoint(folder)
    (folder / "train.yaml").write_text("a: 1")
    with pytest.raises(ModelDamagedError, match="no encoder_conf"):
        open_checkpoint(folder)
    configured(write_checkpoint(folder / "again"), num_blocks="many")
    with pytest.raises(ModelDamagedError, match="no number"):
        open_checkpoint(folder / "again")
