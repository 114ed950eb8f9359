"""One person's channels on one connection of any transport: shown as messages arrive, without a cursor or a backlog."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from artcafe.delivery.delivery import Delivery, find_in
from artcafe.delivery.delivery_services import DeliveryServices
from artcafe.delivery.peer import MAX_SUBSCRIPTIONS, Peer
from artcafe.errors import ChannelNotFound, NotSubscribed, SubscriptionLimit, Unavailable
from artcafe.fabric.channel_kinds import KINDS
from artcafe.model import ChannelId, UserPrincipal
from artcafe.rules import access
from artcafe.rules.access import Action

FOLLOW_S: Final = 5.0
"""Longest wait for a channel's feed before `watch` raises Unavailable."""


class Watcher:
    """The watched channels of one connection. Messages are skipped while the connection is paused."""

    __slots__ = ("_deliveries", "_is_over", "_peer", "_services")

    def __init__(self, services: DeliveryServices, peer: Peer, deliveries: dict[ChannelId, Delivery]) -> None:
        """`deliveries`: the connection's, changed here."""
        self._services, self._peer, self._deliveries = services, peer, deliveries
        self._is_over = False

    async def watch(self, principal: UserPrincipal, channel: str) -> None:
        """Follow a channel; the next `resume` starts showing it.

        Raises `ChannelNotFound`, `Forbidden`, `SubscriptionLimit`, or `Unavailable` if it cannot be followed within `FOLLOW_S`.
        """
        tenant_id = principal.tenant_id
        found = await self._services.record_cache.destination(principal, channel)
        access.check(principal, Action.READ_MESSAGES)
        await self._services.record_cache.check_receives(principal, found)
        if found.id in self._deliveries:
            return
        if len(self._deliveries) >= MAX_SUBSCRIPTIONS:
            raise SubscriptionLimit(MAX_SUBSCRIPTIONS)
        feed = self._services.hub.feed(tenant_id, found.id, KINDS[found.type], found.handle)
        self._deliveries[found.id] = Delivery(self._peer, feed, 0, None, None, principal.sender)
        try:
            async with asyncio.timeout(FOLLOW_S):
                await feed.opened.wait()
        except TimeoutError as exc:
            self.unwatch(found.id)
            raise Unavailable("the message log (NATS)") from exc

    def unwatch(self, channel: str) -> None:
        """Show the channel with this id or handle no more. Raises `NotSubscribed`."""
        delivery = find_in(self._deliveries, channel)
        if delivery is None:
            raise NotSubscribed(channel)
        del self._deliveries[delivery.feed.channel]
        delivery.feed.leave(delivery)
        self._services.hub.release(delivery.feed)

    def resume(self) -> None:
        """Show new messages of every channel: after `watch`, after a pause, or when a feed has begun again."""
        if self._is_over or self._peer.is_paused:
            return
        for delivery in self._deliveries.values():
            if delivery.feed.opened.is_set() and not delivery.is_member:
                delivery.advance_to(delivery.feed.flushed)
                delivery.feed.join(delivery)

    async def end_deleted(self, principal: UserPrincipal) -> None:
        """End deleted channels, and push an error for each. Raises `Unavailable`."""
        for channel_id in list(self._deliveries):
            try:
                await self._services.record_cache.channel(principal.tenant_id, channel_id)
            except ChannelNotFound as exc:
                with contextlib.suppress(NotSubscribed):
                    self.unwatch(channel_id)
                    self._peer.send_error(exc)

    def end(self) -> None:
        """End every channel. May be repeated."""
        self._is_over = True
        for channel_id in list(self._deliveries):
            self.unwatch(channel_id)
