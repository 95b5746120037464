"""Too little memory is told before the model is loaded, under limits that the kernel enforces."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon_process import Daemon
from harkd.memory import cgroup_levels
from servers import Mosquitto, Subscriber, wait_until

pytestmark = pytest.mark.integration
MB = 1_000_000
TOLD = "not enough memory: the model moonshine-tiny-en needs"


class MemoryCgroup:
    """A cgroup below our own, version 1 or 2."""

    def __init__(self, folder: Path, version: int) -> None:
        self._folder = folder
        self._limit = "memory.max" if version == 2 else "memory.limit_in_bytes"
        self._events = "memory.events" if version == 2 else "memory.oom_control"

    def limit(self, mb: int) -> None:
        (self._folder / self._limit).write_text(str(mb * MB))

    def enter(self) -> None:
        """Moves the process into it that calls this."""
        (self._folder / "cgroup.procs").write_text(str(os.getpid()))

    @property
    def kills(self) -> int:
        lines = (self._folder / self._events).read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])


@contextmanager
def a_cgroup() -> Iterator[MemoryCgroup]:
    """Yields a new cgroup that can be limited, or skips the test."""
    levels = list(cgroup_levels(Path("/")))
    with_memory = [level for level in levels if (level[0] / "memory.stat").exists()]
    if not with_memory:
        pytest.skip("no cgroup of this machine has the memory controller")
    parent, _, version = with_memory[0]
    folder = parent / f"harkd-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"this user may make no cgroup: {error}")
    try:
        cgroup = MemoryCgroup(folder, version)
        try:
            cgroup.limit(1000)
        except OSError as error:
            pytest.skip(f"the memory of a cgroup cannot be limited here: {error}")
        yield cgroup
    finally:
        wait_until(lambda: is_removed(folder), "cgroup without processes", 5.0)


def is_removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def transcribe(
    wav: Path, env: dict[str, str], inside: Callable[[], None]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harkd", "transcribe", "--jobs", "1", str(wav)],
        env={**os.environ, **env},
        preexec_fn=inside,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_at_each_limit_of_a_cgroup_it_runs_or_says_why_not_and_is_never_killed(
    env: dict[str, str], model_dir: Path
) -> None:
    wav = model_dir / "samples" / "beckett.wav"
    ran = []
    with a_cgroup() as cgroup:
        for limit_mb in (330, 245):
            cgroup.limit(limit_mb)
            done = transcribe(wav, env, cgroup.enter)
            assert cgroup.kills == 0, f"killed at {limit_mb} MB"
            ran.append(done.returncode == 0)
            if ran[-1]:
                assert "ever failed" in done.stdout.lower()
            else:
                assert TOLD in done.stderr
                assert "MB are free in the cgroup /" in done.stderr
        cgroup.limit(160)
        forced = transcribe(wav, env | {"HARKD_RECOGNIZER__CHECK_MEMORY": "false"}, cgroup.enter)
        assert cgroup.kills == 1, f"it would not have fitted: {forced}"
    assert ran == [True, False]


def test_a_daemon_that_would_not_fit_says_so_over_mqtt_and_ends(
    env: dict[str, str], broker: Mosquitto, tmp_path: Path
) -> None:
    limit = (250 * MB, 250 * MB)
    with (
        Subscriber(broker, "harkd/+/state") as heard,
        Daemon("--source", "-", env=env, folder=tmp_path) as daemon,
    ):
        resource.prlimit(daemon.process.pid, resource.RLIMIT_DATA, limit)
        assert daemon.wait() == 1
        wait_until(lambda: any(b"failed" in m.payload for m in heard.messages), "state", 5.0)
    (failed,) = (m for m in heard.messages if b"failed" in m.payload)
    reason = json.loads(failed.payload)["reason"]
    assert reason.startswith(TOLD)
    assert "RLIMIT_DATA" in reason
    assert daemon.lines[-1].rstrip() == f"harkd: {reason}"
