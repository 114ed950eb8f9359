"""The meter counts each stored message once: over crashes, lost answers, two meters at once, failover and month ends."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from pathlib import Path

import pytest

from artcafe.errors import OurFault
from artcafe.fabric.embedded.server import EmbeddedNats
from artcafe.fabric.snapshots import AccountConnector
from artcafe.fabric.stream_copy import copy_stream
from artcafe.fabric.tenant_log import STREAM
from artcafe.model import TenantStatus
from artcafe.observe.clock import now
from artcafe.rules.usage import Metric
from artcafe.services.recount import Verdict
from artcafe.tables.catalog import USAGE_METRICS, Environment
from artcafe.tables.dynamodb.client import DynamoDbClient, Endpoint
from artcafe.tables.dynamodb.engine import DynamoDb
from artcafe.tables.dynamodb.schema import ensure_tables
from artcafe.tables.engine.writes import Add, Assign, ItemKey, Update
from tests.aws import Aws
from tests.services.metering_env import CutTables, MeteredServer, Metering, metering


async def assert_exact(it: Metering) -> None:
    """Recount both months, and compare the rows with what was acknowledged."""
    for month in ("2026-11", "2026-12"):
        result = await it.recount(month)
        assert result.differences == ()
        assert all(each.verdict is Verdict.EQUAL for each in result.compared)
    hours = sorted(it.published)
    assert await it.counted(*[hour.text for hour in hours]) == [it.published[hour] for hour in hours]


async def until_counted(it: Metering, server: MeteredServer) -> None:
    """Let the meter work until nothing is left, as its loop does."""
    await server.meter.look()
    it.clock.pass_s(130)
    await server.meter.look()


async def test_message_is_counted_by_its_hour_day_and_month_with_its_bytes(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        await it.publish(server, 30)
        await server.meter.look()
        assert await it.counted("2026-11-30T23", "2026-11-30", "2026-11", "2026-12") == [30, 30, 30, None]
        log = server.services.fabric.tenant(it.owner.tenant_id).log
        size = sum(len(envelope) for _, _, envelope in await log.all_after(0))
        assert await it.counted("2026-11", metric=Metric.BYTES_STORED) == [size]


async def test_month_end_is_counted_by_the_time_of_each_message(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        for _ in range(8):
            await it.publish(server, 20)
            it.clock.pass_s(30)
        await until_counted(it, server)
        assert await it.counted("2026-11", "2026-12") == [80, 80]
        await assert_exact(it)


async def test_parts_of_agents_and_channels_add_up_to_the_total(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        await it.publish(server, 10)
        await it.publish(server, 5, channel=1)
        await until_counted(it, server)
        rows = await it.values()
        assert rows["2026-11#messages_stored#agent#usr:alice"] == 15
        by_channel = [f"2026-11-30#messages_stored#channel#{channel.id}" for channel in it.channels]
        assert [rows[each] for each in by_channel] == [10, 5]


async def test_gauges_are_measured_with_the_count(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        await it.publish(server, 1)
        await server.meter.look()
        assert await it.counted("2026-11-30T23", metric=Metric.CHANNELS) == [2]
        (stored,) = await it.counted("2026-11", metric=Metric.STORAGE_BYTES)
        assert stored is not None
        assert stored > 0
        await it.publish(server, 500)
        it.clock.pass_s(400)
        await server.meter.look()
        (more,) = await it.counted("2026-12", metric=Metric.STORAGE_BYTES)
        assert more is not None
        assert more > stored


async def test_idle_tenant_is_neither_written_nor_read(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        await it.publish(server, 3)
        for _ in range(5):
            await until_counted(it, server)
        before = await it.usage_rows()
        meter = server.meter.of(it.owner.tenant_id)
        assert meter is not None
        assert not meter.has_work
        for _ in range(5):
            await until_counted(it, server)
        assert await it.usage_rows() == before


async def test_killed_servers_messages_are_counted_by_the_next_one(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        await it.publish(server, 30)
        await server.meter.look()
        await it.publish(server, 30)
        server = await it.restart(server)
        server.services.fabric.tenant(it.owner.tenant_id)
        it.clock.pass_s(41)  # the lease of the killed one
        await until_counted(it, server)
        await assert_exact(it)


async def test_server_that_stops_counts_what_it_stored_and_gives_up_its_lease(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        await it.publish(server, 30)
        await server.meter.release()
        assert await it.counted("2026-11") == [30]
        (row,) = [row for row in await it.usage_rows() if row["metric_id"] == "meter"]
        assert "holder" not in row
        assert "until" not in row


async def test_second_server_leaves_a_tenant_to_its_meter_and_follows_a_dead_one(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (first,) = it.servers
        await it.publish(first, 10)
        await first.meter.look()
        second = await it.start()
        await it.publish(second, 10)
        await second.meter.look()
        assert await it.counted("2026-11") == [10], "the first has the lease"
        it.clock.pass_s(26)
        await first.meter.look()
        assert await it.counted("2026-11") == [20], "the meter counts what others store"
        await it.publish(second, 10)
        await first.kill()
        it.servers.remove(first)
        it.clock.pass_s(41)
        await until_counted(it, second)
        await assert_exact(it)


async def test_tenant_that_nobody_opens_after_a_crash_is_found_and_counted(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        await it.publish(server, 10)
        server = await it.restart(server)
        assert await server.services.fabric.log_ends() == {it.owner.tenant_id: 10}
        assert server.services.fabric.open_tenants() == []
        assert await server.meter.search()
        await until_counted(it, server)
        assert await it.counted("2026-11") == [10]


async def test_search_opens_no_tenant_whose_messages_are_counted(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        await it.publish(server, 10)
        await until_counted(it, server)
        server = await it.restart(server)
        assert await server.meter.search()
        assert await server.meter.search()
        assert server.services.fabric.open_tenants() == []


async def test_loop_counts_after_a_restart_without_any_request(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        await it.publish(server, 10)
        server = await it.restart(server)
        running = it.group.create_task(server.meter.run())
        async with asyncio.timeout(20):
            while await it.counted("2026-11") != [10]:  # noqa: ASYNC110 (a row has no event)
                await asyncio.sleep(0.05)
        running.cancel()


@pytest.mark.parametrize("both_publish", [False, True])
@pytest.mark.promise("12e")
async def test_two_meters_at_once_count_once(tmp_path: Path, *, both_publish: bool) -> None:
    async with metering(tmp_path) as it:
        servers = [*it.servers, await it.start()]
        for _ in range(6):
            for server in servers[: 1 + both_publish]:
                await it.publish(server, 20)
            async with asyncio.TaskGroup() as group:
                for server in servers:
                    group.create_task(server.meter.catch_up(it.owner.tenant_id))
            it.clock.pass_s(20)
        await assert_exact(it)


@pytest.mark.parametrize("is_killed", [False, True], ids=["continues", "is-killed"])
@pytest.mark.promise("12e")
async def test_failure_at_any_point_of_a_write_counts_nothing_twice_and_loses_nothing(tmp_path: Path, *, is_killed: bool) -> None:
    async with metering(tmp_path, engine=CutTables) as it:
        tables = it.tables
        assert isinstance(tables, CutTables)
        (server,) = it.servers
        points, is_reached = 0, True
        while is_reached:
            points += 1
            await it.publish(server, 7, channel=points % 2)
            tables.fails_at = points
            await until_counted(it, server)
            await until_counted(it, server)
            is_reached = tables.fails_at is None
            if is_killed and points % 3 == 0:
                server = await it.restart(server)
                server.services.fabric.tenant(it.owner.tenant_id)
                it.clock.pass_s(41)
        tables.fails_at = None
        assert points > 10
        it.clock.pass_s(41)
        await until_counted(it, server)
        await assert_exact(it)
        rows = await it.values()
        months = [f"{month}#messages_stored" for month in ("2026-11", "2026-12")]
        for month in months:
            assert rows.get(f"{month}#agent#usr:alice") == rows.get(month), "parts count once too"


@pytest.mark.promise("12e")
async def test_scripted_hour_with_30_kills_two_meters_a_failover_and_a_month_end(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    async with metering(tmp_path) as it:
        await it.start()
        kills = 0
        for minute in range(60):
            for server in it.servers:
                await it.publish(server, chance.randrange(40), channel=minute % 2)
            victim = chance.choice(it.servers)
            async with asyncio.TaskGroup() as group:
                for server in it.servers:
                    group.create_task(work(server))
                if minute % 2:
                    await asyncio.sleep(chance.random() * 0.01)
                    await victim.kill()
            if minute % 2:
                it.servers.remove(victim)
                await it.start()
                kills += 1
            it.clock.pass_s(60)
        assert kills == 30
        for server in it.servers:
            server.services.fabric.tenant(it.owner.tenant_id)
            await until_counted(it, server)
        await assert_exact(it)
        total = sum(it.published.values())
        assert sum(value or 0 for value in await it.counted("2026-11", "2026-12")) == total, f"seed {seed}"


async def work(server: MeteredServer) -> None:
    """Let a server look, also if it is being killed."""
    try:
        await server.meter.look()
    except OurFault:
        return


async def test_uncounted_messages_are_not_removed_by_retention(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        await it.publish(server, 5)
        tenant_fabric = server.services.fabric.tenant(it.owner.tenant_id)
        it.clock.pass_s(400 * 86400)
        await server.services.retention.sweep(tenant_fabric)
        state = await tenant_fabric.log.state()
        assert state is not None
        assert state.messages == 5
        await server.meter.catch_up(it.owner.tenant_id)
        await server.services.retention.sweep(tenant_fabric)
        state = await tenant_fabric.log.state()
        assert state is not None
        assert state.messages == 0
        assert await it.counted("2026-11") == [5]


async def test_messages_of_a_deleted_channel_are_counted_first(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        await it.publish(server, 5)
        await it.publish(server, 3, channel=1)
        await server.services.channels.delete(it.owner, it.channels[0].id)
        log = server.services.fabric.tenant(it.owner.tenant_id).log
        assert [seq for seq, _, _ in await log.all_after(0)] == [6, 7, 8]
        assert await it.counted("2026-11") == [8]
        result = await it.recount("2026-11")
        assert [each.verdict for each in result.compared] == [Verdict.REMOVED]
        assert (result.differences, result.is_whole, result.compared[0].removed) == ((), False, 5)


async def test_messages_removed_before_they_were_counted_make_the_row_inexact_by_their_number(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        await it.publish(server, 5)
        await it.publish(server, 3, channel=1)
        await server.services.fabric.purge(it.owner.tenant_id, it.channels[0].id)
        (server := await it.restart(server)).services.fabric.tenant(it.owner.tenant_id)
        await server.meter.look()
        assert [(row.value, row.is_exact, row.uncounted) for row in await it.stored_rows()] == [(3, False, 5)] * 3


async def test_suspended_tenants_messages_are_counted(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        await it.publish(server, 5)
        tenant = server.services.store.tenant(it.owner.tenant_id)
        await tenant.transact([tenant.set_status(TenantStatus.SUSPENDED, it.clock())])
        await server.meter.look()
        assert await it.counted("2026-11") == [5]


async def test_deleted_tenant_has_no_usage_and_gets_none(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        first, second = *it.servers, await it.start()
        await it.publish(second, 5)
        await it.publish(first, 5)
        await first.meter.look()
        await first.services.tenants.delete(it.owner)
        it.clock.pass_s(60)
        await second.meter.look()
        await first.meter.look()
        assert await it.usage_rows() == []


async def test_log_that_began_again_is_counted_from_its_beginning_and_its_hour_is_uncertain(tmp_path: Path) -> None:
    async with metering(tmp_path, at=now()) as it:  # NATS's clock decides which messages are later than the last count
        (server,) = it.servers
        await it.publish(server, 5)
        await server.meter.look()
        await server.services.fabric.tenant(it.owner.tenant_id).log.drop()
        server = await it.restart(server)
        it.clock.pass_s(41)
        await it.publish(server, 3)
        await until_counted(it, server)
        month = it.clock().strftime("%Y-%m")
        assert await it.counted(month) == [8]
        assert {(row.is_exact, row.uncounted) for row in await it.stored_rows() if row.key.part is None} == {(False, None)}


async def copied(it: Metering, folder: Path) -> EmbeddedNats:
    """Copy the tenant's log to another nats-server, as a restore or a move does: a log that continues this one."""
    other = EmbeddedNats(folder / "other-nats", it.accounts)
    await other.start()
    here, there = (AccountConnector([url], it.accounts) for url in (it.nats_url, other.url))
    async with here.connect(it.owner.tenant_id) as source, there.connect(it.owner.tenant_id) as target:
        await copy_stream(source, target, STREAM, 1)
    return other


