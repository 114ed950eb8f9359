"""Count a tenant's own log again, and compare it with the usage rows.

The log is the evidence of a bill: each message in it was stored once, and its time is in it. Messages that retention removed
cannot be counted again; then the rows are compared as far as possible, and the result says where they were not.
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_right
from collections.abc import Callable, Set
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from artcafe.errors import Unavailable
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.log_state import LogState
from artcafe.fabric.stored_counts import Counts, count
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import Record, Seq, TenantId
from artcafe.observe.clock import Clock
from artcafe.rules.subjects import EVERYTHING, Subject
from artcafe.rules.usage import Metric, Period, PeriodKind, period_of
from artcafe.services.meter import Meter
from artcafe.services.usage_counts import by_hour
from artcafe.tables.store import Store
from artcafe.tables.usage_rows import MeterState, UsageKey, UsageRow
from artcafe.tables.usage_store import StoredCount, UsageStore

MARGIN: Final = timedelta(hours=1)
"""How far the clocks of a server and of NATS may differ: messages stored up to this long before the period are read too."""
AT_ONCE: Final = 1024
"""Messages in one read."""
READS: Final = 20
"""How often the rows are read, until no meter writes meanwhile."""

OnProgress = Callable[[int], None]
"""Called with the number of messages read so far."""


class Verdict(StrEnum):
    """The result of comparing a period. Only `DIFFERENT` is an error of the count."""

    EQUAL = "equal"
    REMOVED = "removed"
    """Fewer messages are stored than were counted, and at least as many were removed there."""
    UNCERTAIN = "uncertain"
    """The row itself says that it is not exact, and the difference is within its bound."""
    DIFFERENT = "different"


class Comparison(Record, frozen=True, kw_only=True):
    """A period as counted in its rows, and as found in the log. None: there is no row.

    `removed` are sequences without a message between the first and the last that were counted. The sequences locate a
    difference: of the counted messages and of the found ones.
    """

    period: str
    verdict: Verdict
    counted_messages: int | None
    found_messages: int
    counted_bytes: int | None
    found_bytes: int
    removed: int
    counted_first_seq: Seq | None = None
    counted_last_seq: Seq | None = None
    found_first_seq: Seq | None = None
    found_last_seq: Seq | None = None


class RecountResult(Record, frozen=True, kw_only=True):
    """The comparison of a tenant's log with its rows, for all messages of a period up to the sequence `up_to`.

    `compared` has the hours of the period with a row or a message; days or the month where rows of hours have expired. `sums`
    has the longer periods whose rows are not the sum of their hours'.
    """

    period: str
    as_of: datetime | None
    up_to: Seq
    messages_read: int
    compared: tuple[Comparison, ...]
    sums: tuple[Comparison, ...]

    @property
    def differences(self) -> tuple[Comparison, ...]:
        """Return the errors of the count."""
        return (*(each for each in self.compared if each.verdict is Verdict.DIFFERENT), *self.sums)

    @property
    def is_whole(self) -> bool:
        """Return whether every message of the period could be compared."""
        return all(each.verdict in (Verdict.EQUAL, Verdict.DIFFERENT) for each in self.compared)


class FoundMessages:
    """The messages found in a range of a log: their counts by hour, and their sequences."""

    def __init__(self, after: Seq) -> None:
        self._counts: Counts = {}
        self._starts, self._ends, self._before = array("Q"), array("Q"), array("Q")
        """Runs of sequences with a message, and the number of messages before each run."""
        self.messages = 0
        self.after = after

    def add(self, seq: Seq, subject: Subject, envelope: bytes) -> None:
        """Add the next message."""
        count(self._counts, seq, subject, envelope)
        if self._ends and self._ends[-1] == seq - 1:
            self._ends[-1] = seq
        else:
            self._starts.append(seq)
            self._ends.append(seq)
            self._before.append(self.messages)
        self.messages += 1

    def by_hour(self) -> dict[Period, StoredCount]:
        """Return the counts of each hour."""
        return by_hour(self._counts)

    def missing(self, first: Seq, last: Seq) -> int:
        """Return how many sequences from `first` to `last` have no message."""
        return last - first + 1 - (self._up_to(last) - self._up_to(first - 1))

    def _up_to(self, seq: Seq) -> int:
        run = bisect_right(self._starts, seq) - 1
        return 0 if run < 0 else self._before[run] + min(seq, self._ends[run]) - self._starts[run] + 1


class Recount:
    """Recounts the stored messages of tenants."""

    def __init__(self, store: Store, fabric: Fabric, meter: Meter, clock: Clock, *, margin: timedelta = MARGIN) -> None:
        """`margin`: how far `clock` and NATS's may differ."""
        self._store, self._fabric, self._meter, self._clock, self._margin = store, fabric, meter, clock, margin

    async def recount(self, tenant_id: TenantId, period: Period, on_progress: OnProgress = lambda read: None) -> RecountResult:
        """Read the tenant's log of a period, and compare it with the rows. Changes nothing, after counting new messages.

        A million messages take about a minute. Raise `Unavailable`.
        """
        await self._meter.catch_up(tenant_id)
        usage, now = self._store.usage(tenant_id), self._clock()
        periods = _compared_periods(period, now)
        state, rows = await _consistent(usage, periods, now)
        tenant_log = await self._fabric.tenant(tenant_id).connected_log()
        end = await tenant_log.state()
        if state is None or end is None:
            return RecountResult(period=period.text, as_of=None, up_to=0, messages_read=0, compared=(), sums=())
        up_to = end.lineage.to_seq(state.cursor)
        found = await _read(tenant_log, max(state.begun, await self._before(tenant_log, period, end)), up_to, on_progress)
        shortest = max(len(each.text) for each in periods)
        compared = _compare(period, shortest, rows, found, end)
        return RecountResult(
            period=period.text,
            as_of=state.as_of,
            up_to=up_to,
            messages_read=found.messages,
            compared=tuple(compared),
            sums=tuple(_sums(rows, shortest)),
        )

    async def _before(self, tenant_log: TenantLog, period: Period, end: LogState) -> Seq:
        """Return a sequence before every message of the period."""
        first = await tenant_log.since(None, period.start - self._margin)
        return end.last_seq if first is None else first - 1


