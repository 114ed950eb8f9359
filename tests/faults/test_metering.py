"""kill -9 of the servers that meter a tenant, at any moment: every stored message is counted once, in messages and bytes."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from artcafe.data_dir import read_secret
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.fabric import Fabric
from artcafe.model import TenantId
from artcafe.observe.clock import now
from artcafe.rules.secrets import derive
from artcafe.rules.usage import Metric, PeriodKind, period_of
from artcafe.services.meter import Meter
from artcafe.services.recount import Recount, RecountResult
from artcafe.tables.catalog import USAGE_METRICS, Environment
from artcafe.tables.engine.writes import Add, ItemKey, Update
from artcafe.tables.sqlite.engine import Sqlite
from artcafe.tables.store import Store
from artcafe.tables.usage_rows import UsageKey
from tests.faults.checker import judge
from tests.faults.conftest import SEED, Report
from tests.faults.load import Load, running_on
from tests.fleet import Fleet, running_fleet
from tests.platform import Platform, running

KILLS: Final = 30
METER_S: Final = 0.5
"""The interval of counting: a kill then hits the meter at work."""
COUNTED_S: Final = 60.0
"""Totals trail by at most this."""
WAIT_S: Final = 10.0


@dataclass
class Auditor:
    """An independent reader of the tables and NATS of a platform, in this process."""

    tables: Sqlite
    fabric: Fabric
    tenant_id: TenantId

    async def counted(self) -> int:
        """Return the total of the tenant's stored messages over all months with a row."""
        usage = Store(self.tables).usage(self.tenant_id)
        months = {period_of(now(), PeriodKind.MONTH), period_of(now().replace(day=1), PeriodKind.MONTH)}
        rows = await usage.get([UsageKey(month, Metric.MESSAGES_STORED) for month in months], now())
        return sum(row.value for row in rows if row is not None)

    async def stored(self) -> int:
        """Return the number of messages in the tenant's log."""
        state = await (await self.fabric.tenant(self.tenant_id).connected_log()).state()
        assert state is not None
        assert state.is_complete, "nothing was removed"
        return state.messages

    async def recount(self) -> RecountResult:
        """Recount the present month."""
        store = Store(self.tables)
        meter = Meter(store, self.fabric, now, interval_s=METER_S)
        return await Recount(store, self.fabric, meter, now).recount(self.tenant_id, period_of(now(), PeriodKind.MONTH))

    async def wait_counted(self) -> None:
        """Wait until the servers have counted everything by themselves. Fail after a minute."""
        stored = await self.stored()
        async with asyncio.timeout(COUNTED_S):
            while await self.counted() < stored:  # noqa: ASYNC110 (another process's row has no event)
                await asyncio.sleep(0.2)

    async def check(self) -> str:
        """Check that rows and log agree, and that the check finds a planted double count and a planted loss."""
        await self.wait_counted()
        result = await self.recount()
        assert result.differences == ()
        assert result.is_whole
        assert await self.counted() == await self.stored() == result.messages_read
        size = sum(each.counted_bytes or 0 for each in result.compared)
        hour = ItemKey(self.tenant_id, f"{result.compared[0].period}#messages_stored")
        for planted in (1, -2):
            await self.tables.update(Update(USAGE_METRICS, hour, [Add("value", planted)]))
            assert (await self.recount()).differences != (), f"{planted} planted"
        return f"{result.messages_read} messages, {size} bytes, difference 0"


@asynccontextmanager
async def auditing(secret: Path, nats_url: str, tables: Path, tenant: str) -> AsyncIterator[Auditor]:
    """Open the tables and NATS of a running platform."""
    engine = await Sqlite.open(tables, Environment.PROD)
    fabric = Fabric([nats_url], Accounts(derive(read_secret(secret), "nats"), "prod"))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fabric.run())
            try:
                await fabric.wait_up(WAIT_S)
                yield Auditor(engine, fabric, TenantId(tenant))
            finally:
                fabric.close()
    finally:
        await engine.close()


@pytest.fixture
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running(tmp_path_factory.mktemp("platform"), ["--meter-s", str(METER_S)]) as platform:
        yield platform


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet"), flags=["--meter-s", str(METER_S)]) as fleet:
        yield fleet


async def kill_at_any_moment(load: Load, victims: list[Platform], kills: int) -> None:
    """Kill a server again and again, in its turn, at a random moment; start it again."""
    chance = random.Random(f"{SEED} metering")
    for number in range(kills):
        await load.acknowledged(chance.randrange(1, 300))
        await asyncio.sleep(chance.random() * METER_S)
        victim = victims[number % len(victims)]
        victim.kill()
        await asyncio.to_thread(victim.start)


def nats_url(platform: Platform) -> str:
    return f"nats://127.0.0.1:{json.loads((platform.data / 'nats' / 'nats.conf').read_text())['port']}"


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_meter_killed_at_30_moments_counts_each_message_once(platform: Platform, report: Report) -> None:
    async with running_on(platform) as load:
        await kill_at_any_moment(load, [platform], KILLS)
        verdict = judge(await load.end())
        async with auditing(platform.secret, nats_url(platform), platform.data / "tables.sqlite", load.cast.tenant) as auditor:
            found = await auditor.check()
    report(f"{KILLS} × kill -9 of the meter: {found}", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_meter_that_dies_is_followed_by_the_other_server_and_both_count_each_message_once(
    fleet: Fleet, report: Report
) -> None:
    async with fleet.balanced(), running_on(fleet) as load:
        await kill_at_any_moment(load, fleet.servers, KILLS)
        verdict = judge(await load.end())
        async with auditing(fleet.secret, fleet.nats.urls, fleet.tables, load.cast.tenant) as auditor:
            found = await auditor.check()
    report(f"{KILLS} × kill -9 of one of two meters: {found}", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_messages_of_a_killed_server_are_counted_within_a_minute_of_its_restart(platform: Platform) -> None:
    async with running_on(platform) as load:
        await load.acknowledged(300)
        await load.end_of_publishing()
        platform.kill()
    await asyncio.to_thread(platform.start)
    async with auditing(platform.secret, nats_url(platform), platform.data / "tables.sqlite", load.cast.tenant) as auditor:
        await auditor.wait_counted()
        assert (await auditor.recount()).differences == ()
