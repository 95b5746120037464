"""What all tests share."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from certificates import Certificates
from harkd.errors import ModelError
from harkd.model_store import ModelStore

if TYPE_CHECKING:
    from harkd_convert.checkpoint import Source


# A shell lets background jobs ignore Ctrl-C, and nohup the hang-up; children inherit that.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """Leaves logging as it was: a command tried in this process sets it up for all of it."""
    root, ours = logging.getLogger(), logging.getLogger("harkd")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    logging.captureWarnings(False)


@pytest.fixture(autouse=True)
def outside_of_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test is told a container's words, or finds its models, though it may run in one."""
    monkeypatch.setattr("harkd.container.MARKS", ())
    monkeypatch.setattr("harkd.model_store.SHIPPED_DIR", Path("/nonexistent"))
    for name in ("container", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def nothing_bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model comes with harkd: stores have what the test puts there, and nothing else."""
    monkeypatch.setattr("harkd.model_store.BUNDLED_DIR", Path("/nonexistent"))


def installed(name: str) -> Path:
    """A model's directory; pulled by harkd itself where it is not there yet."""
    named = os.environ.get("HARKD_MODELS")
    root = Path(named) if named else Path(__file__).parents[1] / ".cache" / "models"
    store = ModelStore(root)
    try:
        return store.locate(name).dir
    except ModelError:
        return store.pull(name).dir


@pytest.fixture(scope="session")
def model_dir() -> Path:
    """The directory of the catalogue's first entry: what was published, with recordings."""
    return installed("moonshine-tiny-en")


@pytest.fixture(scope="session")
def beckett(model_dir: Path) -> NDArray[np.int16]:
    """10 s of a reading voice, which comes with that model: int16, (n,), 16 kHz."""
    audio: NDArray[np.int16] = soundfile.read(model_dir / "samples" / "beckett.wav", dtype="int16")[
        0
    ]
    return audio


@pytest.fixture(scope="session")
def base_model_dir() -> Path:
    """The directory of the catalogue's second entry."""
    return installed("moonshine-base-en")


@pytest.fixture(scope="session")
def published_source(model_dir: Path) -> Source:
    """That model's weights, as the converter reads them."""
    from harkd_convert.sources import open_source

    return open_source(model_dir)


@pytest.fixture(scope="session")
def lean_model_dir(
    model_dir: Path, published_source: Source, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """That model as `harkd-convert` makes it, without the converter's own checks."""
    from harkd_convert.package import Options, completed, limits_of, write_package

    options = completed(published_source, Options())
    folder = tmp_path_factory.mktemp("models") / options.name
    folder.mkdir()
    write_package(published_source, options, limits_of(model_dir), folder)
    return folder


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Authorities, and good and bad certificates of brokers and clients."""
    return Certificates(tmp_path_factory.mktemp("certificates"))
