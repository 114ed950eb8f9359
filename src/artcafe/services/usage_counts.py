"""Turn the counts of a log's range into the rows of hours, of parts, and of uncertain counts. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from artcafe.fabric.log_counter import Hole
from artcafe.fabric.stored_counts import Counts, origin_of
from artcafe.rules import subjects
from artcafe.rules.usage import ATTRIBUTED_PERIODS, Attribution, Metric, Part, Period, PeriodKind, period_of
from artcafe.tables.usage_rows import UsageKey
from artcafe.tables.usage_store import Inexact, StoredCount


def by_hour(counts: Counts) -> dict[Period, StoredCount]:
    """Return the counts of each hour."""
    hours: dict[Period, StoredCount] = {}
    for (_, head), sums in counts.items():
        hour = origin_of(head).hour
        had = hours.get(hour, StoredCount(0, 0, sums.first_seq, sums.last_seq))
        hours[hour] = StoredCount(
            had.messages + sums.messages,
            had.size_bytes + sums.size_bytes,
            min(had.first_seq, sums.first_seq),
            max(had.last_seq, sums.last_seq),
        )
    return hours


def by_part(counts: Counts) -> list[tuple[UsageKey, int]]:
    """Return the amounts of each agent and channel in the periods with parts."""
    amounts: defaultdict[UsageKey, int] = defaultdict(int)
    for (subject, head), sums in counts.items():
        sender, hour = origin_of(head)
        parts = Part(Attribution.AGENT, sender), Part(Attribution.CHANNEL, subjects.channel_token(subject))
        for period in hour.enclosing():
            if period.kind in ATTRIBUTED_PERIODS:
                for part in parts:
                    amounts[UsageKey(period, Metric.MESSAGES_STORED, part)] += sums.messages
                    amounts[UsageKey(period, Metric.BYTES_STORED, part)] += sums.size_bytes
    return list(amounts.items())


def uncertainty(
    holes: Iterable[Hole], uncertain: Period | None, counted_until: datetime | None, now: datetime
) -> dict[UsageKey, Inexact]:
    """Return the rows about messages removed before their count, and about an hour of a replaced log.

    Removed messages belong to the hours of their neighbours, or between them. Their number is a bound; their bytes are unknown.
    """
    missing: defaultdict[Period, int] = defaultdict(int)
    for hole in holes:
        before = hole.before or (None if counted_until is None else period_of(counted_until, PeriodKind.HOUR))
        after = hole.after or period_of(now, PeriodKind.HOUR)
        for period in {period for hour in (before, after) if hour is not None for period in hour.enclosing()}:
            missing[period] += hole.messages
    found = {UsageKey(period, Metric.MESSAGES_STORED): Inexact(number) for period, number in missing.items()}
    found |= {UsageKey(period, Metric.BYTES_STORED): Inexact(None) for period in missing}
    if uncertain is not None:
        found |= {
            UsageKey(period, metric): Inexact(None)
            for period in uncertain.enclosing()
            for metric in (Metric.MESSAGES_STORED, Metric.BYTES_STORED)
        }
    return found
