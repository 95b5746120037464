"""What was set over MQTT survives restarts, and no damage to its file stops the daemon."""

from __future__ import annotations

import json
import os
import random
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from harkd.errors import StateError
from harkd.kept_options import MOST_BYTES, Kept, OptionsFile, from_json, to_json, told_differences
from harkd.settings import EndpointSettings, Settings, VadSettings

AGGRESSIVENESS, SILENCE = ("vad", "aggressiveness"), ("endpoint", "silence_ms")
KEPT = Kept(False, {AGGRESSIVENESS: 3, SILENCE: 800}, {"listen/set": "ab" * 32})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "harkd"


def test_what_was_written_is_read(folder: Path) -> None:
    file = OptionsFile(folder)
    assert file.read() == (Kept(), "")
    file.write(KEPT)
    assert OptionsFile(folder).read() == (KEPT, "")


def test_nobody_else_may_read_it_and_nothing_else_is_left(folder: Path) -> None:
    before = os.umask(0)
    try:
        OptionsFile(folder).write(KEPT)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "options.json").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["options.json"]


def test_the_disk_has_the_file_before_its_name_and_then_the_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut may leave an empty file under the right name."""
    done: list[str] = []
    sync, replace = os.fsync, Path.replace

    def synced(fd: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        sync(fd)

    def replaced(path: Path, target: Path) -> Path:
        done.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    OptionsFile(folder).write(KEPT)
    assert done == ["file", "rename", "folder"]


def test_a_write_that_fails_leaves_the_old_file_and_says_how_to_mend_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = OptionsFile(folder)
    file.write(KEPT)

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StateError, match=r"No space left on device.*free some space"):
            file.write(Kept())
    assert file.read() == (KEPT, "")
    assert [path.name for path in folder.iterdir()] == ["options.json"]


WRITER = """
import sys
from pathlib import Path
from harkd.kept_options import Kept, OptionsFile
file, listen = OptionsFile(Path(sys.argv[1])), True
print("ready", flush=True)
while True:
    listen = not listen
    file.write(Kept(listen, {("vad", "aggressiveness"): 3}))
"""


def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one(folder: Path) -> None:
    """Also with what an earlier kill has left beside it."""
    chance = random.Random(1)  # noqa: S311 - no secret
    file = OptionsFile(folder)
    file.write(Kept(True, {AGGRESSIVENESS: 3}))
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout
            writer.stdout.readline()
            time.sleep(chance.uniform(0, 0.03))
            writer.kill()
        kept, fault = file.read()
        assert fault == ""
        assert kept in (Kept(on, {AGGRESSIVENESS: 3}) for on in (True, False))


def test_a_folder_that_cannot_be_made_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    file = OptionsFile(tmp_path / "state")
    kept, fault = file.read()
    assert kept == Kept()
    assert "Not a directory" in fault
    with pytest.raises(StateError, match="holds until the restart"):
        file.write(KEPT)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "truncated"),
        ("{", "truncated"),
        ("[]", "array"),
        ('{"version":2}', "2"),
        ('{"version":1,"more":true}', "more"),
        ('{"version":1,"listen":"OFF"}', "listen"),
        ('{"version":1,"options":{"mqtt.port":1884}}', "mqtt.port"),
        ('{"version":1,"options":{"vad.aggressiveness":4}}', "vad.aggressiveness"),
        ('{"version":1,"options":{"vad.aggressiveness":"3"}}', "str"),
    ],
)
def test_a_file_that_is_not_ours_is_set_aside_and_told(text: str, part: str, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "options.json").write_text(text)
    for name in ("options.json.damaged", "options.json.damaged-2"):
        kept, fault = OptionsFile(folder).read()
        assert kept == Kept()
        assert part in fault
        assert name in fault
        assert (folder / name).read_text() == text
        (folder / "options.json").write_text(text)


def test_what_is_no_file_is_told_and_never_waited_for(folder: Path) -> None:
    folder.mkdir(parents=True)
    os.mkfifo(folder / "options.json")
    kept, fault = OptionsFile(folder).read()
    assert kept == Kept()
    assert "it is no file" in fault
    OptionsFile(folder).write(KEPT)
    assert OptionsFile(folder).read() == (KEPT, "")


@given(data=st.binary(max_size=300) | st.integers(0, MOST_BYTES * 2).map(lambda n: b" " * n))
@example(data=b"[" * 20_000)
@example(data=b'{"version":1,"options":{"vad.aggressiveness":1e400}}')
@example(data=b'{"version":1,"listen":tru')
@example(data=to_json(KEPT)[:-3])
@example(data=b"\xef\xbb\xbf" + to_json(KEPT))
@example_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_in_the_file_are_read_or_set_aside(data: bytes, tmp_path: Path) -> None:
    for old in tmp_path.iterdir():
        old.unlink()
    path = tmp_path / "options.json"
    path.write_bytes(data)
    kept, fault = OptionsFile(tmp_path).read()
    if fault:
        assert kept == Kept()
        assert not path.exists()
        assert (tmp_path / "options.json.damaged").read_bytes() == data
    else:
        assert from_json(to_json(kept)) == kept
    OptionsFile(tmp_path).write(KEPT)
    assert OptionsFile(tmp_path).read() == (KEPT, "")


@given(
    at=st.integers(0, len(to_json(KEPT)) - 1),
    byte=st.integers(0, 255),
)
@example_settings(deadline=None)
def test_one_wrong_byte_never_gives_a_value_that_the_settings_forbid(at: int, byte: int) -> None:
    data = bytearray(to_json(KEPT))
    data[at] = byte
    try:
        kept = from_json(bytes(data))
    except ValueError:
        return
    in_force, _ = kept.over(Settings())
    assert 0 <= in_force.vad.aggressiveness <= 3
    assert in_force.endpoint.pause_ms <= in_force.endpoint.silence_ms <= 5000


def test_what_was_set_over_mqtt_wins_over_the_settings() -> None:
    in_force, fault = KEPT.over(Settings(vad=VadSettings(aggressiveness=1, start_ms=100)))
    assert (in_force.vad.aggressiveness, in_force.vad.start_ms) == (3, 100)
    assert in_force.endpoint.silence_ms == 800
    assert fault == ""


def test_what_the_settings_contradict_since_is_left_out_and_told() -> None:
    settings = Settings(endpoint=EndpointSettings(pause_ms=900, silence_ms=1000))
    in_force, fault = KEPT.over(settings)
    assert in_force.endpoint.silence_ms == 1000
    assert in_force.vad.aggressiveness == 3
    assert "endpoint.silence_ms was set to 800 over MQTT" in fault
    assert "endpoint.pause_ms (900)" in fault


def test_only_what_differs_from_the_settings_is_told() -> None:
    settings = Settings(vad=VadSettings(aggressiveness=3))
    (line,) = told_differences(KEPT, settings)
    assert line == "endpoint.silence_ms is 800, as it was set over MQTT; the settings say 600"


def test_the_file_is_readable_by_a_person() -> None:
    assert json.loads(to_json(KEPT)) == {
        "version": 1,
        "listen": False,
        "options": {"vad.aggressiveness": 3, "endpoint.silence_ms": 800},
        "retained": {"listen/set": "ab" * 32},
    }
