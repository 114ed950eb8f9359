"""What one server counts for one tenant in one hour, and the tenant's open connections. In memory; no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from artcafe.model import ChannelId
from artcafe.rules import subjects
from artcafe.rules.usage import Attribution, Metric, Part, Period
from artcafe.tables.usage_run_store import MAX_PARTS, CountKey, RunRow

MAX_ID_CHARS: Final = 200
"""Longest id with a part of its own: a sort key has at most 1,024 bytes. Only ids of an older system are longer."""
MINUTE_MS: Final = 60_000


def parts_of(agent: str | None, channel: str | None) -> tuple[Part, ...]:
    """Return the parts for an agent (or a person) and for a channel, without ids that are too long for a row."""
    parts = []
    if agent is not None and len(agent) <= MAX_ID_CHARS:
        parts.append(Part(Attribution.AGENT, agent))
    if channel is not None:
        parts.append(Part(Attribution.CHANNEL, subjects.token(ChannelId(channel))))
    return tuple(parts)


class HourCounts:
    """The counts of one hour, in rows of at most `MAX_PARTS` parts. A part stays in its row, so that few rows change."""

    __slots__ = ("_changed", "_created", "_keys", "_row_of", "_versions", "counts", "hour")

    def __init__(self, hour: Period) -> None:
        self.hour = hour
        self.counts: dict[CountKey, int] = {}
        """Connection minutes are kept in milliseconds here."""
        self._row_of: dict[CountKey, int] = {}
        self._keys: dict[int, list[CountKey]] = {}
        """The contents of each row, by its number."""
        self._changed: set[int] = set()
        self._versions: dict[int, int] = {}
        """By row: how often it was written, or tried."""
        self._created: set[int] = set()

    def add(self, metric: Metric, number: int, parts: tuple[Part, ...] = ()) -> None:
        """Add to a metric and to parts of it."""
        for key in (CountKey(metric), *(CountKey(metric, part) for part in parts)):
            self._set(key, self.counts.get(key, 0) + number)

    def raise_to(self, metric: Metric, number: int) -> None:
        """Raise a maximum to a number, if it is lower."""
        key = CountKey(metric)
        if self.counts.get(key, 0) < number:
            self._set(key, number)

    def _set(self, key: CountKey, number: int) -> None:
        self.counts[key] = number
        row = self._row_of.get(key)
        if row is None:
            row = self._row_of[key] = 0 if key.part is None else self._row_with_space()
            self._keys.setdefault(row, []).append(key)
        self._changed.add(row)

    def _row_with_space(self) -> int:
        last = max(self._keys, default=0)
        return last if last and len(self._keys[last]) < MAX_PARTS else last + 1

    def changed_rows(self, run: str, connections: OpenConnections | None = None) -> Iterator[RunRow]:
        """Yield the next version of each row that changed since `note_written`. `connections`: None for an ended hour."""
        for number in sorted(self._changed):
            self._versions[number] = self._versions.get(number, 0) + 1
            yield self._row(run, number, connections)

    def note_written(self, row: RunRow) -> None:
        """Record that a row is written, unless it has changed since."""
        self._created.add(row.number)
        if self._row(row.run, row.number).counts == row.counts:
            self._changed.discard(row.number)

    def rows(self, run: str) -> list[RunRow]:
        """Return every row in its last version."""
        return [self._row(run, number) for number in sorted(self._versions)]

    def _row(self, run: str, number: int, connections: OpenConnections | None = None) -> RunRow:
        counts = {
            key: (self.counts[key] + MINUTE_MS // 2) // MINUTE_MS if key.metric is Metric.CONNECTION_MINUTES else self.counts[key]
            for key in self._keys[number]
        }
        timed = [key for key in counts if key.metric is Metric.CONNECTION_MINUTES]
        open_now = {} if connections is None else {key: connections.open_of(key.part) for key in timed}
        is_new = number not in self._created
        return RunRow(self.hour, run, number, self._versions[number], counts, is_new, open_now)


class OpenConnections:
    """The open connections of a tenant to this server, and the time they were open.

    The time of a principal is `connections x now - offset`, so that a principal takes one number and no object of its own.
    """

    __slots__ = ("_offsets", "_several", "total")

    def __init__(self) -> None:
        self.total = 0
        self._offsets: dict[str, int] = {}
        """By principal: in milliseconds since 1970, summed over its connections."""
        self._several: dict[str, int] = {}
        """The number of connections of each principal with more than one."""

    def enter(self, sender: str, now: datetime, counts: HourCounts) -> None:
        """Open a connection of this principal."""
        before = self._offsets.get(sender)
        self._offsets[sender] = (before or 0) + _ms(now)
        if before is not None:
            self._several[sender] = self._several.get(sender, 1) + 1
        self.total += 1
        counts.raise_to(Metric.PEAK_CONNECTIONS, self.total)

    def leave(self, sender: str, now: datetime, counts: HourCounts) -> None:
        """Close a connection of this principal."""
        open_before = self._several.get(sender, 1)
        self._add_time(sender, open_before, now, counts)
        if open_before == 1:
            del self._offsets[sender]
        else:
            self._offsets[sender] -= _ms(now)  # at this moment each connection's share of the offset
            if open_before == 2:
                del self._several[sender]
            else:
                self._several[sender] = open_before - 1
        self.total -= 1

    def add_time(self, now: datetime, counts: HourCounts) -> None:
        """Add the time up to now of the open connections."""
        for sender in self._offsets:
            self._add_time(sender, self._several.get(sender, 1), now, counts)

    def open_of(self, part: Part | None) -> int:
        """Return the number of open connections, of all principals or of one."""
        if part is None:
            return self.total
        return self._several.get(part.id, 1) if part.id in self._offsets else 0

    def begin_hour(self, counts: HourCounts) -> None:
        """Count the open connections in a new hour."""
        if self.total:
            counts.raise_to(Metric.PEAK_CONNECTIONS, self.total)

    def _add_time(self, sender: str, connections: int, now: datetime, counts: HourCounts) -> None:
        passed = connections * _ms(now) - self._offsets[sender]
        if passed >= 0:  # else the clock was set back, or a connection opened after the end of the hour that is counted
            counts.add(Metric.CONNECTION_MINUTES, passed, parts_of(sender, None))
            self._offsets[sender] += passed


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
