"""What all tests share."""

import os
from pathlib import Path

import pytest

from harkd.errors import ModelError
from harkd.model_catalogue import DEFAULT_MODEL
from harkd.model_store import ModelStore


@pytest.fixture(scope="session")
def model_dir() -> Path:
    """The default model's directory; pulled by harkd itself where it is not there yet."""
    named = os.environ.get("HARKD_MODELS")
    root = Path(named) if named else Path(__file__).parents[1] / ".cache" / "models"
    store = ModelStore(root)
    try:
        return store.locate(DEFAULT_MODEL).dir
    except ModelError:
        return store.pull(DEFAULT_MODEL).dir
