"""Count one tenant's stored messages: from the cursor in the tenant's usage row to the end of its log, each message once.

Counts are written together with the cursor, in a transaction conditional on the row as it was read. So the count is
exact however many meters work and wherever one stops; the lease in the row only saves the others the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec

from artcafe.errors import Unavailable
from artcafe.fabric.log_counter import RangeCount, count_range
from artcafe.fabric.log_state import LogState
from artcafe.fabric.stored_counts import Counts, Segment, merge
from artcafe.fabric.tenant_fabric import TenantFabric
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import Cursor, Seq
from artcafe.observe.clock import Clock
from artcafe.observe.logs import log
from artcafe.rules.usage import Metric, Period, PeriodKind, period_of
from artcafe.services import usage_counts
from artcafe.tables.store import Store
from artcafe.tables.usage_rows import Lease, MeterState, UsageKey
from artcafe.tables.usage_store import GaugeValue, Inexact, StoredCount

PARTS_S: Final = 600.0
"""Seconds between two writes of the parts of agents and channels while a tenant is busy: each has a row of its own. Retention
waits for them, and keeps every message for 10 minutes anyway."""
PARTS_IDLE_S: Final = 120.0
"""Seconds without a message after which the parts are written, whenever the last time was."""
MAX_PARTS: Final = 20_000
"""Sums in memory, by sender, channel and hour, above which the parts are written."""
GAUGES_S: Final = 300.0
"""Seconds between two measurements of a busy tenant's gauges."""
PARTS_AT_ONCE: Final = 32
COUNTS_AT_ONCE: Final = 2
"""Counts written in one turn of a tenant. Further ones wait until the other tenants had their turn."""


@dataclass(frozen=True, slots=True)
class Resumption:
    """The position for further counting in the present log: the meter's positions in it, and an hour that became uncertain."""

    seq: Seq
    attributed: Seq
    attributing: Seq | None
    begun: Seq
    uncertain: Period | None = None


