"""docs/monitoring.md: its files are valid for Prometheus, and its metrics and alerts exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from artcafe.observe.metrics import METRICS
from tests.conftest import Require
from tests.prometheus import PROMTOOL

PAGE = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
FILES: dict[str, str] = dict(re.findall(r"```yaml\n# ([\w.-]+)\n(.*?)```", PAGE, re.DOTALL))


def test_every_metric_on_the_page_exists() -> None:
    names = {metric.name for metric in METRICS}
    names |= {f"{metric.name}_{part}" for metric in METRICS if metric.kind == "histogram" for part in ("bucket", "sum", "count")}
    named = set(re.findall(r"\bartcafe_\w+", PAGE))
    assert len(named) > 10
    assert named <= names


def test_every_label_value_in_the_rules_exists() -> None:
    known = {value for metric in METRICS for values in metric.labels.values() for value in values}
    used = {each for values in re.findall(r'outcome[!=~]+"([\w|]+)"', PAGE) for each in values.split("|")}
    assert used
    assert used <= known


def test_table_explains_every_alert_of_the_rules() -> None:
    rules = re.findall(r"- alert: (\w+)", FILES["artcafe-rules.yml"])
    assert re.findall(r"^\| `(ArtCafe\w+)` \|", PAGE, re.MULTILINE) == rules


@pytest.mark.parametrize(("kind", "name"), [("rules", "artcafe-rules.yml"), ("config", "prometheus.yml")])
def test_promtool_accepts_the_files(kind: str, name: str, tmp_path: Path, require: Require) -> None:
    require("promtool", PROMTOOL is not None)
    for each, text in FILES.items():
        (tmp_path / each).write_text(text)
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "check", kind, name], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
