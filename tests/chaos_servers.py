"""The sound servers of the chaos test, and what can happen to them: PulseAudio and PipeWire."""

from __future__ import annotations

from pathlib import Path

from chaos_faults import (
    SLACK_S,
    STALL_S,
    ZERO_LEAST_S,
    ZERO_MOST_S,
    ZEROS_DETECT_S,
    ZEROS_S,
    Act,
    Entered,
    Fault,
    Scene,
    Sound,
    problems,
)
from harkd.audio import Int16
from pipewire_server import Part, PipeWireServer
from servers import PulseServer
from speaker import Speaker

SERVER_WORDS = problems("server", "stalled", "ended", "no_device", "no_such_device", "unknown")
SOURCE_WORDS = problems("moved", "no_such_device", "stalled", "ended")


class SoundServerRig(Entered):
    """A sound server with two microphones: one that is spoken into, and `other`, which is dead.

    Args:
        server: Is not yet started.
        sound: What is said.
        device: `desk`, a source that can be removed while another one stays, or `default`.
    """

    def __init__(self, server: PulseServer, sound: Int16, device: str) -> None:
        super().__init__()
        self.server = server
        self.device = device
        self.name = server.name if device != "default" else f"{server.name} (default)"
        self.source = "desk" if device == "desk" else "mic.monitor"
        self._sound = sound
        self._speaker: Speaker | None = None
        self.env = {**server.env, "HARKD_AUDIO__DEVICE": device}
        self.faults = [
            self._lost("killed", self._kill),
            self._lost("restarted", self._stop),
            self._lost("started later", self._kill, least_s=8.0, most_s=12.0),
            self._zeros("source muted", *self._setting("set-source-mute", "1", "0")),
            self._zeros("source volume 0", *self._setting("set-source-volume", "0", "65536")),
            self._default_changed(),
        ]
        if device == "desk":
            self.faults.append(
                Fault(
                    "source removed, another there",
                    lambda _: server.remove("desk"),
                    lambda _: server.add_source("desk"),
                    problems=SOURCE_WORDS,
                )
            )

    def arrive(self) -> None:
        self.server.start()
        self._ending.callback(self.server.stop)
        self._furnish()
        self._speaker = self._ending.enter_context(Speaker(self.server, self._sound))

    def heal(self) -> bool:
        """PipeWire 0.3.65 may answer nobody for good after one of its daemons was killed."""
        if self.server.gives_sound(self.source):
            return False
        self.server.kill()
        self.server.start()
        self._furnish()
        return True

    def _furnish(self) -> None:
        """Adds what the server has forgotten."""
        self.server.add_sink("other")
        if self.device == "desk":
            self.server.add_source("desk")
        self.server.pactl("set-default-source", "mic.monitor")

    def _kill(self, _scene: Scene) -> None:
        self.server.kill()

    def _stop(self, _scene: Scene) -> None:
        self.server.stop()

    def _start(self, _scene: Scene) -> None:
        self.server.start()
        self._furnish()

    def _lost(self, what: str, begin: Act, *, least_s: float = 0.3, most_s: float = 8.0) -> Fault:
        name = f"{self.server.name} {what}"
        return Fault(
            name, begin, self._start, least_s=least_s, most_s=most_s, problems=SERVER_WORDS
        )

    def _setting(self, verb: str, bad: str, good: str) -> tuple[Act, Act]:
        def begin(_scene: Scene) -> None:
            self.server.pactl(verb, self.source, bad)

        def end(_scene: Scene) -> None:
            self.server.pactl(verb, self.source, good)

        return begin, end

    def _zeros(self, name: str, begin: Act, end: Act) -> Fault:
        return Fault(
            name,
            begin,
            end,
            least_s=ZERO_LEAST_S,
            most_s=ZERO_MOST_S,
            problems=problems("all_zero"),
            detect_s=ZEROS_DETECT_S,
        )

    def _default_changed(self) -> Fault:
        def begin(_scene: Scene) -> None:
            self.server.pactl("set-default-source", "other.monitor")

        def end(_scene: Scene) -> None:
            self.server.pactl("set-default-source", "mic.monitor")

        if self.device == "default":
            # It follows, and hears a microphone that is dead.
            return self._zeros("default source changed", begin, end)
        return Fault("default source changed", begin, end, Sound.GOOD)


class PulseRig(SoundServerRig):
    """A real PulseAudio."""

    def __init__(self, folder: Path, sound: Int16, device: str = "desk") -> None:
        server = PulseServer(folder)
        super().__init__(server, sound, device)
        self.faults += [
            Fault(
                "pulseaudio stopped",
                lambda _: server.stop_signal(),
                lambda _: server.continue_signal(),
                problems=SERVER_WORDS,
            ),
            Fault(
                "source suspended",
                lambda _: self._suspend("1"),
                lambda _: self._suspend("0"),
                problems=problems("stalled", "all_zero"),
                detect_s=max(STALL_S, ZEROS_S) + SLACK_S,
            ),
        ]

    def _suspend(self, word: str) -> None:
        if self.device == "desk":
            self.server.pactl("suspend-source", "desk", word)
        else:  # a monitor sleeps with its sink
            self.server.pactl("suspend-sink", "mic", word)


class PipeWireRig(SoundServerRig):
    """A real PipeWire, each of whose daemons can be lost on its own."""

    def __init__(self, folder: Path, sound: Int16, device: str = "default") -> None:
        self.pipewire = PipeWireServer(folder)
        super().__init__(self.pipewire, sound, device)
        session = self.pipewire
        self.faults += [
            self._part_killed(session.core, Sound.NONE),
            self._part_killed(session.pulse, Sound.NONE),
            Fault(
                "wireplumber alone killed",
                lambda _: session.kill_manager(),
                self._start_manager,
                problems=SERVER_WORDS | SOURCE_WORDS,
            ),
            self._part_stopped(session.core, Sound.NONE),
            self._part_stopped(session.pulse, Sound.NONE),
            # Without it nothing new is linked; what is linked goes on.
            self._part_stopped(session.manager, Sound.UNKNOWN),
        ]

    def _kill(self, _scene: Scene) -> None:
        self.pipewire.end_sound(kill=True)

    def _stop(self, _scene: Scene) -> None:
        self.pipewire.end_sound(kill=False)

    def _start(self, _scene: Scene) -> None:
        self.pipewire.start_sound()
        self._furnish()

    def _start_manager(self, _scene: Scene) -> None:
        self.pipewire.start_manager()
        self._furnish()
        if self._speaker:
            self._speaker.begin_again()

    def _part_killed(self, part: Part, sound: Sound) -> Fault:
        def end(_scene: Scene) -> None:
            if self.pipewire.start_missing():
                self._furnish()

        return Fault(
            f"{part.name} alone killed",
            lambda _: part.kill(),
            end,
            sound,
            problems=SERVER_WORDS | SOURCE_WORDS,
        )

    def _part_stopped(self, part: Part, sound: Sound) -> Fault:
        return Fault(
            f"{part.name} stopped",
            lambda _: part.stop_signal(),
            lambda _: part.continue_signal(),
            sound,
            problems=SERVER_WORDS | SOURCE_WORDS,
        )
