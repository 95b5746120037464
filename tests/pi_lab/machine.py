"""An emulated arm64 machine: a disk that qemu boots, and commands on it over ssh.

In: a folder with the disk, kernel and key that `scripts/test-pi` made. Out: what the commands
print. Runs on the thread that asks.
"""

import re
import shlex
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

CPUS = {"4": "cortex-a72", "5": "cortex-a76"}
"""The processor of each Raspberry Pi, as qemu names it."""
MEMORY_MB, CORES = 1024, 2
TERMINAL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class CheckError(Exception):
    """Something is not as it has to be."""


def wait_for(what: str, most_s: float, look: Callable[[], str], every_s: float = 2.0) -> str:
    """Return what `look` finds, as soon as it is not empty. Raises CheckError."""
    end = time.monotonic() + most_s
    while not (found := look()):
        if time.monotonic() > end:
            raise CheckError(f"no {what} within {most_s:g} s")
        time.sleep(every_s)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Machine:
    """A machine that runs from `boot` to `power_off`.

    Args:
        folder: Where `vmlinuz`, `initrd` and `key` lie, and the console's log goes.
        disk: A qcow2 file; what is written to it stays.
        sound: The socket of the PulseAudio whose `mic.monitor` its microphone is.
        pi: Which Raspberry Pi's processor: a key of `CPUS`.
    """

    def __init__(self, folder: Path, disk: Path, sound: Path, pi: str) -> None:
        self.folder = folder
        self._port = _free_port()
        qemu = ["nice", "-n", "10", "qemu-system-aarch64", "-nodefaults", "-no-reboot"]
        qemu += ["-machine", "virt,gic-version=3", "-cpu", CPUS[pi], "-accel", "tcg,thread=multi"]
        qemu += ["-m", str(MEMORY_MB), "-smp", str(CORES), "-display", "none"]
        qemu += ["-serial", f"file:{folder / 'console.log'}"]
        qemu += ["-kernel", str(folder / "vmlinuz"), "-initrd", str(folder / "initrd")]
        qemu += ["-append", "root=/dev/vda rw console=ttyAMA0"]
        qemu += ["-drive", f"file={disk},if=none,id=disk,cache=unsafe"]
        qemu += ["-device", "virtio-blk-pci,drive=disk", "-device", "virtio-rng-pci"]
        qemu += ["-netdev", f"user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:{self._port}-:22"]
        qemu += ["-device", "virtio-net-pci,netdev=net,romfile="]
        pulse = f"pa,id=sound,server=unix:{sound},in.name=mic.monitor,out.name=mouth"
        qemu += ["-audiodev", pulse, "-device", "intel-hda", "-device", "hda-micro,audiodev=sound"]
        self._qemu = qemu
        self._process: subprocess.Popen[bytes] | None = None

    def boot(self) -> float:
        """Start it, wait until all that is enabled has started, and return the seconds."""
        began = time.monotonic()
        with (self.folder / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._qemu, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_for("answer of ssh", 600, lambda: "yes" if self.try_run("true", 60)[0] == 0 else "")
        self.try_run("systemctl is-system-running --wait", 600)
        return time.monotonic() - began

    def ssh(self, *options: str) -> list[str]:
        """Return the command that a command for a shell on the machine is appended to."""
        words = ["ssh", "-F", "none", "-i", str(self.folder / "key"), "-p", str(self._port)]
        for option in (
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "BatchMode=yes",
            "ConnectTimeout=40",
            "ControlMaster=auto",
            f"ControlPath={self.folder / 'ssh'}",
            "ControlPersist=600",
        ):
            words += ["-o", option]
        return [*words, *options, "pi@127.0.0.1"]

    def try_run(self, command: str, most_s: float = 300, stdin: str = "") -> tuple[int, str]:
        """Run a shell's command as the user pi; return its exit status and what it said."""
        if self._process is None or self._process.poll() is not None:
            raise CheckError(f"the machine has ended; see {self.folder / 'console.log'}")
        try:
            done = subprocess.run(
                [*self.ssh(), command],
                input=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=most_s,
            )
        except subprocess.TimeoutExpired:
            return 124, f"{command}: nothing within {most_s:g} s"
        return done.returncode, TERMINAL.sub("", done.stdout).strip()

    def run(self, command: str, most_s: float = 300, stdin: str = "") -> str:
        """Run a shell's command as the user pi. Raises CheckError where it fails."""
        code, said = self.try_run(command, most_s, stdin)
        if code:
            raise CheckError(f"{command}: {code}: {said}")
        return said

    def write(self, path: str, text: str) -> None:
        """Write a file as root."""
        self.run(f"sudo install -D -m 644 /dev/stdin {shlex.quote(path)}", stdin=text)

    def power_off(self) -> None:
        """Let it shut down, or pull the plug where it does not."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self.try_run("sudo systemctl poweroff", 60)
            subprocess.run([*self.ssh("-O", "exit")], capture_output=True, check=False)
            try:
                self._process.wait(180)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None

    def pull_plug(self) -> None:
        """End it at once."""
        if self._process is not None:
            subprocess.run([*self.ssh("-O", "exit")], capture_output=True, check=False)
            self._process.kill()
            self._process.wait()
            self._process = None
