"""How `harkd run` reads its settings, and reads them again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from harkd import app
from harkd import cli as cli_module
from harkd.app import RunOptions
from harkd.cli import cli
from harkd.errors import AudioError, SettingsError
from harkd.settings import Settings
from harkd.stopper import Stopper

Reread = Callable[[], Settings]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[Settings, Reread]]:
    """Calls `harkd run` and returns what the daemon would be given."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("HARKD_CONFIG", raising=False)
    monkeypatch.setattr(cli_module, "set_up", lambda *_: None)
    given: list[tuple[Settings, Reread]] = []

    def fake(settings: Settings, _: RunOptions, stopper: Stopper, reread: Reread) -> int:
        assert not stopper.asked
        given.append((settings, reread))
        return 0

    monkeypatch.setattr(app, "run", fake)

    def call(*words: str) -> tuple[Settings, Reread]:
        done = CliRunner().invoke(cli, ["run", *words], catch_exceptions=False)
        assert done.exit_code == 0
        return given[-1]

    return call


def test_the_same_file_is_read_again(
    run: Callable[..., tuple[Settings, Reread]], tmp_path: Path
) -> None:
    file = tmp_path / "harkd.yaml"
    file.write_text("vad: {aggressiveness: 1}\n")
    settings, reread = run("--config", str(file))
    assert settings.vad.aggressiveness == 1
    file.write_text("vad: {aggressiveness: 3}\n")
    assert reread().vad.aggressiveness == 3
    file.write_text("vad: {aggressiveness: 7}\n")
    with pytest.raises(SettingsError, match="out of range"):
        reread()
    file.unlink()
    with pytest.raises(SettingsError, match=r"harkd\.yaml"):
        reread()


def test_where_there_was_no_file_a_new_one_is_found(
    run: Callable[..., tuple[Settings, Reread]], tmp_path: Path
) -> None:
    settings, reread = run()
    assert settings.vad.aggressiveness == 2
    (tmp_path / "config" / "harkd").mkdir(parents=True)
    (tmp_path / "config" / "harkd" / "harkd.yaml").write_text("vad: {aggressiveness: 0}\n")
    assert reread().vad.aggressiveness == 0


def test_the_environment_is_read_again_too_and_verbose_stays_verbose(
    run: Callable[..., tuple[Settings, Reread]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARKD_LOG__LEVEL", "error")
    settings, reread = run("--verbose")
    assert settings.log.level == "debug"
    monkeypatch.setenv("HARKD_ENDPOINT__SILENCE_MS", "700")
    again = reread()
    assert (again.log.level, again.endpoint.silence_ms) == ("debug", 700)


TWO = "inputs: {kitchen: {device: a}, bath: {device: b}}\n"


def test_one_of_several_inputs_can_be_run(
    run: Callable[..., tuple[Settings, Reread]], tmp_path: Path
) -> None:
    file = tmp_path / "harkd.yaml"
    file.write_text(TWO)
    settings, reread = run("--config", str(file))
    both = app.chosen_inputs(settings, RunOptions())
    assert [one.device_id for one in both] == ["kitchen", "bath"]
    (bath,) = app.chosen_inputs(settings, RunOptions(source="-", only="bath"))
    assert bath.audio.device == "b"
    with pytest.raises(AudioError, match=r"there are 2 inputs\. Choose one: --input kitchen"):
        app.chosen_inputs(settings, RunOptions(source="-"))
    with pytest.raises(SettingsError, match="there are: kitchen, bath"):
        app.chosen_inputs(settings, RunOptions(only="hall"))

    again = app.rereader(reread, bath)
    file.write_text(TWO.replace("device: b", "device: c") + "vad: {aggressiveness: 1}\n")
    assert (again().audio.device, again().vad.aggressiveness) == ("c", 1)
    for without in ("inputs: {kitchen: {device: a}}\n", ""):
        file.write_text(without)
        with pytest.raises(SettingsError, match="no input bath any more"):
            again()
