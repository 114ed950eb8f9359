"""Read a tenant's usage: the rows of metrics, and the counts of servers not moved into them yet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from artcafe.errors import Invalid, Unavailable
from artcafe.model import Principal, TenantId
from artcafe.observe.clock import Clock
from artcafe.observe.logs import log
from artcafe.rules import access
from artcafe.rules.pages import PageRequest
from artcafe.rules.usage import (
    ATTRIBUTED_PERIODS,
    MAXIMA,
    Attribution,
    Metric,
    Part,
    Period,
    PeriodKind,
    parse_period,
    period_of,
)
from artcafe.services.usage_counters import WRITE_S
from artcafe.tables.counting_servers import CountingServer
from artcafe.tables.store import Store
from artcafe.tables.usage_rows import UsageKey, UsageRow
from artcafe.tables.usage_run_store import CountKey, RunRow

COUNTED_BY_SERVERS: Final = frozenset(
    {
        Metric.MESSAGES_LIVE,
        Metric.DELIVERIES,
        Metric.REQUESTS,
        Metric.API_CALLS,
        Metric.CONNECTION_MINUTES,
        Metric.PEAK_CONNECTIONS,
    }
)
"""Metrics that servers count in memory (`services.usage_counters`). The meter counts the others from the log and the tables."""
_BOTH: Final = frozenset(Attribution)
_AGENT: Final = frozenset({Attribution.AGENT})
PARTS: Final[Mapping[Metric, frozenset[Attribution]]] = {
    Metric.MESSAGES_STORED: _BOTH,
    Metric.BYTES_STORED: _BOTH,
    Metric.MESSAGES_LIVE: _BOTH,
    Metric.DELIVERIES: _BOTH,
    Metric.REQUESTS: _AGENT,
    Metric.API_CALLS: _AGENT,
    Metric.CONNECTION_MINUTES: _AGENT,
}
"""What each metric can be divided by."""
LOST_AFTER: Final = timedelta(seconds=WRITE_S)
"""What a server counted in this time after its last write may be missing."""
RUNNING: Final = timedelta(seconds=3 * WRITE_S)
"""A server that has written in this time is taken to be running."""


class Every(StrEnum):
    """The periods to list within the requested one."""

    DAY = "day"
    HOUR = "hour"


@dataclass(frozen=True, slots=True)
class Bound:
    """How inexact a value is.

    Either at most `missing` are missing (None: an unknown number), or what `servers` servers counted in `seconds` seconds is.
    """

    missing: int | None = None
    servers: int | None = None
    seconds: int | None = None


@dataclass(frozen=True, slots=True)
class UsageItem:
    """A metric in a period. A value of None is unknown: nothing was counted. `highest`: of a measured metric."""

    key: UsageKey
    value: int | None
    timestamp: datetime | None = None
    is_exact: bool = False
    bound: Bound | None = None
    highest: int | None = None


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """The requested usage. Raises Invalid for contradicting values."""

    period: Period
    metric: Metric | None = None
    by: Attribution | None = None
    every: Every | None = None

    @classmethod
    def parse(cls, period: str | None, metric: str | None, by: str | None, every: str | None, now: datetime) -> UsageQuery:
        """Parse the parameters of a request; the period is the current month by default. Raises Invalid."""
        wanted = cls(
            period_of(now, PeriodKind.MONTH) if period is None else parse_period(period),
            None if metric is None else Metric(_one_of(metric, Metric, "metric")),
            None if by is None else Attribution(_one_of(by, Attribution, "by")),
            None if every is None else Every(_one_of(every, Every, "every")),
        )
        wanted._check()
        return wanted

    def _check(self) -> None:
        if self.every is not None and PeriodKind(self.every.value) not in _WITHIN[self.period.kind]:
            allowed = " or ".join(_WITHIN[self.period.kind])
            raise Invalid("every", f"must be {allowed} for a {self.period.kind}" if allowed else "is not possible for an hour")
        if self.by is None:
            return
        if self.every is not None:
            raise Invalid("every", "cannot be combined with by; ask for one period at a time")
        if self.period.kind not in ATTRIBUTED_PERIODS:
            raise Invalid("by", f"is possible for a day or a month only, and {self.period.text} is an {self.period.kind}")
        if self.metric is not None and self.by not in PARTS.get(self.metric, ()):
            able = ", ".join(metric for metric, parts in PARTS.items() if self.by in parts)
            raise Invalid("metric", f"must be one of {able} with by={self.by}")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The requested metrics."""
        if self.metric is not None:
            return (self.metric,)
        return tuple(metric for metric in Metric if self.by is None or self.by in PARTS.get(metric, ()))

    def periods(self, now: datetime) -> list[Period]:
        """Return the requested periods up to now, oldest first."""
        if self.every is None:
            return [self.period]
        found, kind = [], PeriodKind(self.every.value)
        start, end = self.period.start, min(self.period.end, now)
        while start < end:
            period = period_of(start, kind)
            found.append(period)
            start = period.end
        return found


