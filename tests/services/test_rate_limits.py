"""Rate limits of a tenant on two servers, on a real nats-server, with a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from artcafe.errors import RateExceeded
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.server import EmbeddedNats
from artcafe.fabric.fabric import Fabric
from artcafe.model import TenantId
from artcafe.rules.plans import Limit
from artcafe.rules.rate_window import SLOT_S, SLOTS
from artcafe.services.rate_limits import RateLimits
from artcafe.services.tenant_rate import Metered, month_of
from tests.fabric.nats_env import until
from tests.services.service_env import Server

BOUND_S = 10
ACCOUNTS = Accounts(b"s" * 32, "dev")
MESSAGES = Limit.MESSAGES_A_MINUTE


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    nats = EmbeddedNats(tmp_path, ACCOUNTS)
    await nats.start()
    try:
        yield nats
    finally:
        await nats.stop()


class Meter:
    """What a meter has counted, as the test sets it."""

    def __init__(self) -> None:
        self.counted: Metered | None = None

    async def read(self, _tenant_id: TenantId, _time: datetime) -> Metered | None:
        return self.counted


@asynccontextmanager
async def limits(nats: EmbeddedNats, server: Server, meter: Meter | None = None, servers: int = 2) -> AsyncIterator[RateLimits]:
    """Run the rate limits of one server."""
    fabric = Fabric([nats.url], ACCOUNTS)
    async with asyncio.TaskGroup() as group:
        group.create_task(fabric.run())
        await fabric._platform.wait_up(BOUND_S)
        made = RateLimits(
            fabric.recent_counters,
            server.record_cache,
            server.plans,
            server.clock,
            lambda: servers,
            None if meter is None else meter.read,
        )
        server.invalidation.subscribe(made.on_change)
        loop = group.create_task(made.run())
        try:
            yield made
        finally:
            loop.cancel()
            fabric.close()


async def a_tenant(server: Server, **own: int) -> TenantId:
    """Create a tenant with these limits."""
    tenant_id = (await server.tenant()).tenant_id
    await server.set_limits(tenant_id, **own)
    return tenant_id


async def is_spent(server: RateLimits, tenant_id: TenantId, kind: Limit = MESSAGES) -> bool:
    """Try to spend one unit, as a publish does."""
    rate = server.peek_messages(tenant_id) if kind is MESSAGES else None
    if rate is not None and rate.tokens > 0 and rate.slot == server.now() // SLOT_S:
        server.spend_low(rate)
        return True
    try:
        await server.spend(tenant_id, kind)
    except RateExceeded:
        return False
    return True


async def used(server: RateLimits, tenant_id: TenantId, kind: Limit) -> int:
    usage = await server.usage(tenant_id, kind)
    assert usage is not None
    return usage.used


async def spent(servers: list[RateLimits], tenant_id: TenantId, times: int, kind: Limit = MESSAGES) -> int:
    """Try to spend units, all at once and in turns on all servers. Return how many were spent."""
    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
        tasks = [group.create_task(is_spent(servers[at % len(servers)], tenant_id, kind)) for at in range(times)]
    return sum(each.result() for each in tasks)


@pytest.mark.parametrize("kind", [MESSAGES, Limit.API_CALLS_A_MINUTE])
async def test_fifty_at_once_on_two_servers_spend_exactly_a_small_limit(nats: EmbeddedNats, server: Server, kind: Limit) -> None:
    tenant_id = await a_tenant(server, **{kind.value: 10})
    async with limits(nats, server) as one, limits(nats, server) as two:
        assert await spent([one, two], tenant_id, 50, kind) == 10
        assert await spent([two], tenant_id, 5, kind) == 0
        async with asyncio.timeout(BOUND_S):
            while await used(one, tenant_id, kind) != 10:  # noqa: ASYNC110 (the rest of a reservation is given back)
                await asyncio.sleep(0.01)
        assert await used(two, tenant_id, kind) == 10


@pytest.mark.parametrize("limit", [60, 600])
async def test_flood_on_two_servers_stays_within_a_tenth_of_the_limit(nats: EmbeddedNats, server: Server, limit: int) -> None:
    tenant_id = await a_tenant(server, messages_a_minute=limit)
    async with limits(nats, server) as one, limits(nats, server) as two:
        total = 0
        for _ in range(10):
            total += await spent([one, two], tenant_id, limit // 5)
        assert 0.9 * limit <= total <= 1.1 * limit


async def test_refusal_names_the_limit_its_use_and_when_to_try_again(nats: EmbeddedNats, server: Server) -> None:
    tenant_id = await a_tenant(server, messages_a_minute=2)
    async with limits(nats, server) as one:
        assert await spent([one], tenant_id, 2) == 2
        began = server.clock() - timedelta(seconds=server.clock().timestamp() % SLOT_S)
        server.clock.pass_s(10)
        with pytest.raises(RateExceeded) as refused:
            await one.spend(tenant_id, MESSAGES)
        error = refused.value
        assert (error.limit, error.most, error.used, error.code, error.temporary) == (MESSAGES, 2, 2, "too_fast", True)
        free_at = began + timedelta(seconds=(SLOTS + 1) * SLOT_S)
        assert server.clock() + timedelta(seconds=error.wait_s) == pytest.approx(free_at, abs=timedelta(milliseconds=1))
        server.clock.pass_s(error.wait_s)
        assert await spent([one], tenant_id, 5) == 2


async def test_burst_across_the_border_of_two_minutes_stays_within_the_limit(nats: EmbeddedNats, server: Server) -> None:
    tenant_id = await a_tenant(server, messages_a_minute=20)
    async with limits(nats, server) as one, limits(nats, server) as two:
        to_border = 60 - server.clock().timestamp() % 60
        server.clock.pass_s(to_border - 1)
        assert await spent([one, two], tenant_id, 30) == 20
        server.clock.pass_s(2)
        assert await spent([one, two], tenant_id, 30) == 0
        server.clock.pass_s(57)
        assert await spent([one, two], tenant_id, 30) == 0
        server.clock.pass_s(SLOT_S + 2)
        assert await spent([one, two], tenant_id, 30) == 20


async def test_plan_changed_while_running_applies_at_once_on_both_servers(nats: EmbeddedNats, server: Server) -> None:
    tenant_id = await a_tenant(server, messages_a_minute=5)
    async with limits(nats, server) as one, limits(nats, server) as two:
        assert await spent([one, two], tenant_id, 20) == 5
        await server.set_limits(tenant_id, messages_a_minute=12)
        assert await spent([one, two], tenant_id, 20) == 7
        await server.set_limits(tenant_id, messages_a_minute=3)
        assert await spent([one, two], tenant_id, 20) == 0


async def test_plan_changed_to_unlimited_and_back(nats: EmbeddedNats, server: Server) -> None:
    tenant_id = await a_tenant(server, messages_a_minute=5)
    async with limits(nats, server) as one:
        assert await spent([one], tenant_id, 20) == 5
        await server.set_limits(tenant_id, messages_a_minute=2**53)
        assert await spent([one], tenant_id, 100) == 100
        await server.set_limits(tenant_id, messages_a_minute=5)
        await one.renew()
        assert await spent([one], tenant_id, 20) == 0
        server.clock.pass_s(70)
        assert await spent([one], tenant_id, 20) == 5


async def test_while_nats_is_away_each_server_applies_the_limit_to_its_own_use(nats: EmbeddedNats, server: Server) -> None:
    tenant_id = await a_tenant(server, messages_a_minute=10)
    async with limits(nats, server) as one, limits(nats, server) as two:
        assert await spent([one, two], tenant_id, 4) == 4
        await nats.stop()
        server.clock.pass_s(70)
        assert await spent([one], tenant_id, 20) == 10
        assert await spent([two], tenant_id, 20) == 10


async def test_first_message_far_from_the_limit_does_not_wait(nats: EmbeddedNats, server: Server) -> None:
    tenant_id = await a_tenant(server, messages_a_minute=6400)
    await server.record_cache.limits(tenant_id)
    async with limits(nats, server) as one:
        spending = one.spend(tenant_id, MESSAGES)
        with pytest.raises(StopIteration):  # it has not waited for anything
            spending.send(None)
        await until(lambda: (usage := one.peek(tenant_id, MESSAGES)) is not None and usage.used == 1)


async def test_month_is_the_meters_count_and_the_messages_after_it(nats: EmbeddedNats, server: Server) -> None:
    tenant_id, meter = await a_tenant(server, messages_a_month=20), Meter()
    meter.counted = Metered(12, server.clock() - timedelta(seconds=30))
    async with limits(nats, server, meter) as one, limits(nats, server, meter) as two:
        assert await spent([one, two], tenant_id, 30) == 8
        with pytest.raises(RateExceeded) as refused:
            await one.spend(tenant_id, MESSAGES)
        assert (refused.value.limit, refused.value.most, refused.value.used) == (Limit.MESSAGES_A_MONTH, 20, 20)
        _, ends = month_of(server.clock())
        assert refused.value.wait_s == pytest.approx((ends - server.clock()).total_seconds())
        server.clock.pass_s(60)
        meter.counted = Metered(20, server.clock())
        assert await spent([one, two], tenant_id, 30) == 0
        server.clock.now = ends + timedelta(seconds=1)
        meter.counted = None
        assert await spent([one, two], tenant_id, 30) == 20


async def test_notices_at_80_and_100_percent_once_per_window(nats: EmbeddedNats, server: Server) -> None:
    tenant_id = await a_tenant(server, messages_a_minute=10)
    seen: Counter[int] = Counter()
    last: tuple[object, ...] = ()
    async with limits(nats, server) as one:

        async def spend(times: int) -> None:
            nonlocal last
            for _ in range(times):
                await is_spent(one, tenant_id)
                notices = one.notices.get(tenant_id, ())
                seen.update(notice.percent for notice in notices if notice not in last)
                last = notices

        await spend(7)
        assert not seen
        await spend(1)
        assert seen == {80: 1}
        await spend(5)
        assert seen == {80: 1, 100: 1}
        server.clock.pass_s(70)
        await spend(9)
        assert seen == {80: 2, 100: 1}


async def test_idle_tenants_take_no_memory(nats: EmbeddedNats, server: Server) -> None:
    tenant_id = await a_tenant(server, messages_a_minute=10)
    async with limits(nats, server) as one:
        await one.spend(tenant_id, MESSAGES)
        assert len(one) == 1
        for _ in range(SLOTS + 3):
            server.clock.pass_s(SLOT_S)
            await one.renew()
        assert len(one) == 0
