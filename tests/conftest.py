"""What all tests share."""

import os
from pathlib import Path

import pytest

from harkd.errors import ModelError
from harkd.model_catalogue import DEFAULT_MODEL
from harkd.model_store import ModelStore


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
    """The default model's directory."""
    return installed(DEFAULT_MODEL)


@pytest.fixture(scope="session")
def base_model_dir() -> Path:
    """The directory of the catalogue's second entry."""
    return installed("moonshine-base-en")
