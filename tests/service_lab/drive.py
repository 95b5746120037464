"""Boots a Debian in systemd-nspawn and tries harkd's service there, for `scripts/test-systemd`.

In: a folder whose `booted` has systemd, PulseAudio, mosquitto and harkd in /opt/harkd. Out: a table
on stdout, the journal in the folder, and status 1 where something failed. Needs Python's own
library alone, and root. What it writes is thrown away with its overlay.
"""

import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from service_lab.container import CheckError, Container, wait_for
from service_lab.faults import (
    broker_away,
    hang_capture,
    hang_daemon,
    kill_capture,
    kill_daemon,
)
from service_lab.installed import RESTART_S, Service

PASSWORD = secrets.token_hex(12)
SETTINGS = """\
device_id: kitchen
mqtt:
  host: localhost
  username: harkd
audio:
  device: default
recognizer:
  model: moonshine-tiny-en
"""

BROKER = """\
listener 1883 127.0.0.1
allow_anonymous false
password_file /etc/mosquitto/passwords
persistence false
"""

PULSE_UNIT = """\
[Service]
ExecStart=/usr/bin/pulseaudio --system --daemonize=no --disallow-exit -n --exit-idle-time=-1 \
 --realtime=no --high-priority=no \
 --load="module-native-protocol-unix auth-group=pulse-access auth-group-enable=1" \
 --load="module-null-sink norewinds=true sink_name=mic rate=48000 channels=1"
[Install]
WantedBy=multi-user.target
"""

SESSION_PULSE = """\
load-module module-native-protocol-unix
load-module module-null-sink norewinds=true sink_name=mic rate=48000 channels=1
set-default-source mic.monitor
"""

ROOM = """\
#!/usr/bin/python3
import random, subprocess
noise = b"".join(random.randint(-2, 2).to_bytes(2, "little", signed=True) for _ in range(480000))
words = ["pacat", "--server=/run/pulse/native", "--device=mic", "--raw"]
words += ["--format=s16le", "--rate=48000", "--channels=1"]
player = subprocess.Popen(words, stdin=subprocess.PIPE)
while True:
    player.stdin.write(noise)
"""
"""A room that is not all zero, as no real one is."""

ROOM_UNIT = """\
[Unit]
After=pulseaudio.service
[Service]
ExecStart=/usr/local/bin/room
Restart=always
RestartSec=1
[Install]
WantedBy=multi-user.target
"""

ASOUND = """\
pcm.!default { type pulse hint { show on description "Default, by PulseAudio" } }
ctl.!default { type pulse }
"""


def install_refusal(it: Service) -> str:
    """Nothing that would fail is started."""
    said = it.inside.run("/opt/harkd/bin/harkd", "service", "install", "--now", code=1)
    if "missing: the model" not in said or it.inside.show("ActiveState") != "inactive":
        raise CheckError(said)
    return "told, and not started"


def install(it: Service) -> str:
    """The service is installed, enabled and started, and runs as its own user."""
    inside = it.inside
    inside.run("/opt/harkd/bin/harkd", "models", "import", "/root/models/moonshine-tiny-en")
    said = inside.run("/opt/harkd/bin/harkd", "service", "install", "--now")
    if "missing" in said or not it.is_active() or inside.show("UnitFileState") != "enabled":
        raise CheckError(said)
    user = inside.run("ps", "-o", "user=", "-p", str(it.pid))
    if user != "harkd":
        raise CheckError(f"it runs as {user}")
    return f"READY, as the user {user}; says: {inside.show('StatusText')}"


def verify(it: Service) -> str:
    """systemd has nothing against the unit, and it is locked up."""
    if said := it.inside.run("systemd-analyze", "verify", "--man=no", "harkd.service"):
        raise CheckError(said)
    said = it.inside.run("systemd-analyze", "security", "--no-pager", "harkd.service")
    match = re.search(r"exposure level for harkd.service: ([0-9.]+)", said)
    if not match or float(match[1]) > 2.5:
        raise CheckError(said)
    status = it.inside.run("cat", f"/proc/{it.pid}/status")
    facts = dict(re.findall(r"^(NoNewPrivs|Seccomp|CapEff):\s*(\S+)", status, re.MULTILINE))
    if facts != {"NoNewPrivs": "1", "Seccomp": "2", "CapEff": "0000000000000000"}:
        raise CheckError(str(facts))
    return f"exposure {match[1]}, no capability"


def speech(it: Service) -> str:
    """Speech gives a final."""
    return it.heard()


