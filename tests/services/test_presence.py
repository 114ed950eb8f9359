from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from artcafe.errors import Invalid, Unavailable
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.server import EmbeddedNats
from artcafe.fabric.fabric import Fabric
from artcafe.model import AgentId, AgentPrincipal, TenantId
from artcafe.services.presence import Presence, Seen, View
from tests.fabric.nats_env import until
from tests.services.service_env import START, Clock

BOUND_S = 20
ACCOUNTS = Accounts(b"s" * 32, "dev")
OURS, THEIRS = TenantId("ten_ours"), TenantId("ten_theirs")
PLANNER, SCOUT = AgentId("agt_planner"), AgentId("agt_scout")
AWAY = Seen(connected=False)


def agent(agent_id: AgentId = PLANNER, tenant_id: TenantId = OURS) -> AgentPrincipal:
    return AgentPrincipal(agent_id=agent_id, tenant_id=tenant_id, epoch=0)


class Server:
    """The presence of one server of a fleet."""

    def __init__(self, fabric: Fabric, clock: Clock) -> None:
        self.fabric, self.presence = fabric, Presence(fabric, clock)

    async def view(self, tenant_id: TenantId = OURS) -> View:
        view = await self.presence.view(tenant_id)
        assert view is not None
        return view


@asynccontextmanager
async def server(nats: EmbeddedNats, clock: Clock, *, lease_s: float = 50, renew_s: float = 20) -> AsyncIterator[Server]:
    """Stops without announcing it, as if killed."""
    fabric = Fabric([nats.url], ACCOUNTS, lease_s=lease_s, renew_s=renew_s)
    async with asyncio.TaskGroup() as group:
        group.create_task(fabric.run())
        await fabric.wait_up(BOUND_S)
        try:
            yield Server(fabric, clock)
        finally:
            fabric.close()


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    nats = EmbeddedNats(tmp_path, ACCOUNTS)
    await nats.start()
    try:
        yield nats
    finally:
        await nats.stop()


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_agent_is_connected_from_its_first_socket_to_its_last(nats: EmbeddedNats, clock: Clock) -> None:
    async with server(nats, clock) as here:
        view = await here.view()
        assert view.of(PLANNER) == AWAY
        here.presence.add_socket(agent())
        assert view.of(PLANNER) == Seen(connected=True, since=START)

        clock.pass_s(60)
        here.presence.add_socket(agent())
        here.presence.remove_socket(agent())
        assert view.of(PLANNER) == Seen(connected=True, since=START)
        here.presence.remove_socket(agent())
        assert view.of(PLANNER) == AWAY


async def test_status_is_shown_until_the_last_socket_closes(nats: EmbeddedNats, clock: Clock) -> None:
    async with server(nats, clock) as here:
        view = await here.view()
        for _ in range(2):
            here.presence.add_socket(agent())
        clock.pass_s(1)
        # NFC composes the two characters.
        assert here.presence.set_status(agent(), "cafe\u0301") == "caf\u00e9"
        assert view.of(PLANNER) == Seen(connected=True, status="caf\u00e9", since=START)
        here.presence.remove_socket(agent())
        assert view.of(PLANNER).status == "caf\u00e9"
        here.presence.remove_socket(agent())
        assert view.of(PLANNER) == AWAY
        here.presence.add_socket(agent())
        assert view.of(PLANNER).status is None


async def test_status_can_be_removed(nats: EmbeddedNats, clock: Clock) -> None:
    async with server(nats, clock) as here:
        here.presence.add_socket(agent())
        here.presence.set_status(agent(), "busy")
        assert here.presence.set_status(agent(), None) is None
        assert (await here.view()).of(PLANNER) == Seen(connected=True, since=START)


@pytest.mark.parametrize("text", ["", " ", "x" * 65, "two\nlines", "\ud800"])
async def test_invalid_status_is_refused_and_changes_nothing(nats: EmbeddedNats, clock: Clock, text: str) -> None:
    async with server(nats, clock) as here:
        here.presence.add_socket(agent())
        here.presence.set_status(agent(), "busy")
        with pytest.raises(Invalid) as refused:
            here.presence.set_status(agent(), text)
        assert refused.value.field == "status"
        assert (await here.view()).of(PLANNER).status == "busy"


