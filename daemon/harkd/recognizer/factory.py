"""Makes the recognizer that a model package asks for, by the family named in its manifest."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from harkd.audio import RATE_HZ
from harkd.errors import ModelDamagedError, ModelError, RecognitionError
from harkd.model_package import Manifest
from harkd.recognizer.ctc import StreamingCtc
from harkd.recognizer.moonshine import Moonshine
from harkd.recognizer.moonshine_lean import MoonshineLean
from harkd.recognizer.onnx import choose_threads, fetch_anew, give_back_memory
from harkd.recognizer.protocol import EVERYTHING, Effort, Recognizer
from harkd.recognizer.transducer import Transducer

log = logging.getLogger(__name__)


FAMILIES: dict[str, Callable[[Path, Manifest, int, Effort], Recognizer]] = {
    "moonshine": Moonshine,
    "moonshine-lean": MoonshineLean,
    "streaming-ctc": StreamingCtc,
    "streaming-transducer": Transducer,
}


def misfit(manifest: Manifest) -> str:
    """Return why this version cannot run a model, as a sentence's end; empty where it can."""
    if manifest.family not in FAMILIES:
        return f'is of the family "{manifest.family}"; this harkd runs ' + ", ".join(FAMILIES)
    if manifest.sample_rate_hz != RATE_HZ:
        return f"wants {manifest.sample_rate_hz} Hz, not {RATE_HZ} Hz"
    return ""


def load_recognizer(
    folder: Path, manifest: Manifest, threads: int = 0, effort: Effort = EVERYTHING
) -> Recognizer:
    """Load a model and run it once, so that the first utterance is as fast as the others.

    Args:
        folder: The package's directory.
        manifest: Its manifest, whose files have been verified.
        threads: Threads for each pass; 0 chooses by the cores of this machine.
        effort: What it may leave out; everything that it can if omitted.

    Raises:
        ModelError: The family is unknown, or a file cannot be used.
    """
    if why := misfit(manifest):
        raise ModelError(
            f"the model {manifest.name} {why}",
            "update harkd, or choose another model with recognizer.model",
        )
    begin = time.perf_counter()
    count = choose_threads(threads)
    recognizer = FAMILIES[manifest.family](folder, manifest, count, effort)
    stream = recognizer.stream()
    stream.accept(np.zeros(RATE_HZ, np.int16))
    try:
        stream.finish()
    except RecognitionError as error:
        raise ModelDamagedError(
            f"the files in {folder} load, but do not work together: {error.message}",
            fetch_anew(folder / "model.yaml"),
        ) from error
    give_back_memory()
    log.info(
        "model %s loaded in %.2f s: %s, %d thread%s",
        manifest.name,
        time.perf_counter() - begin,
        recognizer.provider,
        count,
        "" if count == 1 else "s",
    )
    return recognizer
