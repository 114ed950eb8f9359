"""The newest messages of a tenant's `live` channels that this server sent or received. Nothing stores them, so only a server that
saw a message can find it by its id."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from artcafe.model import ChannelId
from artcafe.wire.envelopes import EnvelopeHead, head_text, parse_head

MOST: Final = 4096
"""Messages kept for each tenant, at about 0.4 KB each: 1.6 MB for a tenant with busy `live` channels."""
_ID: Final = slice(len(b'{"message_id":"'), len(b'{"message_id":"msg_') + 26)
"""The place of the message id in an envelope: the server makes ids of this length only."""


class LiveMessage(NamedTuple):
    """A message that was sent in a `live` channel."""

    channel: ChannelId
    head: EnvelopeHead


class RecentLiveMessages:
    """Keeps the heads of messages by id, and drops the oldest above `most`."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._heads: OrderedDict[bytes, tuple[ChannelId, bytes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._heads)

    def add(self, channel: ChannelId, envelope: bytes) -> None:
        """Keep a message. Called once for each message and server, so it parses nothing."""
        self._heads[envelope[_ID]] = channel, head_text(envelope)
        if len(self._heads) > self._most:
            self._heads.popitem(last=False)

    def find(self, message_id: str) -> LiveMessage | None:
        """Return the message of this id, or None if it was never seen here or has been dropped."""
        channel, head = self._heads.get(message_id.encode(), (None, b""))
        return None if channel is None else LiveMessage(channel, parse_head(head))
