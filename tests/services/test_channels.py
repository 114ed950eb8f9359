from __future__ import annotations

import asyncio
import contextlib

import pytest

from artcafe.errors import ChannelNotFound, Conflict, Forbidden, IdempotencyMismatch, Invalid, LimitReached, NotStored
from artcafe.model import Channel, ChannelType, Role, UserId, UserPrincipal
from artcafe.rules.pages import PageRequest
from artcafe.rules.queues import QueueChange
from artcafe.tables.catalog import AGENTS, CHANNEL_SUBSCRIPTIONS, CHANNELS, TENANTS, USER_TENANTS
from tests.services.service_env import Server, proven, with_role


@pytest.fixture
async def owner(server: Server) -> UserPrincipal:
    return await server.tenant()


async def count(server: Server, owner: UserPrincipal) -> int:
    row = await server.store.tenant(owner.tenant_id).tenant()
    assert row is not None
    return row.channel_count


async def limit_to(server: Server, owner: UserPrincipal, channels: int) -> None:
    item = await server.item(TENANTS, owner.tenant_id)
    assert item is not None
    await server.put(TENANTS, **{**item, "limits": {"channels": channels}})


async def test_created_channel_is_read_back_with_every_field(server: Server, owner: UserPrincipal) -> None:
    channel = await server.channels.create(owner, name="News", description="What is new.")
    assert await server.another().channels.get(owner, channel.id) == channel
    assert (channel.name, channel.description, channel.type) == ("News", "What is new.", ChannelType.BROADCAST)


async def test_invalid_channel_field_is_named_and_creates_nothing(server: Server, owner: UserPrincipal) -> None:
    for wrong in (
        server.channels.create(owner, name="A", retention_s=0),
        server.channels.create(owner, name="A", retention_s=60, type=ChannelType.LIVE),
        server.channels.create(owner, name="a\nb"),
        server.channels.create(owner, name="A", description="\x00"),
        server.channels.create(owner, name="A", idempotency_key="x" * 256),
    ):
        with pytest.raises(Invalid):
            await wrong
    assert (await server.channels.list(owner)).items == ()


async def test_channel_has_the_given_retention_or_that_of_the_plan(server: Server, owner: UserPrincipal) -> None:
    channel = await server.channels.create(owner, name="News", retention_s=3600)
    for seconds in (60, None, 30 * 86_400):
        changed = await server.channels.update(owner, channel.id, retention_s=seconds)
        assert changed.retention_s == seconds
        assert (await server.channels.update(owner, channel.id, name="N")).retention_s == seconds
    with pytest.raises(LimitReached) as refused:
        await server.channels.update(owner, channel.id, retention_s=30 * 86_400 + 1)
    assert (refused.value.limit, refused.value.most, refused.value.used) == ("retention_s", 30 * 86_400, 30 * 86_400 + 1)
    with pytest.raises(LimitReached):
        await server.channels.create(owner, name="A", retention_s=31 * 86_400)
    live = await server.channels.create(owner, name="Live", type=ChannelType.LIVE)
    with pytest.raises(Invalid):
        await server.channels.update(owner, live.id, retention_s=60)


async def test_fifty_concurrent_creates_with_a_limit_of_ten_create_exactly_ten(server: Server, owner: UserPrincipal) -> None:
    await limit_to(server, owner, 10)
    made: list[Channel] = []

    async def create() -> None:
        with contextlib.suppress(LimitReached):
            made.append(await server.another().channels.create(owner, name="News"))

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(create())
    assert len(made) == 10
    assert await count(server, owner) == 10
    assert len((await server.channels.list(owner)).items) == 10


async def test_repeated_create_returns_the_same_channel_also_at_the_limit(server: Server, owner: UserPrincipal) -> None:
    await limit_to(server, owner, 1)
    first = await server.channels.create(owner, name="News", idempotency_key="k")
    assert await server.another().channels.create(owner, name="News", idempotency_key="k") == first
    with pytest.raises(IdempotencyMismatch):
        await server.channels.create(owner, name="Other", idempotency_key="k")
    with pytest.raises(LimitReached):
        await server.channels.create(owner, name="News")


