"""What a container is told of its command line: names, folders, groups, the server's cookie."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harkd import capture_errors, doctor_container
from harkd.capture_errors import CaptureError, explain_absence
from harkd.container import MARKS, in_container
from harkd.doctor_check import Status
from harkd.doctor_container import check_container, state_check
from harkd.settings import Settings, StateSettings
from harkd.sound_login import cookie_fault, cookie_path, login_fault


@pytest.mark.parametrize(
    ("environ", "mark", "inside"),
    [
        ({}, None, False),
        ({}, ".dockerenv", True),
        ({}, "run/.containerenv", True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None, True),
        ({"container": "systemd-nspawn"}, None, True),
    ],
)
def test_docker_podman_kubernetes_and_nspawn_are_known_by_their_marks(
    environ: dict[str, str],
    mark: str | None,
    inside: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("harkd.container.MARKS", MARKS)
    if mark:
        (tmp_path / mark).parent.mkdir(exist_ok=True)
        (tmp_path / mark).touch()
    assert in_container(environ, tmp_path) is inside


def test_a_name_that_is_the_containers_id_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StateSettings(dir=str(tmp_path))
    monkeypatch.setattr(doctor_container, "in_container", lambda: True)
    monkeypatch.setattr("socket.gethostname", lambda: "3f2b81c09a7e")
    name, folder = check_container(Settings(state=state))
    assert (name.status, folder.status) == (Status.WARN, Status.OK)
    assert "HARKD_DEVICE_ID" in name.mend
    (only,) = check_container(Settings(state=state, device_id="kitchen"))
    assert only == folder
    monkeypatch.setattr("socket.gethostname", lambda: "kitchen")
    assert list(check_container(Settings(state=state))) == [folder]
    monkeypatch.setattr(doctor_container, "in_container", lambda: False)
    assert list(check_container(Settings(state=state))) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_state_folder_of_somebody_else_tells_the_chown() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        os.seteuid(65534)  # access() asks for the real user
        os.seteuid(0)
        os.setresuid(65534, 65534, 0)
        try:
            check = state_check(Path(name) / "state")
        finally:
            os.setresuid(0, 0, 0)
    assert check.status is Status.WARN
    assert "chown 65534:0" in check.mend


def test_a_container_without_any_sound_is_told_how_it_gets_some(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    none = CaptureError("no_device", "no microphone found", "plug one in")
    monkeypatch.setattr(capture_errors, "why_not", lambda _: ("", 0))
    monkeypatch.setattr(capture_errors, "barred_device", lambda: None)
    monkeypatch.setattr(capture_errors, "SND", tmp_path / "snd")
    monkeypatch.delenv("PULSE_SERVER", raising=False)
    monkeypatch.setenv("PULSE_RUNTIME_PATH", str(tmp_path))
    monkeypatch.setattr(capture_errors, "in_container", lambda: True)
    told = explain_absence(none, "default", server=False).report
    assert told["kind"] == "no_device"
    assert "--device=/dev/snd" in told["mend"]
    (tmp_path / "snd").mkdir()
    assert explain_absence(none, "default", server=False) is none


# ------------------------------------------------------------------ the sound server's cookie


@contextmanager
def server_in(folder: Path) -> Iterator[dict[str, str]]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "native"))
        yield {"PULSE_SERVER": f"unix:{folder}/native", "PULSE_COOKIE": str(folder / "cookie")}


def test_a_server_that_lets_us_in_or_says_nothing_is_no_fault(tmp_path: Path) -> None:
    with server_in(tmp_path) as environ:
        assert login_fault(environ, lambda: False) is None
    elsewhere = {"PULSE_SERVER": "tcp:192.0.2.1:4713"}
    assert login_fault(elsewhere, lambda: True) is None


def test_a_server_that_refuses_us_is_told_with_what_is_wrong_with_the_cookie(
    tmp_path: Path,
) -> None:
    cookie = tmp_path / "cookie"
    with server_in(tmp_path) as environ:
        what, mend = login_fault(environ, lambda: True) or ("", "")
        assert f"refuses user {os.getuid()}: there is no cookie at {cookie}" in what
        assert "PULSE_COOKIE" in mend
        cookie.write_bytes(b"too short")
        assert "9 bytes, not 256" in (login_fault(environ, lambda: True) or ("",))[0]
        cookie.write_bytes(bytes(256))
        assert "is not that server's" in (login_fault(environ, lambda: True) or ("",))[0]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_where_the_server_is_another_users_running_as_that_one_mends_it_too(tmp_path: Path) -> None:
    with server_in(tmp_path) as environ:
        os.chown(tmp_path / "native", 4711, 4711)
        assert "--user 4711" in (login_fault(environ, lambda: True) or ("", ""))[1]


def test_a_cookie_on_a_read_only_mount_says_what_libpulse_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("os.open", read_only)
    why, mend = cookie_fault({"PULSE_COOKIE": str(tmp_path / "cookie")})
    assert "read-only mount" in why
    assert "without :ro" in mend


def test_the_cookie_is_looked_for_where_libpulse_does(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    assert cookie_path(environ) == tmp_path / ".config" / "pulse" / "cookie"
    (tmp_path / ".pulse-cookie").touch()
    assert cookie_path(environ) == tmp_path / ".pulse-cookie"
    assert cookie_path(environ | {"XDG_CONFIG_HOME": str(tmp_path / "x")}) == (
        tmp_path / ".pulse-cookie"
    )
    assert cookie_path(environ | {"PULSE_COOKIE": "/run/cookie"}) == Path("/run/cookie")
