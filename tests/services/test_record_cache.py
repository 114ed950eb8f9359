from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from artcafe.errors import AgentNotFound, ChannelNotFound, Unavailable
from artcafe.model import AgentStatus, HandleKind, TenantChange, UserPrincipal
from artcafe.services.record_cache import RecordCache
from artcafe.tables.catalog import Environment, Table
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import ItemKey
from artcafe.tables.sqlite.engine import Sqlite
from tests.services.service_env import Clock, Logs, Server

WAIT_S = 20


class Watched(Sqlite):
    """The SQLite engine with a count of its reads. It can delay one response after reading."""

    reads = 0
    held: asyncio.Event | None = None
    released: asyncio.Event

    async def get(self, table: Table, keys: Sequence[ItemKey], *, consistent: bool = False) -> list[Item | None]:
        """Read items, as the port describes."""
        self.reads += 1
        found = await super().get(table, keys, consistent=consistent)
        if self.held is not None:
            held, self.held = self.held, None
            held.set()
            await self.released.wait()
        return found


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Watched]:
    tables = await Watched.open(tmp_path / "watched.db", Environment.PROD)
    assert isinstance(tables, Watched)
    tables.released = asyncio.Event()
    yield tables
    await tables.close()


@pytest.fixture
async def server(engine: Watched) -> Server:
    return Server(engine, Clock(), Logs())


@pytest.fixture
async def owner(server: Server) -> UserPrincipal:
    return await server.tenant()


async def test_second_read_of_a_record_is_served_from_memory(server: Server, engine: Watched, owner: UserPrincipal) -> None:
    channel, agent = await server.channels.create(owner, name="News"), await server.agent(owner)
    record_cache = server.record_cache
    assert record_cache.peek_destination(owner.tenant_id, channel.id) is None
    assert await record_cache.channel(owner.tenant_id, channel.id) == channel
    assert await record_cache.agent(owner.tenant_id, agent.id) == agent
    before = engine.reads
    assert await record_cache.channel(owner.tenant_id, channel.id) == channel
    assert record_cache.peek_destination(owner.tenant_id, channel.id) == channel
    assert await record_cache.agent(owner.tenant_id, agent.id) == agent
    assert engine.reads == before
    assert record_cache.tenants() == {owner.tenant_id}


async def test_handles_of_records_that_are_not_cached_are_found_by_one_read(
    server: Server, engine: Watched, owner: UserPrincipal
) -> None:
    channels = [await server.channels.create(owner, name=f"News {number}") for number in range(5)]
    foreign = await server.channels.create(await server.tenant("bob"), name="Theirs")
    await server.record_cache.channel(owner.tenant_id, channels[0].id)
    before = engine.reads
    wanted = [*(each.id for each in channels), foreign.id, "chn_none", "\x00"]
    found = await server.record_cache.handles_of(owner.tenant_id, HandleKind.CHANNEL, wanted)
    assert found == {each.id: each.handle for each in channels}
    assert engine.reads == before + 1
    assert await server.record_cache.handles_of(owner.tenant_id, HandleKind.AGENT, []) == {}
    assert engine.reads == before + 1


async def test_missing_record_is_read_every_time(server: Server, owner: UserPrincipal) -> None:
    channel = await server.channels.create(owner, name="News")
    foreign = await server.tenant("bob")
    for id in ("chn_none", "", "\x00", "\ud800", "x" * 5000):
        with pytest.raises(ChannelNotFound):
            await server.record_cache.channel(owner.tenant_id, id)
        with pytest.raises(AgentNotFound):
            await server.record_cache.agent(owner.tenant_id, id)
    with pytest.raises(ChannelNotFound):
        await server.record_cache.channel(foreign.tenant_id, channel.id)
    other = server.another()
    assert await other.channels.get(owner, channel.id) == channel
    later = await other.channels.create(owner, name="Later", idempotency_key="k")
    assert await server.record_cache.channel(owner.tenant_id, later.id) == later


