"""Where a delivery begins, and what is known to be missing there: given what was asked, the cursor, and the log as it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from artcafe.model import Cursor, Epoch, Seq
from artcafe.wire.frames import Start
from artcafe.wire.replies import Gap

RETENTION: Final = "retention"
"""The messages grew older than their channel keeps them."""
EPOCH: Final = "epoch"
"""The log was restored, or begun anew: what the old one had beyond that is gone, and nobody knows how much it was."""


class LogLineage(NamedTuple):
    """Which log it is: its epoch, None before its first message.

    `continues` are the epochs of logs that it was restored from, each with the sequence up to which both are the same.
    """

    epoch: Epoch | None
    continues: Mapping[Epoch, Seq] = {}

    def last_shared_seq(self, epoch: Epoch | None) -> Seq | None:
        """Up to which sequence the log of an epoch and this one are the same. None: without end, for it is this one.

        No epoch means whichever log was the first: this one, unless it was restored.
        """
        if epoch is None:
            return max(self.continues.values(), default=None)
        return None if epoch == self.epoch else self.continues.get(epoch, 0)

    def to_seq(self, place: Cursor) -> Seq:
        """The sequence in this log that a place means; 0 where it means none in it."""
        end = self.last_shared_seq(place.epoch) if place.seq else None
        return place.seq if end is None else min(place.seq, end)


def resolve(start: Start, cursor: Cursor, lineage: LogLineage, last_seq: Seq, removed_to: Cursor) -> tuple[Seq, Gap | None]:
    """The sequence behind which to deliver, and what is known to be missing there.

    `last_seq` is the log's newest sequence; up to `removed_to` the channel's messages are gone, or about to be. A cursor of
    another log gets all that this one has, or what stands behind the place in it that the cursor means, where it was restored
    from that log. Either way there was perhaps more, and the gap says so, in the sequences of the cursor's own log.
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
    # Up to `end` both logs are the same, so what is missing begins behind it, unless retention was at the cursor before.
    first = end + 1 if removed <= cursor.seq < end else cursor.seq + 1
    return max(min(cursor.seq, end), removed), Gap(first, None, EPOCH)


def _skip_removed(seq: Seq, removed: Seq) -> tuple[Seq, Gap | None]:
    return (removed, Gap(seq + 1, removed, RETENTION)) if seq < removed else (seq, None)
