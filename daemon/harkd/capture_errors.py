"""Why capture cannot start, in words: from PortAudio's errors, and from what it hides.

In: exceptions and codes. Out: `CaptureError`. In the capture process, and where devices are probed;
light, as `harkd.capture` is.
"""

from __future__ import annotations

import os
from typing import Any

from harkd.alsa_open import why_not
from harkd.container import START_SERVER, give_card, here, in_container, join_group
from harkd.sound_login import login_fault
from harkd.sound_server import SND, barred_device, server_fault

PA_UNAVAILABLE = -9985
ALSA_EACCES, ALSA_EBUSY, ALSA_ENODEV, ALSA_ECONNREFUSED = -13, -16, -19, -111
ABSENT = frozenset({"no_device", "no_such_device", "server"})
"""Kinds of errors that end when something is plugged in, or started."""
NO_MICROPHONE_LEFT = "no microphone is left: the sound server has only what loudspeakers play"


class CaptureError(Exception):
    """Capture cannot start. `kind` is one word for programs, the message is for people."""

    def __init__(self, kind: str, message: str, mend: str = "", **more: Any) -> None:
        super().__init__(message)
        self.report = {"kind": kind, "message": message, "mend": mend, **more}


def explain(error: Any, device: str) -> CaptureError:
    """Turn a PortAudioError into words; `error.args` is (text, code, (api, alsa code, text))."""
    code = error.args[1] if len(error.args) > 1 else 0
    host = error.args[2] if len(error.args) > 2 else (0, 0, "")
    alsa = host[1] if isinstance(host, tuple) and len(host) > 1 else 0
    text = str(error.args[0]) if error.args else str(error)
    if alsa == ALSA_EACCES:
        return barred(device)
    if code == PA_UNAVAILABLE or alsa == ALSA_EBUSY:
        return busy(device)
    if alsa == ALSA_ECONNREFUSED:
        return CaptureError(
            "server",
            f'the sound server behind "{device}" does not answer',
            here(
                "start it: systemctl --user start pipewire-pulse, or pulseaudio --start",
                START_SERVER,
            ),
        )
    if alsa == ALSA_ENODEV:
        return CaptureError("unplugged", f'"{device}" is not there any more', "plug it in again")
    return CaptureError(
        "unknown", f'"{device}" cannot be opened ({text})', "`harkd doctor` looks closer"
    )


def barred(device: str) -> CaptureError:
    """Return the error of a device that this user may not open."""
    node = barred_device() if in_container() else None
    return CaptureError(
        "permission",
        f'no permission to open "{device}"',
        join_group(node.stat().st_gid)
        if node
        else "add the user to the audio group: sudo usermod -aG audio $USER, then log in again",
    )


def busy(device: str) -> CaptureError:
    """Return the error of a device that another program has."""
    return CaptureError(
        "busy",
        f'"{device}" is in use by another program',
        "close that program, or share the microphone through PulseAudio or PipeWire",
    )


def explain_absence(error: CaptureError, wanted: str, *, server: bool) -> CaptureError:
    """Return why a device is not in PortAudio's list, where more is known than that.

    Args:
        error: What the list alone says.
        wanted: The device that is wanted.
        server: Whether the sound server was there before.
    """
    kind = error.report["kind"]
    if kind not in ABSENT:
        return error
    name, code = why_not(wanted)
    if name:
        return busy(name) if code == -ALSA_EBUSY else barred(name)
    if fault := server_fault(os.environ, expected=server):
        if kind == "no_device" or server:
            return CaptureError(*fault)
        # It may be a source of that server, or a sound card: nobody knows.
        return CaptureError(kind, f"{error}; {fault[1]}", error.report["mend"])
    if kind == "no_device" and (refusal := login_fault(os.environ)):
        return CaptureError("permission", *refusal)
    if kind == "no_device" and (node := barred_device()):
        return barred(str(node))
    if kind == "no_device" and in_container() and not SND.is_dir():
        return CaptureError(kind, f"{error}: this container has none", give_card())
    return error
