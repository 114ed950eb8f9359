from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from functools import partial

import pytest

from artcafe.model import AgentId, AgentPrincipal, TenantId
from artcafe.services.shares import (
    MAX_COMMANDS_PER_TURN,
    MAX_CONCURRENT_PER_AGENT,
    MAX_CONCURRENT_PER_TENANT,
    MAX_MESSAGES_PER_GROUP,
    MIN_COMMANDS_PER_TURN,
    Share,
    Shares,
)


def agent(tenant: str = "ten_a", agent: str = "agt_1") -> AgentPrincipal:
    return AgentPrincipal(agent_id=AgentId(agent), tenant_id=TenantId(tenant), epoch=0)


def begin_all(share: Share) -> int:
    """Begin commands while there is room, at most 1,000, and return their number."""
    begun = 0
    while share.can_begin and begun < 1000:
        share.begin()
        begun += 1
    return begun


async def next_turn(turns: int = 1) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


async def test_connections_of_one_principal_share_one_share() -> None:
    shares = Shares()
    share = shares.of(agent())
    assert shares.of(agent()) is share
    assert shares.of(agent(agent="agt_2")) is not share
    assert shares.of(agent("ten_b")).tenant is not share.tenant


async def test_tenant_that_is_active_alone_is_unlimited() -> None:
    shares = Shares()
    share = shares.of(agent())
    assert begin_all(share) == 1000
    assert shares.max_per_group == sys.maxsize


@pytest.mark.parametrize("tenants", [2, 4, 100])
async def test_active_tenants_share_a_turn(tenants: int) -> None:
    shares = Shares()
    those = [shares.of(agent(f"ten_{number}")) for number in range(tenants)]
    for share in those:
        share.begin()
    await next_turn()
    each = max(MIN_COMMANDS_PER_TURN, MAX_COMMANDS_PER_TURN // tenants)
    assert [begin_all(share) for share in those] == [each] * tenants
    assert shares.max_per_group == MAX_MESSAGES_PER_GROUP
    await next_turn()
    assert begin_all(those[0]) == each


async def test_agents_of_a_tenant_share_its_limit_and_take_turns() -> None:
    shares = Shares()
    other, busy, quiet = shares.of(agent("ten_b")), shares.of(agent()), shares.of(agent(agent="agt_2"))
    other.begin()
    begun: list[str] = []

    def take(name: str, share: Share, left: int) -> None:
        share.begin()
        begun.append(name)
        if left:
            share.wait(partial(take, name, share, left - 1))

    begin_all(busy)
    assert not quiet.can_begin
    take_busy: Callable[[], None] = partial(take, "busy", busy, 99)
    busy.wait(take_busy)
    quiet.wait(partial(take, "quiet", quiet, 0))
    await next_turn()
    assert begun[:2] == ["busy", "quiet"]
    assert len(begun) == MAX_COMMANDS_PER_TURN // 2
    while len(begun) < 101:
        await next_turn()


async def test_waiter_that_raises_does_not_block_the_others() -> None:
    shares = Shares()
    shares.of(agent("ten_b")).begin()
    share, called = shares.of(agent()), asyncio.Event()

    def fail() -> None:
        raise ValueError

    begin_all(share)
    share.wait(fail)
    share.wait(called.set)
    async with asyncio.timeout(20):
        await called.wait()
    assert shares.supervisor.failures == 1


async def test_cancelled_waiting_turn_gives_its_place_to_the_next() -> None:
    shares = Shares()
    shares.of(agent("ten_b")).begin()
    share = shares.of(agent())
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        asyncio.get_running_loop().call_soon(begin_all, share)  # in the turn that starts the tasks
        waiting = [group.create_task(share.turn()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
    assert [each.cancelled() for each in waiting] == [True, False, False]


async def test_concurrent_commands_of_an_agent_and_of_a_tenant_are_limited() -> None:
    shares, doing, most = Shares(), 0, [0, 0]
    over = asyncio.Event()

    async def work(share: Share) -> None:
        nonlocal doing
        async with share.slot():
            doing += 1
            most[0] = max(most[0], doing)
            await over.wait()
            doing -= 1

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        one = shares.of(agent())
        for _ in range(3 * MAX_CONCURRENT_PER_AGENT):
            group.create_task(work(one))
        await next_turn(5)
        assert doing == MAX_CONCURRENT_PER_AGENT
        for number in range(MAX_CONCURRENT_PER_TENANT):
            group.create_task(work(shares.of(agent(agent=f"agt_{number + 2}"))))
        await next_turn(5)
        assert doing == MAX_CONCURRENT_PER_TENANT
        over.set()
    assert most[0] == MAX_CONCURRENT_PER_TENANT
