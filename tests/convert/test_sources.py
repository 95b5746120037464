"""What can be opened, what comes out of it, and what is said of everything else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from harkd.errors import HarkdError, ModelDamagedError, ModelMissingError
from harkd.recognizer.moonshine_tokens import Tokenizer
from harkd_convert.checkpoint import Float32, Quantized, Shape, tensor_shapes
from harkd_convert.errors import ConvertError
from harkd_convert.sources import open_source

VOCABULARY = 270
SMALL = Shape(
    width=20,
    heads=2,
    encoder_layers=1,
    decoder_layers=2,
    encoder_ffn=16,
    decoder_ffn=16,
    vocabulary=VOCABULARY,
    rotary_dims=8,
)
CONFIG: dict[str, Any] = {
    "architectures": ["MoonshineForConditionalGeneration"],
    "model_type": "moonshine",
    "hidden_size": 20,
    "intermediate_size": 16,
    "encoder_num_hidden_layers": 1,
    "decoder_num_hidden_layers": 2,
    "encoder_num_attention_heads": 2,
    "decoder_num_attention_heads": 2,
    "encoder_num_key_value_heads": 2,
    "decoder_num_key_value_heads": 2,
    "encoder_hidden_act": "gelu",
    "decoder_hidden_act": "silu",
    "partial_rotary_factor": 0.85,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "eos_token_id": 2,
    "vocab_size": VOCABULARY,
}
BYTES = {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
TOKENIZER: dict[str, Any] = {
    "model": {
        "type": "BPE",
        "byte_fallback": True,
        "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, **BYTES, "▁hear": 259, "ken": 260, "é": 261},
        "merges": [],
    },
    "added_tokens": [{"id": 1, "content": "<s>"}, {"id": 265, "content": "<<ST_0>>"}],
}
HEAD, EMBEDDING = "proj_out.weight", "model.decoder.embed_tokens.weight"

Weights = dict[str, Float32]


def random_weights() -> Weights:
    rng = np.random.default_rng(3)
    shapes = tensor_shapes(SMALL)
    return {f"model.{n}": rng.normal(size=dims).astype(np.float32) for n, dims in shapes.items()}


class Directory:
    """A Hugging Face directory of a small model, to be spoilt."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.write("config.json", CONFIG)
        self.write("tokenizer.json", TOKENIZER)
        self.save(random_weights())

    def write(self, name: str, content: object) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        (self.path / name).write_text(text, encoding="utf-8")

    def save(self, weights: Weights, name: str = "model.safetensors") -> None:
        save_file(weights, self.path / name)

    def config(self, **changed: object) -> None:
        self.write("config.json", CONFIG | changed)

    def weights(self, change: Callable[[Weights], object]) -> None:
        weights = random_weights()
        change(weights)
        self.save(weights)

    def tokenizer(self, **changed: object) -> None:
        self.write("tokenizer.json", TOKENIZER | {"model": TOKENIZER["model"] | changed})

    def shard(self, lost: str = "", folder: str = "") -> None:
        weights = random_weights()
        (self.path / "model.safetensors").unlink()
        names = sorted(weights)
        files = [f"model-{i + 1:05}-of-00002.safetensors" for i in range(2)]
        where = {name: files[i % 2] for i, name in enumerate(names)}
        for file in files:
            self.save({name: weights[name] for name in names if where[name] == file}, file)
        for file in filter(None, [lost]):
            (self.path / file).unlink()
        named = {name: folder + file for name, file in where.items()}
        self.write("model.safetensors.index.json", {"weight_map": named})


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "Moonshine Tiny (Fine-Tuned)")


def same_weights(found: Weights, wanted: Weights) -> None:
    assert {f"model.{name}" for name in found} == set(wanted)
    for name, values in found.items():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, wanted[f"model.{name}"])


# ----------------------------------------------------------------------------- Hugging Face


