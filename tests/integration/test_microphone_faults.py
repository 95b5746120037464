"""What can be wrong with a microphone that is there, over a real PulseAudio and a real ALSA."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alsa_mic import AlsaMic
from daemon_process import Daemon
from harkd import all_zero
from harkd.audio import RATE_HZ, AudioBlock, SourceLost, SourceOpened
from heard import Listening, listening
from servers import Mosquitto, PulseServer, Received, Subscriber

pytestmark = pytest.mark.integration

log = logging.getLogger("measured")
log.setLevel(logging.INFO)


def wait_for_loss(heard: Listening, kind: str, timeout_s: float, after: float = 0.0) -> SourceLost:
    """The first loss of a kind that came after a time."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        for _, lost in heard.of(SourceLost, after):
            if lost.kind == kind:
                return lost  # type: ignore[no-any-return]
        time.sleep(0.02)
    raise AssertionError(f"no {kind}; {heard.of(SourceLost)}")


def listens_again(heard: Listening, cause_gone: float) -> float:
    """Wait until it does, and return how long that took."""
    opened, _ = heard.wait_for(SourceOpened, 10, after=cause_gone)
    again, _ = heard.wait_for(AudioBlock, 5, after=opened)
    log.info("listening again after %.2f s", again - cause_gone)
    assert again - cause_gone < 5.0
    return again - cause_gone


def play(pulse: PulseServer, speech: Path, heard: Listening) -> None:
    """Play, and wait until something is heard."""
    pulse.play(speech)
    end = time.monotonic() + 5
    while not any(block.samples.any() for _, block in heard.of(AudioBlock)[-5:]):
        assert time.monotonic() < end
        time.sleep(0.02)


# ------------------------------------------------------------------ PulseAudio


