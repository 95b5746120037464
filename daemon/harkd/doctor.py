"""Looks at everything that harkd needs, and says what is wrong and how to mend it.

Each check returns `Check` values and never raises; slow ones really try the thing (open the
microphone, run the model, log in to the broker). Runs on the main thread.
"""

from __future__ import annotations

import contextlib
import grp
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from harkd import app
from harkd.audio import RATE_HZ, SourceOpened
from harkd.container import give_card, here, join_group
from harkd.devices import Level, listen
from harkd.doctor_broker import check_broker
from harkd.doctor_check import Check, Status
from harkd.doctor_container import check_container
from harkd.doctor_device import check_device
from harkd.doctor_memory import check_memory
from harkd.doctor_speed import check_speed
from harkd.doctor_voice import check_voice
from harkd.errors import AudioError, HarkdError
from harkd.model_package import verify_files
from harkd.model_store import find_model, store_of
from harkd.settings import Settings, each_input
from harkd.settings_file import expand
from harkd.signal_processing import signal_stage, wanted
from harkd.sound_login import login_fault
from harkd.wake_models import load_detector, wanted_words

LISTEN_S = 2.0
PULSE_ANSWERS = "PulseAudio answers at"
THIS_COMMAND = "; `harkd doctor` looks at permissions and the sound server"
QUIET_DB = -60.0
TIMEDATECTL_S = 3.0
PER_INPUT = {"microphone", "broker"}
"""What is looked at for each of several inputs."""
EARLIEST_YEAR = 2025
"""A clock before this was never set: a Pi without network has none that survives power-off."""


def examine(settings: Settings) -> Iterator[Check]:
    """Run all checks, in the order in which a fault of one explains the next."""
    checks: list[tuple[str, Callable[[Settings], Iterator[Check]]]] = [
        ("system", check_system),
        ("clock", check_clock),
        ("container", check_container),
        ("sound", check_sound),
        ("microphone", check_microphone),
        ("signal", check_signal),
        ("voice", check_voice),
        ("wake", check_wake),
        ("model", check_model),
        ("broker", check_broker),
    ]
    for name, check in checks:
        for one, about in looked_at(name, settings):
            try:
                yield from (replace(each, what=about + each.what) for each in check(one))
            except HarkdError as error:
                yield Check(
                    name, Status.FAIL, about + error.message.removesuffix(THIS_COMMAND), error.mend
                )


def looked_at(name: str, settings: Settings) -> Iterator[tuple[Settings, str]]:
    """Yield the settings that a check is to look at, with words for whose they are."""
    if name not in PER_INPUT or not settings.inputs:
        yield settings, ""
        return
    for one in each_input(settings, os.environ):
        yield one, f"{one.effective_device_id}: "


def check_system(_settings: Settings) -> Iterator[Check]:
    """Look at Python and at what the CPU can do for int8 models."""
    flags = cpu_flags()
    machine = platform.machine()
    fast = {"x86_64": "avx2", "aarch64": "asimddp"}.get(machine)
    what = f"Python {platform.python_version()} on {machine}, {len(os.sched_getaffinity(0))} cores"
    if fast and flags and fast not in flags:
        yield Check(
            "system",
            Status.WARN,
            f"{what}, without {fast}",
            "recognition works, but slowly: the model line below says whether it keeps up",
        )
    else:
        known = sorted(flags & {"avx2", "avx512_vnni", "avx_vnni", "asimddp", "i8mm"})
        yield Check("system", Status.OK, f"{what} {' '.join(known)}".rstrip())


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Return the CPU's feature flags as the kernel names them; empty where it tells none."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip().lower() in {"flags", "features"}:
            return set(value.split())
    return set()


def check_clock(_settings: Settings) -> Iterator[Check]:
    """Look whether the time in the messages can be right."""
    if time.gmtime().tm_year < EARLIEST_YEAR:
        yield Check(
            "clock",
            Status.FAIL,
            f"the clock says {time.strftime('%Y-%m-%d')}: it was never set",
            "connect to the network, or set it: sudo date -s '…'",
        )
        return
    synced = ask_timedatectl()
    if synced == "no":
        yield Check(
            "clock",
            Status.WARN,
            f"{time.strftime('%Y-%m-%d %H:%M')}, not synchronized",
            "turn it on: sudo timedatectl set-ntp true",
        )
    else:
        note = "synchronized" if synced == "yes" else "whether it is synchronized is not known"
        yield Check("clock", Status.OK, f"{time.strftime('%Y-%m-%d %H:%M')}, {note}")


