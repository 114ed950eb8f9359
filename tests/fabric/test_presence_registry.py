from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from artcafe.errors import Unavailable
from artcafe.fabric.embedded.process import some_free_port
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.presence_registry import PORTION, AgentPresence, PresenceRegistry
from artcafe.model import AgentId, TenantId
from artcafe.rules.subjects import PRESENCE
from tests.fabric.nats_clients import connected
from tests.fabric.nats_env import Nats, a_tenant, until, within

X, Y = AgentId("agt_x"), AgentId("agt_y")
START = datetime(2026, 11, 22, 16, 50, 57, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@asynccontextmanager
async def server(
    nats: Nats, tenant: TenantId, name: str, url: str | None = None, *, lease_s: float = 50, renew_s: float = 20
) -> AsyncIterator[PresenceRegistry]:
    """Run one server's presence registry of the tenant. It ends abruptly, as if it had been killed."""
    async with nats.connection(tenant, url) as connection:
        registry = PresenceRegistry(connection, name, lease_s=lease_s)

        async def renew() -> None:
            while True:
                await asyncio.sleep(renew_s)
                registry.renew()

        async with asyncio.TaskGroup() as group:
            running = [group.create_task(each()) for each in (registry.run, renew)]
            try:
                yield registry
            finally:
                for each in running:
                    each.cancel()


async def test_later_server_receives_the_connected_agents(nats: Nats) -> None:
    tenant = a_tenant()
    async with server(nats, tenant, "a") as first:
        first.put(AgentPresence(X, at(0), "busy", at(1)))
        assert await within(first.is_known())
        async with server(nats, tenant, "b") as second:
            assert await within(second.is_known())

            assert second.find(X) == AgentPresence(X, at(0), "busy", at(1))
            assert second.find(Y) is None


async def test_changes_reach_every_server(nats: Nats) -> None:
    tenant = a_tenant()
    async with server(nats, tenant, "a") as here, server(nats, tenant, "b") as there, server(nats, tenant, "c") as third:
        for registry in (here, there, third):
            assert await within(registry.is_known())

        here.put(AgentPresence(X, at(0)))
        assert here.find(X) == AgentPresence(X, at(0))
        await until(lambda: there.find(X) == third.find(X) == AgentPresence(X, at(0)))

        here.put(AgentPresence(X, at(0), "busy", at(1)))
        await until(lambda: there.find(X) == third.find(X) == AgentPresence(X, at(0), "busy", at(1)))

        here.remove(X)
        here.remove(X)
        assert here.find(X) is None
        await until(lambda: there.find(X) is None and third.find(X) is None)


async def test_presence_does_not_reach_another_tenant(nats: Nats) -> None:
    ours, theirs = a_tenant(), a_tenant()
    async with server(nats, ours, "a") as here, server(nats, ours, "b") as there, server(nats, theirs, "b") as foreign:
        assert await within(foreign.is_known())
        here.put(AgentPresence(X, at(0)))
        assert await within(there.is_known())
        await until(lambda: there.find(X) is not None)

        foreign.put(AgentPresence(Y, at(0)))
        assert foreign.find(X) is None
        assert here.find(Y) is None


async def test_servers_that_join_at_the_same_time_hear_each_other(nats: Nats) -> None:
    for _ in range(5):
        tenant = a_tenant()
        async with AsyncExitStack() as stack:
            registries = [await stack.enter_async_context(server(nats, tenant, name)) for name in "abc"]
            for number, registry in enumerate(registries):
                registry.put(AgentPresence(AgentId(f"agt_{number}"), at(number)))
            for registry in registries:
                assert await within(registry.is_known())
            await everybody_sees(registries, [AgentId(f"agt_{number}") for number in range(3)])


async def everybody_sees(registries: list[PresenceRegistry], agents: list[AgentId]) -> None:
    """Wait until each server knows each agent."""
    await until(lambda: all(registry.find(agent) for registry in registries for agent in agents))


async def test_agent_on_two_servers_is_connected_until_it_has_left_both(nats: Nats) -> None:
    tenant = a_tenant()
    async with server(nats, tenant, "a") as one, server(nats, tenant, "b") as other, server(nats, tenant, "c") as third:
        assert await within(third.is_known())
        one.put(AgentPresence(X, at(0), "early", at(3)))
        other.put(AgentPresence(X, at(1), "late", at(4)))
        everybody = (one, other, third)
        await until(lambda: all(registry.find(X) == AgentPresence(X, at(0), "late", at(4)) for registry in everybody))

        one.remove(X)
        await until(lambda: all(registry.find(X) == AgentPresence(X, at(1), "late", at(4)) for registry in everybody))
        other.remove(X)
        await until(lambda: all(registry.find(X) is None for registry in everybody))


async def test_status_is_kept_on_the_server_where_the_agent_is_still_connected(nats: Nats) -> None:
    tenant = a_tenant()
    async with server(nats, tenant, "a") as one, server(nats, tenant, "b") as other, server(nats, tenant, "c") as third:
        assert await within(third.is_known())
        one.put(AgentPresence(X, at(0), "busy", at(3)))
        other.put(AgentPresence(X, at(1)))
        await until(lambda: other.find(X) == AgentPresence(X, at(0), "busy", at(3)))

        one.remove(X)
        await until(lambda: third.find(X) == AgentPresence(X, at(1), "busy", at(3)))
        assert other.own(X) == AgentPresence(X, at(1), "busy", at(3))


async def test_renewed_agents_outlast_the_lease_and_those_of_a_killed_server_expire(nats: Nats) -> None:
    tenant = a_tenant()
    async with server(nats, tenant, "b", lease_s=1.0, renew_s=0.05) as watching:
        async with server(nats, tenant, "a", renew_s=0.05) as dying, connected(nats.url, nats.accounts.user(tenant)) as client:
            dying.put(AgentPresence(X, at(0)))
            assert await within(watching.is_known())
            heard = await client.subscribe(PRESENCE)
            for _ in range(25):
                await heard.next_msg(timeout=5)
            assert watching.find(X) == AgentPresence(X, at(0))
        await until(lambda: watching.find(X) is None)


async def test_wait_for_a_dead_server_is_bounded(nats: Nats) -> None:
    tenant = a_tenant()
    async with server(nats, tenant, "b") as witness:
        async with server(nats, tenant, "a") as dying:
            dying.put(AgentPresence(X, at(0)))
            assert await within(witness.is_known())
            await until(lambda: witness.find(X) is not None)
        witness.put(AgentPresence(Y, at(0)))
        async with server(nats, tenant, "c") as late:
            assert await within(late.is_known())

            assert late.find(Y) is not None
            assert late.find(X) is None


async def test_disconnected_server_reports_unknown_and_catches_up_on_reconnect(nats: Nats) -> None:
    tenant = a_tenant()
    async with nats.proxy() as proxy, server(nats, tenant, "a") as here, server(nats, tenant, "b", proxy.url) as away:
        here.put(AgentPresence(X, at(0)))
        assert await within(here.is_known())
        assert await within(away.is_known())
        assert away.find(X) is not None

        proxy.is_open = False
        proxy.cut()
        await until(lambda: not away._connection.is_up)
        assert not await within(away.is_known())
        here.put(AgentPresence(Y, at(1)))
        away.put(AgentPresence(AgentId("agt_z"), at(2)))
        proxy.is_open = True
        await until(lambda: away._connection.is_up)

        assert await within(away.is_known())
        assert away.find(Y) == AgentPresence(Y, at(1))
        await until(lambda: here.find(AgentId("agt_z")) is not None)


async def test_many_agents_are_published_in_several_messages(nats: Nats) -> None:
    tenant = a_tenant()
    agents = [AgentId(f"agt_{number}") for number in range(2 * PORTION + 1)]
    async with server(nats, tenant, "a") as full, server(nats, tenant, "b") as early:
        assert await within(early.is_known())
        for agent in agents:
            full.put(AgentPresence(agent, at(0), "s" * 64, at(0)))
        await until(lambda: all(early.find(agent) for agent in agents))
        async with server(nats, tenant, "c") as late:
            assert await within(late.is_known())

            assert all(late.find(agent) for agent in agents)


@pytest.mark.parametrize("words", [b"", b"{}", b'["a"]', b'["a",[["agt_x","yesterday"]],true]', b"\xff"])
async def test_unreadable_update_is_ignored(nats: Nats, words: bytes) -> None:
    tenant = a_tenant()
    async with server(nats, tenant, "a") as here, server(nats, tenant, "b") as there:
        async with connected(nats.url, nats.accounts.user(tenant)) as client:
            assert await within(here.is_known())
            await client.publish(PRESENCE, words)
            await client.flush()
        there.put(AgentPresence(Y, at(0)))
        await until(lambda: here.find(Y) is not None)
        assert here.find(X) is None


async def test_presence_is_unknown_without_nats(nats: Nats) -> None:
    tenant = a_tenant()
    connection = NatsConnection("none", [f"nats://127.0.0.1:{some_free_port()}"], lambda: nats.accounts.user(tenant))
    registry = PresenceRegistry(connection, "a")
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(work) for work in (connection.run(), registry.run())]
        registry.put(AgentPresence(X, at(0)))

        assert not await within(registry.is_known())
        assert not await within(registry.is_known())
        assert registry.find(X) == AgentPresence(X, at(0))
        with pytest.raises(Unavailable):
            await connection.wait_up(0)
        connection.close()
        running[1].cancel()


async def test_failing_watcher_does_not_affect_others_or_the_registry(nats: Nats) -> None:
    def fail(agent: AgentId) -> None:
        raise ValueError(agent)

    seen: list[AgentId] = []
    tenant = a_tenant()
    async with server(nats, tenant, "a") as here, server(nats, tenant, "b") as there:
        for registry in (here, there):
            registry.watch(fail)
        there.watch(seen.append)
        assert await within(here.is_known())
        assert await within(there.is_known())
        for agent in (X, Y):
            here.put(AgentPresence(agent, at(0)))
            await until(lambda agent=agent: agent in seen)  # type: ignore[misc]  # mypy cannot infer a default's type
        assert there.find(Y) == AgentPresence(Y, at(0))
