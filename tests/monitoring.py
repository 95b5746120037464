"""What docker/monitoring holds: its alerts, its dashboard, and all expressions in both."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[1] / "docker" / "monitoring"
RULES = FOLDER / "rules" / "harkd.yml"
RULE_TESTS = sorted((FOLDER / "tests").glob("*_test.yml"))
DASHBOARD = FOLDER / "grafana" / "dashboard.json"


@dataclass(frozen=True)
class Panel:
    """A panel of the dashboard that shows something."""

    title: str
    """What stands over it."""
    body: dict[str, Any]
    """All of it."""
    expressions: list[str]
    """What it asks of Prometheus, with what Grafana would put in place of its variables."""


def rules() -> list[dict[str, Any]]:
    """Returns all rules: recording and alerting."""
    read = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return [rule for group in read["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Returns the alerts by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def dashboard() -> dict[str, Any]:
    """Returns the dashboard."""
    read: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return read


def panels() -> Iterator[Panel]:
    """Yields the panels, without the rows' headings."""
    for panel in dashboard()["panels"]:
        if panel["type"] != "row":
            asked = [target["expr"] for target in panel["targets"]]
            yield Panel(panel["title"], panel, [as_grafana_asks(each) for each in asked])


def as_grafana_asks(expression: str) -> str:
    """Returns an expression as it is with all devices chosen, over a minute."""
    asked = expression.replace("$device_id", ".+").replace("$__rate_interval", "1m")
    assert "$" not in asked, f"an unknown variable: {asked}"
    return asked


def metrics_in(expression: str) -> set[str]:
    """Returns the names of harkd's and the process's metrics in an expression."""
    without_labels = re.sub(r'"[^"]*"', "", expression)
    return set(re.findall(r"(?<![\w:])(?:harkd|process)_\w+(?![\w:])", without_labels))
