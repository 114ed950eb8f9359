"""Loops over channels and their acks: every message once, whenever a loop begins, ends or is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from artcafe.errors import ChannelNotFound, Conflict, OutcomeUnknown, Unavailable
from artcafe.sdk.agent import Agent
from tests.casts import recast
from tests.platform import Cast, Platform
from tests.relay import relayed


@pytest.fixture(scope="module")
def home(platform: Platform) -> Cast:
    return asyncio.run(platform.tenant_with())


async def fill(agent: Agent, channel: str, count: int) -> None:
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(agent.publish(channel, number))


async def test_loop_over_a_channel_gets_every_message_including_those_before_it_began(home: Cast) -> None:
    cast = await recast(home, agents=2)
    (channel,) = cast.channels
    async with cast.agent(1) as sender:
        await fill(sender, channel, 200)
    for seen in (range(200), range(0)):  # the second agent finds the cursor after all of them
        async with cast.agent() as agent, asyncio.timeout(20):
            await agent.publish(channel, "the end")  # meanwhile the window fills
            found = []
            async for message in agent.messages(channel):
                await message.ack()
                if message.data == "the end":
                    break
                found.append(message.data)
            assert found == [*seen]


async def test_messages_acknowledged_last_to_first_by_many_tasks_are_done_when_all_are(home: Cast) -> None:
    cast = await recast(home)
    (channel,) = cast.channels
    async with cast.agent() as agent, asyncio.timeout(10):
        await fill(agent, channel, 6)
        messages = agent.messages(channel)
        six = [await anext(messages) for _ in range(6)]
        for message in reversed(six[1:]):
            await message.ack()
    async with cast.agent() as agent, asyncio.timeout(10):
        messages = agent.messages(channel)
        again = [await anext(messages) for _ in range(6)]
        assert [message.seq for message in again] == [message.seq for message in six]
        async with asyncio.TaskGroup() as group:
            for message in reversed(again):
                group.create_task(message.ack())
    assert await received_next(cast, channel) == []


async def received_next(cast: Cast, channel: str) -> list[object]:
    """Return the messages of a channel that the agent's next connection receives."""
    async with cast.agent() as agent, asyncio.timeout(10):
        await agent.publish(channel, "the end")
        found = []
        async for message in agent.messages(channel):
            if message.data == "the end":
                await message.ack()
                break
            found.append(message.data)
    return found


async def test_abandoned_loop_with_auto_ack_does_not_block_the_next_one(home: Cast) -> None:
    cast = await recast(home)
    (channel,) = cast.channels
    async with cast.agent(max_unacked=2) as agent, asyncio.timeout(10):
        await fill(agent, channel, 9)
        found = []
        for _ in range(3):
            async for message in agent.messages(channel, auto_ack=True):
                found.append(message.data)
                if len(found) % 3 == 0:
                    break
    assert found == [*range(9)]
    assert await received_next(cast, channel) == [8]


async def test_leaving_right_after_an_ack_sends_it(home: Cast) -> None:
    cast = await recast(home)
    (channel,) = cast.channels
    for number in range(4):
        async with cast.agent() as agent, asyncio.timeout(10):
            await agent.publish(channel, number)
            message = await anext(agent.messages(channel))
            assert message.data == number
            await message.ack()
    assert await received_next(cast, channel) == []


async def test_flushed_ack_is_kept_though_the_program_is_killed(platform: Platform, home: Cast) -> None:
    cast = await recast(home)
    (channel,) = cast.channels
    async with relayed(platform.gateway_url) as relay, asyncio.timeout(10):
        agent = Agent(relay.url, tenant=cast.tenant, agent=cast.agents[0], key=cast.keys[0], close_timeout_s=0)
        async with agent:
            await agent.publish(channel, 0)
            await (await anext(agent.messages(channel))).ack()
            await agent.flush()
            await agent.history(channel)  # Its answer comes after the ack, so the relay has passed the ack on.
            relay.cut()
    assert await received_next(cast, channel) == []


async def test_leaving_while_disconnected_sends_the_acks_on_the_next_connection(platform: Platform, home: Cast) -> None:
    cast = await recast(home)
    (channel,) = cast.channels
    async with (
        relayed(platform.gateway_url) as relay,
        asyncio.timeout(10),
        Agent(relay.url, tenant=cast.tenant, agent=cast.agents[0], key=cast.keys[0]) as agent,
    ):
        await agent.publish(channel, 0)
        message = await anext(agent.messages(channel))
        relay.shut()
        relay.cut()
        with pytest.raises((Unavailable, OutcomeUnknown)):
            await agent.publish(channel, 1, timeout_s=0.2)
        await message.ack()
        await relay.open()
    assert await received_next(cast, channel) == []


async def test_new_loop_raises_if_the_subscription_is_paused_or_the_channel_deleted(home: Cast) -> None:
    cast = await recast(home)
    (channel,) = cast.channels
    async with cast.agent() as agent, home.rest() as rest, asyncio.timeout(10):
        await agent.publish(channel, 0)
        assert (await anext(agent.messages(channel))).data == 0
        await rest.tenant(cast.tenant).subscriptions.update(channel, cast.agents[0], status="paused")
        with pytest.raises(Conflict, match="paused"):
            await anext(agent.messages(channel))
        await rest.tenant(cast.tenant).subscriptions.delete(channel, cast.agents[0])
        (subscribed,) = [await agent.subscribe(channel)]
        await agent.publish(channel, 1)
        assert (await anext(agent.messages(channel))).data == 1
        assert subscribed.cursor == subscribed.last
        await rest.tenant(cast.tenant).channels.delete(channel)
        with pytest.raises(ChannelNotFound):
            await anext(agent.messages(channel))


async def test_agent_used_from_another_event_loop_raises(home: Cast) -> None:
    cast = await recast(home)
    (channel,) = cast.channels
    async with cast.agent() as agent:
        await agent.publish(channel, 0)
        messages = agent.messages()
        message = await anext(messages)

        async def elsewhere() -> None:
            for call in (
                agent.publish(channel, 1),
                agent.subscribe(channel),
                agent.set_status("busy"),
                agent.history(channel),
                agent.flush(),
                anext(messages),
                message.ack(),
            ):
                with pytest.raises(RuntimeError, match="another event loop"):
                    await call
            with pytest.raises(RuntimeError, match="another event loop"):
                agent.messages()

        await asyncio.to_thread(asyncio.run, elsewhere())
        await message.ack()
    assert await received_next(cast, channel) == []


async def test_acks_of_a_paused_and_resumed_subscription_let_further_messages_come(home: Cast) -> None:
    cast = await recast(home, agents=2)
    (channel,) = cast.channels
    async with cast.agent(max_unacked=4) as agent, cast.agent(1) as sender, home.rest() as rest, asyncio.timeout(30):
        await fill(sender, channel, 9)
        messages = agent.messages(channel)
        held = [await anext(messages) for _ in range(4)]
        await rest.tenant(cast.tenant).subscriptions.update(channel, cast.agents[0], status="paused")
        for message in held:
            await message.ack()
        await agent.flush()
        await rest.tenant(cast.tenant).subscriptions.update(channel, cast.agents[0], status="active")
        rest_of_it = []
        for _ in range(5):
            message = await anext(messages)
            await message.ack()
            rest_of_it.append(message.data)
    assert rest_of_it == [4, 5, 6, 7, 8]
    assert await received_next(cast, channel) == []
