"""The ids of the events of streams, from which a client resumes with `Last-Event-ID`.

In the stream of one channel an id is `{epoch}:{seq}`, which anybody can read and write. In that of an agent's inbox it has the
position in each channel of which the stream has sent something, sealed for the agent: a client cannot claim to have been sent
anything else.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from typing import Final

from artcafe.errors import BadCursor, BadEventId
from artcafe.model import AgentId, ChannelId, Cursor, Epoch, Seq, TenantId
from artcafe.rules import pages

_ID: Final = re.compile(r"([0-9A-Za-z]{0,64}):([0-9]{1,16})", re.ASCII)
_TAG_BYTES: Final = 6
"""Of a channel's hash in a sealed position. Ids themselves would take 4 KB for 128 channels, and each event has a position."""
_PLACE: Final = struct.Struct(f">{_TAG_BYTES}sQH")
"""A channel's hash, the last sequence sent, and the number of moves: the position in 129 channels is one of 3.8 KB."""
_MOST_MOVES: Final = 0xFFFF


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


class InboxPosition:
    """How far one stream of an agent's inbox was sent, in each of its channels. `key` has 32 bytes."""

    def __init__(self, key: bytes, tenant_id: TenantId, agent_id: AgentId) -> None:
        self._key, self._tenant_id, self._bound_to = key, tenant_id, f"stream {agent_id}"
        self._epoch: Epoch | None = None
        self._seqs: dict[bytes, tuple[Seq, int]] = {}
        """For each channel, by its tag: the last sequence sent, and how often requests had moved the subscription's cursor."""

    def resume(self, text: str) -> None:
        """Continue from the id of an event that an earlier stream sent. Raises BadEventId for any other text."""
        try:
            epoch, _, places = pages.open(self._key, self._tenant_id, self._bound_to, text).partition(" ")
        except BadCursor:
            raise BadEventId("is no id of an event that this agent's inbox has sent") from None
        packed = base64.b64decode(places)
        self._epoch = Epoch(epoch) if epoch else None
        self._seqs = {tag: (seq, moves) for tag, seq, moves in _PLACE.iter_unpack(packed)}

    def start(self, channel_id: ChannelId, cursor: Cursor) -> Cursor:
        """Return where the delivery of a channel begins: at its cursor, or after what was sent above it.

        A request that has moved the cursor since takes the place of what was sent before. Of positions in two logs, the cursor
        counts, since acks are never lost: messages may be repeated.
        """
        seq, moves = self._seqs.get(_tag(channel_id), (0, 0))
        if not seq or moves < min(cursor.moves, _MOST_MOVES) or cursor.epoch not in (None, self._epoch):
            return cursor
        return Cursor(epoch=self._epoch, seq=max(seq, cursor.seq), moves=cursor.moves)

    def advance(self, channel_id: ChannelId, epoch: Epoch | None, seq: Seq, moves: int) -> None:
        """Record everything of a channel up to `seq` as sent."""
        if epoch != self._epoch:
            self._epoch, self._seqs = epoch, {}
        self._seqs[_tag(channel_id)] = (seq, min(moves, _MOST_MOVES))

    def text(self) -> str:
        """Return the id of an event."""
        packed = b"".join(_PLACE.pack(tag, seq, moves) for tag, (seq, moves) in self._seqs.items())
        position = f"{self._epoch or ''} {base64.b64encode(packed).decode()}"
        return pages.seal(self._key, self._tenant_id, self._bound_to, position)


def _tag(channel_id: ChannelId) -> bytes:
    return hashlib.blake2b(channel_id.encode(), digest_size=_TAG_BYTES).digest()
