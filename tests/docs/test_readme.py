"""README.md: its commands and programs run as written."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from artcafe import Agent
from tests import ssh_keygen
from tests.conftest import Require
from tests.forked_command import forked_artcafe
from tests.platform import Platform

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent
STORY_S = 40.0
"""For nine processes of Python and ssh-keygen, on a machine that is busy with other tests."""


def section(title: str) -> str:
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## )", README, re.DOTALL | re.MULTILINE)
    return str(found)


def blocks(title: str) -> list[str]:
    """Return the indented code blocks of a section, dedented."""
    found = re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", section(title), re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def substituted(text: str, **replacements: str) -> str:
    """Return the text with addresses, ids and keys of this run; each key must occur in the text."""
    for old, new in replacements.items():
        assert old in text, f"the README has no {old}"
        text = text.replace(old, new)
    return text


def terminal_environment(platform: Platform) -> dict[str, str]:
    """Return the environment of a terminal after `. .venv/bin/activate`, in the folder where the server keeps its data."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("ARTCAFE_")}
    path = f"{BIN}{os.pathsep}{known.get('PATH', '')}"
    return known | {"PATH": path, "ARTCAFE_DATA_DIR": str(platform.data), "NO_PROXY": "127.0.0.1", "PYTHONUNBUFFERED": "1"}


def run_script(platform: Platform, folder: Path, script: str) -> list[str]:
    """Run a script in bash, fail if any command of it fails, and return the printed lines."""
    whole, environ = f"set -euo pipefail\n{script}", terminal_environment(platform)
    with tempfile.TemporaryDirectory(prefix="bin") as short, forked_artcafe(Path(short)) as command:
        environ["PATH"] = f"{command}{os.pathsep}{environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", whole],
            cwd=folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=STORY_S,
            check=False,
        )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout.splitlines()


def test_manual_steps_of_the_readme_print_what_it_shows(platform: Platform, tmp_path: Path, require: Require) -> None:
    for tool in ("bash", "curl", "ssh-keygen"):
        require(tool, shutil.which(tool) is not None)
    set_up, log_in, publish, receive = blocks("Use it by hand")
    set_up = substituted(set_up, **{"http://127.0.0.1:8080": platform.url})
    receive = substituted(receive, **{"ws://127.0.0.1:8081/v1/connect": platform.gateway_url})
    away = substituted(publish, **{"greeting-1": "greeting-2", '{"hello":"world"}': '{"hello":"again"}'})

    printed = run_script(platform, tmp_path, f"{set_up}{log_in}{publish}{receive}{away}python receive.py\n")
    agent, channel, subscription, stored, connected, heard, stored_away, connected_again, heard_again = printed
    assert (json.loads(agent)["handle"], json.loads(channel)["handle"]) == ("scout", "news")
    assert json.loads(subscription)["status"] == "active"
    assert json.loads(stored)["duplicate"] is False
    assert json.loads(stored_away)["seq"] == json.loads(stored)["seq"] + 1
    assert all("session_id" in json.loads(reply)["connect"] for reply in (connected, connected_again))
    assert "'data': {'hello': 'world'}" in heard
    assert "'data': {'hello': 'again'}" in heard_again
    assert f"'seq': {json.loads(stored_away)['seq']}," in heard_again


def test_first_example_of_the_readme_runs_as_pasted(platform: Platform, tmp_path: Path, require: Require) -> None:
    for tool in ("bash", "ssh-keygen"):
        require(tool, shutil.which(tool) is not None)
    (example,) = blocks("Two agents in ten lines")
    assert len(example.splitlines()) <= 10
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()  # `terminal_environment` has done what it does.
    printed = run_script(platform, tmp_path, substituted(example, **{"http://127.0.0.1:8080": platform.url}))
    assert printed[-1] == "{'hello': 'world'}"
    assert f"It prints `{printed[-1]}`" in section("Two agents in ten lines")


async def test_agent_of_the_readme_answers_what_it_receives(platform: Platform, tmp_path: Path) -> None:
    (example,) = blocks("An agent")
    program, reading = example.split("\n\n")
    whole = f"import asyncio\n{program}\nasync def main():\n{textwrap.indent(reading, '    ')}\nasyncio.run(main())\n"
    cast = await platform.tenant_with(agents=0, channels=0)
    async with cast.rest() as client:
        tenant = client.tenant(cast.tenant)
        for handle in ("reader", "reporter"):
            await tenant.agents.create(handle, ssh_keygen.public_line(ssh_keygen.make_key(tmp_path / handle)))
        await tenant.channels.create("news")
        await tenant.subscriptions.create("news", "reader")
    given = {"ARTCAFE_URL": cast.url, "ARTCAFE_TENANT": cast.tenant}
    reporter = Agent(cast.url, tenant=cast.tenant, agent="reporter", key=tmp_path / "reporter")
    async with asyncio.timeout(STORY_S), reporter:
        await reporter.publish("news", {"hello": "world"})
        reader = await asyncio.create_subprocess_exec(
            sys.executable, "-uc", whole, cwd=tmp_path, env=terminal_environment(platform) | given, stdout=subprocess.PIPE
        )
        try:
            answer = await anext(reporter.messages("@"))
            assert (answer.data, answer.sender) == ({"thanks": "reporter"}, "reader")
            assert reader.stdout is not None
            assert await reader.stdout.readline() == b"reporter {'hello': 'world'}\n"
        finally:
            reader.kill()
            await reader.wait()


def test_readme_has_at_most_150_lines() -> None:
    assert len(README.splitlines()) <= 150


def test_git_ignores_the_keys_that_the_pages_create_in_the_repository() -> None:
    typed = "".join(page.read_text() for page in (ROOT / "README.md", ROOT / "docs" / "cli.md"))
    keys = set(re.findall(r"ssh-keygen .*-t \S+ .*-f ([^\s$]+)", typed))
    assert keys
    assert "for A in planner worker-{1,2,3}; do ssh-keygen" in typed
    assert "for A in reporter reader; do ssh-keygen" in typed
    keys |= {"reporter", "reader", "planner", "worker-1", "worker-2", "worker-3"}
    pages = [*(ROOT / "docs" / "tutorials").glob("*.md"), ROOT / "examples" / "README.md"]
    lists = [found for page in pages for found in re.findall(r"for A in ([\w -]+);", page.read_text())]
    assert len(lists) == 4
    keys |= {key for each in lists for key in each.split()}
    for key in keys:
        assert subprocess.run(["git", "check-ignore", "-q", key], cwd=ROOT, check=False).returncode == 0, key
