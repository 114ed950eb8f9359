"""One channel on one connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

from artcafe.delivery.feed import Feed
from artcafe.delivery.feed_member import FeedMember
from artcafe.delivery.peer import Peer
from artcafe.model import ChannelId, Epoch, Seq


class Delivery(FeedMember):
    """A connection's place in a channel, with the channel's feed and the last ack."""

    __slots__ = ("acked", "feed")

    def __init__(self, peer: Peer, feed: Feed, start: Seq, epoch: Epoch | None, max_unacked: int | None, receiver: str) -> None:
        super().__init__(peer, start, epoch, max_unacked, receiver)
        self.feed = feed
        self.acked = start

    @property
    def sent_up_to(self) -> Seq:
        """The highest sequence sent to this connection, or its start position."""
        return max(self.sent, self.feed.flushed) if self.is_member else self.sent

    def ack(self, seq: Seq) -> None:
        """Record everything up to `seq` as acknowledged, and free the window."""
        self.acked = seq
        while self.unacked and self.unacked[0] <= seq:
            self.unacked.popleft()


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