_WITHIN: Final[Mapping[PeriodKind, tuple[PeriodKind, ...]]] = {
    PeriodKind.MONTH: (PeriodKind.DAY, PeriodKind.HOUR),
    PeriodKind.DAY: (PeriodKind.HOUR,),
    PeriodKind.HOUR: (),
}


def _one_of(text: str, allowed: Iterable[str], field: str) -> str:
    values = [str(each) for each in allowed]
    if text not in values:
        raise Invalid(field, f"must be one of {', '.join(values)}")
    return text


CountedUntil = Callable[[TenantId], Awaitable[datetime | None]]


class UsagePage(NamedTuple):
    """A page of usage. Everything before `as_of` is counted in it; None if nothing was ever counted."""

    items: tuple[UsageItem, ...]
    next: str | None
    as_of: datetime | None


class UsageReader:
    """Reads the usage of tenants."""

    def __init__(self, store: Store, clock: Clock, counted_until: CountedUntil | None = None) -> None:
        """`counted_until` returns the time up to which the meter has counted a tenant's stored messages; None: as in its row."""
        self._store, self._clock, self._counted_until = store, clock, counted_until

    def query(self, period: str | None, metric: str | None, by: str | None, every: str | None) -> UsageQuery:
        """Parse a request; the current month by default. Raises Invalid."""
        return UsageQuery.parse(period, metric, by, every, self._clock())

    async def list(self, principal: Principal, query: UsageQuery, page_request: PageRequest) -> UsagePage:
        """Return a page of usage: by period and metric, or with `by` by metric and id. Raises Forbidden."""
        access.check(principal, access.Action.READ_USAGE)
        now, tenant_id = self._clock(), principal.tenant_id
        servers = await self._store.counting_servers().all()
        as_of = await self._as_of(tenant_id, servers, now)
        runs = self._store.usage_runs(tenant_id)
        until = {server.run: server.written_until for server in servers}
        counted = await runs.in_period(query.period)
        while True:
            extended = [row.extended_to(until.get(row.run)) for row in counted]
            reading = _Reading(self._store, tenant_id, now, servers, extended)
            page = await (
                reading.wholes(query, page_request) if query.by is None else reading.parts(query, query.by, page_request)
            )
            before, counted = counted, await runs.in_period(query.period) if counted else []
            if {row.metric_id for row in before} <= {row.metric_id for row in counted}:
                return UsagePage(*page, as_of)
            # A server moved a row into the metrics during the read, as it does once an hour: the page may have it twice.

    async def _as_of(self, tenant_id: TenantId, servers: Sequence[CountingServer], now: datetime) -> datetime | None:
        known = [server.written_until for server in servers if now - server.written_until < RUNNING]
        metered = await self._metered_until(tenant_id)
        return min([*known, *([metered] if metered is not None else [])], default=None)

    async def _metered_until(self, tenant_id: TenantId) -> datetime | None:
        """Return the time of the last count, or now if nothing was stored since then."""
        if self._counted_until is not None:
            try:
                return await self._counted_until(tenant_id)
            except Unavailable as exc:  # The log cannot be asked. What is in the tables can be read.
                log.debug("usage.log_unavailable", error=str(exc))
        meter = await self._store.usage(tenant_id).meter()
        return None if meter is None else meter.as_of


