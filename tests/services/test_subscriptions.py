from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from artcafe.errors import AgentNotFound, BadCursor, ChannelNotFound, Forbidden, SubscriptionNotFound
from artcafe.model import Agent, Channel, Cursor, Epoch, Role, Subscription, SubscriptionStatus, UserId, UserPrincipal
from artcafe.rules.inboxes import inbox_of
from artcafe.rules.pages import Page, PageRequest
from artcafe.tables.catalog import AGENTS, CHANNEL_SUBSCRIPTIONS, CHANNELS, TENANTS, USER_TENANTS
from tests.services.service_env import Server, proven, with_role

ACTIVE, PAUSED = SubscriptionStatus.ACTIVE, SubscriptionStatus.PAUSED


@pytest.fixture
async def owner(server: Server) -> UserPrincipal:
    return await server.tenant()


@pytest.fixture
async def channel(server: Server, owner: UserPrincipal) -> Channel:
    return await server.channels.create(owner, name="News")


@pytest.fixture
async def agent(server: Server, owner: UserPrincipal) -> Agent:
    return await server.agent(owner)


async def test_new_subscription_is_active_and_begins_at_the_end_of_the_log(
    server: Server, owner: UserPrincipal, channel: Channel, agent: Agent
) -> None:
    subscription, is_new = await server.subscriptions.put(owner, channel.id, agent.id)
    assert is_new
    assert (subscription.status, subscription.cursor) == (ACTIVE, server.logs.end)
    assert subscription.id == f"{channel.id}#{agent.id}"
    assert await server.another().subscriptions.get(owner, channel.id, agent.id) == subscription
    assert (await server.agents.get(owner, agent.id)).channels == {channel.id}


async def test_subscription_in_a_tenant_without_a_log_begins_with_the_first_message(
    server: Server, owner: UserPrincipal, channel: Channel, agent: Agent
) -> None:
    server.logs.end = Cursor()
    subscription, _ = await server.subscriptions.put(owner, channel.id, agent.id)
    assert (await server.subscriptions.get(owner, channel.id, agent.id)).cursor == Cursor() == subscription.cursor


async def test_repeated_put_keeps_cursor_and_status(server: Server, owner: UserPrincipal, channel: Channel, agent: Agent) -> None:
    await server.subscriptions.put(owner, channel.id, agent.id)
    await server.store.tenant(owner.tenant_id).subscriptions.write_cursor(
        channel.id, agent.id, Cursor(epoch=Epoch("epoch-1"), seq=50)
    )
    paused = await server.subscriptions.set_status(owner, channel.id, agent.id, PAUSED)
    server.logs.end = Cursor(epoch=Epoch("epoch-1"), seq=99)
    assert await server.subscriptions.put(owner, channel.id, agent.id) == (paused, False)
    assert (paused.status, paused.cursor.seq) == (PAUSED, 50)


async def test_one_of_many_concurrent_puts_creates_the_subscription(
    server: Server, owner: UserPrincipal, channel: Channel, agent: Agent
) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(server.another().subscriptions.put(owner, channel.id, agent.id)) for _ in range(10)]
    outcomes = [task.result() for task in tasks]
    assert sum(is_new for _, is_new in outcomes) == 1
    assert len({subscription.id for subscription, _ in outcomes}) == 1


async def test_subscription_needs_a_channel_and_an_agent_of_the_tenant(
    server: Server, owner: UserPrincipal, channel: Channel, agent: Agent
) -> None:
    bob = await server.tenant("bob")
    foreign_channel, foreign_agent = await server.channels.create(bob, name="Bob's"), await server.agent(bob)
    for id in (foreign_channel.id, "chn_none", "", "\n", "x" * 2000, "\ud800"):
        with pytest.raises(ChannelNotFound):
            await server.subscriptions.put(owner, id, agent.id)
    for id in (foreign_agent.id, "agt_none", "", "\n", "x" * 2000, "\ud800"):
        with pytest.raises(AgentNotFound):
            await server.subscriptions.put(owner, channel.id, id)
    assert await server.items(CHANNEL_SUBSCRIPTIONS, owner.tenant_id) == []


