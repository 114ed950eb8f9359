"""Find the permission checks in the source, and remove them from the running code one at a time."""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType
from typing import Final

from artcafe.model import Role
from artcafe.rules import access
from artcafe.rules.access import Action, AgentAccess

SOURCE: Final = Path(access.__file__).parents[1]
FILES: Final = (*sorted((SOURCE / "services").glob("*.py")), SOURCE / "rest" / "principal.py", SOURCE / "rules" / "access.py")
MEMBER_LOGIN: Final = SOURCE / "services" / "member_login.py"
GATEWAY_FUNCTIONS: Final = frozenset({"Authentication.open_session"})
"""Functions of other files that only the gateway calls."""
CALLS: Final = frozenset({"check", "check_managed", "check_may_find", "check_receives", "check_visible", "require_tenant"})
"""Functions that raise if the caller has no permission."""
REFUSALS: Final = frozenset(
    {
        "Forbidden",
        "TermsRequired",
        "TenantNotFound",
        "TenantSuspended",
        "Unauthenticated",
        "Revoked",
        "RoleChanged",
        "BadCredentials",
    }
)
"""Errors that refuse any caller. Raising one under a condition is a check."""
NOT_CHECKS: Final[Mapping[str, str]] = {
    "check(publish, limits.message_bytes)": "limits a message's size, independent of its sender",
    "if row is None:": "a race with the tenant's deletion; tested in tests/services",
    "if row is None or tenant.is_gone(row):": "the same race, in the transaction",
    "if tenant.is_deleting:": "a race with the agent's deletion; tested in tests/services",
    "if tenant is None:": "the same race, at the read",
    "if known is None:": "the same race, at a lookup in the cache",
}
"""Statements resembling a permission check, with the reason why they are none."""
SECOND_CHECKS: Final[Mapping[str, str]] = {
    "Requests.submit_nowait": "only agents ask on the socket, and every agent may; REST asks by `Requests.submit`",
    "Messaging.submit_nowait": "only agents publish on the socket, and every agent may; REST publishes by `Messaging.submit`",
}
"""Functions whose checks repeat an earlier check, for every cell of the matrix."""
HIT: Final = "__check_refuses__"


@dataclass(frozen=True)
class PermissionCheck:
    """A statement that stops a caller: its file, line, function and source text."""

    file: Path
    line: int
    function: str
    text: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(SOURCE)} {self.function}: {self.text}"


def found() -> list[PermissionCheck]:
    """Return every check except those reached only through the gateway."""
    return [check for file in FILES for check in _in(file) if not _is_of_gateway(check)]


def of_gateway() -> list[PermissionCheck]:
    """Return every check reached only through the gateway, never by the REST matrix."""
    return [check for file in FILES for check in _in(file) if _is_of_gateway(check)]


def _is_of_gateway(check: PermissionCheck) -> bool:
    return check.file == MEMBER_LOGIN or check.function in GATEWAY_FUNCTIONS


@functools.cache
def _in(file: Path) -> Sequence[PermissionCheck]:
    text = file.read_text()
    lines, checks = text.splitlines(), []
    for node, function in _statements(ast.parse(text)):
        if function in SECOND_CHECKS or not _stops(node):
            continue
        if (first := lines[node.lineno - 1].strip()) not in NOT_CHECKS and not _allows_everyone(first):
            checks.append(PermissionCheck(file, node.lineno, function, first))
    return checks


def _statements(tree: ast.AST, function: str = "") -> Iterator[tuple[ast.stmt, str]]:
    for node in ast.iter_child_nodes(tree):
        inside = function
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inside = f"{function}.{node.name}" if function else node.name
        if isinstance(node, ast.stmt):
            yield node, function
        yield from _statements(node, inside)


def _stops(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr):
        called = node.value.value if isinstance(node.value, ast.Await) else node.value
        return isinstance(called, ast.Call) and _name(called.func) in CALLS
    if not (isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is not None):
        return False
    raised = node.body[-1].exc
    return _name(raised.func if isinstance(raised, ast.Call) else raised) in REFUSALS


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _allows_everyone(text: str) -> bool:
    """Return whether the check allows every member and agent of the tenant: it exists for a future restriction."""
    named = [action for action in Action if f"Action.{action.name}," in text or f"Action.{action.name})" in text]
    return any(access.WHO[action] == (frozenset(Role), AgentAccess.ANY) for action in named)


@contextmanager
def watched(checks: Sequence[PermissionCheck], refused: Callable[[PermissionCheck], None]) -> Iterator[None]:
    """Call `refused` with each check that refuses a caller in the running code."""

    def hit(number: int) -> None:
        refused(checks[number])

    modules = [vars(importlib.import_module(_module(file))) for file in FILES]
    for names in modules:
        names[HIT] = hit
    try:
        with _changed({check: partial(_with_hit, number) for number, check in enumerate(checks)}):
            yield
    finally:
        for names in modules:
            del names[HIT]


def _with_hit(number: int, check: ast.stmt) -> ast.stmt:
    """Return the check with a call of `HIT` where it raises."""
    handler = ast.ExceptHandler(body=[*ast.parse(f"{HIT}({number})").body, ast.Raise()])
    return ast.Try(body=[check], handlers=[handler], orelse=[], finalbody=[])


@contextmanager
def without(check: PermissionCheck) -> Iterator[None]:
    """Remove the check from the running code."""
    with _changed({check: lambda _: ast.Pass()}):
        yield


@contextmanager
def _changed(changes: Mapping[PermissionCheck, Callable[[ast.stmt], ast.stmt]]) -> Iterator[None]:
    """Replace checks in the running code."""
    replaced: list[tuple[FunctionType, CodeType]] = []
    try:
        for file in {check.file for check in changes}:
            here = {check.line: change for check, change in changes.items() if check.file == file}
            tree = ast.parse(file.read_text())
            _Rewriter(here).visit(tree)
            codes = dict(_codes(compile(ast.fix_missing_locations(tree), str(file), "exec")))
            for name in {check.function for check in changes if check.file == file}:
                function = _function(_module(file), name)
                replaced.append((function, function.__code__))
                function.__code__ = codes[name]
        yield
    finally:
        for function, code in replaced:
            function.__code__ = code


class _Rewriter(ast.NodeTransformer):
    def __init__(self, changes: Mapping[int, Callable[[ast.stmt], ast.stmt]]) -> None:
        """`changes` has the line of each check."""
        self._changes = changes

    def visit(self, node: ast.AST) -> object:
        change = self._changes.get(node.lineno) if isinstance(node, ast.stmt) and _stops(node) else None
        return self.generic_visit(node) if change is None or not isinstance(node, ast.stmt) else change(node)


def _codes(code: CodeType) -> Iterator[tuple[str, CodeType]]:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield each.co_qualname, each
            yield from _codes(each)


def _module(file: Path) -> str:
    return ".".join(("artcafe", *file.relative_to(SOURCE).with_suffix("").parts))


def _function(module: str, name: str) -> FunctionType:
    found: object = importlib.import_module(module)
    for part in name.split("."):
        found = vars(found)[part]
    assert isinstance(found, FunctionType), f"{module}.{name} is no plain function"
    return found
