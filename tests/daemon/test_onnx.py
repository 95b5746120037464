"""What all families share of onnxruntime: how sessions are made, and what its products do here."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harkd.errors import ModelDamagedError
from harkd.recognizer import onnx
from harkd.recognizer.onnx import bytes_saturate, choose_threads, dtype_of, open_session

MODEL = Path(__file__).parents[1] / "data" / "an4-en" / "model.onnx"

# ------------------------------------------------------------------ products of 8 bits

BEFORE = "flags\t\t: fpu sse2 ssse3 avx avx2 fma f16c avx512f avx512bw avx512_vbmi2\n"
WITH = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)\nflags\t\t: fpu avx2 {} amx_int8\n"


@pytest.fixture
def cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets the machine be another."""

    def be(machine: str, facts: str | bytes | None) -> None:
        file = tmp_path / "cpuinfo"
        file.unlink(missing_ok=True)
        if facts is not None:
            file.write_bytes(facts if isinstance(facts, bytes) else facts.encode())
        monkeypatch.setattr(onnx, "CPU_FACTS", file)
        monkeypatch.setattr("platform.machine", lambda: machine)
        bytes_saturate.cache_clear()

    yield be
    bytes_saturate.cache_clear()


@pytest.mark.parametrize(
    ("machine", "facts", "saturates"),
    [
        ("x86_64", BEFORE, True),
        ("AMD64", BEFORE, True),
        ("x86_64", WITH.format("avx512_vnni"), False),
        ("x86_64", WITH.format("avx_vnni"), False),
        ("x86_64", WITH.format("avx_vnni_int8"), True),
        ("x86_64", "model name : avx512_vnni_like\n" + BEFORE, True),
        ("x86_64", "", True),
        ("x86_64", None, True),
        ("x86_64", b"model name : \xff\xfe\nflags : avx_vnni\n", False),
        ("aarch64", "Features : fp asimd\n", False),
        ("aarch64", None, False),
        ("armv7l", BEFORE, False),
    ],
)
def test_only_x86_without_vnni_saturates(
    cpu: Any, machine: str, facts: str | bytes | None, saturates: bool
) -> None:
    """What cannot be told is taken for the worse: slow, and right."""
    cpu(machine, facts)
    assert bytes_saturate() is saturates


class Opened:
    """In InferenceSession's place: the options that it was made with."""

    def __init__(
        self, path: str, options: Any, providers: list[str], enable_fallback: int = 1
    ) -> None:
        self.path, self.options, self.providers = path, options, providers
        self.falls_back = bool(enable_fallback)

    def entry(self, name: str) -> str:
        try:
            found: str = self.options.get_session_config_entry(name)
        except RuntimeError:  # it was not set
            return ""
        return found


@pytest.mark.parametrize(("facts", "precise"), [(BEFORE, "1"), (WITH.format("avx_vnni"), "")])
def test_a_session_is_precise_where_it_would_saturate(
    cpu: Any, monkeypatch: pytest.MonkeyPatch, facts: str, precise: str
) -> None:
    cpu("x86_64", facts)
    monkeypatch.setattr(onnx.onnxruntime, "InferenceSession", Opened)
    session = open_session(Path("model.onnx"), 3, arena=False)
    assert session.entry("session.x64quantprecision") == precise
    assert session.entry("session.intra_op.allow_spinning") == "0"
    assert (session.options.intra_op_num_threads, session.options.inter_op_num_threads) == (3, 1)
    assert not session.options.enable_cpu_mem_arena
    assert session.providers == ["CPUExecutionProvider"]


# ------------------------------------------------------------------------------- the rest


@pytest.mark.parametrize(
    ("cores", "wanted", "threads"), [(1, 0, 1), (2, 0, 1), (4, 0, 3), (64, 0, 4), (2, 7, 7)]
)
def test_one_core_is_left_to_others_and_small_models_take_four_at_most(
    monkeypatch: pytest.MonkeyPatch, cores: int, wanted: int, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert choose_threads(wanted) == threads


@pytest.mark.parametrize("data", [b"", b"no model at all" * 100, None])
def test_a_file_that_does_not_load_is_named_with_a_mend(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "my-model" / "encoder.onnx"
    path.parent.mkdir()
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ModelDamagedError, match=r"encoder\.onnx is no model that") as damaged:
        open_session(path, 1, arena=True)
    assert "my-model" in damaged.value.mend


def test_the_floats_of_an_input_are_told() -> None:
    kinds = {"a": "tensor(float)", "b": "tensor(float16)", "c": "tensor(int64)"}
    inputs = [SimpleNamespace(name=name, type=kind) for name, kind in kinds.items()]
    session = SimpleNamespace(get_inputs=lambda: inputs)
    assert dtype_of(session, "a") is np.float32
    assert dtype_of(session, "b") is np.float16
    for name in ("c", "d"):
        with pytest.raises(KeyError):
            dtype_of(session, name)


def test_an_error_is_told_in_one_line() -> None:
    assert onnx.first_line(RuntimeError("  out of memory\nat 0x1234")) == "out of memory"
    assert onnx.first_line(MemoryError()) == "MemoryError"
    assert len(onnx.first_line(RuntimeError("x" * 5000))) == 200


# ------------------------------------------------------------------ devices


@pytest.mark.parametrize(
    ("device", "tried"),
    [("cpu", [onnx.CPU_PROVIDER]), ("cuda", [onnx.CUDA_PROVIDER, onnx.CPU_PROVIDER])],
)
def test_a_session_is_tried_where_it_is_told_to(
    device: str, tried: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And onnxruntime's Python, which prints to stdout, does not choose another by itself."""
    monkeypatch.setattr(onnx.onnxruntime, "InferenceSession", Opened)
    session = open_session(Path("model.onnx"), 1, arena=False, device=device)
    assert session.providers == tried
    assert not session.falls_back
    recorded = session.entry("session.record_ep_graph_assignment_info")
    assert recorded == ("1" if device == "cuda" else "")


def test_where_each_node_runs_is_read_from_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the real one, which records it for a session that is opened for the GPU."""
    monkeypatch.setattr(onnx, "CUDA_PROVIDER", onnx.CPU_PROVIDER)
    with pytest.warns(UserWarning, match="Duplicate provider"):
        session = open_session(MODEL, 1, arena=False, device="cuda")
    nodes = onnx.placed_nodes(session)
    assert {where for where, _ in nodes} == {"cpu"}
    assert "DynamicQuantizeMatMul" in {op for _, op in nodes}
    assert onnx.placed_nodes(SimpleNamespace()) == [], "before 1.24"
