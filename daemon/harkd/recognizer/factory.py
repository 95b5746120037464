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
from harkd.recognizer.onnx import (
    CUDA_PROVIDER,
    choose_threads,
    fetch_anew,
    give_back_memory,
    onnxruntime,
)
from harkd.recognizer.protocol import EVERYTHING, Effort, Recognizer
from harkd.recognizer.transducer import Transducer

log = logging.getLogger(__name__)


FAMILIES: dict[str, Callable[..., Recognizer]] = {
    "moonshine": Moonshine,
    "moonshine-lean": MoonshineLean,
    "streaming-ctc": StreamingCtc,
    "streaming-transducer": Transducer,
}
ON_GPU = ("streaming-ctc", "streaming-transducer")
"""Families that can run on CUDA; Moonshine's files are in int8, which CUDA has no product for."""


def misfit(manifest: Manifest) -> str:
    """Return why this version cannot run a model, as a sentence's end; empty where it can."""
    if manifest.family not in FAMILIES:
        return f'is of the family "{manifest.family}"; this harkd runs ' + ", ".join(FAMILIES)
    if manifest.sample_rate_hz != RATE_HZ:
        return f"wants {manifest.sample_rate_hz} Hz, not {RATE_HZ} Hz"
    return ""


def load_recognizer(
    folder: Path,
    manifest: Manifest,
    threads: int = 0,
    effort: Effort = EVERYTHING,
    device: str = "cpu",
) -> Recognizer:
    """Load a model and run it once, so that the first utterance is as fast as the others.

    Args:
        folder: The package's directory.
        manifest: Its manifest, whose files have been verified.
        threads: Threads for each pass; 0 chooses by the cores of this machine.
        effort: What it may leave out; everything that it can if omitted.
        device: ``cpu``; ``auto`` or ``cuda`` for the GPU, where the family and the machine can.

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
    where = {"device": device} if manifest.family in ON_GPU else {}
    recognizer = FAMILIES[manifest.family](folder, manifest, count, effort, **where)
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
    if device == "cuda" != recognizer.provider:
        log.error("%s", why_not_on_gpu(manifest))
    log.info(
        "model %s loaded in %.2f s: %s, %d thread%s",
        manifest.name,
        time.perf_counter() - begin,
        recognizer.provider,
        count,
        "" if count == 1 else "s",
    )
    return recognizer


def why_not_on_gpu(manifest: Manifest) -> str:
    """Say why a model runs on the CPU, and what to do."""
    if manifest.family not in ON_GPU:
        return (
            f"recognizer.device is cuda, but a model of the family {manifest.family} runs on the "
            f"CPU only: choose one of the families {' and '.join(ON_GPU)}, or set it to auto"
        )
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        return (
            "recognizer.device is cuda, but this onnxruntime knows no CUDA; the model runs on the "
            "CPU: pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]'"
        )
    return (
        "recognizer.device is cuda, but onnxruntime could not use the GPU; the model runs on the "
        "CPU: check that nvidia-smi shows the GPU, and that its driver fits the CUDA of "
        f"onnxruntime-gpu {onnxruntime.__version__}"
    )
