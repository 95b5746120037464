"""What tells how the daemon is, to whoever asks: HTTP, the service manager, its watchdog.

In: the inputs' vitals. Out: the pages `/healthz`, `/readyz`, `/metrics` and `/status`, sd_notify's
messages, and a line in the log where a thread hangs. Built on the main thread; pages are made on
the HTTP server's. No text that was spoken is in any of it.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Final

import msgspec

from harkd import messages
from harkd.events import State
from harkd.health import Meter
from harkd.life import Finding, worst
from harkd.messages import About
from harkd.metrics import DaemonFigures, Metrics
from harkd.service_manager import ServiceManager, Watchdog
from harkd.settings import HttpSettings
from harkd.vitals import InputFigures, InputVitals

log = logging.getLogger(__name__)

FRAMES_TOLD: Final = 4
"""So many lines of its program are told of a thread that hangs."""
METER_S: Final = 0.5
"""Processor time is not measured over less."""


class Instruments:
    """Tells.

    Args:
        http: The `http` section.
        manager: The service manager.
        about: Tells what messages say of this daemon now.
        device: Where the model is to run, as `recognizer.device`.
    """

    def __init__(
        self,
        http: HttpSettings,
        manager: ServiceManager,
        about: Callable[[], About],
        device: str = "auto",
    ) -> None:
        self._device = device
        self._http = http
        self._manager = manager
        self._about = about
        self._inputs: Sequence[InputVitals] = ()
        self._loaded = False
        self._begin_s = time.monotonic()
        self._last_error = LastError()
        self._metrics = Metrics(self._daemon_figures)
        self._meter = SteadyMeter()
        self._watchdog = Watchdog(manager, self.why_not_live, self._stuck)
        self._closers: list[Callable[[], None]] = []

    def follow(self, *inputs: InputVitals) -> None:
        """Tell of these inputs from now on, too."""
        self._inputs = [*self._inputs, *inputs]
        for each in inputs:
            each.changed = self._tell_status

    def start(self) -> None:
        """Begin to answer. An address that cannot be listened at is a warning."""
        logging.getLogger("harkd").addHandler(self._last_error)
        self._watchdog.start()
        self._manager.status(f"loading the model {self._about().model}")
        if self._http.enabled:
            self._serve()

    def ready(self) -> None:
        """The model is loaded, and the threads run."""
        self._loaded = True
        self._watchdog.ready()
        self._tell_status()

    def stopping(self) -> None:
        """The daemon ends soon. Safe in a signal handler."""
        self._manager.stopping()

    def stop(self) -> None:
        """Tell nothing more."""
        self._manager.stopping()
        self._watchdog.stop()
        for close in self._closers:
            close()
        logging.getLogger("harkd").removeHandler(self._last_error)
        self._manager.close()

    # ------------------------------------------------------------------------- the truth

    def live(self) -> list[Finding]:
        """Tell of each thread whether it makes progress."""
        return [finding for each in self._inputs for finding in each.live()]

    def why_not_live(self) -> str:
        """Return why the daemon makes no progress; empty where it does."""
        found = worst(self.live())
        return found.reason if found else ""

    def findings(self) -> list[Finding]:
        """Tell of each thing that it takes to be ready whether it is so."""
        loading = "" if self._loaded else "the model is being loaded"
        reason = self.why_not_live()
        found = [Finding("model", not loading, loading), Finding("live", not reason, reason)]
        return found + [finding for each in self._inputs for finding in each.ready()]

    def status(self) -> dict[str, Any]:
        """Return what `harkd status` shows; without any text that was spoken."""
        about, findings = self._about(), self.findings()
        usage = self._meter.figures()
        return {
            "version": about.version,
            "model": about.model,
            "provider": about.provider,
            "device": self._device,
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._begin_s),
            "live": not self.why_not_live(),
            "ready": all(finding.ok for finding in findings),
            "findings": [asdict(finding) for finding in findings if not finding.ok],
            "cpu_percent": usage and usage.cpu_percent,
            "rss_mb": usage and usage.rss_mb,
            "last_error": self._last_error.told,
            "inputs": [shown(each.figures()) for each in self._inputs],
        }

    def _daemon_figures(self) -> DaemonFigures:
        about = self._about()
        return DaemonFigures(
            version=about.version,
            model=about.model,
            provider=about.provider,
            device=self._device,
            live=not self.why_not_live(),
            loaded=self._loaded,
            inputs=[each.figures() for each in self._inputs],
        )

    # ------------------------------------------------------------------------- telling it

    def _serve(self) -> None:
        # It takes memory and time to load, and may be turned off.
        from harkd.http_server import HttpServer, Page

        def judged(findings: list[Finding]) -> Page:
            ok = all(finding.ok for finding in findings)
            body = {"ok": ok, "checks": [asdict(finding) for finding in findings]}
            return Page(msgspec.json.encode(body) + b"\n", ok=ok)

        host, port = self._http.host, self._http.port
        pages = {
            "/healthz": lambda: judged(self.live()),
            "/readyz": lambda: judged(self.findings()),
            "/metrics": lambda: Page(*self._metrics.text()),
            "/status": lambda: Page(msgspec.json.encode(self.status()) + b"\n"),
        }
        try:
            server = HttpServer(host, port, pages)
        except OSError as error:
            log.warning(
                "nothing can be told at %s (%s), and harkd goes on without: set http.host or "
                "http.port to what is free here, or http.enabled to false",
                address(host, port),
                error.strerror or error,
            )
            return
        server.start()
        self._closers.append(server.stop)
        log.info("health, metrics and status at http://%s", address(host, server.port))
        if not is_loopback(host):
            log.warning(
                "http.host is %s: whoever reaches this machine can read when somebody speaks here "
                "and how the daemon is, but not what is said",
                host,
            )

    def _tell_status(self) -> None:
        if self._loaded:
            several = len(self._inputs) > 1
            self._manager.status("; ".join(line(each, several) for each in self._inputs))

    def _stuck(self, reason: str) -> None:
        signs = [sign for each in self._inputs for sign in each.signs]
        stuck = next((sign for sign in signs if not sign.finding().ok), None)
        log.error("%s; it is at %s", reason, place_of(stuck.ident if stuck else None))


class LastError(logging.Handler):
    """Remembers the last error in the log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: dict[str, str] | None = None
        """When it was (`at`, RFC 3339) and what it said (`message`); None before the first."""

    def emit(self, record: logging.LogRecord) -> None:
        """Remember a record."""
        at = messages.utc(datetime.fromtimestamp(record.created, UTC))
        self.told = {"at": at, "message": record.getMessage()}