def test_a_saved_model_comes_back(directory: Directory) -> None:
    source = open_source(directory.path)
    assert source.shape == SMALL
    same_weights(source.weights, random_weights())
    assert source.quantized == {}
    assert source.name == "moonshine-tiny-fine-tuned"
    assert set(source.checksums) == {"config.json", "tokenizer.json", "model.safetensors"}
    assert (source.licence, source.licence_text, source.languages) == ("", "", ())


def test_in_hugging_faces_cache_the_name_is_that_of_the_repository(tmp_path: Path) -> None:
    snapshots = tmp_path / "models--somebody--Moonshine-Tiny-de" / "snapshots"
    snapshots.mkdir(parents=True)
    source = open_source(Directory(snapshots / "68f1a0e9c5").path)
    assert source.name == "moonshine-tiny-de"
    assert "somebody/Moonshine-Tiny-de" in source.origin


def test_shards_come_back_as_one(directory: Directory) -> None:
    directory.shard()
    source = open_source(directory.path)
    same_weights(source.weights, random_weights())
    assert "model-00002-of-00002.safetensors" in source.checksums
    assert "model.safetensors.index.json" in source.checksums


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_other_floating_point_numbers_become_float32(
    directory: Directory, kind: torch.dtype
) -> None:
    narrow = {name: torch.from_numpy(v).to(kind) for name, v in random_weights().items()}
    save_torch(narrow, directory.path / "model.safetensors")
    wanted = {name: values.float().numpy() for name, values in narrow.items()}
    same_weights(open_source(directory.path).weights, wanted)


def test_a_head_that_was_saved_with_its_embedding_is_left_out(directory: Directory) -> None:
    directory.weights(lambda weights: weights.update({HEAD: weights[EMBEDDING]}))
    same_weights(open_source(directory.path).weights, random_weights())


def test_a_config_of_todays_transformers_says_the_same(directory: Directory) -> None:
    rope = {"rope_theta": 10000.0, "partial_rotary_factor": 0.85, "rope_type": "default"}
    directory.config(rope_parameters=rope, partial_rotary_factor=None, eos_token_id=[2])
    assert open_source(directory.path).shape == SMALL


def test_without_a_word_on_rotation_transformers_default_counts(directory: Directory) -> None:
    directory.config(partial_rotary_factor=None, hidden_size=20)
    with pytest.raises(ConvertError, match="9 rotated features"):  # 0.9 of a head of 10
        open_source(directory.path)


def test_the_model_card_gives_licence_and_languages(directory: Directory) -> None:
    directory.write("README.md", "---\nlicense: apache-2.0\nlanguage:\n- de\n- fr\n---\n# Hark\n")
    directory.write("LICENSE.txt", "Apache License")
    source = open_source(directory.path)
    assert source.licence == "Apache-2.0"
    assert source.licence_text == "Apache License"
    assert source.languages == ("de", "fr")


def test_a_licence_that_spdx_does_not_know_is_named_as_such(directory: Directory) -> None:
    directory.write("README.md", "---\nlicense: other\nlanguage: ja\n---\n")
    source = open_source(directory.path)
    assert (source.licence, source.languages) == ("LicenseRef-other", ("ja",))


# ----------------------------------------------------------------------------- its tokenizer


