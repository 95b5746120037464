"""What is around the emulated Pi: a room with somebody who speaks, and a broker with a listener.

In: a folder. Out: a PulseAudio whose `mic.monitor` is what the microphone hears, and a mosquitto
on loopback with a log of all messages, each with the time of day. Python's own library alone.
"""

import random
import socket
import subprocess
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from pi_lab.machine import CheckError, wait_for

RATE_HZ, BYTES = 48_000, 2
NOISE_S = 10


class Room:
    """Starts all of it; `close` ends it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.socket = folder / "pulse.sock"
        self._log = folder / "mqtt.log"
        self._log.write_bytes(b"")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._closed = False
        self._pulse(folder)
        threading.Thread(target=self._hum, daemon=True).start()
        self._broker(folder)
        threading.Thread(target=self._listen, daemon=True).start()

    def _pulse(self, folder: Path) -> None:
        words = ["pulseaudio", "-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1"]
        words += ["--realtime=no", "--high-priority=no", "--log-target=stderr"]
        words.append(f"--load=module-native-protocol-unix auth-anonymous=1 socket={self.socket}")
        sink = f"rate={RATE_HZ} channels=1"
        for name in ("mic", "mouth"):
            words.append(f"--load=module-null-sink norewinds=true sink_name={name} {sink}")
        self._start(words, folder / "pulse.log", HOME=str(folder), XDG_RUNTIME_DIR=str(folder))
        wait_for("PulseAudio", 20, lambda: "yes" if self.socket.exists() else "", 0.1)

    def _broker(self, folder: Path) -> None:
        settings = folder / "mosquitto.conf"
        settings.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\n"
        )
        self._start(["/usr/sbin/mosquitto", "-c", str(settings)], folder / "mosquitto.log")
        wait_for("mosquitto", 20, self._answers, 0.1)

    def _answers(self) -> str:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return "yes"
        except OSError:
            return ""

    def _start(self, words: list[str], log: Path, **variables: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            process = subprocess.Popen(
                ["env", *(f"{name}={value}" for name, value in variables.items()), *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self._processes.append(process)
        return process

    def _player(self) -> subprocess.Popen[bytes]:
        words = ["pacat", f"--server=unix:{self.socket}", "--device=mic", "--raw"]
        words += ["--format=s16le", f"--rate={RATE_HZ}", "--channels=1", "--latency-msec=200"]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._processes.append(process)
        return process

    def _hum(self) -> None:
        """Play noise of an amplitude that a quiet room has: no real one is all zero."""
        source = random.Random(0)  # noqa: S311 - no secret
        samples = (source.randint(-3, 3) for _ in range(RATE_HZ * NOISE_S))
        noise = b"".join(each.to_bytes(BYTES, "little", signed=True) for each in samples)
        player = self._player()
        try:
            while player.stdin and not self._closed:
                player.stdin.write(noise)
        except OSError:  # the end
            return

    def _listen(self) -> None:
        words = ["mosquitto_sub", "-p", str(self.port), "-v", "-q", "1", "-t", "harkd/#"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._processes.append(process)
        with self._log.open("a", encoding="utf-8") as log:
            for line in process.stdout or ():
                at = datetime.now(UTC).strftime("%H:%M:%S")
                log.write(f"{at} {line.decode(errors='replace').rstrip()}\n")
                log.flush()

    @property
    def mark(self) -> int:
        """How much has come on MQTT so far."""
        return self._log.stat().st_size

    def messages(self, topic: str, since: int = 0) -> list[str]:
        """Return what came on `harkd/<any>/<topic>`, after `since` bytes of the log."""
        found = []
        for line in self._log.read_bytes()[since:].decode().splitlines():
            name, _, payload = line[len("00:00:00 ") :].partition(" ")
            if name.split("/", 2)[2:] == [topic]:
                found.append(payload)
        return found

    def told(self, since: int = 0) -> list[str]:
        """Return all messages after `since`, as `time topic payload`."""
        return self._log.read_bytes()[since:].decode().splitlines()

    def speak(self, wav: Path) -> None:
        """Play a recording; returns at its end."""
        words = ["paplay", f"--server=unix:{self.socket}", "--device=mic", str(wav)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise CheckError(f"paplay: {done.stderr}")

    def close(self) -> None:
        """End what was started."""
        self._closed = True
        for process in reversed(self._processes):
            process.terminate()
        deadline = time.monotonic() + 5
        for process in self._processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
