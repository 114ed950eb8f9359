"""Handles of agents and channels: given, made from names, changed and released, also by requests at the same time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable
from typing import TypeVar

import pytest

from artcafe.errors import (
    AgentNotFound,
    ArtcafeError,
    ChannelNotFound,
    Conflict,
    HandleTaken,
    IdempotencyMismatch,
    Invalid,
    LimitReached,
)
from artcafe.model import Agent, AgentId, Channel, ChannelId, HandleKind, UserPrincipal
from artcafe.tables.catalog import AGENTS, CHANNELS
from artcafe.tables.handle_claims import claim_key
from tests.services.service_env import Server, new_key

ResultT = TypeVar("ResultT")


@pytest.fixture
async def owner(server: Server) -> UserPrincipal:
    return await server.tenant()


async def together(calls: Iterable[Coroutine[object, object, ResultT]]) -> list[ResultT]:
    """Run the calls at the same time, and return their results."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call) for call in calls]
    return [task.result() for task in tasks]


async def claims(server: Server, owner: UserPrincipal) -> dict[str, str]:
    """Return the owner of each claimed handle, by kind and handle."""
    prefix = claim_key(owner.tenant_id, HandleKind.AGENT, "").sort or ""
    start = prefix.removesuffix("agent#")
    items = await server.items(AGENTS, owner.tenant_id)
    return {
        str(item["id"]).removeprefix(start): str(item.get("agent_id") or item.get("channel_id"))
        for item in items
        if str(item["id"]).startswith(start)
    }


async def test_agents_and_channels_get_the_given_handle_or_one_made_from_their_name(server: Server, owner: UserPrincipal) -> None:
    planner = await server.agents.create(owner, name="The Planner", public_key=new_key())
    scout = await server.agents.create(owner, name="Scout", handle="s.1", public_key=new_key())
    news = await server.channels.create(owner, name="The Planner")
    assert (planner.handle, scout.handle, news.handle) == ("the-planner", "s.1", "the-planner")
    assert await server.agents.get(owner, planner.id) == planner
    assert await server.channels.get(owner, news.id) == news
    expected = {"agent#the-planner": planner.id, "agent#s.1": scout.id, "channel#the-planner": news.id}
    assert await claims(server, owner) == expected


async def test_invalid_handle_is_refused_and_creates_nothing(server: Server, owner: UserPrincipal) -> None:
    for handle in ("", "Planner", "agt_1", "chn_x", "a" * 65, "-a"):
        with pytest.raises(Invalid, match="handle"):
            await server.agents.create(owner, name="A", handle=handle, public_key=new_key())
        with pytest.raises(Invalid, match="handle"):
            await server.channels.create(owner, name="A", handle=handle)
    assert await claims(server, owner) == {}


async def test_taken_handle_is_refused_and_a_default_one_gets_a_number(server: Server, owner: UserPrincipal) -> None:
    first = await server.agents.create(owner, name="Bot", public_key=new_key())
    made = [(await server.agents.create(owner, name="bot", public_key=new_key())).handle for _ in range(20)]
    assert (first.handle, made) == ("bot", [f"bot-{number}" for number in range(2, 22)])
    with pytest.raises(HandleTaken, match="'bot'") as refused:
        await server.agents.create(owner, name="Other", handle="bot", public_key=new_key())
    assert (refused.value.code, refused.value.status) == ("handle_taken", 409)
    await server.channels.create(owner, name="News", handle="bot")  # another kind
    with pytest.raises(HandleTaken):
        await server.channels.create(owner, name="Other", handle="bot")
    row = await server.store.tenant(owner.tenant_id).tenant()
    assert row is not None
    assert (row.agent_count, row.channel_count) == (21, 1)


async def test_handle_of_another_tenant_is_free(server: Server, owner: UserPrincipal) -> None:
    other = await server.tenant("bob", "Bob's")
    await server.channels.create(owner, name="News", handle="news")
    assert (await server.channels.create(other, name="News")).handle == "news"


async def test_fifty_creations_of_one_name_at_once_get_fifty_handles(server: Server, owner: UserPrincipal) -> None:
    await server.set_limits(owner.tenant_id, channels=50, agents=10)
    made = await together(server.channels.create(owner, name="Work") for _ in range(50))
    assert len({each.handle for each in made}) == 50
    assert await claims(server, owner) == {f"channel#{each.handle}": each.id for each in made}

    async def one() -> Agent | None:
        try:
            return await server.agents.create(owner, name="Bot", public_key=new_key())
        except LimitReached:
            return None

    agents = [agent for agent in await together(one() for _ in range(20)) if agent is not None]
    assert len(agents) == 10
    assert len({agent.handle for agent in agents}) == 10


async def test_of_creations_with_one_handle_at_once_one_succeeds(server: Server, owner: UserPrincipal) -> None:
    async def one(server: Server) -> Channel | ArtcafeError:
        try:
            return await server.channels.create(owner, name="Work", handle="work")
        except HandleTaken as exc:
            return exc

    servers = [server, server.another()]
    made = await together(one(servers[at % 2]) for at in range(20))
    (winner,) = [each for each in made if isinstance(each, Channel)]
    assert await claims(server, owner) == {"channel#work": winner.id}
    assert [each.id for each in (await server.channels.list(owner)).items] == [winner.id]


