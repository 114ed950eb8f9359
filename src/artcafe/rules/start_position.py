"""Resolve the start of a delivery to a sequence, and detect messages missing from there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from artcafe.model import Cursor, Epoch, Seq
from artcafe.wire.frames import Start
from artcafe.wire.replies import Gap

RETENTION: Final = "retention"
"""The messages were older than the retention of their channel."""
EPOCH: Final = "epoch"
"""The log was restored or recreated: later messages of the old log are lost, in an unknown number."""


class LogLineage(NamedTuple):
    """The identity of a log: its epoch, None before its first message.

    `continues` maps the epoch of each log it was restored from to the last sequence shared with it.
    """

    epoch: Epoch | None
    continues: Mapping[Epoch, Seq] = {}

    def last_shared_seq(self, epoch: Epoch | None) -> Seq | None:
        """Return the last sequence shared with the log of `epoch`, or None if `epoch` is the current log.

        An epoch of None means the first log: the current one, unless it was restored.
        """
        if epoch is None:
            return max(self.continues.values(), default=None)
        return None if epoch == self.epoch else self.continues.get(epoch, 0)

    def to_seq(self, cursor: Cursor) -> Seq:
        """Return the sequence of a cursor in this log; 0 if it has none."""
        end = self.last_shared_seq(cursor.epoch) if cursor.seq else None
        return cursor.seq if end is None else min(cursor.seq, end)


def resolve(start: Start, cursor: Cursor, lineage: LogLineage, last_seq: Seq, removed_to: Cursor) -> tuple[Seq, Gap | None]:
    """Return the sequence to deliver after, and the gap of missing messages, if any.

    `last_seq` is the log's newest sequence; the channel's messages up to `removed_to` are removed or about to be. A cursor of
    another log gets every message of this one, or, if this log was restored from the cursor's, the messages after the cursor's
    position. In both cases messages may be lost, and the gap reports them in the sequences of the cursor's own log.
    """
    removed = lineage.to_seq(removed_to)
    if start == "new":
        return last_seq, None
    if start == "first":
        return removed, None
    if isinstance(start, int):
        return _skip_removed(start - 1, removed)
    end = lineage.last_shared_seq(cursor.epoch)
    if end is None:
        return _skip_removed(cursor.seq, removed)
    # Both logs are equal up to `end`, so the gap begins after it, unless retention had removed the cursor's position before.
    first = end + 1 if removed <= cursor.seq < end else cursor.seq + 1
    return max(min(cursor.seq, end), removed), Gap(first, None, EPOCH)


def _skip_removed(seq: Seq, removed: Seq) -> tuple[Seq, Gap | None]:
    return (removed, Gap(seq + 1, removed, RETENTION)) if seq < removed else (seq, None)
