"""Every command is run by a test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.docs.test_cli_page import COMMANDS

TESTS: Final = Path(__file__).parents[1]
GROUPS: Final = {
    "cli/manage/test_agent_commands.py": ("agent",),
    "cli/manage/test_work_commands.py": ("agent",),
    "cli/operate/test_plans.py": ("plans",),
    **{f"cli/tables/{file.name}": ("tables",) for file in (TESTS / "cli" / "tables").glob("test_*.py")},
}
"""Tests whose helper runs the commands of one group, and gets their arguments without its name."""


def run_in_tests() -> set[tuple[str, ...]]:
    """Return the beginnings of all sequences of words in the tests: arguments of a call, lists and tuples."""
    found: set[tuple[str, ...]] = set()
    for file in TESTS.rglob("test_*.py"):
        group = GROUPS.get(str(file.relative_to(TESTS)), ())
        for words in _sequences(ast.parse(file.read_text())):
            for start in range(len(words)):
                for end in range(start + 1, len(words) + 1):
                    found.update((words[start:end], (*group, *words[start:end])))
    return found


def _sequences(tree: ast.AST) -> Iterator[tuple[str, ...]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call | ast.List | ast.Tuple):
            some: list[str] = []
            for each in node.args if isinstance(node, ast.Call) else node.elts:
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    some.append(each.value)
                else:
                    yield tuple(some[-8:])
                    some = []
            yield tuple(some[:8])


@pytest.fixture(scope="module")
def run() -> set[tuple[str, ...]]:
    return run_in_tests()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_command_is_run_by_a_test(command: tuple[str, ...], run: set[tuple[str, ...]]) -> None:
    assert command in run
