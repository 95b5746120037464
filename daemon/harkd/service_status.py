"""How the service fares, out of what systemd says: a short report, with mends. Pure.

In: the output of ``systemctl show`` and lines of the journal. Out: `Report`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

PROPERTIES: Final = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "FragmentPath",
    "DropInPaths",
    "NeedDaemonReload",
    "MainPID",
    "StatusText",
    "WatchdogUSec",
    "NRestarts",
    "Result",
    "ExecMainCode",
    "ExecMainStatus",
    "ExecMainStartTimestamp",
    "ActiveEnterTimestamp",
)
"""What is asked of ``systemctl show``."""

KILLED: Final = ("2", "3")
"""CLD_KILLED and CLD_DUMPED in ``ExecMainCode``: the status is a signal then."""

RESULTS: Final = {
    "watchdog": "it hung and was killed by the watchdog; the journal shows where each thread was",
    "oom-kill": "memory ran out; a smaller model needs less: `harkd models list`",
    "timeout": "it took too long to start or to end; `harkd doctor` tells whether this machine "
    "keeps up",
    "resources": "systemd could not prepare it; the journal says why",
    "start-limit-hit": "it failed too often; see the journal, then `systemctl reset-failed harkd`",
}
"""The unit's results, in words."""

STATUSES: Final = {
    "1": "harkd ended with an error; the journal has it, with its mend",
    "78": "the model does not run on the device that recognizer.require_device wants; the journal "
    "says why, and `harkd doctor` what to do. It is not started again by itself",
    "200": "its folder is gone; `harkd service install` makes it again",
    "203": "the program in ExecStart is gone: was the environment moved or deleted? "
    "Run `harkd service install` from the one that is to be used",
    "216": "a group is missing; `harkd service install` makes it",
    "217": "the user harkd is missing; `harkd service install` makes it",
    "218": "this kernel does not let systemd drop rights; see docs/service.md",
    "226": "a folder that the unit binds is gone: was the environment moved? "
    "Run `harkd service install` from the one that is to be used",
    "228": "this kernel has no seccomp; see docs/service.md",
    "238": "/var/lib/harkd cannot be made or owned; is the disk full or read-only?",
    "243": "the credential mqtt-password cannot be read; /etc/harkd/mqtt-password must be a file",
}
"""Exit codes, ours and systemd's own (systemd.exec(5)), in words."""


@dataclass(frozen=True, slots=True)
class Report:
    """What `harkd service status` prints."""

    active: bool
    """Whether the service runs."""
    lines: tuple[str, ...]
    """The figures, ready to be printed."""
    mends: tuple[str, ...]
    """What is wrong, and what to do about it."""


def parse_show(text: str) -> dict[str, str]:
    """Return the properties that ``systemctl show`` printed."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key: value for key, _, value in pairs}


def report(properties: Mapping[str, str], install: str) -> Report:
    """Return the report; `install` is the command that installs the service."""
    if properties.get("LoadState") == "not-found":
        return Report(False, ("harkd.service is not installed",), (install,))
    get = properties.get
    active = get("ActiveState", "") == "active"
    rows = [
        ("state", f"{get('ActiveState', '?')} ({get('SubState', '?')})"),
        ("says", get("StatusText", "") if active else ""),
        ("since", get("ActiveEnterTimestamp", "") if active else ""),
        ("starts at boot", "yes" if get("UnitFileState") == "enabled" else "no"),
        ("watchdog", watchdog_words(get("WatchdogUSec", ""))),
        ("restarts", restart_words(properties)),
        ("process", get("MainPID", "") if get("MainPID", "0") != "0" else ""),
        ("unit", get("FragmentPath", "")),
        ("changed by", get("DropInPaths", "")),
    ]
    lines = tuple(f"{name + ':':<16}{value}" for name, value in rows if value)
    return Report(active, lines, tuple(mends(properties, install)))


def watchdog_words(watchdog: str) -> str:
    """Say what ``WatchdogUSec`` means; systemd writes it as a time span."""
    return f"after {watchdog}" if watchdog not in ("", "0", "infinity") else "off"


def restart_words(properties: Mapping[str, str]) -> str:
    """Say how often systemd has started it anew, and when it was last."""
    count, last = properties.get("NRestarts", "0"), properties.get("ExecMainStartTimestamp", "")
    if count == "0":
        return "none since it was started"
    return f"{count}, last {last}" if last else count


def mends(properties: Mapping[str, str], install: str) -> Iterator[str]:
    """Yield what is wrong, with its mend."""
    get = properties.get
    if get("NeedDaemonReload") == "yes":
        yield "the unit has changed on the disk: systemctl daemon-reload, then restart"
    if get("UnitFileState") not in ("enabled", "static", "linked"):
        yield f"it does not start at boot: {install}"
    if get("LoadState") == "masked":
        yield "it is masked: systemctl unmask harkd"
    state, result = get("ActiveState", ""), get("Result", "success")
    if state in ("active", "reloading") or result == "success":
        if state == "inactive":
            yield "it is stopped: systemctl start harkd"
        return
    if result in RESULTS:
        yield RESULTS[result]
    elif get("ExecMainCode", "") in KILLED:
        yield f"it was killed by signal {get('ExecMainStatus', '?')}; the journal may tell by whom"
    else:
        status = get("ExecMainStatus", "?")
        yield STATUSES.get(status, f"it ended with the code {status}; the journal may say why")
    if state == "activating":
        yield "systemd tries again by itself"
