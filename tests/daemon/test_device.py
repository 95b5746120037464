"""Where a model runs: what keeps it from the GPU, what is read back, what is told.

There is no GPU here: the driver, onnxruntime's CUDA and its errors are put in their places at the
edge. The texts are those that onnxruntime really raised or logged; `device_faults` has the sources.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import small_streaming
from fake_gpu import GOOD, NEW, Fitted, Machine
from harkd import app
from harkd.doctor_check import Status
from harkd.doctor_device import check_device
from harkd.errors import DeviceError, ModelDamagedError
from harkd.model_package import Manifest, PackagedFile, load_manifest, sha256_of, write_manifest
from harkd.model_store import InstalledModel
from harkd.recognizer import cuda
from harkd.recognizer import onnx as runtime
from harkd.recognizer.cuda import Driver, read_driver, where_to_try
from harkd.recognizer.device_faults import fault_of, missing_in
from harkd.recognizer.device_report import DeviceFault, DeviceReport, Runtime
from harkd.recognizer.factory import ON_GPU, load_with_report, tell
from harkd.recognizer.placement import Placement, is_int8
from harkd.settings import RecognizerSettings, Settings

OLD = Runtime("1.26.0", "12.8")
INT8 = Path(__file__).parents[1] / "data" / "an4-en"
CALL = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 "
    "std::conditional_t<THRW, void, onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, "
    "const char*, const char*, SUCCTYPE, const char*, const char*, int) [with ERRTYPE = cudaError; "
    "bool THRW = true] {} ; GPU=-1 ; hostname=vm ; file=/onnxruntime_src/onnxruntime/core/"
    "providers/cuda/cuda_execution_provider.cc ; line=355 ; expr=cudaSetDevice(info_.device_id);"
)
LOAD = (
    "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:2043 onnxruntime::Provider& "
    "onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library "
    "/venv/onnxruntime/capi/libonnxruntime_providers_cuda.so with error: {}"
)
NO_FILE = "{}: cannot open shared object file: No such file or directory"
NODE = "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running {} node. "

# ------------------------------------------------------------------------ what errors mean


@pytest.mark.parametrize(
    ("text", "installed", "what", "mend"),
    [
        (
            CALL.format("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime"),
            NEW,
            "driver is too old for onnxruntime-gpu 1.31.1, which needs CUDA 13",
            "to 580 or later, or use harkd's CUDA 12 image (--build-arg CUDA=12)",
        ),
        (
            CALL.format("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime"),
            OLD,
            "needs CUDA 12",
            "to 525 or later",
        ),
        (
            CALL.format("CUDA failure 36: API call is not supported in the installed CUDA driver"),
            NEW,
            "too old",
            "580",
        ),
        (
            LOAD.format("libonnxruntime_providers_cuda.so: undefined symbol: cuTensorMapEncode"),
            NEW,
            "too old",
            "580",
        ),
        (
            LOAD.format(NO_FILE.format("libcublasLt.so.13")),
            NEW,
            "libcublasLt.so.13 is missing",
            "pip install 'onnxruntime-gpu[cuda,cudnn]==1.31.1'",
        ),
        (LOAD.format(NO_FILE.format("libcudnn.so.9")), OLD, "libcudnn.so.9 is missing", "CUDA"),
        (LOAD.format(NO_FILE.format("libcudart.so.12")), OLD, "libcudart.so.12 is missing", "CUDA"),
        (
            "Unable to load any of {libcudnn_graph.so.9.1.0, libcudnn_graph.so.9.1}",
            OLD,
            "libcudnn_graph.so.9.1.0 is missing",
            "cudnn",
        ),
        (
            "Could not load library libcudnn_ops_infer.so.8. Error: libcudnn_ops_infer.so.8",
            OLD,
            "libcudnn_ops_infer.so.8 is missing",
            "cudnn",
        ),
        (LOAD.format(NO_FILE.format("libcuda.so.1")), NEW, "no NVIDIA GPU here", "--gpus all"),
        (
            CALL.format("CUDA failure 100: no CUDA-capable device is detected"),
            NEW,
            "says that there is no GPU",
            "DeviceAllow",
        ),
        (
            NODE.format("Relu") + "Name:'Relu_1' Status Message: CUDA error "
            "cudaErrorNoKernelImageForDevice:no kernel image is available for execution on the "
            "device",
            NEW,
            "is not built for this GPU",
            "Pascal",
        ),
        (
            NODE.format("Conv") + "Name:'c' Status Message: bfc_arena.cc:376 void* onnxruntime::"
            "BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Failed to allocate "
            "memory for requested buffer of size 939524096",
            NEW,
            "memory is full",
            "nvidia-smi",
        ),
        (CALL.format("CUDA failure 2: out of memory"), NEW, "memory is full", "nvidia-smi"),
        (CALL.format("CUDA failure 803: system has unsupported"), NEW, "of different", "restart"),
        (
            CALL.format("CUDA failure 46: all CUDA-capable devices are busy or unavailable"),
            NEW,
            "has the GPU for itself",
            "nvidia-smi",
        ),
        (CALL.format("CUDA failure 999: unknown error"), NEW, "999: unknown error", "fits CUDA 13"),
        ("it is not known\nwhat this is", Runtime("1.20"), "what this is", "onnxruntime's CUDA"),
        ("", NEW, "no reason given", "nvidia-smi"),
    ],
)
def test_an_error_of_onnxruntime_is_told_with_its_mend(
    text: str, installed: Runtime, what: str, mend: str
) -> None:
    fault = fault_of(text, installed)
    assert what in fault.what
    assert mend in fault.mend


def test_what_preload_dlls_prints_names_all_that_is_missing() -> None:
    """As 1.26.0 prints it, behind the loader's own error, which has the first alone."""
    names = ["libcublasLt.so.12", "libcublas.so.12", "libcudnn.so.9"]
    said = [f"Failed to load {name}: {NO_FILE.format(name)}" for name in names]
    found = missing_in("\n".join([NO_FILE.format(names[0]), *said]))
    assert found == names
    assert missing_in(NO_FILE.format("libonnxruntime_providers_cuda.so")) == []


