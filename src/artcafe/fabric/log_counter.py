"""Count a range of a log: from what this server stored, and by reading the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

from artcafe.fabric.nats.connection import unreachable
from artcafe.fabric.stored_counts import Counts, Head, Segment, count, head_of, merge, origin_of
from artcafe.fabric.tenant_log import BATCH_MESSAGES, TenantLog
from artcafe.model import Seq
from artcafe.rules.subjects import EVERYTHING, Subject, is_stored
from artcafe.rules.usage import Period

MAX_MESSAGES: Final = 20_000
"""Messages read for one count. Reading them takes about a second, after which the count is written."""
MAX_PERIODS: Final = 30
"""Hours, days and months of one count, above which it ends: their rows must fit into one transaction."""


class Hole(NamedTuple):
    """Sequences whose messages were removed before they were counted. `before` and `after` are the hours of the messages around
    them; None at an end of the range."""

    messages: int
    before: Period | None
    after: Period | None


class RangeCount:
    """The count of a log's messages above a sequence, up to `to_seq`."""

    __slots__ = ("_heads", "_last_hour", "_missing", "_periods", "counts", "holes", "messages_read", "to_seq")

    def __init__(self, after: Seq) -> None:
        self.to_seq = after
        self.counts: Counts = {}
        self.holes: list[Hole] = []
        self.messages_read = 0
        self._heads: dict[Head, Period] = {}
        self._periods: set[Period] = set()
        self._last_hour: Period | None = None
        self._missing = 0

    @property
    def is_full(self) -> bool:
        return self.messages_read >= MAX_MESSAGES or len(self._periods) > MAX_PERIODS

    def add_segment(self, segment: Segment) -> None:
        """Add a segment that begins right after the range."""
        for _, head in segment.counts:
            self._note_hour(head)
        merge(self.counts, segment.counts)
        self.to_seq = segment.last

    def add_message(self, seq: Seq, subject: Subject, envelope: bytes) -> None:
        """Add a message; the sequences between the range and it have none."""
        self._missing += seq - self.to_seq - 1
        if head := head_of(envelope):
            self._note_hour(head)
            count(self.counts, seq, subject, envelope)
        self.messages_read += 1
        self.to_seq = seq

    def pass_over(self, seq: Seq) -> None:
        """Extend the range to a scheduled message, which is not counted yet; the sequences in between have no message."""
        self._missing += seq - self.to_seq - 1
        self.messages_read += 1
        self.to_seq = seq

    def end_at(self, seq: Seq) -> None:
        """Extend the range to a sequence, with no message in between."""
        self._missing += seq - self.to_seq
        self.to_seq = seq

    def close(self) -> None:
        """Record a hole at the end of the range."""
        self._close_hole(None)

    def _note_hour(self, head: Head) -> None:
        hour = self._heads.get(head)
        if hour is None:
            hour = self._heads[head] = origin_of(head).hour
            self._periods.update(hour.enclosing())
        if self._missing:
            self._close_hole(hour)
        self._last_hour = hour

    def _close_hole(self, after: Period | None) -> None:
        if self._missing:
            self.holes.append(Hole(self._missing, self._last_hour, after))
            self._missing = 0


async def count_range(log: TenantLog, segments: Sequence[Segment], after: Seq, end: Seq) -> RangeCount:
    """Count a log's messages above `after` and up to `end`, or less if the count becomes too large (`RangeCount.is_full`).

    `segments` are messages that this server stored in this log, in order; the others are read. Raise `Unavailable`.
    """
    counted = RangeCount(after)
    for segment in segments:
        if segment.first <= counted.to_seq or segment.last > end:
            continue  # counted before, at least in part: the rest is read
        await _read(log, counted, segment.first - 1)
        if counted.is_full:
            break
        counted.add_segment(segment)
    await _read(log, counted, end)
    counted.close()
    return counted


async def _read(log: TenantLog, counted: RangeCount, end: Seq) -> None:
    """Count the messages up to `end` by reading them."""
    while counted.to_seq < end and not counted.is_full:
        expected = counted.to_seq + 1
        found = await log.following(EVERYTHING, counted.to_seq, min(BATCH_MESSAGES, end - counted.to_seq))
        if (not found or found[0][0] != expected) and await log.read(expected) is not None:
            raise unreachable()  # A lagging replica answered.
        for seq, subject, envelope in found:
            if seq > end:
                counted.end_at(end)
            if counted.to_seq >= end or counted.is_full:
                return
            if is_stored(subject):
                counted.add_message(seq, subject, envelope)
            else:
                counted.pass_over(seq)
        if not found:
            counted.end_at(end)
        await asyncio.sleep(0)
