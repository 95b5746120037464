"""The exported graphs: that they are the model, however the audio and the tokens come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harkd.recognizer.lean_decoder import DecoderState, LeanDecoder
from harkd.recognizer.lean_encoder import LOOK_AHEAD_FRAMES, EncoderState, LeanEncoder
from harkd.recognizer.moonshine_tokens import Decoded
from harkd.recognizer.onnx import open_session
from harkd_convert.checkpoint import Float32, Quantized, Shape, Source
from harkd_convert.errors import ConvertError
from harkd_convert.export_check import check_export, pseudo_speech, relative_error
from harkd_convert.graph import Graph, Padding, Precision
from harkd_convert.moonshine import Moonshine
from harkd_convert.moonshine_graphs import best_token, decoder_graph, encoder_graph, stem_graph
from harkd_convert.reference import Reference
from harkd_convert.rotation_tables import rotation_tables
from harkd_convert.sources import open_source
from small_moonshine import SHAPES, SMALL, random_source

AUDIO = pseudo_speech(40_000)


class Exported:
    """A source's graphs, loaded."""

    def __init__(
        self, source: Source, folder: Path, precision: Precision = Precision.FP32, kept: str = ""
    ) -> None:
        keep_float = (kept,) if kept else ()
        self.source = source
        self.graphs = {
            "stem": stem_graph(source),
            "encoder": encoder_graph(source, precision, keep_float),
            "decoder": decoder_graph(source, source.shape.vocabulary, precision, keep_float),
        }
        for name, graph in self.graphs.items():
            onnx.save(graph, folder / f"{name}.onnx")
        self.encoder = LeanEncoder(folder / "stem.onnx", folder / "encoder.onnx", 1)
        self.decoder = LeanDecoder(folder / "decoder.onnx", 1, 64)

    def encoded(self, audio: Float32 = AUDIO) -> EncoderState:
        state = EncoderState(self.encoder, 0.0)
        state.accept(audio)
        state.encode(None)
        return state

    def decoding(self) -> DecoderState:
        state = DecoderState(self.decoder)
        state.attend_to(self.encoded().cross())
        return state


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(random_source(), tmp_path_factory.mktemp("graphs"))


def pytorch(source: Source, tokens: int = 30) -> tuple[list[Float32], list[int]]:
    heard = Reference(source, source.shape.vocabulary).hear(AUDIO, tokens)
    return heard.cross, heard.tokens


# ----------------------------------------------------------------------------- the same model


@pytest.mark.parametrize("name", SHAPES)
def test_in_float32_they_are_the_module_in_pytorch(name: str, tmp_path: Path) -> None:
    source = random_source(SHAPES[name])
    agreement = check_export(source, source.shape.vocabulary, AUDIO, tmp_path)
    assert agreement.cross_error < 2e-5
    assert agreement.log_prob_error < 1e-4
    assert agreement.tokens > 4


@pytest.mark.parametrize("name", SHAPES)
def test_token_by_token_with_the_cache_in_place_is_pytorchs_greedy(
    name: str, tmp_path: Path
) -> None:
    source = random_source(SHAPES[name])
    _, tokens = pytorch(source)
    state = Exported(source, tmp_path).decoding()
    decoded = state.decode(Decoded(), 30)
    assert decoded.tokens == tokens
    assert len(set(tokens)) > 3
    again = state.decode(Decoded(), 30)  # what the cache holds does not matter
    assert again.tokens == tokens


def test_guesses_change_nothing_of_what_pytorch_hears() -> None:
    reference = Reference(random_source(), SMALL.vocabulary)
    tokens = reference.hear(AUDIO, 20).tokens
    for guess in (tokens, tokens[:5], [], [3] * 40, tokens[3:]):
        assert reference.hear(AUDIO, 20, guess).tokens == tokens
    model = Moonshine.from_source(random_source())
    hidden = model.encode(torch.from_numpy(AUDIO)[None])
    assert model.greedy(hidden, 20) == tokens


