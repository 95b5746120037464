"""Importing what sherpa-onnx publishes: a manifest is made, or a reason is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import small_streaming
from fakes import silence, speech
from harkd.cli_models import models as models_command
from harkd.errors import ModelError, ModelMissingError
from harkd.model_import import import_package
from harkd.model_package import Manifest
from harkd.model_store import ModelStore
from harkd.recognizer.factory import load_recognizer
from harkd.sherpa_package import manifest_of

NAME = "sherpa-onnx-streaming-zipformer-en-2023-06-26"
AUDIO = np.concatenate([speech(2000), silence(300)])
CARD = "---\nlanguage:\n- zh\n- en\nlicense: apache-2.0\n---\n# A model\n"


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store", catalogue={})


@pytest.fixture
def transducer(tmp_path: Path) -> Path:
    return small_streaming.write_transducer(tmp_path / NAME)


def with_metadata(path: Path, **changes: str | None) -> None:
    """Change or remove properties of an ONNX file."""
    model = onnx.load(str(path))
    found = {each.key: each.value for each in model.metadata_props} | changes
    del model.metadata_props[:]
    onnx.helper.set_model_props(
        model, {key: value for key, value in found.items() if value is not None}
    )
    onnx.save(model, str(path))


@pytest.mark.parametrize("kind", ["zipformer2", "zipformer", "lstm", "conformer"])
def test_a_transducer_is_imported_and_runs(store: ModelStore, tmp_path: Path, kind: str) -> None:
    folder = small_streaming.write_transducer(tmp_path / NAME, kind)
    before = sorted(path.name for path in folder.iterdir())
    done = import_package(store, folder)
    manifest = done.model.manifest
    assert (done.copied, manifest.name, manifest.family) == (True, NAME, "streaming-transducer")
    assert manifest.languages == ("en",)
    assert set(manifest.files) == {"encoder", "decoder", "joiner", "tokens"}
    assert manifest.measured["layout"] == kind
    assert store.verify(NAME) == []
    stream = load_recognizer(done.model.dir, manifest, threads=1).stream()
    stream.accept(AUDIO)
    assert stream.finish().text
    assert not import_package(store, folder).copied, "the same again"
    assert sorted(path.name for path in folder.iterdir()) == before, "nothing is written to it"


@pytest.mark.parametrize("kind", ["zipformer2", "wenet_ctc", "EncDecHybridRNNTCTCBPEModel"])
def test_a_ctc_model_is_imported_and_runs(store: ModelStore, tmp_path: Path, kind: str) -> None:
    done = import_package(store, small_streaming.write_ctc(tmp_path / NAME, kind))
    assert done.model.manifest.family == "streaming-ctc"
    stream = load_recognizer(done.model.dir, done.model.manifest, threads=1).stream()
    stream.accept(AUDIO)
    assert stream.finish().text


def test_the_readme_tells_languages_and_licence(transducer: Path) -> None:
    (transducer / "README.md").write_text(CARD)
    (transducer / "LICENSE").write_text("Apache")
    (transducer / "bpe.model").write_bytes(b"pieces")
    manifest = manifest_of(transducer)
    assert (manifest.languages, manifest.licence) == (("zh", "en"), "apache-2.0")
    assert manifest.licence_file == "LICENSE"
    assert manifest.files["bpe_model"].path == "bpe.model"


@pytest.mark.parametrize(
    "card", ["", "---\n", "---\n: [\n---\n", "---\n- a\n---\n", "no front matter"]
)
def test_a_readme_that_tells_nothing_is_no_fault(transducer: Path, card: str) -> None:
    (transducer / "README.md").write_text(card)
    manifest = manifest_of(transducer)
    assert (manifest.languages, manifest.licence) == (("en",), "NOASSERTION")


def test_a_language_that_nothing_tells_is_asked_for(store: ModelStore, tmp_path: Path) -> None:
    folder = small_streaming.write_transducer(tmp_path / "Kroko 64L")
    with pytest.raises(ModelError, match="tells its language") as caught:
        import_package(store, folder)
    assert "--language en" in caught.value.mend
    words = ["--models-dir", str(store.root), "import", str(folder)]
    words += ["--language", "de", "--language", "en"]
    done = CliRunner().invoke(models_command, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert store.locate("kroko-64l").manifest.languages == ("de", "en")


def roles_of(manifest: Manifest) -> dict[str, str]:
    return {role: file.path for role, file in manifest.files.items()}


def test_of_two_precisions_the_faster_is_taken(transducer: Path) -> None:
    for role in ("encoder", "decoder", "joiner"):
        plain = transducer / f"{role}-epoch-99-avg-1.onnx"
        for other in ("int8", "fp16"):
            plain.with_suffix(f".{other}.onnx").write_bytes(plain.read_bytes())
    found = roles_of(manifest_of(transducer))
    assert found["encoder"] == "encoder-epoch-99-avg-1.int8.onnx"
    assert found["decoder"] == "decoder-epoch-99-avg-1.onnx"
    assert found["joiner"] == "joiner-epoch-99-avg-1.int8.onnx"


# --------------------------------------------------------------------------- refusals


def refused(store: ModelStore, folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        import_package(store, folder)
    assert not [path for path in store.root.glob("*") if not path.name.startswith(".")]
    return str(caught.value)


def test_an_unknown_kind_is_refused_with_the_known_ones(
    store: ModelStore, transducer: Path
) -> None:
    with_metadata(next(transducer.glob("encoder*")), model_type="ebranchformer")
    said = refused(store, transducer)
    assert "has the model_type 'ebranchformer'; known are" in said
    assert "zipformer2" in said


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": None}, "no model_type in its metadata"),
        ({"T": None}, "no T in its metadata"),
        ({"T": "many"}, "T = 'many' in its metadata, which is no number"),
        ({"T": "46"}, "does not run as zipformer2"),
        ({"decode_chunk_len": "31"}, "makes 8 frames of 31"),
        ({"feature": "whisper"}, "features of the kind 'whisper'"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(
    store: ModelStore, transducer: Path, changes: dict[str, str | None], reason: str
) -> None:
    with_metadata(next(transducer.glob("encoder*")), **changes)
    assert reason in refused(store, transducer)


def test_a_wenet_model_that_tells_no_chunk_has_that_of_sherpa_onnx(tmp_path: Path) -> None:
    folder = small_streaming.write_ctc(tmp_path / NAME, "wenet_ctc")
    with_metadata(next(folder.glob("*.onnx")), chunk_size=None)
    with pytest.raises(ModelError, match="does not run as wenet_ctc"):
        manifest_of(folder)  # this one has chunks of 4, not 16


def test_nemo_with_normalized_features_is_refused(store: ModelStore, tmp_path: Path) -> None:
    folder = small_streaming.write_ctc(tmp_path / NAME, "EncDecHybridRNNTCTCBPEModel")
    with_metadata(next(folder.glob("*.onnx")), normalize_type="per_feature")
    assert "normalized 'per_feature' over an utterance" in refused(store, folder)


def test_an_encoder_without_joiner_is_refused(store: ModelStore, transducer: Path) -> None:
    next(transducer.glob("joiner*")).unlink()
    assert "but no joiner: it is no streaming transducer" in refused(store, transducer)


def test_several_of_one_role_are_refused(store: ModelStore, transducer: Path) -> None:
    encoder = next(transducer.glob("encoder*"))
    (transducer / "encoder-epoch-12-avg-1.onnx").write_bytes(encoder.read_bytes())
    said = refused(store, transducer)
    assert "several files that could be its encoder" in said
    assert "encoder-epoch-12-avg-1.onnx" in said


def test_an_onnx_file_that_is_none_is_refused(store: ModelStore, transducer: Path) -> None:
    next(transducer.glob("encoder*")).write_bytes(b"\0" * 100)
    assert "is no model that onnxruntime" in refused(store, transducer)


def test_a_folder_without_tokens_is_no_model(store: ModelStore, transducer: Path) -> None:
    (transducer / "tokens.txt").unlink()
    with pytest.raises(ModelMissingError, match="it is not a package"):
        import_package(store, transducer)
