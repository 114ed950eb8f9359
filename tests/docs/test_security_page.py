"""SECURITY.md names existing tests and settings."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text()
LINES = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| threat", "| ---"))]


def test_every_threat_names_existing_tests() -> None:
    assert len(LINES) >= 20
    for line in LINES:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", line.rsplit("|", 2)[1])
        assert named, line
        for file, test in named:
            assert re.search(rf"^(async )?def {test or 'test_'}", (ROOT / file).read_text(), re.MULTILINE), (file, test)


def test_every_setting_on_the_page_exists() -> None:
    from artcafe.config import Settings

    named = {name.lower() for name in re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", PAGE)}
    assert len(named) >= 5
    assert named <= set(Settings.model_fields)