async def test_changed_handle_replaces_the_old_one(server: Server, owner: UserPrincipal) -> None:
    agent = await server.agents.create(owner, name="Bot", public_key=new_key())
    channel = await server.channels.create(owner, name="News")
    for _ in range(2):  # may be repeated
        agent = await server.agents.update(owner, agent.id, handle="robot", public_key=agent.public_key)
        channel = await server.channels.update(owner, channel.id, handle="headlines", name="Headlines")
    assert (agent.handle, channel.handle, channel.name) == ("robot", "headlines", "Headlines")
    assert await claims(server, owner) == {"agent#robot": agent.id, "channel#headlines": channel.id}
    assert agent.epoch == 0  # no login ends

    other = await server.channels.create(owner, name="News")
    assert other.handle == "news"
    await server.agents.create(owner, name="Scout", public_key=new_key())
    for handle, error in (("headlines", HandleTaken), ("NEWS", Invalid)):
        with pytest.raises(error):
            await server.channels.update(owner, other.id, handle=handle)
    for handle, error in (("scout", HandleTaken), ("agt_1", Invalid)):
        with pytest.raises(error):
            await server.agents.update(owner, agent.id, handle=handle)
    assert (await server.channels.get(owner, other.id)).handle == "news"


async def test_changes_of_one_handle_at_once_leave_exactly_one_claim(server: Server, owner: UserPrincipal) -> None:
    servers = [server, server.another()]
    agent = await server.agents.create(owner, name="Bot", public_key=new_key())
    channel = await server.channels.create(owner, name="News")

    async def change(at: int) -> None:
        handle, one = f"h{at % 5}", servers[at % 2]
        try:
            await one.agents.update(owner, agent.id, handle=handle)
            await one.channels.update(owner, channel.id, handle=handle)
        except Conflict:
            pass

    await together(change(at) for at in random.sample(range(20), 20))
    agent, channel = await server.agents.get(owner, agent.id), await server.channels.get(owner, channel.id)
    assert await claims(server, owner) == {f"agent#{agent.handle}": agent.id, f"channel#{channel.handle}": channel.id}


async def test_deletion_releases_the_handle(server: Server, owner: UserPrincipal) -> None:
    agent = await server.agents.create(owner, name="Bot", public_key=new_key())
    channel = await server.channels.create(owner, name="News")
    await server.agents.update(owner, agent.id, handle="robot")
    await server.agents.delete(owner, agent.id)
    await server.channels.delete(owner, channel.id)
    assert await claims(server, owner) == {}
    assert (await server.channels.create(owner, name="X", handle="news")).handle == "news"


async def test_interrupted_deletion_keeps_the_handle_until_it_is_repeated(server: Server, owner: UserPrincipal) -> None:
    channel = await server.channels.create(owner, name="News")
    server.logs.failure = ConnectionError()
    with pytest.raises(ConnectionError):
        await server.channels.delete(owner, channel.id)
    with pytest.raises(HandleTaken):
        await server.channels.create(owner, name="Other", handle="news")
    assert await server.store.tenant(owner.tenant_id).channel_id("news") == channel.id  # so that it can be deleted again
    with pytest.raises(ChannelNotFound):
        await server.record_cache.channel(owner.tenant_id, "news")
    await server.channels.delete(owner, channel.id)
    assert (await server.channels.create(owner, name="Other", handle="news")).handle == "news"


async def test_repeated_creation_returns_the_first_record_whatever_became_of_its_handle(
    server: Server, owner: UserPrincipal
) -> None:
    key = new_key()

    async def agent(handle: str | None) -> Agent:
        return await server.agents.create(owner, name="Bot", handle=handle, public_key=key, idempotency_key="k")

    async def channel(handle: str | None) -> Channel:
        return await server.channels.create(owner, name="News", handle=handle, idempotency_key="k")

    first = (await agent("bot"), await channel("news"))
    assert (await agent("bot"), await channel("news")) == first
    for again in (agent(None), agent("other"), channel(None), channel("other")):
        with pytest.raises(IdempotencyMismatch):
            await again

    await server.agents.update(owner, first[0].id, handle="robot")
    await server.channels.update(owner, first[1].id, handle="headlines")
    await server.agents.create(owner, name="Thief", handle="bot", public_key=new_key())
    await server.channels.create(owner, name="Thief", handle="news")
    assert ((await agent("bot")).id, (await channel("news")).id) == (first[0].id, first[1].id)

    await server.agents.delete(owner, first[0].id)
    await server.channels.delete(owner, first[1].id)
    for deleted in (agent("bot"), channel("news")):
        with pytest.raises(Conflict, match="deleted"):
            await deleted


