"""Listings of commands, and the imports of a command's start."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from artcafe.cli.commands import artcafe
from artcafe.cli.tables.group import tables
from artcafe.cli.terminal.lazy_group import LazyGroup

ENTRIES = [(group, name) for group in (artcafe, tables) for name in group.list_commands(click.Context(group))]

IMPORTED = """
import sys
from artcafe.__main__ import main
sys.argv = ["artcafe", *sys.argv[1:]]
try:
    main()
finally:
    print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""

HEAVY = {"botocore", "fastapi", "nats", "picows", "starlette", "uvicorn", "uvloop"}
"""Libraries of the server with an import time of 0.1 s of CPU or more."""


@pytest.mark.parametrize(("group", "name"), ENTRIES, ids=lambda value: getattr(value, "name", value))
def test_help_of_a_command_begins_with_its_summary(group: LazyGroup, name: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    assert command.help is not None
    assert " ".join(command.help.split()).startswith(group.lazy_commands[name].summary.removesuffix("."))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["tables", "--help"],
        ["tables", "list", "--data-dir", "{}"],
        ["up", "--help"],
        ["serve", "--help"],
        ["token", "--user", "alice@example.com", "--data-dir", "{}"],
        ["nats", "--help"],
        ["tenant", "list", "--url", "http://127.0.0.1:9", "--token", "x"],
        ["agent", "publish", "--help"],
        ["me", "--help"],
    ],
    ids=" ".join,
)
def test_command_imports_no_unused_heavy_library(arguments: list[str], tmp_path: object) -> None:
    given = [each.format(tmp_path) for each in arguments]
    done = subprocess.run([sys.executable, "-c", IMPORTED, *given], capture_output=True, text=True, timeout=30, check=False)
    imported = set(done.stderr.splitlines()[-1].split())
    assert "artcafe" in imported
    assert not imported & HEAVY