def ask_timedatectl() -> str:
    """Return ``yes``, ``no``, or nothing where systemd does not tell."""
    if not shutil.which("timedatectl"):
        return ""
    try:
        done = subprocess.run(
            ["timedatectl", "show", "-p", "NTPSynchronized", "--value"],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEDATECTL_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def check_sound(_settings: Settings) -> Iterator[Check]:
    """Look at the permissions on ALSA's devices and on PulseAudio's socket and cookie."""
    alsa, pulse = check_alsa(Path("/dev/snd")), check_pulse(os.environ)
    if pulse.what.startswith(PULSE_ANSWERS) and (fault := login_fault(os.environ)):
        pulse = Check("sound", Status.FAIL, *fault)
    if alsa.status is not Status.WARN or not pulse.what.startswith(PULSE_ANSWERS):
        yield alsa  # with a sound server, no card in sight is nothing to worry about
    yield pulse


def check_alsa(folder: Path) -> Check:
    """Look whether ALSA's capture devices may be opened."""
    nodes = sorted(folder.glob("pcm*c")) if folder.is_dir() else []
    if not nodes:
        return Check(
            "sound",
            Status.WARN,
            f"no capture device under {folder}",
            here("plug a microphone in", give_card()),
        )
    barred = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if not barred:
        return Check("sound", Status.OK, f"ALSA: {len(nodes)} capture device(s) may be opened")
    group_id = barred[0].stat().st_gid
    try:
        group = grp.getgrgid(group_id).gr_name
    except KeyError:
        group = str(group_id)
    return Check(
        "sound",
        Status.FAIL,
        f"{barred[0]} may not be opened: this user is not in the group {group}",
        here(f"sudo usermod -aG {group} $USER and log in again", join_group(group_id)),
    )


def check_pulse(environ: Mapping[str, str]) -> Check:
    """Look whether PulseAudio's or pipewire-pulse's socket can be reached."""
    server = environ.get("PULSE_SERVER", "")
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    path = Path(server.removeprefix("unix:")) if server else Path(runtime) / "pulse" / "native"
    if server and not path.is_absolute():
        return Check("sound", Status.OK, f"PulseAudio is set to {server} (not a local socket)")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            if not server:
                return Check("sound", Status.OK, "no PulseAudio or PipeWire runs for this user")
            return Check(
                "sound",
                Status.FAIL,
                f"PULSE_SERVER names {path}, which does not exist",
                here(
                    "start the sound server, or name its socket by PULSE_SERVER",
                    "start the sound server, then the container with -v and the path of its socket",
                ),
            )
        except PermissionError:
            owner = owner_of(path)
            return Check(
                "sound",
                Status.FAIL,
                f"{path} belongs to user {owner}, and this is user {os.getuid()}",
                here(f"run harkd as user {owner}", f"start the container with --user {owner}"),
            )
        except OSError as error:
            return Check(
                "sound",
                Status.FAIL,
                f"PulseAudio's socket {path} does not answer ({error.strerror or error})",
                "restart it: systemctl --user restart pipewire-pulse pulseaudio",
            )
    cookie = expand(environ.get("PULSE_COOKIE") or "~/.config/pulse/cookie")
    try:
        cookie.read_bytes()
    except PermissionError:
        return Check(
            "sound",
            Status.FAIL,
            f"PulseAudio's cookie {cookie} may not be read",
            f"make it readable: sudo chown $USER {cookie}",
        )
    except OSError:
        pass  # most servers on the same machine want none
    return Check("sound", Status.OK, f"{PULSE_ANSWERS} {path}")


def owner_of(path: Path) -> int:
    """Return whose user id a path, or the closest folder above it that may be seen, has."""
    for each in (path, *path.parents):
        with contextlib.suppress(PermissionError):
            return each.stat().st_uid
    return 0


def check_microphone(settings: Settings) -> Iterator[Check]:
    """Open the microphone and measure how loud it is."""
    opened = SourceOpened("", 0, 0)
    levels: list[Level] = []
    for event in listen(settings.audio, LISTEN_S):
        if isinstance(event, SourceOpened):
            opened = event
        else:
            levels.append(event)
    where = f"{opened.device} at {opened.rate_hz} Hz × {opened.channels}"
    if not levels:
        raise AudioError(f"{where} opened, but no audio came", "`harkd devices` lists others")
    peak = max(level.peak_db for level in levels)
    if all(level.zero for level in levels):
        yield Check(
            "microphone",
            Status.FAIL,
            f"{where} opens, but each sample is zero: it is muted, or dead",
            "unmute it (alsamixer, or the desktop's sound settings) or choose another: "
            "`harkd devices --meter`",
        )
    elif peak < QUIET_DB:
        yield Check(
            "microphone",
            Status.WARN,
            f"{where} opens, but its loudest sample is {peak:.0f} dB: very quiet",
            "raise its volume (alsamixer), then speak and look at `harkd devices --meter`",
        )
    else:
        yield Check("microphone", Status.OK, f"{where}, peak {peak:.0f} dB")


def check_signal(settings: Settings) -> Iterator[Check]:
    """Load what processes the signal, where that is switched on. Raises SettingsError."""
    if names := wanted(settings.audio):
        signal_stage(settings.audio)
        yield Check("signal", Status.OK, f"what {', '.join(names)} need is there")


def check_wake(settings: Settings) -> Iterator[Check]:
    """Load the wake words, where there are some, and see what they cost. Raises SettingsError."""
    if not wanted_words(settings.wake):
        return
    detector = load_detector(settings.wake)
    begin_s = time.process_time()
    detector.push(np.zeros(RATE_HZ, np.int16))
    share = time.process_time() - begin_s
    words = ", ".join(detector.words)
    yield Check("wake", Status.OK, f"{words}: {share:.1%} of a core while somebody speaks")


def check_model(settings: Settings) -> Iterator[Check]:
    """Check each file of the model, load it, and see whether this machine keeps up."""
    installed = find_model(settings)
    name = installed.manifest.name
    if faults := verify_files(installed.dir, installed.manifest, quick=False):
        listed = ", ".join(str(fault) for fault in faults)
        yield Check(
            "model",
            Status.FAIL,
            f"{installed.dir} is damaged: {listed}",
            store_of(settings).mend(name),
        )
        return
    memory = check_memory(installed, settings)
    yield memory
    if memory.status is Status.FAIL:
        return
    recognizer, report = app.load_with_report(installed, settings)
    yield check_device(report, required=settings.recognizer.require_device)
    yield check_speed(name, recognizer, app.sample_of(installed))