class TenantMeter:
    """The meter of one tenant on this server. Concurrent calls wait for each other. Calls raise `Unavailable`."""

    def __init__(self, store: Store, tenant_fabric: TenantFabric, clock: Clock, name: str, lease_s: float) -> None:
        """`name` is the server's name as the holder of the lease, which lasts `lease_s` from each write."""
        self.tenant_fabric = tenant_fabric
        self._tenant, self._usage = store.tenant(tenant_fabric.tenant_id), store.usage(tenant_fabric.tenant_id)
        self._clock, self._name, self._lease_s = clock, name, lease_s
        self._lock = asyncio.Lock()
        self._state: MeterState | None = None
        """The row as last read or written; None while it must be read."""
        self._is_up_to_date = False
        """Whether the last look found every message counted, and no other server to be the meter."""
        self.due_at: datetime | None = None
        """When to look next, if there is work; None: at once."""
        self._parts: Counts = {}
        self._parts_range: tuple[Seq, Seq] | None = None
        """`_parts` counts the messages above the first and up to the second of these sequences."""
        self._parts_at = self._counted_at = clock()
        self._gauges_at: datetime | None = None
        self._epoch = tenant_fabric.log.epoch

    @property
    def has_work(self) -> bool:
        """Whether there may be something to count or to write."""
        return not self._is_up_to_date or self.is_needed

    @property
    def is_needed(self) -> bool:
        """Whether this server has unwritten counts in memory, or is the tenant's meter."""
        return bool(self.tenant_fabric.writer.stored) or self._has_parts or self._is_holder

    @property
    def _is_holder(self) -> bool:
        lease = None if self._state is None else self._state.lease
        return lease is not None and lease.holder == self._name and lease.until > self._clock()

    @property
    def _has_parts(self) -> bool:
        return self._state is not None and self._state.attributed < self._state.cursor.seq

    # --- calls ---

    def look_again(self) -> None:
        """Expect messages not stored by this server's writer."""
        self._is_up_to_date = False

    async def work(self, interval_s: float) -> None:
        """Count new messages and write due parts, unless another server is the tenant's meter at present."""
        async with self._lock:
            for _ in range(COUNTS_AT_ONCE):
                if await self._leave_to_another(interval_s):
                    return
                self._is_up_to_date = await self._count()
                if self._is_up_to_date:
                    break
            if self._are_parts_due():
                await self._write_parts()
            self.due_at = self._clock() + timedelta(seconds=interval_s) if self._is_up_to_date else None

    async def catch_up(self) -> MeterState | None:
        """Count every message stored before the call, with the parts, whoever is the meter. Return the row, None without one."""
        async with self._lock:
            self._state = None
            tenant_log = await self.tenant_fabric.connected_log()
            end = await tenant_log.state()
            while not await self._count() and not self._has_counted(end):
                pass
            while (state := await self._known_state()) is not None and state.attributed < state.cursor.seq:
                await self._write_parts()
            return state

    async def release(self) -> None:
        """Count new messages, and end this server's lease, so that another one need not wait. Bound it by a timeout."""
        async with self._lock:
            while not await self._count():
                pass
            if self._state is not None and self._is_holder:
                await self._commit(msgspec.structs.replace(self._next(self._state), lease=None))

    def _has_counted(self, end: LogState | None) -> bool:
        state = self._state
        return end is not None and state is not None and state.cursor.epoch == end.epoch and state.cursor.seq >= end.last_seq

    async def _leave_to_another(self, interval_s: float) -> bool:
        """Return whether another server has the lease, and wait for that server's counts in this case."""
        now, state = self._clock(), await self._known_state()
        if state is None or state.lease is None or state.lease.holder == self._name or state.lease.until <= now:
            return False
        stored = self.tenant_fabric.writer.stored
        if stored is not None and state.cursor.epoch == self.tenant_fabric.log.epoch:
            stored.drop(state.cursor.seq)
        self._state, self._parts_range, self._is_up_to_date = None, None, False
        self.due_at = min(now + timedelta(seconds=interval_s), state.lease.until)
        return True

    async def _known_state(self) -> MeterState | None:
        """Return the row as last read or written, reading it if it is unknown; None if there is none."""
        if self._state is None:
            self._state = await self._usage.meter()
        return self._state

    # --- counting ---

    async def _count(self) -> bool:
        """Count the next messages, and write the count. Return whether all were counted, False also if another meter wrote."""
        tenant_log = await self.tenant_fabric.connected_log()
        now, before = self._clock(), await self._known_state()
        segments = self._segments()  # before the state is read, so that they end before the log does
        end = await tenant_log.state_for(Cursor() if before is None else before.cursor)
        if end is None:
            return True
        if before is None:
            return not await self._usage.begin_meter(MeterState(cursor=Cursor(epoch=end.epoch)))
        resumed = await resume(before, end, tenant_log)
        if end.epoch not in (before.cursor.epoch, self._epoch):
            segments = []
            self._forget()
        self._epoch = end.epoch
        counted = await count_range(tenant_log, segments, resumed.seq, end.last_seq)
        is_complete = counted.to_seq >= end.last_seq and end.has_quorum
        if before.cursor == (reached := Cursor(epoch=end.epoch, seq=counted.to_seq)):
            return is_complete
        after = msgspec.structs.replace(
            self._next(before),
            cursor=reached,
            begun=resumed.begun,
            as_of=now if is_complete else before.as_of,
            attributed=resumed.attributed,
            attributing=resumed.attributing,
        )
        gauges = await self._gauges(end, now)
        inexact = usage_counts.uncertainty(counted.holes, resumed.uncertain, before.as_of, now)
        if not await self._commit(after, usage_counts.by_hour(counted.counts), gauges, inexact):
            return False
        self._note_counted(counted, resumed.seq, now)
        return is_complete

    def _segments(self) -> list[Segment]:
        stored = self.tenant_fabric.writer.stored
        return [] if stored is None else stored.sealed()

    def _forget(self) -> None:
        """Forget this server's messages in a replaced log."""
        if self.tenant_fabric.writer.stored is not None:
            self.tenant_fabric.writer.stored.clear()
        self._parts_range = None

    def _next(self, state: MeterState) -> MeterState:
        """Return the state as this server writes it next, with its lease renewed."""
        lease = Lease(holder=self._name, until=self._clock() + timedelta(seconds=self._lease_s))
        return msgspec.structs.replace(state, revision=state.revision + 1, lease=lease)

    async def _commit(
        self,
        after: MeterState,
        counts: Mapping[Period, StoredCount] | None = None,
        gauges: Mapping[UsageKey, GaugeValue] | None = None,
        inexact: Mapping[UsageKey, Inexact] | None = None,
    ) -> bool:
        """Write the next state of the row with its counts. Return False if another meter wrote; the row is read again then."""
        before, self._state = self._state, None  # Unknown, until the write is answered.
        assert before is not None
        if not await self._usage.commit(before, after, self._clock(), counts, gauges, inexact):
            return False
        self._state = after
        return True

    def _note_counted(self, counted: RangeCount, after: Seq, now: datetime) -> None:
        """Keep the counts for the parts, after they were written to the totals."""
        self._counted_at = now
        if self._parts_range is None or self._parts_range[1] != after:
            self._parts, self._parts_range = {}, (after, after)
        merge(self._parts, counted.counts)
        self._parts_range = (self._parts_range[0], counted.to_seq)
        if self.tenant_fabric.writer.stored is not None:
            self.tenant_fabric.writer.stored.drop(counted.to_seq)

    async def _gauges(self, end: LogState, now: datetime) -> dict[UsageKey, GaugeValue]:
        """Measure the gauges when due: at first, every `GAUGES_S`, and in every new hour."""
        hour = period_of(now, PeriodKind.HOUR)
        last = self._gauges_at
        if last is not None and now - last < timedelta(seconds=GAUGES_S) and hour.contains(period_of(last, PeriodKind.HOUR)):
            return {}
        tenant = await self._tenant.tenant()
        if tenant is None:
            return {}
        self._gauges_at = now
        values = {
            Metric.STORAGE_BYTES: end.size_bytes,
            Metric.AGENTS: tenant.agent_count,
            Metric.CHANNELS: tenant.channel_count,
        }
        keys = [UsageKey(period, metric) for period in hour.enclosing() for metric in values]
        rows = await self._usage.get(keys, now)
        return {
            key: GaugeValue(values[key.metric], max(values[key.metric], 0 if row is None else row.highest or 0))
            for key, row in zip(keys, rows, strict=True)
        }

    # --- parts ---

    def _are_parts_due(self) -> bool:
        now = self._clock()
        is_idle = now - self._counted_at >= timedelta(seconds=PARTS_IDLE_S)
        is_late = now - self._parts_at >= timedelta(seconds=PARTS_S)
        return self._has_parts and (is_idle or is_late or len(self._parts) > MAX_PARTS)

    async def _write_parts(self) -> None:
        """Write the parts of agents and channels up to the cursor.

        The range is written to the meter's row first, as a window with a number, and each part's row notes the window's number.
        So after a meter has stopped, the next one reads the same range again, and adds to the rows without it.
        """
        state = self._state
        if state is None:
            return
        if state.attributing is None:
            opened = msgspec.structs.replace(self._next(state), attributing=state.cursor.seq, window=state.window + 1)
            if not await self._commit(opened):
                return
            state = opened
        assert state.attributing is not None
        now = self._clock()
        amounts = usage_counts.by_part(await self._window(state.attributed, state.attributing))
        for start in range(0, len(amounts), PARTS_AT_ONCE):
            await self._add_parts(amounts[start : start + PARTS_AT_ONCE], state.window, now)
        if await self._commit(msgspec.structs.replace(self._next(state), attributed=state.attributing, attributing=None)):
            self._parts_at = now
            self._parts, self._parts_range = {}, (state.attributing, state.attributing)

    async def _add_parts(self, amounts: list[tuple[UsageKey, int]], window: int, now: datetime) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for key, amount in amounts:
                    group.create_task(self._usage.add_part(key, amount, window, now))
        except* Unavailable as failed:
            raise failed.exceptions[0] from failed

    async def _window(self, after: Seq, end: Seq) -> Counts:
        """Return the counts of a window, from memory, or from the log if another meter began it."""
        if self._parts_range == (after, end):
            return self._parts
        self._parts_range = None
        tenant_log = await self.tenant_fabric.connected_log()
        counts: Counts = {}
        while after < end:
            counted = await count_range(tenant_log, [], after, end)
            merge(counts, counted.counts)
            after = counted.to_seq
        return counts