async def test_channel_deleted_during_puts_leaves_no_subscription(server: Server, owner: UserPrincipal, channel: Channel) -> None:
    agents = [await server.agent(owner, f"A{n}") for n in range(10)]

    async def put(agent: Agent) -> None:
        with contextlib.suppress(ChannelNotFound):
            await server.another().subscriptions.put(owner, channel.id, agent.id)

    async with asyncio.TaskGroup() as group:
        for agent in agents[:5]:
            group.create_task(put(agent))
        group.create_task(server.another().channels.delete(owner, channel.id))
        for agent in agents[5:]:
            group.create_task(put(agent))
    assert await server.items(CHANNEL_SUBSCRIPTIONS, owner.tenant_id) == []
    assert {(await server.agents.get(owner, agent.id)).channels for agent in agents} == {frozenset()}


async def test_agent_or_channel_deleted_during_a_put_is_not_subscribed(
    server: Server, owner: UserPrincipal, channel: Channel, agent: Agent
) -> None:
    other = await server.channels.create(owner, name="Other")
    server.logs.meanwhile = partial(server.another().channels.delete, owner, channel.id)
    with pytest.raises(ChannelNotFound):
        await server.subscriptions.put(owner, channel.id, agent.id)
    assert (await server.agents.get(owner, agent.id)).channels == frozenset()
    server.logs.meanwhile = partial(server.another().agents.delete, owner, agent.id)
    with pytest.raises(AgentNotFound):
        await server.subscriptions.put(owner, other.id, agent.id)
    assert await server.items(CHANNEL_SUBSCRIPTIONS, owner.tenant_id) == []


async def test_paused_subscription_resumes_from_its_cursor(
    server: Server, owner: UserPrincipal, channel: Channel, agent: Agent
) -> None:
    made, _ = await server.subscriptions.put(owner, channel.id, agent.id)
    server.clock.pass_s(60)
    paused = await server.subscriptions.set_status(owner, channel.id, agent.id, PAUSED)
    assert (paused.status, paused.cursor, paused.updated_at) == (PAUSED, made.cursor, server.clock())
    resumed = await server.subscriptions.set_status(owner, channel.id, agent.id, ACTIVE)
    assert (resumed.status, resumed.cursor) == (ACTIVE, made.cursor)
    server.changed.clear()
    assert await server.subscriptions.set_status(owner, channel.id, agent.id, ACTIVE) == resumed
    assert server.changed == []


async def test_deleted_subscription_is_removed_from_row_and_map_and_can_be_created_again(
    server: Server, owner: UserPrincipal, channel: Channel, agent: Agent
) -> None:
    await server.subscriptions.put(owner, channel.id, agent.id)
    await server.subscriptions.delete(owner, channel.id, agent.id)
    assert (await server.agents.get(owner, agent.id)).channels == frozenset()
    for refused in (
        server.subscriptions.get(owner, channel.id, agent.id),
        server.subscriptions.set_status(owner, channel.id, agent.id, PAUSED),
        server.subscriptions.delete(owner, channel.id, agent.id),
    ):
        with pytest.raises(SubscriptionNotFound):
            await refused
    server.logs.end = Cursor(epoch=Epoch("epoch-1"), seq=99)
    subscription, is_new = await server.subscriptions.put(owner, channel.id, agent.id)
    assert (is_new, subscription.cursor.seq) == (True, 99)


async def test_concurrent_puts_and_deletes_leave_row_and_map_consistent(
    server: Server, owner: UserPrincipal, channel: Channel, agent: Agent
) -> None:
    async def delete() -> None:
        with contextlib.suppress(SubscriptionNotFound):
            await server.another().subscriptions.delete(owner, channel.id, agent.id)

    async def put() -> None:
        await server.another().subscriptions.put(owner, channel.id, agent.id)

    for _ in range(5):
        async with asyncio.TaskGroup() as group:
            group.create_task(put())
            group.create_task(delete())
        rows = await server.items(CHANNEL_SUBSCRIPTIONS, owner.tenant_id)
        assert len(rows) == len((await server.agents.get(owner, agent.id)).channels)


