"""Rates over two real servers: 50 publishes at once on both store exactly a small limit, and the SDK sees why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator

import pytest

from artcafe.errors import RateExceeded
from artcafe.sdk.agent import Agent
from artcafe.sdk.client import Client
from tests.fleet import Fleet, running_fleet

AT_ONCE = 50
LIMIT = 10
PLANS = f"""
default = "small"
[plans.small]
self_serve = true
[plans.small.limits]
messages_a_minute = {LIMIT}
"""
OTHERS = (
    "agents channels members connections agent_connections agent_subscriptions messages_a_month message_bytes storage_bytes"
    " retention_s api_calls_a_minute hops chain_messages"
)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("rates")
    file = folder / "plans.toml"
    file.write_text(PLANS + "".join(f'{name} = "unlimited"\n' for name in OTHERS.split()))
    with running_fleet(folder, flags=["--plans-file", str(file)]) as fleet:
        yield fleet


async def refusal(publishing: Awaitable[object]) -> RateExceeded | None:
    """Return the error of a publish that the limit refused."""
    try:
        await publishing
    except RateExceeded as exc:
        return exc
    return None


async def test_fifty_publishes_at_once_on_two_servers_store_exactly_the_limit(fleet: Fleet) -> None:
    cast = await fleet.tenant_with(subscribed=False)
    async with Client(fleet.servers[0].url, cast.token, max_rate_wait_s=0.0) as one:
        async with Client(fleet.servers[1].url, cast.token, max_rate_wait_s=0.0) as two, asyncio.TaskGroup() as group:
            both = [one, two]
            publishing = [
                group.create_task(refusal(both[at % 2].tenant(cast.tenant).messages.publish(cast.channels[0], at)))
                for at in range(AT_ONCE)
            ]
        stored = [each async for each in one.tenant(cast.tenant).messages.list(cast.channels[0])]
    refusals = [error for each in publishing if (error := each.result()) is not None]
    assert AT_ONCE - len(refusals) == len(stored) == LIMIT
    assert {(error.limit, error.most) for error in refusals} == {("messages_a_minute", LIMIT)}
    assert all(0 < error.wait_s <= 63 for error in refusals)


async def test_agent_that_does_not_wait_sees_its_limit_and_the_refusal(fleet: Fleet) -> None:
    cast = await fleet.tenant_with(subscribed=False)
    agent = Agent(fleet.servers[0].gateway_url, tenant=cast.tenant, agent=cast.agents[0], key=cast.keys[0], max_rate_wait_s=0.0)
    async with agent:
        for number in range(8):
            await agent.publish(cast.channels[0], number)
        assert (agent.limits["messages_a_minute"].used, agent.limits["messages_a_minute"].left) == (8, 2)
        for number in range(2):
            await agent.publish(cast.channels[0], number)
        assert agent.limits["messages_a_minute"].left == 0
        with pytest.raises(RateExceeded, match="messages_a_minute of 10 is reached, with 10 used"):
            await agent.publish(cast.channels[0], "more")
