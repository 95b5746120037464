"""What happens to the service: killed, hung, without its broker. Each function is one check.

In: a service that listens. Out: what came of it, or a CheckError.
"""

import time

from service_lab.container import CheckError, wait_for
from service_lab.installed import Service


def kill_daemon(it: Service) -> str:
    """A daemon that is killed is started anew."""
    restarts, began = it.restarts, time.monotonic()
    it.inside.run("kill", "-9", str(it.pid))
    return it.comes_back(restarts, began)


def hang_daemon(it: Service) -> str:
    """A daemon that hangs is killed by the watchdog, and started anew."""
    restarts, began = it.restarts, time.monotonic()
    it.inside.run("kill", "-STOP", str(it.pid))
    said = it.comes_back(restarts, began)
    if "Watchdog timeout" not in it.inside.run("journalctl", "--unit=harkd", "--no-pager"):
        raise CheckError("the watchdog has said nothing")
    return said


def capture_fault(it: Service, signal: str) -> str:
    """The daemon itself replaces its capture process."""
    it.heard()
    restarts, pid, old = it.restarts, it.pid, it.capture()
    since, began = it.mark, time.monotonic()
    it.inside.run("kill", f"-{signal}", old)
    wait_for("loss", 20, lambda: it.state_is("no_microphone", "listening", since=since))
    new = wait_for("capture process", 20, lambda: it.capture() if it.capture() != old else "")
    wait_for("listening", 20, lambda: it.state_is("listening", since=since))
    took_s = time.monotonic() - began
    it.speak()
    it.without_restart(restarts, pid)
    return f"{old} → {new}, listening after {took_s:.1f} s, daemon the same"


def kill_capture(it: Service) -> str:
    """A capture process that is killed is replaced."""
    return capture_fault(it, "KILL")


def hang_capture(it: Service) -> str:
    """A capture process that hangs is replaced."""
    return capture_fault(it, "STOP")


def broker_away(it: Service) -> str:
    """The broker goes and comes back, and finals go on."""
    restarts, pid = it.restarts, it.pid
    it.inside.run("systemctl", "stop", "mosquitto")
    time.sleep(5)
    since = it.mark
    it.inside.run("systemctl", "start", "mosquitto")
    wait_for(
        "online", 30, lambda: "online" if "online" in it.messages("availability", since) else ""
    )
    it.heard()
    it.without_restart(restarts, pid)
    return "heard again, daemon the same"
