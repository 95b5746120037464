"""What `harkd doctor` finds, and what it says to do about it."""

from __future__ import annotations

import grp
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from harkd import container, doctor, doctor_voice
from harkd.audio import SourceOpened
from harkd.capture_choice import choose_device
from harkd.capture_errors import CaptureError
from harkd.cli_doctor import doctor as doctor_command
from harkd.devices import Level
from harkd.doctor import (
    check_alsa,
    check_clock,
    check_microphone,
    check_model,
    check_pulse,
    check_signal,
    check_system,
    check_wake,
    cpu_flags,
    examine,
)
from harkd.doctor_check import Check, Status
from harkd.doctor_speed import check_speed
from harkd.doctor_voice import check_voice
from harkd.errors import AudioError, HarkdError, ModelMissingError, SettingsError
from harkd.model_package import Manifest, PackagedFile, sha256_of, write_manifest
from harkd.recognizer.device_report import DeviceReport
from harkd.settings import (
    AudioSettings,
    ModelsSettings,
    RecognizerSettings,
    Settings,
    VadSettings,
    WakeSettings,
)

NOBODY = 65534


@contextmanager
def as_nobody() -> Iterator[int]:
    """Root may read everything, so where tests run as root, be nobody for a while."""
    if os.getuid() != 0:
        yield os.getuid()
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, 0)
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield NOBODY
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(groups)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own are for its user alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def only(checks: Iterator[Check]) -> Check:
    (check,) = checks
    return check


# ------------------------------------------------------------------ system


CPUINFO_PI = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid asimdrdm asimddp
CPU part\t: 0xd0b

