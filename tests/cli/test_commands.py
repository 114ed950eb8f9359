"""The lists of commands, and what it costs to start one."""

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
"""The server's libraries that take 0.1 s of CPU or more to import."""


@pytest.mark.parametrize(("group", "name"), ENTRIES, ids=lambda value: getattr(value, "name", value))
def test_the_summary_of_a_command_is_how_its_help_begins(group: LazyGroup, name: str) -> None:
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
def test_a_command_imports_none_of_the_heavy_libraries_that_it_does_not_use(arguments: list[str], tmp_path: object) -> None:
    given = [each.format(tmp_path) for each in arguments]
    done = subprocess.run([sys.executable, "-c", IMPORTED, *given], capture_output=True, text=True, timeout=30, check=False)
    imported = set(done.stderr.splitlines()[-1].split())
    assert "artcafe" in imported
    assert not imported & HEAVY
