"""A real Prometheus scrapes the real daemon: names agree, and a lost microphone is an alert."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest

from daemon_process import Daemon
from log_schema import held_to_schema
from monitoring import metrics_in, panels, rules
from prometheus_server import Prometheus
from servers import PulseServer, free_port, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.model]

QUIET = {"What is wrong with the microphone", "Alerts"}
"""Panels that are empty while all is well."""


def exported(text: str) -> set[str]:
    """All names that an expression may use, from the text of /metrics."""
    names = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", text, re.M):
        ends = ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
        names |= {name + end for end in ends}
    return names


def test_prometheus_sees_what_the_rules_and_the_dashboard_ask_for(
    env: dict[str, str], pulse: PulseServer, tmp_path: Path
) -> None:
    port = free_port()
    server_folder = tmp_path / "prometheus"
    server_folder.mkdir()
    # Nobody plays anything, and a null sink is silent as no microphone is.
    quiet = {"HARKD_AUDIO__ZEROS_S": "0"}
    run_env = {**env, **pulse.env, **quiet, "HARKD_HTTP__PORT": str(port)}
    with (
        Daemon(env=run_env, folder=tmp_path) as daemon,
        Prometheus(server_folder, port) as prometheus,
    ):
        daemon.wait_for_log("listening to")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            names = exported(answer.read().decode())
        shown = {
            name for panel in panels() for each in panel.expressions for name in metrics_in(each)
        }
        watched = {name for rule in rules() for name in metrics_in(rule["expr"])}
        assert shown | watched <= names
        parts = ("_bucket", "_sum", "_count")  # of a histogram, one of them will do
        of_ours = {name for name in names if name.startswith("harkd_") and not name.endswith(parts)}
        assert of_ours <= shown, "whatever is exported can be looked at"

        def empty() -> set[str]:
            return {
                panel.title
                for panel in panels()
                if not any(prometheus.query(expression) for expression in panel.expressions)
            }

        # Rates need two scrapes.
        wait_until(lambda: empty() <= QUIET, "data for all panels", 15)
        assert prometheus.rule_errors() == []
        assert prometheus.alerts() == []

        pulse.stop()
        wait_until(lambda: bool(prometheus.alerts()), "an alert", 15)
        (alert,) = prometheus.alerts()
        assert alert["labels"]["alertname"] == "HarkdMicrophoneDown"
        assert alert["labels"]["device_id"] == "test"
        assert alert["state"] == "pending", "it fires when two minutes are over"
        problem = re.search(r"Its problem: (\w+)\.", str(alert["annotations"]))
        assert problem
        assert problem[1] in ("no_device", "server", "ended")
        pulse.start()
        wait_until(lambda: not prometheus.alerts(), "end of the alert", 30)
        told = [held_to_schema(line).get("harkd.problem") for line in daemon.lines]
        assert problem[1] in told, "the log has the same word"