@pytest.mark.parametrize("part", ["encoder.layers.0.self_attn.k_proj", "decoder.layers.2.mlp.fc2"])
def test_a_graph_of_other_weights_is_found_out(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = random_source()
    name = f"{part}.weight"
    other = replace(source, weights=source.weights | {name: source.weights[name] * 1.1})
    monkeypatch.setattr(
        "harkd_convert.export_check.Reference", lambda _source, *words: Reference(other, *words)
    )
    with pytest.raises(ConvertError, match="not the model in PyTorch") as refused:
        check_export(source, SMALL.vocabulary, AUDIO, tmp_path)
    assert "report" in refused.value.mend


def test_graphs_that_do_not_run_are_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = random_source()
    monkeypatch.setattr(
        "harkd_convert.export_check.encoder_graph", lambda *_words: stem_graph(source)
    )
    with pytest.raises(ConvertError, match="do not run"):
        check_export(source, SMALL.vocabulary, AUDIO, tmp_path)


def test_tokens_without_a_text_are_never_chosen(tmp_path: Path) -> None:
    source = random_source()
    most = 12
    assert max(pytorch(source)[1]) >= most
    exported = Exported(source, tmp_path)
    onnx.save(decoder_graph(source, most, Precision.FP32), tmp_path / "decoder.onnx")
    state = DecoderState(LeanDecoder(tmp_path / "decoder.onnx", 1, 64))
    state.attend_to(exported.encoded().cross())
    assert max(state.decode(Decoded(), 30).tokens) < most


def test_pseudo_speech_is_the_same_each_time_and_no_silence() -> None:
    np.testing.assert_array_equal(AUDIO, pseudo_speech(40_000))
    assert AUDIO.dtype == np.float32
    assert 0.25 < np.abs(AUDIO).max() <= 0.3001


# ----------------------------------------------------------------------------- audio in pieces


@given(st.lists(st.integers(1, 9_000), max_size=8), st.booleans())
@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_split_of_the_audio_gives_the_same_frames(
    exported: Exported, sizes: Sequence[int], meanwhile: bool
) -> None:
    """Encoded anew at the end; what was encoded before then does not matter."""
    state = EncoderState(exported.encoder, 0.0)
    at = 0
    for size in sizes:
        state.accept(AUDIO[at : at + size])
        at += size
        if meanwhile and at >= 895:
            state.encode(LOOK_AHEAD_FRAMES)
    state.accept(AUDIO[at:])
    state.encode(None)
    whole = exported.encoded()
    assert state.frames == whole.frames == 102
    for one, other in zip(whole.cross(), state.cross(), strict=True):
        assert relative_error(one, other) < 1e-5


@pytest.mark.parametrize("kept", [1, 40, 102])
def test_with_the_past_given_the_new_frames_are_those_of_the_whole(
    exported: Exported, kept: int
) -> None:
    rng = np.random.default_rng(1)
    session, width, frames = exported.encoder.session, SMALL.width, 103
    rows = rng.normal(size=(2 * frames + 1, 2 * width)).astype(np.float32)
    names = [f"{kind}_{i}" for i in range(SMALL.encoder_layers) for kind in ("key", "value")]

    def run(start: int, past: dict[str, Any]) -> dict[str, Any]:
        feed = {
            "rows": rows[2 * start :],
            "scale": np.array([1.3], np.float32),
            "shift": np.array([-0.2], np.float32),
            "start": np.array([start], np.int64),
            **{f"past_{name}": past[name][:, :start] for name in names},
        }
        return dict(zip(exported.encoder.outputs, session.run(None, feed), strict=True))

    nothing = {name: np.zeros((1, 0, width), np.float32) for name in names}
    whole = run(0, nothing)
    rest = run(kept, whole)
    assert relative_error(whole["cross"][:, :, kept:], rest["cross"]) < 1e-5
    for name in names:
        assert relative_error(whole[name][:, kept:], rest[name]) < 1e-5


# ----------------------------------------------------------------------------- drafts


@given(st.data())
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_draft_changes_the_work_and_not_the_tokens(exported: Exported, data: Any) -> None:
    state = exported.decoding()
    plain = state.decode(Decoded(), 24)
    draft = list(plain.tokens)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(draft)))
        cut = data.draw(st.integers(0, 3))
        draft[at : at + cut] = data.draw(st.lists(st.integers(3, 28), max_size=3))
    decoded = state.decode(Decoded(draft, [0.0] * len(draft)), 24)
    assert decoded.tokens == plain.tokens
    np.testing.assert_allclose(decoded.log_probs, plain.log_probs, atol=1e-4)