class _Reading:
    """One reading of a tenant's usage. `counted`: the servers' rows not yet moved into the metrics."""

    def __init__(
        self,
        store: Store,
        tenant_id: TenantId,
        now: datetime,
        servers: Sequence[CountingServer],
        counted: Sequence[RunRow],
    ) -> None:
        self._rows = store.usage(tenant_id)
        self._now, self._servers, self._counted = now, servers, counted

    async def wholes(self, query: UsageQuery, page_request: PageRequest) -> tuple[tuple[UsageItem, ...], str | None]:
        """Return a page of whole metrics, and the start of the next page."""
        keys = [UsageKey(period, metric) for period in query.periods(self._now) for metric in query.metrics]
        start = (
            0
            if page_request.after is None
            else 1 + next((at for at, key in enumerate(keys) if key.metric_id == page_request.after), len(keys))
        )
        page = keys[start : start + page_request.limit]
        found = await self._rows.get(page, self._now)
        items = tuple(self._item(key, row) for key, row in zip(page, found, strict=True))
        return items, page[-1].metric_id if start + len(page) < len(keys) else None

    async def parts(
        self, query: UsageQuery, by: Attribution, page_request: PageRequest
    ) -> tuple[tuple[UsageItem, ...], str | None]:
        """Return a page of parts, by metric and then by id, and the start of the next page."""
        last_metric, _, last_id = (page_request.after or "").partition("#")
        metrics = query.metrics
        if last_metric:
            metrics = metrics[[metric.value for metric in metrics].index(last_metric) :]
        items: list[UsageItem] = []
        for metric in metrics:
            after = last_id if metric.value == last_metric else ""
            items += await self._parts_of(query.period, metric, by, after, page_request.limit + 1 - len(items))
            if len(items) > page_request.limit:
                last = items[page_request.limit - 1].key
                assert last.part is not None
                return tuple(items[: page_request.limit]), f"{last.metric}#{last.part.id}"
        return tuple(items), None

    async def _parts_of(self, period: Period, metric: Metric, by: Attribution, after: str, most: int) -> list[UsageItem]:
        """Return up to `most` parts of a metric above an id, ordered by id: those with a row, and those counted only so far."""
        rows: dict[str, UsageRow] = {}
        start = UsageKey(period, metric, Part(by, after)).metric_id if after else None
        page = await self._rows.parts(period, metric, by, PageRequest(most, start), self._now)
        for row in page.items:
            assert row.key.part is not None
            rows[row.key.part.id] = row
        last = max(rows, key=str.encode, default="") if page.next is not None else None
        found = set(rows) | {
            key.part.id
            for counted in self._counted
            for key in counted.counts
            if key.metric is metric and key.part is not None and key.part.by is by and key.part.id.encode() > after.encode()
        }
        ids = sorted((id for id in found if last is None or id.encode() <= last.encode()), key=str.encode)
        return [self._item(UsageKey(period, metric, Part(by, id)), rows.get(id)) for id in ids[:most]]

    def _item(self, key: UsageKey, row: UsageRow | None) -> UsageItem:
        if key.metric not in COUNTED_BY_SERVERS:
            if row is None:
                return UsageItem(key, None)
            bound = None if row.is_exact else Bound(missing=row.uncounted)
            return UsageItem(key, row.value, row.timestamp, row.is_exact, bound, row.highest)
        counts = [
            number
            for counted in self._counted
            if key.period.contains(counted.hour) and (number := counted.counts.get(CountKey(key.metric, key.part))) is not None
        ]
        if row is not None:
            counts.append(row.value)
        if not counts:
            return UsageItem(key, None)
        value = max(counts) if key.metric in MAXIMA else sum(counts)
        uncertain = sum(self._may_lack(server, key.period) for server in self._servers)
        bound = Bound(servers=uncertain, seconds=int(LOST_AFTER.total_seconds())) if uncertain else None
        return UsageItem(key, value, self._now if row is None else row.timestamp, not uncertain, bound)

    @staticmethod
    def _may_lack(server: CountingServer, period: Period) -> bool:
        """Return whether a server may have unwritten counts of the period."""
        return server.written_until < period.end and server.written_until + LOST_AFTER > period.start
