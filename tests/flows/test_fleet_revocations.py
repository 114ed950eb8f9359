"""A revocation at one server of a fleet takes effect at the other, on every open socket, within the contract's 5 s."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack

import httpx2
import pytest
from click.testing import CliRunner

from artcafe.cli.commands import artcafe
from artcafe.data_dir import read_secret
from artcafe.identity.local import LocalIdentity
from artcafe.observe.clock import now
from artcafe.rules.keys import key_id
from artcafe.rules.secrets import derive
from artcafe.sdk.keys import load_signer
from artcafe.tables.catalog import TENANTS, Environment
from artcafe.tables.engine.writes import Assign, ItemKey, Update
from artcafe.tables.sqlite.engine import Sqlite
from tests import ssh_keygen
from tests.fleet import Fleet, running_fleet
from tests.flows.test_fleet import wait_until
from tests.gateway.raw_client import RawClient, open_client
from tests.plain_http import NO_AUTHORITIES
from tests.platform import Cast, Platform

BOUND_S = 20


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


def token_of(fleet: Fleet, user: str) -> str:
    """Return a token of the local identity."""
    return LocalIdentity(derive(read_secret(fleet.secret), "local-identity")).issue(user, now())


def owner_at(server: Platform, cast: Cast) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        base_url=f"{server.url}/v1/tenants/{cast.tenant}",
        headers={"Authorization": f"Bearer {cast.token}"},
        trust_env=False,
        verify=NO_AUTHORITIES,
    )


async def joined(fleet: Fleet, cast: Cast, user: str, role: str) -> str:
    """Invite a person, accept, and return the person's token."""
    token = token_of(fleet, user)
    async with owner_at(fleet.servers[0], cast) as owner:
        invited = await owner.post("/members", json={"address": user, "role": role})
        assert invited.status_code == 201, invited.text
        accepted = await owner.post(
            f"{fleet.servers[0].url}/v1/invitations/acceptances",
            headers={"Authorization": f"Bearer {token}"},
            json={"token": invited.json()["token"], "id_token": token},
        )
        assert accepted.status_code == 201, accepted.text
    return token


async def open_socket(stack: AsyncExitStack, server: Platform) -> RawClient:
    return await stack.enter_async_context(open_client(server.gateway_url))


async def all_closed(sockets: list[RawClient], code: int) -> None:
    async with asyncio.timeout(BOUND_S):
        assert [await each.closed() for each in sockets] == [code] * len(sockets)


async def test_key_revoked_at_one_server_closes_only_its_own_sockets_at_both(fleet: Fleet) -> None:
    cast = await fleet.tenant_with()
    second = ssh_keygen.make_key(fleet.folder / f"{cast.tenant}-second")
    line = ssh_keygen.public_line(second)
    async with AsyncExitStack() as stack, owner_at(fleet.servers[0], cast) as owner:
        path = f"/agents/{cast.agents[0]}/keys"
        assert (await owner.post(path, json={"public_key": line})).status_code == 201
        by_first = [await open_socket(stack, server) for server in fleet.servers]
        by_second = [await open_socket(stack, server) for server in fleet.servers]
        for sockets, key in ((by_first, cast.keys[0]), (by_second, second)):
            for socket in sockets:
                assert "session_id" in await socket.login(cast.tenant, cast.agents[0], key)

        assert (await owner.delete(f"{path}/{key_id(line)}")).status_code == 204

        await all_closed(by_second, 4503)
        for socket in by_first:
            assert await socket.ask("status", status="here") == {"status": "here"}


