"""What one agent's socket receives: which of its subscriptions are delivered here, from where, and what it has acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from typing import Final

from artcafe.delivery.backlog import Backlog, Spawn
from artcafe.delivery.hub import Delivery
from artcafe.errors import (
    AckBeyondSent,
    ChannelNotFound,
    Conflict,
    Forbidden,
    NotSubscribed,
    SubscriptionLimit,
)
from artcafe.gateway.desk import MAX_SUBSCRIPTIONS, Desk, Peer
from artcafe.model import (
    AgentPrincipal,
    ChannelId,
    ChannelType,
    Cursor,
    Epoch,
    Permission,
    Seq,
    Subscription,
    SubscriptionStatus,
)
from artcafe.rules import start_position
from artcafe.wire import frames, replies

LIVE_S: Final = 5.0
"""How long the answer to `subscribe` waits until a `live` channel is followed."""

_NOT_PERMITTED: Final = "receive this channel: its subscription lacks the permission 'receive', which a member can give it"

_NONE: Final[frozenset[ChannelId]] = frozenset()
"""Shared empty set: most sockets mute nothing, and an empty set costs 0.2 KB each."""


class Subscriber:
    """The deliveries of one agent's socket. Only its connection's worker begins any, so that no channel is ever begun twice;
    whatever ends one comes at any time."""

    __slots__ = (
        "_beginning",
        "_desk",
        "_due",
        "_is_reading",
        "_is_stale",
        "_is_withdrawn",
        "_left_out",
        "_muted",
        "_peer",
        "_principal",
        "_withheld",
        "backlog",
        "deliveries",
        "max_unacked",
    )

    def __init__(self, desk: Desk, peer: Peer, deliveries: dict[ChannelId, Delivery], spawn: Spawn) -> None:
        """`deliveries` are the connection's; `spawn` starts work under its supervisor."""
        self._desk, self._peer, self.deliveries = desk, peer, deliveries
        self.backlog = Backlog(peer, deliveries, spawn)
        self._principal: AgentPrincipal | None = None
        self.max_unacked: int | None = None
        """The window of the subscriptions that start by themselves."""
        self._muted = _NONE
        """Channels that this socket unsubscribed from: their rows stand, and start nothing here."""
        self._due: dict[ChannelId, Subscription] = {}
        """Active subscriptions whose delivery is still to begin."""
        self._withheld: dict[ChannelId, Delivery] = {}
        """Deliveries that ended because their subscription was paused: they go on where they stopped."""
        self._left_out = _NONE
        """Active subscriptions that are not delivered here, since there are more than a connection may have."""
        self._is_reading = self._is_stale = False
        """Whether the subscriptions are being read, and one has changed since that began."""
        self._beginning: ChannelId | None = None
        self._is_withdrawn = False
        """Whether what is being begun has been withdrawn meanwhile."""

    def of(self, principal: AgentPrincipal) -> None:
        """Note which agent's socket it is; its proof may be a newer one than before."""
        self._principal = principal

    @property
    def principal(self) -> AgentPrincipal:
        assert self._principal is not None, "nothing is received before connect has succeeded"
        return self._principal

    # --- by itself ---------------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Read the agent's subscriptions, and note which deliveries are to begin. Raises `Unavailable`."""
        self._is_reading = self._is_stale = True
        try:
            while self._is_stale:
                self._is_stale = False
                rows = await self._desk.subscriptions.for_connect(self.principal.tenant_id, self.principal.agent_id)
        finally:
            self._is_reading = self._is_stale = False
        self.apply_all(rows)

    def apply_all(self, rows: Iterable[Subscription]) -> None:
        """Deliver these subscriptions, which are all that let the agent receive now, and no others."""
        self._is_stale = self._is_reading
        active = {row.channel_id: row for row in rows}
        begun = [] if self._beginning is None else [self._beginning]
        for channel_id in {*self.deliveries, *self._due, *begun} - set(active):
            self._withhold(channel_id)
        self._left_out = _NONE
        for row in active.values():
            self.apply(row.channel_id, row)

    def apply(self, channel_id: ChannelId, row: Subscription | None) -> None:
        """Deliver a channel, or end its delivery, as its subscription's row is now. None: there is no row any more."""
        self._is_stale = self._is_reading
        if row is not None and row.allows(Permission.RECEIVE):
            if channel_id not in self.deliveries and channel_id not in self._muted:
                self._due[channel_id] = row
            return
        self._withhold(channel_id)
        if row is None:
            self._withheld.pop(channel_id, None)

    @property
    def is_due(self) -> bool:
        """Whether a delivery is to begin."""
        return bool(self._due)

    @property
    def has_room(self) -> bool:
        """Whether a subscription that was left out could be delivered now."""
        return bool(self._left_out) and len(self.deliveries) + len(self._due) < MAX_SUBSCRIPTIONS

    async def begin_next(self) -> None:
        """Begin the next delivery that is due. Raises `Unavailable`, and it is still due then."""
        channel_id, row = next(iter(self._due.items()))
        if channel_id not in self.deliveries:
            if len(self.deliveries) >= MAX_SUBSCRIPTIONS:
                self._leave_out()
                return
            # A channel that is not found is being deleted, and its subscriptions with it.
            with contextlib.suppress(ChannelNotFound), self._begun(channel_id):
                await self._begin_from(channel_id, row)
        if self._due.get(channel_id) is row:
            del self._due[channel_id]
        if not self._due:
            self._due = {}  # a dict that was filled keeps its table, which costs an idle agent 0.2 KB

    async def _begin_from(self, channel_id: ChannelId, row: Subscription) -> None:
        before = self._withheld.get(channel_id)
        if before is None:
            await self._begin(channel_id, "cursor", self._desk.cursors.newest(row), self.max_unacked)
            return
        await self._begin(channel_id, "cursor", Cursor(epoch=before.epoch, seq=before.sent), before.max_unacked)
        delivery = self.deliveries.get(channel_id)
        if delivery is not None and delivery.epoch == before.epoch:
            delivery.acked, delivery.unacked = min(before.acked, delivery.acked), before.unacked
        self._withheld.pop(channel_id, None)

    def _leave_out(self) -> None:
        """Tell the agent which of its subscriptions are too many for this connection."""
        left_out = sorted(channel_id for channel_id in self._due if channel_id not in self.deliveries)
        self._due.clear()
        self._left_out |= set(left_out)
        self._peer.send(replies.error(SubscriptionLimit(MAX_SUBSCRIPTIONS), channels=left_out))

    # --- by commands -------------------------------------------------------------------------------------------------

    async def subscribe(self, wanted: frames.Subscribe) -> replies.SubscribeReply:
        """Begin a delivery, in place of the one there is. Raises what refuses it.

        One of a live channel goes on: it has no other place to begin, and what came in between would be missed.
        """
        if len(self.deliveries) >= MAX_SUBSCRIPTIONS and wanted.channel not in self.deliveries:
            raise SubscriptionLimit(MAX_SUBSCRIPTIONS)
        channel_id = ChannelId(wanted.channel)
        with self._begun(channel_id):
            row, _ = await self._desk.subscriptions.put(self.principal, channel_id, self.principal.agent_id)
            if row.status is not SubscriptionStatus.ACTIVE:
                raise Conflict("this subscription is paused; resume it first, by PATCH of its status to active")
            if not row.allows(Permission.RECEIVE):
                raise Forbidden(_NOT_PERMITTED, "an agent")
            self._muted -= {channel_id}
            known = self.deliveries.get(channel_id)
            if known is not None and known.feed.is_live:
                return replies.SubscribeReply(None, None, None)
            self._end_delivery(channel_id)
            self._withheld.pop(channel_id, None)
            return await self._begin(channel_id, wanted.start, self._desk.cursors.newest(row), wanted.max_unacked)

    def unsubscribe(self, wanted: frames.Unsubscribe) -> replies.UnsubscribeReply:
        """End a delivery on this socket; its subscription stands. Raises NotSubscribed."""
        channel_id = ChannelId(wanted.channel)
        if channel_id not in self.deliveries:
            raise NotSubscribed(wanted.channel)
        self._muted |= {channel_id}
        self._end_delivery(channel_id)
        return replies.UnsubscribeReply(channel_id)

    def acknowledge(self, ack: frames.Ack) -> None:
        """Move the cursor to `ack`, also of a subscription that was paused after the message was sent."""
        channel_id = ChannelId(ack.channel)
        delivery = self.deliveries.get(channel_id) or self._withheld.get(channel_id)
        if delivery is None:
            self._peer.send(replies.error(NotSubscribed(ack.channel)))
        elif ack.seq > delivery.sent_up_to:
            self._peer.send(replies.error(AckBeyondSent(ack.channel, ack.seq, delivery.sent_up_to)))
        elif ack.seq > delivery.acked:
            delivery.settle(ack.seq)
            self.backlog.soon()
            # A log that had not begun with this delivery has by now: its feed knew of it before there was anything to send.
            delivery.epoch = delivery.epoch or delivery.feed.life.epoch
            assert delivery.epoch is not None
            self._move_cursor(channel_id, delivery.epoch, ack.seq)

    def end(self) -> None:
        """Deliver nothing more. May be repeated."""
        self.backlog.stop()
        self._due.clear()
        for channel_id in list(self.deliveries):
            self._end_delivery(channel_id)

    # --- deliveries --------------------------------------------------------------------------------------------------

    async def _begin(
        self, channel_id: ChannelId, start: frames.Start, cursor: Cursor, max_unacked: int | None
    ) -> replies.SubscribeReply:
        """Make the delivery, to be fed from the log until it is level. Raises `ChannelNotFound` and `Unavailable`."""
        tenant_id = self.principal.tenant_id
        if (await self._desk.record_cache.channel(tenant_id, channel_id)).type is ChannelType.LIVE:
            return await self._begin_live(channel_id)
        feed = self._desk.hub.feed(tenant_id, channel_id)
        room_log = feed.tenant_fabric.log
        delivery: Delivery | None = None
        try:
            await feed.tenant_fabric.connection.wait_up()
            state = await room_log.state_for(cursor)
            life, newest = (state.life, state.last_seq) if state else (start_position.LogLineage(None), 0)
            last = await room_log.last_seq_of(channel_id) if state else 0
            removed_to = await self._desk.hub.removed_to(tenant_id, channel_id)
            behind, gap = start_position.resolve(start, cursor, life, newest, removed_to)
            delivery = Delivery(self._peer, feed, behind, life.epoch, max_unacked)
            if 0 < last <= behind:
                delivery.anchor, delivery.rooted = last, True
        finally:
            if delivery is None:
                self._desk.hub.let_go(feed)
        self.deliveries[channel_id] = delivery
        if gap is not None:
            # An ack of where delivery goes on says that the gap was heard, and moves the cursor over it.
            delivery.acked = min(gap.from_, behind) - 1
            self._peer.send(replies.gap(channel_id, gap, life.epoch))
        return replies.SubscribeReply(life.epoch, behind, last, gap)

    async def _begin_live(self, channel_id: ChannelId) -> replies.SubscribeReply:
        """Makes the delivery of a channel of which nothing is stored. Once answered, whatever comes is delivered."""
        feed = self._desk.hub.feed(self.principal.tenant_id, channel_id, is_live=True)
        delivery = self.deliveries[channel_id] = Delivery(self._peer, feed, 0, None, None)
        with contextlib.suppress(TimeoutError):  # without NATS it begins by itself, later
            async with asyncio.timeout(LIVE_S):
                await feed.opened.wait()
        if self.deliveries.get(channel_id) is delivery and not delivery.member:
            feed.join(delivery)
        return replies.SubscribeReply(None, None, None)

    @contextlib.contextmanager
    def _begun(self, channel_id: ChannelId) -> Iterator[None]:
        """Surround the beginning of a delivery, and end it again where its subscription was withdrawn meanwhile."""
        self._beginning, self._is_withdrawn = channel_id, False
        try:
            yield
        finally:
            self._beginning = None
            if self._is_withdrawn:
                self._withhold(channel_id)

    def _withhold(self, channel_id: ChannelId) -> None:
        """End a delivery whose subscription lets the agent receive no more; should it do so again, delivery goes on here."""
        self._due.pop(channel_id, None)
        self._is_withdrawn = self._is_withdrawn or channel_id == self._beginning
        delivery = self._end_delivery(channel_id)
        if delivery is not None and not delivery.feed.is_live:
            self._withheld[channel_id] = delivery

    def _end_delivery(self, channel_id: ChannelId) -> Delivery | None:
        delivery = self.deliveries.pop(channel_id, None)
        if delivery is not None:
            delivery.feed.leave(delivery)
            self._desk.hub.let_go(delivery.feed)
        return delivery

    def _move_cursor(self, channel_id: ChannelId, epoch: Epoch, seq: Seq) -> None:
        principal = self.principal
        self._desk.cursors.acknowledge(principal.tenant_id, channel_id, principal.agent_id, Cursor(epoch=epoch, seq=seq))
