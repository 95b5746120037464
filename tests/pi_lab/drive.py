"""Installs harkd on an emulated Pi and tries it there, for `scripts/test-pi`.

In: `install` or `use`, and the folder that `scripts/test-pi` made. Out: a transcript on stdout, and
status 1 where something is not as it has to be. `install` leaves the disk installed; what `use`
writes is thrown away. Needs Python's own library alone, and root.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from pi_lab.machine import CORES, MEMORY_MB, CheckError, Machine, wait_for
from pi_lab.room import Room
from pi_lab.screen import Screen, Terminal, remark, sentence, tell

INSTALL_S, START_S, FINAL_S = 5400, 600, 240
SPOKEN = '"Set a timer for three hours and ten minutes."'
"""What is said in the recording that is played."""
PORT = 21883
SETTINGS = f"""\
device_id: kitchen
mqtt:
  host: broker.local
  port: {PORT}
"""
WORD, SHOWN = "ever", 150
"""What a final must have understood, where audio is lost; and how much of a message is shown."""


def host_pip() -> tuple[str, str]:
    """Return pip's configuration for the machine, and the certificates that it names."""
    said = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    found = dict(re.findall(r"^(?:global|:env:)\.([a-z-]+)='(.*)'$", said, re.MULTILINE))
    lines = ["[global]", "cert = /run/host/ca.crt", f"timeout = {found.get('default-timeout', 60)}"]
    for name in ("index-url", "extra-index-url", "trusted-host", "proxy"):
        # Folders of this machine are not there.
        if name in found and "file:" not in found[name]:
            lines.append(f"{name} = {found[name]}")
    certificates = found.get("cert", "/etc/ssl/certs/ca-certificates.crt")
    return "\n".join(lines) + "\n", Path(certificates).read_text()


def hand_in_pip(machine: Machine) -> None:
    """Let pip there use the index and certificates of here, until it is switched off."""
    settings, certificates = host_pip()
    machine.write("/run/host/pip.conf", settings)
    machine.write("/run/host/ca.crt", certificates)
    machine.run("sudo touch /etc/pip.conf && sudo mount --bind /run/host/pip.conf /etc/pip.conf")


def look_around(screen: Screen) -> None:
    """Show what machine it is, and that the card is there."""
    screen.type("uname -srm; grep PRETTY_NAME /etc/os-release; nproc; free -m | head -2")
    if "card 0" not in screen.type("arecord -l"):
        raise CheckError("there is no sound card")


def quickstart(machine: Machine, room: Room, folder: Path) -> None:
    """The README's first command: it installs all, listens, and shows what was said."""
    began = time.monotonic()
    terminal = Terminal(machine, "scripts/quickstart")
    try:
        terminal.wait_for("listening to", INSTALL_S)
        tell(f"# {time.monotonic() - began:.0f} s")
        wav = sentence(machine, folder)
        time.sleep(10)  # it has just begun, and is slow
        remark(f"{SPOKEN} is played into the card")
        began = time.monotonic()
        room.speak(wav)
        terminal.wait_for('" (', FINAL_S)
        tell(f"# {time.monotonic() - began:.0f} s after its first word")
    finally:
        remark("Ctrl-C")
        terminal.interrupt()


def install_service(screen: Screen) -> None:
    """The README's command for a service, with the settings for a broker elsewhere."""
    screen.write("/etc/harkd/harkd.yaml", SETTINGS)
    screen.type(".venv/bin/harkd config check")
    screen.type("sudo .venv/bin/harkd service install --now", most_s=1800)
    screen.type("systemctl is-active harkd")


def install(folder: Path, room: Room, pi: str) -> None:
    """Install it as the README says, from nothing, inside the machine."""
    machine = Machine(folder, folder / "disk.qcow2", room.socket, pi)
    try:
        remark(f"booted in {machine.boot():.0f} s: {CORES} cores, {MEMORY_MB} MB")
        hand_in_pip(machine)
        screen = Screen(machine)
        look_around(screen)
        quickstart(machine, room, folder)
        install_service(screen)
        machine.run("sudo umount /etc/pip.conf && sudo rm /etc/pip.conf && sync")
        remark("the machine is switched off")
        machine.power_off()
    finally:
        machine.pull_plug()


def show_final(room: Room, wav: Path, what: str) -> None:
    """Speak, and wait for the final at the broker; once more where the machine has missed it."""
    for attempt in (1, 2, 3):
        since, began = room.mark, time.monotonic()
        remark(f"{what}{f', once more ({attempt})' if attempt > 1 else ''}")
        room.speak(wav)
        try:
            text = wait_for_final(room, since)
        except CheckError as error:
            tell(f"# {error}")
            show_messages(room, since)
        else:
            tell(f"# {time.monotonic() - began:.0f} s after its first word, at the broker:")
            show_messages(room, since)
            if WORD in text.lower():
                return
    raise CheckError("no final of what was said")


