"""Two servers on the same tables and one NATS: agents may connect to either, and changes on one take effect on the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import httpx2
import pytest

from artcafe.cli.terminal.exit_codes import REFUSED
from artcafe.errors import ArtcafeError, BadCredentials, Forbidden, Revoked
from artcafe.sdk.client import Client
from artcafe.sdk.keys import load_signer
from artcafe.sdk.records import PresenceInfo
from tests.aws import CREDENTIALS
from tests.aws import running as emulated
from tests.fleet import Fleet, NatsServers, running_fleet
from tests.flows.test_end_to_end import take
from tests.forked import run_artcafe
from tests.gateway.raw_client import open_client
from tests.mcp.http_client import http_client
from tests.mcp.stdio_client import call
from tests.platform import Cast, Platform
from tests.ssh_keygen import make_key, public_line

BOUND_S = 20

T = TypeVar("T")


@pytest.fixture(scope="module", params=["sqlite", "dynamodb"])
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    aws = request.getfixturevalue("aws") if request.param == "dynamodb" else None
    with running_fleet(tmp_path_factory.mktemp("fleet"), aws=aws) as fleet:
        yield fleet


def at(server: Platform, cast: Cast) -> Cast:
    """Return the tenant's agents with the addresses of this server."""
    return replace(cast, url=server.url)


async def signed_challenge(http: httpx2.AsyncClient, server: Platform, cast: Cast) -> tuple[str, str]:
    """Return the id of a challenge for the first agent, and the agent's signature of it."""
    claim = {"tenant_id": cast.tenant, "agent_id": cast.agents[0]}
    made = await http.post(f"{server.url}/v1/auth/challenges", json=claim)
    assert made.status_code == 201
    return made.json()["challenge_id"], await load_signer(cast.keys[0]).sign(made.json()["challenge"])


async def redeemed(http: httpx2.AsyncClient, server: Platform, challenge_id: str, signature: str) -> httpx2.Response:
    return await http.post(f"{server.url}/v1/auth/tokens", json={"challenge_id": challenge_id, "signature": signature})


async def test_challenge_of_one_server_is_redeemed_once_at_the_other(fleet: Fleet) -> None:
    one, other = fleet.servers
    cast = await fleet.tenant_with()
    async with httpx2.AsyncClient(trust_env=False) as http:
        proof = await signed_challenge(http, one, cast)
        token = (await redeemed(http, other, *proof)).json()["access_token"]
        for server in fleet.servers:
            assert (await redeemed(http, server, *proof)).json()["code"] == "bad_credentials"
            async with Client(server.url, token) as agent:
                assert (await agent.me()).agent_id == cast.agents[0]


@pytest.mark.promise("5a", "5b")
async def test_messages_published_at_one_server_are_delivered_in_order_at_the_other(fleet: Fleet) -> None:
    cast = await fleet.tenant_with(agents=2)
    here, there = (at(server, cast) for server in fleet.servers)
    async with here.agent(0) as first, there.agent(1) as second:
        for number in range(100):
            await (first if number % 2 else second).publish(cast.channels[0], number)
        for agent in (first, second):
            assert [message.data for message in await take(agent, 100)] == list(range(100))


@pytest.mark.promise("3a")
async def test_key_used_at_one_server_is_known_at_the_other(fleet: Fleet) -> None:
    cast = await fleet.tenant_with()
    here, there = (at(server, cast) for server in fleet.servers)
    async with here.agent() as first, there.agent() as second:
        receipt = await first.publish(cast.channels[0], "once", key="k")
        again = await second.publish(cast.channels[0], "once", key="k")
        assert (again.seq, again.message_id, again.duplicate) == (receipt.seq, receipt.message_id, True)


@pytest.mark.promise("6a", "6c")
async def test_agent_that_moves_to_the_other_server_continues_after_its_last_ack(fleet: Fleet) -> None:
    cast = await fleet.tenant_with(agents=2)
    here, there = (at(server, cast) for server in fleet.servers)
    async with here.agent(0) as sender:
        got: list[object] = []
        for turn in range(6):
            for number in range(10):
                await sender.publish(cast.channels[0], 10 * turn + number)
            async with (there, here)[turn % 2].agent(1) as mover:
                got += [message.data for message in await take(mover, 10)]
        assert got == list(range(60)), "in order, nothing twice, nothing missing"


