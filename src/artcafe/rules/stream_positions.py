"""The ids of the events of streams, from which a client resumes with `Last-Event-ID`.

In the stream of one channel an id is `{epoch}:{seq}`, which anybody can read and write.
"""

from __future__ import annotations

import re
from typing import Final

from artcafe.errors import BadEventId
from artcafe.model import Cursor, Epoch, Seq

_ID: Final = re.compile(r"([0-9A-Za-z]{0,64}):([0-9]{1,16})", re.ASCII)


def event_id(epoch: Epoch | None, seq: Seq) -> str:
    """Return the id of an event in a channel's stream. Without an epoch, it is the position before the log's first message."""
    return f"{epoch or ''}:{seq}"


def parse_event_id(text: str) -> Cursor:
    """Return the position in the id of an event in a channel's stream. Raises BadEventId."""
    found = _ID.fullmatch(text)
    if found is None:
        raise BadEventId("is no id of an event of this stream, which is an epoch, a colon and a sequence")
    epoch, seq = Epoch(found[1]) if found[1] else None, int(found[2])
    if epoch is None and seq:
        raise BadEventId("has a sequence without the epoch of its log")
    return Cursor(epoch=epoch, seq=seq)
