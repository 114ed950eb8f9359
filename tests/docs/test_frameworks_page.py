"""docs/frameworks.md: its recipes are those of examples/frameworks, which tests/flows/test_frameworks.py runs."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "frameworks.md").read_text()
RECIPES: Final = sorted((ROOT / "examples" / "frameworks").glob("*_recipe.py"))
BLOCKS: Final = [textwrap.dedent(found).strip() for found in re.findall(r"(?:^    .*\n|^\n(?=\n?    ))+", PAGE, re.MULTILINE)]
MODEL: Final = re.compile("scripted", re.IGNORECASE)
"""In the names of what replaces a model."""


def recipe_of(path: Path) -> str:
    """Return the functions of a recipe without its offline model."""
    text = path.read_text()
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    shown = [ast.get_source_segment(text, node) for node in functions if not MODEL.search(node.name)]
    return "\n\n".join(filter(None, shown))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_page_shows_the_recipe_of_the_file(path: Path) -> None:
    assert recipe_of(path) in [re.sub(r"\n{2,}", "\n\n", block) for block in BLOCKS]


def test_page_shows_every_recipe_in_about_fifteen_lines() -> None:
    shown = [block for block in BLOCKS if "def work(" in block]
    assert len(shown) == len(RECIPES) == 6
    assert max(len([line for line in block.splitlines() if line]) for block in shown) <= 17
