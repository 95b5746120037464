"""What the converter's commands share: files that are named, and libraries that may be absent.

Runs on the main thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from harkd.model_package import Streaming
from harkd_convert.errors import ConvertError
from harkd_convert.plan_text import chunk_and_look_ahead

EXTRA = {"torch", "onnx", "safetensors", "jiwer", "whisper_normalizer"}
"""Modules that come with `harkd[convert]`."""


def read_licence(path: Path) -> str:
    """Return the text of a licence file; raises ConvertError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConvertError(f"{path} cannot be read ({error.strerror})", "check the path") from error
    except UnicodeDecodeError as error:
        raise ConvertError(f"{path} is no text in UTF-8", "give the licence as text") from error
    if not text.strip():
        raise ConvertError(f"{path} is empty", "give the licence's text")
    return text


def plan_of(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> Streaming | None:
    """Return what ``--streaming 16:16`` says; raises click.BadParameter."""
    if value is None:
        return None
    try:
        chunk, look_ahead = chunk_and_look_ahead(value)
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not CHUNK:LOOK_AHEAD, two numbers of frames, such as 16:16"
        ) from error
    return Streaming(chunk_frames=chunk, look_ahead_frames=look_ahead)


@contextmanager
def extra() -> Iterator[None]:
    """Say how to get the libraries that only the converter needs."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in EXTRA:
            raise
        raise ConvertError(
            f"{error.name} is not installed, which only the converter needs",
            "pip install 'harkd[convert]'",
        ) from error
