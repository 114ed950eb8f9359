"""`artcafe platform state` and `artcafe platform suspended`, and the SDK's calls, on a server with an operator."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from artcafe import sync
from artcafe.cli.commands import artcafe
from artcafe.errors import Forbidden
from artcafe.sdk.client import Client
from tests.platform import WAIT_S, Platform, running

OLGA = "olga@example.com"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(artcafe, [str(each) for each in arguments])


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running(tmp_path_factory.mktemp("platform"), ["--operators", f"{OLGA}, somebody-else"]) as platform:
        yield platform


def test_operator_sees_the_state(platform: Platform) -> None:
    done = run("platform", "state", "--user", OLGA, "--data-dir", platform.data)
    assert done.exit_code == 0, done.output
    servers, nats, readiness = [block.splitlines() for block in done.stdout.strip().split("\n\n")]
    assert servers[0].split() == ["SERVER", "STATE", "HOST", "PROCESS", "VERSION", "STARTED", "CONNECTIONS", "SESSIONS"]
    assert " up " in servers[1]
    assert " 1 of 1 " in servers[1]
    assert nats[0].startswith("NATS ")
    assert len(nats) == 2
    assert [line.split() for line in readiness] == [["DEPENDENCY", "READY", "PROBLEM"], ["tables", "yes"], ["nats", "yes"]]


def test_state_as_json_has_a_count_of_connections_and_null_for_what_a_single_nats_server_lacks(platform: Platform) -> None:
    found = state_of(platform)
    (server,) = found["servers"]
    assert server["connections"] >= 1, "at least that of this command"
    assert (found["is_complete"], found["nats"]["leader"], found["nats"]["servers"][0]["lag"]) == (True, None, None)


def test_suspended_tenant_is_listed(platform: Platform) -> None:
    assert "no tenant is suspended" in run("platform", "suspended", "--user", OLGA, "--data-dir", platform.data).stderr
    cast = asyncio.run(platform.tenant_with())
    assert run("suspend", cast.tenant, "--data-dir", platform.data).exit_code == 0
    (found,) = json.loads(run("platform", "suspended", "--user", OLGA, "--data-dir", platform.data, "--json").stdout)
    assert (found["id"], found["plan"]) == (cast.tenant, "free")
    assert found["suspended_at"] is not None
    lines = run("platform", "suspended", "--user", OLGA, "--data-dir", platform.data).stdout.splitlines()
    assert lines[1].startswith(cast.tenant)


def test_others_are_refused(platform: Platform) -> None:
    for command in ("state", "suspended"):
        done = run("platform", command, "--user", "mallory@example.com", "--data-dir", platform.data)
        assert done.exit_code != 0
        assert "the user mallory@example.com may not read the platform's state" in done.stderr
        assert "OPERATORS" in done.stderr


async def test_client_returns_the_state_and_says_who_is_an_operator(platform: Platform) -> None:
    async with Client(platform.url, platform.token(OLGA)) as olga:
        assert (await olga.me()).is_operator
        state = await olga.platform_state()
        assert [each.id for each in state.servers] == [state.server]
        assert all(each.is_ready for each in state.readiness)
    async with Client(platform.url, platform.token("mallory@example.com")) as other:
        assert not (await other.me()).is_operator
        with pytest.raises(Forbidden):
            await other.platform_state()


def test_synchronous_client_has_the_same_calls(platform: Platform) -> None:
    with sync.Client(platform.url, platform.token(OLGA)) as olga:
        assert olga.platform_state().nats.is_connected
        assert all(each.id for each in olga.suspended_tenants())


def test_each_process_of_a_group_is_a_server_with_its_number(tmp_path: Path) -> None:
    with running(tmp_path, ["--processes", "2", "--operators", OLGA]) as group:
        until = time.monotonic() + WAIT_S
        while len((found := state_of(group))["servers"]) < 2:  # The processes hear each other every second.
            assert time.monotonic() < until, found
        assert sorted((each["process"], each["processes"], each["state"]) for each in found["servers"]) == [
            (1, 2, "up"),
            (2, 2, "up"),
        ]
        assert all(each["connections"] is not None and each["started_at"] for each in found["servers"])
        assert {each["name"] for each in found["readiness"]} == {"tables", "nats", "processes"}


def state_of(platform: Platform) -> dict[str, Any]:
    """Return the state as JSON."""
    done = run("platform", "state", "--user", OLGA, "--data-dir", platform.data, "--json")
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))