# ----------------------------------------------------------------------------- padding


def test_heads_are_widened_with_zeros_at_their_ends() -> None:
    padding = Padding(2, 3)
    matrix = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(padding.columns(matrix), [[0, 1, 0, 2, 3, 0], [4, 5, 0, 6, 7, 0]])
    np.testing.assert_array_equal(
        padding.rows(matrix.T), [[0, 4], [1, 5], [0, 0], [2, 6], [3, 7], [0, 0]]
    )
    np.testing.assert_array_equal(padding.columns(np.ones(4), fill=2.0), [1, 1, 2, 1, 1, 2])
    np.testing.assert_array_equal(Padding(2, 2).columns(matrix), matrix)


@pytest.mark.parametrize("dtype", [np.int8, np.float16, np.float32])
def test_padding_keeps_the_dtype(dtype: Any) -> None:
    assert Padding(3, 16).columns(np.ones((2, 6), dtype)).dtype == dtype
    assert Padding(3, 16).rows(np.ones((6, 2), dtype)).shape == (32, 2)


# ----------------------------------------------------------------------------- tables


def test_the_tables_are_the_rotation_and_exact() -> None:
    cosines, sines = rotation_tables(10_000.0, 32, 4096)
    assert cosines.shape == sines.shape == (4096, 16)
    angles = np.arange(4096)[:, None] * 10_000.0 ** (-np.arange(0, 32, 2) / 32)
    assert np.abs(cosines - np.cos(angles)).max() < 4e-8  # half of the last bit
    assert np.abs(sines - np.sin(angles)).max() < 4e-8
    lengths = cosines.astype(float) ** 2 + sines.astype(float) ** 2
    assert np.abs(lengths - 1).max() < 2e-7
    assert cosines[1, 0] == np.float32(math.cos(1))


# ----------------------------------------------------------------------------- precisions


@pytest.mark.parametrize("name", SHAPES)
def test_in_8_bits_keys_and_values_are_near(name: str, tmp_path: Path) -> None:
    source = random_source(SHAPES[name])
    cross, _ = pytorch(source)
    found = Exported(source, tmp_path, Precision.INT8).encoded().cross()
    errors = [relative_error(one, other[0]) for one, other in zip(cross, found, strict=True)]
    assert max(errors) < 0.05


def test_a_published_embedding_keeps_its_integers(tmp_path: Path) -> None:
    name = "decoder.embed_tokens.weight"
    source = random_source()
    values = np.random.default_rng(3).integers(0, 255, (SMALL.width, SMALL.vocabulary), np.uint8)
    published = Quantized(values, 0.015625, 120)
    source.quantized[name] = published
    source.weights[name] = published.dequantized()
    embedding = initializers(decoder_graph(source, SMALL.vocabulary, Precision.INT8))["embedding"]
    np.testing.assert_array_equal(embedding, values.T)
    Exported(source, tmp_path, Precision.INT8).decoding().decode(Decoded(), 10)


def test_an_embedding_of_floats_has_a_scale_for_each_token_and_is_the_head_once_more(
    tmp_path: Path,
) -> None:
    source, name = random_source(), "decoder.embed_tokens.weight"
    found = initializers(decoder_graph(source, SMALL.vocabulary, Precision.INT8))
    assert [each for each in found if "embed" in each] == [name, f"{name}.scales"]
    assert found[name].dtype == np.int8
    scales = found[f"{name}.scales"]
    error = np.abs(found[name] * scales - source.weights[name].T)
    assert (error <= scales * 0.501).all()
    decoded = Exported(source, tmp_path, Precision.INT8).decoding().decode(Decoded(), 10)
    assert len(decoded.tokens) > 3


