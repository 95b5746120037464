"""What is judged of a microphone that delivers: zeros, moves, and lost or late audio."""

from __future__ import annotations

import errno
import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harkd import all_zero, alsa_open, capture, capture_errors, sound_server
from harkd.all_zero import ZeroSpell
from harkd.audio import MonoConverter, SourceLost
from harkd.capture_errors import CaptureError, explain_absence
from harkd.following import Following
from harkd.overruns import Overruns
from harkd.sound_server import TOKEN, report_of

# ------------------------------------------------------------------ zeros


def told_after(spell: ZeroSpell, block_s: float = 0.5) -> float:
    while not spell.told:
        spell.add(block_s, zero=True)
    return spell.seconds


def test_zeros_are_told_after_as_many_seconds_as_set() -> None:
    assert told_after(ZeroSpell(5.0)) == 5.0


def test_one_other_sample_begins_the_count_anew() -> None:
    spell = ZeroSpell(5.0)
    for _ in range(20):
        spell.add(4.9, zero=True)
        assert not spell.told
        spell.add(0.03, zero=False)
        assert spell.seconds == 0


def test_with_0_zeros_are_counted_and_never_told() -> None:
    spell = ZeroSpell(0.0)
    for _ in range(100):
        spell.add(10, zero=True)
    assert not spell.told
    assert spell.seconds == 1000
    assert not spell.replace_now()


def test_the_input_is_opened_anew_after_30_s_of_zeros_then_ever_more_rarely() -> None:
    spell = ZeroSpell(5.0)
    begin_s = told_after(spell)
    opened_s = []
    while spell.seconds < 3500:
        spell.add(0.5, zero=True)
        if spell.replace_now():
            opened_s.append(spell.seconds - begin_s)
    gaps_s = [b - a for a, b in zip([0.0, *opened_s], opened_s, strict=False)]
    assert gaps_s == [30, 60, 120, 240, 480, 600, 600, 600, 600]


def test_sound_in_between_makes_it_begin_with_30_s_again() -> None:
    spell = ZeroSpell(1.0)
    for _ in range(3):
        told_after(spell)
        for _ in range(60):
            assert not spell.replace_now()
            spell.add(0.5, zero=True)
        assert spell.replace_now()
        spell.add(0.03, zero=False)


def report(**changes: Any) -> dict[str, Any]:
    return {
        "source": "usb",
        "description": "A microphone",
        "monitor": False,
        "muted": False,
        "volume": 1.0,
        "stream": 7,
        "stream_muted": False,
        "microphones": 1,
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({"muted": True}, "pactl set-source-mute usb 0"),
        ({"stream_muted": True}, "pactl set-source-output-mute 7 0"),
        ({"volume": 0.0}, "pactl set-source-volume usb 100%"),
    ],
)
def test_where_the_server_knows_why_the_reason_has_the_command(
    changes: dict[str, Any], command: str
) -> None:
    known = report(**changes)
    assert all_zero.is_explained(known)
    assert command in all_zero.reason("usb", known)


@pytest.mark.parametrize("known", [{}, report()])
def test_where_nobody_knows_why_the_reason_says_what_to_try(known: dict[str, Any]) -> None:
    assert not all_zero.is_explained(known)
    reason = all_zero.reason("usb", known)
    for word in ("alsamixer", "switch", "plug", "audio.zeros_s"):
        assert word in reason


@pytest.mark.parametrize(
    ("channel", "pcm", "zero"),
    [
        ("mix", b"\0\0\0\0" * 8, True),
        ("mix", b"\0\0\0\0" * 7 + b"\0\0\1\0", False),
        ("1", b"\0\0\5\0" * 8, True),
        ("2", b"\5\0\0\0" * 8, True),
        ("2", b"\0\0\5\0" * 8, False),
    ],
)
def test_zeros_count_in_the_channels_that_are_used(channel: str, pcm: bytes, zero: bool) -> None:
    assert MonoConverter(48000, 2, channel).is_zero(pcm) == zero


