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
    """Return the parts for an agent (or a person) and for a channel, without ids too long for a row."""
    parts = []
    if agent is not None and len(agent) <= MAX_ID_CHARS:
        parts.append(Part(Attribution.AGENT, agent))
    if channel is not None:
        parts.append(Part(Attribution.CHANNEL, subjects.token(ChannelId(channel))))
    return tuple(parts)


class HourCounts:
    """The counts of one hour, in rows of at most `MAX_PARTS` parts. A part stays in its row, so that few rows change."""

    __slots__ = ("_changed", "_created", "_keys", "_row_of", "_versions", "counts", "hour", "times")

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
        self.times: list[tuple[str, int]] = []
        """Connection time of principals in milliseconds, not added to their parts yet."""

    def add(self, metric: Metric, number: int, parts: tuple[Part, ...] = ()) -> None:
        """Add to a metric and to parts of it."""
        for key in (CountKey(metric), *(CountKey(metric, part) for part in parts)):
            self._set(key, self.counts.get(key, 0) + number)

    def add_part(self, metric: Metric, number: int, parts: tuple[Part, ...]) -> None:
        """Add to parts of a metric only: the whole is counted otherwise."""
        for part in parts:
            key = CountKey(metric, part)
            self._set(key, self.counts.get(key, 0) + number)

    def add_times(self, most: int) -> bool:
        """Add up to `most` entries of `times` to the parts, and return whether there are more."""
        some, self.times = self.times[:most], self.times[most:]
        for sender, passed in some:
            self.add_part(Metric.CONNECTION_MINUTES, passed, parts_of(sender, None))
        return bool(self.times)

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

    def changed_rows(self, run: str, open_connections: int = 0) -> Iterator[RunRow]:
        """Yield the next version of each row changed since `note_written`. `open_connections`: 0 for an ended hour."""
        for number in sorted(self._changed):
            self._versions[number] = self._versions.get(number, 0) + 1
            yield self._row(run, number, open_connections)

    def note_written(self, row: RunRow) -> None:
        """Record a row as written, unless it has changed since."""
        self._created.add(row.number)
        if self._row(row.run, row.number).counts == row.counts:
            self._changed.discard(row.number)

    def rows(self, run: str) -> list[RunRow]:
        """Return every row in its last version."""
        return [self._row(run, number) for number in sorted(self._versions)]

    def _row(self, run: str, number: int, open_connections: int = 0) -> RunRow:
        counts = {
            key: (self.counts[key] + MINUTE_MS // 2) // MINUTE_MS if key.metric is Metric.CONNECTION_MINUTES else self.counts[key]
            for key in self._keys[number]
        }
        time = CountKey(Metric.CONNECTION_MINUTES)
        open_now = {time: open_connections} if open_connections and time in counts else {}
        is_new = number not in self._created
        return RunRow(self.hour, run, number, self._versions[number], counts, is_new, open_now)


class OpenTime:
    """The open connections of a tenant to this server, and the time they were open.

    The time of a principal is `connections x now - offset`, so that a principal takes one number and no object of its own. It is
    added to the principal's part when a connection closes and when the hour ends; the time of the tenant at every write.
    """

    __slots__ = ("_offset", "_offsets", "_several", "total")

    def __init__(self) -> None:
        self.total = 0
        self._offset = 0
        """In milliseconds since 1970, summed over all connections."""
        self._offsets: dict[str, int] = {}
        """The same by principal."""
        self._several: dict[str, int] = {}
        """The number of connections of each principal with more than one."""

    def enter(self, sender: str, now: datetime, counts: HourCounts) -> None:
        """Open a connection of this principal."""
        before = self._offsets.get(sender)
        self._offsets[sender] = (before or 0) + _ms(now)
        if before is not None:
            self._several[sender] = self._several.get(sender, 1) + 1
        self.total += 1
        self._offset += _ms(now)
        self.add_time(now, counts)
        counts.raise_to(Metric.PEAK_CONNECTIONS, self.total)

    def leave(self, sender: str, now: datetime, counts: HourCounts) -> None:
        """Close a connection of this principal."""
        self.add_time(now, counts)
        open_before = self._several.get(sender, 1)
        passed = open_before * _ms(now) - self._offsets[sender]
        if passed > 0:
            counts.add_part(Metric.CONNECTION_MINUTES, passed, parts_of(sender, None))
            self._offsets[sender] += passed
        if open_before == 1:
            del self._offsets[sender]
        else:
            self._offsets[sender] -= _ms(now)  # at this moment each connection's share of the offset
            if open_before == 2:
                del self._several[sender]
            else:
                self._several[sender] = open_before - 1
        self.total -= 1
        self._offset = self._offset - _ms(now) if self.total else 0  # a clock that was set back leaves no trace for ever

    def add_time(self, now: datetime, counts: HourCounts) -> None:
        """Add the time up to now to the tenant's."""
        passed = self.total * _ms(now) - self._offset
        if self.total and passed >= 0:  # else the clock was set back, or a connection opened after the hour that is counted
            counts.add(Metric.CONNECTION_MINUTES, passed)
            self._offset += passed

    def end_hour(self, end: datetime, counts: HourCounts) -> None:
        """Add the time up to the end of an hour, for the tenant and, later in `HourCounts.add_times`, for each principal."""
        self.add_time(end, counts)
        for sender, offset in self._offsets.items():
            passed = self._several.get(sender, 1) * _ms(end) - offset
            if passed > 0:
                counts.times.append((sender, passed))
        for sender, passed in counts.times:
            self._offsets[sender] += passed

    def begin_hour(self, counts: HourCounts) -> None:
        """Count the open connections in a new hour."""
        if self.total:
            counts.raise_to(Metric.PEAK_CONNECTIONS, self.total)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