# ---------------------------------------------------------------------- what the machine has


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("has", "told"),
    [
        ({"driver": GOOD}, []),
        ({"wheel": "plain"}, ["knows no CUDA"]),
        ({"wheel": "both"}, ["installed over onnxruntime-gpu"]),
        ({"driver": Driver()}, ["neither /dev/nvidia* nor libcuda.so.1"]),
        ({"driver": Driver("550.54", nodes=True)}, ["no driver library"]),
        ({"driver": Driver("", (13, 0), 100)}, ["but no GPU (no /dev/nvidia*)"]),
        ({"driver": Driver("580.65", (13, 0), 100, nodes=True)}, ["no GPU that harkd may use"]),
        (
            {"driver": Driver("550.54.14", (12, 4), 0, nodes=True)},
            ["driver 550.54.14 with CUDA 12.4 is too old"],
        ),
        ({"driver": Driver("550.54.14", (12, 4), 0, nodes=True), "installed": OLD}, []),
        ({"driver": GOOD, "installed": OLD}, []),
        ({"driver": GOOD, "missing": ("libcublas.so.13",)}, ["libcublas.so.13 is missing"]),
        (
            {"driver": GOOD, "missing": ("libcudnn.so.9", "libcufft.so.12")},
            ["libcudnn.so.9, libcufft.so.12 are missing"],
        ),
        ({"driver": Driver(), "missing": ("libcudnn.so.9",)}, ["no NVIDIA GPU"]),
    ],
)
def test_what_is_missing_is_found_before_a_session_is_tried(
    machine: Machine, has: dict[str, Any], told: list[str]
) -> None:
    machine.has(**has)
    device, faults = where_to_try("cuda")
    assert device == ("cpu" if told else "cuda")
    assert len(faults) == len(told)
    assert all(part in fault.what for part, fault in zip(told, faults, strict=True))


def test_auto_wants_the_gpu_where_onnxruntime_gpu_was_installed(machine: Machine) -> None:
    machine.has(wheel="plain")
    assert where_to_try("auto") == ("cpu", [])
    machine.has(wheel="both")
    device, (fault,) = where_to_try("auto")
    assert (device, "installed over onnxruntime-gpu" in fault.what) == ("cpu", True)
    machine.has(driver=Driver())
    device, faults = where_to_try("auto")
    assert (device, len(faults)) == ("cpu", 1)
    machine.has(driver=GOOD)
    assert where_to_try("auto") == ("cuda", [])
    assert where_to_try("cpu") == ("cpu", [])