Rows = dict[UsageKey, UsageRow]


def _compared_periods(period: Period, now: datetime) -> list[Period]:
    """Return the shortest periods in a period with unexpired rows, and the longer ones up to it."""
    found = [period]
    for kind in (PeriodKind.DAY, PeriodKind.HOUR):
        parts = _parts(period, kind)
        if any(each.expires_at is not None and each.expires_at <= now for each in parts):
            break
        found += [each for each in parts if each != period]
    return found


def _parts(period: Period, kind: PeriodKind) -> list[Period]:
    """Return the periods of a shorter kind in a period; none for a longer kind."""
    moment, found = period.start, []
    step = timedelta(hours=1) if kind is PeriodKind.HOUR else timedelta(days=1)
    while moment < period.end:
        found.append(period_of(moment, kind))
        moment += step
    return found if period.contains(found[0]) else []


async def _consistent(usage: UsageStore, periods: list[Period], now: datetime) -> tuple[MeterState | None, Rows]:
    """Return the rows of these periods and the meter's state, as they were at one moment."""
    keys = [UsageKey(period, metric) for period in periods for metric in (Metric.MESSAGES_STORED, Metric.BYTES_STORED)]
    for _ in range(READS):
        before = await usage.meter()
        rows = await usage.get(keys, now)
        after = await usage.meter()
        if (before and before.cursor) == (after and after.cursor):
            return after, {row.key: row for row in rows if row is not None}
    raise Unavailable("the usage rows, which are being written,")


async def _read(tenant_log: TenantLog, after: Seq, up_to: Seq, on_progress: OnProgress) -> FoundMessages:
    found, seq = FoundMessages(after), after
    while seq < up_to:
        some = await tenant_log.following(EVERYTHING, seq, AT_ONCE)
        for seq, subject, envelope in some:
            if seq <= up_to:
                found.add(seq, subject, envelope)
        if not some:
            break
        on_progress(found.messages)
        await asyncio.sleep(0)
    return found


