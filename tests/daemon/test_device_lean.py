"""The lean Moonshine on a GPU: caches in its memory, and what may be there at all.

Here the GPU's memory is the CPU's, but the way is that of CUDA: nothing is shared with the host.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fake_gpu import GOOD, Fitted, Machine
from harkd.model_package import load_manifest
from harkd.recognizer.chunk_buffers import DeviceBuffers, HostBuffers
from harkd.recognizer.device_report import DeviceReport
from harkd.recognizer.factory import load_recognizer, load_with_report
from harkd.recognizer.moonshine_lean import MoonshineLean
from harkd.recognizer.moonshine_tokens import TOKEN_END
from harkd.recognizer.phrase_scorer import PhraseScorer, PhraseScores, Scope
from harkd.recognizer.phrase_search import Width
from harkd_convert.conversion import convert
from harkd_convert.graph import Precision
from harkd_convert.package import Options
from small_moonshine import write_directory
from small_phrases import small_graph

Int16 = NDArray[np.int16]
WIDE = Scope(Width(paths=8, first=8, found=8, within=1e9), exhaustive=False)
TREES = small_graph("(alder|birch) [cedar] (elm|fir)", "oak", "pine pine")


def package(folder: Path, precision: Precision) -> Path:
    """One of random weights."""
    target = folder / "package"
    convert(write_directory(folder / "small"), target, Options(precision=precision))
    return target


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package(tmp_path_factory.mktemp("halved"), Precision.FP16)


@pytest.fixture
def fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fitted:
    machine = Machine(tmp_path, monkeypatch)
    machine.has(driver=GOOD)
    return Fitted(monkeypatch)


def loaded(folder: Path) -> tuple[MoonshineLean, DeviceReport]:
    model, report = load_with_report(folder, load_manifest(folder), 1, device="cuda")
    assert isinstance(model, MoonshineLean)
    return model, report


def noise(seed: int) -> Int16:
    """Two seconds."""
    return np.random.default_rng(seed).normal(0, 3000, 32_000).astype(np.int16)


def heard(model: MoonshineLean) -> tuple[list[tuple[int, ...]], PhraseScores]:
    """The tokens of partials and finals, and phrases, of two segments in one cache."""
    tokens = []
    scorer = PhraseScorer(TREES, model.vocabulary(), TOKEN_END, WIDE)
    for seed in (1, 2):
        stream = model.stream()
        for part in np.split(noise(seed), 4):
            stream.accept(part)
            tokens.append(stream.hypothesis().tokens)
        scores = stream.phrases(scorer)
        tokens.append(stream.finish().tokens)
    return tokens, scores


def test_float16_is_on_the_gpu_with_its_caches_and_hears_the_same(
    halved: Path, fitted: Fitted
) -> None:
    far, report = loaded(halved)
    assert report.sessions == {"stem": "cuda", "encoder": "cuda", "decoder": "cuda"}
    assert (far.provider, report.missed) == ("cuda", False)
    assert fitted.opened
    near = load_recognizer(halved, load_manifest(halved), 1)
    assert isinstance(near, MoonshineLean)
    (tokens, scores), (wanted, same) = heard(far), heard(near)
    assert tokens == wanted
    assert any(tokens)
    assert [each.written for each in scores.phrases] == [each.written for each in same.phrases]
    assert [each.log_prob for each in scores.phrases] == pytest.approx(
        [each.log_prob for each in same.phrases], abs=1e-2
    )
    assert isinstance(far.cache()._caches, DeviceBuffers)
    assert isinstance(near.cache()._caches, HostBuffers)


def test_a_decoder_in_float32_stays_on_the_processor_and_says_why(
    tmp_path: Path, fitted: Fitted
) -> None:
    folder = package(tmp_path, Precision.FP32)
    model, report = loaded(folder)
    assert report.sessions == {"stem": "cuda", "encoder": "cuda", "decoder": "cpu"}
    assert (model.provider, report.missed) == ("mixed", True)
    assert "decoder is in float32" in report.what
    assert "--precision fp16" in report.mend
    assert not model.decoder.on_gpu
    assert fitted.opened[-1] == ("decoder.onnx", "cuda")
