"""A child process that looks at sound devices: ``python -m harkd.device_probe list|probe``.

Out: one JSON object on stdout. Like capture, it is a process of its own because PortAudio and a
stopped sound server may hang for ever; the parent gives up on it after a while.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from typing import Any

from harkd.alsa_open import left_out
from harkd.capture import import_portaudio, input_devices, pulse_sources
from harkd.capture_choice import MAX_REAL_CHANNELS, WANTED_RATE_HZ
from harkd.capture_errors import CaptureError, explain

PROBED_RATES_HZ = (WANTED_RATE_HZ, 44100, 48000)


def opens(sd: Any, device: dict[str, Any]) -> tuple[list[dict[str, int]], str]:
    """Really open a device in the usual formats; return those that worked, and why none did."""
    most = device["max_channels"]
    counts = sorted({1, 2, most} if most <= MAX_REAL_CHANNELS else {1, 2})
    rates = dict.fromkeys((*PROBED_RATES_HZ, device["default_rate_hz"]))
    worked: list[dict[str, int]] = []
    reason = ""
    for rate_hz in rates:
        for channels in (count for count in counts if count <= most):
            try:
                sd.RawInputStream(
                    device=device["index"], samplerate=rate_hz, channels=channels, dtype="int16"
                ).close()
            except sd.PortAudioError as error:
                reason = reason or str(explain(error, device["name"]))
            else:
                worked.append({"rate_hz": rate_hz, "channels": channels})
    return worked, "" if worked else reason


def look(*, probe: bool) -> dict[str, Any]:
    """List devices and sources; with `probe`, open each device."""
    found: dict[str, Any] = {"devices": [], "sources": pulse_sources(), "error": "", "mend": ""}
    found["left_out"] = []
    try:
        sd = import_portaudio()
    except CaptureError as error:
        return found | {"error": error.report["message"], "mend": error.report["mend"]}
    default = sd.default.device[0]
    for device in input_devices(sd):
        device["default"] = device["index"] == default
        if probe:
            device["opens"], device["reason"] = opens(sd, device)
        found["devices"].append(device)
    if probe:
        names = [device["name"] for device in found["devices"]]
        found["left_out"] = [{"name": name, "reason": why(code)} for name, code in left_out(names)]
    return found


def why(code: int) -> str:
    """Say what an errno of opening means to somebody who looks for a microphone."""
    if code == errno.EBUSY:
        return "in use by another program, which may be harkd"
    return "no permission to open it: sudo usermod -aG audio $USER, then log in again"


if __name__ == "__main__":
    out = os.dup(1)
    os.dup2(2, 1)
    os.write(out, json.dumps(look(probe=sys.argv[1:] == ["probe"])).encode())
    os._exit(0)  # no atexit: Pa_Terminate may hang