def _compare(period: Period, shortest: int, rows: Rows, found: FoundMessages, end: LogState) -> list[Comparison]:
    """Compare each of the shortest periods, by the length of their texts, with a row or a message in the log."""
    sums: dict[Period, StoredCount] = {}
    for hour, counted in found.by_hour().items():
        if period.contains(hour):
            each = Period(hour.text[:shortest])
            had = sums.get(each)
            sums[each] = counted if had is None else _together(had, counted)
    periods = {key.period for key in rows if len(key.period.text) == shortest} | sums.keys()
    return [_compared(each, rows, sums.get(each), found, end) for each in sorted(periods)]


def _together(one: StoredCount, other: StoredCount) -> StoredCount:
    return StoredCount(
        one.messages + other.messages,
        one.size_bytes + other.size_bytes,
        min(one.first_seq, other.first_seq),
        max(one.last_seq, other.last_seq),
    )


def _compared(period: Period, rows: Rows, found: StoredCount | None, messages: FoundMessages, end: LogState) -> Comparison:
    row = rows.get(UsageKey(period, Metric.MESSAGES_STORED))
    size = rows.get(UsageKey(period, Metric.BYTES_STORED))
    removed = 0 if row is None else _removed(row, messages, end)
    found_messages, found_bytes = (0, 0) if found is None else (found.messages, found.size_bytes)
    counted_messages, counted_bytes = None if row is None else row.value, None if size is None else size.value
    missing_messages, missing_bytes = (counted_messages or 0) - found_messages, (counted_bytes or 0) - found_bytes
    if missing_messages == missing_bytes == 0:
        verdict = Verdict.EQUAL
    elif 0 < missing_messages <= removed and missing_bytes > 0:
        verdict = Verdict.REMOVED
    elif row is not None and not row.is_exact and (row.uncounted is None or 0 <= -missing_messages <= row.uncounted):
        verdict = Verdict.UNCERTAIN
    else:
        verdict = Verdict.DIFFERENT
    return Comparison(
        period=period.text,
        verdict=verdict,
        counted_messages=counted_messages,
        found_messages=found_messages,
        counted_bytes=counted_bytes,
        found_bytes=found_bytes,
        removed=removed,
        counted_first_seq=None if row is None else row.first_seq,
        counted_last_seq=None if row is None else row.last_seq,
        found_first_seq=None if found is None else found.first_seq,
        found_last_seq=None if found is None else found.last_seq,
    )


def _removed(row: UsageRow, messages: FoundMessages, end: LogState) -> int:
    """Return how many of the messages counted in a row may have been removed since."""
    if row.first_seq is None or row.last_seq is None:  # a day or a month: its rows have no sequences
        return messages.missing(1, end.last_seq)
    shared = end.lineage.last_shared_seq(row.epoch)
    if shared is not None and row.last_seq > shared:
        return row.value  # Messages of an older log, lost at its restore.
    return messages.missing(row.first_seq, row.last_seq)


def _sums(rows: Rows, shortest: int) -> list[Comparison]:
    """Return the longer periods with rows other than the sums of the shortest ones in them."""
    longer = sorted({key.period for key in rows if len(key.period.text) < shortest})
    found = []
    for period in longer:
        counted = _sum(rows, {period})
        added = _sum(rows, {key.period for key in rows if len(key.period.text) == shortest and period.contains(key.period)})
        if counted != added:
            found.append(
                Comparison(
                    period=period.text,
                    verdict=Verdict.DIFFERENT,
                    counted_messages=counted[0],
                    found_messages=added[0],
                    counted_bytes=counted[1],
                    found_bytes=added[1],
                    removed=0,
                )
            )
    return found


def _sum(rows: Rows, periods: Set[Period]) -> tuple[int, int]:
    """Return the messages and bytes in the rows of some periods."""
    parts = {key: row.value for key, row in rows.items() if key.period in periods}
    messages = sum(value for key, value in parts.items() if key.metric is Metric.MESSAGES_STORED)
    return messages, sum(parts.values()) - messages
