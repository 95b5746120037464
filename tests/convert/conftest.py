"""What the converter's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from harkd_convert.conversion import Conversion, convert
from harkd_convert.distil.options import Options
from harkd_convert.package import Options as PackageOptions
from small_distillation import ENDING, SHAPE, small_options, write_lists
from small_moonshine import write_directory

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
    return folder, convert(model_dir, folder, PackageOptions())


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists of noise for speech, in the folder that is returned."""
    return write_lists(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights that comes to an end with them."""
    return write_directory(tmp_path_factory.mktemp("model") / "small", SHAPE, ENDING)


@pytest.fixture
def options(lists: Path, source: Path, tmp_path: Path) -> Options:
    """Of a distillation that takes a second."""
    return small_options(lists, source, tmp_path / "out")