async def test_requests_for_a_channel_and_an_agent_may_have_the_same_idempotency_key(
    server: Server, owner: UserPrincipal
) -> None:
    channel = await server.channels.create(owner, name="News", idempotency_key="k")
    tenant = await server.tenants.create(owner.user_id, "News", "k")
    assert channel.id.removeprefix("chn_") != tenant.id.removeprefix("ten_")


async def test_every_page_size_lists_each_channel_once_in_order(server: Server, owner: UserPrincipal) -> None:
    made = sorted([(await server.channels.create(owner, name=f"C{n}")).id for n in range(5)])
    for limit in (1, 2, 4, 5, 6):
        seen: list[str] = []
        after = None
        while True:
            page = await server.channels.list(owner, PageRequest(limit, after))
            seen += [channel.id for channel in page.items]
            after = page.next
            if after is None:
                break
        assert seen == made


async def test_update_changes_only_the_given_fields(server: Server, owner: UserPrincipal) -> None:
    channel = await server.channels.create(owner, name="News", description="D")
    server.clock.pass_s(60)
    changed = await server.channels.update(owner, channel.id, name="Olds")
    assert (changed.name, changed.description, changed.updated_at) == ("Olds", "D", server.clock())
    assert await server.channels.update(owner, channel.id) == changed


async def test_unknown_malformed_and_foreign_ids_are_not_found(server: Server, owner: UserPrincipal) -> None:
    foreign = await server.channels.create(await server.tenant("bob"), name="Bob's")
    for id in (foreign.id, "chn_00000000000000000000000000", "", "\x00", "x" * 5000, "\udfff"):
        for refused in (
            server.channels.get(owner, id),
            server.channels.update(owner, id, name="Mine"),
            server.channels.delete(owner, id),
        ):
            with pytest.raises(ChannelNotFound) as raised:
                await refused
            assert raised.value.id == id
    assert server.logs.purged == []


async def test_viewers_and_agents_can_read_channels_but_not_change_them(server: Server, owner: UserPrincipal) -> None:
    channel = await server.channels.create(owner, name="News")
    viewer, agent = with_role(owner, Role.VIEWER), proven(await server.agent(owner))
    assert await server.channels.get(viewer, channel.id) == await server.channels.get(agent, channel.id) == channel
    for refused in (
        server.channels.create(viewer, name="Mine"),
        server.channels.update(viewer, channel.id, name="Mine"),
        server.channels.delete(viewer, channel.id),
        server.channels.create(agent, name="Mine"),
        server.channels.delete(agent, channel.id),
    ):
        with pytest.raises(Forbidden):
            await refused


async def test_deleted_channel_leaves_no_subscription_map_entry_or_message(server: Server, owner: UserPrincipal) -> None:
    channel, stays = await server.channels.create(owner, name="News"), await server.channels.create(owner, name="Stays")
    agents = [await server.agent(owner, f"A{n}") for n in range(60)]
    for agent in agents:
        await server.subscriptions.put(owner, channel.id, agent.id)
    await server.subscriptions.put(owner, stays.id, agents[0].id)
    await server.channels.delete(owner, channel.id)
    assert [item["channel_id"] for item in await server.items(CHANNEL_SUBSCRIPTIONS, owner.tenant_id)] == [stays.id]
    assert (await server.agents.get(owner, agents[0].id)).channels == {stays.id}
    assert (await server.agents.get(owner, agents[1].id)).channels == frozenset()
    assert server.logs.purged == [channel.id] * 2, "again after its rows: some messages were on their way"
    assert await count(server, owner) == 1
    with pytest.raises(ChannelNotFound):
        await server.channels.delete(owner, channel.id)


async def test_interrupted_deletion_hides_the_row_and_a_repeat_completes_it(server: Server, owner: UserPrincipal) -> None:
    channel, agent = await server.channels.create(owner, name="News"), await server.agent(owner)
    server.logs.failure = NotStored()
    with pytest.raises(NotStored):
        await server.channels.delete(owner, channel.id)
    assert (await server.channels.list(owner)).items == ()
    for refused in (
        server.channels.get(owner, channel.id),
        server.channels.update(owner, channel.id, name="Still here"),
        server.subscriptions.put(owner, channel.id, agent.id),
        server.record_cache.channel(owner.tenant_id, channel.id),
    ):
        with pytest.raises(ChannelNotFound):
            await refused
    await server.channels.delete(owner, channel.id)
    assert await server.items(CHANNELS, owner.tenant_id) == []
    assert await count(server, owner) == 0


