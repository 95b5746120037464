"""What this machine has for CUDA: driver, device files, libraries. Nothing is run on the GPU.

In: nothing but what lies there. Out: `Driver`, and what is missing as `DeviceFault`. Loading the
libraries takes a second or two, and happens once; on the thread that loads the model.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harkd.recognizer.device_faults import (
    DRIVER_LIBRARY,
    missing_in,
    missing_libraries,
    no_cuda_in,
    no_device,
    no_gpu,
    old_driver,
)
from harkd.recognizer.device_report import CPU, CUDA, DeviceFault, Runtime
from harkd.recognizer.onnx import CUDA_PROVIDER, onnxruntime

DEVICES: Final = Path("/dev")
DRIVER_FACTS: Final = Path("/proc/driver/nvidia/version")
NO_DEVICE: Final = 100
"""CUDA_ERROR_NO_DEVICE of the driver's cuInit (CUDA Driver API, section 6.1, CUresult)."""


@dataclass(frozen=True, slots=True)
class Driver:
    """NVIDIA's driver."""

    version: str = ""
    """As nvidia-smi shows it; empty where the kernel does not tell"""
    cuda: tuple[int, int] | None = None
    """The newest CUDA that its library knows; None without the library"""
    code: int | None = None
    """What its library answers when it is to begin: 0 for all right; None without the library"""
    nodes: bool = False
    """Whether there are device files of a GPU"""

    def __str__(self) -> str:
        words = f"driver {self.version}".rstrip()
        return f"{words} with CUDA {self.cuda[0]}.{self.cuda[1]}" if self.cuda else words


def read_runtime() -> Runtime:
    """Return which onnxruntime is installed."""
    return Runtime(onnxruntime.__version__, str(getattr(onnxruntime, "cuda_version", "") or ""))


def knows_cuda() -> bool:
    """Tell whether onnxruntime was built with CUDA."""
    return CUDA_PROVIDER in onnxruntime.get_available_providers()


def read_driver() -> Driver:
    """Look for NVIDIA's driver, and let its library begin."""
    version = ""
    with contextlib.suppress(OSError):
        told = DRIVER_FACTS.read_text(encoding="ascii", errors="replace")
        # "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build …"
        found = re.search(r"\b(\d{3,}(?:\.\d+){1,2})\b", told)
        version = found[1] if found else ""
    nodes = any(DEVICES.glob("nvidia[0-9]*")) or (DEVICES / "dxg").exists()  # dxg: WSL 2
    try:
        library = ctypes.CDLL(f"{DRIVER_LIBRARY}.1")
        told_cuda = ctypes.c_int(0)
        code = int(library.cuInit(0))
        known = library.cuDriverGetVersion(ctypes.byref(told_cuda)) == 0
    except (OSError, AttributeError):  # not there; no such function in it
        return Driver(version, nodes=nodes)
    number = told_cuda.value  # 12040 for 12.4
    return Driver(version, (number // 1000, number % 1000 // 10) if known else None, code, nodes)


@functools.cache
def load_libraries() -> tuple[str, ...]:
    """Load what pip has installed of CUDA and cuDNN; return the names of what is missing.

    Where onnxruntime cannot load its CUDA provider it says so on stderr, and goes on with the CPU
    (microsoft/onnxruntime#17801); so the same file is loaded here first, to hear why it fails.
    """
    said = io.StringIO()
    # https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#preload-dlls
    if hasattr(onnxruntime, "preload_dlls"):  # from 1.21 on
        with contextlib.redirect_stdout(said):  # it prints what it misses
            onnxruntime.preload_dlls()
    provider = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(provider))
    except OSError as error:
        # Only the first that is missing; preload_dlls has told the others.
        return tuple(missing_in(f"{error}\n{said.getvalue()}"))
    return ()


def faults(runtime: Runtime, *, in_int8: bool) -> Iterator[DeviceFault]:
    """Yield what keeps onnxruntime from using a GPU here; nothing where all that is seen is well.

    What is yielded is certain: a session would end up on the CPU. The libraries, which take 200 MB
    of memory, are loaded only where nothing else is in the way; `in_int8` of a model is.
    """
    if not knows_cuda():
        yield no_cuda_in(runtime, both_installed=gpu_wheel_is_installed())
        return
    driver = read_driver()
    if driver.code is None:
        yield no_gpu(nodes=driver.nodes)
    elif driver.cuda and driver.cuda < (runtime.cuda_major, 0):
        yield old_driver(runtime, str(driver))
    elif driver.code == NO_DEVICE:
        yield no_device(nodes=driver.nodes)
    elif not in_int8 and (missing := load_libraries()):
        yield missing_libraries(missing, runtime)


def gpu_wheel_is_installed() -> bool:
    """Tell whether pip has installed onnxruntime-gpu, whatever lies over it."""
    try:
        importlib.metadata.version("onnxruntime-gpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def is_wanted(wanted: str) -> bool:
    """Tell whether `recognizer.device` means a GPU: ``auto`` does where onnxruntime-gpu was put."""
    return wanted == CUDA or (wanted == "auto" and (knows_cuda() or gpu_wheel_is_installed()))


def where_to_try(wanted: str, *, in_int8: bool = False) -> tuple[str, list[DeviceFault]]:
    """Return the device to try for `recognizer.device`, and why it is not the GPU.

    A model `in_int8` is not tried there, for which the caller has the words.
    """
    if not is_wanted(wanted):
        return CPU, []
    found = list(faults(read_runtime(), in_int8=in_int8))
    return (CPU if found or in_int8 else CUDA), found