async def resume(state: MeterState, end: LogState, tenant_log: TenantLog) -> Resumption:
    """Return where to continue in a log: the one of the meter's cursor, one restored from it, or an unrelated one.

    In an unrelated log, the messages stored before the last count was written are those that were counted, as far as they are the
    same messages at all. Clocks differ a little, and messages of the old log may be lost uncounted, so that hour is uncertain.
    """
    cursor = state.cursor
    if cursor.epoch is None:
        return Resumption(0, 0, None, 0)
    if cursor.epoch == end.epoch:
        return Resumption(cursor.seq, state.attributed, state.attributing, state.begun)
    shared = end.continues.get(cursor.epoch)
    log.warning("meter.log_replaced", epoch=cursor.epoch, seq=cursor.seq, new_epoch=end.epoch, shared=shared)
    if shared is not None:
        attributing = None if state.attributing is None else min(state.attributing, shared)
        return Resumption(min(cursor.seq, shared), min(state.attributed, shared), attributing, min(state.begun, shared))
    if state.as_of is None:
        return Resumption(0, 0, None, 0)
    first = await tenant_log.since(None, state.as_of)
    seq = end.last_seq if first is None else first - 1
    return Resumption(seq, seq, None, 0, period_of(state.as_of, PeriodKind.HOUR))
