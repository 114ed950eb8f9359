"""Beginning the delivery of a channel with stored messages."""

from __future__ import annotations

from collections.abc import Callable

from artcafe.delivery.delivery import Delivery
from artcafe.delivery.delivery_services import Opened
from artcafe.delivery.hub import Hub
from artcafe.delivery.peer import Peer
from artcafe.fabric.channel_kinds import KINDS
from artcafe.model import Channel, Cursor
from artcafe.rules import start_position
from artcafe.wire.frames import Start


async def begin_in_log(
    hub: Hub, peer: Peer, channel: Channel, start: Start, cursor: Callable[[], Cursor], max_unacked: int | None, receiver: str
) -> tuple[Delivery, Opened]:
    """Return a delivery, to be added to the connection's and fed by its backlog, and its start.

    `cursor` is called again at the end: acks may move it meanwhile. Raises `Unavailable`.
    """
    feed = hub.feed(channel.tenant_id, channel.id, KINDS[channel.type], channel.handle)
    delivery: Delivery | None = None
    try:
        tenant_log = await feed.tenant_fabric.connected_log()
        state = await tenant_log.state_for(cursor())
        lineage, newest = (state.lineage, state.last_seq) if state else (start_position.LogLineage(None), 0)
        last = await tenant_log.last_seq_of(channel.id) if state else 0
        removed_to = await hub.removed_to(channel.tenant_id, channel.id)
        position = cursor()
        seq, gap = start_position.resolve(start, position, lineage, newest, removed_to)
        delivery = Delivery(peer, feed, seq, lineage.epoch, max_unacked, receiver)
        delivery.moves = position.moves
        if 0 < last <= seq:
            delivery.anchor, delivery.has_anchor = last, True
    finally:
        if delivery is None:
            hub.release(feed)
    if gap is not None:
        # An ack of the position before the next message acknowledges the gap, and moves the cursor over it.
        delivery.acked = min(gap.from_, seq) - 1
    return delivery, Opened(channel.id, lineage.epoch, seq, last, gap)
