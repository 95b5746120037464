"""What keeps a model from the GPU, in words, with what to do about it. Pure.

In: what onnxruntime raises or the loader of libraries says, and versions. Out: `DeviceFault`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from harkd.recognizer.device_report import DeviceFault, Runtime

LEAST_DRIVER: Final = {12: "525", 13: "580"}
"""NVIDIA's driver for each CUDA (docs.nvidia.com/deploy/cuda-compatibility, table 1)."""
LAST_OF_CUDA_12: Final = "1.26"
"""The last onnxruntime-gpu of the package index that is built with CUDA 12; 1.27 and later with 13
(their `onnxruntime.cuda_version`: 1.26.0 says 12.8, 1.31.1 says 13.0)."""
IMAGE_12: Final = (
    "use harkd's CUDA 12 image (--build-arg CUDA=12), or pip install "
    f"'onnxruntime-gpu[cuda,cudnn]=={LAST_OF_CUDA_12}.*'"
)


def no_cuda_in(runtime: Runtime, *, both_installed: bool) -> DeviceFault:
    """Return the fault of an onnxruntime for the CPU.

    `both_installed` where onnxruntime-gpu is, too: the two share a folder, so the last one counts.
    """
    install = "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    if both_installed:
        return DeviceFault(
            f"onnxruntime {runtime.version} is installed over onnxruntime-gpu, and knows no CUDA",
            f"pip uninstall onnxruntime onnxruntime-gpu, then {install}",
        )
    return DeviceFault(
        f"the onnxruntime {runtime.version} that is installed knows no CUDA",
        f"pip uninstall onnxruntime, then {install}; or use harkd's CUDA image",
    )


def no_gpu(*, nodes: bool) -> DeviceFault:
    """Return the fault of a machine without a GPU, or a container that was given none.

    `nodes` where device files (/dev/nvidia0) are there.
    """
    if nodes:
        return DeviceFault(
            "there is an NVIDIA GPU (/dev/nvidia*), but no driver library (libcuda.so.1) to use it",
            "in a container set NVIDIA_DRIVER_CAPABILITIES=compute,utility; on the machine itself "
            "install NVIDIA's driver with its CUDA library (Debian: libcuda1)",
        )
    return DeviceFault(
        "there is no NVIDIA GPU here (neither /dev/nvidia* nor libcuda.so.1)",
        "start a container with --gpus all (Docker, with nvidia-container-toolkit) or "
        "--device nvidia.com/gpu=all (podman); on the machine itself install NVIDIA's driver, "
        "until nvidia-smi shows the GPU",
    )


def no_device(*, nodes: bool) -> DeviceFault:
    """Return the fault of a driver that finds no GPU."""
    if nodes:
        return DeviceFault(
            "NVIDIA's driver says that there is no GPU that harkd may use",
            "nvidia-smi must show it to this user; look at CUDA_VISIBLE_DEVICES, and at "
            "DeviceAllow= in docs/service.md",
        )
    return DeviceFault(
        "NVIDIA's driver library is here, but no GPU (no /dev/nvidia*)",
        "start a container with --gpus all; on the machine itself load the driver: nvidia-smi "
        "must show the GPU",
    )


def old_driver(runtime: Runtime, driver: str) -> DeviceFault:
    """Return the fault of a driver that is older than the CUDA of onnxruntime.

    `driver` says which it is, as "driver 550.54 with CUDA 12.4"; empty where that is not known.
    """
    major = runtime.cuda_major
    needed = f"CUDA {major}" if major else "a newer CUDA"
    mend = "update NVIDIA's driver"
    if least := LEAST_DRIVER.get(major):
        mend += f" to {least} or later"
    if major >= 13:
        mend += f", or {IMAGE_12}"
    return DeviceFault(
        f"NVIDIA's {driver or 'driver'} is too old for onnxruntime-gpu {runtime.version}, which "
        f"needs {needed}",
        mend,
    )


