"""The service in a `Container`: its processes, what it publishes, and somebody who speaks to it."""

import json
import subprocess
import time

from service_lab.container import CheckError, Container, wait_for

TOPICS = "harkd/kitchen"
FINAL_S, RESTART_S = 60.0, 60.0


class Service:
    """The service inside, its microphone and what it publishes."""

    def __init__(self, inside: Container, password: str) -> None:
        self.inside = inside
        self._password = password
        self._log = inside.folder / "mqtt.log"
        self._log.write_bytes(b"")
        self._subscriber: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The daemon's process id inside; 0 where there is none."""
        return int(self.inside.show("MainPID"))

    @property
    def restarts(self) -> int:
        """How often systemd has started it anew."""
        return int(self.inside.show("NRestarts"))

    def capture(self) -> str:
        """Return the process id of the capture process; empty where there is none."""
        said = self.inside.run("pgrep", "-P", str(self.pid), "-f", "harkd.capture", code=None)
        return said if said.isdigit() else ""

    def subscribe(self) -> None:
        """Collect messages from now on; comes back with the broker."""
        if self._subscriber:
            self._subscriber.terminate()
            self._subscriber.wait()
        words = [
            "mosquitto_sub",
            "-u",
            "harkd",
            "-P",
            self._password,
            "-v",
            "-q",
            "1",
            "-t",
            f"{TOPICS}/#",
        ]
        with self._log.open("ab") as log:
            self._subscriber = subprocess.Popen(self.inside.command(*words), stdout=log, stderr=log)

    def close(self) -> None:
        """Collect no more."""
        if self._subscriber:
            self._subscriber.terminate()
            self._subscriber.wait()

    def messages(self, topic: str, since: int = 0) -> list[str]:
        """Return what came on a topic, after `since` bytes of the log."""
        text = self._log.read_bytes()[since:].decode(errors="replace")
        start = f"{TOPICS}/{topic} "
        return [line[len(start) :] for line in text.splitlines() if line.startswith(start)]

    @property
    def mark(self) -> int:
        """How much has come so far."""
        return self._log.stat().st_size

    def state_is(self, *states: str, since: int = 0) -> str:
        """Return the last state if it is one of these."""
        told = self.messages("state", since)
        last = json.loads(told[-1])["state"] if told else ""
        return last if last in states else ""

    def speak(self, *words: str) -> str:
        """Play a recording until a final comes, and return its text; `words` are how."""
        since = self.mark
        wav = "/root/models/moonshine-tiny-en/samples/beckett.wav"
        for _ in range(3):
            play = ("paplay", "--server=/run/pulse/native", "--device=mic", wav)
            self.inside.run(*(words or play))
            try:
                said = wait_for(
                    "final", FINAL_S / 3, lambda: "".join(self.messages("transcript/text", since))
                )
            except CheckError:
                continue
            if "fail" in said.lower():
                return said
        raise CheckError("no final of what was said")

    def heard(self) -> str:
        """Wait until it listens, then speak to it."""
        wait_for("listening", RESTART_S, lambda: self.state_is("listening", "speech"))
        return self.speak()

    def comes_back(self, restarts: int, began: float) -> str:
        """Wait for one more restart than there were, until it listens; return how long it took."""
        wait_for("restart", RESTART_S, lambda: "yes" if self.restarts > restarts else "")
        since = self.mark
        wait_for("start", RESTART_S, self.is_active)
        took_s = time.monotonic() - began
        wait_for("listening", RESTART_S, lambda: self.state_is("listening", since=since) or "")
        self.speak()
        return f"started anew after {took_s:.1f} s, and heard again"

    def is_active(self) -> str:
        """Return a word where it is active."""
        return "yes" if self.inside.show("ActiveState") == "active" else ""

    def without_restart(self, restarts: int, pid: int) -> None:
        """Raise where the daemon is another one."""
        if (self.restarts, self.pid) != (restarts, pid):
            raise CheckError("the daemon was started anew")