@pytest.mark.parametrize("kept", ["*", "encoder.*", "*.embed_tokens.*", "*.0.self_attn.k_proj.*"])
def test_listed_weights_stay_in_float(kept: str, tmp_path: Path) -> None:
    exported = Exported(random_source(), tmp_path, Precision.INT8, kept)
    dtypes = {
        name: array.dtype
        for graph in (exported.graphs["encoder"], exported.graphs["decoder"])
        for name, array in initializers(graph).items()
        if name.endswith("weight") and array.ndim == 2
    }
    for name, dtype in dtypes.items():
        merged = kept.startswith("*.0.self_attn") and "0.self_attn.qkv" in name
        listed = {
            "*": True,
            "encoder.*": name.startswith("encoder."),
            "*.embed_tokens.*": "embed_tokens" in name,
        }.get(kept, merged)
        assert (dtype == np.float32) == listed, name
    exported.decoding().decode(Decoded(), 5)


def test_float16_is_float16_throughout_and_hears_nearly_the_same(tmp_path: Path) -> None:
    source = random_source()
    cross, tokens = pytorch(source)
    exported = Exported(source, tmp_path, Precision.FP16)
    assert exported.encoder.real == exported.decoder.real == np.float16
    for name, array in initializers(exported.graphs["decoder"]).items():
        assert array.dtype in (np.float16, np.int64), name
    state = exported.encoded()
    errors = [
        relative_error(a, b[0].astype(np.float32))
        for a, b in zip(cross, state.cross(), strict=True)
    ]
    assert max(errors) < 5e-3
    assert exported.decoding().decode(Decoded(), 30).tokens[:3] == tokens[:3]


@pytest.mark.parametrize("tokens", [1, 2, 97, 128, 129, 256, 1000, 32003, 32768])
def test_the_best_token_is_found_among_any_number(tmp_path: Path, tokens: int) -> None:
    graph = Graph(random_source(), Precision.FP32)
    graph.input("logits", onnx.TensorProto.FLOAT, [1, "tokens", tokens])
    best_token(graph, "logits", tokens)
    onnx.save(graph.model("best", {}), tmp_path / "best.onnx")
    session = open_session(tmp_path / "best.onnx", 1, arena=False)
    logits = np.random.default_rng(tokens).normal(0, 5, (1, 40, tokens)).astype(np.float32)
    logits[0, 0] = 3.0  # all alike
    logits[0, 1, [0, -1]] = logits.max() + 1  # first and last alike
    logits[0, 2, -1] = logits.max() + 1  # the last
    token, log_prob = session.run(["token", "log_prob"], {"logits": logits})
    np.testing.assert_array_equal(token, logits.argmax(-1))
    wanted = torch.log_softmax(torch.from_numpy(logits), -1).max(-1).values.numpy()
    np.testing.assert_allclose(log_prob, wanted, atol=1e-5)


def initializers(model: onnx.ModelProto) -> dict[str, Any]:
    return {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}


@pytest.mark.model
def test_tinys_graphs_are_lean_and_keep_its_integers(model_dir: Path) -> None:
    source = open_source(model_dir)
    encoder = encoder_graph(source, Precision.INT8)
    decoder = decoder_graph(source, 32768, Precision.INT8)
    assert len(stem_graph(source).graph.node) == 15
    assert len(encoder.graph.node) == 106
    assert len(decoder.graph.node) == 111
    name = "decoder.layers.3.mlp.fc2.weight"
    published = source.quantized[name]
    centred = published.values.astype(int) - published.zero_point
    fits = np.abs(centred).max(axis=0) <= 127
    assert fits.mean() > 0.5
    np.testing.assert_array_equal(initializers(decoder)[name][:, fits], centred[:, fits])


def test_a_shape_of_small_heads_is_among_the_shapes() -> None:
    assert {shape.head_width for shape in SHAPES.values()} >= {36, 52, 32, 8}
    assert all(isinstance(shape, Shape) and not shape.faults() for shape in SHAPES.values())
