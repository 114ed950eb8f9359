"""Beginning the delivery of a channel without stored messages."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from artcafe.delivery.delivery import Delivery
from artcafe.delivery.delivery_services import Opened
from artcafe.delivery.hub import Hub
from artcafe.delivery.peer import Peer
from artcafe.fabric.channel_kinds import KINDS
from artcafe.model import Channel, ChannelId

OPEN_S: Final = 5.0
"""Longest wait for the feed of the channel."""


async def begin_without_log(
    hub: Hub, peer: Peer, deliveries: dict[ChannelId, Delivery], channel: Channel, receiver: str
) -> Opened:
    """Add a delivery to a connection's. After the return, every message is delivered."""
    feed = hub.feed(channel.tenant_id, channel.id, KINDS[channel.type], channel.handle)
    delivery = deliveries[channel.id] = Delivery(peer, feed, 0, None, None, receiver)
    with contextlib.suppress(TimeoutError):  # while NATS is away: the delivery begins when it is back
        async with asyncio.timeout(OPEN_S):
            await feed.opened.wait()
    if deliveries.get(channel.id) is delivery and not delivery.is_member:
        feed.join(delivery)
    return Opened(channel.id)
