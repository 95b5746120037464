"""How the daemon is, in words and bars for `harkd status`. Pure.

In: what its `/status` page told, and what its topics did; one of the two may be missing. Out: a
`Report` of plain values, and lines of text; `status_view` draws the same for a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

METER_FLOOR_DB: Final = -80.0
SHOWN_CHARACTERS: Final = 300
"""So much of a text is shown."""


@dataclass(frozen=True, slots=True)
class InputReport:
    """One input."""

    device_id: str
    """Its name in topics."""
    state: str
    """As on the `state` topic; ``offline`` where the broker says so, empty where it is unknown."""
    reason: str
    """Why, for a person."""
    ready: bool | None
    """Whether it hears, or is muted; None where that is unknown."""
    level_dbfs: float | None
    """RMS of the last second; None where it is unknown."""
    peak_dbfs: float | None
    """Largest sample of the last second."""
    last: Mapping[str, Any] | None
    """The last final; None where it is unknown."""
    speaking: Mapping[str, Any] | None
    """The partial of what is being said; None where nothing is."""
    figures: Sequence[tuple[str, str]]
    """Names and values of the rest."""


@dataclass(frozen=True, slots=True)
class Report:
    """The daemon."""

    about: str
    """Version, model, what runs it."""
    ready: bool | None
    """Whether it does its work; None where that is unknown."""
    findings: Sequence[str]
    """Why not."""
    figures: Sequence[tuple[str, str]]
    """Names and values."""
    inputs: Sequence[InputReport]
    """Each input."""
    problems: Sequence[str]
    """Why something is missing here, and how to mend that."""


def clean(text: object) -> str:
    """Return a text without what a terminal would obey, and not too long."""
    shown = "".join(char if char.isprintable() else " " for char in str(text))
    return shown if len(shown) <= SHOWN_CHARACTERS else shown[: SHOWN_CHARACTERS - 1] + "…"


def seconds(value: float) -> str:
    """Return a time as a person reads it."""
    value = round(value)
    for length, unit, smaller, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if value >= length:
            return f"{value // length} {unit} {value % length // smaller} {small}"
    return f"{value // 60} min {value % 60} s" if value >= 60 else f"{value} s"


def level_share(dbfs: float) -> float:
    """Return how much of a meter is filled, 0…1."""
    return min(1.0, max(0.0, 1 - dbfs / METER_FLOOR_DB))


def counted(values: Mapping[str, Any]) -> str:
    """Return counts by name, without the zeros."""
    return ", ".join(f"{clean(name)} {value}" for name, value in values.items() if value) or "0"


def recognition(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the figures of recognition that `/status` and `health` share."""
    latency, median = told.get("latency_ms"), told.get("latency_median_ms")
    if latency is not None:
        yield "latency", f"{latency} ms (median {median} ms)"
    if (factor := told.get("rtf")) is not None:
        yield "real-time factor", f"{factor:.2f}"
    texts = f"{told.get('finals', 0)} finals, {told.get('partials', 0)} partials"
    rejected = told.get("rejected") or {}
    if rejected:
        texts += f", rejected: {counted(rejected)}"
    yield "heard", texts
    yield "waiting", counted(told.get("waiting") or {})
    if any((told.get("dropped") or {}).values()):
        yield "dropped", counted(told["dropped"])
    losses, gaps = told.get("losses"), told.get("gaps")
    if losses or gaps:
        yield "microphone", f"lost {losses} times, audio lost {gaps} times"
    outbox = told.get("outbox") or {}
    if outbox:
        age_s = outbox.get("oldest_age_s")
        age = f", the oldest for {seconds(age_s)}" if age_s is not None else ""
        where = "" if outbox.get("on_disk") else ", in memory only"
        yield "outbox", f"{outbox.get('waiting', 0)} waiting{age}{where}"
        if outbox.get("problem"):
            yield "disk", clean(outbox["problem"])


def broker_figure(mqtt: Mapping[str, Any]) -> tuple[str, str]:
    """Return whether the daemon has its broker."""
    state = "connected" if mqtt.get("connected") else "not connected"
    again = mqtt.get("reconnects")
    return "broker", f"{state}, {again} reconnects" if again else state