processor\t: 1
Features\t: fp asimd only_the_first_counts
"""
CPUINFO_PC = "processor\t: 0\nmodel name\t: A: CPU\nflags\t\t: fpu avx2 avx512_vnni\n"


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (CPUINFO_PI, {"fp", "asimd", "evtstrm", "crc32", "cpuid", "asimdrdm", "asimddp"}),
        (CPUINFO_PC, {"fpu", "avx2", "avx512_vnni"}),
        ("processor\t: 0\n", set()),
        ("", set()),
    ],
)
def test_cpu_flags_are_read_as_arm_and_x86_name_them(
    text: str, flags: set[str], tmp_path: Path
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(text)
    assert cpu_flags(cpuinfo) == flags


def test_a_machine_without_cpuinfo_has_no_flags_that_are_known(tmp_path: Path) -> None:
    assert cpu_flags(tmp_path / "cpuinfo") == set()


@pytest.mark.parametrize(
    ("machine", "flags", "status"),
    [
        ("x86_64", {"sse2", "avx2"}, Status.OK),
        ("x86_64", {"sse2"}, Status.WARN),
        ("aarch64", {"asimd", "asimddp"}, Status.OK),
        ("aarch64", {"asimd"}, Status.WARN),
        ("aarch64", set(), Status.OK),
        ("riscv64", {"v"}, Status.OK),
    ],
)
def test_a_cpu_without_fast_int8_is_a_warning(
    machine: str, flags: set[str], status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(doctor, "cpu_flags", lambda: flags)
    check = only(check_system(Settings()))
    assert (check.name, check.status) == ("system", status)
    assert machine in check.what
    assert bool(check.mend) == (status is Status.WARN)


# ------------------------------------------------------------------ clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str | Exception], None]:
    """Sets the date, and what timedatectl answers."""

    def put(date: str, answer: str | Exception) -> None:
        moment = time.strptime(date, "%Y-%m-%d")
        monkeypatch.setattr("time.gmtime", lambda: moment)
        monkeypatch.setattr("time.strftime", lambda _form: date)
        monkeypatch.setattr("shutil.which", lambda _name: "/usr/bin/timedatectl")

        def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
            if isinstance(answer, Exception):
                raise answer
            return subprocess.CompletedProcess(command, 0, answer, "")

        monkeypatch.setattr("subprocess.run", run)

    return put


@pytest.mark.parametrize(
    ("date", "answer", "status", "says"),
    [
        ("1970-01-01", "no\n", Status.FAIL, "never set"),
        ("2024-12-31", "yes\n", Status.FAIL, "never set"),
        ("2026-11-22", "no\n", Status.WARN, "not synchronized"),
        ("2026-11-22", "yes\n", Status.OK, "2026-11-22, synchronized"),
        ("2026-11-22", "", Status.OK, "not known"),
        ("2026-11-22", subprocess.TimeoutExpired("timedatectl", 3), Status.OK, "not known"),
        ("2026-11-22", PermissionError(13, "no"), Status.OK, "not known"),
    ],
)
def test_the_clock(
    clock: Callable[[str, str | Exception], None],
    date: str,
    answer: str | Exception,
    status: Status,
    says: str,
) -> None:
    clock(date, answer)
    check = only(check_clock(Settings()))
    assert check.status is status
    assert says in check.what
    assert bool(check.mend) == (status is not Status.OK)


# ------------------------------------------------------------------ ALSA


def test_alsa_without_capture_devices_tells_of_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "in_container", lambda: True)
    (tmp_path / "pcmC0D0p").touch()  # a loudspeaker
    for folder in (tmp_path, tmp_path / "absent"):
        check = check_alsa(folder)
        assert check.status is Status.WARN
        assert "--device=/dev/snd" in check.mend


def test_alsa_with_devices_that_may_be_opened_is_fine(tmp_path: Path) -> None:
    for name in ("pcmC0D0c", "pcmC1D0c", "controlC0"):
        (tmp_path / name).touch()
    assert check_alsa(tmp_path) == Check(
        "sound", Status.OK, "ALSA: 2 capture device(s) may be opened"
    )


@pytest.mark.parametrize("inside", [False, True])
def test_an_alsa_device_of_another_group_names_that_group(
    inside: bool, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "in_container", lambda: inside)
    node = public / "pcmC0D0c"
    node.touch()
    node.chmod(0o000)
    with as_nobody():
        check = check_alsa(public)
    group = grp.getgrgid(node.stat().st_gid)
    assert check.status is Status.FAIL
    assert str(node) in check.what
    wanted = f"--group-add {group.gr_gid}" if inside else f"usermod -aG {group.gr_name} $USER"
    assert wanted in check.mend


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to an unknown group")
@pytest.mark.parametrize(("group", "says"), [(54321, "54321"), (65534, "keep-groups")])
def test_a_container_is_told_a_group_that_it_has_no_name_for(
    group: int, says: str, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """65534 is what an owner looks like who is not mapped into a rootless container."""
    monkeypatch.setattr(container, "in_container", lambda: True)
    node = public / "pcmC0D0c"
    node.touch(0o660)
    node.chmod(0o000)
    os.chown(node, 0, group)
    with as_nobody():
        check = check_alsa(public)
    assert f"--group-add {says}" in check.mend


# ------------------------------------------------------------------ PulseAudio


@contextmanager
def answering(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield


def pulse_env(folder: Path, **more: str) -> dict[str, str]:
    return {"PULSE_COOKIE": str(folder / "cookie"), **more}


def test_a_socket_that_answers_is_fine(public: Path) -> None:
    path = public / "pulse.sock"
    with answering(path):
        for server in (str(path), f"unix:{path}"):
            check = check_pulse(pulse_env(public, PULSE_SERVER=server))
            assert check == Check("sound", Status.OK, f"PulseAudio answers at {path}")


def test_without_pulse_server_the_users_own_socket_is_tried(public: Path) -> None:
    (public / "pulse").mkdir()
    with answering(public / "pulse" / "native"):
        check = check_pulse(pulse_env(public, XDG_RUNTIME_DIR=str(public)))
    assert check.what == f"PulseAudio answers at {public}/pulse/native"


def test_no_sound_server_at_all_is_fine_unless_one_is_named(
    public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = check_pulse(pulse_env(public, XDG_RUNTIME_DIR=str(public)))
    assert check.status is Status.OK
    named = check_pulse(pulse_env(public, PULSE_SERVER=f"unix:{public}/gone.sock"))
    monkeypatch.setattr(container, "in_container", lambda: True)
    inside = check_pulse(pulse_env(public, PULSE_SERVER=f"unix:{public}/gone.sock"))
    assert named.status is Status.FAIL
    assert f"{public}/gone.sock, which does not exist" in named.what
    assert "PULSE_SERVER" in named.mend
    assert "the container with -v" in inside.mend


def test_a_server_elsewhere_is_left_to_the_microphone_check(public: Path) -> None:
    check = check_pulse(pulse_env(public, PULSE_SERVER="tcp:192.0.2.1:4713"))
    assert check.status is Status.OK
    assert "tcp:192.0.2.1:4713" in check.what


def test_a_socket_that_nobody_listens_on_says_to_restart_the_server(public: Path) -> None:
    path = public / "pulse.sock"
    with answering(path):
        pass
    check = check_pulse(pulse_env(public, PULSE_SERVER=f"unix:{path}"))
    assert check.status is Status.FAIL
    assert "does not answer (Connection refused)" in check.what
    assert "restart" in check.mend


@pytest.mark.parametrize("barred", ["socket", "folder"])
def test_another_users_server_says_whose_it_is(public: Path, barred: str) -> None:
    """/run/user/1000 may be entered by user 1000 alone, the socket in it may not even be seen."""
    folder = public / "run"
    folder.mkdir()
    path = folder / "native"
    with answering(path):
        (path if barred == "socket" else folder).chmod(0o000)
        with as_nobody() as user:
            check = check_pulse(pulse_env(public, PULSE_SERVER=f"unix:{path}"))
        folder.chmod(0o700)
    assert check.status is Status.FAIL
    assert f"{path} belongs to user {os.getuid()}, and this is user {user}" in check.what
    assert f"user {os.getuid()}" in check.mend


@pytest.mark.parametrize("barred", ["cookie", "folder"])
def test_a_cookie_that_may_not_be_read_is_named(public: Path, barred: str) -> None:
    folder = public / "config"
    folder.mkdir()
    (folder / "cookie").touch()
    (folder / "cookie" if barred == "cookie" else folder).chmod(0o000)
    path = public / "pulse.sock"
    with answering(path):
        path.chmod(0o777)
        with as_nobody():
            check = check_pulse(pulse_env(folder, PULSE_SERVER=f"unix:{path}"))
    folder.chmod(0o700)
    assert check.status is Status.FAIL
    assert f"cookie {folder / 'cookie'} may not be read" in check.what


# ------------------------------------------------------------------ microphone


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what the microphone gives."""

    def put(*events: SourceOpened | Level | HarkdError) -> None:
        def listen(*_: object) -> Iterator[SourceOpened | Level]:
            for event in events:
                if isinstance(event, HarkdError):
                    raise event
                yield event

        monkeypatch.setattr(doctor, "listen", listen)

    return put


