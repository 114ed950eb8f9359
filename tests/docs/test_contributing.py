"""CONTRIBUTING.md names files, folders and make targets that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()


def test_every_path_on_the_page_exists() -> None:
    paths = {
        each
        for each in re.findall(r"`([\w./-]+)`", PAGE)
        if "/" in each.removesuffix("/") or each.endswith(("/", ".py", ".toml"))
    }
    paths -= {"src/artcafe/"}
    assert len(paths) > 40
    missing = [each for each in sorted(paths) if not (ROOT / "src" / "artcafe" / each).exists() and not (ROOT / each).exists()]
    assert missing == []


def test_every_make_target_on_the_page_exists() -> None:
    targets = set(re.findall(r"\bmake (\w+)", PAGE))
    assert len(targets) >= 5
    assert targets <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_page_says_how_to_add_each_kind_of_thing() -> None:
    added = re.findall(r"^## Add an? (.+)$", PAGE, re.MULTILINE)
    assert added == [
        "endpoint",
        "frame",
        "tool of MCP",
        "command",
        "setting",
        "metric",
        "error",
        "table attribute",
        "kind of channel",
        "transport",
    ]
