"""Makes the recognizer that a model package asks for, by the family named in its manifest."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from harkd.audio import RATE_HZ
from harkd.errors import DeviceError, ModelDamagedError, ModelError, RecognitionError
from harkd.model_package import Manifest
from harkd.recognizer.ctc import StreamingCtc
from harkd.recognizer.cuda import is_wanted, read_runtime, where_to_try
from harkd.recognizer.device_faults import fault_of, int8_model
from harkd.recognizer.device_report import CPU, CUDA, DeviceReport
from harkd.recognizer.moonshine import Moonshine
from harkd.recognizer.moonshine_lean import MoonshineLean
from harkd.recognizer.moonshine_streaming import MoonshineStreaming
from harkd.recognizer.onnx import choose_threads, fetch_anew, give_back_memory
from harkd.recognizer.placement import Placement, int8_roles, words_of
from harkd.recognizer.protocol import EVERYTHING, Effort, Recognizer
from harkd.recognizer.transducer import Transducer

log = logging.getLogger(__name__)


class Placed(Recognizer, Protocol):
    """A recognizer that knows where its sessions are."""

    placement: Placement


FAMILIES: dict[str, Callable[..., Placed]] = {
    "moonshine": Moonshine,
    "moonshine-lean": MoonshineLean,
    "moonshine-streaming": MoonshineStreaming,
    "streaming-ctc": StreamingCtc,
    "streaming-transducer": Transducer,
}
ON_GPU: dict[str, tuple[str, ...]] = {
    "moonshine": ("encoder", "decoder"),
    "moonshine-lean": ("stem", "encoder", "decoder"),
    "moonshine-streaming": ("stem", "encoder", "decoder"),
    "streaming-ctc": ("model",),
    "streaming-transducer": ("encoder",),
}
"""The files of each family that belong on a GPU; the others are too little work."""


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
        device: ``cpu``; ``auto`` or ``cuda`` for the GPU, where the model and the machine can. The
            log says why it is not there where it should be.

    Raises:
        ModelError: The family is unknown, or a file cannot be used.
    """
    recognizer, report = load_with_report(folder, manifest, threads, effort, device)
    tell(report)
    return recognizer


def load_with_report(
    folder: Path,
    manifest: Manifest,
    threads: int = 0,
    effort: Effort = EVERYTHING,
    device: str = "cpu",
) -> tuple[Recognizer, DeviceReport]:
    """Do the same, and return where it runs, instead of telling why it is not on the GPU.

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
    in_int8 = int8_roles(graphs_of(folder, manifest)) if is_wanted(device) else []
    target, faults = where_to_try(device, in_int8=bool(in_int8))
    if in_int8:
        faults = [*faults, int8_model(in_int8, manifest.family)]
    try:
        recognizer, placement = started(folder, manifest, count, effort, target)
    except ModelError as error:
        if target != CUDA:
            raise
        # The model, or the GPU in its first pass: it is the GPU if the CPU can.
        recognizer, placement = started(folder, manifest, count, effort, CPU)
        faults = [fault_of(words_of(error), read_runtime())]
    log.info(
        "model %s loaded in %.2f s: %s, %d thread%s",
        manifest.name,
        time.perf_counter() - begin,
        recognizer.provider,
        count,
        "" if count == 1 else "s",
    )
    faults = [*faults, *placement.faults]
    return recognizer, DeviceReport(device, recognizer.provider, placement.sessions, faults)


def started(
    folder: Path, manifest: Manifest, threads: int, effort: Effort, device: str
) -> tuple[Recognizer, Placement]:
    """Return a model that has run once, and where its sessions are. Raises ModelError."""
    recognizer = FAMILIES[manifest.family](folder, manifest, threads, effort, device)
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
    return recognizer, recognizer.placement


def graphs_of(folder: Path, manifest: Manifest) -> list[tuple[str, Path]]:
    """Return the files that belong on a GPU, by role; those that are not there are left out."""
    named = [role for role in ON_GPU[manifest.family] if role in manifest.files]
    paths = [(role, folder / manifest.files[role].path) for role in named]
    return [(role, path) for role, path in paths if path.is_file()]


def tell(report: DeviceReport) -> None:
    """Log where a model runs, where that is not what was wanted, or is not the same for all."""
    if report.missed:
        level = logging.ERROR if report.wanted == CUDA else logging.WARNING
        log.log(level, "%s", DeviceError(report.what, report.mend))
    if len(set(report.sessions.values())) > 1:
        log.info("the model's sessions run on %s", report.places)