async def test_id_of_an_older_system_wins_and_its_text_is_no_free_handle(server: Server, owner: UserPrincipal) -> None:
    tenant = owner.tenant_id
    await server.put(AGENTS, tenant_id=tenant, id="bot", name="Old", public_key=new_key())
    await server.put(CHANNELS, tenant_id=tenant, id="news", name="Old")
    for handle in ("bot", "news"):
        with pytest.raises(HandleTaken):
            await server.channels.create(owner, name="New", handle=handle)
        with pytest.raises(HandleTaken):
            await server.agents.create(owner, name="New", handle=handle, public_key=new_key())
    made = await server.channels.create(owner, name="News")
    assert made.handle == "news-2"
    assert (await server.record_cache.channel(tenant, "news")).id == "news"
    assert (await server.channels.update(owner, "news", handle="news")).handle == "news"  # its own id
    assert await claims(server, owner) == {"channel#news": "news", "channel#news-2": made.id}


async def test_stale_claim_takes_no_handle_away(server: Server, owner: UserPrincipal) -> None:
    channel = await server.channels.create(owner, name="News")
    for handle, id in (("old", channel.id), ("gone", "chn_gone")):
        key = claim_key(owner.tenant_id, HandleKind.CHANNEL, handle)
        await server.put(AGENTS, tenant_id=key.partition, id=key.sort, channel_id=id)
        with pytest.raises(ChannelNotFound):
            await server.record_cache.channel(owner.tenant_id, handle)
        assert await server.store.tenant(owner.tenant_id).channel_id(handle) == handle
        assert (await server.channels.create(owner, name="New", handle=handle)).handle == handle


# --- resolution ----------------------------------------------------------------------------------------------------------


async def test_record_cache_finds_by_id_and_by_handle(server: Server, owner: UserPrincipal) -> None:
    agent = await server.agents.create(owner, name="Bot", public_key=new_key())
    channel = await server.channels.create(owner, name="Bot")
    tenant, cache = owner.tenant_id, server.record_cache
    for text in ("bot", channel.id):
        assert await cache.channel(tenant, text) == channel
        assert cache.peek_destination(tenant, text) == channel
    for text in ("bot", agent.id):
        assert await cache.agent(tenant, text) == agent
        assert cache.peek_agent(tenant, text) == agent
    assert (await cache.find_channel(tenant, "other"), await cache.find_agent(tenant, "other")) == (None, None)
    with pytest.raises(AgentNotFound, match="'other'"):
        await cache.agent(tenant, "other")


async def test_handle_of_another_tenant_is_found_by_nobody_else(server: Server, owner: UserPrincipal) -> None:
    other = await server.tenant("bob", "Bob's")
    channel = await server.channels.create(owner, name="News")
    assert await server.record_cache.find_channel(owner.tenant_id, "news") == channel
    assert await server.record_cache.find_channel(other.tenant_id, "news") is None
    assert server.record_cache.peek_destination(other.tenant_id, "news") is None


async def test_cached_handle_follows_changes(server: Server, owner: UserPrincipal) -> None:
    tenant, cache = owner.tenant_id, server.record_cache
    first = await server.channels.create(owner, name="News")
    assert await cache.channel(tenant, "news") == first
    await server.channels.update(owner, first.id, handle="old-news")
    assert await cache.find_channel(tenant, "news") is None
    assert (await cache.channel(tenant, "old-news")).id == first.id
    second = await server.channels.create(owner, name="News", handle="news")
    assert await cache.channel(tenant, "news") == second
    await server.channels.delete(owner, second.id)
    assert (await cache.find_channel(tenant, "news"), cache.peek_destination(tenant, "news")) == (None, None)


async def test_new_handle_is_found_although_an_older_row_is_cached(server: Server, owner: UserPrincipal) -> None:
    elsewhere = server.another()  # gets no announcements of `server`
    channel = await server.channels.create(owner, name="News")
    assert await elsewhere.record_cache.channel(owner.tenant_id, "news") == channel
    changed = await server.channels.update(owner, channel.id, handle="headlines")
    assert await elsewhere.record_cache.channel(owner.tenant_id, "headlines") == changed
    assert await elsewhere.record_cache.find_channel(owner.tenant_id, "news") is None


async def test_dropped_tenant_leaves_no_handle_behind(server: Server, owner: UserPrincipal) -> None:
    channel = await server.channels.create(owner, name="News")
    await server.record_cache.channel(owner.tenant_id, "news")
    server.invalidation.notify(owner.tenant_id)
    assert server.record_cache.peek_destination(owner.tenant_id, "news") is None
    assert server.record_cache.peek_destination(owner.tenant_id, channel.id) is None


async def test_store_resolves_ids_and_handles_and_returns_other_text_unchanged(server: Server, owner: UserPrincipal) -> None:
    agent = await server.agents.create(owner, name="Bot", public_key=new_key())
    channel = await server.channels.create(owner, name="News")
    tenant = server.store.tenant(owner.tenant_id)
    assert (await tenant.agent_id("bot"), await tenant.agent_id(agent.id)) == (agent.id, agent.id)
    assert (await tenant.channel_id("news"), await tenant.channel_id(channel.id)) == (channel.id, channel.id)
    for text in ("news-2", "Ünknown", "", "a" * 200, "\ud800", AgentId("agt_1"), ChannelId("~key#handle#agent#bot")):
        assert (await tenant.agent_id(text), await tenant.channel_id(text)) == (text, text)
