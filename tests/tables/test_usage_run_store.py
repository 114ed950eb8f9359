"""What servers count in memory, on every engine: each row is written and moved into the metrics once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from artcafe.model import Tenant, TenantId
from artcafe.rules.usage import Attribution, Metric, Part, Period
from artcafe.tables.counting_servers import CountingServer
from artcafe.tables.engine.port import Tables
from artcafe.tables.store import Store
from artcafe.tables.usage_rows import UsageKey
from artcafe.tables.usage_run_store import MAX_PARTS, CountKey, RunRow

NOW = datetime(2026, 11, 30, 23, 59, 40, tzinfo=UTC)
HOUR = Period("2026-11-30T23")
ACME = TenantId("ten_a")
CALLS, PEAK = CountKey(Metric.API_CALLS), CountKey(Metric.PEAK_CONNECTIONS)


@pytest.fixture
async def store(tables: Tables) -> Store:
    store = Store(tables)
    await store.transact([store.insert_tenant(Tenant(id=ACME, name="Acme", created_at=NOW, updated_at=NOW))])
    return store


def row(version: int, calls: int, *, is_new: bool = False, peak: int = 3) -> RunRow:
    return RunRow(HOUR, "srv_1", 0, version, {CALLS: calls, PEAK: peak}, is_new)


async def values(store: Store, metric: Metric, part: Part | None = None) -> list[int | None]:
    """Return a metric in the month, the day and the hour."""
    found = await store.usage(ACME).get([UsageKey(period, metric, part) for period in HOUR.enclosing()], NOW)
    return [None if each is None else each.value for each in found]


async def test_row_is_replaced_by_newer_versions_only(store: Store) -> None:
    runs = store.usage_runs(ACME)
    assert await runs.write(row(1, 5, is_new=True), NOW)
    assert await runs.write(row(3, 9), NOW)
    assert await runs.write(row(2, 7), NOW), "an older version that arrives late"
    (found,) = await runs.in_period(Period("2026-11"))
    assert (found.version, found.counts[CALLS]) == (3, 9)


async def test_first_write_may_be_repeated_after_a_lost_answer(store: Store) -> None:
    runs = store.usage_runs(ACME)
    assert await runs.write(row(1, 5, is_new=True), NOW)
    assert await runs.write(row(2, 8, is_new=True), NOW), "it is not known to be created"
    (found,) = await runs.in_period(HOUR)
    assert found.counts[CALLS] == 8


async def test_row_is_moved_into_the_metrics_once(store: Store) -> None:
    runs = store.usage_runs(ACME)
    assert await runs.write(row(1, 5, is_new=True), NOW)
    for _ in range(2):
        await runs.add_to_metrics(row(1, 5), NOW)
    assert await runs.in_period(HOUR) == []
    assert await values(store, Metric.API_CALLS) == [5, 5, 5]
    assert await values(store, Metric.PEAK_CONNECTIONS) == [3, 3, 3]


async def test_maximum_is_raised_and_never_lowered(store: Store) -> None:
    runs = store.usage_runs(ACME)
    for peak in (3, 7, 2):
        assert await runs.write(row(1, 1, is_new=True, peak=peak), NOW)
        await runs.add_to_metrics(row(1, 1, peak=peak), NOW)
    assert await values(store, Metric.PEAK_CONNECTIONS) == [7, 7, 7]
    assert await values(store, Metric.API_CALLS) == [3, 3, 3]


async def test_full_row_of_parts_fits_one_transaction(store: Store) -> None:
    runs = store.usage_runs(ACME)
    parts = [Part(Attribution.AGENT, f"agt_{number:02}#~%é") for number in range(MAX_PARTS)]
    full = RunRow(HOUR, "srv_1", 1, 1, {CountKey(Metric.REQUESTS, part): 2 for part in parts}, is_new=True)
    assert await runs.write(full, NOW)
    assert [each.counts for each in await runs.in_period(HOUR)] == [full.counts]
    await runs.add_to_metrics(full, NOW)
    assert await values(store, Metric.REQUESTS, parts[0]) == await values(store, Metric.REQUESTS, parts[-1])
    assert sorted(filter(None, await values(store, Metric.REQUESTS, parts[0]))) == [2, 2], "of the day and the month"


async def test_period_finds_the_rows_of_its_hours_only(store: Store) -> None:
    runs = store.usage_runs(ACME)
    assert await runs.write(row(1, 5, is_new=True), NOW)
    for period in ("2026-11", "2026-11-30", "2026-11-30T23"):
        assert len(await runs.in_period(Period(period))) == 1
    for period in ("2026-12", "2026-11-29", "2026-11-30T22"):
        assert await runs.in_period(Period(period)) == []


async def test_unknown_tenant_gets_no_row(store: Store) -> None:
    runs = store.usage_runs(TenantId("ten_none"))
    assert not await runs.write(row(1, 5, is_new=True), NOW)
    await runs.add_to_metrics(row(1, 5), NOW)
    assert await runs.in_period(HOUR) == []
    assert await store.usage(TenantId("ten_none")).get([UsageKey(HOUR, Metric.PEAK_CONNECTIONS)], NOW) == [None]


async def test_servers_are_listed_until_they_end(store: Store) -> None:
    servers = store.counting_servers()
    for run in ("srv_1", "srv_2"):
        await servers.note_written(run, NOW)
    later = NOW + timedelta(minutes=1)
    await servers.note_written("srv_2", later)
    for _ in range(2):
        await servers.end("srv_1")
    assert await servers.all() == [CountingServer("srv_2", later)]
