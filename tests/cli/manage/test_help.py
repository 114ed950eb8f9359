"""Help of commands, suggestions for misspelt ones, and commands without the server's libraries."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from artcafe.cli.commands import artcafe
from tests.cli.manage.shell_user import WAIT_S, CommandResult, Person
from tests.platform import Cast, Platform


def test_misspelt_command_gets_a_suggestion(owner: Person) -> None:
    done = owner.run("tenants", "list")
    assert (done.code, "No such command 'tenants'; did you mean 'tenant'?" in done.stderr) == (2, True)
    assert "did you mean" not in owner.run("fly").stderr


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    for name in group.list_commands(click.Context(group)):
        found = group.get_command(click.Context(group), name)
        if isinstance(found, click.Group):
            yield from commands(found, *path, name)
        else:
            yield (*path, name)


@pytest.mark.parametrize("path", [path for path in commands(artcafe) if len(path) == 2], ids=" ".join)
def test_help_of_every_command_has_an_example(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(artcafe, [*path, "--help"])
    assert done.exit_code == 0
    assert re.search(rf"Examples?:\n(?:.*\n)*?.*artcafe {' '.join(path)}\b", done.stdout)
    assert "--json" in done.stdout


def test_agent_help_lists_member_and_agent_commands_separately() -> None:
    text = CliRunner().invoke(artcafe, ["agent", "--help"]).stdout
    members, itself = text.split("As the agent itself, with its SSH key:")
    assert all(f"  {name} " in members for name in ("list", "create", "show", "update", "delete", "disable", "enable"))
    assert all(f"  {name} " in itself for name in ("login", "publish", "listen"))


WITHOUT_THE_SERVER = """
import runpy, sys
SERVER = (
    "aiobotocore botocore fastapi joserfc nats picows pydantic starlette structlog ulid uvicorn uvloop"
).split()
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in SERVER:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = ["artcafe", *sys.argv[1:]]
runpy.run_module("artcafe", run_name="__main__", alter_sys=True)
"""


def run_without_the_server(person: Person, *arguments: str) -> CommandResult:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_SERVER, *arguments],
        env=person.surroundings(),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    return CommandResult(done.returncode, done.stdout, done.stderr)


def test_token_suffices_without_the_servers_libraries(owner: Person, home: Cast, platform: Platform) -> None:
    assert [each["id"] for each in run_without_the_server(owner, "tenant", "list", "--json").json] == [home.tenant]
    listed = run_without_the_server(owner, "--help")
    assert listed.code == 0
    assert re.search(r"  up +Requires the server, which is not installed\.\n", listed.stdout)
    assert "  channel " in listed.stdout
    refused = run_without_the_server(owner, "up", "--help")
    assert refused.code == 3
    assert "'up' requires the server, which is not installed" in refused.stderr
    local = run_without_the_server(Person({"DATA_DIR": str(platform.data)}), "tenant", "list")
    assert local.code == 2
    assert "Working without one requires the server to be installed here" in local.stderr
