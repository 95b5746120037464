"""What all families share of onnxruntime: sessions, threads, and its errors in our words."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harkd.audio import RATE_HZ
from harkd.bundled_models import BUNDLED_DIR, REINSTALL
from harkd.errors import ModelDamagedError, RecognitionError
from harkd.model_package import Manifest

# Its Linux wheels phone home from 1.29 on, and write a device id into ~/.cache, unless this is set
# before the library is loaded (microsoft/onnxruntime#27379). No other module may import it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np
import onnxruntime as onnxruntime
from numpy.typing import NDArray

onnxruntime.set_default_logger_severity(3)  # its warnings are for makers of models
CPU_PROVIDER, CUDA_PROVIDER = "CPUExecutionProvider", "CUDAExecutionProvider"
PROVIDER_NAMES = {CPU_PROVIDER: "cpu", CUDA_PROVIDER: "cuda"}
CPU_FACTS = Path("/proc/cpuinfo")
MOST_THREADS = 4
"""Small models gain nothing from more."""
LONG_PASS_S = 5.0
"""A pass over more audio leaves so much memory behind that giving it back pays."""


def choose_threads(wanted: int) -> int:
    """Return `wanted`, or for 0 one core less than this process may use, 1…`MOST_THREADS`."""
    if wanted:
        return wanted
    return max(1, min(MOST_THREADS, len(os.sched_getaffinity(0)) - 1))


def open_session(
    path: Path, threads: int, *, arena: bool, device: str = "cpu", content: bytes | None = None
) -> Any:
    """Load one model file.

    Args:
        path: The file.
        threads: Threads for each pass.
        arena: Whether onnxruntime keeps the memory of a pass for the next one. Good where each pass
            needs the same; where they grow with the audio, it would keep the longest for ever.
        device: ``cpu``; or ``cuda`` for the GPU. Where onnxruntime cannot use that it may raise, or
            only say so on stderr: `provider_of` tells which it became.
        content: What is loaded in the file's place.

    Raises:
        ModelDamagedError: onnxruntime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = arena
    # Spinning workers would burn a core between the passes; they gain 10 % of wall time at most.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if bytes_saturate():
        # https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
        options.add_session_config_entry("session.x64quantprecision", "1")
    providers = [CPU_PROVIDER]
    if device == "cuda":
        providers.insert(0, CUDA_PROVIDER)
        # A session that says CUDA may have most of its nodes on the CPU. This tells where they are
        # (from 1.24 on, microsoft/onnxruntime#26781). session.disable_cpu_ep_fallback would not do:
        # it refuses a session for a single node on the CPU, as the sums over shapes always are.
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        # Else its Python would print the GPU's error on stdout, and take the CPU.
        return onnxruntime.InferenceSession(
            content or os.fspath(path), options, providers=providers, enable_fallback=0
        )
    except Exception as error:
        raise ModelDamagedError(
            f"{path} is no model that onnxruntime {onnxruntime.__version__} can load "
            f"({first_line(error)})",
            fetch_anew(path),
        ) from error


def placed_nodes(session: Any) -> list[tuple[str, str]]:
    """Return where each node of a session runs, as provider and operator.

    For a session that was opened for the GPU. Nothing where onnxruntime does not tell: before 1.24,
    and for files in its own format (.ort).
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return []
    return [
        (PROVIDER_NAMES.get(part.ep_name, part.ep_name), node.op_type)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]


def dtype_of(session: Any, name: str) -> Any:
    """Return the numpy type of an input of floats, float16 or float32."""
    kinds = {each.name: each.type for each in session.get_inputs()}
    return {"tensor(float16)": np.float16, "tensor(float)": np.float32}[kinds[name]]


def bind_input(binding: Any, name: str, array: NDArray[Any]) -> None:
    """Let a binding read an array in place, which must lie in one piece."""
    binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def bind_output(binding: Any, name: str, array: NDArray[Any]) -> None:
    """Let a binding write an array in place, which must lie in one piece."""
    binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


@functools.cache
def bytes_saturate() -> bool:
    """Tell whether this CPU's product of unsigned and signed bytes saturates in 16 bits.

    So it is on x86 before VNNI. The slower way around it halves the speed of those that have it.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        cpu = CPU_FACTS.read_text(encoding="ascii", errors="replace")
    except OSError:
        return True
    return not {"avx512_vnni", "avx_vnni"} & set(cpu.split())


def provider_of(session: Any) -> str:
    """Return the name of the provider that the session really uses, read back from it."""
    used: str = session.get_providers()[0]
    return PROVIDER_NAMES.get(used, used)


def fetch_anew(path: Path) -> str:
    """Say how to replace the model that a file belongs to."""
    name = path.parent.name
    check = f"`harkd models verify {name}` checks it"
    if path.parent.parent == BUNDLED_DIR:
        return f"{check}. {REINSTALL}"
    return f"{check}, `harkd models pull {name} --force` replaces it"


def paths_of(folder: Path, manifest: Manifest, roles: Sequence[str]) -> dict[str, Path]:
    """Return a package's files by role. Raises ModelDamagedError where one is not named."""
    if absent := [role for role in roles if role not in manifest.files]:
        raise ModelDamagedError(
            f"{folder / 'model.yaml'} names no {' and no '.join(absent)}, which the family "
            f"{manifest.family} needs",
            fetch_anew(folder / "model.yaml"),
        )
    return {role: folder / manifest.files[role].path for role in roles}


def give_back_memory() -> None:
    """Return to the system what malloc keeps of freed memory: tens of MB after a long segment."""
    with contextlib.suppress(OSError, AttributeError):  # a libc without it
        ctypes.CDLL(None).malloc_trim(0)


def give_back_after(audio_s: float) -> None:
    """Return memory to the system after a pass over so much audio, where it is worth its time."""
    if audio_s > LONG_PASS_S:
        give_back_memory()


def failed(model: str, samples: int, error: Exception) -> RecognitionError:
    """Return what is told when a pass over so much audio failed."""
    return RecognitionError(
        f"{model} failed on {samples / RATE_HZ:.1f} s of audio ({first_line(error)})",
        "`harkd models verify` checks the model's files",
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, cut to a readable length."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
