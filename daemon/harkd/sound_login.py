"""Why PulseAudio or pipewire-pulse does not let this user in, though its socket can be reached.

In: the environment. Out: words. A server lets in its own user, and whoever has its cookie;
PortAudio says of the others that there is no microphone. Asking happens on a thread of its own,
since a server that hangs never answers. Light: pulsectl is loaded where it is used.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from harkd.sound_server import socket_path

COOKIE_BYTES = 256
LOGIN_S = 2.0
"""A server that takes longer hangs, which others tell."""


def login_fault(
    environ: Mapping[str, str], refused: Callable[[], bool] | None = None
) -> tuple[str, str] | None:
    """Log in for a moment; return why that is refused, and how to mend it. None where it is not.

    Args:
        environ: Where `PULSE_SERVER` and `PULSE_COOKIE` are looked for.
        refused: Tells whether the server refuses us; None asks it.
    """
    path = socket_path(environ)
    if path is None or not path.is_socket() or not (refused or is_refused)():
        return None
    try:
        owner = path.stat().st_uid
    except OSError:
        owner = 0
    message = f"the sound server at {path} refuses user {os.getuid()}"
    why, mend = cookie_fault(environ)
    as_owner = f"run harkd as user {owner}, whose server that is (in a container: --user {owner})"
    return f"{message}: {why}", mend if owner in (0, os.getuid()) else f"{mend}, or {as_owner}"


def is_refused() -> bool:
    """Tell whether the server that libpulse finds closes the door; False where it says nothing."""
    verdict: list[bool] = []

    def ask() -> None:
        try:
            import pulsectl
        except (ImportError, OSError):  # no libpulse on this machine
            return
        # Closing would wait for a server that hangs, and is left to the end of the process.
        pulse = pulsectl.Pulse("harkd asks", connect=False)
        try:
            pulse.connect(autospawn=False)
        except pulsectl.PulseError:
            verdict.append(True)
        else:
            pulse.close()

    thread = threading.Thread(target=ask, name="sound server", daemon=True)
    thread.start()
    thread.join(LOGIN_S)
    return verdict == [True]


def cookie_fault(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return why the cookie does not open the door, and what to do about it."""
    path = cookie_path(environ)
    try:
        # As libpulse does, which reads it only if this is refused for lack of permission:
        # https://gitlab.freedesktop.org/pulseaudio/pulseaudio/-/blob/v16.1/src/pulsecore/authkey.c
        with contextlib.suppress(PermissionError):
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        size_bytes = len(path.read_bytes())
    except FileNotFoundError:
        return (
            f"there is no cookie at {path}",
            "give it the server's: a copy of ~/.config/pulse/cookie of the server's user, which "
            "PULSE_COOKIE names",
        )
    except PermissionError:
        return f"its cookie {path} may not be read", f"sudo chown {os.getuid()} {path}"
    except OSError as error:
        if error.errno == errno.EROFS:
            return (
                f"libpulse opens the cookie {path} for writing, and it is on a read-only mount",
                "mount the cookie without :ro, or let it be read-only by its mode: chmod 400",
            )
        return f"its cookie {path} cannot be read ({error.strerror})", "name a file by PULSE_COOKIE"
    if size_bytes != COOKIE_BYTES:
        return (
            f"{path} is no cookie: it has {size_bytes} bytes, not {COOKIE_BYTES}",
            "copy ~/.config/pulse/cookie of the server's user there",
        )
    return (
        f"the cookie {path} is not that server's",
        "copy ~/.config/pulse/cookie of the server's user there, again after each new one",
    )


def cookie_path(environ: Mapping[str, str]) -> Path:
    """Return the cookie that libpulse looks for."""
    if named := environ.get("PULSE_COOKIE"):
        return Path(named)
    home = Path(environ.get("HOME", "/"))
    usual = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pulse" / "cookie"
    old = home / ".pulse-cookie"
    return old if old.exists() and not usual.exists() else usual
