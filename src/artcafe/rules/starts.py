"""Where a delivery begins, given what was asked, the cursor, and the log as it stands."""

from __future__ import annotations

from artcafe.model import Cursor, Epoch, Seq
from artcafe.wire.frames import Gap, Start


def behind(start: Start, cursor: Cursor, epoch: Epoch | None, last_seq: Seq) -> tuple[Seq, Gap | None]:
    """The sequence behind which to deliver, and what is known to be missing there.

    `epoch` is the log's, None before its first message; `last_seq` its newest sequence. A cursor of another epoch means nothing
    in this log: everything that it has is delivered, and the gap says that there may have been more.
    """
    if start == "new":
        return last_seq, None
    if start == "first":
        return 0, None
    if isinstance(start, int):
        return start - 1, None
    if cursor.epoch is not None and cursor.epoch != epoch:
        return 0, Gap(cursor.seq + 1, None, "epoch")
    return cursor.seq, None
