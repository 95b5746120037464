"""Opens a model's sessions where they can run, and reads back where each one does.

In: files, and the device to try. Out: onnxruntime's sessions, what runs each, and why one is not on
the GPU. A GPU that fails is no reason to be without recognition: such a session is opened again on
the CPU. Runs on the thread that loads the model.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harkd.errors import ModelDamagedError
from harkd.recognizer.cuda import read_runtime
from harkd.recognizer.device_faults import fault_of, split_session
from harkd.recognizer.device_report import CPU, CUDA, MIXED, DeviceFault
from harkd.recognizer.onnx import open_session, placed_nodes, provider_of

INT8_OPS: Final = (
    b"MatMulInteger",
    b"DynamicQuantizeMatMul",
    b"ConvInteger",
    b"QLinearMatMul",
    b"QLinearConv",
    b"DynamicQuantizeLSTM",
)
"""Products of integers, as a graph's file names them, .onnx and .ort alike."""
PRODUCTS: Final = frozenset(
    {"MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulNBits", "Conv", "FusedConv", "LSTM"}
    | {"Attention", "MultiHeadAttention", "GroupQueryAttention", "Einsum"}
    | {op.decode() for op in INT8_OPS}
    | {"MatMulIntegerToFloat"}
)
"""Operators in which the time goes; the others may be anywhere."""


def is_int8(path: Path) -> bool:
    """Tell whether a graph multiplies integers."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return any(content.find(op) >= 0 for op in INT8_OPS)


@dataclass(slots=True)
class Placement:
    """Where a model's sessions are."""

    device: str = CPU
    """What to try: cpu or cuda"""
    sessions: dict[str, str] = field(default_factory=dict)
    """What runs each, by role: cpu, cuda or mixed"""
    faults: list[DeviceFault] = field(default_factory=list)
    """Why one is not on the GPU that was to be"""
    _meant: set[str] = field(default_factory=set)
    """Roles that belong on the GPU"""

    def open(
        self,
        role: str,
        path: Path,
        threads: int,
        *,
        arena: bool,
        content: bytes | None = None,
        small: bool = False,
    ) -> Any:
        """Load one of a model's files.

        Args:
            role: Its name in the manifest.
            path: The file.
            threads: Threads for each pass.
            arena: As for `open_session`.
            content: What is loaded in the file's place.
            small: Whether it is so little work that it stays on the CPU in any case.

        Raises:
            ModelDamagedError: onnxruntime cannot load it, on the CPU either.
        """
        if not small:
            self._meant.add(role)
        if self.device == CUDA and not small:
            session = self._tried(role, path, threads, arena=arena, content=content)
            if session is not None:
                return session
        session = open_session(path, threads, arena=arena, content=content)
        self.sessions[role] = provider_of(session)
        return session

    def on_gpu(self, role: str) -> bool:
        """Tell whether a session, or a part of it, runs on the GPU."""
        return self.sessions[role] != CPU

    def keep_off_gpu(self, role: str, fault: DeviceFault) -> None:
        """Let a session that is opened again be on the CPU, though it belongs on the GPU."""
        self._blame(fault)
        self.sessions[role] = CPU

    @property
    def provider(self) -> str:
        """Return what runs those that belong on the GPU: cpu, cuda, or mixed."""
        found = {self.sessions[role] for role in self._meant}
        return found.pop() if len(found) == 1 else MIXED if found else CPU

    def _tried(self, role: str, path: Path, threads: int, **options: Any) -> Any | None:
        """Return a session that runs on the GPU, or where it cannot, None."""
        try:
            session = open_session(path, threads, device=CUDA, **options)
        except ModelDamagedError as error:
            self._blame(fault_of(words_of(error), read_runtime()))
            return None
        if provider_of(session) != CUDA:
            self._blame(fault_of("onnxruntime itself chose the CPU", read_runtime()))
            return None
        products = [(where, op) for where, op in placed_nodes(session) if op in PRODUCTS]
        here = [op for where, op in products if where == CPU]
        if here:
            self._blame(split_session(role, len(here), len(products), here))
        if here and len(here) == len(products):
            return None
        self.sessions[role] = MIXED if here else CUDA
        return session

    def _blame(self, fault: DeviceFault) -> None:
        if fault not in self.faults:
            self.faults.append(fault)


def words_of(error: BaseException | None) -> str:
    """Return what an exception and all those behind it say, since the outer ones are cut."""
    return "\n".join(str(each) for each in chain_of(error))


def chain_of(error: BaseException | None) -> Iterable[BaseException]:
    """Yield an exception and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__


def int8_roles(paths: Sequence[tuple[str, Path]]) -> list[str]:
    """Return the roles whose graphs multiply integers."""
    return [role for role, path in paths if is_int8(path)]
