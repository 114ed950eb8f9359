"""What one run of a server process counted for a tenant in one hour: rows that only this process writes.

Each row has absolute numbers, so that one plain write a minute is enough for all metrics, and a repeated write changes nothing.
When the hour is over, the numbers are added to the rows of the metrics, in the transaction that deletes the row. Readers add the
rows that still exist (decision record 39).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from types import MappingProxyType
from typing import Final, NamedTuple

from artcafe.model import TenantId
from artcafe.rules import times
from artcafe.rules.usage import ATTRIBUTED_PERIODS, MAXIMA, Attribution, Metric, Part, Period
from artcafe.tables import rows
from artcafe.tables.attributes import number, text, time
from artcafe.tables.catalog import TENANTS, USAGE_METRICS
from artcafe.tables.engine.conditions import Absent, And, Exists, Less, Or
from artcafe.tables.engine.port import ConditionFailed, Tables
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import Add, Assign, Change, Check, Delete, ItemKey, Put, Update, Write
from artcafe.tables.partition import Partition
from artcafe.tables.usage_rows import UsageKey, descriptions

RUN_PREFIX: Final = "run#"
MAX_PARTS: Final = 48
"""Parts in one row: each is added to the rows of a day and a month, and a transaction has at most 100 writes."""
_SEPARATOR: Final = "#"


class CountKey(NamedTuple):
    """A metric of a tenant, or an agent's or channel's part of it."""

    metric: Metric
    part: Part | None = None


class RunRow(NamedTuple):
    """One row of a run. `number` 0 has the whole metrics, further rows their parts. `version` rises with every attempt to write.

    `is_new`: no write of this row has been acknowledged yet. `open_connections` are those at the time of `timestamp`, by whole
    metric and part: while their number stays the same, no write adds the time that passes.
    """

    hour: Period
    run: str
    number: int
    version: int
    counts: Mapping[CountKey, int]
    is_new: bool = False
    open_connections: Mapping[CountKey, int] = MappingProxyType({})
    timestamp: datetime | None = None

    def extended_to(self, until: datetime | None) -> RunRow:
        """Return the row with the time of its open connections up to `until`, when its server last wrote, or the hour's end."""
        if until is None or self.timestamp is None or not self.open_connections:
            return self
        passed_s = max(0.0, (min(until, self.hour.end) - self.timestamp).total_seconds())
        minutes = {key: round(number * passed_s / 60) for key, number in self.open_connections.items()}
        return self._replace(counts={key: count + minutes.get(key, 0) for key, count in self.counts.items()})

    @property
    def metric_id(self) -> str:
        return f"{RUN_PREFIX}{self.hour.text}{_SEPARATOR}{self.run}{_SEPARATOR}{self.number:04d}"


