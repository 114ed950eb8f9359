"""A tenant's usage: the meter's row, the rows of metrics, and the writes that count each thing once.

A value is only added to in a write that also moves a position: the meter's cursor in the log, or the window of a part. A repeated
write finds the position moved, and adds nothing. What servers count in memory is in `usage_run_store`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from artcafe.model import Epoch, Seq, TenantId
from artcafe.rules.pages import Page, PageRequest
from artcafe.rules.usage import Attribution, Metric, Period, parts_prefix
from artcafe.tables import rows
from artcafe.tables.catalog import TENANTS, USAGE_METRICS
from artcafe.tables.engine.conditions import Absent, Equals, Less, Or
from artcafe.tables.engine.port import ConditionFailed, Tables
from artcafe.tables.engine.values import Item, Value
from artcafe.tables.engine.writes import (
    Add,
    Assign,
    AssignIfAbsent,
    Change,
    Check,
    Delete,
    ItemKey,
    Put,
    Remove,
    Update,
    Write,
    key_of,
)
from artcafe.tables.partition import ALL_AT_ONCE, Partition
from artcafe.tables.usage_rows import (
    METER,
    MeterState,
    UsageKey,
    UsageRow,
    descriptions,
    meter_attributes,
    meter_state_of,
    usage_row_of,
)


class StoredCount(NamedTuple):
    """Messages of one hour: their number and bytes, and the first and last sequence."""

    messages: int
    size_bytes: int
    first_seq: Seq
    last_seq: Seq


class GaugeValue(NamedTuple):
    """A measured value, and the highest one of its period so far."""

    value: int
    highest: int


class Inexact(NamedTuple):
    """The uncertainty to record in a row: at most `uncounted` are missing, or an unknown number."""

    uncounted: int | None


class UsageStore:
    """The usage of one tenant; its key is in every read and write."""

    __slots__ = ("_partition", "_tables", "_tenant_id")

    def __init__(self, tables: Tables, tenant_id: TenantId) -> None:
        self._tables, self._tenant_id = tables, tenant_id
        self._partition = Partition(tables, USAGE_METRICS, tenant_id)

    # --- reading ---

    async def get(self, keys: Sequence[UsageKey], now: datetime) -> list[UsageRow | None]:
        """Return these rows in order, None for missing and expired ones."""
        if not keys:
            return []
        items = await self._tables.get(USAGE_METRICS, [self._key(key.metric_id) for key in keys], consistent=True)
        return [None if item is None else usage_row_of(item, now) for item in items]

    async def parts(
        self, period: Period, metric: Metric, by: Attribution, page_request: PageRequest, now: datetime
    ) -> Page[UsageRow]:
        """Return a page of a metric's parts in a period, ordered by the id of the agent or channel."""
        prefix = parts_prefix(period, metric, by)
        return await self._partition.page(page_request, lambda item: usage_row_of(item, now), prefix=prefix)

    # --- the meter's row ---

    async def meter(self) -> MeterState | None:
        """Return the state of the meter; None if nothing was ever counted."""
        (item,) = await self._tables.get(USAGE_METRICS, [self._key(METER)], consistent=True)
        return None if item is None else meter_state_of(item)

    async def begin_meter(self, state: MeterState) -> bool:
        """Create the meter's row unless it exists; return False if the tenant does not exist or is being deleted.

        May be repeated.
        """
        changes, _ = _meter_changes(state)
        item: Item = {"tenant_id": self._tenant_id, "metric_id": METER, **changes}
        writes: list[Write] = [Put(USAGE_METRICS, item, Absent("metric_id")), self._check_tenant()]
        try:
            await self._tables.transact(writes)
        except ConditionFailed as failed:
            return failed.failed.get(0) is not None
        return True

    async def commit(
        self,
        before: MeterState,
        after: MeterState,
        now: datetime,
        counts: Mapping[Period, StoredCount] | None = None,
        gauges: Mapping[UsageKey, GaugeValue] | None = None,
        inexact: Mapping[UsageKey, Inexact] | None = None,
    ) -> bool:
        """Move the meter from one state to the next and write what it counted in between, in one transaction.

        `counts` are by hour, in at most 36 hours, days and months together. Return False, with nothing written, if the row is not
        in the state `before` any more: another meter wrote, this call's earlier attempt did, or the tenant was deleted. Read the
        row again to find out.
        """
        set_to, removed = _meter_changes(after)
        changes: list[Change] = [Assign(name, value) for name, value in set_to.items()]
        changes += [Remove(name) for name in removed]
        meter = Update(USAGE_METRICS, self._key(METER), changes, Equals("revision", before.revision))
        writes = [meter, *self._counted(after.cursor.epoch, counts or {}, inexact or {}, now)]
        writes += [self._measured(key, gauge, now) for key, gauge in (gauges or {}).items()]
        try:
            await self._tables.transact(writes)
        except ConditionFailed:
            return False
        return True

    async def add_part(self, key: UsageKey, amount: int, window: int, now: datetime) -> None:
        """Add to an agent's or channel's part, once for each window. May be repeated."""
        changes: list[Change] = [Add("value", amount), Assign("window", window), *descriptions(key, now)]
        unwritten = Or(Absent("window"), Less("window", window))
        try:
            await self._tables.update(Update(USAGE_METRICS, self._key(key.metric_id), changes, unwritten))
        except ConditionFailed:
            return

    def _counted(
        self, epoch: Epoch | None, counts: Mapping[Period, StoredCount], inexact: Mapping[UsageKey, Inexact], now: datetime
    ) -> list[Update]:
        added: dict[UsageKey, list[Change]] = {}
        totals: dict[UsageKey, int] = {}
        for hour, count in counts.items():
            for period in hour.enclosing():
                for metric, number in ((Metric.MESSAGES_STORED, count.messages), (Metric.BYTES_STORED, count.size_bytes)):
                    key = UsageKey(period, metric)
                    totals[key] = totals.get(key, 0) + number
            seqs: list[Change] = [AssignIfAbsent("first_seq", count.first_seq), Assign("last_seq", count.last_seq)]
            added[UsageKey(hour, Metric.MESSAGES_STORED)] = [*seqs, AssignIfAbsent("epoch", epoch)]
        for key, uncertain in inexact.items():
            totals.setdefault(key, 0)
            changes = added.setdefault(key, [])
            changes.append(Assign("exact", False))
            unknown = uncertain.uncounted is None
            changes.append(Assign("unbounded", True) if unknown else Add("uncounted", uncertain.uncounted or 0))
        return [
            Update(
                USAGE_METRICS,
                self._key(key.metric_id),
                [Add("value", total), *added.get(key, ()), *descriptions(key, now)],
            )
            for key, total in totals.items()
        ]

    def _measured(self, key: UsageKey, gauge: GaugeValue, now: datetime) -> Update:
        changes: list[Change] = [Assign("value", gauge.value), Assign("highest", gauge.highest), *descriptions(key, now)]
        return Update(USAGE_METRICS, self._key(key.metric_id), changes)

    # --- deletion ---

    async def remove_all(self) -> None:
        """Delete every row of a tenant that is being deleted. May be repeated.

        Backwards, so that the rows of the meter and of running servers go first: no write adds to a metric without them.
        """
        while True:
            page = await self._tables.query(USAGE_METRICS, self._tenant_id, limit=ALL_AT_ONCE, descending=True, consistent=True)
            if not page.items:
                return
            await self._tables.transact([Delete(USAGE_METRICS, key_of(USAGE_METRICS, item)) for item in page.items])

    def _check_tenant(self) -> Check:
        return Check(TENANTS, ItemKey(self._tenant_id), rows.IS_PRESENT)

    def _key(self, sort: str) -> ItemKey:
        return ItemKey(self._tenant_id, sort)


def _meter_changes(state: MeterState) -> tuple[dict[str, Value], list[str]]:
    """Return the attributes to set in the meter's row, and those to remove."""
    attributes = meter_attributes(state)
    return (
        {name: value for name, value in attributes.items() if value is not None},
        [name for name, value in attributes.items() if value is None],
    )