async def test_requests_of_an_mcp_client_may_each_reach_another_server(fleet: Fleet) -> None:
    cast = await fleet.tenant_with(agents=2)
    async with cast.rest() as rest:
        await rest.tenant(cast.tenant).channels.create("tasks", type="queue")
        await rest.tenant(cast.tenant).subscriptions.create("tasks", cast.agents[0])
    async with Client(cast.url) as rest:
        token = (await rest.login(cast.tenant, cast.agents[0], load_signer(cast.keys[0]))).access_token
    urls = [server.url for server in fleet.servers]
    for mode in ("auto", "legacy"):
        async with asyncio.timeout(3 * BOUND_S), http_client(urls, cast.tenant, token, mode) as client:
            for number in range(2):
                await call(client, "publish", channel="tasks", data=number)
                pulled = await call(client, "inbox_pull", channel="tasks", wait_s=20)
                (task,) = pulled["messages"]
                assert task["data"] == number
                place = {"channel": task["channel"], "seq": task["seq"], "epoch": pulled["epoch"]}
                await call(client, "ack", **place, receipt=task["receipt"])
            assert (await call(client, "inbox_pull"))["messages"] == []


async def test_each_server_shows_agents_connected_to_the_other(fleet: Fleet) -> None:
    cast = await fleet.tenant_with()
    here, there = (at(server, cast) for server in fleet.servers)

    async def seen() -> PresenceInfo | None:
        async with there.rest() as rest:
            return (await rest.tenant(cast.tenant).agents.get(cast.agents[0])).presence

    async with here.agent() as agent:
        await agent.set_status("busy")
        await wait_until(seen, lambda now: now is not None and (now.connected, now.status) == (True, "busy"))
    await wait_until(seen, lambda now: now is not None and not now.connected)


@pytest.mark.promise("12b")
async def test_subscription_made_at_one_server_is_delivered_and_paused_at_the_other(fleet: Fleet) -> None:
    cast = await fleet.tenant_with(agents=2, subscribed=False)
    here, there = (at(server, cast) for server in fleet.servers)
    channel, agent = cast.channels[0], cast.agents[1]
    async with here.rest() as rest, there.agent(0) as sender:
        await sender.publish(channel, "before")
        await rest.tenant(cast.tenant).subscriptions.create(channel, agent)
        async with there.agent(1) as receiver:
            await sender.publish(channel, "while it holds")
            assert [message.data for message in await take(receiver, 1)] == ["while it holds"]
            await rest.tenant(cast.tenant).subscriptions.update(channel, agent, status="paused")
            await until_it_raises(lambda: receiver.subscribe(channel), ArtcafeError)


@pytest.mark.promise("12c")
async def test_permission_revoked_at_one_server_is_revoked_at_the_other(fleet: Fleet) -> None:
    cast = await fleet.tenant_with()
    here, there = (at(server, cast) for server in fleet.servers)
    async with here.rest() as rest, there.agent() as agent:
        channel = (await rest.tenant(cast.tenant).channels.create("managed", access="managed")).id
        await rest.tenant(cast.tenant).subscriptions.create(channel, cast.agents[0], permissions=["publish"])
        await agent.publish(channel, "let")
        await rest.tenant(cast.tenant).subscriptions.create(channel, cast.agents[0], permissions=["receive"])
        await until_it_raises(lambda: agent.publish(channel, "not let"), Forbidden)


@pytest.mark.parametrize("how", ["deleted", "disabled", "re-keyed"])
@pytest.mark.promise("12c")
async def test_disabling_an_agent_at_one_server_ends_its_tokens_and_sockets_at_both(
    fleet: Fleet, tmp_path: Path, how: str
) -> None:
    cast = await fleet.tenant_with()
    agent = cast.agents[0]
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(Client(server.url)) for server in fleet.servers]
        tokens = [(await rest.login(cast.tenant, agent, load_signer(cast.keys[0]))).access_token for rest in members]
        by_token = [await stack.enter_async_context(open_client(server.gateway_url)) for server in fleet.servers]
        by_key = [await stack.enter_async_context(open_client(server.gateway_url)) for server in fleet.servers]
        for socket, token in zip(by_token, reversed(tokens), strict=True):  # each server's token at the other
            assert "session_id" in await socket.ask("connect", access_token=token, tenant_id=cast.tenant)
        for socket in by_key:
            assert "session_id" in await socket.login(cast.tenant, agent, cast.keys[0])

        owner = await stack.enter_async_context(at(fleet.servers[0], cast).rest())
        if how == "deleted":
            await owner.tenant(cast.tenant).agents.delete(agent)
        elif how == "disabled":
            await owner.tenant(cast.tenant).agents.update(agent, status="disabled")
        else:
            await owner.tenant(cast.tenant).agents.update(agent, public_key=public_line(make_key(tmp_path / "new")))

        async with asyncio.timeout(BOUND_S):
            assert [await socket.closed() for socket in (*by_token, *by_key)] == [4503] * 4
        for rest in members:
            await until_it_raises(rest.me, Revoked)
            with pytest.raises(BadCredentials):
                await rest.login(cast.tenant, agent, load_signer(cast.keys[0]))