class UsageRunStore:
    """The rows of all runs for one tenant; its key is in every read and write."""

    __slots__ = ("_partition", "_tables", "_tenant_id")

    def __init__(self, tables: Tables, tenant_id: TenantId) -> None:
        self._tables, self._tenant_id = tables, tenant_id
        self._partition = Partition(tables, USAGE_METRICS, tenant_id)

    async def write(self, row: RunRow, now: datetime) -> bool:
        """Write a row, replacing its earlier version. May be repeated.

        Return False if the tenant does not exist any more. The versions of a row must be written one after the other.
        """
        item = _item_of(self._tenant_id, row, now)
        if row.is_new:  # only the first write checks the tenant: the deletion of a tenant deletes its rows
            try:
                await self._tables.transact([Put(USAGE_METRICS, item, Absent("metric_id")), self._check_tenant()])
            except ConditionFailed as failed:
                if 0 not in failed.failed:
                    return False
            else:
                return True
        try:
            await self._tables.put(Put(USAGE_METRICS, item, And(Exists("metric_id"), Less("version", row.version))))
        except ConditionFailed as failed:
            return failed.item is not None  # then this version is written: the answer to an earlier attempt was lost
        return True

    async def in_period(self, period: Period) -> list[RunRow]:
        """Return the rows of all runs for the hours of a period, ordered by `metric_id`."""
        found = [_row_of(item) async for item in self._partition.items(RUN_PREFIX + period.text)]
        return [row for row in found if row is not None and period.contains(row.hour)]

    async def before(self, hour: Period) -> list[RunRow]:
        """Return the rows of all runs for the hours before this one."""
        found = [_row_of(item) async for item in self._partition.items(RUN_PREFIX)]
        return [row for row in found if row is not None and row.hour.text < hour.text]

    async def add_to_metrics(self, row: RunRow, now: datetime) -> None:
        """Add a row's counts to the metrics of its hour, day and month, and delete it. May be repeated.

        `row` must be the row's last version, and its server must write no more.
        """
        for key, count in row.counts.items():
            if key.metric in MAXIMA:
                for period in row.hour.enclosing():
                    await self._raise(UsageKey(period, key.metric), count, now)
        writes: list[Write] = [Delete(USAGE_METRICS, self._key(row.metric_id), Exists("metric_id"))]
        for key, count in row.counts.items():
            if key.metric not in MAXIMA:
                writes += [self._addition(UsageKey(period, *key), count, now) for period in _periods_of(row.hour, key)]
        with suppress(ConditionFailed):  # the row was moved before, or deleted with its tenant
            await self._tables.transact(writes)

    async def _raise(self, key: UsageKey, value: int, now: datetime) -> None:
        changes: list[Change] = [Assign("value", value), *descriptions(key, now)]
        higher = Or(Absent("value"), Less("value", value))
        with suppress(ConditionFailed):
            await self._tables.transact([Update(USAGE_METRICS, self._key(key.metric_id), changes, higher), self._check_tenant()])

    def _addition(self, key: UsageKey, count: int, now: datetime) -> Update:
        return Update(USAGE_METRICS, self._key(key.metric_id), [Add("value", count), *descriptions(key, now)])

    def _check_tenant(self) -> Check:
        return Check(TENANTS, ItemKey(self._tenant_id), rows.IS_PRESENT)

    def _key(self, sort: str) -> ItemKey:
        return ItemKey(self._tenant_id, sort)


def _periods_of(hour: Period, key: CountKey) -> list[Period]:
    return [each for each in hour.enclosing() if key.part is None or each.kind in ATTRIBUTED_PERIODS]


def _item_of(tenant_id: TenantId, row: RunRow, now: datetime) -> Item:
    return {
        "tenant_id": tenant_id,
        "metric_id": row.metric_id,
        "period": row.hour.text,
        "run": row.run,
        "number": row.number,
        "version": row.version,
        "timestamp": times.to_text(now),
        "counts": {_name_of(key): count for key, count in row.counts.items()},
        "open": {_name_of(key): number for key, number in row.open_connections.items()},
    }


def _row_of(item: Item) -> RunRow | None:
    """Return the row of an item; None for a malformed one."""
    hour = text(item, "period")
    if not hour or not isinstance(item.get("counts"), Mapping):
        return None
    return RunRow(
        Period(hour),
        text(item, "run"),
        number(item, "number"),
        number(item, "version"),
        _counts_of(item, "counts"),
        open_connections=_counts_of(item, "open"),
        timestamp=time(item, "timestamp"),
    )


def _counts_of(item: Item, name: str) -> dict[CountKey, int]:
    found = item.get(name)
    if not isinstance(found, Mapping):
        return {}
    return {key: count for name, count in found.items() if (key := _key_of(name)) is not None and isinstance(count, int)}


def _name_of(key: CountKey) -> str:
    return key.metric.value if key.part is None else _SEPARATOR.join((key.metric.value, key.part.by.value, key.part.id))


def _key_of(name: str) -> CountKey | None:
    metric, *part = name.split(_SEPARATOR, 2)  # an id may contain the separator
    if metric not in Metric._value2member_map_:
        return None  # of a newer version
    return CountKey(Metric(metric), Part(Attribution(part[0]), part[1]) if part else None)
