"""The server and the makers of `artcafe.testing`, without pytest's plugin."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from artcafe.errors import AgentNotFound
from artcafe.sdk.client import Client
from artcafe.testing import ServerFixture, eventually
from tests.children import plain_environ
from tests.process_group.groups import is_running

PROGRAM = """
import pathlib, sys
from artcafe.testing import ServerFixture
with ServerFixture(pathlib.Path(sys.argv[1])) as server:
    one, other = server.tenant("One", owner="alice@example.com"), server.tenant()
    one.agent("scout")
    print(server.url, server._process.pid, one.id, one.token, other.id, other.token, server.token("bob@example.com"), flush=True)
    sys.stdin.read()
"""


@pytest.mark.timeout(180)  # It starts a server in a process of its own.
async def test_tenants_of_a_program_are_apart_and_its_server_ends_when_it_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=plain_environ()) as program:
        assert program.stdout is not None
        try:
            url, pid, one, *others = program.stdout.readline().split()
            await _check_tenants(url, one, *others)
        finally:
            program.kill()
    await eventually(lambda: not is_running(int(pid)))


async def _check_tenants(url: str, one: str, token: str, other: str, other_token: str, bobs_token: str) -> None:
    async with Client(url, token) as alice, Client(url, other_token) as stranger, Client(url, bobs_token) as bob:
        assert (await alice.tenant(one).get()).name == "One"
        assert (await alice.tenant(one).agents.get("scout")).handle == "scout"
        with pytest.raises(AgentNotFound):
            await stranger.tenant(other).agents.get("scout")
        invitation = await alice.tenant(one).members.invite("bob@example.com")
        assert invitation.token is not None
        assert (await bob.accept_invitation(invitation.token)).id == one


def test_folder_that_cannot_be_used_is_an_error_with_the_log(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, and no folder")
    with pytest.raises(RuntimeError, match=r"did not start(.|\n)*data folder"), ServerFixture(tmp_path):
        pass


# --- eventually ------------------------------------------------------------------------------------------------------------


async def test_eventually_returns_the_first_true_result() -> None:
    found = iter([0, "", None, "there"])
    assert await eventually(lambda: next(found)) == "there"


async def test_eventually_waits_for_a_coroutine_function_that_asserts() -> None:
    calls = 0

    async def probe() -> bool:
        nonlocal calls
        calls += 1
        assert calls == 3, f"{calls} calls"
        return True

    assert await eventually(probe)


async def test_eventually_raises_the_last_failure() -> None:
    with pytest.raises(AssertionError, match=r"still \[\] after 0\.05 s"):
        await eventually(list, within_s=0.05)

    def fail() -> bool:
        raise AssertionError("two of three")

    with pytest.raises(AssertionError, match="two of three"):
        await eventually(fail, within_s=0.05)
    with pytest.raises(AssertionError, match=r"no result within 0\.05 s"):
        await eventually(asyncio.Event().wait, within_s=0.05)


@pytest.mark.parametrize("error", [KeyError("wrong"), TimeoutError("wrong")])
async def test_eventually_raises_other_errors_at_once(error: Exception) -> None:
    def fail() -> bool:
        raise error

    with pytest.raises(type(error), match="wrong"):
        await eventually(fail)