OPENED = SourceOpened("USB mic", 48000, 2)


@pytest.mark.parametrize(
    ("levels", "status", "says"),
    [
        ([Level(-70, -65, False), Level(-50, -42, False)], Status.OK, "peak -42 dB"),
        ([Level(-75, -70, False)], Status.WARN, "very quiet"),
        ([Level(-120, -120, True)] * 3, Status.FAIL, "muted"),
        ([Level(-120, -120, True), Level(-50, -40, False)], Status.OK, "peak -40 dB"),
    ],
)
def test_the_microphone_is_judged_by_its_loudest_moment(
    heard: Callable[..., None], levels: list[Level], status: Status, says: str
) -> None:
    heard(OPENED, *levels)
    check = only(check_microphone(Settings()))
    assert check.status is status
    assert "USB mic at 48000 Hz × 2" in check.what
    assert says in check.what


def test_a_microphone_that_opens_and_sends_nothing_is_an_error(
    heard: Callable[..., None],
) -> None:
    heard(OPENED)
    with pytest.raises(AudioError, match="no audio came"):
        list(check_microphone(Settings()))


# ------------------------------------------------------------------ model


def test_signal_processing_that_is_on_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Settings(audio=AudioSettings(high_pass=True))
    assert not list(check_signal(Settings()))
    assert [check.status for check in check_signal(wanted)] == [Status.OK]
    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    with pytest.raises(SettingsError, match=r"pip install 'harkd\[signal\]'"):
        list(check_signal(wanted))


def test_the_second_look_is_tried_where_it_is_on() -> None:
    (check,) = check_voice(Settings())
    assert check.status is Status.OK
    assert re.fullmatch(r"Silero VAD: .*% of a core while somebody speaks", check.what)
    assert not list(check_voice(Settings(vad=VadSettings(second_look=False))))


