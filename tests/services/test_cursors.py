from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artcafe.model import AgentId, ChannelId, Cursor, Epoch, Subscription, TenantId, UserPrincipal
from artcafe.services.cursors import AT_ONCE, Cursors
from tests.services.service_env import Server

ONE, OTHER = Epoch("epoch-1"), Epoch("epoch-2")
LONG_S = 3600.0


def at(seq: int, epoch: Epoch = ONE) -> Cursor:
    return Cursor(epoch=epoch, seq=seq)


async def subscribed(server: Server) -> tuple[UserPrincipal, Subscription]:
    """Return a subscription with the cursor 41 in epoch 1, the end of every log in these tests."""
    member = await server.tenant()
    agent = await server.agent(member)
    channel = await server.channels.create(member, name="orders")
    row, _ = await server.subscriptions.put(member, channel.id, agent.id)
    assert row.cursor == at(41)
    return member, row


async def row_of(server: Server, member: UserPrincipal, row: Subscription) -> Subscription:
    return await server.subscriptions.get(member, row.channel_id, row.agent_id)


def acknowledge(cursors: Cursors, row: Subscription, cursor: Cursor) -> None:
    cursors.acknowledge(row.tenant_id, row.channel_id, row.agent_id, cursor)


@pytest.mark.promise("6b")
async def test_ack_is_visible_at_once_and_written_after_the_interval(server: Server) -> None:
    member, row = await subscribed(server)
    cursors = Cursors(server.store, 0.01)

    acknowledge(cursors, row, at(50))
    assert cursors.newest(row).seq == 50
    assert (await row_of(server, member, row)).cursor == at(41)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        running = group.create_task(cursors.run())
        while (await row_of(server, member, row)).cursor != at(50):  # noqa: ASYNC110 (a row has no event to wait on)
            await asyncio.sleep(0)
        running.cancel()


async def test_write_agent_writes_the_cursors_of_that_agent_only(server: Server) -> None:
    member, row = await subscribed(server)
    other, _ = await server.subscriptions.put(member, row.channel_id, (await server.agent(member, "other")).id)
    cursors = Cursors(server.store, LONG_S)
    acknowledge(cursors, row, at(50))
    acknowledge(cursors, other, at(60))

    await cursors.write_agent(row.tenant_id, row.agent_id)

    assert (await row_of(server, member, row)).cursor == at(50)
    assert (await row_of(server, member, other)).cursor == at(41)
    await cursors.write_all()
    assert (await row_of(server, member, other)).cursor == at(60)
    assert not cursors._unwritten


@pytest.mark.promise("6a")
async def test_cursor_never_moves_back(server: Server) -> None:
    member, row = await subscribed(server)
    here, there = Cursors(server.store, LONG_S), Cursors(server.another().store, LONG_S)
    for cursors, seqs in ((here, (60, 50)), (there, (55, 45))):
        for seq in seqs:
            acknowledge(cursors, row, at(seq))

    await here.write_all()
    await there.write_all()

    stored = await row_of(server, member, row)
    assert stored.cursor == at(60)
    acknowledge(there, row, at(58))
    assert there.newest(stored) == at(60)


async def test_new_epoch_has_its_own_cursors(server: Server) -> None:
    member, row = await subscribed(server)
    cursors = Cursors(server.store, LONG_S)
    acknowledge(cursors, row, at(50))
    acknowledge(cursors, row, at(3, OTHER))

    assert cursors.newest(row) == at(3, OTHER)
    await cursors.write_all()
    assert (await row_of(server, member, row)).cursor == at(3, OTHER)


async def test_cursor_of_a_deleted_subscription_is_dropped(server: Server) -> None:
    member, row = await subscribed(server)
    cursors = Cursors(server.store, LONG_S)
    acknowledge(cursors, row, at(50))
    await server.subscriptions.delete(member, row.channel_id, row.agent_id)

    await cursors.write_all()

    assert not cursors._unwritten
    again, _ = await server.subscriptions.put(member, row.channel_id, row.agent_id)
    assert again.cursor == at(41)


async def test_write_all_writes_many_cursors(server: Server) -> None:
    member = await server.tenant()
    channel = await server.channels.create(member, name="orders")
    rows = []
    for number in range(AT_ONCE + 6):
        agent = await server.agent(member, f"agent {number}")
        rows.append((await server.subscriptions.put(member, channel.id, agent.id))[0])
    cursors = Cursors(server.store, LONG_S)
    for number, row in enumerate(rows):
        acknowledge(cursors, row, at(50 + number))

    await cursors.write_all()

    assert [(await row_of(server, member, row)).cursor.seq for row in rows] == list(range(50, 50 + len(rows)))


async def test_cursor_that_moves_during_its_write_is_written_again(server: Server) -> None:
    member, row = await subscribed(server)
    cursors = Cursors(server.store, LONG_S)
    acknowledge(cursors, row, at(50))
    async with asyncio.TaskGroup() as group:
        group.create_task(cursors.write_all())
        await asyncio.sleep(0)
        acknowledge(cursors, row, at(51))

    await cursors.write_all()
    assert (await row_of(server, member, row)).cursor == at(51)
    assert not cursors._unwritten


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acks=st.lists(st.integers(0, 100), max_size=8), written=st.integers(0, 100))
async def test_newest_cursor_is_the_highest_known_one(server: Server, acks: list[int], written: int) -> None:
    cursors = Cursors(server.store, LONG_S)
    tenant, channel, agent = TenantId("ten_1"), ChannelId("chn_1"), AgentId("agt_1")
    for seq in acks:
        cursors.acknowledge(tenant, channel, agent, at(seq))
    now = server.clock()
    row = Subscription(tenant_id=tenant, channel_id=channel, agent_id=agent, cursor=at(written), created_at=now, updated_at=now)

    assert cursors.newest(row) == at(max([*acks, written]))


async def test_cursor_that_cannot_be_stored_does_not_block_the_others(server: Server) -> None:
    member, row = await subscribed(server)
    cursors = Cursors(server.store, 0.01)
    cursors.acknowledge(TenantId("x" * 2049), row.channel_id, row.agent_id, at(50))
    acknowledge(cursors, row, at(50))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        running = group.create_task(cursors.run())
        while (await row_of(server, member, row)).cursor != at(50):  # noqa: ASYNC110 (a row has no event to wait on)
            await asyncio.sleep(0)
        running.cancel()
    assert cursors.supervisor.failures >= 1
