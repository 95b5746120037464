"""Says where the model runs, and what there is for a GPU. Runs on the caller's thread."""

from __future__ import annotations

from harkd.doctor_check import Check, Status
from harkd.recognizer.cuda import Driver, knows_cuda, read_driver, read_runtime
from harkd.recognizer.device_report import DeviceReport


def check_device(report: DeviceReport, *, required: bool) -> Check:
    """Compare where a loaded model runs with where it was to.

    Args:
        report: What was read back when it was loaded.
        required: Whether the daemon would end rather than run elsewhere.
    """
    facts = f"{runtime_words()}, {driver_words(read_driver())}"
    if report.missed:
        status = Status.FAIL if required else Status.WARN
        return Check("device", status, f"{report.what} ({facts})", report.mend)
    where = report.places if len(set(report.sessions.values())) > 1 else report.provider
    wish = f"recognizer.device is {report.wanted}"
    return Check("device", Status.OK, f"{wish}, the model runs on {where} ({facts})")


def runtime_words() -> str:
    """Say which onnxruntime is installed."""
    runtime = read_runtime()
    if not knows_cuda():
        return f"onnxruntime {runtime.version} without CUDA"
    return f"onnxruntime-gpu {runtime.version} for CUDA {runtime.cuda or 'of unknown version'}"


def driver_words(driver: Driver) -> str:
    """Say which driver of NVIDIA's there is."""
    if driver == Driver():
        return "no NVIDIA driver"
    return f"NVIDIA {driver}" + ("" if driver.nodes else ", no GPU")