def test_without_the_second_look_there_is_a_warning_with_its_mend(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The daemon runs all the same."""
    monkeypatch.setattr(doctor_voice, "find_network", lambda: None)
    (missing,) = check_voice(Settings())
    assert missing.status is Status.WARN
    assert "pip install" in missing.mend
    damaged = tmp_path / "silero_vad.onnx"
    damaged.write_bytes(b"no network")
    monkeypatch.setattr(doctor_voice, "find_network", lambda: damaged)
    (broken,) = check_voice(Settings())
    assert broken.status is Status.WARN
    assert "silero_vad.onnx" in broken.what
    assert "--force-reinstall" in broken.mend


def test_wake_words_need_their_library(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Settings(wake=WakeSettings(word="alexa"))
    monkeypatch.setitem(sys.modules, "pymicro_wakeword", None)
    assert not list(check_wake(Settings()))
    with pytest.raises(SettingsError, match=r"pip install 'harkd\[wake\]'"):
        list(check_wake(wanted))


def test_wake_words_are_loaded_and_tried() -> None:
    pytest.importorskip("pymicro_wakeword", reason="pip install 'harkd[wake]'")
    (check,) = check_wake(Settings(wake=WakeSettings(word="alexa, okay_nabu")))
    assert check.status is Status.OK
    assert re.fullmatch(r"alexa, okay_nabu: .*% of a core while somebody speaks", check.what)


@pytest.fixture
def model(tmp_path: Path) -> tuple[Settings, Path]:
    """A whole package, of a family that nobody needs to load."""
    folder = tmp_path / "models" / "tiny-test"
    folder.mkdir(parents=True)
    files = {}
    for role, text in (("encoder", "weights"), ("licence", "MIT")):
        (folder / role).write_text(text)
        files[role] = PackagedFile(path=role, sha256=sha256_of(folder / role), size_bytes=len(text))
    manifest = Manifest(
        name="tiny-test",
        family="moonshine",
        version="1",
        languages=("en",),
        licence="MIT",
        licence_file="licence",
        files=files,
    )
    write_manifest(folder, manifest)
    settings = Settings(
        recognizer=RecognizerSettings(model="tiny-test"),
        models=ModelsSettings(dir=str(folder.parent)),
    )
    return settings, folder


@pytest.mark.parametrize(("content", "says"), [(None, "missing"), ("weightz", "altered")])
def test_a_damaged_model_names_the_file_and_what_mends_it(
    model: tuple[Settings, Path], content: str | None, says: str
) -> None:
    settings, folder = model
    if content is None:
        (folder / "encoder").unlink()
    else:
        (folder / "encoder").write_text(content)
    try:
        check = only(check_model(settings))
        told, mend = check.what, check.mend
        assert check.status is Status.FAIL
    except HarkdError as error:  # a missing file is seen before, when the model is looked for
        told, mend = error.message, error.mend
    assert "encoder" in told
    assert says in told
    # It is in no catalogue, so that nothing could be pulled.
    assert mend == "Copy the model's directory again from where it came"


def test_a_damaged_model_of_the_catalogue_is_pulled_again(
    model: tuple[Settings, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, folder = model
    (folder / "encoder").write_text("weightz")
    monkeypatch.setattr("harkd.model_store.ModelStore.mend", lambda _, name: f"pull {name}")
    assert only(check_model(settings)).mend == "pull tiny-test"


class FakeRecognizer:
    """Recognizes anything, in a given time for each pass."""

    provider = "CPUExecutionProvider"

    def __init__(self, takes_s: list[float]) -> None:
        self.now_s = 100.0
        self.takes_s = iter(takes_s)
        self.heard: list[np.ndarray[tuple[int], np.dtype[np.int16]]] = []

    def stream(self) -> FakeRecognizer:
        return self

    def accept(self, samples: np.ndarray[tuple[int], np.dtype[np.int16]]) -> None:
        self.heard.append(samples)

    def finish(self) -> Any:
        self.now_s += next(self.takes_s)
        return type("Hypothesis", (), {"text": "turn on the light"})


@pytest.mark.parametrize(
    ("takes_s", "status", "says"),
    [
        ([9.0, 1.0], Status.FAIL, "real-time factor 1.80"),
        ([3.0, 1.0, 1.2], Status.OK, "real-time factor 0.20"),
        ([4.0, 2.5, 2.6], Status.WARN, "only just keeps up"),
        ([6.0], Status.FAIL, "too slow"),
    ],
)
def test_a_whole_model_is_run_and_timed(
    model: tuple[Settings, Path],
    takes_s: list[float],
    status: Status,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The quickest pass counts, of which none begins after 5 s; 5 s are recognized here."""
    recognizer = FakeRecognizer(takes_s)
    monkeypatch.setattr("time.perf_counter", lambda: recognizer.now_s)
    report = DeviceReport("auto", "cpu", {"encoder": "cpu"})
    monkeypatch.setattr("harkd.app.load_with_report", lambda *_: (recognizer, report))
    memory, device, check = check_model(model[0])
    assert memory.name == "memory"
    assert (device.name, device.status) == ("device", Status.OK)
    assert check.status is status
    assert says in check.what
    assert "CPUExecutionProvider" in check.what
    assert "5.0 s of a signal made here" in check.what, "it has no recording"
    assert bool(check.mend) == (status is not Status.OK)
    assert recognizer.heard[0].dtype == np.int16
    assert np.abs(recognizer.heard[0]).max() > 1000, "silence would be recognized too quickly"


def test_the_models_own_recording_is_recognized_and_ten_seconds_of_it_at_most(
    tmp_path: Path,
) -> None:
    path = tmp_path / "sample.wav"
    soundfile.write(path, np.full((48000 * 12, 2), 1000, np.int16), 48000)
    recognizer = FakeRecognizer([1.0, 1.0, 1.0])
    begin = time.monotonic()
    check = check_speed("tiny", recognizer, path)  # type: ignore[arg-type]
    assert time.monotonic() - begin < 5, "it is not read at the pace of speech"
    assert '10.0 s of sample.wav, "turn on the light"' in check.what
    assert len(recognizer.heard) == 3


# ------------------------------------------------------------------ all of it


def test_each_fault_is_one_line_and_the_other_checks_still_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_settings: Settings) -> Iterator[Check]:
        raise ModelMissingError("no model", "pull it")
        yield

    for name in ("system", "clock", "sound", "microphone", "voice", "broker"):
        monkeypatch.setattr(
            doctor, f"check_{name}", lambda _, name=name: iter([Check(name, Status.OK, "fine")])
        )
    monkeypatch.setattr(doctor, "check_model", broken)
    found = list(examine(Settings()))
    assert [check.name for check in found] == [
        "system",
        "clock",
        "sound",
        "microphone",
        "voice",
        "model",
        "broker",
    ]
    assert found[5] == Check("model", Status.FAIL, "no model", "pull it")