@pytest.mark.parametrize(
    ("facts", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  "
            "(dvs-builder@U22)\nGCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)\n",
            "580.65.06",
        ),
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.256  Thu May  2 14:37:44 UTC 2024",
            "470.256",
        ),
        ("NVRM version: none of ours", ""),
        (None, ""),
    ],
)
def test_the_driver_is_read_from_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: str | None, version: str
) -> None:
    (tmp_path / "nvidia0").touch()
    if facts is not None:
        (tmp_path / "version").write_text(facts)
    monkeypatch.setattr(cuda, "DEVICES", tmp_path)
    monkeypatch.setattr(cuda, "DRIVER_FACTS", tmp_path / "version")

    def absent(name: str) -> None:
        raise OSError(NO_FILE.format(name))

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert read_driver() == Driver(version, nodes=True)


def test_the_drivers_library_tells_its_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(pointer: Any) -> int:
        pointer._obj.value = 12040
        return 0

    library = SimpleNamespace(cuInit=lambda _: 100, cuDriverGetVersion=told)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    found = read_driver()
    assert (found.cuda, found.code) == ((12, 4), 100)
    assert str(Driver("550.54", (12, 4), 0)) == "driver 550.54 with CUDA 12.4"


def test_libraries_are_loaded_once_and_what_onnxruntime_prints_stays_off_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`harkd run --print` writes events there."""

    def preloads() -> None:
        print(f"Failed to load libcublas.so.13: {NO_FILE.format('libcublas.so.13')}")

    def absent(name: str) -> None:
        assert name.endswith("capi/libonnxruntime_providers_cuda.so")
        raise OSError(NO_FILE.format("libcublasLt.so.13"))

    monkeypatch.setattr(runtime.onnxruntime, "preload_dlls", preloads, raising=False)
    monkeypatch.setattr(ctypes, "CDLL", absent)
    cuda.load_libraries.cache_clear()
    try:
        assert cuda.load_libraries() == ("libcublasLt.so.13", "libcublas.so.13")
        monkeypatch.setattr(ctypes, "CDLL", lambda _: None)
        assert cuda.load_libraries() == ("libcublasLt.so.13", "libcublas.so.13")
        cuda.load_libraries.cache_clear()
        assert cuda.load_libraries() == ()
    finally:
        cuda.load_libraries.cache_clear()
    assert capsys.readouterr().out == ""


# ------------------------------------------------------------------- sessions, read back


@pytest.fixture
def fitted(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Fitted:
    machine.has(driver=GOOD)
    return Fitted(monkeypatch)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with a small transducer in float32."""
    folder = small_streaming.write_transducer(tmp_path_factory.mktemp("small") / "model")
    (folder / "LICENSE").write_text("none")
    files = {
        path.name.partition("-")[0].removesuffix(".txt"): path
        for path in folder.iterdir()
        if path.name != "LICENSE"
    }
    manifest = Manifest(
        name="small",
        family="streaming-transducer",
        version="1",
        languages=("en",),
        licence="MIT",
        licence_file="LICENSE",
        files={
            role: PackagedFile(
                path=path.name, sha256=sha256_of(path), size_bytes=path.stat().st_size
            )
            for role, path in files.items()
        },
    )
    write_manifest(folder, manifest)
    return folder


def report_of(folder: Path, device: str = "cuda") -> DeviceReport:
    recognizer, report = load_with_report(folder, load_manifest(folder), 1, device=device)
    assert recognizer.provider == report.provider
    return report


def test_each_session_is_read_back_and_small_ones_stay(small: Path, fitted: Fitted) -> None:
    report = report_of(small)
    assert report.sessions == {"encoder": "cuda", "decoder": "cpu", "joiner": "cpu"}
    assert fitted.opened == [("encoder", "cuda"), ("decoder", "cpu"), ("joiner", "cpu")]
    assert report.provider == "cuda"
    assert not report.missed


def test_cpu_is_not_even_tried_elsewhere(small: Path, fitted: Fitted) -> None:
    report = report_of(small, "cpu")
    assert {device for _, device in fitted.opened} == {"cpu"}
    assert (report.provider, report.missed) == ("cpu", False)


def test_onnxruntime_that_takes_the_cpu_by_itself_is_found_out(small: Path, fitted: Fitted) -> None:
    fitted.says = "cpu"
    report = report_of(small)
    assert report.provider == "cpu"
    assert report.missed
    assert "onnxruntime itself chose the CPU" in report.what