@pytest.mark.parametrize(("change", "code"), [("removed", 4503), ("demoted", 4001)])
async def test_member_removed_or_demoted_at_one_server_is_disconnected_at_both(fleet: Fleet, change: str, code: int) -> None:
    cast = await fleet.tenant_with()
    user = f"{change}-{cast.tenant}@example.com"
    token = await joined(fleet, cast, user, "member")
    async with AsyncExitStack() as stack, owner_at(fleet.servers[0], cast) as owner:
        sockets = [await open_socket(stack, server) for server in fleet.servers]
        for socket in sockets:
            assert (await socket.ask("connect", access_token=token, tenant_id=cast.tenant))["role"] == "member"
            assert await socket.ask("watch", channel=cast.channels[0]) == {"channel": cast.channels[0]}

        if change == "removed":
            assert (await owner.delete(f"/members/{user}")).status_code == 204
        else:
            assert (await owner.patch(f"/members/{user}", json={"role": "viewer"})).status_code == 200

        await all_closed(sockets, code)


async def test_limits_written_into_the_row_by_an_operator_apply_at_both_servers(fleet: Fleet) -> None:
    cast = await fleet.tenant_with()
    async with AsyncExitStack() as stack:
        rest = await stack.enter_async_context(cast.rest())
        token = (await rest.login(cast.tenant, cast.agents[0], load_signer(cast.keys[0]))).access_token
        for server in fleet.servers:  # From here on both servers have the tenant in memory.
            assert "session_id" in await (await open_socket(stack, server)).ask("connect", access_token=token)
        tables = await Sqlite.open(fleet.tables, Environment.PROD)
        await tables.update(Update(TENANTS, ItemKey(cast.tenant), [Assign("limits", {"agent_connections": 1})]))
        await tables.close()
        for server in fleet.servers:

            async def is_refused(server: Platform = server) -> bool:
                async with open_client(server.gateway_url) as second:
                    await second.say("connect", access_token=token)
                    answer = await second.next()
                    return "error" in answer and answer["error"]["code"] == "connection_limit"

            await wait_until(is_refused, bool)


async def test_person_at_one_server_sees_agents_connect_and_disconnect_at_the_other(fleet: Fleet) -> None:
    cast = await fleet.tenant_with()
    async with open_client(fleet.servers[0].gateway_url) as person:
        await person.ask("connect", access_token=cast.token, tenant_id=cast.tenant)
        assert await person.ask("watch", presence=True) == {"presence": True}
        async with open_client(fleet.servers[1].gateway_url) as agent:
            await agent.login(cast.tenant, cast.agents[0], cast.keys[0])
            came = (await person.next())["presence"]
            assert (came["agent"], came["connected"], came["status"]) == (cast.agents[0], True, None)
            await agent.ask("status", status="busy")
            assert (await person.next())["presence"]["status"] == "busy"
        assert (await person.next())["presence"] == {"agent": cast.agents[0], "connected": False, "status": None, "since": None}


async def test_suspended_tenant_is_disconnected_at_both_servers_and_recorded_in_both_audits(fleet: Fleet) -> None:
    cast = await fleet.tenant_with()
    environ = {
        "ARTCAFE_TABLES": f"sqlite:{fleet.tables}",
        "ARTCAFE_NATS_URLS": fleet.nats.urls,
        "ARTCAFE_SECRET_FILE": str(fleet.secret),
    }

    async def operator(*command: str) -> str:
        done = await asyncio.to_thread(CliRunner(env=environ).invoke, artcafe, [*command, "--json"])
        assert done.exit_code == 0, done.output
        return done.stdout

    async with AsyncExitStack() as stack, cast.rest() as rest:
        token = (await rest.login(cast.tenant, cast.agents[0], load_signer(cast.keys[0]))).access_token
        sockets = [await open_socket(stack, server) for server in fleet.servers]
        for socket in sockets:
            assert "session_id" in await socket.ask("connect", access_token=token)
        await operator("suspend", cast.tenant)
        await all_closed(sockets, 4506)
    async with cast.rest() as owner:
        actions = [each.action async for each in owner.tenant(cast.tenant).audit.list() if each.actor == "operator"]
    assert actions == ["tenant.suspend"] * 2
    of_platform = json.loads(await operator("platform", "audit", "list"))
    assert [each["outcome"] for each in of_platform if each["target"] == cast.tenant] == ["done", "intended"]
    assert json.loads(await operator("platform", "audit", "verify", "--tenant", cast.tenant))["entries"] > 0