def test_it_does_not_send_its_reader_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CaptureError) as caught:
        choose_device("default", [], list, 0)
    lost = f"{caught.value}; {caught.value.report['mend']}"

    def without(_audio: AudioSettings, _seconds: float) -> Iterator[Level]:
        raise AudioError(lost)
        yield

    monkeypatch.setattr(doctor, "listen", without)
    for name in ("system", "clock", "sound", "voice", "model", "broker"):
        monkeypatch.setattr(doctor, f"check_{name}", lambda _: iter(()))
    found = list(examine(Settings()))
    assert [check.what for check in found] == [
        "no microphone found: PortAudio lists no input device; plug one in"
    ]


@pytest.mark.parametrize(("status", "code"), [(Status.OK, 0), (Status.WARN, 0), (Status.FAIL, 1)])
def test_the_command_fails_only_if_a_check_fails(
    status: Status, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    check = Check("clock", status, "what it is", "what to do")
    monkeypatch.setattr(doctor, "examine", lambda _settings: iter([check]))
    monkeypatch.setattr("harkd.logs.set_up", lambda *_: None)
    settings = tmp_path / "harkd.yaml"
    settings.write_text("device_id: kitchen\n")
    done = CliRunner().invoke(doctor_command, ["--config", str(settings)])
    assert done.exit_code == code
    assert done.output == f"{status:<5} clock       what it is\n{'':17} → what to do\n"
    done = CliRunner().invoke(doctor_command, ["--config", str(settings), "--json"])
    assert done.exit_code == code
    assert json.loads(done.output) == [
        {"name": "clock", "status": status, "what": "what it is", "mend": "what to do"}
    ]


def test_each_of_several_inputs_is_looked_at_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(settings: Settings) -> Iterator[Check]:
        if settings.audio.device == "b":
            raise AudioError("it is gone", "plug it in")
        yield Check("microphone", Status.OK, settings.audio.device)

    for name in ("system", "clock", "sound", "voice", "model", "broker"):
        monkeypatch.setattr(doctor, f"check_{name}", lambda _: iter([]))
    monkeypatch.setattr(doctor, "check_microphone", check)
    inputs = {"kitchen": AudioSettings(device="a"), "bath": AudioSettings(device="b")}
    found = [check.what for check in examine(Settings(inputs=inputs))]
    assert found == ["kitchen: a", "bath: it is gone"]
