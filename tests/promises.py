"""The clauses of the delivery promise (`promises.toml`), and the tests marked with them."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parent
PENDING: Final = "†"
"""Begins a clause that does not run yet."""


def clauses() -> Mapping[str, str]:
    """Return the text of each clause by its id, such as `1a`, in the order of the contract."""
    found: Mapping[str, str] = tomllib.loads((TESTS / "promises.toml").read_text())["clauses"]
    return found


def marked_tests() -> Mapping[str, list[str]]:
    """Return the marked tests, as `tests/…/test_x.py::test_y`, by the id of their clause."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for id in _marks_of(function):
                    found.setdefault(id, []).append(f"{path.relative_to(TESTS.parent)}::{function.name}")
    return found


def sentences(contract: str) -> Mapping[str, str]:
    """Return the numbered sentences of the contract's section on delivery, by number, each on one line."""
    section = contract.partition("\n## 5. ")[2].partition("\n## 6. ")[0]
    numbered = re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |\Z)", section, re.MULTILINE | re.DOTALL)
    return {number: " ".join(text.split()) for number, text in numbered}


def _marks_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.promise":
            yield from (str(ast.literal_eval(argument)) for argument in decorator.args)