def usage(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what the daemon uses."""
    if (uptime_s := told.get("uptime_s")) is not None:
        yield "up for", seconds(uptime_s)
    if (percent := told.get("cpu_percent")) is not None:
        yield "CPU", f"{percent} % of a core"
    if (rss_mb := told.get("rss_mb")) is not None:
        yield "memory", f"{rss_mb} MB"


def input_report(
    device_id: str, told: Mapping[str, Any] | None, topics: Mapping[str, Any]
) -> InputReport:
    """Return the report of one input.

    Args:
        device_id: Its name in topics.
        told: What `/status` says of it; None where it says nothing.
        topics: `availability`, `state`, `health`, `last` and `speaking`; None where nothing came.
    """
    state = topics.get("state")
    shown: Mapping[str, Any] = told or (state if isinstance(state, dict) else {})
    word = str(shown.get("state", ""))
    if told is None and topics.get("availability") == "offline":
        word = "offline"
    health = topics.get("health")
    known = told or (health if isinstance(health, dict) else None)
    figures = recognition(known) if known else ()
    signal = (told or {}).get("signal") or {}
    where = str(shown.get("audio_device", ""))
    rate_hz = shown.get("device_rate_hz")
    device = [("device", clean(f"{where}, {rate_hz} Hz"))] if where else []
    mqtt = [broker_figure(told["mqtt"])] if told and "mqtt" in told else []
    return InputReport(
        device_id=clean(device_id),
        state=clean(word),
        reason=clean(shown.get("reason") or shown.get("problem") or ""),
        ready=told.get("ready") if told else None,
        level_dbfs=signal.get("level_dbfs"),
        peak_dbfs=signal.get("peak_dbfs"),
        last=topics.get("last"),
        speaking=topics.get("speaking"),
        figures=[*device, *figures, *mqtt],
    )


def report_of(
    told: Mapping[str, Any] | None, topics: Mapping[str, Mapping[str, Any]], problems: Sequence[str]
) -> Report:
    """Return the whole report.

    Args:
        told: What `/status` says; None where it cannot be asked.
        topics: What `input_report` wants, by device id.
        problems: Why something is missing.
    """
    by_id = {each["device_id"]: each for each in (told or {}).get("inputs", [])}
    inputs = [
        input_report(device_id, by_id.get(device_id), topics.get(device_id, {}))
        for device_id in {**dict.fromkeys(by_id), **dict.fromkeys(topics)}
    ]
    healths = [each["health"] for each in topics.values() if isinstance(each.get("health"), dict)]
    daemon: Mapping[str, Any] = told or (healths[0] if healths else {})
    names = ("version", "model", "provider")
    about = " · ".join(clean(daemon[name]) for name in names if daemon.get(name))
    if daemon.get("device") == "cuda" and daemon.get("provider") not in ("", "cuda", None):
        about += " (cuda is wanted)"
    figures = list(usage(daemon))
    if error := daemon.get("last_error"):
        figures.append(("last error", clean(f"{error['at']} {error['message']}")))
    findings = [
        clean(f"{each['name']}{f' ({device})' if (device := each['device_id']) else ''}: ")
        + clean(each["reason"])
        for each in daemon.get("findings", [])
    ]
    return Report(
        about=f"harkd {about}".rstrip(),
        ready=daemon.get("ready"),
        findings=findings,
        figures=figures,
        inputs=inputs,
        problems=[clean(problem) for problem in problems],
    )


def lines(report: Report) -> Iterator[str]:
    """Yield the report as text."""
    word = {True: "ready", False: "not ready", None: ""}[report.ready]
    yield f"{report.about}  {word}".rstrip()
    yield from (f"  {finding}" for finding in report.findings)
    yield from (f"  {name}: {value}" for name, value in report.figures)
    for each in report.inputs:
        reason = f": {each.reason}" if each.reason else ""
        yield f"{each.device_id}  {each.state or 'unknown'}{reason}"
        if each.level_dbfs is not None:
            yield f"  level: {each.level_dbfs:.0f} dBFS (peak {each.peak_dbfs:.0f})"
        yield from (f"  {name}: {value}" for name, value in each.figures)
        if each.speaking:
            yield f"  speaking: … {clean(each.speaking.get('text', ''))}"
        if each.last:
            at = clean(each.last.get("ended_at", ""))
            yield f'  last: {at} "{clean(each.last.get("text", ""))}"'
    yield from (f"! {problem}" for problem in report.problems)
