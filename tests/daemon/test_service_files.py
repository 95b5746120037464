"""The service's files: what they say for where harkd is installed, and how they are known."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from harkd.errors import ServiceError
from harkd.service_files import (
    Origin,
    Surroundings,
    origin_of,
    outermost,
    signed,
    system_unit,
    sysusers,
    template,
    user_unit,
)

ROOT = Path(__file__).parents[2]
OPT = Surroundings(Path("/opt/harkd/bin/harkd"), folders=(Path("/opt/harkd"), Path("/usr")))


def options(unit: str, section: str = "Service") -> dict[str, list[str]]:
    """The values of each key in one section, in their order."""
    found: dict[str, list[str]] = {}
    here = ""
    for line in unit.splitlines():
        if line.startswith("["):
            here = line.strip("[]")
        elif here == section and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


# ------------------------------------------------------------------ what the units say


def test_the_unit_starts_the_program_that_installs_it() -> None:
    around = Surroundings(Path("/srv/ear/bin/harkd"))
    assert options(system_unit(around))["ExecStart"] == ["/srv/ear/bin/harkd run"]
    assert options(user_unit(around))["ExecStart"] == ["/srv/ear/bin/harkd run"]


def test_blanks_and_percent_signs_in_the_path_are_kept() -> None:
    around = Surroundings(Path("/srv/my ear/100%/bin/harkd"))
    assert options(system_unit(around))["ExecStart"] == ['"/srv/my ear/100%%/bin/harkd" run']


def test_outside_of_homes_the_service_sees_none() -> None:
    unit = options(system_unit(OPT))
    assert unit["ProtectHome"] == ["yes"]
    assert "BindReadOnlyPaths" not in unit


def test_an_environment_in_a_home_is_all_that_the_service_sees_of_homes() -> None:
    home = Path("/home/pi/harkd/.venv")
    python = Path("/home/pi/.local/share/uv/python/cpython-3.12")
    around = Surroundings(home / "bin/harkd", folders=(home, python, home / "lib", Path("/usr")))
    unit = options(system_unit(around))
    assert unit["ProtectHome"] == ["tmpfs"]
    assert unit["BindReadOnlyPaths"] == [str(python), str(home)]


def test_the_wait_before_a_restart_grows_where_systemd_can() -> None:
    for make in (system_unit, user_unit):
        old = options(make(Surroundings(OPT.program, systemd=252)))
        new = options(make(Surroundings(OPT.program, systemd=254)))
        assert "RestartSteps" not in old
        assert old["RestartSec"] == new["RestartSec"]
        assert int(new["RestartMaxDelaySec"][0]) > int(new["RestartSec"][0])


def test_a_service_that_fails_is_never_given_up() -> None:
    for unit in (system_unit(OPT), user_unit(OPT)):
        assert options(unit, "Unit")["StartLimitIntervalSec"] == ["0"]
        assert options(unit)["Restart"] == ["on-failure"]


def test_a_boot_waits_for_nothing() -> None:
    for unit in (system_unit(OPT), user_unit(OPT)):
        words = options(unit, "Unit")
        assert not {"Wants", "Requires", "BindsTo", "Requisite"} & set(words)
        assert "network-online.target" not in " ".join(words["After"])


def test_a_missing_password_has_a_value_to_fall_back_on() -> None:
    unit = options(system_unit(OPT))
    assert unit["LoadCredential"] == ["mqtt-password:/etc/harkd/mqtt-password"]
    assert unit["SetCredential"] == [r"mqtt-password:\n"]


def test_the_user_joins_the_group_of_a_sound_server_of_the_system() -> None:
    assert "m harkd audio\n" in sysusers(OPT)
    assert "pulse-access" not in sysusers(OPT)
    with_pulse = Surroundings(OPT.program, groups=("pulse-access",))
    assert sysusers(with_pulse).endswith("m harkd pulse-access\n")


def test_the_wheel_has_the_templates() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["systemd"] == "harkd/systemd"
    for name in ("harkd.service", "user/harkd.service", "sysusers.conf", "tmpfiles.conf"):
        assert template(name) == (ROOT / "systemd" / name).read_text()


def test_a_missing_template_is_told() -> None:
    with pytest.raises(ServiceError, match="is missing"):
        template("another.service")


def test_each_exception_of_the_hardening_is_explained_in_the_documentation() -> None:
    table = (ROOT / "docs" / "service.md").read_text()
    for name in ("PrivateNetwork", "IPAddressDeny", "PrivateDevices", "ProcSubset", "RemoveIPC"):
        assert f"`{name}=" in table, name
        assert re.search(rf"# .*{name}=", template("harkd.service")), name


# ------------------------------------------------------------------ what systemd says


def analyze(tmp_path: Path, *words: str) -> str:
    """Runs systemd-analyze on the unit of the system; returns what it says, or skips."""
    program = shutil.which("systemd-analyze")
    if not program:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    unit = tmp_path / "harkd.service"
    unit.write_text(signed(system_unit(Surroundings(Path("/bin/true"), systemd=0))))
    done = subprocess.run(
        [program, *words, str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    assert "harkd.service" not in analyze(tmp_path, "verify", "--man=no")


def test_systemd_finds_the_unit_locked_up(tmp_path: Path) -> None:
    said = analyze(tmp_path, "security", "--offline=true", "--no-pager")
    match = re.search(r"exposure level for harkd.service: ([0-9.]+)", said)
    assert match, said
    assert float(match[1]) <= 2.5


# ------------------------------------------------------------------ whose a file is


def test_a_file_is_known_again_until_somebody_changes_it() -> None:
    text = signed("[Service]\nExecStart=/bin/true\n")
    assert origin_of(text) is Origin.OURS
    assert origin_of(text + "Nice=5\n") is Origin.CHANGED
    assert origin_of("[Service]\n") is Origin.FOREIGN


def test_the_signature_is_a_comment() -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read_string(signed("[Service]\nExecStart=/bin/true\n"))
    assert parser["Service"]["ExecStart"] == "/bin/true"


def test_of_folders_within_each_other_the_outermost_count() -> None:
    paths = [Path("/home/pi/a/b"), Path("/home/pi/a"), Path("/home/pi/ab"), Path("/home/pi/a")]
    assert outermost(paths) == [Path("/home/pi/a"), Path("/home/pi/ab")]
