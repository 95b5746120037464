"""The models that come in the Python package of harkd: where they lie, and what is said of them.

In: the name of a model. Out: its folder, errors and mends. Nothing is ever written there: it may
belong to another user, or lie on a read-only disk. Reads folders' names only; runs on the caller's
thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harkd.errors import ModelMissingError

BUNDLED_DIR: Path = Path(__file__).with_name("models")
"""One folder for each; a checkout of the sources may be without them."""

BUNDLED: Final = ("moonshine-tiny-streaming-en",)
"""The names of those that should be there."""

REINSTALL: Final = "Install harkd again: pip install --force-reinstall --no-deps harkd"
"""What mends a damaged one."""

_INSTEAD = "moonshine-tiny-en"


def missing(name: str, folder: Path) -> ModelMissingError:
    """Return the error for one that should be in a folder, and is not."""
    return ModelMissingError(
        f"the model {name} should come with harkd, and is not in {folder}",
        "Install harkd from a release, not from sources without models, or run "
        f"`harkd models pull {_INSTEAD}` and set recognizer.model: {_INSTEAD}",
    )


def not_removable(name: str, folder: Path) -> ModelMissingError:
    """Return the error for one that somebody wants to delete."""
    return ModelMissingError(
        f"{name} comes with harkd and lies in {folder}",
        "Leave it there: it goes when harkd is uninstalled",
    )


def instead_of(name: str) -> str:
    """Return what lets harkd use its own where one of the same name lies before it."""
    return f"use the one that comes with harkd: `harkd models remove {name}`"
