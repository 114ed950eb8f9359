from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from artcafe.errors import OutcomeUnknown, Unavailable
from artcafe.fabric import storage_probe
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.process import some_free_port
from artcafe.fabric.fabric import BUSY_S, IDLE_S, MAX_UNUSED, SWEEP_S, Fabric
from artcafe.model import Cursor, TenantId
from artcafe.rules import subjects
from tests.fabric.nats_clients import BOUND_S, connected
from tests.fabric.nats_env import A, Nats, Writer, a_tenant, until
from tests.fabric.test_channel_readers import Sink


@asynccontextmanager
async def running(
    nats: Nats, *, idle_s: float = IDLE_S, sweep_s: float = SWEEP_S, max_unused: int = MAX_UNUSED, busy_s: float = BUSY_S
) -> AsyncIterator[Fabric]:
    """Run a server's fabric; fail if it does not end after `close`."""
    fabric = Fabric([nats.url], nats.accounts, idle_s=idle_s, sweep_s=sweep_s, max_unused=max_unused, busy_s=busy_s)
    async with asyncio.TaskGroup() as group:
        group.create_task(fabric.run())
        await fabric.wait_up(BOUND_S)
        try:
            yield fabric
        finally:
            fabric.close()


def writer_of(fabric: Fabric, tenant: TenantId) -> Writer:
    tenant_fabric = fabric.tenant(tenant)
    return Writer(tenant_fabric.writer, tenant_fabric.log)


async def test_equal_channel_ids_in_two_tenants_are_two_channels(nats: Nats) -> None:
    one, other = a_tenant(), a_tenant()
    async with running(nats) as fabric:
        sinks = {tenant: Sink() for tenant in (one, other)}
        for tenant, sink in sinks.items():
            await fabric.tenant(tenant).connection.wait_up()
            await fabric.tenant(tenant).readers.follow(A, sink)
        await writer_of(fabric, one).publish(b'"one"', "k")
        await writer_of(fabric, other).publish(b'"other"', "k")
        await writer_of(fabric, other).publish(b'"more"')
        await until(lambda: len(sinks[one].got) == 1 and len(sinks[other].got) == 2)

        assert await writer_of(fabric, one).stored() == [b'"one"']
        assert await writer_of(fabric, other).stored() == [b'"other"', b'"more"']
        assert (await fabric.position(one)).epoch != (await fabric.position(other)).epoch


async def test_position_is_the_end_of_the_log_and_empty_before_it_exists(nats: Nats) -> None:
    tenant = a_tenant()
    async with running(nats) as fabric:
        assert await fabric.position(tenant) == Cursor()
        await writer_of(fabric, tenant).publish(1)
        await writer_of(fabric, tenant).publish(2)

        assert await fabric.position(tenant) == Cursor(epoch=fabric.tenant(tenant).log.epoch, seq=2)


async def test_purge_empties_one_channel(nats: Nats) -> None:
    tenant = a_tenant()
    async with running(nats) as fabric:
        await fabric.purge(tenant, A)
        await writer_of(fabric, tenant).publish(1)
        await fabric.purge(tenant, A)

        assert await writer_of(fabric, tenant).stored() == []


async def test_dropped_tenant_leaves_nothing_and_can_be_created_again(nats: Nats) -> None:
    tenant, bystander = a_tenant(), a_tenant()
    async with running(nats) as fabric:
        await writer_of(fabric, bystander).publish(1)
        await writer_of(fabric, tenant).publish(1)
        before = await fabric.position(tenant)

        await fabric.drop(tenant)
        assert fabric.peek(tenant) is None
        await fabric.drop(tenant)

        assert await fabric.position(tenant) == Cursor()
        await writer_of(fabric, tenant).publish(1)
        assert (await fabric.position(tenant)).epoch not in {before.epoch, None}
        assert await writer_of(fabric, bystander).stored() == [b"1"]


async def test_publishes_in_flight_do_not_recreate_a_dropped_tenant(nats: Nats) -> None:
    tenant = a_tenant()
    async with running(nats) as fabric:
        writer = writer_of(fabric, tenant)
        await writer.publish(0)
        flying = [writer.submit(number, f"k{number}") for number in range(2000)]
        await fabric.drop(tenant)
        await until(lambda: all(one.done() for one in flying))
        assert all(one.exception() or one.result() for one in flying)

        assert await fabric.position(tenant) == Cursor()


