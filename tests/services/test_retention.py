"""Retention on real tables and a real log. tests/gateway/test_gaps.py tests the gaps that agents get."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec import Raw

from artcafe.errors import QuotaFull, Unavailable
from artcafe.fabric.tenant_log import DEDUPE_WINDOW_S
from artcafe.model import Channel, Cursor, Role, TenantChange, UserId, UserPrincipal
from artcafe.observe.clock import now
from artcafe.plan_catalogue import shipped
from artcafe.rules.plans import Limit
from artcafe.services.retention import Retention
from artcafe.tables.catalog import TENANTS
from artcafe.tables.engine.writes import Assign, ItemKey, Update
from artcafe.tables.store import Store
from artcafe.tables.tenant_store import TenantStore
from artcafe.wire.frames import Publish
from tests.fabric.nats_env import within
from tests.gateway.gateway_app import GatewayApp, gateway_app, until

PLAN_S = shipped().limit_of(None, Limit.RETENTION_S)


def retention(it: GatewayApp, ahead_s: float, *, period_s: float = 60) -> Retention:
    """Return the retention of a server whose clock is ahead."""
    ahead = timedelta(seconds=ahead_s)
    return Retention(Store(it.tables), it.services.fabric, lambda: now() + ahead, it.services.plans, period_s=period_s)


def rows(it: GatewayApp) -> TenantStore:
    return Store(it.tables).tenant(it.owner.tenant_id)


async def sweep(it: GatewayApp, ahead_s: float) -> None:
    await retention(it, ahead_s).sweep(it.services.fabric.tenant(it.owner.tenant_id))


async def kept(it: GatewayApp, channel: Channel | None = None) -> list[int]:
    return [one.seq for one in await it.services.fabric.tenant(it.owner.tenant_id).log.after((channel or it.channel).id, 0)]


async def limit(it: GatewayApp, **own: int) -> None:
    await it.tables.update(Update(TENANTS, ItemKey(it.owner.tenant_id), [Assign("limits", own)]))


async def fill(it: GatewayApp) -> None:
    """Publish 100 kB."""
    for _ in range(100):
        await it.publish(b'"%b"' % (b"x" * 1000))


async def at(it: GatewayApp, seq: int) -> Cursor:
    state = await it.services.fabric.tenant(it.owner.tenant_id).log.state()
    assert state is not None
    return Cursor(epoch=state.epoch, seq=seq)


async def test_message_is_kept_as_long_as_its_idempotency_key(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        short = await it.services.channels.create(it.owner, name="short", retention_s=60)
        await it.publish(b"1", short)
        await sweep(it, DEDUPE_WINDOW_S - 10)
        assert await kept(it, short) == [1], "NATS knows keys from the messages where it starts anew"
        await sweep(it, DEDUPE_WINDOW_S + 10)
        assert await kept(it, short) == []


async def test_sweep_reads_a_tenant_once_and_again_after_a_change(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        short = await it.services.channels.create(it.owner, name="short", retention_s=7200)
        await it.publish(b"1", short)
        sweeping, tenant_fabric = retention(it, 3610), it.services.fabric.tenant(it.owner.tenant_id)
        await sweeping.sweep(tenant_fabric)
        await it.services.channels.update(it.owner, short.id, retention_s=3600)
        await sweeping.sweep(tenant_fabric)
        assert await kept(it, short) == [1]
        sweeping.on_change(TenantChange(tenant_id=it.owner.tenant_id, channels=(short.id,)))
        await sweeping.sweep(tenant_fabric)
        assert await kept(it, short) == []


@pytest.mark.promise("8a")
async def test_each_channel_has_its_own_retention(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        short = await it.services.channels.create(it.owner, name="short", retention_s=3600)
        empty = await it.services.channels.create(it.owner, name="empty", retention_s=3600)
        for _ in range(2):
            await it.publish(b"1")
            await it.publish(b"1", short)

        await sweep(it, 3590)
        assert (await kept(it), await kept(it, short)) == ([1, 3], [2, 4])
        await sweep(it, 3610)
        assert (await kept(it), await kept(it, short)) == ([1, 3], [])
        assert await rows(it).removed_to(short.id) == await at(it, 4)
        assert await rows(it).removed_to(it.channel.id) == Cursor()

        await it.publish(b"1", short)
        await sweep(it, PLAN_S + 10)
        assert (await kept(it), await kept(it, short)) == ([], [])
        assert await rows(it).removed_to(it.channel.id) == await at(it, 3)
        assert await rows(it).removed_to(empty.id) == Cursor()


async def test_lower_limit_of_a_plan_applies_to_stored_messages(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        long = await it.services.channels.create(it.owner, name="long", retention_s=PLAN_S)
        await it.publish(b"1", long)
        await sweep(it, 1000)
        assert await kept(it, long) == [1]
        await limit(it, retention_s=900)
        await sweep(it, 1000)
        assert await kept(it, long) == []


async def test_next_server_completes_a_removal_that_was_recorded_but_not_done(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        for _ in range(3):
            await it.publish(b"1")
        assert await rows(it).note_removed(it.channel.id, await at(it, 3))
        await sweep(it, PLAN_S + 10)

        assert await kept(it) == []
        assert await rows(it).removed_to(it.channel.id) == await at(it, 3)


async def test_concurrent_sweeps_of_several_servers_never_move_the_position_back(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        others = [await it.services.channels.create(it.owner, name=f"channel {number}") for number in range(5)]
        for channel in (it.channel, *others):
            for _ in range(3):
                await it.publish(b"1", channel)
        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(sweep(it, PLAN_S + 10))

        assert [await kept(it, channel) for channel in others] == [[]] * 5
        assert await rows(it).removed_to(others[-1].id) == await at(it, 18)
        await it.publish(b"1")
        await sweep(it, 0)
        assert await kept(it) == [19]


async def test_removed_position_of_one_log_does_not_apply_to_the_next(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        for _ in range(3):
            await it.publish(b"1")
        await sweep(it, PLAN_S + 10)
        log = it.services.fabric.tenant(it.owner.tenant_id).log
        await log.drop()
        await it.publish(b"1")
        await sweep(it, 0)
        assert await kept(it) == [1]
        await sweep(it, PLAN_S + 10)
        assert (await kept(it), await rows(it).removed_to(it.channel.id)) == ([], await at(it, 1))


@pytest.mark.promise("8d")
async def test_full_quota_refuses_publishes_without_dropping_messages_until_the_plan_allows_more(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        await limit(it, storage_bytes=20_000)
        with pytest.raises(QuotaFull):
            await fill(it)
        stored = await kept(it)
        assert 10 < len(stored) < 20
        await limit(it, storage_bytes=40_000)
        await sweep(it, 0)
        await it.publish(b"1")
        await limit(it, storage_bytes=1000)
        await sweep(it, 0)
        with pytest.raises(QuotaFull):
            await it.publish(b"1")
        assert await kept(it) == [*stored, stored[-1] + 1]
        await sweep(it, PLAN_S + 10)
        await it.publish(b"1")


async def test_changed_limit_of_storage_reaches_an_open_log_without_a_sweep(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        await it.publish(b"1")
        log, notify = it.services.fabric.tenant(it.owner.tenant_id).log, it.services.invalidation.notify
        async with asyncio.TaskGroup() as group:
            following = group.create_task(it.services.retention.follow_limits())
            await limit(it, storage_bytes=5000)
            notify(it.owner.tenant_id)
            await until(lambda: log.max_bytes == 5000)
            await limit(it, storage_bytes=100)
            notify(it.owner.tenant_id)
            await until(lambda: log.max_bytes == 100)
            following.cancel()
        assert await kept(it) == [1], "a lower limit removes nothing"
        with pytest.raises(QuotaFull) as full:
            await it.publish(b"1")
        assert (full.value.limit, full.value.most) == ("storage_bytes", 100)


async def test_sweep_of_a_tenant_without_messages_creates_no_log(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        tenant_fabric = it.services.fabric.tenant(it.owner.tenant_id)
        await tenant_fabric.connection.wait_up()
        await sweep(it, PLAN_S + 10)
        assert await tenant_fabric.log.state() is None


async def test_loop_sweeps_open_tenants_and_survives_a_time_without_nats(tmp_path: Path) -> None:
    async with gateway_app(tmp_path, has_proxy=True) as it:
        assert it.proxy is not None
        tenant_fabric = it.services.fabric.tenant(it.owner.tenant_id)
        await it.publish(b"1")
        it.proxy.is_open = False
        it.proxy.cut()
        await until(lambda: not tenant_fabric.connection.is_up)
        with pytest.raises(Unavailable):
            await within(sweep(it, PLAN_S + 10))

        async with asyncio.TaskGroup() as group:
            running = group.create_task(retention(it, PLAN_S + 10, period_s=0.01).run())
            used_at = tenant_fabric.used_at
            it.proxy.is_open = True
            await tenant_fabric.connection.wait_up()
            async with asyncio.timeout(20):
                while await kept_quietly(it):  # noqa: ASYNC110 (the log has no event for removals)
                    await asyncio.sleep(0.01)
            assert tenant_fabric.used_at == used_at  # Unused, so it may be closed.
            running.cancel()


async def test_tenant_is_swept_again_when_its_oldest_message_expires_or_its_retention_changes(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        short = await it.services.channels.create(it.owner, name="short", retention_s=1000)
        tenant_id, tenant_fabric, ahead_s = it.owner.tenant_id, it.services.fabric.tenant(it.owner.tenant_id), 0.0
        sweeping = Retention(Store(it.tables), it.services.fabric, lambda: now() + timedelta(seconds=ahead_s), it.services.plans)
        assert not sweeping.is_quiet(tenant_id)
        await it.publish(b"1")
        await it.publish(b"2", short)
        await sweeping.sweep(tenant_fabric)
        assert sweeping.is_quiet(tenant_id)

        ahead_s = 990
        assert sweeping.is_quiet(tenant_id)
        ahead_s = 1010
        assert not sweeping.is_quiet(tenant_id)
        await sweeping.sweep(tenant_fabric)
        assert await kept(it, short) == []
        assert not sweeping.is_quiet(tenant_id), "the remaining message may be in a channel with the shortest retention"

        await it.services.fabric.purge(tenant_id, it.channel.id)
        await sweeping.sweep(tenant_fabric)
        assert sweeping.is_quiet(tenant_id)
        sweeping.on_change(TenantChange(tenant_id=tenant_id, is_whole=True))
        assert not sweeping.is_quiet(tenant_id)


async def kept_quietly(it: GatewayApp) -> bool:
    """Return whether the tenant is open, without using it."""
    (tenant_fabric,) = it.services.fabric.open_tenants()
    return bool(await tenant_fabric.log.after(it.channel.id, 0))


async def test_retention_beyond_the_calendar_removes_nothing_and_does_not_block_the_others(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        await it.publish(b"1")
        await limit(it, retention_s=2**53)
        bob = UserId("bob")
        other = UserPrincipal(user_id=bob, tenant_id=(await it.services.tenants.create(bob, "Bob's")).id, role=Role.OWNER)
        channel = await it.services.channels.create(other, name="orders")
        await it.services.messaging.publish(other, channel.id, Publish(channel.id, Raw(b"1")))
        log = it.services.fabric.tenant(other.tenant_id).log
        sweeping = retention(it, PLAN_S + 10, period_s=0.01)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            running = group.create_task(sweeping.run())
            while await log.after(channel.id, 0):  # noqa: ASYNC110 (the log has no event for removals)
                await asyncio.sleep(0.01)
            running.cancel()
        assert sweeping.supervisor.failures == 0
        assert await kept(it) == [1]
