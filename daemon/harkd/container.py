"""Are we in a container, and which faults are those of its command line.

In: files and environment variables that Docker, Podman and Kubernetes set. Out: words. Runs
on the caller's thread; light, since the capture process asks, too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
CONTAINER_ID = re.compile(r"[0-9a-f]{12}")
"""The host name that Docker and Podman give a container that was given none."""
OVERFLOW_ID = 65534
"""Whom files belong to whose owner is not mapped into a rootless container."""


def in_container(environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> bool:
    """Tell whether Docker, Podman, Kubernetes or systemd-nspawn runs us."""
    if environ.get("container") or environ.get("KUBERNETES_SERVICE_HOST"):
        return True
    return any((root / mark.relative_to("/")).exists() for mark in MARKS)


def here(outside: str, inside: str) -> str:
    """Return the words for a container in one, else the others."""
    return inside if in_container() else outside


START_SERVER = "start it on the host, and the container with the path of its socket (-v)"


def give_card() -> str:
    """Say how a container gets a microphone."""
    return (
        "start the container with --device=/dev/snd --group-add $(getent group audio | cut -d: -f3)"
        ", or give it the socket of the sound server and name that by PULSE_SERVER"
    )


def join_group(group_id: int) -> str:
    """Say how the user of a container gets into the group of a device."""
    if group_id == OVERFLOW_ID:
        return (
            "start the container with --group-add keep-groups, as a user who is in the group audio "
            "(Podman without root)"
        )
    return f"start the container with --group-add {group_id} (the number: names are the image's)"


def is_container_id(name: str) -> bool:
    """Tell whether a host name is one that changes with each new container."""
    return CONTAINER_ID.fullmatch(name) is not None
