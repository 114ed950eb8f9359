"""deploy/prometheus and deploy/grafana: Prometheus accepts every expression, alerts fire when they should, metrics exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from artcafe.observe.metrics import METRICS
from tests.conftest import Require
from tests.deploy.tools import DEPLOY, find, program, run

RULES = DEPLOY / "prometheus" / "artcafe-rules.yml"
CASES = DEPLOY / "prometheus" / "artcafe-rules.test.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "artcafe.json").read_text())
SERIES = {metric.name for metric in METRICS} | {
    f"{metric.name}_{part}" for metric in METRICS if metric.kind == "histogram" for part in ("bucket", "sum", "count")
}


def rules() -> list[dict[str, Any]]:
    """Return the alerts."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found = group["rules"]
    assert isinstance(found, list)
    return found


def expressions() -> dict[str, list[str]]:
    """Return the expressions of the dashboard by the title of their panel."""
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    return {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in panels}


@pytest.mark.parametrize(
    "command", [("check", "rules", RULES.name), ("check", "config", "prometheus.yml"), ("test", "rules", CASES.name)]
)
def test_promtool_accepts_the_files_and_their_cases(command: tuple[str, ...], require: Require) -> None:
    require("promtool", find("promtool") is not None)
    assert "SUCCESS" in run(program("promtool"), *command, cwd=RULES.parent)


def test_every_alert_has_a_case_in_which_it_fires_for_one_server_only() -> None:
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if len(case["exp_alerts"]) == 1}
    assert fires == {rule["alert"] for rule in rules()}


@pytest.mark.parametrize(
    "text", [RULES.read_text(), CASES.read_text(), json.dumps(DASHBOARD)], ids=["rules", "cases", "dashboard"]
)
def test_every_metric_and_outcome_that_a_file_names_exists(text: str) -> None:
    named = set(re.findall(r"\bartcafe_\w+", text))
    assert len(named) > 10
    assert named <= SERIES
    known = {value for metric in METRICS for values in metric.labels.values() for value in values}
    assert {each for found in re.findall(r'outcome[!=~]+\\?"([\w|]+)', text) for each in found.split("|")} <= known


def test_promtool_parses_every_expression_of_the_dashboard(tmp_path: Path, require: Require) -> None:
    require("promtool", find("promtool") is not None)
    variables = {"$__rate_interval": "5m", "$instance": ".*"}
    found = [expression for listed in expressions().values() for expression in listed]
    for name, value in variables.items():
        found = [each.replace(name, value) for each in found]
    assert not [each for each in found if "$" in each]
    # Prometheus parses a recording rule as it parses a query.
    group = {"name": "panels", "rules": [{"record": f"panel:{n}", "expr": each} for n, each in enumerate(found)]}
    (tmp_path / "panels.yml").write_text(json.dumps({"groups": [group]}))
    assert f"{len(found)} rules found" in run(program("promtool"), "check", "rules", tmp_path / "panels.yml")


def test_panels_of_the_dashboard_have_ids_and_places_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24
    assert all(listed for listed in expressions().values())
