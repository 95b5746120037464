"""`harkd health` and `harkd status` without a daemon, and with somebody else in its place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from harkd.daemon_client import ask
from harkd.errors import DaemonError
from harkd.http_server import HttpServer, Page
from harkd.settings import HttpSettings
from servers import free_port

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs harkd with settings in its environment."""

    def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        clean: Mapping[str, str] = {
            key: value for key, value in os.environ.items() if not key.startswith("HARKD_")
        }
        own = {"XDG_CONFIG_HOME": str(tmp_path), "HARKD_MQTT__PORT": str(free_port())}
        return subprocess.run(
            [sys.executable, "-m", "harkd", *words],
            env={**clean, **own, **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    return run


@pytest.fixture
def somebody() -> Iterator[int]:
    """The port of something else that speaks HTTP."""
    server = HttpServer("127.0.0.1", 0, {"/readyz": lambda: Page(b"<html>", "text/html")})
    server.start()
    yield server.port
    server.stop()


def test_no_daemon_is_2_with_the_mend(run: Run) -> None:
    done = run("health", HARKD_HTTP__PORT=str(free_port()))
    assert done.returncode == 2
    assert "does not run" in done.stderr
    assert "harkd run" in done.stderr


@pytest.mark.parametrize(
    ("env", "mend"),
    [
        ({"HARKD_HTTP__ENABLED": "false"}, "http.enabled"),
        ({"HARKD_HTTP__PORT": "0"}, "http.port"),
        ({"HARKD_HTTP__PORT": "x"}, "HARKD_HTTP__PORT"),
    ],
)
def test_settings_by_which_no_daemon_can_be_asked_are_2_too(
    run: Run, env: dict[str, str], mend: str
) -> None:
    done = run("health", **env)
    assert done.returncode == 2
    assert mend in done.stderr


def test_something_else_at_that_port_is_2(run: Run, somebody: int) -> None:
    done = run("health", HARKD_HTTP__PORT=str(somebody))
    assert done.returncode == 2
    assert "is no harkd" in done.stderr


def test_status_without_daemon_and_broker_is_an_error_that_names_both(run: Run) -> None:
    done = run("status", HARKD_HTTP__PORT=str(free_port()))
    assert done.returncode == 1
    assert "does not run" in done.stderr
    assert "nothing listens" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_daemon_that_listens_everywhere_is_asked_here(somebody: int) -> None:
    with pytest.raises(DaemonError, match=r"127\.0\.0\.1"):
        ask(HttpSettings(host="0.0.0.0", port=somebody), "/readyz", 2)  # noqa: S104


def test_a_health_check_loads_nothing_heavy(somebody: int) -> None:
    script = (
        f"import os, sys\nos.environ['HARKD_HTTP__PORT'] = '{somebody}'\n"
        "sys.argv = ['harkd', 'health']\n"
        "from harkd.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 2\n"
        "heavy = {'numpy', 'onnxruntime', 'paho', 'prometheus_client', 'rich', 'sounddevice'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"
