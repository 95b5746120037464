"""What the converter's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from harkd_convert.conversion import Conversion, convert
from harkd_convert.package import Options

Lean = tuple[Path, Conversion]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Small matrices gain nothing from more, and lose where the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def lean(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Lean:
    """Tiny in 8 bits, converted once; to be left as it is."""
    folder = tmp_path_factory.mktemp("lean") / "moonshine-tiny-en-lean"
    return folder, convert(model_dir, folder, Options())