async def test_agent_changes_its_own_subscriptions_only(
    server: Server, owner: UserPrincipal, channel: Channel, agent: Agent
) -> None:
    itself, other = proven(agent), await server.agent(owner)
    made, _ = await server.subscriptions.put(itself, channel.id, agent.id)
    assert await server.subscriptions.get(itself, channel.id, agent.id) == made
    assert (await server.subscriptions.list_of_agent(itself, agent.id)).items == (made,)
    await server.subscriptions.set_status(itself, channel.id, agent.id, PAUSED)
    await server.subscriptions.delete(itself, channel.id, agent.id)
    for refused in (
        server.subscriptions.put(itself, channel.id, other.id),
        server.subscriptions.get(itself, channel.id, other.id),
        server.subscriptions.set_status(itself, channel.id, other.id, PAUSED),
        server.subscriptions.delete(itself, channel.id, other.id),
        server.subscriptions.list_of_agent(itself, other.id),
        server.subscriptions.list_of_channel(itself, channel.id),
    ):
        with pytest.raises(Forbidden):
            await refused


async def test_viewer_reads_subscriptions_and_changes_none(
    server: Server, owner: UserPrincipal, channel: Channel, agent: Agent
) -> None:
    made, _ = await server.subscriptions.put(owner, channel.id, agent.id)
    viewer = with_role(owner, Role.VIEWER)
    assert await server.subscriptions.get(viewer, channel.id, agent.id) == made
    assert (await server.subscriptions.list_of_channel(viewer, channel.id)).items == (made,)
    assert (await server.subscriptions.list_of_agent(viewer, agent.id)).items == (made,)
    for refused in (
        server.subscriptions.put(viewer, channel.id, agent.id),
        server.subscriptions.set_status(viewer, channel.id, agent.id, PAUSED),
        server.subscriptions.delete(viewer, channel.id, agent.id),
    ):
        with pytest.raises(Forbidden):
            await refused


async def test_both_lists_are_complete_and_exact_for_every_page_size(server: Server, owner: UserPrincipal) -> None:
    channels = [await server.channels.create(owner, name=f"C{n}") for n in range(4)]
    agents = [await server.agent(owner, f"A{n}") for n in range(4)]
    made = [(await server.subscriptions.put(owner, c.id, a.id))[0] for c in channels for a in agents]
    for limit in (1, 3, 4, 5):
        for channel in channels:
            found = await paged(partial(server.subscriptions.list_of_channel, owner, channel.id), limit)
            assert found == sorted((each for each in made if each.channel_id == channel.id), key=lambda each: each.agent_id)
        for agent in agents:
            found = await paged(partial(server.subscriptions.list_of_agent, owner, agent.id), limit)
            assert found == sorted((each for each in made if each.agent_id == agent.id), key=lambda each: each.channel_id)


async def test_lists_of_unknown_channels_and_agents_are_not_found(
    server: Server, owner: UserPrincipal, channel: Channel, agent: Agent
) -> None:
    bob = await server.tenant("bob")
    with pytest.raises(ChannelNotFound):
        await server.subscriptions.list_of_channel(bob, channel.id)
    with pytest.raises(AgentNotFound):
        await server.subscriptions.list_of_agent(bob, agent.id)


async def test_page_cursor_of_another_list_is_refused(server: Server, owner: UserPrincipal, channel: Channel) -> None:
    with pytest.raises(BadCursor):
        await server.subscriptions.list_of_channel(owner, channel.id, PageRequest(10, "chn_other#agt_1"))


