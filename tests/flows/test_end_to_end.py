"""End to end, as the README promises: an agent's message reaches every subscribed agent."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from artcafe.sdk.agent import Agent
from artcafe.sdk.messages import Message
from tests.platform import Platform


async def take(agent: Agent, count: int) -> list[Message]:
    """Return the next messages, each acknowledged."""
    got: list[Message] = []
    async with asyncio.timeout(20):
        async for message in agent.messages():
            got.append(message)
            await message.ack()
            if len(got) == count:
                break
    return got


@pytest.mark.promise("5a")
async def test_message_reaches_every_subscribed_agent_and_its_sender(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=3)
    async with cast.agent(0) as first, cast.agent(1) as second, cast.agent(2) as third:
        receipt = await first.publish(cast.channels[0], {"hello": "world"})
        for agent in (first, second, third):
            (message,) = await take(agent, 1)
            assert message.data == {"hello": "world"}
            assert (message.seq, message.message_id, message.sender_id) == (receipt.seq, receipt.message_id, cast.agents[0])


@pytest.mark.promise("7a")
async def test_agent_that_was_away_gets_its_backlog_and_then_live_messages(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2)
    async with cast.agent(0) as sender:
        async with cast.agent(1) as away:
            await sender.publish(cast.channels[0], 0)
            await take(away, 1)
        for number in range(1, 600):
            await sender.publish(cast.channels[0], number)
        async with cast.agent(1) as back:
            await sender.publish(cast.channels[0], 600)
            got = await take(back, 600)
        assert [message.data for message in got] == list(range(1, 601))
        assert all(later.prev == earlier.seq for earlier, later in itertools.pairwise(got))
