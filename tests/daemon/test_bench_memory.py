"""What a model takes is measured in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from harkd.bench_measure import BenchError
from harkd.bench_memory import measure

TRAINED = Path(__file__).parents[1] / "data" / "an4-en"


def test_a_small_model_takes_little_and_no_more_for_a_longer_utterance() -> None:
    found = measure(TRAINED)
    assert set(found.peaks_mb) == {"15", "30"}
    assert 0 < found.figures.loaded_mb <= found.figures.load_mb
    assert found.figures.load_mb <= max(found.peaks_mb.values()) < 100
    assert found.figures.per_s_mb < 1


def test_a_folder_without_a_model_is_told_with_the_words_of_the_process(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"could not be measured: .*model\.yaml is missing"):
        measure(tmp_path)
