from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import pytest

from artcafe.errors import Unanswered, Unavailable
from artcafe.model import AgentId, AgentPrincipal, TenantId, UserPrincipal
from artcafe.rules.pages import PageRequest
from artcafe.rules.usage import Metric
from artcafe.services.usage import Bound, UsageItem
from artcafe.services.usage_counters import Count, UsageCounters
from artcafe.tables.catalog import USAGE_METRICS
from artcafe.tables.counting_servers import SERVERS
from artcafe.tables.engine.port import Tables
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import Put, Write
from artcafe.tables.store import Store
from tests.services.service_env import Server

NOW = "2026-11-22T16"


class FailingTables:
    """Tables whose next writes fail: after the write was applied (a lost answer), or before it."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.failures: list[Exception] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._tables, name)

    async def put(self, write: Put) -> None:
        failure = self.failures.pop(0) if self.failures else None
        if not isinstance(failure, Unavailable) or isinstance(failure, Unanswered):
            await self._tables.put(write)
        if failure is not None:
            raise failure

    async def transact(self, writes: list[Write]) -> None:
        failure = self.failures.pop(0) if self.failures else None
        if not isinstance(failure, Unavailable) or isinstance(failure, Unanswered):
            await self._tables.transact(writes)
        if failure is not None:
            raise failure


@pytest.fixture
async def owner(server: Server) -> UserPrincipal:
    return await server.tenant()


@pytest.fixture
def counters(server: Server) -> UsageCounters:
    return UsageCounters(server.store, server.clock)


def agent(owner: UserPrincipal, name: str = "agt_1") -> AgentPrincipal:
    return AgentPrincipal(agent_id=AgentId(name), tenant_id=owner.tenant_id, epoch=0)


async def read(server: Server, owner: UserPrincipal, period: str, metric: Metric) -> UsageItem:
    page = await server.usage.list(owner, server.usage.query(period, metric, None, None), PageRequest())
    (item,) = page.items
    return item


async def value(server: Server, owner: UserPrincipal, period: str, metric: Metric) -> int | None:
    return (await read(server, owner, period, metric)).value


async def parts(server: Server, owner: UserPrincipal, period: str, metric: Metric, by: str) -> dict[str, int | None]:
    page = await server.usage.list(owner, server.usage.query(period, metric, by, None), PageRequest(200))
    return {item.key.part.id: item.value for item in page.items if item.key.part is not None}


async def run_rows(server: Server, owner: UserPrincipal) -> list[Item]:
    items = await server.items(USAGE_METRICS, owner.tenant_id)
    return [item for item in items if str(item["metric_id"]).startswith("run#")]


def at(server: Server, text: str) -> None:
    server.clock.now = datetime.fromisoformat(text)


async def test_counts_are_read_by_hour_day_and_month_after_a_flush(
    server: Server, owner: UserPrincipal, counters: UsageCounters
) -> None:
    counters.count(owner.tenant_id, Metric.API_CALLS, 3)
    assert await value(server, owner, "2026-11", Metric.API_CALLS) is None
    await counters.flush()
    for period in (NOW, "2026-11-22", "2026-11"):
        assert await value(server, owner, period, Metric.API_CALLS) == 3
    assert await value(server, owner, "2026-11-22T15", Metric.API_CALLS) is None


async def test_ended_hour_is_moved_into_the_rows_of_the_metric_once(
    server: Server, owner: UserPrincipal, counters: UsageCounters
) -> None:
    counters.count(owner.tenant_id, Metric.DELIVERIES, 5, agent="agt_1", channel="chn_1")
    await counters.flush()
    assert len(await run_rows(server, owner)) == 2
    at(server, "2026-11-22T17:00:00Z")
    for _ in range(3):
        await counters.flush()
    assert await run_rows(server, owner) == []
    item = await server.item(USAGE_METRICS, owner.tenant_id, f"{NOW}#deliveries")
    assert item is not None
    assert (item["value"], item["name"], item["period"]) == (5, "deliveries", NOW)
    assert await value(server, owner, "2026-11", Metric.DELIVERIES) == 5
    assert await parts(server, owner, "2026-11", Metric.DELIVERIES, "channel") == {"chn_1": 5}
    assert await parts(server, owner, "2026-11-22", Metric.DELIVERIES, "agent") == {"agt_1": 5}


async def test_month_end_separates_the_counts_before_and_after_it(
    server: Server, owner: UserPrincipal, counters: UsageCounters
) -> None:
    at(server, "2026-11-30T23:59:30Z")
    await counters.flush()
    counters.count(owner.tenant_id, Metric.API_CALLS, 2)
    at(server, "2026-12-01T00:00:00Z")
    await counters.flush()
    counters.count(owner.tenant_id, Metric.API_CALLS, 7)
    await counters.flush()
    assert [await value(server, owner, month, Metric.API_CALLS) for month in ("2026-11", "2026-12")] == [2, 7]


async def test_connection_time_is_split_at_the_hour_and_counted_by_agent(
    server: Server, owner: UserPrincipal, counters: UsageCounters
) -> None:
    at(server, "2026-11-22T16:50:00Z")
    counters.connected(agent(owner))
    counters.connected(agent(owner))
    counters.connected(agent(owner, "agt_2"))
    at(server, "2026-11-22T17:00:00.250Z")
    await counters.flush()
    at(server, "2026-11-22T17:05:00Z")
    counters.disconnected(agent(owner))
    at(server, "2026-11-22T17:15:00Z")
    counters.disconnected(agent(owner))
    await counters.flush()
    assert await value(server, owner, NOW, Metric.CONNECTION_MINUTES) == 30
    assert await value(server, owner, "2026-11-22T17", Metric.CONNECTION_MINUTES) == 5 + 15 + 15
    assert await value(server, owner, "2026-11-22", Metric.CONNECTION_MINUTES) == 65
    at(server, "2026-11-22T18:00:00Z")
    await counters.flush()
    assert await parts(server, owner, "2026-11", Metric.CONNECTION_MINUTES, "agent") == {"agt_1": 40, "agt_2": 70}


async def test_peak_is_the_highest_number_of_connections_in_each_period(
    server: Server, owner: UserPrincipal, counters: UsageCounters
) -> None:
    for _ in range(3):
        counters.connected(agent(owner))
    for _ in range(2):
        counters.disconnected(agent(owner))
    at(server, "2026-11-22T17:00:00Z")
    await counters.flush()
    at(server, "2026-11-22T18:00:00Z")
    await counters.flush()
    peaks = [await value(server, owner, period, Metric.PEAK_CONNECTIONS) for period in (NOW, "2026-11-22T17", "2026-11")]
    assert peaks == [3, 1, 3]


async def test_two_servers_add_up(server: Server, owner: UserPrincipal, counters: UsageCounters) -> None:
    other = UsageCounters(server.store, server.clock)
    for each in (counters, other):
        each.count(owner.tenant_id, Metric.MESSAGES_LIVE, 4, agent="agt_1", channel="chn_1")
        await each.flush()
    assert await value(server, owner, "2026-11", Metric.MESSAGES_LIVE) == 8
    at(server, "2026-11-22T17:00:00Z")
    await counters.flush()
    assert await value(server, owner, "2026-11", Metric.MESSAGES_LIVE) == 8
    assert await parts(server, owner, "2026-11", Metric.MESSAGES_LIVE, "agent") == {"agt_1": 8}
    await other.flush()
    assert await run_rows(server, owner) == []
    assert await value(server, owner, "2026-11", Metric.MESSAGES_LIVE) == 8


@pytest.mark.parametrize("failures", range(1, 7))
@pytest.mark.parametrize("failure", [Unanswered("the tables"), Unavailable("the tables")], ids=["lost answer", "not applied"])
async def test_failed_writes_are_repeated_and_count_once(
    server: Server, owner: UserPrincipal, failures: int, failure: Exception
) -> None:
    tables = FailingTables(server.tables)
    counters = UsageCounters(Store(tables), server.clock)  # type: ignore[arg-type]  # the rest is delegated dynamically
    tables.failures = [failure] * failures
    for number in (1, 2, 3):
        counters.count(owner.tenant_id, Metric.API_CALLS, number, agent="agt_1")
        await counters.flush()
    at(server, "2026-11-22T17:00:00Z")
    tables.failures += [failure] * failures
    for _ in range(2 * failures):
        await counters.flush()
    assert await run_rows(server, owner) == []
    assert await value(server, owner, "2026-11", Metric.API_CALLS) == 6
    assert await parts(server, owner, "2026-11", Metric.API_CALLS, "agent") == {"agt_1": 6}


async def test_idle_tenant_costs_no_write(server: Server, owner: UserPrincipal, counters: UsageCounters) -> None:
    counters.connected(agent(owner))
    await counters.flush()
    before = await server.items(USAGE_METRICS, owner.tenant_id)
    server.clock.pass_s(60)
    await counters.flush()
    assert await server.items(USAGE_METRICS, owner.tenant_id) == before
    counters.disconnected(agent(owner))
    for hour in (17, 18):
        at(server, f"2026-11-22T{hour}:00:00Z")
        await counters.flush()
    before = await server.items(USAGE_METRICS, owner.tenant_id)
    at(server, "2026-11-23T09:00:00Z")
    await counters.flush()
    assert await server.items(USAGE_METRICS, owner.tenant_id) == before


async def test_time_of_idle_connections_is_read_each_minute_without_a_write(
    server: Server, owner: UserPrincipal, counters: UsageCounters
) -> None:
    at(server, "2026-11-22T16:10:00Z")
    for name in ("agt_1", "agt_1", "agt_2"):
        counters.connected(agent(owner, name))
    await counters.flush()
    before = await server.items(USAGE_METRICS, owner.tenant_id)
    at(server, "2026-11-22T16:30:00Z")
    await counters.flush()
    assert await server.items(USAGE_METRICS, owner.tenant_id) == before
    for period in (NOW, "2026-11-22", "2026-11"):
        assert await value(server, owner, period, Metric.CONNECTION_MINUTES) == 60
    server.clock.pass_s(45)
    assert await value(server, owner, NOW, Metric.CONNECTION_MINUTES) == 60, "as of the last flush"
    at(server, "2026-11-22T17:00:00Z")
    await counters.flush()
    assert await value(server, owner, NOW, Metric.CONNECTION_MINUTES) == 150
    assert await parts(server, owner, "2026-11", Metric.CONNECTION_MINUTES, "agent") == {"agt_1": 100, "agt_2": 50}
    assert await value(server, owner, "2026-11-22T17", Metric.CONNECTION_MINUTES) == 0


async def test_killed_server_loses_at_most_a_minute_of_idle_connections(
    server: Server, owner: UserPrincipal, counters: UsageCounters
) -> None:
    at(server, "2026-11-22T16:10:00Z")
    counters.connected(agent(owner))
    await counters.flush()
    at(server, "2026-11-22T16:40:00Z")
    await counters.flush()
    del counters
    other = UsageCounters(server.store, server.clock)
    other.count(owner.tenant_id, Metric.API_CALLS)
    at(server, "2026-11-23T18:30:00Z")
    await other.flush()
    assert await value(server, owner, "2026-11-22T16", Metric.CONNECTION_MINUTES) == 30
    assert await server.item(USAGE_METRICS, owner.tenant_id, "2026-11-22T16#connection_minutes") is not None, "moved"


async def test_killed_server_makes_the_periods_of_its_last_minute_inexact(
    server: Server, owner: UserPrincipal, counters: UsageCounters
) -> None:
    counters.count(owner.tenant_id, Metric.API_CALLS, 2)
    await counters.flush()
    counters.count(owner.tenant_id, Metric.API_CALLS, 5)  # lost with the server
    del counters
    other = UsageCounters(server.store, server.clock)
    at(server, "2026-12-01T09:00:00Z")
    await other.flush()
    for period in (NOW, "2026-11-22", "2026-11"):
        item = await read(server, owner, period, Metric.API_CALLS)
        assert (item.value, item.is_exact, item.bound) == (2, False, Bound(servers=1, seconds=60))


async def test_rows_of_a_killed_server_are_moved_by_another_one_a_day_later(
    server: Server, owner: UserPrincipal, counters: UsageCounters
) -> None:
    counters.count(owner.tenant_id, Metric.API_CALLS, 2, agent="agt_1")
    await counters.flush()
    del counters
    other = UsageCounters(server.store, server.clock)
    for time in ("2026-11-23T16:30:00Z", "2026-11-23T18:30:00Z"):
        at(server, time)
        await other.flush()
        other.count(owner.tenant_id, Metric.API_CALLS)
        await other.flush()
    assert [row["period"] for row in await run_rows(server, owner)] == ["2026-11-23T18"], "its own current one"
    assert await value(server, owner, "2026-11", Metric.API_CALLS) == 4
    assert await value(server, owner, NOW, Metric.API_CALLS) == 2
    assert await parts(server, owner, "2026-11", Metric.API_CALLS, "agent") == {"agt_1": 2}


async def test_stopped_server_writes_everything_and_leaves_exact_periods(
    server: Server, owner: UserPrincipal, counters: UsageCounters
) -> None:
    await counters.flush()
    counters.count(owner.tenant_id, Metric.API_CALLS, 5)
    await counters.close()
    assert await server.items(USAGE_METRICS, SERVERS) == []
    item = await read(server, owner, NOW, Metric.API_CALLS)
    assert (item.value, item.is_exact, item.bound) == (5, True, None)


async def test_running_server_makes_the_current_period_inexact_and_the_previous_one_exact(
    server: Server, owner: UserPrincipal, counters: UsageCounters
) -> None:
    counters.count(owner.tenant_id, Metric.API_CALLS)
    await counters.flush()
    assert not (await read(server, owner, NOW, Metric.API_CALLS)).is_exact
    at(server, "2026-11-22T17:00:00Z")
    await counters.flush()
    assert (await read(server, owner, NOW, Metric.API_CALLS)).is_exact


async def test_deleted_tenant_gets_no_rows_again(server: Server, owner: UserPrincipal, counters: UsageCounters) -> None:
    counters.count(owner.tenant_id, Metric.API_CALLS)
    counters.connected(agent(owner))
    await counters.flush()
    await server.tenants.delete(owner)
    counters.count(owner.tenant_id, Metric.API_CALLS)
    for hour in (17, 18):
        await counters.flush()
        at(server, f"2026-11-22T{hour}:00:00Z")
    counters.disconnected(agent(owner))
    await counters.flush()
    assert await server.items(USAGE_METRICS, owner.tenant_id) == []


async def test_hundreds_of_parts_survive_in_rows_of_their_own(
    server: Server, owner: UserPrincipal, counters: UsageCounters
) -> None:
    def source() -> Iterable[Count]:
        return [Count(owner.tenant_id, Metric.REQUESTS, number, f"agt_{number:03}") for number in range(1, 200)]

    counters.add_source(source)
    await counters.flush()
    wanted = {f"agt_{number:03}": number for number in range(1, 200)}
    assert await parts(server, owner, "2026-11", Metric.REQUESTS, "agent") == wanted
    counters._sources.clear()
    at(server, "2026-11-22T17:00:00Z")
    await counters.flush()
    assert await parts(server, owner, "2026-11", Metric.REQUESTS, "agent") == wanted
    assert await value(server, owner, "2026-11", Metric.REQUESTS) == sum(wanted.values())


async def test_counts_of_a_tenant_that_never_existed_are_dropped(server: Server, counters: UsageCounters) -> None:
    counters.count(TenantId("ten_none"), Metric.API_CALLS)
    await counters.flush()
    assert await server.items(USAGE_METRICS, "ten_none") == []


async def test_clock_set_back_counts_no_negative_time(server: Server, owner: UserPrincipal, counters: UsageCounters) -> None:
    counters.connected(agent(owner))
    server.clock.now -= timedelta(minutes=10)
    counters.disconnected(agent(owner))
    counters.connected(agent(owner))
    server.clock.now += timedelta(minutes=5)
    counters.disconnected(agent(owner))
    await counters.flush()
    assert await value(server, owner, "2026-11", Metric.CONNECTION_MINUTES) == 5
    assert await parts(server, owner, "2026-11", Metric.CONNECTION_MINUTES, "agent") == {"agt_1": 5}