async def test_idle_tenant_is_closed_and_a_followed_one_stays_open(nats: Nats) -> None:
    used, idle = a_tenant(), a_tenant()
    async with running(nats, idle_s=0.05, sweep_s=0.01) as fabric:
        sink = Sink()
        await fabric.tenant(used).connection.wait_up()
        reader = await fabric.tenant(used).readers.follow(A, sink)
        followed = fabric.tenant(used)
        gone = fabric.tenant(idle)
        await gone.connection.wait_up()
        await until(gone.leave.is_set)
        await until(lambda: not gone.connection.is_up)
        assert not followed.leave.is_set()
        assert fabric.tenant(idle) is not gone
        await writer_of(fabric, idle).publish(1)

        await followed.readers.unfollow(reader)
        await until(followed.leave.is_set)


async def test_unused_tenants_are_limited_and_the_longest_unused_is_closed_first(nats: Nats) -> None:
    async with running(nats, max_unused=3, busy_s=0) as fabric:
        used = fabric.tenant(a_tenant())
        await used.connection.wait_up()
        reader = await used.readers.follow(A, Sink())
        unused = [fabric.tenant(a_tenant()) for _ in range(5)]
        assert [tenant_fabric.leave.is_set() for tenant_fabric in unused] == [True, True, False, False, False]
        fabric.peek(unused[2].tenant_id)
        fabric.tenant(a_tenant())
        assert [tenant_fabric.leave.is_set() for tenant_fabric in unused] == [True, True, False, True, False]
        assert not used.leave.is_set()
        await used.readers.unfollow(reader)


async def test_recently_used_tenant_is_not_closed_for_one_that_is_not_needed(nats: Nats) -> None:
    async with running(nats, max_unused=2, busy_s=60) as fabric:
        busy = [fabric.tenant(a_tenant(), is_needed=False) for _ in range(2)]
        with pytest.raises(Unavailable):
            fabric.tenant(a_tenant(), is_needed=False)
        assert fabric.tenant(busy[0].tenant_id, is_needed=False) is busy[0]
        fabric.tenant(a_tenant())
        assert not any(tenant_fabric.leave.is_set() for tenant_fabric in busy)


async def test_without_nats_wait_up_raises_unavailable_and_close_ends_the_fabric() -> None:
    fabric = Fabric([f"nats://127.0.0.1:{some_free_port()}"], Accounts(bytes(range(32)), "dev"))
    with pytest.raises(Unavailable):
        fabric.tenant(a_tenant())
    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
        group.create_task(fabric.run())
        with pytest.raises(Unavailable):
            await fabric.wait_up(0.2)
        with pytest.raises(Unavailable):
            await fabric.check_storage(0.4)  # of which it waits a half for the connection
        fabric.tenant(a_tenant())
        fabric.close()
        with pytest.raises(Unavailable):
            fabric.tenant(a_tenant())


async def test_storage_check_stores_a_message_and_fails_without_an_answer(nats: Nats) -> None:
    async with nats.proxy() as proxy:
        fabric = Fabric([proxy.url], nats.accounts)
        async with asyncio.TaskGroup() as group:
            group.create_task(fabric.run())
            await fabric.wait_up(BOUND_S)
            for _ in range(2):
                await fabric.check_storage(BOUND_S)
            async with connected(nats.url, nats.accounts.platform_user()) as platform:
                state = (await platform.jetstream().stream_info(storage_probe.STREAM)).state
            assert (state.messages, state.last_seq) == (1, 2), "it keeps only the newest"
            proxy.stick()
            with pytest.raises(TimeoutError):
                await fabric.check_storage(1)
            fabric.close()


async def test_unforeseen_failure_of_a_group_gets_an_outcome_and_the_writer_continues(nats: Nats) -> None:
    one, other = a_tenant(), a_tenant()
    async with running(nats) as fabric:
        # An envelope of another program: a repeat cannot be compared with it, and raises.
        for _ in range(2):
            told = fabric.tenant(one).writer.submit(subjects.stored(A), b"garbage", "msg_1", "key")
        await until(told.done)
        assert isinstance(told.exception(), OutcomeUnknown)
        assert fabric.tenant(one).writer.supervisor.failures == 1

        await writer_of(fabric, one).publish(1)
        await writer_of(fabric, other).publish(2)
        assert await writer_of(fabric, other).stored() == [b"2"]


async def test_tenant_whose_writer_fails_is_replaced_and_its_failure_is_notified(nats: Nats) -> None:
    one, other = a_tenant(), a_tenant()
    async with running(nats) as fabric:
        failed: list[TenantId] = []
        fabric.on_tenant_failure(failed.append)
        unhashable = cast("str", ["key"])  # an impossible argument, to end the loop itself
        fabric.tenant(one).writer.submit(subjects.stored(A), b"{}", "msg_1", unhashable).cancel()
        await until(lambda: failed == [one])

        assert fabric.peek(one) is None
        await writer_of(fabric, one).publish(1)
        await writer_of(fabric, other).publish(2)
        assert await writer_of(fabric, other).stored() == [b"2"]
