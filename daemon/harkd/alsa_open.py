"""Why ALSA does not open a device: the error that PortAudio hides.

PortAudio leaves a device out of its list where it cannot open it at start, so one that is in use
looks like one that is not there. In: names of ALSA devices. Out: errno values. Runs in the capture
process, which may hang in it.
"""

from __future__ import annotations

import ctypes
import errno
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

CAPTURE, NONBLOCK = 1, 1  # SND_PCM_STREAM_CAPTURE, SND_PCM_NONBLOCK
PROC = Path("/proc/asound")


def open_error(name: str) -> int:
    """Open an ALSA device for a moment; return 0, or the errno that says why it does not open."""
    try:
        alsa = ctypes.CDLL("libasound.so.2")
    except OSError:
        return errno.ENOSYS
    pcm = ctypes.c_void_p()
    code = int(alsa.snd_pcm_open(ctypes.byref(pcm), name.encode(), CAPTURE, NONBLOCK))
    if code == 0:
        alsa.snd_pcm_close(pcm)
    return -code


def cards(proc: Path = PROC) -> Iterator[tuple[str, str]]:
    """Yield the capture devices of sound cards: ALSA's name (``hw:1,0``) and what it is called."""
    for hw, title, lines in _captures(proc):
        yield hw, f"{lines} {title}"


def _captures(proc: Path) -> Iterator[tuple[str, str, str]]:
    """Yield ALSA's name of each capture device, PortAudio's, and what else is said of it."""
    try:
        listed = (proc / "cards").read_text(encoding="utf-8", errors="replace")
        pcms = (proc / "pcm").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    names = dict(re.findall(r"^ *(\d+) \[.*?\]: (.*)$", listed, re.MULTILINE))
    for card, device, text in re.findall(r"^(\d+)-(\d+): (.*)$", pcms, re.MULTILINE):
        if ": capture" in text:
            # "USB-Audio - Jabra" and "USB Audio : USB Audio : capture 1": short name, and name.
            hw, long = f"hw:{int(card)},{int(device)}", names.get(str(int(card)), "")
            title = f"{long.split(' - ', 1)[-1]}: {text.split(' : ')[1]} ({hw})"
            yield hw, title, f"{long} {text}"


def left_out(
    listed: Iterable[str],
    proc: Path = PROC,
    opened: Callable[[str], int] = open_error,
) -> Iterator[tuple[str, int]]:
    """Yield what PortAudio does not list because it cannot open it: its name for it, and errno.

    Only what says more than "not there": EBUSY and EACCES. `listed` are the names that it has.
    """
    known = " ".join(listed)
    for hw, title, _ in _captures(proc):
        if f"({hw})" not in known and (code := opened(hw)) in (errno.EBUSY, errno.EACCES):
            yield title, code


def why_not(
    wanted: str,
    proc: Path = PROC,
    opened: Callable[[str], int] = open_error,
) -> tuple[str, int]:
    """Return which ALSA device that `wanted` may mean does not open, and why; ("", 0) for none.

    Only what says more than "not there": EBUSY and EACCES.
    """
    lowered = wanted.lower()
    matching = [hw for hw, text in cards(proc) if wanted == "default" or lowered in text.lower()]
    plain = [wanted] if re.fullmatch(r"[\w:,.=-]+", wanted) and not wanted.isdecimal() else []
    for name in dict.fromkeys([*plain, *matching]):
        if (code := opened(name)) in (errno.EBUSY, errno.EACCES):
            return name, code
    return "", 0