def test_a_hiss_that_vanishes_at_16_khz_is_no_zero() -> None:
    converter = MonoConverter(48000, 1)
    pcm = (b"\1\0" + b"\0\0" * 9) * 480
    assert not converter.is_zero(pcm)
    assert converter.seconds(pcm) == 0.1
    assert not converter.convert(pcm)[0].any()


# ------------------------------------------------------------------ where the server has us hear


def test_moved_from_the_named_source_is_a_loss_that_names_both() -> None:
    following = Following("desk", "name")
    assert following.judge("desk", report(source="desk")) is None
    lost = following.judge("desk", report(source="other"))
    assert lost
    assert lost.kind == "moved"
    assert '"desk"' in lost.reason
    assert '"other"' in lost.reason


def test_while_the_named_source_is_away_the_loss_stays_moved() -> None:
    """The next capture process finds no such device; who reads the state wants to know why."""
    following = Following("desk", "name")
    away, busy = SourceLost("no_such_device", "none"), SourceLost("busy", "in use")
    assert following.reword(away) == away
    moved = following.judge("desk", report(source="other"))
    assert following.reword(away) == moved
    assert following.reword(busy) == busy
    following.judge("desk", report(source="desk"))
    assert following.reword(away) == away


def test_following_the_server_no_move_is_a_loss() -> None:
    following = Following("desk", "server")
    assert following.judge("desk", report(source="other")) is None
    assert Following("default", "name").judge("", report(source="other")) is None


def test_without_a_sound_server_there_is_nothing_to_judge() -> None:
    following = Following("hw:1,0", "name")
    assert following.judge("", {}) is None
    assert not following.server


def test_a_loudspeaker_is_no_microphone_once_the_last_microphone_is_gone() -> None:
    following = Following("default", "name")
    following.judge("", report())
    assert not following.no_monitor
    lost = following.judge("", report(source="hdmi.monitor", monitor=True, microphones=0))
    assert lost
    assert lost.kind == "no_device"
    assert following.no_monitor
    following.judge("", report())
    assert not following.no_monitor


def test_a_monitor_from_the_start_or_beside_a_microphone_is_somebodys_choice() -> None:
    monitor = report(source="hdmi.monitor", monitor=True, microphones=0)
    assert Following("default", "name").judge("", monitor) is None
    following = Following("default", "name")
    following.judge("", report())
    assert following.judge("", monitor | {"microphones": 1}) is None


def test_a_named_monitor_is_heard() -> None:
    following = Following("hdmi.monitor", "name")
    monitor = report(source="hdmi.monitor", monitor=True, microphones=0)
    assert following.judge("hdmi.monitor", monitor) is None


def test_a_part_of_a_headsets_name_does_not_mean_its_loudspeaker_once_it_was_heard() -> None:
    following = Following("jabra", "name")
    following.judge("usb-jabra", report(source="usb-jabra"))
    assert following.no_monitor


def test_a_monitor_in_a_microphones_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [{"name": "jabra.monitor", "description": "Monitor of Jabra", "monitor": True}]
    monkeypatch.setattr(capture, "ask_pulse", lambda: sources)
    held = capture.Capture(-1, {"device": "jabra", "no_monitor": True})
    with pytest.raises(CaptureError) as caught:
        held._refuse_monitor("jabra", sources[0])
    assert caught.value.report["kind"] == "no_such_device"
    held._refuse_monitor("jabra.monitor", sources[0])
    with pytest.raises(CaptureError) as caught:
        held._refuse_monitor("default", None)
    assert caught.value.report["kind"] == "no_device"


def source(index: int, name: str, monitor_of: str | None = None, **changes: Any) -> Any:
    return SimpleNamespace(
        index=index,
        name=name,
        description=name.upper(),
        mute=0,
        volume=SimpleNamespace(value_flat=0.5),
        monitor_of_sink_name=monitor_of,
        **changes,
    )


def output(index: int, on: int, **properties: str) -> Any:
    return SimpleNamespace(index=index, source=on, mute=1, proplist=properties)


SOURCES = [source(1, "usb"), source(2, "hdmi.monitor", "hdmi"), source(3, "desk")]


