"""The queue channels of one agent's connection: each shares its messages with the other holders of the channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from artcafe.delivery.delivery import find_in
from artcafe.delivery.delivery_metrics import count_deliveries
from artcafe.delivery.peer import Peer
from artcafe.delivery.queue_feed import QueueFeed
from artcafe.delivery.queue_holder import Holder
from artcafe.delivery.queue_hub import QueueHub
from artcafe.errors import Invalid, NotSubscribed
from artcafe.fabric.channel_kinds import KINDS
from artcafe.fabric.tenant_log import StoredMessage
from artcafe.fabric.work_queue import QueuedMessage
from artcafe.model import Access, Channel, ChannelId, ChannelType, QueueSettings, Seq, TenantId
from artcafe.services.record_cache import RecordCache
from artcafe.wire.frames import Start

DEFAULT_UNACKED: Final = 1
"""The window of a subscription without a `max_unacked`: a message only when the one before has ended."""

_KIND: Final = KINDS[ChannelType.QUEUE]


class QueueDelivery(Holder):
    """One connection in one queue channel. Unread messages wait in its socket's buffer, up to its window."""

    __slots__ = ("_peer", "feed")

    def __init__(self, peer: Peer, feed: QueueFeed, max_unacked: int, receiver: str) -> None:
        super().__init__(receiver, max_unacked)
        self._peer, self.feed = peer, feed

    @property
    def is_open(self) -> bool:
        return not self._peer.is_paused

    def hand(self, messages: Sequence[QueuedMessage]) -> None:
        stored = [StoredMessage(each.seq, None, each.envelope, None, each.deliveries) for each in messages]
        self._peer.write(b"".join(self._peer.encoding.messages(self.feed.channel, self.feed.handle, _KIND, None, stored)))
        count_deliveries(self.feed.tenant_id, len(stored))


class QueueDeliveries:
    """The deliveries of one connection from queue channels, by channel."""

    __slots__ = ("_deliveries", "_hub", "_peer")

    def __init__(self, hub: QueueHub, peer: Peer) -> None:
        self._hub, self._peer = hub, peer
        self._deliveries: dict[ChannelId, QueueDelivery] = {}

    def __contains__(self, channel_id: object) -> bool:
        return channel_id in self._deliveries

    def __len__(self) -> int:
        return len(self._deliveries)

    @property
    def channels(self) -> list[ChannelId]:
        return list(self._deliveries)

    def begin(self, channel: Channel, max_unacked: int | None, receiver: str) -> None:
        """Begin a delivery, or give the current one another window: it keeps its messages. Raises `Unavailable`."""
        window = DEFAULT_UNACKED if max_unacked is None else max_unacked
        delivery = self._deliveries.get(channel.id)
        if delivery is None:
            feed = self._hub.feed(channel.tenant_id, channel.id, channel.queue or QueueSettings())
            delivery = self._deliveries[channel.id] = QueueDelivery(self._peer, feed, window, receiver)
            feed.join(delivery)
        elif max_unacked is not None:
            delivery.max_unacked = window
            delivery.feed.update(delivery)
        self._deliveries[channel.id].feed.handle = channel.handle

    def find(self, channel: str) -> QueueDelivery | None:
        """Return the delivery of the channel with this id or handle."""
        return find_in(self._deliveries, channel)

    def nak(self, channel: str, seq: Seq, delay_s: float | None, *, is_dead: bool) -> None:
        """Give a message back, or move it to the dead-letter channel. Raises `NotSubscribed` and `NotHeld`."""
        delivery = self._of(channel)
        if is_dead:
            delivery.feed.reject(delivery, seq)
        else:
            delivery.feed.nak(delivery, seq, delay_s)

    async def extend(self, channel: str, seq: Seq) -> int:
        """Let a message's deadline begin again, and return its seconds. Raises `NotSubscribed`, `NotHeld` and `Unavailable`."""
        delivery = self._of(channel)
        await delivery.feed.extend(delivery, seq)
        return delivery.feed.settings.ack_wait_s

    def resume(self) -> None:
        """Take messages again after the peer has read its buffer."""
        for delivery in self._deliveries.values():
            delivery.feed.update(delivery)

    def end(self, channel_id: ChannelId) -> None:
        """End a delivery and give back its messages. Ignore a channel without one."""
        delivery = self._deliveries.pop(channel_id, None)
        if delivery is not None:
            delivery.feed.leave(delivery)
            self._hub.release(delivery.feed)

    def _of(self, channel: str) -> QueueDelivery:
        delivery = self.find(channel)
        if delivery is None:
            raise NotSubscribed(channel)
        return delivery


def check_start(channel: Channel, start: Start) -> None:
    """Raise `Invalid` for a start of a queue: all its subscribers share one position."""
    if KINDS[channel.type].is_shared and start != "cursor":
        raise Invalid("from", "must be 'cursor' or omitted for a queue channel, whose subscribers share one position")


async def check_start_in_open(record_cache: RecordCache, tenant_id: TenantId, channel_id: ChannelId, start: Start) -> None:
    """Raise `Invalid` for a start in an open queue: the agent itself would create the subscription."""
    if start != "cursor":
        channel = await record_cache.subscribed(tenant_id, channel_id)
        if channel.access is Access.OPEN:
            check_start(channel, start)
