"""The clauses of the contract's promises (`promises.toml`), and the tests marked with them."""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

TESTS: Final = Path(__file__).parent
MARK: Final = "pytest.mark.promise"
PENDING: Final = "†"
"""In a clause that does not run yet."""


class Passage(NamedTuple):
    """Paragraphs of the contract outside of section 5: the words that each begins with, and the clauses that are their text."""

    begins: Sequence[str]
    clauses: Mapping[str, str]


def delivery_clauses() -> Mapping[str, str]:
    """Return the text of each clause of section 5 by its id, such as `1a`, in the order of the contract."""
    found: Mapping[str, str] = _manifest()["clauses"]
    return found


def passages() -> Mapping[str, Passage]:
    """Return the other passages by their names."""
    manifest = _manifest()
    return {name: Passage(begins, manifest[name]) for name, begins in manifest["paragraphs"].items()}


def clauses() -> Mapping[str, str]:
    """Return the text of every clause by its id."""
    return {**delivery_clauses(), **{id: text for each in passages().values() for id, text in each.clauses.items()}}


def _manifest() -> Mapping[str, Any]:
    return tomllib.loads((TESTS / "promises.toml").read_text())


@functools.cache
def marked_tests() -> Mapping[str, list[str]]:
    """Return the marked tests, as `tests/…/test_x.py::test_y`, by the id of their clause.

    Every process of a test run calls this while it collects, so it parses only files with a mark and visits only functions and
    methods: 0.4 s of processor time instead of 2.2 s for every node of every file.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text()
        for function in _functions(ast.parse(text)) if MARK in text else ():
            for id in _marks_of(function):
                found.setdefault(id, []).append(f"{path.relative_to(TESTS.parent)}::{function.name}")
    return found


def sentences(contract: str) -> Mapping[str, str]:
    """Return the numbered sentences of the contract's section on delivery, by number, each on one line."""
    section = contract.partition("\n## 5. ")[2].partition("\n## 6. ")[0]
    numbered = re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |\Z)", section, re.MULTILINE | re.DOTALL)
    return {number: " ".join(text.split()) for number, text in numbered}


def paragraph(contract: str, begins: str) -> str:
    """Return the paragraph or list that begins with these words, on one line and without its bullets."""
    found = [each for each in contract.split("\n\n") if each.startswith(begins)]
    assert len(found) == 1, f"{len(found)} paragraphs begin with {begins!r}"
    return " ".join(re.sub(r"^- ", "", found[0], flags=re.MULTILINE).split())


def _functions(parent: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the functions of a module or class that pytest may collect."""
    for node in parent.body:
        if isinstance(node, ast.ClassDef):
            yield from _functions(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _marks_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == MARK:
            yield from (str(ast.literal_eval(argument)) for argument in decorator.args)