async def test_concurrent_deletes_of_a_channel_count_once(server: Server, owner: UserPrincipal) -> None:
    channel, _ = await server.channels.create(owner, name="A"), await server.channels.create(owner, name="B")

    async def delete() -> None:
        with contextlib.suppress(ChannelNotFound):
            await server.another().channels.delete(owner, channel.id)

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(delete())
    assert await count(server, owner) == 1


@pytest.mark.parametrize("type", ["broadcast", "pubsub", "", None, 7])
async def test_older_channel_of_any_type_is_a_broadcast(server: Server, type: str | int | None) -> None:
    await server.put(TENANTS, id="acme")
    await server.put(USER_TENANTS, user_id="alice", tenant_id="acme", role="owner")
    await server.put(CHANNELS, tenant_id="acme", id="general", type=type, topic="kept")
    alice = await server.tenants.enter(UserId("alice"), "acme")
    channel = await server.channels.get(alice, "general")
    assert (channel.name, channel.type, channel.created_at) == ("general", ChannelType.BROADCAST, None)
    assert (await server.channels.update(alice, "general", name="General")).name == "General"
    item = await server.item(CHANNELS, "acme", "general")
    assert item is not None
    assert (item["type"], item["topic"]) == (type, "kept")


async def test_older_channel_is_deleted_with_its_subscriptions(server: Server) -> None:
    await server.put(TENANTS, id="acme")
    await server.put(USER_TENANTS, user_id="alice", tenant_id="acme", role="owner")
    await server.put(CHANNELS, tenant_id="acme", id="general")
    await server.put(AGENTS, tenant_id="acme", id="bot")
    for agent_id in ("bot", "gone"):
        await server.put(
            CHANNEL_SUBSCRIPTIONS, tenant_id="acme", id=f"general#{agent_id}", channel_id="general", agent_id=agent_id
        )
    alice = await server.tenants.enter(UserId("alice"), "acme")
    await server.channels.delete(alice, "general")
    assert await server.items(CHANNEL_SUBSCRIPTIONS, "acme") == []
    assert [item["id"] for item in await server.items(AGENTS, "acme")] == ["bot"]


# --- queues ---------------------------------------------------------------------------------------------------------------


async def test_queue_has_its_settings_or_the_defaults_and_they_can_be_changed(server: Server, owner: UserPrincipal) -> None:
    plain = await server.channels.create(owner, name="Plain", type=ChannelType.QUEUE)
    assert (plain.ack_wait_s, plain.back_off, plain.max_deliveries) == (30, (), 10)
    queue = await server.channels.create(
        owner, name="Tasks", type=ChannelType.QUEUE, queue=QueueChange(ack_wait_s=300, back_off=[1, 10], max_deliveries=3)
    )
    assert await server.channels.get(owner, queue.id) == queue
    assert (queue.ack_wait_s, queue.back_off, queue.max_deliveries) == (300, (1, 10), 3)
    changed = await server.channels.update(owner, queue.id, queue=QueueChange(back_off=[]))
    assert (changed.ack_wait_s, changed.back_off, changed.max_deliveries) == (300, (), 3)
    assert await server.channels.update(owner, queue.id, name="Work") == await server.channels.get(owner, queue.id)
    assert (await server.record_cache.channel(owner.tenant_id, queue.id)).queue == changed.queue


