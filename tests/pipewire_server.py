"""A private PipeWire for the integration tests: its three daemons and the session bus they need.

Clients see it as a PulseAudio, through pipewire-pulse. The microphone is the monitor of the null
sink `mic`, which belongs to pipewire itself and so outlives the other two.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from servers import PULSE_ASOUND_CONF, START_TIMEOUT_S, PulseServer, Server, program, wait_until

SINK = """{
  factory.name = support.null-audio-sink
  node.name = mic
  node.description = mic
  media.class = Audio/Sink
  object.linger = true
  audio.position = [ MONO ]
  audio.rate = 48000
}"""
SINK_CONF = f"context.objects = [ {{ factory = adapter args = {SINK} }} ]\n"


class Part(Server):
    """One of the daemons.

    Args:
        name: The program.
        folder: Where its log lies.
        env: All of its environment.
        ready: Tells when the others can rely on it.
        arguments: Its command line.
        socket: Is removed before it starts, so that `ready` does not see the one of before.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        env: dict[str, str],
        ready: Callable[[], bool],
        arguments: tuple[str, ...] = (),
        socket: Path | None = None,
    ) -> None:
        super().__init__(name, folder)
        self._env = env
        self._ready = ready
        self._arguments = list(arguments)
        self._socket = socket

    @property
    def ended(self) -> bool:
        """Whether it does not run."""
        return self._process is None or self._process.poll() is not None

    def start(self) -> None:
        if self._socket:
            self._socket.unlink(missing_ok=True)
        self._launch(self._arguments, self._env)
        self._wait_for_answer(self._ready)


class PipeWireServer(PulseServer):
    """pipewire, wireplumber and pipewire-pulse; each part can be killed or stopped on its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.name = "pipewire"
        conf = folder / "config" / "pipewire" / "pipewire.conf.d"
        for made in (folder / "home", folder / "pulse", conf):
            made.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        (conf / "mic.conf").write_text(SINK_CONF)
        (folder / "asound.conf").write_text(PULSE_ASOUND_CONF)
        (folder / "client.conf").write_text("autospawn = no\n")
        self._socket = folder / "pulse" / "native"
        bus, core = folder / "bus", folder / "pipewire-0"
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PULSE_", "PIPEWIRE_", "XDG_", "DBUS_", "DISPLAY"))
        }
        env = {
            **kept,
            "XDG_RUNTIME_DIR": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_STATE_HOME": str(folder / "home"),
            "HOME": str(folder / "home"),
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={bus}",
        }
        self._env = env
        options = ("--session", f"--address=unix:path={bus}", "--nofork", "--nopidfile")
        self.bus = Part("dbus-daemon", folder, env, bus.exists, options, bus)
        self.core = Part("pipewire", folder, env, core.exists, socket=core)
        # It is of use once the null sink has its ports, which `_wait_for_microphone` sees.
        self.manager = Part("wireplumber", folder, env, lambda: True)
        self.pulse = Part("pipewire-pulse", folder, env, lambda: self._pactl_status("info") == 0)

    @property
    def pid(self) -> int:
        return self.core.pid

    def start(self) -> None:
        """Starts what does not run, in the order in which a session does."""
        self.bus.start()
        self.start_sound()

    def start_sound(self) -> None:
        """Starts the three that carry sound."""
        self.core.start()
        self.manager.start()
        self.pulse.start()
        self.wait_for_microphone()

    def kill_manager(self) -> None:
        """Kills wireplumber; the sound cards, which are its own, go with it."""
        for name in list(self._modules):
            self.remove(name)
        self._pw_cli("destroy", "mic")
        self.manager.kill()

    def start_manager(self) -> None:
        """Starts wireplumber; the sound cards come with it.

        A card that stayed would never be heard again: wireplumber 0.4.13, started anew, does not
        take over a node that is configured already, so that nobody's stream is linked to it.
        """
        self.manager.start()
        self._pw_cli("create-node", "adapter", SINK)
        self.wait_for_microphone()

    def _pw_cli(self, *arguments: str) -> None:
        subprocess.run(
            [program("pw-cli"), *arguments],
            env=self._env,
            check=True,
            capture_output=True,
            timeout=START_TIMEOUT_S,
        )

    def start_missing(self) -> bool:
        """Starts which of the three has ended; True where pipewire-pulse's modules are gone."""
        parts = (self.core, self.manager, self.pulse)
        missing = [part for part in parts if part.ended]
        if self.core in missing:
            # The others may notice only later that they hang in the air.
            missing = list(parts)
        for part in missing:
            part.kill()
        for part in missing:
            part.start()
        self.wait_for_microphone()
        if self.pulse in missing:
            self._modules.clear()
        return self.pulse in missing

    def wait_for_microphone(self) -> None:
        """Returns when the microphone is there, and makes it the default."""

        def chosen() -> bool:
            try:
                self.pactl("set-default-source", "mic.monitor")
                return self.pactl("get-default-source") == "mic.monitor"
            except (subprocess.SubprocessError, OSError):
                return False

        wait_until(chosen, "microphone of pipewire", START_TIMEOUT_S)

    def stop(self) -> None:
        self.end_sound(kill=False)
        self.bus.stop()

    def kill(self) -> None:
        self.end_sound(kill=True)
        self.bus.kill()

    def end_sound(self, *, kill: bool) -> None:
        """Ends the three that carry sound."""
        self._end(kill=kill)
        for part in (self.pulse, self.manager, self.core):
            if kill:
                part.kill()
            else:
                part.stop()
