"""docker/monitoring is whole: each alert tested and explained, each panel readable."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from monitoring import (
    DASHBOARD,
    FOLDER,
    RULE_TESTS,
    RULES,
    alerts,
    dashboard,
    metrics_in,
    panels,
    rules,
)
from servers import program

MANUAL = Path(__file__).parents[2] / "docs" / "monitoring.md"


def promtool(*words: str | Path) -> None:
    done = subprocess.run(
        [program("promtool"), *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# ------------------------------------------------------------------ alerts


def test_prometheus_takes_its_settings_and_the_rules() -> None:
    promtool("check", "config", FOLDER / "prometheus.yml")


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_not_otherwise(path: Path) -> None:
    promtool("test", "rules", path)


@pytest.mark.parametrize("name", alerts())
def test_each_alert_is_seen_to_fire_in_a_test(name: str) -> None:
    fires = rf'\{{labels: .\{{alertname="{name}"[,}}]'
    assert any(re.search(fires, path.read_text(encoding="utf-8")) for path in RULE_TESTS)


def test_there_are_tests_in_which_nothing_fires() -> None:
    silent = [path for path in RULE_TESTS if "exp_samples: []" in path.read_text(encoding="utf-8")]
    assert len(silent) == len(RULE_TESTS) == 5


@pytest.mark.parametrize("name", alerts())
def test_each_alert_says_how_bad_it_is_what_to_do_and_where_more_is_written(name: str) -> None:
    rule = alerts()[name]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook"}
    assert "{{ $labels." in notes["summary"] or name == "HarkdAbsent", "which one is it?"
    assert notes["runbook"] == f"docs/monitoring.md#{name.lower()}"
    assert f"\n### {name}\n" in MANUAL.read_text(encoding="utf-8")


def test_the_manual_explains_no_alert_that_is_not_there() -> None:
    assert re.findall(r"^### (\w+)$", MANUAL.read_text(encoding="utf-8"), re.M) == list(alerts())


def test_alerts_that_hold_back_others_are_there() -> None:
    inhibited = yaml.safe_load((FOLDER / "alertmanager.yml").read_text(encoding="utf-8"))
    named = re.findall(r"Harkd\w+", str(inhibited["inhibit_rules"]))
    assert set(named) <= set(alerts())


# ------------------------------------------------------------------ dashboard


def test_each_panel_has_a_title_a_description_and_a_unit() -> None:
    for panel in panels():
        assert panel.title
        assert panel.body["description"].endswith("."), panel.title
        assert panel.body["fieldConfig"]["defaults"]["unit"], panel.title
        assert panel.expressions, panel.title
        assert panel.body["datasource"]["uid"] == "${datasource}", panel.title


def test_titles_and_ids_of_panels_are_unique() -> None:
    every = dashboard()["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    assert len({panel["title"] for panel in every}) == len(every)


def test_panels_lie_beside_each_other_and_in_the_grid() -> None:
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_prometheus_reads_all_expressions_of_the_dashboard(tmp_path: Path) -> None:
    asked = [each for panel in panels() for each in panel.expressions]
    recorded = [{"record": f"dashboard:{n}", "expr": each} for n, each in enumerate(asked)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    promtool("check", "rules", path)


def test_what_a_rule_records_is_recorded_before_it_is_used() -> None:
    recorded: set[str] = set()
    for rule in rules():
        used = set(re.findall(r"\bdevice:\w+:\w+", rule["expr"]))
        assert used <= recorded, rule
        recorded |= {rule.get("record", "")}


def test_names_of_metrics_are_found_in_expressions() -> None:
    """The integration test holds them against what the daemon exports."""
    assert metrics_in('rate(harkd_frames_total{a="harkd_no"}[5m]) / device:harkd_x:share_5m') == {
        "harkd_frames_total"
    }
    assert "harkd_level_dbfs" in DASHBOARD.read_text(encoding="utf-8")
    assert RULES.exists()
