"""docs/dynamodb.md: its permissions are those that the code needs, and its policy allows a server all of them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import boto3

from artcafe.tables.dynamodb.permissions import ACTIONS, SERVER_ACTIONS, WRITE_ACTIONS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "dynamodb.md").read_text()
CALLERS = {"items", "call", "_call", "_write"}
"""The functions of `tables.dynamodb` whose first argument is an operation."""


def called() -> Iterator[str]:
    """Yield the operations that the code calls, as boto3's methods."""
    for file in (ROOT / "src" / "artcafe" / "tables" / "dynamodb").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLERS:
                first = node.args[0] if node.args else None
                if isinstance(first, ast.Constant):
                    yield str(first.value)


def needed() -> set[str]:
    """Return the actions of all calls. DynamoDB needs `TagResource` for a new table with tags."""
    names = boto3.client("dynamodb", "us-east-1").meta.method_to_api_mapping
    actions = {names[each] for each in called()}
    assert {"TransactWriteItems", "CreateTable", "Scan", "DescribeTable"} <= actions, "the calls are found"
    return actions - {"TransactWriteItems"} | set(WRITE_ACTIONS.values()) | {"TagResource"}


def rows() -> dict[str, set[str]]:
    """Return the permissions of each role in the page's table."""
    cells = re.findall(r"^\| (an? (?:server|operator)[^|]*) \| ([^|]*) \|$", PAGE, re.MULTILINE)
    return {role: set(re.findall(r"`([A-Z][A-Za-z]+)`", text)) for role, text in cells}


def policy() -> list[set[str]]:
    """Return the actions of each statement of the page's policy."""
    (text,) = re.findall(r"^    \{\n(?:    .*\n)+?    \}\n", PAGE, re.MULTILINE)
    statements = json.loads(text)["Statement"]
    actions = [[each["Action"]] if isinstance(each["Action"], str) else each["Action"] for each in statements]
    return [{action.removeprefix("dynamodb:") for action in each} for each in actions]


def test_page_has_every_permission_that_the_code_needs_and_no_other() -> None:
    assert set.union(*rows().values()) == needed()


def test_policy_allows_a_server_what_the_table_says() -> None:
    documented = rows()
    assert policy() == [documented["a server"], documented["a server with `OPERATORS`"] - {"OPERATORS"}]
    assert documented["a server"] == {*SERVER_ACTIONS, "DescribeTable", "DescribeTimeToLive"}
    assert {*ACTIONS.values(), *WRITE_ACTIONS.values()} == {*SERVER_ACTIONS, "Scan"}