def test_a_gpu_that_fails_is_told_and_the_cpu_does_it(small: Path, fitted: Fitted) -> None:
    fitted.fails = CALL.format("CUDA failure 2: out of memory")
    report = report_of(small)
    assert report.provider == "cpu"
    assert "the GPU's memory is full" in report.what


def test_a_session_that_says_cuda_and_computes_on_the_cpu_is_none(
    small: Path, fitted: Fitted
) -> None:
    fitted.nodes = [("cuda", "Reshape"), ("cpu", "MatMul"), ("cpu", "Conv")]
    report = report_of(small)
    assert report.provider == "cpu"
    assert "2 of 2 products of the encoder have no CUDA kernel here (Conv, MatMul)" in report.what
    assert fitted.opened[:2] == [("encoder", "cuda"), ("encoder", "cpu")], "opened again"


def test_a_session_on_both_is_mixed_and_shapes_do_not_count(small: Path, fitted: Fitted) -> None:
    fitted.nodes = [("cuda", "MatMul"), ("cpu", "Conv"), ("cpu", "Shape")]
    report = report_of(small)
    assert report.provider == "mixed"
    assert report.missed
    assert "partly on the CPU (encoder: mixed, decoder: cpu, joiner: cpu)" in report.what
    fitted.nodes = [("cuda", "MatMul"), ("cpu", "Shape")]
    assert report_of(small).provider == "cuda"


