"""What PulseAudio or pipewire-pulse knows of our recording: which source it really hears.

In: the server's events. Out: reports, as plain values that fit into JSON, to a callback. Runs in
the capture process, on threads of their own: a server that hangs keeps them for ever, and nothing
else. Idle, they wait in `poll`, and cost nothing. Light: pulsectl is loaded where it is used.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from harkd.container import START_SERVER, here

TOKEN = "harkd.capture"  # noqa: S105 - a property's name
"""A property of our recording. Process ids are not enough: two containers may have the same."""
PACE_S = 0.03
"""So long between two looks, since events come in bursts."""
LOOK_S = 0.25
"""How often is looked for what sends no events."""
SND = Path("/dev/snd")


def mark_own(environ: MutableMapping[str, str], token: str) -> None:
    """Have libpulse put our property on what this process records."""
    environ["PULSE_PROP"] = f"{environ.get('PULSE_PROP', '')} {TOKEN}={token}".strip()


class OwnRecording:
    """Watches on which source our recording is, and reports each change.

    Args:
        token: What `mark_own` was given.
        report: Takes a report; called on the watching thread. Keys: `source`, `description`,
            `monitor` (it is what a loudspeaker plays), `muted`, `volume` (0: nothing is heard),
            `stream` (our recording's index), `stream_muted`, `microphones` (sources that are no
            monitors).
    """

    def __init__(self, token: str, report: Callable[[dict[str, Any]], None]) -> None:
        self._token = token
        self._report = report
        self._last: dict[str, Any] = {}
        self._answered = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sound server", daemon=True)

    def start(self, wait_s: float) -> dict[str, Any]:
        """Begin, and return the first report; empty where there is none in time."""
        self._thread.start()
        self._answered.wait(wait_s)
        return dict(self._last)

    def _run(self) -> None:
        try:
            follow_server({"source", "source_output", "server"}, self._look)
        finally:
            self._answered.set()

    def _look(self, pulse: Any) -> bool:
        report = report_of(self._token, pulse.source_output_list(), pulse.source_list())
        if report and report != self._last:
            first = not self._last
            self._last = report
            if not first or self._answered.is_set():
                self._report(report)
            self._answered.set()
        return False


def report_of(token: str, outputs: Sequence[Any], sources: Sequence[Any]) -> dict[str, Any]:
    """Return what is known of our recording; empty where it is not there, or on no source."""
    own = next((o for o in outputs if o.proplist.get(TOKEN) == token), None)
    if own is None:
        pid = str(os.getpid())
        own = next((o for o in outputs if o.proplist.get("application.process.id") == pid), None)
    source = own and next((s for s in sources if s.index == own.source), None)
    if own is None or source is None:
        return {}
    return {
        "source": source.name,
        "description": source.description,
        "monitor": is_monitor(source),
        "muted": bool(source.mute),
        "volume": round(source.volume.value_flat, 3),
        "stream": own.index,
        "stream_muted": bool(own.mute),
        "microphones": sum(not is_monitor(each) for each in sources),
    }


def is_monitor(source: Any) -> bool:
    """Tell whether one of pulsectl's sources is what a loudspeaker plays."""
    return bool(source.monitor_of_sink_name) or source.name.endswith(".monitor")


def follow_server(facilities: set[str], look: Callable[[Any], bool]) -> None:
    """Call `look` with the connection, now and after each event, until it returns True.

    Returns, too, where no server answers, and when it goes.
    """
    try:
        import pulsectl
    except (ImportError, OSError):  # no libpulse on this machine
        return
    changed = True

    def on_event(_event: Any) -> None:
        nonlocal changed
        changed = True
        raise pulsectl.PulseLoopStop

    # Closing is left to the end of the process, since it would wait for a server that hangs.
    with contextlib.suppress(pulsectl.PulseError):
        pulse = pulsectl.Pulse("harkd watches its source", connect=False)
        pulse.connect(autospawn=False)  # without its timeout, which it would always use up
        pulse.event_callback_set(on_event)
        pulse.event_mask_set(*sorted(facilities))
        while True:
            # Events that come while `look` asks would be lost to `event_listen` (pulsectl 24.12,
            # `_pulse_loop` resets `_loop_stop`), so they are remembered here.
            while changed:
                changed = False
                if look(pulse):
                    return
                time.sleep(PACE_S)
            pulse.event_listen()


def socket_path(environ: Mapping[str, str]) -> Path | None:
    """Return where the server's socket should be; None where it is on another machine."""
    if server := environ.get("PULSE_SERVER", ""):
        path = Path(server.removeprefix("unix:"))
        return path if path.is_absolute() else None
    if runtime := environ.get("PULSE_RUNTIME_PATH"):
        return Path(runtime) / "native"
    return Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}") / "pulse" / "native"


def server_fault(
    environ: Mapping[str, str], *, expected: bool = False
) -> tuple[str, str, str] | None:
    """Return what keeps us from the sound server: kind, message and mend.

    None where it answers, and where none is to be expected: no socket, nobody named one, and it was
    not `expected` for having been there before.
    """
    path = socket_path(environ)
    if path is None:
        return None
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except PermissionError:
            return (
                "permission",
                f"no permission to use the sound server at {path}",
                here(
                    "run harkd as the user whose sound server that is",
                    "start the container with --user and the id of that server's user",
                ),
            )
        except FileNotFoundError:
            if not (expected or environ.get("PULSE_SERVER")):
                return None
        except OSError:
            pass
        else:
            return None
    return (
        "server",
        f"the sound server (PulseAudio or PipeWire) at {path} does not answer",
        here(
            "start it: systemctl --user start pipewire-pulse, or pulseaudio --start", START_SERVER
        ),
    )


def barred_device(folder: Path = SND) -> Path | None:
    """Return an ALSA capture device if there are some and this user may open none."""
    nodes = sorted(folder.glob("pcm*c")) if folder.is_dir() else []
    if nodes and not any(os.access(node, os.R_OK | os.W_OK) for node in nodes):
        return nodes[0]
    return None


def fingerprint(environ: Mapping[str, str], folder: Path = SND) -> tuple[object, ...]:
    """Return what changes when a sound card or the sound server comes or goes. Some µs."""
    found: list[object] = []
    with contextlib.suppress(OSError):
        found += sorted((entry.name, entry.stat().st_mode) for entry in os.scandir(folder))
    path = socket_path(environ)
    with contextlib.suppress(OSError):
        status = path.stat() if path else None
        if status and stat.S_ISSOCK(status.st_mode):
            found.append((status.st_ino, status.st_mtime_ns))
    return tuple(found)


def wait_for_change(known: set[str] | None, before: tuple[object, ...]) -> None:
    """Return once the sound system may offer something else than it did.

    Args:
        known: Names of the server's sources, as they were; None where it was not asked.
        before: The `fingerprint`, as it was.
    """
    changed = threading.Event()
    connected = False

    def look(pulse: Any) -> bool:
        nonlocal known, connected
        connected = True
        names = {source.name for source in pulse.source_list()}
        known = names if known is None else known
        if names != known:
            changed.set()
        return changed.is_set()

    def run() -> None:
        follow_server({"source", "server"}, look)
        if connected:  # it has gone
            changed.set()

    threading.Thread(target=run, name="sound server", daemon=True).start()
    while not changed.wait(LOOK_S):
        if fingerprint(os.environ) != before:
            return