def credential(it: Service) -> str:
    """The broker lets it in with the credential's password; no other place has that."""
    wait_for("online", 20, lambda: "online" if "online" in it.messages("availability") else "")
    status = it.inside.run("stat", "--format=%a %U", "/etc/harkd/mqtt-password")
    if status != "600 root":
        raise CheckError(status)
    environ = it.inside.run("cat", f"/proc/{it.pid}/environ")
    if PASSWORD in environ:
        raise CheckError("the password is in the environment")
    return "logged in; the file is root's alone"


def offline(it: Service) -> str:
    """A boot without network starts it, and waits for nothing."""
    inside = it.inside
    it.close()  # the container ends when all in it are reaped, the subscriber by us
    inside.end()
    inside.boot()
    inside.booted()
    if not it.is_active() or (links := inside.run("ls", "/sys/class/net")) != "lo":
        raise CheckError(inside.run("systemctl", "status", "harkd", code=None))
    since = it.mark
    it.subscribe()
    wait_for("listening", RESTART_S, lambda: it.state_is("listening", since=since))
    it.speak()
    return f"with nothing but {links}, active when the boot is over; heard"


def reload(it: Service) -> str:
    """`systemctl reload` reads the settings again."""
    pid, since = it.pid, it.mark
    changed = SETTINGS + "vad:\n  aggressiveness: 3\n"
    it.inside.write("/etc/harkd/harkd.yaml", changed)
    it.inside.run("systemctl", "reload", "harkd")
    topic = "vad/aggressiveness/state"
    wait_for("new setting", 15, lambda: "3" if "3" in it.messages(topic, since) else "")
    if it.pid != pid:
        raise CheckError("the daemon was started anew")
    return "vad.aggressiveness is 3"


def home(it: Service) -> str:
    """It starts from an environment in a home that nobody else may enter."""
    inside = it.inside
    inside.run("mkdir", "--mode=700", "/home/pi")
    inside.run("cp", "-a", "/opt/harkd", "/home/pi/venv")
    inside.run("sed", "-i", "1s|/opt/harkd|/home/pi/venv|", "/home/pi/venv/bin/harkd")
    since = it.mark
    inside.run("/home/pi/venv/bin/harkd", "service", "install", "--now")
    command = inside.run("ps", "-o", "args=", "-p", str(it.pid))
    if not command.startswith("/home/pi/venv/bin/python"):
        raise CheckError(command)
    wait_for("listening", RESTART_S, lambda: it.state_is("listening", since=since))
    it.speak()
    return "heard again; of /home it sees " + inside.run(
        "nsenter", f"--target={it.pid}", "--mount", "ls", "/home", "/home/pi"
    ).replace("\n", " ")


def session(it: Service) -> str:
    """The unit of a user's session starts, and hears that session's PulseAudio."""
    inside = it.inside
    inside.run("useradd", "--create-home", "--shell=/bin/sh", "eve")
    uid = inside.run("id", "-u", "eve")
    words = f"HOME=/home/eve XDG_RUNTIME_DIR=/run/user/{uid}"
    settings = SETTINGS.replace(": harkd\n", ": harkd\n  password_file: ~/password\n")
    inside.write("/home/eve/.config/harkd/harkd.yaml", settings)
    inside.write("/home/eve/password", PASSWORD)
    inside.write("/home/eve/.config/pulse/default.pa", SESSION_PULSE)
    models = "/home/eve/.local/share/harkd/"
    inside.run("mkdir", "-p", models)
    inside.run("cp", "-r", "/root/models", models)
    inside.run("chown", "-R", "eve", "/home/eve")
    inside.run("loginctl", "enable-linger", "eve")
    look = ("sh", "-c", f"test -S /run/user/{uid}/systemd/private && echo yes")
    wait_for("manager of the session", 30, lambda: inside.run(*look, code=None))
    harkd = f"{words} /opt/harkd/bin/harkd service"
    since = it.mark
    try:
        inside.run("su", "eve", "-c", f"{harkd} install --user --now")
        wait_for("listening", RESTART_S, lambda: it.state_is("listening", since=since))
        wav = f"{models}models/moonshine-tiny-en/samples/beckett.wav"
        it.speak("su", "eve", "-c", f"{words} paplay --device=mic {wav}")
        inside.run("su", "eve", "-c", f"{harkd} status --user", code=None)
    finally:
        inside.run("su", "eve", "-c", f"{harkd} uninstall --user", code=None)
    if inside.run("find", "/home/eve/.config/systemd", "-type", "f"):
        raise CheckError("the unit is still there")
    return "heard, and removed again"


def stop(it: Service) -> str:
    """It ends by itself, in time, and says that it is offline."""
    since, began = it.mark, time.monotonic()
    it.inside.run("systemctl", "stop", "harkd")
    took_s = time.monotonic() - began
    found = [it.inside.show(name) for name in ("Result", "ExecMainCode", "ExecMainStatus")]
    if found != ["success", "1", "0"]:
        raise CheckError(f"Result, ExecMainCode, ExecMainStatus: {found}")
    wait_for(
        "offline", 10, lambda: "yes" if "offline" in it.messages("availability", since) else ""
    )
    return f"exit 0 after {took_s:.1f} s, offline"


