"""docs/monitoring.md: its metrics exist, and it explains the alerts of deploy/prometheus."""

from __future__ import annotations

import re
from pathlib import Path

from artcafe.observe.metrics import METRICS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "monitoring.md").read_text()


def test_every_metric_on_the_page_exists() -> None:
    names = {metric.name for metric in METRICS}
    names |= {f"{metric.name}_{part}" for metric in METRICS if metric.kind == "histogram" for part in ("bucket", "sum", "count")}
    named = set(re.findall(r"\bartcafe_\w+", PAGE))
    assert len(named) > 5
    assert named <= names


def test_table_explains_every_alert_of_the_rules() -> None:
    rules = re.findall(r"- alert: (\w+)", (ROOT / "deploy" / "prometheus" / "artcafe-rules.yml").read_text())
    assert re.findall(r"^\| `(ArtCafe\w+)` \|", PAGE, re.MULTILINE) == rules