async def test_servers_see_each_others_agents_in_the_same_tenant_only(nats: EmbeddedNats, clock: Clock) -> None:
    async with server(nats, clock) as one, server(nats, clock) as other:
        one.presence.add_socket(agent(PLANNER))
        other.presence.add_socket(agent(SCOUT))
        one.presence.set_status(agent(PLANNER), "busy")
        views = [await each.view() for each in (one, other)]
        await until(lambda: all(view.of(PLANNER).status == "busy" and view.of(SCOUT).connected for view in views))
        foreign = [await each.view(THEIRS) for each in (one, other)]
        assert {view.of(known).connected for view in foreign for known in (PLANNER, SCOUT)} == {False}

        one.presence.remove_socket(agent(PLANNER))
        await until(lambda: not views[1].of(PLANNER).connected)


async def test_agents_of_a_killed_server_are_connected_until_its_lease_expires(nats: EmbeddedNats, clock: Clock) -> None:
    async with server(nats, clock, lease_s=0.5) as left:
        view = await left.view()
        async with server(nats, clock) as dying:
            dying.presence.add_socket(agent())
            await until(lambda: view.of(PLANNER).connected)
        await until(lambda: not view.of(PLANNER).connected)


async def test_presence_is_renewed_for_a_server_without_agents(nats: EmbeddedNats, clock: Clock) -> None:
    """A server knows of it by its announcements, which it sends once it follows those of others."""
    updates: list[AgentId] = []
    async with server(nats, clock, renew_s=0.05) as one, server(nats, clock) as other:
        for each in (one, other):
            each.fabric.announcements.listen(lambda _: None)
        one.presence.add_socket(agent())
        view = await other.view()
        await until(lambda: view.of(PLANNER).connected)
        other.fabric.tenant(OURS).presence.watch(updates.append)
        await until(lambda: updates.count(PLANNER) >= 3)


async def test_tenant_with_a_connected_agent_stays_open(nats: EmbeddedNats, clock: Clock) -> None:
    fabric = Fabric([nats.url], ACCOUNTS, idle_s=0, sweep_s=0.01)
    async with asyncio.TaskGroup() as group:
        group.create_task(fabric.run())
        await fabric.wait_up(BOUND_S)
        presence = Presence(fabric, clock)
        presence.add_socket(agent())
        idle = fabric.tenant(THEIRS)
        tenant_fabric = fabric.tenant(OURS)
        await until(idle.leave.is_set)
        assert not tenant_fabric.leave.is_set()
        presence.remove_socket(agent())
        await until(tenant_fabric.leave.is_set)
        fabric.close()


async def test_presence_is_unknown_without_nats_and_sockets_are_still_counted(
    nats: EmbeddedNats, clock: Clock, tmp_path: Path
) -> None:
    async with server(nats, clock) as here:
        assert await here.presence.view(OURS) is not None
        await nats.stop()
        await until(lambda: not here.fabric.tenant(OURS).connection.is_up)
        assert await here.presence.view(OURS) is None
        here.presence.add_socket(agent())
        here.presence.set_status(agent(), "busy")
        again = EmbeddedNats(tmp_path, ACCOUNTS)
        await again.start()
        try:
            await until(lambda: here.fabric.tenant(OURS).connection.is_up)
            assert (await here.view()).of(PLANNER) == Seen(connected=True, status="busy", since=START)
            here.presence.remove_socket(agent())
        finally:
            await again.stop()


async def test_stopping_server_counts_no_socket(nats: EmbeddedNats, clock: Clock) -> None:
    fabric = Fabric([nats.url], ACCOUNTS)
    presence = Presence(fabric, clock)
    with pytest.raises(Unavailable):
        presence.add_socket(agent())
    assert await presence.view(OURS) is None
