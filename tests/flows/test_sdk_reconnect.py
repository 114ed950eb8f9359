"""The SDK against the platform, over a connection that breaks: messages in flight arrive once and in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from artcafe.errors import OutcomeUnknown, Unavailable
from artcafe.sdk.agent import Agent
from tests.casts import recast
from tests.platform import Cast, Platform
from tests.relay import Relay, relayed


@pytest.fixture(scope="module")
def home(platform: Platform) -> Cast:
    return asyncio.run(platform.tenant_with())


@pytest.fixture
async def relay(platform: Platform) -> AsyncIterator[Relay]:
    async with relayed(platform.gateway_url) as relay:
        yield relay


def agent_over(relay: Relay, cast: Cast, *, max_unacked: int | None = 64, connect_timeout_s: float = 15.0) -> Agent:
    return Agent(
        relay.url,
        tenant=cast.tenant,
        agent=cast.agents[0],
        key=cast.keys[0],
        max_unacked=max_unacked,
        connect_timeout_s=connect_timeout_s,
    )


async def log_of(cast: Cast, channel: str, count: int) -> list[object]:
    """Return the first messages of a channel, read on another connection, and check that there are no more."""
    async with cast.agent(1, max_unacked=None) as reader, asyncio.timeout(10):
        await reader.publish(channel, "the end")
        found = []
        async for message in reader.messages(channel, start="first"):
            if message.data == "the end":
                break
            found.append(message.data)
    assert len(found) == count
    return found


@pytest.mark.parametrize("acks", [True, False])
@pytest.mark.parametrize("start", ["cursor", "first"])
@pytest.mark.promise("5a", "6a")
async def test_over_broken_connections_every_message_arrives_once_and_in_order(
    home: Cast, relay: Relay, start: str, acks: bool
) -> None:
    cast = await recast(home)
    seen: list[object] = []
    async with (
        cast.agent() as sender,
        agent_over(relay, cast, max_unacked=64 if acks else None) as agent,
        asyncio.timeout(30),
        asyncio.TaskGroup() as group,
    ):
        for number in range(400):
            group.create_task(sender.publish(cast.channels[0], number))
        async for message in agent.messages(cast.channels[0], start="first" if start == "first" else "cursor"):
            seen.append(message.data)
            if acks:
                await message.ack()
            if len(seen) % 100 == 50:
                relay.cut()
            if len(seen) == 400:
                break
        # Without a window everything may have been received before the first cut.
        while relay.connections < 2:  # noqa: ASYNC110 (the relay notifies nobody)
            await asyncio.sleep(0.01)
    assert seen == list(range(400))


@pytest.mark.promise("6a")
async def test_acks_made_while_disconnected_prevent_redelivery_at_the_next_start(home: Cast, relay: Relay) -> None:
    cast = await recast(home)
    async with agent_over(relay, cast) as agent, asyncio.timeout(10):
        for number in range(3):
            await agent.publish(cast.channels[0], number)
        messages = agent.messages()
        got = [await anext(messages) for _ in range(3)]
        relay.cut()
        await got[1].ack(cumulative=True)
        await agent.publish(cast.channels[0], 3)  # A new connection takes it, on which the ack was sent too.
        assert (await anext(messages)).data == 3
    async with cast.agent() as agent, asyncio.timeout(20):
        assert (await anext(agent.messages())).data == 2


@pytest.mark.promise("2c", "4b")
async def test_publishes_with_lost_answers_are_stored_once_and_keep_their_order(home: Cast, relay: Relay) -> None:
    cast = await recast(home, agents=2)
    async with agent_over(relay, cast) as agent, asyncio.timeout(30), asyncio.TaskGroup() as group:
        receipts = [group.create_task(agent.publish(cast.channels[0], number)) for number in range(200)]
        await receipts[0]
        relay.is_deaf = True
        receipts += [group.create_task(agent.publish(cast.channels[0], number)) for number in range(200, 400)]
        await log_grows(cast)
        relay.is_deaf = False
        relay.cut()
    assert await log_of(cast, cast.channels[0], 400) == list(range(400))
    seqs = [each.result().seq or 0 for each in receipts]
    assert seqs == sorted(seqs)
    assert any(each.result().duplicate for each in receipts)


async def log_grows(cast: Cast) -> None:
    """Wait until the log holds all 200 messages sent before the connection stopped passing bytes, and a later one."""
    async with cast.agent(1) as reader, asyncio.timeout(10):
        async for message in reader.messages(cast.channels[0], start="first"):
            await message.ack()
            if message.data > 200:
                return


@pytest.mark.promise("2b")
async def test_timeout_on_a_dead_connection_raises_an_unknown_outcome(home: Cast, relay: Relay) -> None:
    cast = await recast(home)
    async with agent_over(relay, cast) as agent:
        await agent.publish(cast.channels[0], 0)
        relay.is_deaf = True
        with pytest.raises(OutcomeUnknown):
            await agent.publish(cast.channels[0], 1, key="order-1", timeout_s=0.2)
        relay.is_deaf = False
        relay.cut()
        assert not (await agent.publish(cast.channels[0], 2)).duplicate
        assert (await agent.publish(cast.channels[0], 1, key="order-1")).duplicate


@pytest.mark.promise("2a")
async def test_timeout_before_anything_was_sent_raises_that_nothing_was_stored(home: Cast, relay: Relay) -> None:
    cast = await recast(home)
    async with agent_over(relay, cast) as agent:
        relay.shut()
        relay.cut()
        with pytest.raises((Unavailable, OutcomeUnknown)):  # the SDK may not have noticed the closed connection yet
            await agent.publish(cast.channels[0], 1, timeout_s=0.2)
        with pytest.raises(Unavailable, match="nothing was changed"):
            await agent.publish(cast.channels[0], 2, timeout_s=0.2)


async def test_agent_started_before_the_gateway_waits_for_it(home: Cast, relay: Relay) -> None:
    cast = await recast(home)
    relay.shut()

    async def connect() -> int:
        async with agent_over(relay, cast) as agent:
            return (await agent.publish(cast.channels[0], "here")).seq or 0

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        connecting = group.create_task(connect())
        for _ in range(3):
            await asyncio.sleep(0)
        await relay.open()
    assert connecting.result() > 0


async def test_unreachable_server_raises_with_an_explanation_after_the_timeout(home: Cast, relay: Relay) -> None:
    cast = await recast(home)
    relay.shut()
    with pytest.raises(Unavailable, match=r"connection refused.* cannot be reached"):
        async with agent_over(relay, cast, connect_timeout_s=0.3):
            pytest.fail("there is nobody")


async def test_leaving_while_disconnected_takes_at_most_the_close_timeout(home: Cast, relay: Relay) -> None:
    cast = await recast(home)
    async with asyncio.timeout(20), agent_over(relay, cast) as agent:
        await agent.publish(cast.channels[0], 0)
        relay.shut()
        relay.cut()
