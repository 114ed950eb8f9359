"""One agent's deliveries on one connection of any transport: begun at the cursor, resumed, acknowledged and ended.

A transport makes a `Subscriber` for each connection of an agent, passes it changes of the agent's subscriptions, and calls
`begin_next` from one task, in order with the agent's commands. People have no subscriptions: see `delivery.watcher`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final

from artcafe.delivery.backlog import Backlog, Spawn
from artcafe.delivery.delivery import Delivery, find_in
from artcafe.delivery.delivery_services import NOT_PERMITTED, DeliveryServices, Opened
from artcafe.delivery.live_delivery import begin_without_log
from artcafe.delivery.log_delivery import begin_in_log
from artcafe.delivery.own_inbox import OwnInbox
from artcafe.delivery.peer import MAX_SUBSCRIPTIONS, Peer
from artcafe.delivery.queue_deliveries import QueueDeliveries, check_start, check_start_in_open
from artcafe.errors import (
    AckBeyondSent,
    ChannelNotFound,
    Conflict,
    Forbidden,
    NotSubscribed,
    OurFault,
    SubscriptionLimit,
)
from artcafe.fabric.channel_kinds import KINDS
from artcafe.fabric.inbox_router import InboxWaiter
from artcafe.fabric.position_exchange import AgentPosition
from artcafe.model import AgentPrincipal, ChannelId, Cursor, Permission, Seq, Subscription, SubscriptionStatus
from artcafe.rules.inboxes import InboxSubscription
from artcafe.wire.frames import Start

_NONE: Final[frozenset[ChannelId]] = frozenset()
"""Shared empty set: most connections mute nothing, and an empty set costs 0.2 KB each."""


class Subscriber:
    """The deliveries of one agent's connection. One task of the connection begins them, so no channel begins twice. They may end
    at any time."""

    __slots__ = (
        "_beginning",
        "_deliveries",
        "_due",
        "_has_failed",
        "_inbox",
        "_is_reading",
        "_is_revoked",
        "_is_stale",
        "_left_out",
        "_max_unacked",
        "_muted",
        "_peer",
        "_queues",
        "_services",
        "_takes_queues",
        "_withheld",
        "backlog",
        "principal",
    )

    def __init__(
        self,
        services: DeliveryServices,
        peer: Peer,
        principal: AgentPrincipal,
        deliveries: dict[ChannelId, Delivery],
        spawn: Spawn,
        max_unacked: int | None,
        waiter: InboxWaiter,
        takes_queues: bool = True,
    ) -> None:
        """`deliveries`: the connection's, changed here. `max_unacked`: the window of deliveries begun without a command.

        `waiter` calls `wake_inbox` of this object, and then `begin_next`. `takes_queues`: whether it is sent messages of queues.
        """
        self._services, self._peer, self.principal, self._deliveries = services, peer, principal, deliveries
        self._inbox = OwnInbox(services.hub, principal, waiter)
        self.backlog = Backlog(peer, deliveries, spawn)
        self._max_unacked, self._takes_queues = max_unacked, takes_queues
        self._queues: QueueDeliveries | None = None
        """The deliveries of queue channels, None for most agents. `_deliveries` has those of all others."""
        self._muted = _NONE
        """Channels unsubscribed on this connection: their subscriptions exist, and begin nothing here."""
        self._due: dict[ChannelId, Subscription] = {}
        """Active subscriptions without a delivery yet."""
        self._withheld: dict[ChannelId, Delivery] = {}
        """Deliveries ended by a pause of their subscription: a resumed one continues at the same position."""
        self._left_out = _NONE
        """Active subscriptions above `MAX_SUBSCRIPTIONS`, not delivered on this connection."""
        self._is_reading = self._is_stale = False
        """Whether the subscriptions are being read, and whether one has changed since the read began."""
        self._has_failed = False
        """Whether a due delivery could not begin, so that the rows in `_due` may be old."""
        self._beginning: ChannelId | None = None
        self._is_revoked = False
        """Whether the subscription of `_beginning` was revoked meanwhile."""

    def renew(self, principal: AgentPrincipal, max_unacked: int | None) -> None:
        """Take the principal of a newer authentication, and its window unless it is None."""
        self.principal = principal
        self._max_unacked = self._max_unacked if max_unacked is None else max_unacked

    # --- subscriptions of the tables ---------------------------------------------------------------------------------

    async def read_subscriptions(self) -> None:
        """Read the agent's subscriptions, and apply them. Raises `Unavailable`."""
        self._is_reading = self._is_stale = True
        try:
            while self._is_stale:
                self._is_stale = False
                rows = await self._services.subscriptions.for_connect(self.principal.tenant_id, self.principal.agent_id)
        finally:
            self._is_reading = self._is_stale = False
        self.apply_all(rows)

    def apply_all(self, rows: Iterable[Subscription]) -> None:
        """Deliver these subscriptions and no others: the agent has no further permission to receive."""
        self._is_stale = self._is_reading
        active = {row.channel_id: row for row in rows}
        begun = [] if self._beginning is None else [self._beginning]
        queues = [] if self._queues is None else self._queues.channels
        for channel_id in {*self._deliveries, *queues, *self._due, *begun} - set(active):
            self._withhold(channel_id)
        self._left_out = _NONE
        for row in active.values():
            self.apply(row.channel_id, row)

    def apply(self, channel_id: ChannelId, row: Subscription | None) -> None:
        """Make a channel's delivery due, or end it, according to its subscription. None: the subscription was deleted."""
        self._is_stale = self._is_reading
        if row is not None and row.allows(Permission.RECEIVE):
            self._end_moved(row)
            if self._is_delivered(channel_id) or channel_id in self._muted:
                return
            if not isinstance(row, InboxSubscription) or channel_id in self._withheld:
                self._due[channel_id] = row
            elif channel_id not in self._due:
                self._inbox.wait(row, self.start_of(row))
            return
        self._withhold(channel_id)
        if row is None:
            self._withheld.pop(channel_id, None)

    def wake_inbox(self) -> None:
        """Make the delivery of the agent's inbox due. It begins at the inbox's position at the start of its wait."""
        self._inbox.wake(self._due)

    def start_of(self, row: Subscription) -> Cursor:
        """Return the start of a subscription's delivery on this connection."""
        return self._services.cursors.newest(row)

    def _is_delivered(self, channel_id: ChannelId) -> bool:
        return channel_id in self._deliveries or (self._queues is not None and channel_id in self._queues)

    @property
    def _delivered(self) -> int:
        """The number of channels received by this connection. The agent's inbox is not counted."""
        queues = 0 if self._queues is None else len(self._queues)
        return len(self._deliveries) - (self._inbox.id in self._deliveries) + queues

    def _end_moved(self, row: Subscription) -> None:
        """End the delivery of a subscription if a request has moved its cursor since it began."""
        if (delivery := self._deliveries.get(row.channel_id)) is not None and delivery.is_before(row.cursor):
            self._end_delivery(row.channel_id)
        if (withheld := self._withheld.get(row.channel_id)) is not None and withheld.is_before(row.cursor):
            del self._withheld[row.channel_id]

    @property
    def is_due(self) -> bool:
        """Whether `begin_next` has a delivery to begin."""
        return bool(self._due)

    @property
    def can_add_left_out(self) -> bool:
        """Whether a subscription above `MAX_SUBSCRIPTIONS` could be delivered now."""
        due = len(self._due) - (self._inbox.id in self._due)
        return bool(self._left_out) and self._delivered + due < MAX_SUBSCRIPTIONS

    async def begin_next(self) -> None:
        """Begin the next due delivery. Raises `Unavailable`, and the delivery stays due."""
        if self._has_failed:
            await self._read_again()
            return
        channel_id, row = next(iter(self._due.items()))
        self._end_moved(row)  # A delivery may have begun since, from an older row.
        if not self._is_delivered(channel_id):
            if self._delivered >= MAX_SUBSCRIPTIONS and channel_id != self._inbox.id:
                self._leave_out()
                return
            try:
                with self._guard_begin(channel_id):
                    await self._resume(channel_id, row)
            except ChannelNotFound:
                pass  # The channel is being deleted, together with its subscriptions.
            except OurFault:
                self._has_failed = True
                raise
        if self._due.get(channel_id) is row:
            del self._due[channel_id]
        if not self._due:
            self._due = {}  # an emptied dict keeps its table: 0.2 KB of an idle agent

    async def _read_again(self) -> None:
        """Read the subscriptions once NATS answers: another connection of the agent may have moved the cursors meanwhile."""
        await self._services.hub.check_log(self.principal.tenant_id)
        await self.read_subscriptions()
        self._has_failed = False

    async def _resume(self, channel_id: ChannelId, row: Subscription) -> None:
        """Begin a delivery at its subscription's cursor, or at the position of its withheld one."""
        before = self._withheld.get(channel_id)
        if before is None:
            await self._begin(channel_id, "cursor", partial(self.start_of, row), self._max_unacked)
            return
        await self._begin(channel_id, "cursor", before.cursor, before.max_unacked)
        delivery = self._deliveries.get(channel_id)
        if delivery is not None and delivery.epoch == before.epoch:
            delivery.continue_from(before)
        self._withheld.pop(channel_id, None)

    def _leave_out(self) -> None:
        """Push an error with the channels above this connection's limit."""
        inbox = self._due.pop(self._inbox.id, None)
        left_out = sorted(channel_id for channel_id in self._due if not self._is_delivered(channel_id))
        self._due = {} if inbox is None else {inbox.channel_id: inbox}
        self._left_out |= set(left_out)
        self._peer.send_error(SubscriptionLimit(MAX_SUBSCRIPTIONS), left_out)

    # --- commands ----------------------------------------------------------------------------------------------------

    async def subscribe(self, channel: str, start: Start, max_unacked: int | None) -> Opened:
        """Begin a delivery of the channel with this id or handle, replacing the current one. Create the subscription if it is
        missing.

        The delivery of a channel without a log continues instead: it has no position to begin at, and messages in between would
        be lost. Raises `SubscriptionLimit`, `ChannelNotFound`, `Conflict`, `Forbidden` or `Unavailable`, and changes nothing.
        """
        channel_id = await self._services.record_cache.channel_id(self.principal.tenant_id, channel)
        if self._delivered >= MAX_SUBSCRIPTIONS and not (channel_id == self._inbox.id or self._is_delivered(channel_id)):
            raise SubscriptionLimit(MAX_SUBSCRIPTIONS)
        await check_start_in_open(self._services.record_cache, self.principal.tenant_id, channel_id, start)
        with self._guard_begin(channel_id):
            try:
                row, _ = await self._services.subscriptions.put(self.principal, channel_id, self.principal.agent_id)
            except ChannelNotFound as exc:  # Names the given text: the agent may not know the id.
                raise ChannelNotFound(channel) from exc
            if row.status is not SubscriptionStatus.ACTIVE:
                raise Conflict("this subscription is paused; resume it first, by PATCH of its status to active")
            if not row.allows(Permission.RECEIVE):
                raise Forbidden(NOT_PERMITTED, "an agent")
            known = self._deliveries.get(channel_id)
            if known is not None and not known.feed.kind.has_log:
                return Opened(channel_id)
            with self.backlog.suspended(known):
                opened = await self._begin(channel_id, start, partial(self._services.cursors.newest, row), max_unacked)
            self._muted -= {channel_id}
            self._withheld.pop(channel_id, None)
            self._inbox.leave(channel_id)
            return opened

    async def unsubscribe(self, channel: str) -> ChannelId:
        """End a delivery on this connection, by the channel's id or handle; its subscription stays. Raises `NotSubscribed`."""
        channel_id = await self._services.record_cache.channel_id(self.principal.tenant_id, channel)
        if not (self._is_delivered(channel_id) or channel_id in self._due or self._inbox.leave(channel_id)):
            raise NotSubscribed(channel)
        self._muted |= {channel_id}
        self._due.pop(channel_id, None)
        self._end_delivery(channel_id)
        return channel_id

    def acknowledge(self, channel: str, seq: Seq) -> None:
        """Move a subscription's cursor forward, even if it was paused after the message was sent. In a queue, remove
        this message. `channel` is an id or a handle.

        An ack of an older message changes nothing. Raises `NotSubscribed`, `AckBeyondSent` and `NotHeld`.
        """
        held_by = None if self._queues is None else self._queues.find(channel)
        if held_by is not None:
            held_by.feed.ack(held_by, seq)
            return
        delivery = find_in(self._deliveries, channel) or find_in(self._withheld, channel)
        if delivery is None:
            self._inbox.check_ack(channel, seq)
            return
        if seq > delivery.sent_up_to:
            raise AckBeyondSent(channel, seq, delivery.sent_up_to)
        if seq <= delivery.acked:
            return
        tracing = delivery.feed.tracing
        if tracing is not None:
            tracing.record_ack(self.principal.agent_id, delivery.acked, seq)
        cursor = delivery.ack(seq)
        self.backlog.resume()
        self._services.cursors.acknowledge(self.principal.tenant_id, delivery.feed.channel, self.principal.agent_id, cursor)

    @property
    def queues(self) -> QueueDeliveries:
        """The deliveries of queue channels."""
        if self._queues is None:
            self._queues = QueueDeliveries(self._services.queue_hub, self._peer)
        return self._queues

    def resume(self) -> None:
        """Feed every waiting delivery: after a pause of the connection, or when a feed has begun again."""
        self.backlog.resume()
        if self._queues is not None:
            self._queues.resume()

    def position(self, channel_id: ChannelId) -> AgentPosition | None:
        """Return how far this connection has been sent a channel with a log, also while its subscription is paused."""
        delivery = self._deliveries.get(channel_id) or self._withheld.get(channel_id)
        return None if delivery is None else delivery.position(self.principal.agent_id)

    def end(self) -> None:
        """End every delivery. May be repeated."""
        self.backlog.stop()
        self._inbox.leave(self._inbox.id)
        self._due.clear()
        for channel_id in list(self._deliveries) + ([] if self._queues is None else self._queues.channels):
            self._end_delivery(channel_id)

    # --- deliveries --------------------------------------------------------------------------------------------------

    async def _begin(self, channel_id: ChannelId, start: Start, cursor: Callable[[], Cursor], max_unacked: int | None) -> Opened:
        """Add a delivery, to be fed by the backlog until it has caught up. It replaces the channel's current one at the end.

        `cursor` is called again at the end: acks move the current delivery's cursor meanwhile. Raises `ChannelNotFound` and
        `Unavailable`.
        """
        services, tenant_id = self._services, self.principal.tenant_id
        channel = await services.record_cache.subscribed(tenant_id, channel_id)
        kind = KINDS[channel.type]
        if kind.is_shared:
            check_start(channel, start)
            if self._takes_queues:
                self.queues.begin(channel, max_unacked, self.principal.sender)
            return Opened(channel.id)
        if not kind.has_log:
            return await begin_without_log(services.hub, self._peer, self._deliveries, channel, self.principal.sender)
        sender = self.principal.sender
        delivery, opened = await begin_in_log(services.hub, self._peer, channel, start, cursor, max_unacked, sender)
        self._end_delivery(channel_id)
        self._deliveries[channel_id] = delivery
        if start == "cursor" and delivery.moves:
            self._peer.send_moved(channel_id, delivery.cursor())
        if opened.gap is not None:
            self._peer.send_gap(channel_id, opened.gap, opened.epoch)
        return opened

    @contextlib.contextmanager
    def _guard_begin(self, channel_id: ChannelId) -> Iterator[None]:
        """Surround the beginning of a delivery, and end the delivery if its subscription was revoked meanwhile."""
        self._beginning, self._is_revoked = channel_id, False
        try:
            yield
        finally:
            self._beginning = None
            if self._is_revoked:
                self._withhold(channel_id)

    def _withhold(self, channel_id: ChannelId) -> None:
        """End a delivery without permission to receive, and keep its position for a later permission."""
        self._due.pop(channel_id, None)
        self._is_revoked = self._is_revoked or channel_id == self._beginning
        delivery = self._end_delivery(channel_id)
        if delivery is not None and delivery.feed.kind.has_log:
            self._withheld[channel_id] = delivery

    def _end_delivery(self, channel_id: ChannelId) -> Delivery | None:
        if self._queues is not None:
            self._queues.end(channel_id)
        delivery = self._deliveries.pop(channel_id, None)
        if delivery is not None:
            delivery.feed.leave(delivery)
            self._services.hub.release(delivery.feed)
        return delivery