def wait_for_final(room: Room, since: int) -> str:
    """Return the text of the final that comes after `since`. Raises CheckError."""
    return wait_for("final", FINAL_S, lambda: " ".join(room.messages("transcript/text", since)))


def show_messages(room: Room, since: int) -> None:
    """Show what came on MQTT, but for what comes every minute."""
    for line in room.told(since):
        if " homeassistant/" not in line and "/health " not in line:
            tell(line if len(line) <= SHOWN else line[:SHOWN] + " …")


def wait_listening(room: Room, since: int, most_s: float) -> None:
    """Wait until the state at the broker is `listening`."""

    def look() -> str:
        told = room.messages("state", since)
        return "yes" if told and json.loads(told[-1])["state"] == "listening" else ""

    wait_for("listening", most_s, look)


def show(machine: Machine, name: str) -> str:
    """Return a property of harkd's unit."""
    return machine.run(f"systemctl show harkd --property={name} --value")


def killed(machine: Machine, room: Room, screen: Screen, wav: Path) -> None:
    """Kill it without a word: systemd starts it anew, and it hears."""
    before, since, began = int(show(machine, "NRestarts")), room.mark, time.monotonic()
    screen.type("sudo kill -9 $(systemctl show harkd --property=MainPID --value)")
    wait_for("restart", 120, lambda: "yes" if int(show(machine, "NRestarts")) == before + 1 else "")
    wait_listening(room, since, START_S)
    remark(f"listening again after {time.monotonic() - began:.0f} s")
    screen.type("systemctl show harkd --property=NRestarts --property=ActiveState")
    show_final(room, wav, "it is played again")


def late(room: Room, screen: Screen, wav: Path) -> None:
    """What is older than `mqtt.max_age_s` when it is understood is nobody's command any more."""
    screen.write("/etc/harkd/harkd.yaml", SETTINGS + "  max_age_s: 1\n")
    screen.type("sudo systemctl reload harkd")
    since = room.mark
    remark("it is played again; a final older than 1 s is too late now")
    room.speak(wav)
    wait_for("late final", FINAL_S, lambda: " ".join(room.messages("transcript/missed", since)))
    show_messages(room, since)
    if room.messages("transcript", since):
        raise CheckError("a late final on `transcript`")


def use(folder: Path, room: Room, pi: str) -> None:
    """Boot what was installed, and try the service."""
    disk, wav = folder / "use.qcow2", folder / "sentence.wav"
    disk.unlink(missing_ok=True)
    made = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "disk.qcow2"]
    subprocess.run([*made, str(disk)], check=True)
    machine = Machine(folder, disk, room.socket, pi)
    screen = Screen(machine)
    try:
        remark(f"booted in {machine.boot():.0f} s, with harkd as a service")
        wait_listening(room, 0, START_S)
        screen.type("systemctl is-active harkd")
        screen.type("sudo systemctl stop harkd")
        since = room.mark
        screen.type("sudo systemctl start harkd")
        wait_listening(room, since, START_S)
        show_final(room, wav, f"{SPOKEN} is played into the card")
        killed(machine, room, screen, wav)
        late(room, screen, wav)
        screen.type(".venv/bin/harkd health", codes=(0, 1))
        screen.type(".venv/bin/harkd status --once", codes=(0, 1))
        screen.type("sudo .venv/bin/harkd service status", codes=(0, 3))
        screen.type("sudo .venv/bin/harkd doctor", codes=(0, 1))
        screen.type("systemd-analyze security harkd --no-pager | tail -1")
        screen.type("free -m | head -2; uptime")
        if show(machine, "NRestarts") != "1":  # that is the kill
            raise CheckError("it was started anew for another reason: see journal.txt")
        journal = machine.run("sudo journalctl --unit=harkd --no-pager --output=short-precise")
        (folder / "journal.txt").write_text(journal + "\n")
        if re.search(r"Watchdog timeout|Traceback", journal):
            raise CheckError("see journal.txt: the watchdog, or a traceback")
        if "(hw:0,0)" not in screen.type(".venv/bin/harkd devices"):
            raise CheckError("the card that the service has open is not in the list")
        machine.power_off()
    finally:
        machine.pull_plug()
        disk.unlink(missing_ok=True)


def main() -> int:
    """Do what is asked."""
    what, folder = sys.argv[1], Path(sys.argv[2])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left running
    room = Room(folder, PORT)
    try:
        {"install": install, "use": use}[what](folder, room, os.environ.get("PI", "5"))
    except CheckError as error:
        tell(f"\nFAILED: {error}")
        return 1
    finally:
        room.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