class SteadyMeter:
    """What the daemon uses, measured over `METER_S` at least, however many ask."""

    def __init__(self) -> None:
        self._meter = Meter()
        self._figures = self._meter.figures(os.getpid())
        self._at_s = time.monotonic()

    def figures(self) -> messages.ProcessFigures | None:
        """Return the last figures, or newer ones."""
        now_s = time.monotonic()
        if now_s - self._at_s >= METER_S:
            self._figures, self._at_s = self._meter.figures(os.getpid()), now_s
        return self._figures


def shown(each: InputFigures) -> dict[str, Any]:
    """Return an input's figures as plain values."""
    state, counted = each.state, each.counted
    return {
        "device_id": each.device_id,
        "state": state.state.value,
        "since": messages.utc(state.since),
        "reason": state.reason,
        "problem": state.problem,
        "audio_device": state.audio_device,
        "device_rate_hz": state.device_rate_hz,
        "ready": all(finding.ok for finding in each.ready),
        "audio_age_s": each.audio_age_s,
        "signal": each.signal and asdict(each.signal),
        "segments": counted.segments,
        "partials": counted.partials,
        "finals": counted.finals,
        "rejected": dict(counted.rejected),
        "gaps": counted.gaps,
        "losses": counted.losses,
        "captures": each.captures,
        "rtf": counted.rtf,
        "latency_ms": counted.latency_last_ms,
        "latency_median_ms": counted.latency_median_ms,
        "waiting": dict(each.waiting),
        "dropped": dict(each.dropped),
        "outbox": {
            "waiting": each.outbox.waiting,
            "oldest_age_s": each.outbox.oldest_age_s,
            "on_disk": each.outbox.on_disk,
            "problem": each.outbox.problem,
        },
        "mqtt": {"connected": each.connected, "reconnects": max(0, each.connections - 1)},
    }


def line(each: InputVitals, several: bool) -> str:
    """Say in one line what an input is doing."""
    state = each.state
    words = {
        State.LISTENING: f"listening to {state.audio_device}",
        State.SPEECH: f"listening to {state.audio_device}",
        State.NO_MICROPHONE: f"no microphone: {state.reason}",
    }.get(state.state, state.state.value)
    if state.problem and state.state is not State.NO_MICROPHONE:
        words += f" ({state.reason or state.problem})"
    return f"{each.device_id}: {words}" if several else words


def address(host: str, port: int) -> str:
    """Return host and port as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def place_of(ident: int | None) -> str:
    """Say where in its program a thread is; innermost first."""
    frame = sys._current_frames().get(ident) if ident else None
    if frame is None:
        return "no place that is known"
    stack = reversed(traceback.extract_stack(frame)[-FRAMES_TOLD:])
    return " < ".join(
        f"{each.name} ({os.path.basename(each.filename)}:{each.lineno})"  # noqa: PTH119
        for each in stack
    )
