"""The store of usage on every engine: what is counted is counted once, also where a write is repeated or two meters write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.model import Cursor, Epoch, Tenant, TenantId
from artcafe.rules.pages import PageRequest
from artcafe.rules.usage import Attribution, Metric, Part, Period, PeriodKind, period_of
from artcafe.tables.catalog import USAGE_METRICS
from artcafe.tables.engine.port import Tables
from artcafe.tables.store import Store
from artcafe.tables.usage_rows import Lease, MeterState, UsageKey, usage_key_of
from artcafe.tables.usage_store import GaugeValue, Inexact, StoredCount, UsageStore

NOW = datetime(2026, 11, 30, 23, 59, 40, tzinfo=UTC)
HOUR, NEXT_HOUR = Period("2026-11-30T23"), Period("2026-12-01T00")
ACME = TenantId("ten_a")
ONE = {HOUR: StoredCount(messages=2, size_bytes=300, first_seq=1, last_seq=2)}


@pytest.fixture
async def store(tables: Tables) -> Store:
    store = Store(tables)
    await store.transact([store.insert_tenant(Tenant(id=ACME, name="Acme", created_at=NOW, updated_at=NOW))])
    return store


@pytest.fixture
def usage(store: Store) -> UsageStore:
    return store.usage(ACME)


def at(seq: int, revision: int) -> MeterState:
    return MeterState(cursor=Cursor(epoch=Epoch("e"), seq=seq), as_of=NOW, revision=revision, lease=Lease(holder="a", until=NOW))


async def values(usage: UsageStore, *keys: UsageKey) -> list[int | None]:
    return [None if row is None else row.value for row in await usage.get(keys, NOW)]


async def stored(usage: UsageStore, *periods: Period) -> list[int | None]:
    return await values(usage, *(UsageKey(period, Metric.MESSAGES_STORED) for period in periods))


async def test_meter_begins_once_and_only_in_a_tenant_that_exists(store: Store, usage: UsageStore) -> None:
    assert await usage.meter() is None
    assert await usage.begin_meter(at(0, 1))
    assert await usage.commit(at(0, 1), at(2, 2), NOW, ONE)
    assert await usage.begin_meter(at(0, 1)), "a repeat"
    assert await usage.meter() == at(2, 2)
    assert not await store.usage(TenantId("ten_unknown")).begin_meter(at(0, 1))
    await store.transact([store.tenant(ACME).begin_deletion()])
    await usage.remove_all()
    assert not await usage.begin_meter(at(0, 1))
    assert await usage.meter() is None


async def test_repeated_commit_counts_nothing_again(usage: UsageStore) -> None:
    await usage.begin_meter(at(0, 1))
    assert await usage.commit(at(0, 1), at(2, 2), NOW, ONE)
    assert not await usage.commit(at(0, 1), at(2, 2), NOW, ONE)
    assert await stored(usage, *HOUR.enclosing()) == [2, 2, 2]
    assert await values(usage, UsageKey(HOUR, Metric.BYTES_STORED)) == [300]


async def test_commit_over_a_month_end_counts_in_both_months(usage: UsageStore) -> None:
    await usage.begin_meter(at(0, 1))
    both = {**ONE, NEXT_HOUR: StoredCount(messages=1, size_bytes=10, first_seq=3, last_seq=3)}
    assert await usage.commit(at(0, 1), at(3, 2), NOW, both)
    assert await usage.commit(at(3, 2), at(5, 3), NOW, {HOUR: StoredCount(2, 20, 4, 5)}), (
        "published before the end, stored after it"
    )
    assert await stored(usage, HOUR, Period("2026-11-30"), Period("2026-11")) == [4, 4, 4]
    assert await stored(usage, NEXT_HOUR, Period("2026-12-01"), Period("2026-12")) == [1, 1, 1]
    (row,) = await usage.get([UsageKey(HOUR, Metric.MESSAGES_STORED)], NOW)
    assert row is not None
    assert (row.first_seq, row.last_seq, row.is_exact, row.timestamp) == (1, 5, True, NOW)


async def test_row_says_how_many_may_be_missing(usage: UsageStore) -> None:
    await usage.begin_meter(at(0, 1))
    key = UsageKey(Period("2026-11"), Metric.MESSAGES_STORED)
    assert await usage.commit(at(0, 1), at(9, 2), NOW, ONE, inexact={key: Inexact(7)})
    assert await usage.commit(at(9, 2), at(12, 3), NOW, ONE, inexact={key: Inexact(1)})
    (row,) = await usage.get([key], NOW)
    assert row is not None
    assert (row.value, row.is_exact, row.uncounted) == (4, False, 8)
    assert await usage.commit(at(12, 3), at(12, 4), NOW, inexact={key: Inexact(None)})
    assert await usage.commit(at(12, 4), at(12, 5), NOW, inexact={key: Inexact(1)})
    (row,) = await usage.get([key], NOW)
    assert row is not None
    assert (row.value, row.is_exact, row.uncounted) == (4, False, None), "once unknown, it stays unknown"


async def test_gauge_has_the_last_and_the_highest_value(usage: UsageStore) -> None:
    await usage.begin_meter(at(0, 1))
    key = UsageKey(HOUR, Metric.STORAGE_BYTES)
    await usage.commit(at(0, 1), at(0, 2), NOW, gauges={key: GaugeValue(50, 90)})
    (row,) = await usage.get([key], NOW)
    assert row is not None
    assert (row.value, row.highest) == (50, 90)


async def test_part_counts_once_in_each_window(usage: UsageStore) -> None:
    key = UsageKey(Period("2026-11"), Metric.MESSAGES_STORED, Part(Attribution.AGENT, "usr:a#b"))
    for window, amount in ((1, 2), (1, 2), (2, 3), (1, 2), (2, 3)):
        await usage.add_part(key, amount, window, NOW)
    await usage.add_part(key._replace(part=Part(Attribution.CHANNEL, "chn_a")), 4, 1, NOW)
    page = await usage.parts(Period("2026-11"), Metric.MESSAGES_STORED, Attribution.AGENT, PageRequest(), NOW)
    assert [(row.key, row.value) for row in page.items] == [(key, 5)]


async def test_deletion_of_a_tenant_removes_more_rows_than_fit_into_one_transaction(
    tables: Tables, store: Store, usage: UsageStore
) -> None:
    for number in range(130):
        await usage.add_part(UsageKey(HOUR, Metric.PEAK_CONNECTIONS, Part(Attribution.AGENT, f"agt_{number}")), 1, 1, NOW)
    await store.tenant(ACME).remove_all()
    assert (await tables.query(USAGE_METRICS, ACME, consistent=True)).items == []


async def test_expired_row_reads_as_absent_before_it_is_removed(usage: UsageStore) -> None:
    keys = [UsageKey(period, Metric.PEAK_CONNECTIONS) for period in HOUR.enclosing()]
    for key in keys:
        await usage.add_part(key, 1, 1, NOW)
    later = NOW + timedelta(days=36)
    read = await usage.get(keys, later)
    assert {row.key.period.kind for row in read if row is not None} == {PeriodKind.DAY, PeriodKind.MONTH}


_moments = st.datetimes(max_value=NOW.replace(year=9998, tzinfo=None), timezones=st.just(UTC))
_keys = st.builds(
    UsageKey,
    st.builds(period_of, _moments, st.sampled_from(PeriodKind)),
    st.sampled_from(Metric),
    st.none() | st.builds(Part, st.sampled_from(Attribution), st.text(min_size=1)),
)


@given(_keys)
def test_key_of_a_row_reads_as_it_was_written(key: UsageKey) -> None:
    assert usage_key_of(key.metric_id) == key