def missing_libraries(names: Sequence[str], runtime: Runtime) -> DeviceFault:
    """Return the fault of libraries of CUDA or cuDNN that are not there."""
    verb = "is" if len(names) == 1 else "are"
    return DeviceFault(
        f"{', '.join(names)} {verb} missing, which onnxruntime-gpu {runtime.version} needs",
        f"pip install {runtime.extras}, which brings CUDA and cuDNN; or use harkd's CUDA image",
    )


def no_kernels(runtime: Runtime) -> DeviceFault:
    """Return the fault of a GPU that onnxruntime was not built for."""
    mend = "an older GPU needs an older CUDA, a newer one the newest onnxruntime-gpu"
    if runtime.cuda_major >= 13:
        # https://docs.nvidia.com/cuda/archive/12.9.0/cuda-toolkit-release-notes (deprecations)
        mend = (
            f"CUDA 13 knows no GPU before Turing (GTX 16, RTX 20): for Maxwell, Pascal and Volta "
            f"{IMAGE_12}; a GPU newer than that needs the newest onnxruntime-gpu"
        )
    return DeviceFault(f"onnxruntime-gpu {runtime.version} is not built for this GPU", mend)


def no_memory(_runtime: Runtime) -> DeviceFault:
    """Return the fault of a GPU whose memory is full."""
    return DeviceFault(
        "the GPU's memory is full",
        "nvidia-smi shows who has it: end that, or choose a smaller model with recognizer.model",
    )


def _mismatch(_runtime: Runtime) -> DeviceFault:
    return DeviceFault(
        "NVIDIA's driver and its library are of different versions, as after an update",
        "restart the machine; a container is to be started anew after an update of the driver",
    )


def _busy(_runtime: Runtime) -> DeviceFault:
    return DeviceFault(
        "another program has the GPU for itself",
        "end it (nvidia-smi shows it), or share the GPU: sudo nvidia-smi -c DEFAULT",
    )


TEXTS: Final[Sequence[tuple[str, Callable[[Runtime], DeviceFault]]]] = (
    # onnxruntime/mobius#316, and seen with 1.31.1 and a libcuda.so.1 that knows too little:
    # "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1 …"
    (
        r"CUDA failure 35\b|driver version is insufficient|cudaErrorInsufficientDriver",
        lambda runtime: old_driver(runtime, ""),
    ),
    # Seen with 1.31.1: "CUDA failure 36: API call is not supported in the installed CUDA driver"
    (
        r"CUDA failure 36\b|not supported in the installed CUDA driver",
        lambda runtime: old_driver(runtime, ""),
    ),
    # Seen with 1.31.1: "libonnxruntime_providers_cuda.so: undefined symbol: cuTensorMapEncodeTiled"
    (r"undefined symbol: cu[A-Z]", lambda runtime: old_driver(runtime, "")),
    # microsoft/onnxruntime#11561, #22980: "CUDA failure 100: no CUDA-capable device is detected"
    (
        r"CUDA failure 100\b|no CUDA-capable device|cudaErrorNoDevice",
        lambda _runtime: no_device(nodes=True),
    ),
    # microsoft/onnxruntime#27600, #27725: "CUDA error cudaErrorNoKernelImageForDevice:no kernel
    # image is available for execution on the device", from the first pass on
    (r"no kernel image|cudaErrorNoKernelImageForDevice|CUDA failure 209\b", no_kernels),
    # microsoft/onnxruntime#16307, #22702: "BFCArena::AllocateRawInternal(…) Failed to allocate
    # memory for requested buffer of size …"; "CUDA failure 2: out of memory"
    (
        r"Failed to allocate memory for requested buffer|CUDA failure 2\b|CUDA out of memory"
        r"|out of memory|cudaErrorMemoryAllocation|CU(?:BLAS|DNN)_STATUS_ALLOC_FAILED",
        no_memory,
    ),
    # Codes of cudaError_t (CUDA Runtime API, section 6.36, Data types used by CUDA Runtime)
    (r"CUDA failure 80[34]\b|cudaErrorSystemDriverMismatch", _mismatch),
    (r"CUDA failure 46\b|devices are busy or unavailable", _busy),
)
"""What onnxruntime's errors say, the surest first."""

