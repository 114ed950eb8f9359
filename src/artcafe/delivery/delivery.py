"""One channel on one connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

from artcafe.delivery.feed import Feed
from artcafe.delivery.feed_member import FeedMember
from artcafe.delivery.peer import Peer
from artcafe.fabric.position_exchange import AgentPosition
from artcafe.model import AgentId, ChannelId, Cursor, Epoch, Seq


class Delivery(FeedMember):
    """One channel on one connection: its position, the channel's feed, and the last ack."""

    __slots__ = ("acked", "feed", "moves", "start")

    def __init__(self, peer: Peer, feed: Feed, start: Seq, epoch: Epoch | None, max_unacked: int | None, receiver: str) -> None:
        super().__init__(peer, start, epoch, max_unacked, receiver)
        self.feed = feed
        self.acked = self.start = start
        self.moves = 0
        """How often the subscription's cursor had been moved by requests when this delivery began (`Cursor.moves`)."""

    @property
    def sent_up_to(self) -> Seq:
        """The highest sequence sent to this connection, or its start position."""
        return max(self.sent, self.feed.flushed) if self.is_member else self.sent

    def cursor(self) -> Cursor:
        """Return the position of this connection, to continue after a pause of the subscription."""
        return Cursor(epoch=self.epoch, seq=self.sent, moves=self.moves)

    def continue_from(self, before: Delivery) -> None:
        """Take over the acks and the start of a withheld delivery of this connection."""
        self.acked, self.unacked, self.start = min(before.acked, self.acked), before.unacked, before.start

    def is_before(self, cursor: Cursor) -> bool:
        """Return whether a request has moved the subscription's cursor since this delivery began."""
        return self.feed.kind.has_cursors and self.moves < cursor.moves

    def ack(self, seq: Seq) -> Cursor:
        """Record everything up to `seq` as acknowledged, free the window, and return the cursor."""
        self.acked = seq
        while self.unacked and self.unacked[0] <= seq:
            self.unacked.popleft()
        # The log may have been empty when this delivery began. It has an epoch now, known to the feed before the first message.
        self.epoch = self.epoch or self.feed.lineage.epoch
        assert self.epoch is not None
        return Cursor(epoch=self.epoch, seq=seq, moves=self.moves)

    def position(self, agent_id: AgentId) -> AgentPosition | None:
        """Return what the connection was sent and the last ack, for receipts; None in a channel without cursors."""
        if not self.feed.kind.has_cursors:
            return None
        acked = self.acked if self.acked > self.start else 0  # The start may be a position without an ack.
        epoch = self.epoch or self.feed.lineage.epoch
        return AgentPosition(self.feed.channel, agent_id, epoch, acked, [(self.start, self.sent_up_to)])


class _Feed(Protocol):
    @property
    def handle(self) -> str | None: ...


class _InChannel(Protocol):
    @property
    def feed(self) -> _Feed: ...


DeliveryT = TypeVar("DeliveryT", bound=_InChannel)


def find_in(deliveries: Mapping[ChannelId, DeliveryT], channel: str) -> DeliveryT | None:
    """Return the delivery of the channel with this id, or else with this handle, without a lookup elsewhere."""
    found = deliveries.get(ChannelId(channel))
    return found or next((each for each in deliveries.values() if each.feed.handle == channel), None)
