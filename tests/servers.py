"""Real servers for the integration tests: a private PulseAudio, a mosquitto, and a subscriber.

Each server runs in a folder of its own, with sockets or a loopback port of its own, and touches
neither the user's session nor the system's services. A program that is missing raises
`MissingProgramError` with the Debian package to install: these tests are never skipped.
"""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0

DEBIAN_PACKAGES = {
    "flite": "flite",
    "gcc": "gcc",
    "mosquitto": "mosquitto",
    "mosquitto_passwd": "mosquitto",
    "openssl": "openssl",
    "pactl": "pulseaudio-utils",
    "paplay": "pulseaudio-utils",
    "pulseaudio": "pulseaudio",
}

# A null sink renders two seconds at a time unless a stream asks for less, so that a reader of its
# monitor may hear nothing for two seconds, even when such a stream has just begun (measured: first
# block after 1.97 s). Without rewinds it renders 50 ms at a time at most (first block: 0.08 s).
WARM = "norewinds=true"

PULSE_ASOUND_CONF = """\
pcm.pulse { type pulse hint { show on description "PulseAudio" } }
pcm.!default { type pulse hint { show on description "Default, by PulseAudio" } }
ctl.!default { type pulse }
"""


class MissingProgramError(Exception):
    """A program that the tests run is not installed."""


def program(name: str) -> str:
    """Returns the path of a program, or raises `MissingProgramError`."""
    # Debian keeps servers in /usr/sbin, which a user's PATH leaves out.
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if path is None:
        package = DEBIAN_PACKAGES[name]
        raise MissingProgramError(f"{name} is not installed: apt-get install {package}")
    return path


def free_port() -> int:
    """Returns a loopback TCP port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Polls until the condition holds, or raises AssertionError with `what` was waited for."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"no {what} within {timeout_s} s")
        time.sleep(0.02)


def end(process: subprocess.Popen[bytes], *, kill: bool = False) -> None:
    """Ends a process, stopped ones too, and reaps it. Does nothing if it has ended already."""
    if process.poll() is None:
        if kill:
            process.kill()
        else:
            process.terminate()
            # A process under SIGSTOP does not see SIGTERM before it continues.
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


class Server:
    """A program that runs in a folder between `__enter__` and `__exit__`; its output is a log."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The id of the running process; raises RuntimeError if there is none."""
        return self._running().pid

    def start(self) -> None:
        """Starts the server and returns when it answers."""
        raise NotImplementedError

    def stop(self) -> None:
        """Ends the server in an orderly way."""
        self._end(kill=False)

    def kill(self) -> None:
        """Ends the server as a crash or a pulled plug would."""
        self._end(kill=True)

    def stop_signal(self) -> None:
        """Lets the server hang: it keeps its sockets and answers nothing."""
        self._running().send_signal(signal.SIGSTOP)

    def continue_signal(self) -> None:
        """Undoes `stop_signal`."""
        self._running().send_signal(signal.SIGCONT)

    def _launch(self, arguments: list[str], env: Mapping[str, str] | None = None) -> None:
        if self._process is not None:
            raise RuntimeError(f"{self.name} is already running")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [program(self.name), *arguments],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _wait_for_answer(self, answers: Callable[[], bool]) -> None:
        def answered_or_ended() -> bool:
            return self._running().poll() is not None or answers()

        try:
            wait_until(answered_or_ended, f"answer from {self.name}", START_TIMEOUT_S)
            status = self._running().poll()
            if status is not None:
                raise AssertionError(f"{self.name} ended with status {status}")
        except AssertionError as error:
            raise AssertionError(f"{error}; its log:\n{self.log.read_text()}") from None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process

    def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is not None:
            end(process, kill=kill)


