"""Draws a `Report` on a terminal. The only file of `harkd status` that knows rich."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from harkd.status_report import InputReport, Report, clean, level_share

METER_WIDTH: Final = 40
COLOURS: Final = {
    "listening": "green",
    "speech": "bold green",
    "muted": "yellow",
    "starting": "yellow",
}


def draw(report: Report) -> RenderableType:
    """Return the whole picture."""
    word, colour = {
        True: ("ready", "green"),
        False: ("not ready", "red"),
        None: ("unknown", "yellow"),
    }[report.ready]
    parts: list[RenderableType] = [
        Text.assemble((report.about, "bold"), "  ", (word, colour)),
        *(Text(finding, "red") for finding in report.findings),
    ]
    parts += [draw_input(each) for each in report.inputs]
    if report.figures:
        parts.append(table(report.figures))
    parts += [Text(f"! {problem}", "yellow") for problem in report.problems]
    return Group(*parts)


def draw_input(each: InputReport) -> RenderableType:
    """Return the panel of one input."""
    state = Text(each.state or "unknown", COLOURS.get(each.state, "red"))
    if each.reason:
        state.append(f": {each.reason}", "default")
    parts: list[RenderableType] = [state]
    if each.level_dbfs is not None:
        parts.append(meter(each.level_dbfs, each.peak_dbfs))
    if each.last:
        at = clock(each.last.get("ended_at"))
        parts.append(Text.assemble((f"{at} ", "dim"), clean(each.last.get("text", ""))))
    speaking = clean(each.speaking.get("text", "")) if each.speaking else ""
    parts.append(Text(f"… {speaking}" if speaking else "", "italic cyan"))
    parts.append(table(each.figures))
    return Panel(Group(*parts), title=each.device_id, title_align="left")


def clock(moment: object) -> str:
    """Return the time of day here of a moment in RFC 3339; nothing where it is none."""
    try:
        return datetime.fromisoformat(str(moment)).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return ""


def meter(level_dbfs: float, peak_dbfs: float | None) -> Text:
    """Return a bar for the level."""
    filled = round(level_share(level_dbfs) * METER_WIDTH)
    colour = "red" if (peak_dbfs or level_dbfs) > -1 else "green"
    return Text.assemble(
        f"{level_dbfs:6.1f} dBFS ",
        ("█" * filled, colour),
        ("·" * (METER_WIDTH - filled), "dim"),
        f" peak {peak_dbfs:.1f}" if peak_dbfs is not None else "",
    )


def table(figures: object) -> Table:
    """Return names and values in two columns."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column()
    if isinstance(figures, list | tuple):
        for name, value in figures:
            grid.add_row(Text(name), Text(value))
    return grid