async def test_connect_starts_the_agents_active_subscriptions(server: Server, owner: UserPrincipal, agent: Agent) -> None:
    channels = [await server.channels.create(owner, name=f"C{n}") for n in range(3)]
    for channel in channels:
        await server.subscriptions.put(owner, channel.id, agent.id)
    await server.subscriptions.put(owner, channels[0].id, (await server.agent(owner)).id)
    await server.subscriptions.set_status(owner, channels[1].id, agent.id, PAUSED)
    found = await server.subscriptions.for_connect(agent.tenant_id, agent.id)
    assert [each.channel_id for each in found] == [inbox_of(agent.id), *sorted([channels[0].id, channels[2].id])]
    await server.agents.delete(owner, agent.id)
    assert await server.subscriptions.for_connect(agent.tenant_id, agent.id) == []


# --- an older system's rows ------------------------------------------------------------------------------------------


@pytest.fixture
async def older(server: Server) -> UserPrincipal:
    await server.put(TENANTS, id="acme")
    await server.put(USER_TENANTS, user_id="alice", tenant_id="acme", role="owner")
    await server.put(CHANNELS, tenant_id="acme", id="general")
    await server.put(AGENTS, tenant_id="acme", id="bot", status="online")
    return await server.tenants.enter(UserId("alice"), "acme")


async def test_older_agent_without_a_channel_map_can_subscribe(server: Server, older: UserPrincipal) -> None:
    subscription, is_new = await server.subscriptions.put(older, "general", "bot")
    assert is_new
    item = await server.item(AGENTS, "acme", "bot")
    assert item is not None
    assert (item["channels"], item["status"]) == ({"general": True}, "online")
    assert (await server.subscriptions.list_of_agent(older, "bot")).items == (subscription,)


@pytest.mark.parametrize(
    ("status", "read"), [("active", ACTIVE), ("", ACTIVE), (None, ACTIVE), ("paused", PAUSED), ("revoked", PAUSED), (0, PAUSED)]
)
async def test_older_subscription_receives_unless_its_row_says_otherwise(
    server: Server, older: UserPrincipal, status: str | int | None, read: SubscriptionStatus
) -> None:
    await server.put(
        CHANNEL_SUBSCRIPTIONS,
        tenant_id="acme",
        id="general#bot",
        channel_id="general",
        agent_id="bot",
        status=status,
        note="kept",
    )
    subscription = await server.subscriptions.get(older, "general", "bot")
    assert (subscription.status, subscription.cursor) == (read, Cursor())
    # The put repairs the agent's map, and creates no row.
    assert await server.subscriptions.put(older, "general", "bot") == (subscription, False)
    assert (await server.agents.get(older, "bot")).channels == {"general"}
    changed = await server.subscriptions.set_status(older, "general", "bot", PAUSED if read is ACTIVE else ACTIVE)
    assert changed.status is not read
    item = await server.item(CHANNEL_SUBSCRIPTIONS, "acme", "general#bot")
    assert item is not None
    assert item["note"] == "kept"


async def test_ids_with_a_hash_sign_are_not_confused(server: Server, older: UserPrincipal) -> None:
    await server.put(CHANNELS, tenant_id="acme", id="a")
    await server.put(CHANNELS, tenant_id="acme", id="a#b")
    for id in ("c", "b#c"):
        await server.put(AGENTS, tenant_id="acme", id=id)
    made, _ = await server.subscriptions.put(older, "a#b", "c")
    assert (await server.subscriptions.list_of_channel(older, "a")).items == ()
    assert (await server.subscriptions.list_of_channel(older, "a#b")).items == (made,)
    with pytest.raises(SubscriptionNotFound):
        await server.subscriptions.get(older, "a", "b#c")


async def paged(read: Callable[[PageRequest], Awaitable[Page[Subscription]]], limit: int) -> list[Subscription]:
    """Read all pages of a list."""
    found: list[Subscription] = []
    after = None
    while True:
        page = await read(PageRequest(limit, after))
        assert len(page.items) <= limit
        found += page.items
        after = page.next
        if after is None:
            return found