def test_our_recording_is_known_by_its_token_before_its_process_id() -> None:
    """Two containers may have processes with one id on one server."""
    pid = str(os.getpid())
    other = output(5, 1, **{"application.process.id": pid})
    own = output(6, 2, **{"application.process.id": pid, TOKEN: "mine"})
    assert report_of("mine", [other, own], SOURCES) == {
        "source": "hdmi.monitor",
        "description": "HDMI.MONITOR",
        "monitor": True,
        "muted": False,
        "volume": 0.5,
        "stream": 6,
        "stream_muted": True,
        "microphones": 2,
    }
    assert report_of("mine", [other], SOURCES)["source"] == "usb"


def test_no_recording_of_ours_or_one_on_no_source_is_no_report() -> None:
    assert report_of("mine", [], SOURCES) == {}
    assert report_of("mine", [output(5, 99, **{TOKEN: "mine"})], SOURCES) == {}


def test_a_server_that_hangs_holds_up_the_first_report_only_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over = threading.Event()
    monkeypatch.setattr(sound_server, "follow_server", lambda *_: over.wait(10))
    begin = time.monotonic()
    recording = sound_server.OwnRecording("mine", lambda _: None)
    assert recording.start(0.1) == {}
    assert time.monotonic() - begin < 1
    over.set()


# ------------------------------------------------------------------ why there is no device