class PulseServer(Server):
    """A private PulseAudio whose only devices are null sinks; `mic.monitor` is the microphone."""

    def __init__(self, folder: Path, *, rate_hz: int = 48_000, channels: int = 1) -> None:
        super().__init__("pulseaudio", folder)
        self.rate_hz = rate_hz
        self.channels = channels
        self._socket = folder / "pulse.sock"
        self._modules: dict[str, str] = {}
        self._clients: list[subprocess.Popen[bytes]] = []

    @property
    def env(self) -> dict[str, str]:
        """The variables that make this the only PulseAudio and ALSA that a client sees."""
        return {
            "ALSA_CONFIG_PATH": str(self.folder / "asound.conf"),
            "PULSE_CLIENTCONFIG": str(self.folder / "client.conf"),
            "PULSE_COOKIE": str(self.folder / "cookie"),
            "PULSE_RUNTIME_PATH": str(self.folder / "run"),
            "PULSE_SERVER": f"unix:{self._socket}",
        }

    def start(self) -> None:
        # Found late, as a capture without devices, if it is missing.
        plugin = "alsa-lib/libasound_module_pcm_pulse.so"
        if not [*Path("/usr").glob(f"lib*/{plugin}"), *Path("/usr/lib").glob(f"*/{plugin}")]:
            raise MissingProgramError(
                "ALSA's PulseAudio plugin is not installed: apt-get install libasound2-plugins"
            )
        for name in ("run", "state"):
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        (self.folder / "asound.conf").write_text(PULSE_ASOUND_CONF)
        (self.folder / "client.conf").write_text("autospawn = no\n")
        env = {**os.environ, **self.env, "PULSE_STATE_PATH": str(self.folder / "state")}
        env.pop("DBUS_SESSION_BUS_ADDRESS", None)
        arguments = ["-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1"]
        arguments += ["--realtime=no", "--high-priority=no", "--log-target=stderr"]
        arguments += [
            f"--load=module-native-protocol-unix auth-anonymous=1 socket={self._socket}",
            f"--load=module-null-sink {WARM} sink_name=mic rate={self.rate_hz}"
            f" channels={self.channels}",
        ]
        self._launch(arguments, env)
        self._wait_for_answer(lambda: self._pactl_status("info") == 0)
        self.pactl("set-default-source", "mic.monitor")

    def play(
        self, wav: Path, latency_ms: int = 200, *, sink: str = "mic"
    ) -> subprocess.Popen[bytes]:
        """Starts to play a file into a microphone; the caller may wait for the player's end."""
        arguments = [program("paplay"), f"--device={sink}", f"--latency-msec={latency_ms}"]
        arguments.append(str(wav))
        return self._client(arguments)

    def add_sink(self, name: str) -> None:
        """Adds a null sink, and with it the source `<name>.monitor`."""
        self._modules[name] = self.pactl(
            "load-module", "module-null-sink", WARM, f"sink_name={name}"
        )

    def add_source(self, name: str, master: str = "mic.monitor") -> None:
        """Adds a source called `name` that hears what `mic` plays, as a second microphone would.

        `master` names the source that it hears instead.
        """
        self._modules[name] = self.pactl(
            "load-module", "module-remap-source", f"master={master}", f"source_name={name}"
        )

    def remove(self, name: str) -> None:
        """Removes what `add_sink` or `add_source` added, as unplugging it would."""
        self.pactl("unload-module", self._modules.pop(name))

    def pactl(self, *arguments: str) -> str:
        """Runs pactl on this server and returns what it printed."""
        done = subprocess.run(
            [program("pactl"), *arguments],
            env={**os.environ, **self.env},
            check=True,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
        )
        return done.stdout.strip()

    def _pactl_status(self, *arguments: str) -> int:
        try:
            self.pactl(*arguments)
        except subprocess.CalledProcessError as error:
            return error.returncode
        return 0

    def _client(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        client = subprocess.Popen(
            arguments,
            env={**os.environ, **self.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._clients.append(client)
        return client

    def _end(self, *, kill: bool) -> None:
        super()._end(kill=kill)
        for client in self._clients:
            end(client, kill=True)
        self._clients.clear()
        self._modules.clear()


class Mosquitto(Server):
    """A mosquitto on a loopback port that stays the same over `kill` and `start`.

    Args:
        folder: Where its files lie.
        user: The one user that it lets in; anybody if there is none.
        password: That user's.
        lines: More lines of its settings, for the listener.
    """

    def __init__(
        self,
        folder: Path,
        *,
        user: str | None = None,
        password: str = "",
        more: tuple[str, ...] = ("persistence false",),
        lines: Sequence[str] = (),
    ) -> None:
        super().__init__("mosquitto", folder)
        self._more = more
        self.host = "127.0.0.1"
        self.port = free_port()
        self.user = user
        self.password = password
        self.lines = lines

    def restart(self, lines: Sequence[str] | None = None) -> None:
        """Ends it and starts it again, with other `lines` where they are given."""
        self.kill()
        self.lines = self.lines if lines is None else lines
        self.start()

    def start(self) -> None:
        lines = [f"listener {self.port} {self.host}", "log_type all", *self._more]
        if os.geteuid() == 0:
            # It would become the user `mosquitto`, who cannot read a test's folder.
            lines.append("user root")
        if "protocol websockets" in self.lines:
            # Mosquitto 2.0.11 ends itself if it has no other listener.
            lines.insert(0, f"listener {free_port()} {self.host}")
        if self.user is None:
            lines.append("allow_anonymous true")
        else:
            passwords = self.folder / "passwords"
            subprocess.run(
                [program("mosquitto_passwd"), "-c", "-b", passwords, self.user, self.password],
                check=True,
                capture_output=True,
            )
            lines += ["allow_anonymous false", f"password_file {passwords}"]
        conf = self.folder / "mosquitto.conf"
        conf.write_text("\n".join([*lines, *self.lines]) + "\n")
        self._launch(["-c", str(conf)])
        self._wait_for_answer(self._accepts)

    def _accepts(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1.0):
                return True
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Received:
    """One message, as a subscriber got it."""

    received_ns: int
    """Nanoseconds of the monotonic clock"""
    received_at: datetime
    """UTC"""
    topic: str
    payload: bytes
    retain: bool
    qos: int
    expiry_s: int | None
    """Seconds that were left of the MQTT 5 message expiry; None without one"""


class Subscriber:
    """A real client that collects what a broker sends it, and comes back when the broker does."""

    def __init__(
        self,
        broker: Mosquitto,
        topic: str = "#",
        *,
        qos: int = 2,
        protocol: MQTTProtocolVersion | int = MQTTv5,
        user: str | None = None,
        password: str | None = None,
    ) -> None:
        self._broker = broker
        self._topic = topic
        self._qos = qos
        self._messages: list[Received] = []
        self._changed = threading.Condition()
        self._subscribed = False
        self._refusal: str | None = None
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion(protocol))
        self._client.username_pw_set(user, password)
        self._client.reconnect_delay_set(min_delay=1, max_delay=1)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    def __enter__(self) -> Self:
        self._client.connect(self._broker.host, self._broker.port)
        self._client.loop_start()
        try:
            self.wait_subscribed()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def messages(self) -> list[Received]:
        """A copy of what came so far, in order."""
        with self._changed:
            return list(self._messages)

    def wait_subscribed(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Returns when the broker has granted the subscription, after an outage too."""
        with self._changed:
            self._changed.wait_for(lambda: self._subscribed or self._refusal, timeout_s)
            if self._refusal:
                raise AssertionError(f"the broker refused: {self._refusal}")
            if not self._subscribed:
                raise AssertionError(f"no subscription to {self._topic} within {timeout_s} s")

    def wait_lost(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Returns when it has noticed that the broker is gone."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._subscribed, timeout_s):
                raise AssertionError(f"the broker is not gone within {timeout_s} s")

    def wait_for(
        self, predicate: Callable[[Received], bool], timeout_s: float, *, after: int = 0
    ) -> Received:
        """Returns the first message, of those from index `after` on, for which it holds.

        Raises AssertionError, with the list of what came, if there is none in time.
        """
        deadline_s = time.monotonic() + timeout_s
        seen = after
        with self._changed:
            while True:
                for message in self._messages[seen:]:
                    if predicate(message):
                        return message
                seen = max(seen, len(self._messages))
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            came = [f"\n  {one.topic} {one.payload[:200]!r}" for one in self._messages[after:]]
        listing = "".join(came) or " nothing"
        raise AssertionError(f"no such message within {timeout_s} s; what came:{listing}")

    def publish(
        self, topic: str, payload: str | bytes, qos: int = 1, *, retain: bool = False
    ) -> None:
        """Publishes, and returns when the broker has taken the message."""
        sent = self._client.publish(topic, payload, qos, retain=retain)
        sent.wait_for_publish(START_TIMEOUT_S)
        if not sent.is_published():
            raise AssertionError(f"the broker did not take the message to {topic}")

    def close(self) -> None:
        """Disconnects and joins the client's thread."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self,
        client: Client,
        _userdata: object,
        _flags: ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        with self._changed:
            self._refusal = str(reason) if reason.is_failure else None
            self._changed.notify_all()
        if not reason.is_failure:
            client.subscribe(self._topic, self._qos)

    def _on_disconnect(
        self,
        _client: Client,
        _userdata: object,
        _flags: DisconnectFlags,
        _reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._set_subscribed(False)

    def _on_subscribe(
        self,
        _client: Client,
        _userdata: object,
        _message_id: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        self._set_subscribed(not any(reason.is_failure for reason in reasons))

    def _set_subscribed(self, subscribed: bool) -> None:
        with self._changed:
            self._subscribed = subscribed
            self._changed.notify_all()

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        expiry_s = getattr(message.properties, "MessageExpiryInterval", None)
        received = Received(
            received_ns=time.monotonic_ns(),
            received_at=datetime.now(UTC),
            topic=message.topic,
            payload=bytes(message.payload),
            retain=message.retain,
            qos=message.qos,
            expiry_s=expiry_s,
        )
        with self._changed:
            self._messages.append(received)
            self._changed.notify_all()
