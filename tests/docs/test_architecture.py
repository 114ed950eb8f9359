from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "artcafe"
TICKED = re.findall(r"`([^`]+)`", (ROOT / "docs" / "architecture.md").read_text())

PATHS = {each for each in TICKED if re.fullmatch(r"[\w.-]+(/[\w.-]*)+|\w+\.(py|toml|lock)|Makefile", each)}
TOP = {path.stem for path in SOURCE.iterdir()}
NAMES = sorted({each for each in TICKED if re.fullmatch(r"\w+(\.\w+)+", each) and each.split(".")[0] in TOP} - PATHS)


def test_every_path_that_the_page_names_exists() -> None:
    assert not [path for path in sorted(PATHS) if not (SOURCE / path).exists() and not (ROOT / path).exists()]


def test_every_module_is_on_the_page() -> None:
    modules = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py")}
    # A package's own file says no more than its heading.
    assert {path.removesuffix("__init__.py") or path for path in modules} - PATHS == set()


@pytest.mark.parametrize("name", NAMES)
def test_whatever_a_road_passes_exists(name: str) -> None:
    pkgutil.resolve_name(f"artcafe.{name}")


def test_every_road_is_told_in_names_that_can_be_looked_up() -> None:
    assert {name.split(".")[0] for name in NAMES} >= {"rest", "gateway", "services", "fabric", "tables", "rules", "wire"}
