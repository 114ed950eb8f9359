"""Live channels, which store nothing."""

from __future__ import annotations

import asyncio

import pytest

from artcafe.sdk.agent import Agent
from artcafe.sdk.client import Client
from tests.flows.test_end_to_end import take
from tests.platform import Cast, Platform


async def live_channel(cast: Cast) -> str:
    """Return a new live channel, with every agent subscribed to it."""
    async with cast.rest() as rest:
        channel = (await rest.tenant(cast.tenant).channels.create("pulse", type="live")).id
        for agent in cast.agents:
            await rest.tenant(cast.tenant).subscriptions.create(channel, agent)
    return channel


@pytest.mark.promise("12d")
async def test_live_message_reaches_connected_agents_and_is_not_stored(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2)
    channel = await live_channel(cast)
    async with cast.agent(0) as first, cast.agent(1) as second:
        for agent in (first, second):
            joined = await agent.subscribe(channel)
            assert (joined.epoch, joined.cursor, joined.last) == (None, None, None)
        async with asyncio.TaskGroup() as group:
            receiving = [group.create_task(take(agent, 20)) for agent in (first, second)]
            receipts = [await first.publish(channel, number) for number in range(20)]
    assert {(receipt.seq, receipt.duplicate) for receipt in receipts} == {(None, False)}
    for task in receiving:
        assert [message.data for message in task.result()] == list(range(20))
        assert {(message.seq, message.prev, message.sender_id) for message in task.result()} == {(None, None, cast.agents[0])}
        assert [message.message_id for message in task.result()] == [receipt.message_id for receipt in receipts]


@pytest.mark.promise("12d")
async def test_agent_that_was_away_from_a_live_channel_misses_its_messages(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2)
    channel = await live_channel(cast)
    async with cast.agent(0) as sender:
        await sender.publish(channel, "nobody is there")
        async with cast.agent(1) as late:
            await late.subscribe(channel)
            await sender.publish(channel, "now")
            (message,) = await take(late, 1)
    assert message.data == "now"
    async with Client(cast.url, cast.token) as rest:
        assert [
            each.id for each in [channel async for channel in rest.tenant(cast.tenant).channels.list()] if each.type == "live"
        ] == [channel]


async def test_subscribing_again_to_a_live_channel_misses_nothing(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2)
    channel = await live_channel(cast)
    async with cast.agent(0) as sender, cast.agent(1) as agent, asyncio.timeout(30):
        async with cast.rest() as rest:
            await rest.tenant(cast.tenant).subscriptions.delete(channel, cast.agents[0])
        await agent.subscribe(channel)
        async with asyncio.TaskGroup() as group:
            group.create_task(subscribe_often(agent, channel))
            for number in range(200):
                await sender.publish(channel, number)
        assert [message.data for message in await take(agent, 200)] == [*range(200)]


async def subscribe_often(agent: Agent, channel: str) -> None:
    for _ in range(50):
        await agent.subscribe(channel)
