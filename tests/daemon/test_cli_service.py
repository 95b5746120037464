"""``harkd service``: what it puts in place, what it refuses, and what it says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harkd import cli_service, service_home, service_needs, service_steps
from harkd.cli_service import Asker, service
from harkd.errors import ServiceError
from harkd.service_files import Surroundings
from harkd.service_needs import Machine
from harkd.service_steps import Place
from harkd.service_steps import Result as Ended

AROUND = Surroundings(Path("/opt/harkd/bin/harkd"), folders=(Path("/opt/harkd"),), systemd=252)


@dataclass
class Systemd:
    """Its programs, which only remember what they were asked."""

    asked: list[str] = field(default_factory=list)
    answers: dict[str, Ended] = field(default_factory=dict)

    def __call__(self, words: Sequence[str]) -> Ended:
        line = " ".join(words)
        self.asked.append(line)
        return next((it for part, it in self.answers.items() if part in line), Ended(0, ""))


@dataclass
class Host:
    """A machine in a folder, and who sits before it."""

    root: Path
    systemd: Systemd
    asker: Asker

    def run(self, *words: str) -> Result:
        done = CliRunner().invoke(service, list(words), obj=self.asker)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    @property
    def files(self) -> set[str]:
        found = (path for path in self.root.rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)) for path in found}


PULLED = "recognizer: {model: moonshine-tiny-en}\n"
"""A model that does not come with harkd."""
FILES = {"etc/systemd/system/harkd.service", "etc/sysusers.d/harkd.conf"} | {
    "etc/tmpfiles.d/harkd.conf"
}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """One on which systemd runs, root asks, and no model is installed."""
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    systemd = Systemd()
    machine = Machine(
        settings_file=root / "etc/harkd/harkd.yaml",
        models=root / "var/lib/harkd/models",
        password=root / "etc/harkd/mqtt-password",
    )

    class RunningPlace(Place):
        """The folder is the running system."""

        @property
        def runs(self) -> bool:
            return True

    monkeypatch.setattr(
        cli_service,
        "place_of",
        lambda user, _: RunningPlace(user, root, root / "home/.config"),
    )
    monkeypatch.setattr(service_steps, "BOOTED", tmp_path)
    # The tests' own folder is in /tmp, which the service does not see.
    monkeypatch.setattr(service_needs, "TEMPORARY", ())
    return Host(root, systemd, Asker(systemd, True, machine, AROUND))


@pytest.fixture
def complete(host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """One on which nothing is missing."""
    monkeypatch.setattr(service_needs, "lacks", lambda *_: iter(()))
    return host


# ------------------------------------------------------------------ install


def test_install_puts_three_files_in_place_and_lets_it_start_at_boot(complete: Host) -> None:
    done = complete.run("install")
    assert done.exit_code == 0
    assert complete.files == FILES
    assert [line.split()[0] for line in complete.systemd.asked] == [
        "systemd-sysusers",
        "systemd-tmpfiles",
        "systemctl",
        "systemctl",
    ]
    assert complete.systemd.asked[-1] == "systemctl enable harkd.service"
    assert "To start it now" in done.stdout


def test_everybody_may_read_the_files(complete: Host) -> None:
    complete.run("install")
    assert {(complete.root / name).stat().st_mode & 0o777 for name in complete.files} == {0o644}


def test_now_starts_it_or_starts_it_anew(complete: Host) -> None:
    complete.run("install", "--now")
    assert complete.systemd.asked[-1] == "systemctl restart harkd.service"


def test_the_default_model_is_there_without_a_pull(host: Host) -> None:
    done = host.run("install", "--now", "--pull")
    assert done.exit_code == 0
    assert "the model moonshine-tiny-streaming-en is in" in done.stdout
    assert "missing" not in done.stdout
    assert host.systemd.asked[-1] == "systemctl restart harkd.service"
    assert not (host.root / "var/lib/harkd/models").exists()


def test_what_would_fail_is_installed_and_not_started(host: Host) -> None:
    (host.root / "etc/harkd").mkdir()
    (host.root / "etc/harkd/harkd.yaml").write_text(PULLED)
    done = host.run("install", "--now")
    assert done.exit_code == 1
    assert "missing: the model moonshine-tiny-en is not in" in done.stdout
    assert f"--models-dir {host.root}/var/lib/harkd/models pull" in done.stdout
    assert not any("restart" in line for line in host.systemd.asked)
    assert "systemctl enable harkd.service" in host.systemd.asked


def test_a_dry_run_prints_every_file_and_command_and_changes_nothing(complete: Host) -> None:
    dry = complete.run("install", "--now", "--dry-run").stdout
    assert not complete.files
    assert not complete.systemd.asked
    complete.run("install", "--now")
    for name in complete.files:
        assert f"would write {complete.root / name}" in dry
        for line in (complete.root / name).read_text().splitlines():
            assert f"    {line}\n" in dry
    for command in complete.systemd.asked:
        assert f"would run {command}\n" in dry


def test_an_update_replaces_what_install_has_written(complete: Host) -> None:
    complete.run("install")
    unit = complete.root / "etc/systemd/system/harkd.service"
    moved = replace(AROUND, program=Path("/srv/harkd/bin/harkd"))
    complete.asker = replace(complete.asker, around=moved)
    complete.run("install")
    assert "ExecStart=/srv/harkd/bin/harkd run\n" in unit.read_text()


@pytest.mark.parametrize("text", ["[Service]\nExecStart=/my/own\n", "changed"])
def test_a_unit_that_somebody_has_changed_is_not_overwritten(complete: Host, text: str) -> None:
    unit = complete.root / "etc/systemd/system/harkd.service"
    if text == "changed":
        complete.run("install")
        text = unit.read_text() + "Nice=5\n"
    unit.parent.mkdir(parents=True, exist_ok=True)
    unit.write_text(text)
    with pytest.raises(ServiceError, match=r"not as harkd .*systemctl edit.*--force"):
        complete.run("install")
    assert unit.read_text() == text
    complete.run("install", "--force")
    assert "ExecStart=/opt/harkd/bin/harkd run\n" in unit.read_text()


def test_drop_ins_are_left_alone(complete: Host) -> None:
    drop_in = complete.root / "etc/systemd/system/harkd.service.d/override.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nNice=5\n")
    complete.run("install", "--force")
    done = complete.run("uninstall")
    assert drop_in.read_text() == "[Service]\nNice=5\n"
    assert f"left as it is: {drop_in.parent}" in done.stdout


def test_who_is_not_root_is_told_the_whole_command(
    complete: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete.asker = replace(complete.asker, is_root=False)
    monkeypatch.setattr("sys.argv", ["/opt/harkd/bin/harkd", "service", "install", "--now"])
    with pytest.raises(ServiceError, match="sudo /opt/harkd/bin/harkd service install --now"):
        complete.run("install", "--now")
    assert not complete.files


def test_without_systemd_it_says_what_to_do_instead(
    complete: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_steps, "BOOTED", complete.root / "run/systemd/system")
    for words in (["install"], ["uninstall"], ["status"]):
        with pytest.raises(ServiceError, match=r"systemd does not run this machine.*harkd run"):
            complete.run(*words)
    assert complete.run("install", "--dry-run").exit_code == 0


def test_a_command_that_fails_is_told_with_what_it_said(complete: Host) -> None:
    complete.systemd.answers["sysusers"] = Ended(1, "Failed to lock /etc/.pwd.lock")
    with pytest.raises(ServiceError, match=r"systemd-sysusers .* failed \(1\): Failed to lock"):
        complete.run("install")


def test_root_may_not_install_for_a_session(complete: Host) -> None:
    with pytest.raises(ServiceError, match="Leave out sudo"):
        complete.run("install", "--user")


def test_a_user_installs_one_unit_in_their_own_session(complete: Host) -> None:
    complete.asker = replace(complete.asker, is_root=False)
    done = complete.run("install", "--user", "--now")
    assert complete.files == {"home/.config/systemd/user/harkd.service"}
    assert complete.systemd.asked == [
        "systemctl --user daemon-reload",
        "systemctl --user enable harkd.service",
        "systemctl --user restart harkd.service",
    ]
    assert "loginctl enable-linger" in done.stdout


def test_an_image_gets_its_service_without_being_booted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_steps, "BOOTED", tmp_path / "nowhere")
    systemd = Systemd()
    asker = Asker(systemd, False, None, AROUND)
    done = CliRunner().invoke(service, ["install", f"--root={tmp_path}"], obj=asker)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "etc/systemd/system/harkd.service").is_file()
    assert all(f"--root={tmp_path}" in line for line in systemd.asked)
    assert not any("daemon-reload" in line for line in systemd.asked)


# ------------------------------------------------------------------ uninstall


def test_uninstall_removes_what_install_put_there_and_keeps_settings_and_state(
    complete: Host,
) -> None:
    complete.run("install")
    kept = {"etc/harkd/harkd.yaml", "var/lib/harkd/outbox.db", "etc/tmpfiles.d/other.conf"}
    for name in kept:
        (complete.root / name).parent.mkdir(parents=True, exist_ok=True)
        (complete.root / name).write_text("x")
    complete.systemd.asked.clear()
    complete.run("uninstall")
    assert complete.files == kept
    assert complete.systemd.asked[0] == "systemctl disable --now harkd.service"
    assert "systemctl daemon-reload" in complete.systemd.asked


def test_purge_removes_settings_and_state_too_when_it_is_confirmed(complete: Host) -> None:
    complete.run("install")
    state = complete.root / "var/lib/harkd/models"
    state.mkdir(parents=True)
    refused = CliRunner().invoke(service, ["uninstall", "--purge"], input="n\n", obj=complete.asker)
    assert refused.exit_code == 1
    assert state.is_dir()
    complete.run("uninstall", "--purge", "--yes")
    assert not complete.files
    assert not state.parent.exists()
    assert complete.systemd.asked[-1] == "userdel harkd"


def test_uninstall_leaves_a_changed_file_and_says_so(complete: Host) -> None:
    complete.run("install")
    unit = complete.root / "etc/systemd/system/harkd.service"
    unit.write_text(unit.read_text() + "Nice=5\n")
    done = complete.run("uninstall")
    assert complete.files == {"etc/systemd/system/harkd.service"}
    assert "somebody has changed it" in done.stdout
    complete.run("uninstall", "--force")
    assert not complete.files


def test_uninstall_where_nothing_is_installed_says_so(host: Host) -> None:
    done = host.run("uninstall")
    assert "nothing to remove" in done.stdout
    assert not host.systemd.asked


# ------------------------------------------------------------------ status

RUNNING = """\
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
StatusText=listening
WatchdogUSec=30s
NRestarts=2
Result=success
ExecMainStartTimestamp=Mon 2026-11-23 08:00:00 UTC
MainPID=77
"""


def told(host: Host, show: str, journal: str = "harkd[77]: listening") -> Result:
    host.systemd.answers = {"show": Ended(0, show), "journalctl": Ended(0, journal)}
    return host.run("status")


def test_status_tells_state_watchdog_restarts_and_the_journals_last_lines(host: Host) -> None:
    done = told(host, RUNNING)
    assert done.exit_code == 0
    for part in ("active (running)", "listening", "after 30s", "2, last Mon 2026", "harkd[77]:"):
        assert part in done.stdout
    assert "→" not in done.stdout


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"Result": "watchdog"}, "watchdog"),
        ({"Result": "oom-kill"}, "smaller model"),
        ({"Result": "exit-code", "ExecMainCode": "1", "ExecMainStatus": "203"}, "moved or deleted"),
        ({"Result": "exit-code", "ExecMainCode": "1", "ExecMainStatus": "217"}, "user harkd"),
        ({"Result": "signal", "ExecMainCode": "2", "ExecMainStatus": "9"}, "killed by signal 9"),
        ({"Result": "exit-code", "ExecMainCode": "1", "ExecMainStatus": "99"}, "code 99"),
    ],
)
def test_status_of_a_service_that_failed_says_what_to_do(
    host: Host, facts: dict[str, str], words: str
) -> None:
    lines = RUNNING.replace("ActiveState=active", "ActiveState=failed")
    done = told(host, lines + "".join(f"{key}={value}\n" for key, value in facts.items()))
    assert done.exit_code == 3
    assert words in done.stdout.rpartition("→")[2]


def test_status_of_what_is_not_installed_tells_the_command(host: Host) -> None:
    done = told(host, "LoadState=not-found\nActiveState=inactive\n")
    assert done.exit_code == 3
    assert "not installed" in done.stdout
    assert "→ sudo harkd service install" in done.stdout


def test_status_of_a_stopped_service_tells_how_to_start_it(host: Host) -> None:
    done = told(host, RUNNING.replace("ActiveState=active", "ActiveState=inactive"))
    assert done.exit_code == 3
    assert "systemctl start harkd" in done.stdout


# ------------------------------------------------------------------ what is missing


def lacks(host: Host, settings: str = "", **more: Path) -> dict[str, str]:
    """What is missing with these settings, and the mends."""
    machine = replace(host.asker.machine or Machine(), **more)
    if settings:
        machine.settings_file.parent.mkdir(parents=True, exist_ok=True)
        machine.settings_file.write_text(settings)
    found = service_needs.lacks(machine, AROUND.program)
    return {each.what: each.mend for each in found}


def test_settings_with_faults_are_told_before_the_service_fails(host: Host) -> None:
    found = lacks(host, "mqtt: {prot: 1}\n")
    assert len(found) == 1
    assert "mqtt.prot" in next(iter(found))


def test_ones_own_settings_are_not_the_services(host: Host, tmp_path: Path) -> None:
    own = tmp_path / "home/.config/harkd/harkd.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("device_id: kitchen\n")
    found = lacks(host, asker_home=tmp_path / "home")
    what = next(each for each in found if "yours alone" in each)
    assert found[what].startswith("sudo install ")
    assert str(own) in found[what]


def test_a_model_in_ones_own_home_is_to_be_imported(host: Host, tmp_path: Path) -> None:
    own = tmp_path / "home/.local/share/harkd/models/moonshine-tiny-en"
    own.mkdir(parents=True)
    mends = "\n".join(lacks(host, PULLED, asker_home=tmp_path / "home").values())
    assert f"import {own}" in mends


def test_a_login_without_a_password_is_told(host: Host) -> None:
    text = "mqtt: {host: broker, username: u}\n"
    password = host.root / "etc/harkd/mqtt-password"
    assert any("no password" in what for what in lacks(host, text))
    password.write_text("\n")
    assert any("no password" in what for what in lacks(host, text))
    password.write_text("secret\n")
    assert not any("no password" in what for what in lacks(host, text))


def test_files_in_a_home_are_told_since_the_service_sees_none(host: Host) -> None:
    text = "mqtt: {host: b, username: u, password_file: /home/pi/password}\n"
    text += "models: {dir: /home/pi/models}\n"
    found = "\n".join(lacks(host, text))
    assert "mqtt.password_file is /home/pi/password" in found
    assert "models.dir is /home/pi/models" in found


def test_a_file_that_the_services_user_may_not_read_is_seen_by_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("x")
    os.chown(file, os.geteuid(), os.getegid())
    for mode, readable in ((0o600, False), (0o604, True)):
        file.chmod(mode)
        assert service_needs.may_read(file, "nobody") is readable


# ------------------------------------------------------------------ where harkd is installed


def test_an_environment_in_tmp_is_refused() -> None:
    around = replace(AROUND, folders=(Path("/tmp/venv"),))
    with pytest.raises(ServiceError, match=r"/tmp/venv.*/opt/harkd"):
        service_home.check_reach(around)


def test_an_environment_that_others_may_not_enter_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_home, "TEMPORARY", ())
    folder = tmp_path / "venv"
    folder.mkdir(mode=0o700)
    for each in (tmp_path, *tmp_path.parents):
        if not service_home.is_open(each):
            monkeypatch.setattr(service_home, "HOMES", (tmp_path,))
    with pytest.raises(ServiceError, match=f"sudo chmod o\\+rx {folder}"):
        service_home.check_reach(replace(AROUND, folders=(folder,)))
    folder.chmod(0o755)
    service_home.check_reach(replace(AROUND, folders=(folder,)))


def test_the_environment_python_and_harkd_itself_are_what_it_is_loaded_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python/bin/python3.12"
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").symlink_to("python3")
    (venv / "bin/python3").symlink_to(python)
    monkeypatch.setattr("sys.executable", str(venv / "bin/python"))
    monkeypatch.setattr("sys.base_prefix", str(tmp_path / "base"))
    found = set(service_home.folders_of(venv / "bin/harkd"))
    harkd = Path(cli_service.__file__).resolve().parents[1]
    assert found == {venv, tmp_path / "base", tmp_path / "python", harkd}


def test_what_only_runs_from_its_sources_cannot_be_a_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(ServiceError, match="is not installed"):
        service_home.surroundings(Systemd())


def test_the_version_of_systemd_is_read() -> None:
    systemd = Systemd(answers={"--version": Ended(0, "systemd 257 (257.9-1~deb13u1)\n+PAM")})
    assert service_home.systemd_version(systemd) == 257
