"""Presence, as seen by a member, another agent and another tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from artcafe.errors import AgentNotFound, Invalid
from artcafe.sdk.agent import Agent
from artcafe.sdk.client import Client
from artcafe.sdk.keys import load_signer
from artcafe.sdk.records import PresenceInfo
from tests.platform import Cast, Platform
from tests.relay import relayed

BOUND_S = 20
AWAY = PresenceInfo(connected=False)


async def presence(cast: Cast, number: int = 0) -> PresenceInfo:
    """Return an agent's presence, as a member sees it now."""
    async with Client(cast.url, cast.token) as rest:
        found = (await rest.tenant(cast.tenant).agents.get(cast.agents[number])).presence
    assert found is not None
    return found


async def wait_for_presence(cast: Cast, wanted: Callable[[PresenceInfo], bool]) -> None:
    """Wait until the first agent's presence is as wanted."""
    async with asyncio.timeout(BOUND_S):
        while not wanted(await presence(cast)):  # noqa: ASYNC110 (what is waited for is in another process)
            await asyncio.sleep(0.01)


async def wait_for_return(cast: Cast, before: PresenceInfo, *, status: str | None) -> None:
    """Wait until the first agent has connected again, with this status."""
    await wait_for_presence(cast, lambda now: now.connected and now.since != before.since and now.status == status)


async def test_agent_is_shown_as_connected_with_its_status_until_it_leaves(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2)
    assert await presence(cast) == AWAY
    async with cast.agent(0) as agent:
        came = await presence(cast)
        assert (came.connected, came.status) == (True, None)
        await agent.set_status("busy")
        busy = await presence(cast)
        assert (busy.connected, busy.status, busy.since) == (True, "busy", came.since)
        async with cast.agent(0):
            assert (await presence(cast)).since == came.since
        assert await presence(cast) == busy
        assert await presence(cast, 1) == AWAY

        await agent.set_status(None)
        assert (await presence(cast)).status is None
        with pytest.raises(Invalid, match="64"):
            await agent.set_status("x" * 65)
    await wait_for_presence(cast, AWAY.__eq__)


async def test_agents_are_filtered_by_whether_they_are_connected(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=3)
    async with Client(cast.url, cast.token) as rest, cast.agent(1) as agent:
        await agent.set_status("busy")

        async def ids(connected: bool | None) -> set[str]:
            return {each.id async for each in rest.tenant(cast.tenant).agents.list(connected=connected)}

        assert await ids(True) == {cast.agents[1]}
        assert await ids(False) == {cast.agents[0], cast.agents[2]}
        assert await ids(None) == set(cast.agents)


async def test_agent_sees_presence_in_its_own_tenant_only(platform: Platform) -> None:
    ours, theirs = await platform.tenant_with(agents=2), await platform.tenant_with(agents=1)
    async with ours.agent(0) as agent, theirs.agent(0):
        await agent.set_status("busy")
        async with Client(ours.url) as rest:
            await rest.login(ours.tenant, ours.agents[1], load_signer(ours.keys[1]))
            cards = {each.id: each.presence async for each in rest.tenant(ours.tenant).agents.list()}
            assert {id: seen and (seen.connected, seen.status) for id, seen in cards.items()} == {
                ours.agents[0]: (True, "busy"),
                ours.agents[1]: (False, None),
            }
            with pytest.raises(AgentNotFound):
                await rest.tenant(ours.tenant).agents.get(theirs.agents[0])


async def test_status_is_set_again_after_every_reconnect(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1)
    async with (
        relayed(platform.gateway_url) as relay,
        Agent(relay.url, tenant=cast.tenant, agent=cast.agents[0], key=cast.keys[0]) as agent,
    ):
        await agent.set_status("busy")
        for _ in range(3):
            before = await presence(cast)
            relay.cut()
            await wait_for_return(cast, before, status="busy")


async def test_newest_status_stays_after_a_connection_was_lost(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1)
    async with (
        relayed(platform.gateway_url) as relay,
        Agent(relay.url, tenant=cast.tenant, agent=cast.agents[0], key=cast.keys[0]) as agent,
    ):
        await agent.set_status("old")
        relay.is_deaf = True  # the answer to the next one is lost
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
            setting = group.create_task(agent.set_status("new"))
            await wait_for_presence(cast, lambda now: now.status == "new")
            relay.is_deaf = False
            relay.cut()
            await setting
        assert (await presence(cast)).status == "new"


async def test_removed_status_does_not_return(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1)
    async with (
        relayed(platform.gateway_url) as relay,
        Agent(relay.url, tenant=cast.tenant, agent=cast.agents[0], key=cast.keys[0]) as agent,
    ):
        await agent.set_status("busy")
        await agent.set_status(None)
        before = await presence(cast)
        relay.cut()
        await wait_for_return(cast, before, status=None)
        await agent.subscribe(cast.channels[0])  # earlier commands on the new connection are done by now
        assert (await presence(cast)).status is None
