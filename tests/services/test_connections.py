"""Limits of connections over two servers of a fleet, on a real nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from artcafe.errors import ConnectionLimit
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.server import EmbeddedNats
from artcafe.fabric.fabric import Fabric
from artcafe.model import AgentId, AgentPrincipal, TenantId
from artcafe.services.connections import Connections
from tests.fabric.nats_env import until
from tests.services.service_env import Server

BOUND_S = 10
ACCOUNTS = Accounts(b"s" * 32, "dev")


class Peer:
    """The connections of one server of a fleet."""

    def __init__(self, fabric: Fabric, tables: Server) -> None:
        self.fabric, self.connections = fabric, Connections(tables.record_cache, tables.plans, fabric.census)


@asynccontextmanager
async def peer(nats: EmbeddedNats, tables: Server) -> AsyncIterator[Peer]:
    """Run a server. It stops without announcing it, as if killed."""
    fabric = Fabric([nats.url], ACCOUNTS)
    fabric.announcements.listen(lambda _: None)
    async with asyncio.TaskGroup() as group:
        group.create_task(fabric.run())
        await fabric.wait_up(BOUND_S)
        try:
            yield Peer(fabric, tables)
        finally:
            fabric.close()


async def know_each_other(*peers: Peer) -> None:
    async with asyncio.timeout(BOUND_S):
        while any(len(each.fabric.announcements.peers()) < len(peers) - 1 for each in peers):  # noqa: ASYNC110 (heartbeats)
            await asyncio.sleep(0.05)


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    nats = EmbeddedNats(tmp_path, ACCOUNTS)
    await nats.start()
    try:
        yield nats
    finally:
        await nats.stop()


async def a_tenant(server: Server, **limits: int) -> TenantId:
    """Create a tenant with these limits."""
    tenant_id = (await server.tenant()).tenant_id
    await server.set_limits(tenant_id, **limits)
    return tenant_id


def agent(tenant_id: TenantId, number: int = 1) -> AgentPrincipal:
    return AgentPrincipal(agent_id=AgentId(f"agt_{number}"), tenant_id=tenant_id, epoch=0)


async def attempts(entering: list[tuple[Peer, AgentPrincipal]]) -> list[ConnectionLimit | None]:
    """Open connections, all at once, and return each result."""
    results: list[ConnectionLimit | None] = []

    async def attempt(server: Peer, who: AgentPrincipal) -> None:
        try:
            await server.connections.enter(who)
        except ConnectionLimit as exc:
            results.append(exc)
        else:
            results.append(None)

    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
        for server, who in entering:
            group.create_task(attempt(server, who))
    return results


@pytest.mark.parametrize("limit", ["connections", "agent_connections"])
async def test_fifty_at_once_on_two_servers_open_exactly_the_limit(nats: EmbeddedNats, server: Server, limit: str) -> None:
    tenant_id = await a_tenant(server, **{limit: 10})
    async with peer(nats, server) as one, peer(nats, server) as two:
        await know_each_other(one, two)
        results = await attempts([(each, agent(tenant_id)) for _ in range(25) for each in (one, two)])
        assert results.count(None) == 10
        assert await one.connections.usage(tenant_id, "agt_1") == await two.connections.usage(tenant_id, "agt_1") == (10, 10)


async def test_closed_connection_makes_room_on_the_other_server(nats: EmbeddedNats, server: Server) -> None:
    tenant_id = await a_tenant(server, connections=2)
    async with peer(nats, server) as one, peer(nats, server) as two:
        await know_each_other(one, two)
        assert await one.connections.enter(agent(tenant_id, 1)) == 1
        assert await two.connections.enter(agent(tenant_id, 2)) == 2, "with those of the other server"
        with pytest.raises(ConnectionLimit):
            await two.connections.enter(agent(tenant_id, 3))
        one.connections.leave(agent(tenant_id, 1))
        await two.connections.enter(agent(tenant_id, 3))


async def test_connections_of_a_killed_server_are_given_back(nats: EmbeddedNats, server: Server) -> None:
    tenant_id = await a_tenant(server, connections=2)
    async with peer(nats, server) as one:
        async with peer(nats, server) as two:
            await know_each_other(one, two)
            for number in (1, 2):
                await two.connections.enter(agent(tenant_id, number))
            with pytest.raises(ConnectionLimit):
                await one.connections.enter(agent(tenant_id, 3))
        await one.connections.enter(agent(tenant_id, 3))
        await one.connections.enter(agent(tenant_id, 4))
        with pytest.raises(ConnectionLimit):
            await one.connections.enter(agent(tenant_id, 5))


async def test_other_tenants_do_not_count(nats: EmbeddedNats, server: Server) -> None:
    mine, other = await a_tenant(server, connections=1), await a_tenant(server, connections=1)
    async with peer(nats, server) as one, peer(nats, server) as two:
        await know_each_other(one, two)
        await one.connections.enter(agent(mine))
        await two.connections.enter(agent(other))
        with pytest.raises(ConnectionLimit):
            await two.connections.enter(agent(mine))


async def test_while_nats_is_away_a_server_admits_by_its_own_count(nats: EmbeddedNats, server: Server) -> None:
    tenant_id = await a_tenant(server, connections=2)
    async with peer(nats, server) as one, peer(nats, server) as two:
        await know_each_other(one, two)
        await nats.stop()
        await until(lambda: not one.fabric._platform.is_up)
        assert (await attempts([(one, agent(tenant_id, number)) for number in range(3)])).count(None) == 2


async def test_cancelled_login_is_not_counted(nats: EmbeddedNats, server: Server) -> None:
    tenant_id = await a_tenant(server, connections=2)
    async with peer(nats, server) as one, peer(nats, server) as two:
        await know_each_other(one, two)
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
            entering = [group.create_task(one.connections.enter(agent(tenant_id, number))) for number in range(5)]
            await asyncio.sleep(0)
            for each in entering:
                each.cancel()
        assert len(one.connections) == 0
        assert (await attempts([(two, agent(tenant_id, number)) for number in range(3)])).count(None) == 2