def test_the_tokenizer_is_what_the_daemon_reads(directory: Directory, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(open_source(directory.path).tokenizer)
    tokenizer = Tokenizer(path)
    assert len(tokenizer) == 266
    assert tokenizer.text([259, 260]) == "hearken"
    assert tokenizer.text([3 + 0xC3, 3 + 0xA9, 261]) == "éé"
    assert tokenizer.text([262]) == ""
    assert tokenizer.text([265]) == "<<ST_0>>"


@pytest.mark.model
def test_a_published_tokenizer_comes_back_byte_by_byte(
    directory: Directory, model_dir: Path, base_model_dir: Path
) -> None:
    """Base's as a JSON with tiny's special tokens is tiny's, but for one that is empty there."""
    base = tokens_of(base_model_dir / "tokenizer.bin")
    tiny = tokens_of(model_dir / "tokenizer.bin")
    texts = [token.decode() if not 3 <= i < 259 else "" for i, token in enumerate(base)]
    vocab = {text: number for number, text in enumerate(texts) if text} | BYTES
    added = [{"id": i, "content": t.decode()} for i, t in enumerate(tiny) if i >= len(base)]
    model = TOKENIZER["model"] | {"vocab": vocab}
    directory.write("tokenizer.json", {"model": model, "added_tokens": added})
    directory.config(vocab_size=32768)
    rows = np.zeros((32768, SMALL.width), np.float32)
    directory.weights(lambda weights: weights.update({EMBEDDING: rows}))
    written = open_source(directory.path).tokenizer
    (directory.path / "tokenizer.bin").write_bytes(written)
    found = tokens_of(directory.path / "tokenizer.bin")
    assert found[: len(base)] == base
    assert [i for i, (one, other) in enumerate(zip(found, tiny, strict=True)) if one != other] == [
        31353
    ]
    assert tiny[31353] == b""
    assert (base_model_dir / "tokenizer.bin").read_bytes() == written[
        : (base_model_dir / "tokenizer.bin").stat().st_size
    ]


def tokens_of(path: Path) -> Sequence[bytes]:
    tokens: Sequence[bytes] = Tokenizer(path)._tokens
    return tokens


# ----------------------------------------------------------------------------- faults


def nan(weights: Weights) -> None:
    weights["model.encoder.layers.0.mlp.fc1.bias"][3] = np.nan


Fault = tuple[Callable[[Directory], object], type[HarkdError], str]
FAULTS: dict[str, Fault] = {
    "no config": (
        lambda d: (d.path / "config.json").unlink(),
        ModelMissingError,
        r"neither encoder_model\.ort nor config\.json",
    ),
    "no tokenizer": (
        lambda d: (d.path / "tokenizer.json").unlink(),
        ModelMissingError,
        r"lacks tokenizer\.json",
    ),
    "no weights": (
        lambda d: (d.path / "model.safetensors").unlink(),
        ModelMissingError,
        r"has no model\.safetensors",
    ),
    "pickled weights": (
        lambda d: (d.path / "model.safetensors").rename(d.path / "pytorch_model.bin"),
        ModelMissingError,
        r"only pytorch_model\.bin.*save_pretrained",
    ),
    "an adapter": (
        lambda d: (d.path / "model.safetensors").rename(d.path / "adapter_config.json"),
        ModelMissingError,
        "merge_and_unload",
    ),
    "a missing shard": (
        lambda d: d.shard(lost="model-00001-of-00002.safetensors"),
        ModelMissingError,
        r"lacks 1 of 2 shards: model-00001-of-00002\.safetensors",
    ),
    "an index that leads elsewhere": (
        lambda d: d.shard(folder="../"),
        ModelDamagedError,
        "files elsewhere",
    ),
    "a weights file that was cut off": (
        lambda d: (d.path / "model.safetensors").write_bytes(
            (d.path / "model.safetensors").read_bytes()[:-9]
        ),
        ModelDamagedError,
        r"model\.safetensors is cut off or altered",
    ),
    "a weights file of another kind": (
        lambda d: d.write("model.safetensors", "version https://git-lfs.github.com/spec/v1"),
        ModelDamagedError,
        r"model\.safetensors is cut off or altered",
    ),
    "a config that is no JSON": (
        lambda d: d.write("config.json", "<html>"),
        ModelDamagedError,
        r"config\.json is no JSON",
    ),
    "a config that is a list": (
        lambda d: d.write("config.json", []),
        ModelDamagedError,
        r"config\.json is no mapping",
    ),
    "a size that is no number": (
        lambda d: d.config(hidden_size="wide"),
        ModelDamagedError,
        "size that is no number",
    ),
    "another architecture": (
        lambda d: d.config(model_type="whisper"),
        ConvertError,
        r"another architecture \(whisper\)",
    ),
    "no architecture": (
        lambda d: d.write("config.json", {}),
        ConvertError,
        "another architecture",
    ),
    "the streaming architecture": (
        lambda d: d.config(model_type="moonshine_streaming"),
        ConvertError,
        "not supported yet",
    ),
    "several differences": (
        lambda d: d.config(
            encoder_hidden_act="relu", decoder_num_key_value_heads=1, rope_scaling={"type": "yarn"}
        ),
        ConvertError,
        r"encoder_hidden_act is 'relu'.*decoder_num_key_value_heads is 1.*scaled \(yarn\)",
    ),
    "sizes that do not divide": (
        lambda d: d.config(hidden_size=21),
        ConvertError,
        "21 does not divide into 2 heads",
    ),
    "a config of another size": (
        lambda d: d.config(intermediate_size=32),
        ConvertError,
        r"misshaped: .*mlp\.fc1\.weight \(16, 20\) instead of \(32, 20\)",
    ),
    "fewer layers than the config says": (
        lambda d: d.config(encoder_num_hidden_layers=2),
        ConvertError,
        r"missing: encoder\.layers\.1\..* and 2 more",
    ),
    "a weight too many": (
        lambda d: d.weights(lambda w: w.update({"model.lora_A": np.ones(3, np.float32)})),
        ConvertError,
        "unexpected: lora_A",
    ),
    "a weight that is no number": (
        lambda d: d.weights(nan),
        ConvertError,
        r"NaN or infinite values: encoder\.layers\.0\.mlp\.fc1\.bias.*earlier checkpoint",
    ),
    "an untied head": (
        lambda d: d.weights(lambda w: w.update({HEAD: w[EMBEDDING] + 1})),
        ConvertError,
        "not its embedding.*tie_word_embeddings",
    ),
    "quantized weights": (
        lambda d: save_torch(
            {"model.decoder.norm.weight": torch.zeros(3, dtype=torch.int8)},
            d.path / "model.safetensors",
        ),
        ConvertError,
        r"model\.decoder\.norm\.weight in .* is I8",
    ),
    "a tokenizer of another kind": (
        lambda d: d.tokenizer(type="WordPiece"),
        ConvertError,
        "a WordPiece tokenizer",
    ),
    "a tokenizer without byte fallback": (
        lambda d: d.tokenizer(byte_fallback=False),
        ConvertError,
        "BPE tokenizer without byte fallback",
    ),
    "a tokenizer with other marks": (
        lambda d: d.tokenizer(vocab={"<pad>": 0, "<s>": 1, "</s>": 2}),
        ConvertError,
        "token 0 of .* is '<pad>' and not '<unk>'",
    ),
    "a tokenizer of a larger model": (
        lambda d: d.tokenizer(vocab=TOKENIZER["model"]["vocab"] | {"more": 400}),
        ConvertError,
        "has the token 400, but the model only 270",
    ),
    "a tokenizer that is none": (
        lambda d: d.write("tokenizer.json", {"version": "1.0"}),
        ModelDamagedError,
        r"tokenizer\.json is no tokenizer",
    ),
    "a model card that is no YAML": (
        lambda d: d.write("README.md", "---\nlicense: [mit\n---\n"),
        ModelDamagedError,
        "front matter",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_said_with_its_mend(directory: Directory, name: str) -> None:
    spoil, kind, words = FAULTS[name]
    spoil(directory)
    with pytest.raises(HarkdError, match=words) as refused:
        open_source(directory.path)
    assert type(refused.value) is kind
    assert refused.value.mend
    assert "Traceback" not in str(refused.value)


@pytest.mark.parametrize("make", ["nothing", "file", "empty"])
def test_what_is_no_model_directory_is_said(tmp_path: Path, make: str) -> None:
    path = tmp_path / "model"
    if make == "file":
        path.write_text("x")
    elif make == "empty":
        path.mkdir()
    with pytest.raises(ModelMissingError) as refused:
        open_source(path)
    assert refused.value.mend


@pytest.mark.parametrize("name", ["streaming_config.json", "frontend.ort"])
def test_a_published_streaming_model_is_not_supported_yet(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ConvertError, match=r"streaming Moonshine.*not supported yet"):
        open_source(tmp_path)


# ----------------------------------------------------------------------------- published files


def test_integers_become_the_weight_that_they_were_made_from() -> None:
    matrix = Quantized(np.array([[0, 255, 5]], np.uint8), 0.5, 5)
    np.testing.assert_array_equal(matrix.dequantized(), [[-2.5], [125.0], [0.0]])
    kernel = Quantized(np.array([[[3, 4]]], np.uint8), 2.0, 3)
    np.testing.assert_array_equal(kernel.dequantized(), [[[0.0, 2.0]]])


@pytest.mark.model
def test_tiny_is_opened_with_the_integers_of_its_matrices(model_dir: Path) -> None:
    source = open_source(model_dir)
    assert source.name == "moonshine-tiny-en"
    assert source.shape == Shape(288, 8, 6, 6, 1152, 1152, 32768, 32)
    assert (source.licence, source.languages) == ("MIT", ("en",))
    assert "Permission is hereby granted" in source.licence_text
    floats = {name for name, weight in source.weights.items() if weight.ndim > 1}
    assert floats - source.quantized.keys() == {f"encoder.conv{i}.weight" for i in (1, 2, 3)}
    for name, integers in source.quantized.items():
        np.testing.assert_array_equal(source.weights[name], integers.dequantized())
    assert source.quantized["decoder.layers.0.mlp.fc1.weight"].values.shape == (288, 2304)
    assert source.quantized["decoder.embed_tokens.weight"].values.shape == (288, 32768)


@pytest.mark.model
def test_base_is_opened_with_the_integers_of_all_its_weights(base_model_dir: Path) -> None:
    source = open_source(base_model_dir)
    assert source.shape == Shape(416, 8, 8, 8, 1664, 1664, 32768, 32)
    floats = {name for name, weight in source.weights.items() if weight.ndim > 1}
    assert floats == source.quantized.keys()
    for name, integers in source.quantized.items():
        np.testing.assert_array_equal(source.weights[name], integers.dequantized())


def published(folder: Path, model: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin"):
        (folder / name).symlink_to(model / name)
    return folder


@pytest.mark.model
@pytest.mark.parametrize(("name", "licence"), [("tiny-en", "MIT"), ("tiny-es", "")])
def test_in_an_unpacked_wheel_the_licence_lies_outside_and_is_for_english_alone(
    model_dir: Path, tmp_path: Path, name: str, licence: str
) -> None:
    infos = tmp_path / "moonshine_voice-0.1.0.dist-info" / "licenses"
    infos.mkdir(parents=True)
    shutil.copy(model_dir / "LICENSE", infos)
    source = open_source(published(tmp_path / "moonshine_voice" / "assets" / name, model_dir))
    assert source.name == f"moonshine-{name}"
    assert source.licence == licence
    assert bool(source.licence_text) == bool(licence)
    assert source.languages == (name[-2:],)
    assert "moonshine_voice 0.1.0" in source.origin


@pytest.mark.model
def test_an_installed_model_that_was_altered_is_refused(model_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "moonshine-tiny-en"
    shutil.copytree(model_dir, folder)
    with (folder / "tokenizer.bin").open("r+b") as file:
        file.write(b"\0")
    with pytest.raises(ModelDamagedError, match=r"tokenizer\.bin: altered"):
        open_source(folder)


@pytest.mark.model
def test_files_in_each_others_place_are_no_moonshine(model_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "moonshine-mixed"
    folder.mkdir()
    encoder, decoder = "encoder_model.ort", "decoder_model_merged.ort"
    (folder / encoder).symlink_to(model_dir / decoder)
    (folder / decoder).symlink_to(model_dir / encoder)
    shutil.copy(model_dir / "tokenizer.bin", folder)
    with pytest.raises(ConvertError, match="no embedding or no head"):
        open_source(folder)


def test_a_published_directory_needs_all_three_files(tmp_path: Path) -> None:
    (tmp_path / "encoder_model.ort").touch()
    with pytest.raises(ModelMissingError, match=r"lacks decoder_model_merged\.ort, tokenizer\.bin"):
        open_source(tmp_path)
