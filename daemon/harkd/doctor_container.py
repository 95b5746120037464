"""What `harkd doctor` looks at only in a container: what would be lost with it.

In: the settings and the environment. Out: checks. On the main thread.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from harkd.container import in_container, is_container_id
from harkd.doctor_check import Check, Status
from harkd.settings import Settings, state_dir


def check_container(settings: Settings) -> Iterator[Check]:
    """Look whether name and state outlive the container; nothing where there is none."""
    if not in_container():
        return
    name = socket.gethostname()
    if not settings.device_id and not settings.inputs and is_container_id(name):
        yield Check(
            "container",
            Status.WARN,
            f"device_id is the container's id, {name}, and changes with each new one",
            "set device_id, or HARKD_DEVICE_ID=kitchen, or --hostname kitchen",
        )
    yield state_check(state_dir(settings.state, os.environ))


def state_check(folder: Path) -> Check:
    """Look whether finals that wait for the broker, and the mute switch, can be kept."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        user, group = os.getuid(), os.getgid()
        return Check(
            "container",
            Status.WARN,
            f"{folder} may not be written by user {user}: what must survive a restart is lost",
            f"on the host: sudo chown {user}:{group} what you mounted there; or mount a named "
            "volume, which needs no chown",
        )
    return Check("container", Status.OK, f"{folder} can be written")
