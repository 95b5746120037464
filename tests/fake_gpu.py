"""A machine with another NVIDIA driver, onnxruntime or GPU than this one.

What is faked lies at the edge: what onnxruntime and the driver say. Sessions are the CPU's; those
that are opened for the GPU say so, and take the way of the GPU through another kind of memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harkd import doctor_device
from harkd.errors import ModelDamagedError
from harkd.recognizer import chunk_encoder, cuda, factory, lean_decoder, placement
from harkd.recognizer import onnx as runtime
from harkd.recognizer.chunk_buffers import Buffers, DeviceBuffers, HostBuffers
from harkd.recognizer.chunk_layout import State
from harkd.recognizer.cuda import Driver
from harkd.recognizer.device_report import Runtime

NEW = Runtime("1.31.1", "13.0")
GOOD = Driver("580.65.06", (13, 0), 0, nodes=True)


class Machine:
    """Another machine, with what is put on it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, monkeypatch
        (folder / "dev").mkdir()
        monkeypatch.setattr(cuda, "DEVICES", folder / "dev")
        monkeypatch.setattr(cuda, "DRIVER_FACTS", folder / "version")
        self.has(wheel="gpu", driver=Driver("580.65.06", (13, 0), 0, nodes=True))

    def has(
        self,
        *,
        wheel: str = "gpu",
        driver: Driver | None = None,
        missing: tuple[str, ...] = (),
        installed: Runtime = NEW,
    ) -> None:
        there = {"gpu": [runtime.CUDA_PROVIDER]}.get(wheel, [])
        providers = [*there, runtime.CPU_PROVIDER]
        self._patch.setattr(runtime.onnxruntime, "get_available_providers", lambda: providers)
        self._patch.setattr(cuda, "gpu_wheel_is_installed", lambda: wheel != "plain")
        self._patch.setattr(cuda, "load_libraries", lambda: missing)
        for module in (cuda, placement, factory):
            self._patch.setattr(module, "read_runtime", lambda: installed)
        self._patch.setattr(doctor_device, "read_runtime", lambda: installed)
        if driver is not None:
            for module in (cuda, doctor_device):
                self._patch.setattr(module, "read_driver", lambda: driver)


class Fitted:
    """onnxruntime with a GPU: sessions are the CPU's, but say what they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[tuple[str, str]] = []
        self.says = "cuda"
        self.nodes: list[tuple[str, str]] = []
        self.fails = ""
        self._on_gpu: list[Any] = []
        real = runtime.open_session

        def open_session(path: Path, threads: int, **options: Any) -> Any:
            device = options.pop("device", "cpu")
            self.opened.append((path.name.partition("-")[0], device))
            if device == "cuda" and self.fails:
                raise ModelDamagedError("no model") from RuntimeError(self.fails)
            session = real(path, threads, **options)
            if device == "cuda":
                self._on_gpu.append(session)
            return session

        def provider_of(session: Any) -> str:
            return self.says if any(each is session for each in self._on_gpu) else "cpu"

        monkeypatch.setattr(placement, "open_session", open_session)
        monkeypatch.setattr(placement, "provider_of", provider_of)
        monkeypatch.setattr(placement, "placed_nodes", lambda _: self.nodes)
        for module in (chunk_encoder, lean_decoder):
            monkeypatch.setattr(module, "buffers_for", other_memory)


def other_memory(states: Sequence[State], *, on_gpu: bool) -> Buffers:
    """In `buffers_for`'s place: the way of the GPU's memory, in the CPU's."""
    return DeviceBuffers(states, "cpu") if on_gpu else HostBuffers(states)