def test_server_with_another_secret_reports_that_nats_refuses_it(tmp_path: Path) -> None:
    nats, other = NatsServers(tmp_path / "nats", 1), tmp_path / "secret"
    other.write_text("o" * 32)
    other.chmod(0o600)
    command: list[str | Path] = ["serve", "--data-dir", tmp_path / "data", "--secret-file", other]
    command += ["--nats-urls", nats.urls, "--listen", "127.0.0.1:0", "--gateway-listen", "127.0.0.1:0"]
    nats.start()
    try:
        done = run_artcafe(*command)
    finally:
        nats.end()
    assert done.returncode == REFUSED
    assert "NATS cannot be used: nats: 'Authorization Violation'" in done.stderr
    assert "for this secret and environment" in done.stderr


@pytest.mark.timeout(120)
async def test_without_tables_connected_agents_continue_at_both_servers_and_readiness_names_the_tables(tmp_path: Path) -> None:
    with ExitStack() as emulator:
        aws = emulator.enter_context(emulated(tmp_path))
        with pytest.MonkeyPatch.context() as environ, ExitStack() as stack:
            for name, value in CREDENTIALS.items():
                environ.setenv(name, value)
            fleet = stack.enter_context(running_fleet(tmp_path, aws=aws))
            cast = await fleet.tenant_with(agents=2)
            here, there = (at(server, cast) for server in fleet.servers)
            async with here.agent(0) as first, there.agent(1) as second, httpx2.AsyncClient(trust_env=False) as http:
                await first.publish(cast.channels[0], 0)
                for agent in (first, second):
                    await take(agent, 1)
                await asyncio.to_thread(emulator.close)
                for number in range(1, 20):
                    await (first if number % 2 else second).publish(cast.channels[0], number)
                for agent in (first, second):
                    assert [message.data for message in await take(agent, 19)] == list(range(1, 20))
                for server in fleet.servers:
                    answer = await http.get(f"{server.url}/health/ready", timeout=BOUND_S)
                    assert (answer.status_code, answer.json()["nats"]) == (503, "ok")
                    assert answer.json()["tables"] != "ok"
                    refused = await http.post(
                        f"{server.url}/v1/auth/challenges",
                        json={"tenant_id": cast.tenant, "agent_id": cast.agents[0]},
                        timeout=30,
                    )
                    assert refused.status_code == 503


async def test_agent_with_both_addresses_continues_at_the_other_server_when_one_is_killed(fleet: Fleet) -> None:
    one, other = fleet.servers
    cast = await fleet.tenant_with(agents=2)
    both = replace(cast, url=f"{one.url},{other.url}")
    async with both.agent(0) as agent, at(other, cast).agent(1) as sender, asyncio.timeout(30):
        await sender.publish(cast.channels[0], 0)
        assert [message.data for message in await take(agent, 1)] == [0]
        await asyncio.to_thread(one.kill)
        try:
            await sender.publish(cast.channels[0], 1)
            assert [message.data for message in await take(agent, 1)] == [1]
            assert (await agent.publish(cast.channels[0], 2)).seq
        finally:
            await asyncio.to_thread(one.start)


async def wait_until(seen: Callable[[], Awaitable[T]], wanted: Callable[[T], bool]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not wanted(await seen()):  # noqa: ASYNC110 (what is waited for is in another process)
            await asyncio.sleep(0.01)


async def until_it_raises(attempt: Callable[[], Awaitable[object]], error: type[Exception]) -> None:
    """Repeat the attempt until it is refused; before that it must succeed."""

    async def is_refused() -> bool:
        try:
            await attempt()
        except error:
            return True
        return False

    await wait_until(is_refused, bool)