NONE = CaptureError("no_device", "no microphone found", "plug one in")
CARDS = """\
 0 [PCH            ]: HDA-Intel - HDA Intel PCH
                      HDA Intel PCH at 0xf7d30000 irq 30
 1 [Device         ]: USB-Audio - USB PnP Sound Device
                      C-Media USB PnP Sound Device
"""
PCMS = """\
00-00: ALC269VC Analog : ALC269VC Analog : playback 1 : capture 1
00-03: HDMI 0 : HDMI 0 : playback 1
01-00: USB Audio : USB Audio : capture 1
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "cards").write_text(CARDS)
    (tmp_path / "pcm").write_text(PCMS)
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "codes", "expected"),
    [
        ("pnp sound", {"hw:1,0": errno.EBUSY}, ("hw:1,0", errno.EBUSY)),
        ("USB PnP Sound Device: Audio (hw:1,0)", {"hw:1,0": errno.EBUSY}, ("", 0)),
        (
            "USB PnP Sound Device: USB Audio (hw:1,0)",  # as `harkd devices` prints it
            {"hw:1,0": errno.EBUSY},
            ("hw:1,0", errno.EBUSY),
        ),
        ("hw:1,0", {"hw:1,0": errno.EACCES}, ("hw:1,0", errno.EACCES)),
        ("default", {"default": errno.EBUSY}, ("default", errno.EBUSY)),
        ("default", {"hw:0,0": errno.EBUSY}, ("hw:0,0", errno.EBUSY)),
        ("default", {"default": errno.ECONNREFUSED}, ("", 0)),
        ("pnp sound", {"hw:0,0": errno.EBUSY}, ("", 0)),
        ("7", {"hw:0,0": errno.EBUSY}, ("", 0)),
    ],
)
def test_alsa_is_asked_for_the_devices_that_the_name_may_mean(
    wanted: str, codes: dict[str, int], expected: tuple[str, int], proc: Path
) -> None:
    assert alsa_open.why_not(wanted, proc, lambda name: codes.get(name, 0)) == expected


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EACCES])
def test_a_card_that_is_not_listed_because_it_does_not_open_is_found(proc: Path, code: int) -> None:
    """By the name that PortAudio gives it while it is free."""
    codes = {"hw:0,0": 0, "hw:1,0": code}
    found = list(alsa_open.left_out(["sysdefault", "default"], proc, codes.__getitem__))
    assert found == [("USB PnP Sound Device: USB Audio (hw:1,0)", code)]
    assert not list(alsa_open.left_out([found[0][0]], proc, codes.__getitem__))
    assert not list(alsa_open.left_out([], proc, lambda _: errno.ENODEV))


def test_without_sound_cards_only_the_name_itself_is_tried(tmp_path: Path) -> None:
    tried: list[str] = []

    def opened(name: str) -> int:
        tried.append(name)
        return errno.ENOENT

    assert alsa_open.why_not("testmic", tmp_path, opened) == ("", 0)
    assert tried == ["testmic"]


def test_alsa_itself_says_that_there_is_no_such_device() -> None:
    assert alsa_open.open_error("harkd-no-such-device") == errno.ENOENT


@pytest.fixture
def nothing_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Neither a busy device nor a sound server; returns the folder of its socket."""
    monkeypatch.setattr(capture_errors, "why_not", lambda _: ("", 0))
    monkeypatch.setattr(capture_errors, "barred_device", lambda: None)
    monkeypatch.delenv("PULSE_SERVER", raising=False)
    monkeypatch.setenv("PULSE_RUNTIME_PATH", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("nothing_known")
def test_where_nothing_more_is_known_there_is_no_device() -> None:
    assert explain_absence(NONE, "default", server=False) is NONE


@pytest.mark.usefixtures("nothing_known")
@pytest.mark.parametrize(("code", "kind"), [(errno.EBUSY, "busy"), (errno.EACCES, "permission")])
def test_a_device_that_alsa_knows_and_does_not_open_is_named(
    code: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_errors, "why_not", lambda _: ("hw:1,0", code))
    told = explain_absence(NONE, "default", server=False).report
    assert told["kind"] == kind
    assert '"hw:1,0"' in told["message"]


def test_a_server_that_was_there_or_is_named_or_left_its_socket_is_away(
    nothing_known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert explain_absence(NONE, "default", server=True).report["kind"] == "server"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(nothing_known / "native"))
    assert explain_absence(NONE, "default", server=False).report["kind"] == "server"
    (nothing_known / "native").unlink()
    monkeypatch.setenv("PULSE_SERVER", f"unix:{nothing_known}/native")
    told = explain_absence(NONE, "default", server=False).report
    assert told["kind"] == "server"
    assert str(nothing_known) in told["message"]
    assert "start it" in told["mend"]


def test_a_name_that_nobody_knows_while_the_server_is_away_keeps_its_kind_and_says_so(
    nothing_known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a sound card that was unplugged, unless its server was there before."""
    monkeypatch.setenv("PULSE_SERVER", f"unix:{nothing_known}/native")
    unknown = CaptureError("no_such_device", "no microphone matches desk", "plug it in")
    told = explain_absence(unknown, "desk", server=False).report
    assert (told["kind"], told["mend"]) == ("no_such_device", "plug it in")
    assert "does not answer" in told["message"]
    assert explain_absence(unknown, "desk", server=True).report["kind"] == "server"


def test_a_server_that_answers_is_not_to_blame(nothing_known: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(nothing_known / "native"))
        server.listen()
        assert explain_absence(NONE, "default", server=True) is NONE


def test_a_server_on_another_machine_is_not_judged_by_a_socket() -> None:
    assert sound_server.server_fault({"PULSE_SERVER": "tcp:kitchen:4713"}, expected=True) is None


def as_nobody(look: Callable[[], Any]) -> str:
    """What a call returns, in words, to a user without rights."""
    reader, writer = os.pipe()
    if not (pid := os.fork()):
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(writer, str(look()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    return told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_may_open_neither_devices_nor_the_servers_socket_is_told_so() -> None:
    """Root may open all of them, so another user looks."""
    with tempfile.TemporaryDirectory() as name, socket.socket(socket.AF_UNIX) as server:
        folder = Path(name)
        folder.chmod(0o755)
        node, path = folder / "pcmC0D0c", folder / "native"
        node.touch()
        node.chmod(0o660)
        server.bind(str(path))
        server.listen()
        path.chmod(0o600)
        environ = {"PULSE_SERVER": f"unix:{path}"}
        assert as_nobody(lambda: sound_server.barred_device(folder)) == str(node)
        assert as_nobody(lambda: sound_server.server_fault(environ)).startswith("('permission'")
        assert sound_server.server_fault(environ) is None


def test_devices_of_which_one_may_be_opened_are_not_barred(tmp_path: Path) -> None:
    assert sound_server.barred_device(tmp_path / "none") is None
    (tmp_path / "pcmC0D0c").touch()
    assert sound_server.barred_device(tmp_path) is None


def test_what_is_plugged_in_or_started_changes_the_fingerprint(tmp_path: Path) -> None:
    environ = {"PULSE_RUNTIME_PATH": str(tmp_path)}
    snd = tmp_path / "snd"
    prints: list[Sequence[object]] = []

    def look() -> None:
        prints.append(sound_server.fingerprint(environ, snd))
        assert prints[-1] == sound_server.fingerprint(environ, snd)

    steps: list[Callable[[], object]] = [
        lambda: None,
        snd.mkdir,
        (snd / "pcmC0D0c").touch,
        lambda: (snd / "pcmC0D0c").chmod(0o600),
        lambda: server.bind(str(tmp_path / "native")),
    ]
    with socket.socket(socket.AF_UNIX) as server:
        for step in steps:
            step()
            look()
    assert len(set(prints)) == len(steps) - 1, "an empty folder is as good as none"


def test_a_wait_ends_when_a_card_is_plugged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    prints = iter([(), (), ("card",)])
    monkeypatch.setattr(sound_server, "follow_server", lambda *_: None)
    monkeypatch.setattr(sound_server, "fingerprint", lambda _: next(prints))
    monkeypatch.setattr(sound_server, "LOOK_S", 0.01)
    sound_server.wait_for_change(None, ())
    assert next(prints, "used up") == "used up"


@pytest.mark.parametrize(
    ("known", "lists", "looks"),
    [(None, ["a", "a", "ab"], 3), ({"a"}, ["a", "ab"], 2), (set(), ["a"], 1)],
)
def test_a_wait_ends_when_the_server_has_other_sources(
    known: set[str] | None, lists: list[str], looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[bool] = []

    def follow(_: set[str], look: Callable[[Any], bool]) -> None:
        for names in lists:
            pulse = SimpleNamespace(source_list=lambda: [source(1, n) for n in names])  # noqa: B023
            counted.append(look(pulse))
            if counted[-1]:
                return

    monkeypatch.setattr(sound_server, "follow_server", follow)
    monkeypatch.setattr(sound_server, "fingerprint", lambda _: ())
    sound_server.wait_for_change(known, ())
    assert counted == [False] * (looks - 1) + [True]


# ------------------------------------------------------------------ lost and late audio


def test_one_gap_is_logged_with_its_mend_and_no_problem(
    caplog: pytest.LogCaptureFixture,
) -> None:
    overruns = Overruns()
    for second in range(0, 300, 20):
        overruns.note(second, gap=True, lag_s=0)
        assert overruns.reason == ""
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "audio.latency_ms" in record.getMessage()


def test_three_gaps_within_ten_seconds_are_a_problem_until_none_came_for_thirty(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    overruns = Overruns()
    for second in (0, 5, 9):
        assert overruns.reason == ""
        overruns.note(second, gap=True, lag_s=0)
    assert "being lost" in overruns.reason
    overruns.note(20, gap=True, lag_s=0)
    overruns.note(49.9, gap=False, lag_s=0)
    assert overruns.reason
    overruns.note(50, gap=False, lag_s=0)
    assert overruns.reason == ""
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_three_gaps_in_a_longer_time_are_none() -> None:
    overruns = Overruns()
    for second in (0, 5, 10.1, 15.2):
        overruns.note(second, gap=True, lag_s=0)
    assert overruns.reason == ""


def test_audio_that_comes_late_for_long_is_a_problem_until_it_is_in_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    overruns = Overruns()
    overruns.note(0, gap=False, lag_s=8)
    overruns.note(1, gap=False, lag_s=2.9)
    for second in range(2, 7):
        overruns.note(second, gap=False, lag_s=3.1)
        assert overruns.reason == ""
    overruns.note(7, gap=False, lag_s=3.1)
    assert "too slow" in overruns.reason
    overruns.note(8, gap=False, lag_s=2)
    assert overruns.reason, "it would come and go"
    overruns.note(9, gap=False, lag_s=0.9)
    assert overruns.reason == ""
    assert not overruns.open
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