async def test_restored_log_is_counted_from_the_last_message_that_was_counted(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        await it.publish(server, 10)
        await until_counted(it, server)
        await it.publish(server, 5)
        other = await copied(it, tmp_path)
        try:
            it.nats_url = other.url
            server = await it.restart(server)
            await it.publish(server, 7)
            it.clock.pass_s(41)
            await until_counted(it, server)
            await assert_exact(it)
            assert sum(it.published.values()) == 22
        finally:
            for each in it.servers:
                await each.kill()
            await other.stop()


async def test_messages_counted_and_then_lost_by_a_restore_stay_counted_and_are_named_by_a_recount(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        await it.publish(server, 10)
        other = await copied(it, tmp_path)
        try:
            await it.publish(server, 5)
            await until_counted(it, server)
            it.nats_url = other.url
            server = await it.restart(server)
            it.clock.pass_s(41)
            await it.publish(server, 3)
            await until_counted(it, server)
            assert await it.counted("2026-11", "2026-12") == [15, 3]
            result = await it.recount("2026-11")
            assert [(each.verdict, each.counted_messages, each.found_messages) for each in result.compared] == [
                (Verdict.REMOVED, 15, 10)
            ]
            assert (await it.recount("2026-12")).differences == ()
        finally:
            for each in it.servers:
                await each.kill()
            await other.stop()


async def test_totals_trail_until_the_interval_and_say_how_far_they_go(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        assert await server.meter.as_of(it.owner.tenant_id) == it.clock()
        await it.publish(server, 5)
        assert await server.meter.as_of(it.owner.tenant_id) is None
        await server.meter.look()
        counted_at = it.clock()
        it.clock.pass_s(10)
        assert await server.meter.as_of(it.owner.tenant_id) == it.clock(), "nothing was stored since"
        await it.publish(server, 5)
        await server.meter.look()
        assert await it.counted("2026-11") == [5]
        assert await server.meter.as_of(it.owner.tenant_id) == counted_at
        it.clock.pass_s(16)
        await server.meter.look()
        assert await it.counted("2026-11") == [10]


@pytest.mark.parametrize(
    ("planted", "period"),
    [
        ("2026-11-30T23#messages_stored", "2026-11-30T23"),
        ("2026-11-30T23#bytes_stored", "2026-11-30T23"),
        ("2026-11#messages_stored", "2026-11"),
    ],
)
@pytest.mark.parametrize("amount", [-1, 1])
async def test_recount_finds_a_planted_double_count_and_a_planted_loss(
    tmp_path: Path, planted: str, period: str, amount: int
) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        await it.publish(server, 20)
        await until_counted(it, server)
        assert (await it.recount("2026-11")).differences == ()
        await it.tables.update(Update(USAGE_METRICS, ItemKey(it.owner.tenant_id, planted), [Add("value", amount)]))
        found = (await it.recount("2026-11")).differences
        assert period in {each.period for each in found}
        hours = [each for each in found if each.period == "2026-11-30T23" and each.counted_first_seq is not None]
        assert all((each.counted_first_seq, each.counted_last_seq, each.found_last_seq) == (1, 20, 20) for each in hours)


async def test_recount_finds_messages_that_no_row_counts(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        await it.publish(server, 4)
        await until_counted(it, server)
        await it.publish(server, 6)
        state = await server.services.store.usage(it.owner.tenant_id).meter()
        assert state is not None
        skipped = [Assign("seq", 10), Assign("attributed", 10), Assign("revision", 99)]
        await it.tables.update(Update(USAGE_METRICS, ItemKey(it.owner.tenant_id, "meter"), skipped))
        server = await it.restart(server)
        found = (await it.recount("2026-12", server)).differences
        assert [(each.period, each.counted_messages, each.found_messages) for each in found] == [("2026-12-01T00", None, 6)]
        assert [(each.found_first_seq, each.found_last_seq) for each in found] == [(5, 10)]


async def test_recount_of_old_periods_compares_the_rows_that_are_left(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        await it.publish(server, 4)
        await until_counted(it, server)
        it.clock.pass_s(timedelta(days=40).total_seconds())
        result = await it.recount("2026-11")
        assert [(each.period, each.verdict) for each in result.compared] == [("2026-11-30", Verdict.EQUAL)]
        it.clock.pass_s(timedelta(days=400).total_seconds())
        result = await it.recount("2026-11")
        assert [(each.period, each.verdict) for each in result.compared] == [("2026-11", Verdict.EQUAL)]


async def test_counts_are_exact_on_dynamodb(tmp_path: Path, aws: Aws) -> None:
    endpoint = Endpoint(aws.new_region(), aws.url)
    client = await DynamoDbClient.open(endpoint)
    tables = DynamoDb(client, Environment.DEV)
    await ensure_tables(client, Environment.DEV, make_missing=True)
    try:
        async with metering(tmp_path, tables) as it:
            (server,) = it.servers
            for round_ in range(4):
                await it.publish(server, 25, channel=round_ % 2)
                async with asyncio.TaskGroup() as group:
                    for each in it.servers:
                        group.create_task(each.meter.catch_up(it.owner.tenant_id))
                it.clock.pass_s(45)
                if round_ == 1:
                    server = await it.restart(server)
                    await it.start()
            await until_counted(it, it.servers[-1])
            await assert_exact(it)
    finally:
        await tables.close()
