"""docs/architecture.md against the code: its packages, paths and call paths."""

from __future__ import annotations

import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "artcafe"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
TICKED = re.findall(r"`([^`]+)`", PAGE)

PACKAGES = {path.parent.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*/__init__.py")}
LISTED = re.findall(r"^- \*\*`([\w/]+)/`\*\*: ", PAGE, re.MULTILINE)
PATHS = {each for each in TICKED if re.fullmatch(r"[\w.-]+(/[\w.-]*)+|\w+\.(py|toml|lock)|Makefile", each)}
EVENTS = {"loop.failed"}
NAMES = sorted({each for each in TICKED if re.fullmatch(r"\w+(\.\w+)+", each)} - PATHS - EVENTS)


def test_page_has_one_line_for_every_package() -> None:
    assert sorted(LISTED) == sorted(PACKAGES)


def test_page_shows_the_layers_of_the_import_rules() -> None:
    (shown,) = re.findall(r"^    (__main__ → .*(?:\n +→ .*)+)$", PAGE, re.MULTILINE)
    layers = [set(layer.replace(",", " ").split()) for layer in shown.split("→")]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = next(each for each in settings["tool"]["importlinter"]["contracts"] if each["type"] == "layers")
    assert layers == [set(layer.replace("|", " ").split()) for layer in contract["layers"]]


def test_every_path_on_the_page_exists() -> None:
    assert not [path for path in sorted(PATHS) if not (SOURCE / path).exists() and not (ROOT / path).exists()]


@pytest.mark.parametrize("name", NAMES)
def test_every_function_in_a_call_path_exists(name: str) -> None:
    pkgutil.resolve_name(f"artcafe.{name}")


def test_call_paths_name_functions_of_every_layer() -> None:
    assert {name.split(".")[0] for name in NAMES} >= {"rest", "gateway", "services", "fabric", "tables", "rules", "wire"}