def test_a_gpu_that_fails_in_its_first_pass_is_told_and_the_cpu_does_it(
    small: Path, fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is without kernels for this GPU: a session opens, and no pass succeeds."""
    from harkd.recognizer import chunk_encoder

    real = chunk_encoder.EncoderState.step

    def step(self: Any) -> Any:
        if self._far:
            raise RuntimeError("CUDA error cudaErrorNoKernelImageForDevice:no kernel image is …")
        return real(self)

    monkeypatch.setattr(chunk_encoder.EncoderState, "step", step)
    report = report_of(small)
    assert report.provider == "cpu"
    assert "onnxruntime-gpu 1.31.1 is not built for this GPU" in report.what
    assert fitted.opened[0] == ("encoder", "cuda")


def test_a_damaged_model_is_not_the_gpus_fault(small: Path, fitted: Fitted, tmp_path: Path) -> None:
    folder = shutil.copytree(small, tmp_path / "damaged")
    next(folder.glob("joiner*")).write_bytes(b"no model")
    with pytest.raises(ModelDamagedError, match="joiner"):
        report_of(folder)
    assert fitted.opened


def test_int8_runs_on_the_cpu_and_is_told_how_to_be_made_otherwise(
    fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And CUDA's libraries are not loaded for it: they take 200 MB."""
    monkeypatch.setattr(cuda, "load_libraries", lambda: pytest.fail("loaded"))
    report = report_of(INT8)
    assert {device for _, device in fitted.opened} == {"cpu"}
    assert report.what.endswith("in int8 (model), which CUDA cannot multiply")
    assert "harkd-convert streaming … --precision fp32" in report.mend


def test_int8_is_told_beside_what_the_machine_lacks(machine: Machine) -> None:
    machine.has(driver=Driver())
    report = report_of(INT8)
    assert "no NVIDIA GPU" in report.what
    assert "in int8" in report.what
    machine.has(wheel="plain")
    assert "knows no CUDA; its weights are in int8" in report_of(INT8).what
    assert not report_of(INT8, "auto").faults, "nobody wanted a GPU"


def test_int8_is_seen_in_the_published_files_too(model_dir: Path, small: Path) -> None:
    manifest = load_manifest(model_dir)
    assert all(is_int8(model_dir / manifest.files[role].path) for role in ON_GPU["moonshine"])
    assert not any(map(is_int8, small.glob("*.onnx")))
    (small / "empty").touch()
    assert not is_int8(small / "empty")


# ------------------------------------------------------------------------- what is told


NO_GPU = DeviceFault("there is no GPU", "put one in")


def logged(report: DeviceReport, caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    caplog.clear()
    with caplog.at_level(logging.INFO):
        tell(report)
    return [(each.levelname, each.message) for each in caplog.records]


def test_where_cuda_was_wanted_and_not_had_one_line_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wanted = DeviceReport("cuda", "cpu", {"model": "cpu"}, [NO_GPU])
    assert logged(wanted, caplog) == [
        (
            "ERROR",
            "recognizer.device is cuda, but the model runs on the CPU: there is no GPU. "
            "Put one in.",
        )
    ]
    ((level, text),) = logged(DeviceReport("auto", "cpu", {"model": "cpu"}, [NO_GPU]), caplog)
    assert level == "WARNING"
    assert "onnxruntime-gpu is installed, but" in text
    assert "set recognizer.device: cpu" in text


def test_where_all_is_as_wanted_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert logged(DeviceReport("cuda", "cuda", {"model": "cuda"}), caplog) == []
    assert logged(DeviceReport("auto", "cpu", {"model": "cpu"}), caplog) == []
    assert logged(DeviceReport("cpu", "cpu", {"model": "cpu"}), caplog) == []


def test_sessions_that_differ_are_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    sessions = {"encoder": "cuda", "decoder": "cpu"}
    assert logged(DeviceReport("cuda", "cuda", sessions), caplog) == [
        ("INFO", "the model's sessions run on encoder: cuda, decoder: cpu")
    ]


@contextlib.contextmanager
def expected(*, ends: bool) -> Iterator[Callable[[], str]]:
    """Whether harkd ends with code 78; what it says."""
    said: list[str] = []
    if not ends:
        yield lambda: ""
        return
    with pytest.raises(DeviceError) as ended:
        yield lambda: said[0]
    assert ended.value.exit_code == 78
    said.append(str(ended.value))


@pytest.mark.parametrize("require", [False, True])
def test_a_required_device_that_is_not_had_ends_it(
    small: Path, machine: Machine, require: bool, caplog: pytest.LogCaptureFixture
) -> None:
    machine.has(driver=Driver())
    wanted = RecognizerSettings(
        device="cuda", require_device=require, threads=1, check_memory=False
    )
    installed = InstalledModel(small, load_manifest(small))
    settings = Settings(recognizer=wanted)
    with expected(ends=require) as said:
        assert app.load(installed, settings).provider == "cpu"
    if require:
        assert "no NVIDIA GPU here" in said()
        assert "harkd ends, as recognizer.require_device wants" in said()
    errors = [each for each in caplog.records if each.levelname == "ERROR"]
    assert bool(errors) is not require, "said once"


def test_a_required_device_that_is_had_is_no_reason_to_end(small: Path, fitted: Fitted) -> None:
    wanted = RecognizerSettings(device="cuda", require_device=True, threads=1, check_memory=False)
    installed = InstalledModel(small, load_manifest(small))
    assert app.load(installed, Settings(recognizer=wanted)).provider == "cuda"
    assert fitted.opened


def test_a_placement_without_sessions_is_the_cpus() -> None:
    assert Placement().provider == "cpu"


# ------------------------------------------------------------------------------- doctor


def test_doctor_tells_device_onnxruntime_and_driver(machine: Machine) -> None:
    machine.has(wheel="plain", driver=Driver(), installed=Runtime("1.32.0"))
    fine = check_device(DeviceReport("auto", "cpu", {"model": "cpu"}), required=False)
    assert fine.status is Status.OK
    assert fine.what == (
        "recognizer.device is auto, the model runs on cpu "
        "(onnxruntime 1.32.0 without CUDA, no NVIDIA driver)"
    )
    machine.has(driver=Driver("550.54.14", (12, 4), 0, nodes=True))
    report = DeviceReport("cuda", "cpu", {"model": "cpu"}, [NO_GPU])
    for required, status in ((False, Status.WARN), (True, Status.FAIL)):
        check = check_device(report, required=required)
        assert (check.name, check.status, check.mend) == ("device", status, "put one in")
        assert (
            "runs on the CPU: there is no GPU (onnxruntime-gpu 1.31.1 for CUDA 13.0" in check.what
        )
        assert "NVIDIA driver 550.54.14 with CUDA 12.4)" in check.what
    machine.has(driver=Driver("", (13, 0), 100))
    differing = DeviceReport("cuda", "cuda", {"encoder": "cuda", "joiner": "cpu"})
    told = check_device(differing, required=True).what
    assert "runs on encoder: cuda, joiner: cpu (" in told
    assert "NVIDIA driver with CUDA 13.0, no GPU" in told
