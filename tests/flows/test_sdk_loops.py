"""Loops over channels and their acknowledgements: every message once, whenever a loop begins, ends or is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from artcafe.sdk.client import Agent
from tests.casts import recast
from tests.platform import Cast, Platform


@pytest.fixture(scope="module")
def home(platform: Platform) -> Cast:
    return asyncio.run(platform.tenant_with())


async def fill(agent: Agent, channel: str, count: int) -> None:
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(agent.publish(channel, number))


async def test_a_loop_over_a_channel_gets_every_message_also_those_that_came_before_it_began(home: Cast) -> None:
    cast = await recast(home, agents=2)
    (channel,) = cast.channels
    async with cast.agent(1) as sender:
        await fill(sender, channel, 200)
    for seen in (range(200), range(0)):  # the second agent finds the cursor behind all of them
        async with cast.agent() as agent, asyncio.timeout(20):
            await agent.publish(channel, "the end")  # Meanwhile the window fills.
            found = []
            async for message in agent.messages(channel):
                await message.ack()
                if message.data == "the end":
                    break
                found.append(message.data)
            assert found == [*seen]