def test_a_source_that_is_muted_is_told_with_the_command_that_unmutes_it(
    pulse: PulseServer, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(pulse.env, monkeypatch, zeros_s=0.5) as heard:
        play(pulse, speech, heard)
        muted = time.monotonic()
        pulse.pactl("set-source-mute", "mic.monitor", "1")
        lost = wait_for_loss(heard, "all_zero", 3, muted)
        assert "pactl set-source-mute mic.monitor 0" in lost.reason
        pulse.play(speech)
        time.sleep(0.5)
        unmuted = time.monotonic()
        pulse.pactl("set-source-mute", "mic.monitor", "0")
        assert listens_again(heard, unmuted) < 2.0
        assert heard.microphone.starts == 1, "the same capture process"


def test_zeros_that_nobody_explains_have_the_microphone_opened_anew(
    pulse: PulseServer, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(all_zero, "REPLACE_FIRST_S", 0.5)
    with listening(pulse.env, monkeypatch, zeros_s=0.3) as heard:
        lost = wait_for_loss(heard, "all_zero", 5)
        assert "nothing but zeros" in lost.reason
        end = time.monotonic() + 5
        while heard.microphone.starts < 3:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert len(heard.of(SourceOpened)) == 1, "zeros from a new process are no news"
        played = time.monotonic()
        pulse.play(speech)
        listens_again(heard, played)


def test_moved_to_another_source_it_hears_nothing_and_is_back_by_name(
    pulse: PulseServer, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody speaks in the other room all the time; the desk is silent."""
    pulse.add_sink("quiet")
    pulse.add_source("desk", "quiet.monitor")
    with listening(pulse.env, monkeypatch, device="desk", zeros_s=0) as heard:
        heard.wait_for(AudioBlock, 5)
        pulse.play(speech)
        time.sleep(1)
        removed = time.monotonic()
        pulse.remove("desk")
        lost = wait_for_loss(heard, "moved", 2, removed)
        at = heard.of(SourceLost, removed)[0][0]
        log.info("noticed after %.2f s", at - removed)
        assert '"desk"' in lost.reason
        assert '"mic.monitor"' in lost.reason
        time.sleep(1.5)
        assert heard.of(AudioBlock, at) == []
        assert not heard.samples().any()
        assert {each.kind for _, each in heard.of(SourceLost)} == {"moved"}
        pulse.add_source("desk", "quiet.monitor")
        back = time.monotonic()
        listens_again(heard, back)
        assert heard.of(SourceOpened)[-1][1].device == "desk"


def test_moved_by_hand_it_goes_back_by_name(
    pulse: PulseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulse.add_source("desk")
    pulse.add_source("other")
    with listening(pulse.env, monkeypatch, device="desk") as heard:
        heard.wait_for(AudioBlock, 5)
        moved = time.monotonic()
        pulse.pactl("move-source-output", str(heard_stream(pulse)), "other")
        wait_for_loss(heard, "moved", 2, moved)
        listens_again(heard, moved)
        assert heard.of(SourceOpened)[-1][1].device == "desk"


def test_with_follow_server_it_goes_along_and_says_what_it_hears(
    pulse: PulseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulse.add_source("desk")
    pulse.add_source("other")
    with listening(pulse.env, monkeypatch, device="desk", follow="server") as heard:
        heard.wait_for(AudioBlock, 5)
        moved = time.monotonic()
        pulse.pactl("move-source-output", str(heard_stream(pulse)), "other")
        listens_again(heard, moved)
        names = [opened.device for _, opened in heard.of(SourceOpened)]
        assert names == ["desk", "other"]
        assert heard.of(SourceLost) == []
        assert heard.microphone.starts == 1


def test_the_default_is_followed_but_not_onto_a_loudspeaker_when_the_last_microphone_goes(
    pulse: PulseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulse.add_source("desk")
    pulse.add_source("other")
    pulse.pactl("set-default-source", "desk")
    with listening(pulse.env, monkeypatch) as heard:
        heard.wait_for(AudioBlock, 5)
        assert heard.of(SourceOpened)[-1][1].device == "desk"
        followed = time.monotonic()
        pulse.pactl("set-default-source", "other")
        listens_again(heard, followed)
        assert heard.of(SourceOpened)[-1][1].device == "other"
        pulse.remove("desk")
        gone = time.monotonic()
        pulse.remove("other")
        lost = wait_for_loss(heard, "no_device", 3, gone)
        assert "loudspeaker" in lost.reason
        time.sleep(1.5)
        assert heard.of(SourceOpened, gone + 0.3) == []
        pulse.add_source("third")
        back = time.monotonic()
        listens_again(heard, back)
        assert heard.of(SourceOpened)[-1][1].device == "third"


def test_a_server_that_is_away_is_told_from_no_microphone_and_heard_soon_after_its_start(
    pulse: PulseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(pulse.env, monkeypatch) as heard:
        heard.wait_for(AudioBlock, 5)
        killed = time.monotonic()
        pulse.kill()
        lost = wait_for_loss(heard, "server", 5, killed)
        assert "does not answer" in lost.reason
        time.sleep(2)
        pulse.start()
        listens_again(heard, time.monotonic())


def heard_stream(pulse: PulseServer) -> int:
    """The index of the only recording that is no part of a remapped source."""
    streams = pulse.pactl("list", "source-outputs").split("Source Output #")[1:]
    (own,) = [each for each in streams if "harkd.capture" in each]
    return int(own.split()[0])


# ------------------------------------------------------------------ ALSA


def test_zeros_of_a_bare_device_are_told_and_over_with_the_first_sound(
    alsa_mic_factory: Callable[..., AlsaMic], speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mic = alsa_mic_factory(speech, loop=True)
    with listening(mic.env, monkeypatch, device="testmic", zeros_s=0.5) as heard:
        heard.wait_for(AudioBlock, 5)
        time.sleep(0.3)
        zeroed = time.monotonic()
        mic.zero()
        lost = wait_for_loss(heard, "all_zero", 3, zeroed)
        assert "alsamixer" in lost.reason
        mic.resume()
        assert listens_again(heard, time.monotonic()) < 2.0
        assert heard.microphone.starts == 1


def test_another_rate_and_channel_count_at_replug_are_heard_as_before(
    alsa_mic_factory: Callable[..., AlsaMic], speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mic = alsa_mic_factory(speech, loop=True)
    with listening(mic.env, monkeypatch, device="testmic", stall_s=0.5) as heard:
        _, opened = heard.wait_for(SourceOpened, 5)
        assert (opened.rate_hz, opened.channels) == (48000, 2)
        heard.wait_for(AudioBlock, 5)
        mic.unplug()
        heard.wait_for(SourceLost, 3)
        mic.change_format(44100, 1)
        mic.replug()
        back = time.monotonic()
        listens_again(heard, back)
        _, opened = heard.of(SourceOpened)[-1]
        assert (opened.rate_hz, opened.channels) == (44100, 1)
        time.sleep(1)
        samples = np.concatenate([each.samples for _, each in heard.of(AudioBlock, back)])
        assert len(samples) > RATE_HZ / 2
        assert np.abs(samples).max() > 1000


@pytest.mark.parametrize(("word", "kind"), [("busy", "busy"), ("deny", "permission")])
def test_a_device_that_does_not_open_says_why_and_is_heard_when_it_does(
    word: str,
    kind: str,
    alsa_mic_factory: Callable[..., AlsaMic],
    speech: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PortAudio leaves both out of its list, as if they were not there."""
    mic = alsa_mic_factory(speech, loop=True)
    getattr(mic, word)()
    with listening(mic.env, monkeypatch, device="testmic") as heard:
        lost = wait_for_loss(heard, kind, 5)
        assert '"testmic"' in lost.reason
        heard.wait_for(SourceLost, 10, count=3)
        assert {each.kind for _, each in heard.of(SourceLost)} == {kind}
        mic.resume()
        listens_again(heard, time.monotonic())


def test_overruns_arrive_as_gaps(
    alsa_mic_factory: Callable[..., AlsaMic], speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mic = alsa_mic_factory(speech, loop=True)
    with listening(mic.env, monkeypatch, device="testmic") as heard:
        heard.wait_for(AudioBlock, 5)
        for _ in range(3):
            mic.xrun()
            time.sleep(0.3)
            mic.resume()
            time.sleep(0.3)
        gaps = sum(block.gap for _, block in heard.of(AudioBlock))
        assert gaps >= 3
        assert heard.of(SourceLost) == []


# ------------------------------------------------------------------ the daemon, over MQTT


def test_the_state_tells_the_truth_through_zeros_a_move_and_a_dead_server(
    pulse: PulseServer,
    broker: Mosquitto,
    env: dict[str, str],
    model_dir: Path,
    tmp_path: Path,
) -> None:
    """Each fault once in the log, with its word on MQTT, and over with its cause."""
    pulse.add_source("desk")
    spoken = model_dir / "samples" / "beckett.wav"
    env = {**env, **pulse.env, "HARKD_AUDIO__DEVICE": "desk", "HARKD_AUDIO__ZEROS_S": "1"}

    def problem(word: str) -> Callable[[Received], bool]:
        return lambda m: m.topic == "harkd/test/state" and json.loads(m.payload)["problem"] == word

    def listening_again(message: Received) -> bool:
        return message.topic == "harkd/test/state" and b'"listening"' in message.payload

    with (
        Subscriber(broker) as subscriber,
        Daemon(env=env, folder=tmp_path) as daemon,
    ):
        state = json.loads(subscriber.wait_for(listening_again, 15).payload)
        assert (state["audio_device"], state["problem"]) == ("desk", "")
        zero = subscriber.wait_for(problem("all_zero"), 5)
        assert json.loads(zero.payload)["state"] == "no_microphone"
        seen = len(subscriber.messages)
        subscriber.wait_for(lambda m: m.payload == b"offline", 2)
        player = pulse.play(spoken)
        subscriber.wait_for(lambda m: m.payload == b"online", 3, after=seen)
        subscriber.wait_for(lambda m: m.topic == "harkd/test/transcript/partial", 15, after=seen)
        player.kill()
        subscriber.wait_for(lambda m: m.topic == "harkd/test/transcript", 15, after=seen)

        subscriber.wait_for(problem("all_zero"), 10, after=seen)
        seen = len(subscriber.messages)
        pulse.remove("desk")
        moved = json.loads(subscriber.wait_for(problem("moved"), 3, after=seen).payload)
        assert '"desk"' in moved["reason"]
        assert '"mic.monitor"' in moved["reason"]
        assert (moved["state"], moved["audio_device"]) == ("no_microphone", "")
        player = pulse.play(spoken)
        time.sleep(2)
        player.kill()
        assert not [m for m in subscriber.messages[seen:] if "transcript" in m.topic]
        pulse.add_source("desk")
        subscriber.wait_for(listening_again, 5, after=seen)

        seen = len(subscriber.messages)
        pulse.kill()
        subscriber.wait_for(problem("server"), 5, after=seen)
        pulse.start()
        pulse.add_source("desk")
        subscriber.wait_for(listening_again, 5, after=seen)
        warnings = [line["message"] for line in daemon.log if line["log.level"] == "warning"]
        assert daemon.stop() == 0
    moves = [line for line in warnings if "moved harkd" in line]
    assert len(moves) == 1, warnings