# microsoft/onnxruntime#21684, #22968: "Failed to load library libonnxruntime_providers_cuda.so with
# error: libcublasLt.so.12: cannot open shared object file: No such file or directory"; so do the
# loader's own errors. A library that is loaded later is missed with other words (libcudnn_….so).
LIBRARY: Final = re.compile(r"(lib[\w+-]+\.so[.\d]*): cannot open shared object file")
CUDNN: Final = re.compile(
    r"(?:Unable to load any of|Cannot load|Could not load library)[^{]*\{?(libcudnn\w*\.so[.\d]*)"
)
DRIVER_LIBRARY: Final = "libcuda.so"


def missing_in(text: str) -> list[str]:
    """Return the names of libraries that a text says are missing, each once."""
    names = LIBRARY.findall(text) + CUDNN.findall(text)
    return list(dict.fromkeys(name.rstrip(".") for name in names if "onnxruntime" not in name))


def fault_of(text: str, runtime: Runtime) -> DeviceFault:
    """Return what an error of onnxruntime means; a general fault where that is not known."""
    if names := missing_in(text):
        others = [name for name in names if not name.startswith(DRIVER_LIBRARY)]
        return missing_libraries(others, runtime) if others else no_gpu(nodes=False)
    for pattern, made in TEXTS:
        if re.search(pattern, text, re.IGNORECASE):
            return made(runtime)
    found = re.search(r"(?:CUDA|CUDNN|CUBLAS\w*) (?:failure|error)[^;\n]*", text)
    said = found[0] if found else (text.strip().splitlines() or ["no reason given"])[-1]
    return DeviceFault(
        f"onnxruntime-gpu {runtime.version} could not use the GPU ({said.strip()[:200]})",
        "look whether nvidia-smi shows the GPU, and whether its driver fits "
        + (f"CUDA {runtime.cuda_major}" if runtime.cuda_major else "onnxruntime's CUDA"),
    )


def int8_model(roles: Sequence[str], family: str) -> DeviceFault:
    """Return the fault of a model whose products are in int8, which CUDA has no kernels for."""
    # CUDA has MatMulInteger for int8 times int8 alone, and activations are uint8; it has neither
    # DynamicQuantizeMatMul nor MatMulIntegerToFloat (microsoft/onnxruntime#7745, and the kernels in
    # libonnxruntime_providers_cuda.so of 1.26.0 and 1.31.1).
    command = "harkd-convert streaming … --precision fp32"
    if family.startswith("moonshine"):
        command = "harkd-convert moonshine … --precision fp16"
    return DeviceFault(
        f"its weights are in int8 ({', '.join(roles)}), which CUDA cannot multiply",
        f"take a model in float: {command}, then harkd models import (docs/gpu.md)",
    )


FLOAT32_DECODER: Final = DeviceFault(
    # Kernels in libonnxruntime_providers_cuda.so: GroupQueryAttention<MLFloat16>, <BFloat16>.
    "the decoder is in float32, and CUDA has its attention in float16 alone",
    "make the package with harkd-convert moonshine … --precision fp16",
)


def split_session(role: str, here: int, products: int, ops: Sequence[str]) -> DeviceFault:
    """Return the fault of a session that onnxruntime has spread over both.

    Args:
        role: The session's.
        here: So many of its products run on the CPU.
        products: Of so many.
        ops: What they are.
    """
    return DeviceFault(
        f"{here} of {products} products of the {role} have no CUDA kernel here "
        f"({', '.join(sorted(set(ops)))})",
        "take a model in fp16, or an onnxruntime-gpu that has them (docs/gpu.md)",
    )