def no_password(it: Service) -> str:
    """A credential that is not there keeps it from nothing."""
    it.inside.run("rm", "/etc/harkd/mqtt-password")
    it.inside.run("systemctl", "start", "harkd")
    if not it.is_active():
        raise CheckError("it does not run")
    it.inside.run("systemctl", "stop", "harkd")
    return "starts, and the broker refuses the login"


def secret(it: Service) -> str:
    """The password is in no log."""
    for words in (["journalctl", "--no-pager", "--output=export"], ["journalctl", "--no-pager"]):
        if PASSWORD in it.inside.run(*words):
            raise CheckError("the password is in the journal")
    return "not in the journal"


def status(it: Service) -> str:
    """The command tells what it has to."""
    said = it.inside.run("/opt/harkd/bin/harkd", "service", "status", code=None)
    (it.inside.folder / "status.txt").write_text(said + "\n")
    if "watchdog:" not in said or "inactive" not in said:
        raise CheckError(said)
    return "see status.txt"


def uninstall(it: Service) -> str:
    """Nothing but settings and state stays; with --purge, nothing."""
    inside = it.inside
    inside.run("/opt/harkd/bin/harkd", "service", "uninstall")
    look = ("find", "/etc", "/var/lib", "-name", "harkd*")
    left = set(inside.run(*look).split())
    if left != {"/etc/harkd", "/etc/harkd/harkd.yaml", "/var/lib/harkd"}:
        raise CheckError(str(left))
    inside.run("/opt/harkd/bin/harkd", "service", "uninstall", "--purge", "--yes")
    if rest := inside.run(*look):
        raise CheckError(rest)
    return "all gone"


CHECKS: list[Callable[[Service], str]] = [
    install_refusal,
    install,
    verify,
    credential,
    speech,
    offline,
    kill_daemon,
    hang_daemon,
    kill_capture,
    hang_capture,
    broker_away,
    reload,
    home,
    stop,
    session,
    no_password,
    secret,
    status,
    uninstall,
]


def set_up(inside: Container) -> None:
    """Give it a microphone, a broker, and what an administrator writes."""
    state = inside.booted()
    print(f"booted: {state}, {inside.run('systemctl', '--version').splitlines()[0]}")
    inside.write("/etc/systemd/system/pulseaudio.service", PULSE_UNIT)
    inside.write("/usr/local/bin/room", ROOM, mode="755")
    inside.write("/etc/systemd/system/room.service", ROOM_UNIT)
    inside.write("/etc/asound.conf", ASOUND)
    inside.write("/etc/mosquitto/mosquitto.conf", BROKER)
    inside.run("mosquitto_passwd", "-c", "-b", "/etc/mosquitto/passwords", "harkd", PASSWORD)
    inside.run("chown", "mosquitto", "/etc/mosquitto/passwords")
    inside.write("/etc/harkd/harkd.yaml", SETTINGS)
    inside.write("/etc/harkd/mqtt-password", PASSWORD + "\n", mode="600")
    inside.run("usermod", "--append", "--groups=pulse-access", "root")  # who speaks
    inside.run("systemctl", "daemon-reload")
    inside.run("systemctl", "enable", "--now", "pulseaudio", "room", "mosquitto")


def rows(it: Service) -> Iterator[tuple[str, bool, str, float]]:
    """Yield what was tried, whether it went well, what came of it, and the seconds."""
    for check in CHECKS:
        began = time.monotonic()
        try:
            ok, said = True, check(it)
        except (CheckError, subprocess.SubprocessError) as error:
            ok, said = False, str(error)
        yield (check.__doc__ or "").strip(), ok, said, time.monotonic() - began
        if not ok and check is install:
            return


def main() -> int:
    """Run all checks."""
    folder = Path(sys.argv[1])
    inside = Container(folder)
    it = Service(inside, PASSWORD)
    failed = 0
    try:
        set_up(inside)
        it.subscribe()
        print("| what | | result | s |\n|---|---|---|---|")
        for what, ok, said, took_s in rows(it):
            failed += not ok
            print(f"| {what} | {'ok' if ok else 'FAILED'} | {said} | {took_s:.1f} |", flush=True)
    finally:
        it.close()
        log = ("journalctl", "--no-pager", "--unit=harkd", "--output=short-precise")
        (folder / "journal.txt").write_text(inside.run(*log, code=None) + "\n")
        (folder / "all.txt").write_text(inside.run("journalctl", "--no-pager", code=None) + "\n")
        inside.end()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
