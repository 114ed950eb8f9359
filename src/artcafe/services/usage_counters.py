"""Count in memory a tenant's use of this server, and write it to the tables every minute (decision record 39).

The hot paths only add to integers: `delivery.feed` for each flush, `services.shares` for each command. The counters take these
numbers when they write. Counts belong to the UTC hour of their taking, so they are also taken at the end of each hour.

A killed server loses the counts since its last write. The row of the server has the time of that write
(`tables.counting_servers`), so readers know the incomplete periods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from artcafe.errors import OurFault
from artcafe.model import ChannelId, Principal, TenantId
from artcafe.observe.clock import Clock
from artcafe.observe.logs import log
from artcafe.rules import ids
from artcafe.rules.usage import Metric, PeriodKind, period_of
from artcafe.services.hour_counts import HourCounts, OpenTime, parts_of
from artcafe.supervision import Supervisor
from artcafe.tables.store import Store

WRITE_S: Final = 60.0
AT_ONCE: Final = 16
"""Tenants written concurrently."""
LEFT_AFTER: Final = timedelta(days=1)
"""Rows of this age are left by a server that was killed. A running one moves its rows at the end of the hour."""
TIMES_AT_ONCE: Final = 100
"""Connections attributed to their principals in one turn of the event loop, at the end of an hour: some milliseconds of work."""
CLOSE_S: Final = 5.0
"""Longest time for the writes of a server that stops."""


class Count(NamedTuple):
    """Something counted elsewhere since it was last taken."""

    tenant_id: TenantId
    metric: Metric
    number: int
    agent: str | None = None
    channel: ChannelId | None = None


Source = Callable[[], Iterable[Count]]
"""Return the counts since the last call."""


class _TenantUsage:
    """What one tenant uses of this server. `hours` are the hours not moved to the metrics yet, the current one last."""

    __slots__ = ("connections", "current", "ended", "is_due")

    def __init__(self, current: HourCounts) -> None:
        self.current = current
        self.ended: list[HourCounts] = []
        """Earlier hours that are not moved into the metrics yet."""
        self.connections = OpenTime()
        self.is_due = False
        """Whether something happened since the last write. Time that passes with the same open connections is written hourly."""

    @property
    def is_idle(self) -> bool:
        return not (self.connections.total or self.current.counts or self.ended)


class UsageCounters:
    """The counters of all tenants on this server."""

    def __init__(self, store: Store, clock: Clock, write_s: float = WRITE_S) -> None:
        self._store, self._clock, self._write_s = store, clock, write_s
        self._run = ids.new_id("srv")
        self._sources: list[Source] = []
        self._tenants: dict[TenantId, _TenantUsage] = {}
        self._hour = period_of(clock(), PeriodKind.HOUR)
        self.supervisor = Supervisor("usage")

    def add_source(self, source: Source) -> None:
        """Take counts from this function before each write."""
        self._sources.append(source)

    # --- counting ---

    def count(
        self, tenant_id: TenantId, metric: Metric, number: int = 1, *, agent: str | None = None, channel: str | None = None
    ) -> None:
        """Add to a metric, and to the parts of an agent (or person, as `usr:…`) and of a channel."""
        usage = self._usage(tenant_id)
        usage.current.add(metric, number, parts_of(agent, channel))
        usage.is_due = True

    def connected(self, who: Principal, total: int = 1) -> None:
        """Count a connection from now on. `total`: the tenant's connections to all servers, with this one."""
        usage = self._usage(who.tenant_id)
        usage.connections.enter(who.sender, self._clock(), usage.current)
        usage.current.raise_to(Metric.PEAK_CONNECTIONS, total)
        usage.is_due = True

    def disconnected(self, who: Principal) -> None:
        """End a connection counted by `connected`. Raises nothing: a failure to count must keep no connection open."""
        with self.supervisor.contain(tenant=who.tenant_id):
            usage = self._usage(who.tenant_id)
            usage.connections.leave(who.sender, self._clock(), usage.current)
            usage.is_due = True

    def _usage(self, tenant_id: TenantId) -> _TenantUsage:
        usage = self._tenants.get(tenant_id)
        if usage is None:
            usage = self._tenants[tenant_id] = _TenantUsage(HourCounts(self._hour))
        return usage

    # --- writing ---

    async def run(self) -> None:
        """Write the counts every minute and at the end of each hour, until cancelled."""
        while True:
            await self.flush()
            now = self._clock()
            await asyncio.sleep(min(self._write_s, max(0.0, (self._hour.end - now).total_seconds())))

    async def flush(self) -> None:
        """Write all counts so far. What cannot be written now is written by a later call."""
        now = self._clock()
        self._take()
        self._end_hours(now)
        is_written = await self._write_all(now)
        if is_written:
            with self.supervisor.contain():
                await self._note_written(now)

    async def close(self) -> None:
        """Write all counts for the last time: after this call nothing is counted. Waits at most `CLOSE_S`."""
        try:
            async with asyncio.timeout(CLOSE_S):
                now = self._clock()
                self._take()
                self._end_hours(now)
                for usage in self._tenants.values():
                    usage.connections.end_hour(now, usage.current)
                    usage.is_due, usage.ended = True, [*usage.ended, usage.current]
                if await self._write_all(now):
                    await self._store.counting_servers().end(self._run)
        except (OurFault, TimeoutError) as exc:
            log.warning("usage.not_written", tenants=len(self._tenants), error=str(exc))

    def _take(self) -> None:
        for source in self._sources:
            for count in source():
                self.count(count.tenant_id, count.metric, count.number, agent=count.agent, channel=count.channel)

    def _end_hours(self, now: datetime) -> None:
        """Begin the current hour, and the ones before it since the last call, for every tenant."""
        current = period_of(now, PeriodKind.HOUR)
        while self._hour.text < current.text:
            end = self._hour.end
            self._hour = period_of(end, PeriodKind.HOUR)
            for usage in self._tenants.values():
                usage.connections.end_hour(end, usage.current)
                if usage.current.counts:
                    usage.ended.append(usage.current)
                usage.current = HourCounts(self._hour)
                usage.connections.begin_hour(usage.current)
                usage.is_due = True

    async def _write_all(self, now: datetime) -> bool:
        """Write due counts, and return whether everything is written."""
        due = [tenant_id for tenant_id, usage in self._tenants.items() if usage.is_due]
        unwritten: list[TenantId] = []
        for start in range(0, len(due), AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for tenant_id in due[start : start + AT_ONCE]:
                    group.create_task(self._write(tenant_id, now, unwritten))
        if unwritten:
            log.warning("usage.not_written_yet", tenants=len(unwritten))
        return not unwritten

    async def _write(self, tenant_id: TenantId, now: datetime, unwritten: list[TenantId]) -> None:
        """Write a tenant's counts, or append the tenant to `unwritten`."""
        usage = self._tenants[tenant_id]
        usage.is_due = False
        with self.supervisor.contain(OurFault, tenant=tenant_id), suppress(OurFault):
            await self._write_rows(tenant_id, usage, now)
            await self._move_ended(tenant_id, usage, now)
            if usage.is_idle:
                del self._tenants[tenant_id]
            return
        usage.is_due = True
        unwritten.append(tenant_id)

    async def _write_rows(self, tenant_id: TenantId, usage: _TenantUsage, now: datetime) -> None:
        runs = self._store.usage_runs(tenant_id)
        usage.connections.add_time(now, usage.current)
        for ended in tuple(usage.ended):
            while ended.add_times(TIMES_AT_ONCE):  # noqa: ASYNC110 (it waits for nothing: others get their turn)
                await asyncio.sleep(0)
        for counts in (*usage.ended, usage.current):
            for row in counts.changed_rows(self._run, usage.connections.total if counts is usage.current else 0):
                if not await runs.write(row, now):
                    log.info("usage.tenant_gone", tenant=tenant_id)
                    usage.ended, usage.current = [], HourCounts(self._hour)  # its connections are about to be closed
                    return
                counts.note_written(row)

    async def _move_ended(self, tenant_id: TenantId, usage: _TenantUsage, now: datetime) -> None:
        """Move the rows of ended hours into the metrics, and those of killed servers."""
        if not usage.ended:
            return
        runs = self._store.usage_runs(tenant_id)
        for ended in tuple(usage.ended):
            for row in ended.rows(self._run):
                await runs.add_to_metrics(row, now)
            usage.ended.remove(ended)
        await self._move_left(tenant_id, now)

    async def _move_left(self, tenant_id: TenantId, now: datetime) -> None:
        runs = self._store.usage_runs(tenant_id)
        left = await runs.before(period_of(now - LEFT_AFTER, PeriodKind.HOUR))
        if left:
            until = {server.run: server.written_until for server in await self._store.counting_servers().all()}
            for row in left:
                await runs.add_to_metrics(row.extended_to(until.get(row.run)), now)

    async def _note_written(self, now: datetime) -> None:
        try:
            await self._store.counting_servers().note_written(self._run, now)
        except OurFault as exc:
            log.warning("usage.server_not_noted", error=str(exc))