async def test_change_of_a_whole_tenant_drops_that_tenant_only(server: Server, engine: Watched, owner: UserPrincipal) -> None:
    agent, foreign = await server.agent(owner), await server.tenant("bob")
    theirs = await server.channels.create(foreign, name="Bob's")
    await server.record_cache.agent(owner.tenant_id, agent.id)
    await server.record_cache.channel(foreign.tenant_id, theirs.id)
    await server.agents.update(owner, agent.id, status=AgentStatus.DISABLED)
    assert (await server.record_cache.agent(owner.tenant_id, agent.id)).status is AgentStatus.DISABLED
    assert server.record_cache.peek_destination(foreign.tenant_id, theirs.id) == theirs
    await server.channels.delete(foreign, theirs.id)
    assert server.record_cache.peek_destination(foreign.tenant_id, theirs.id) is None
    assert server.record_cache.tenants() == {owner.tenant_id}


async def test_change_drops_only_the_named_records(server: Server, engine: Watched, owner: UserPrincipal) -> None:
    one, two = await server.agent(owner), await server.agent(owner)
    channel = await server.channels.create(owner, name="News")
    for agent in (one, two):
        await server.record_cache.agent(owner.tenant_id, agent.id)
    await server.record_cache.channel(owner.tenant_id, channel.id)
    await server.agents.update(owner, one.id, name="Other")
    before = engine.reads
    assert await server.record_cache.agent(owner.tenant_id, two.id) == two
    assert server.record_cache.peek_destination(owner.tenant_id, channel.id) == channel
    assert engine.reads == before
    assert (await server.record_cache.agent(owner.tenant_id, one.id)).name == "Other"


async def test_unused_tenant_is_dropped(server: Server, owner: UserPrincipal) -> None:
    foreign = await server.tenant("bob")
    mine, theirs = await server.channels.create(owner, name="A"), await server.channels.create(foreign, name="B")
    await server.record_cache.channel(owner.tenant_id, mine.id)
    await server.record_cache.channel(foreign.tenant_id, theirs.id)
    server.record_cache.drop_idle()
    assert server.record_cache.tenants() == {owner.tenant_id, foreign.tenant_id}, "both were asked for a moment ago"
    assert server.record_cache.peek_destination(owner.tenant_id, mine.id) == mine
    server.record_cache.drop_idle()
    assert server.record_cache.tenants() == {owner.tenant_id}


async def test_record_read_before_a_change_is_not_cached_after_it(server: Server, engine: Watched, owner: UserPrincipal) -> None:
    agent = await server.agent(owner)
    record_cache = server.record_cache
    engine.held = held = asyncio.Event()
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        reading = group.create_task(record_cache.agent(owner.tenant_id, agent.id))
        await held.wait()
        await server.agents.update(owner, agent.id, status=AgentStatus.DISABLED)
        engine.released.set()
    # A read that began before the change may return the old record; a later one must not.
    assert reading.result().status is AgentStatus.ACTIVE
    assert (await record_cache.agent(owner.tenant_id, agent.id)).status is AgentStatus.DISABLED


async def test_least_recently_used_record_is_dropped_first(server: Server, owner: UserPrincipal) -> None:
    record_cache = RecordCache(server.store, server.invalidation, server.plans, size=2)
    channels = [await server.channels.create(owner, name=f"C{n}") for n in range(3)]
    for at in (0, 1, 0, 2):
        await record_cache.channel(owner.tenant_id, channels[at].id)
    in_memory = [record_cache.peek_destination(owner.tenant_id, channel.id) is not None for channel in channels]
    assert in_memory == [True, False, True]


async def test_tenant_without_cached_records_is_no_longer_watched(server: Server, owner: UserPrincipal) -> None:
    record_cache = RecordCache(server.store, server.invalidation, server.plans, size=1)
    foreign = await server.tenant("bob")
    mine, theirs = await server.channels.create(owner, name="A"), await server.channels.create(foreign, name="B")
    await record_cache.channel(owner.tenant_id, mine.id)
    await record_cache.channel(foreign.tenant_id, theirs.id)
    assert record_cache.tenants() == {foreign.tenant_id}
    record_cache.forget(TenantChange(tenant_id=owner.tenant_id, is_whole=True))
    assert await record_cache.channel(owner.tenant_id, mine.id) == mine


async def test_cached_records_are_served_while_the_tables_are_unavailable(server: Server, owner: UserPrincipal) -> None:
    channel, other = await server.channels.create(owner, name="A"), await server.channels.create(owner, name="B")
    await server.record_cache.channel(owner.tenant_id, channel.id)
    await server.tables.close()
    assert await server.record_cache.channel(owner.tenant_id, channel.id) == channel
    with pytest.raises(Unavailable):
        await server.record_cache.channel(owner.tenant_id, other.id)