async def test_key_order_is_switched_on_only_while_every_message_has_ended(server: Server, owner: UserPrincipal) -> None:
    queue = await server.channels.create(owner, name="Tasks", type=ChannelType.QUEUE)
    assert queue.key_ordered is False
    server.logs.is_done = False
    with pytest.raises(Conflict, match=f"channel {queue.id} has messages that are not acknowledged"):
        await server.channels.update(owner, queue.id, queue=QueueChange(key_ordered=True))
    assert (await server.channels.get(owner, queue.id)).key_ordered is False
    made = await server.channels.create(owner, name="Orders", type=ChannelType.QUEUE, queue=QueueChange(key_ordered=True))
    assert (await server.channels.update(owner, made.id, queue=QueueChange(key_ordered=True, ack_wait_s=5))).key_ordered is True
    server.logs.is_done = True
    assert (await server.channels.update(owner, queue.id, queue=QueueChange(key_ordered=True))).key_ordered is True
    assert await server.channels.get(owner, made.id) == await server.channels.update(owner, made.id)
    server.logs.is_done = False
    assert (await server.channels.update(owner, queue.id, queue=QueueChange(key_ordered=False))).key_ordered is False


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (QueueChange(ack_wait_s=0), "ack_wait_s"),
        (QueueChange(ack_wait_s=43_201), "ack_wait_s"),
        (QueueChange(back_off=[1] * 17), "back_off"),
        (QueueChange(back_off=[1, -1]), "back_off\\[1\\]"),
        (QueueChange(back_off=[86_401]), "back_off\\[0\\]"),
        (QueueChange(max_deliveries=0), "max_deliveries"),
        (QueueChange(max_deliveries=1001), "max_deliveries"),
    ],
)
async def test_queue_settings_out_of_bounds_are_refused_by_name(
    server: Server, owner: UserPrincipal, wrong: QueueChange, field: str
) -> None:
    queue = await server.channels.create(owner, name="Tasks", type=ChannelType.QUEUE)
    with pytest.raises(Invalid, match=field):
        await server.channels.create(owner, name="Wrong", type=ChannelType.QUEUE, queue=wrong)
    with pytest.raises(Invalid, match=field):
        await server.channels.update(owner, queue.id, queue=wrong)
    assert await server.channels.get(owner, queue.id) == queue


@pytest.mark.parametrize("type", [ChannelType.BROADCAST, ChannelType.LIVE])
async def test_only_a_queue_has_queue_settings(server: Server, owner: UserPrincipal, type: ChannelType) -> None:
    with pytest.raises(Invalid, match=f"max_deliveries: has no meaning for a {type} channel"):
        await server.channels.create(owner, name="Wrong", type=type, queue=QueueChange(max_deliveries=3))
    channel = await server.channels.create(owner, name="News", type=type)
    assert (channel.ack_wait_s, channel.back_off, channel.max_deliveries) == (None, None, None)
    with pytest.raises(Invalid, match=f"ack_wait_s: has no meaning for a {type} channel"):
        await server.channels.update(owner, channel.id, queue=QueueChange(ack_wait_s=60))


async def test_repeated_creation_of_a_queue_compares_its_settings(server: Server, owner: UserPrincipal) -> None:
    async def create(ack_wait_s: int) -> Channel:
        settings = QueueChange(ack_wait_s=ack_wait_s)
        return await server.channels.create(owner, name="Tasks", type=ChannelType.QUEUE, queue=settings, idempotency_key="once")

    assert await create(60) == await create(60)
    with pytest.raises(IdempotencyMismatch):
        await create(61)


async def test_channel_of_a_type_of_a_newer_version_is_missing_and_one_of_an_older_system_is_broadcast(
    server: Server, owner: UserPrincipal
) -> None:
    newer = await server.channels.create(owner, name="Newer")
    older = await server.channels.create(owner, name="Older")
    row = {item["id"]: item for item in await server.items(CHANNELS, owner.tenant_id)}
    await server.put(CHANNELS, **{**row[newer.id], "type": "ring"})
    await server.put(CHANNELS, **{name: value for name, value in row[older.id].items() if name != "access"} | {"type": "chat"})
    for refused in (
        server.channels.get(owner, newer.id),
        server.channels.update(owner, newer.id, name="Mine"),
        server.subscriptions.put(owner, newer.id, (await server.agent(owner)).id),
        server.record_cache.channel(owner.tenant_id, newer.id),
    ):
        with pytest.raises(ChannelNotFound):
            await refused
    assert [channel.id for channel in (await server.channels.list(owner)).items] == [older.id]
    assert (await server.channels.get(owner, older.id)).type is ChannelType.BROADCAST
