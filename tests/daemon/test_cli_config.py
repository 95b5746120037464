"""``harkd config``: what it prints and how it exits."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from harkd import settings_file
from harkd.cli_config import config
from harkd.errors import SettingsError
from harkd.settings import MASK, Settings, describe, example_text, load


@pytest.fixture(autouse=True)
def no_other_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own settings play no part."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(settings_file, "SYSTEM_FILE", tmp_path / "etc" / "harkd.yaml")
    monkeypatch.delenv("HARKD_CONFIG", raising=False)
    monkeypatch.delenv("HARKD_MODELS", raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text("vad:\n  start_ms: 80\nmqtt:\n  host: pi\n  username: u\n  password: hunter2\n")
    return path


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(config, [str(word) for word in words])


def test_check_of_good_settings_says_which_file_it_read(file: Path) -> None:
    for result in (run("check", file), run("check", "--config", file)):
        assert result.exit_code == 0
        assert result.stdout == f"{file}: no faults\n"


def test_check_without_a_file_says_that_the_defaults_apply() -> None:
    result = run("check")
    assert result.exit_code == 0
    assert "defaults" in result.output


def test_check_raises_all_faults_for_the_command_line_to_print(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("vad: {start_ms: 1}\nmqtt: {port: x}\n")
    monkeypatch.setenv("HARKD_LOG__LEVEL", "loud")
    result = run("check", file)
    assert result.exit_code == 1
    assert isinstance(result.exception, SettingsError)
    assert len(str(result.exception).split("\n")) == 3


def test_check_of_a_file_that_does_not_exist_fails(tmp_path: Path) -> None:
    result = run("check", tmp_path / "absent.yaml")
    assert result.exit_code == 1
    assert isinstance(result.exception, SettingsError)


def test_check_takes_the_file_once(file: Path) -> None:
    result = run("check", file, "--config", file)
    assert result.exit_code == 2
    assert "once" in result.output


def test_show_prints_the_settings_in_effect_as_yaml(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARKD_MQTT__PROTOCOL", "5")
    result = run("show", "--config", file)
    assert result.exit_code == 0
    assert yaml.safe_load(result.output) == describe(load(file, {"HARKD_MQTT__PROTOCOL": "5"}))


def test_show_says_where_each_value_comes_from(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARKD_MQTT__PORT", "1884")
    origins = dict(
        line.strip().split("  # ")
        for line in run("show", "--config", file).output.splitlines()[1:]
        if "  # " in line
    )
    origins = {shown.strip(): origin for shown, origin in origins.items()}
    assert origins["start_ms: 80"] == "line 2"
    assert origins["port: 1884"] == "HARKD_MQTT__PORT"
    assert origins["keepalive_s: 30"] == "default"
    assert origins["device_id: ''"] == f"default; in effect: {Settings().effective_device_id}"


def test_show_names_the_file(file: Path) -> None:
    assert run("show", "--config", file).output.startswith(f"# {file}\n")
    assert run("show").output.startswith("# no settings file")


def test_show_never_prints_a_secret(file: Path) -> None:
    output = run("show", "--config", file).output
    assert MASK in output
    assert "hunter2" not in output


def test_show_of_faulty_settings_raises_the_faults(file: Path) -> None:
    file.write_text("vda: {}\n")
    assert isinstance(run("show", "--config", file).exception, SettingsError)


def test_example_prints_the_reference() -> None:
    result = run("example")
    assert result.exit_code == 0
    assert result.output == example_text()


def test_the_command_loads_nothing_that_recognizes() -> None:
    """It answers at once, and on a machine where the recognizer cannot be loaded."""
    code = (
        "import sys, harkd.cli_config;"
        "print(*{'numpy', 'onnxruntime', 'sounddevice', 'paho'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_check_says_what_is_missing_here_though_it_is_no_fault_of_the_file(file: Path) -> None:
    """Whose file the password is, and where models lie, depends on who runs harkd."""
    text = "mqtt: {host: pi, username: me, password_file: /no/such/file}\n"
    file.write_text(text + "recognizer: {model: moonshine-base-en}\n")
    result = run("check", file)
    assert result.exit_code == 0
    assert "/no/such/file" in result.stderr
    assert "harkd models pull" in result.stderr


def test_check_says_all_that_is_wrong_with_the_files_of_tls(file: Path, tmp_path: Path) -> None:
    key = tmp_path / "own.key"
    key.write_text("no key\n")
    file.write_text(
        "mqtt:\n  host: pi\n  tls: true\n  tls_ca_file: /no/such/ca\n"
        f"  tls_cert_file: /no/such/cert\n  tls_key_file: {key}\n"
    )
    lines = [line for line in run("check", file).stderr.splitlines() if "tls" in line]
    assert len(lines) == 3
    assert "mqtt.tls_ca_file: /no/such/ca: there is no such file" in lines[0]
    assert "mqtt.tls_cert_file: /no/such/cert: there is no such file" in lines[1]
    assert f"mqtt.tls_key_file: {key}: holds no private key in PEM form" in lines[2]
