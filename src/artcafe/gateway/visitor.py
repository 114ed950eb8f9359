"""What a person says on a socket and is shown: channels as their messages come, and the presence of agents. Nothing of it has a
cursor; what comes while the peer takes nothing is not shown."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from artcafe.delivery.hub import Delivery
from artcafe.errors import BadCommand, ChannelNotFound, Forbidden, NotSubscribed, SubscriptionLimit, Unavailable
from artcafe.gateway.desk import MAX_SUBSCRIPTIONS, Desk, Peer
from artcafe.model import AgentId, ChannelId, ChannelType, UserPrincipal
from artcafe.rules import access, times
from artcafe.rules.access import Action
from artcafe.services.presence import Seen, Watch
from artcafe.wire import frames, replies

FOLLOW_S: Final = 5.0
"""How long the answer to `watch` waits until the channel is followed."""


class Visitor:
    """A person on one connection, in one tenant with one role."""

    def __init__(self, desk: Desk, peer: Peer, principal: UserPrincipal, deliveries: dict[ChannelId, Delivery]) -> None:
        """`deliveries` are the connection's, which takes their sockets out of the feeds while its peer takes nothing."""
        self._desk, self._peer, self.principal, self._deliveries = desk, peer, principal, deliveries
        self._presence: Watch | None = None
        self._is_over = False

    async def do(self, id: int, kind: str, body: frames.Body) -> None:
        """Does what a person may here, and answers. Raises Forbidden for every other command, and what refuses it."""
        match body:
            case frames.Unwatch():
                self._unwatch(body)
                self._peer.send(replies.reply(id, kind, replies.UnwatchReply(body.channel, body.presence)))
            case frames.Watch():
                _check_one(body)
                if body.channel is not None:
                    await self._watch_channel(body.channel)
                else:
                    await self._watch_presence()
                self._peer.send(replies.reply(id, kind, replies.WatchReply(body.channel, body.presence)))
                self.resume()
            case frames.Unsubscribe():
                self._end_channel(body.channel)
                self._peer.send(replies.reply(id, kind, replies.UnsubscribeReply(body.channel)))
            case _:
                raise refusal(kind)

    async def check_channels(self) -> None:
        """End the channels that are gone, each with an error push. Raises `Unavailable`."""
        for channel_id in list(self._deliveries):
            try:
                await self._desk.record_cache.channel(self.principal.tenant_id, channel_id)
            except ChannelNotFound as exc:
                with contextlib.suppress(NotSubscribed):
                    self._end_channel(channel_id)
                    self._peer.send(replies.error(exc))

    def resume(self) -> None:
        """The peer takes what it is sent, or a feed has begun anew: what comes from here on is shown."""
        if self._is_over or self._peer.is_paused:
            return
        for delivery in self._deliveries.values():
            if delivery.feed.opened.is_set() and not delivery.member:
                delivery.stand_on(delivery.feed.flushed)
                delivery.feed.join(delivery)
        if self._presence is not None:
            self._presence.look_at_all()

    def end(self) -> None:
        """Nothing more is shown; the channels are the connection's to end. May be repeated."""
        self._is_over = True
        if self._presence is not None:
            self._presence.stop()
            self._presence = None

    # --- channels ----------------------------------------------------------------------------------------------------

    async def _watch_channel(self, claimed: str) -> None:
        tenant_id = self.principal.tenant_id
        channel = await self._desk.record_cache.channel(tenant_id, claimed)
        access.check(self.principal, Action.READ_MESSAGES)
        if channel.id in self._deliveries:
            return
        if len(self._deliveries) >= MAX_SUBSCRIPTIONS:
            raise SubscriptionLimit(MAX_SUBSCRIPTIONS)
        feed = self._desk.hub.feed(tenant_id, channel.id, is_live=channel.type is ChannelType.LIVE)
        self._deliveries[channel.id] = Delivery(self._peer, feed, 0, None, None)
        try:
            async with asyncio.timeout(FOLLOW_S):
                await feed.opened.wait()
        except TimeoutError as exc:
            self._end_channel(channel.id)
            raise Unavailable("the message log (NATS)") from exc

    def _end_channel(self, claimed: str) -> None:
        delivery = self._deliveries.pop(ChannelId(claimed), None)
        if delivery is None:
            raise NotSubscribed(claimed)
        delivery.feed.leave(delivery)
        self._desk.hub.let_go(delivery.feed)

    # --- presence ----------------------------------------------------------------------------------------------------

    async def _watch_presence(self) -> None:
        if self._presence is None:
            watch = await self._desk.presence.watch(self.principal, self._show, lambda: self._peer.is_paused)
            if self._is_over:
                watch.stop()
            else:
                self._presence = watch

    def _show(self, agent_id: AgentId, seen: Seen) -> None:
        since = None if seen.since is None else times.to_text(seen.since)
        self._peer.send(
            replies.presence(
                replies.PresencePush(agent=agent_id, connected=seen.connected, status=seen.status, since=since),
            )
        )

    def _unwatch(self, body: frames.Unwatch) -> None:
        _check_one(body)
        if body.channel is not None:
            self._end_channel(body.channel)
        elif self._presence is None:
            raise NotSubscribed("presence")
        else:
            self._presence.stop()
            self._presence = None


def refusal(kind: str) -> Forbidden:
    """Why a person's command, or an agent's, is not done here."""
    if kind in {"watch", "unwatch"}:
        return Forbidden(f"{kind}, which is for people: it subscribes to channels, and reads presence over REST", "an agent")
    return Forbidden(f"{kind} here, which is for agents: a person watches, and does the rest over REST", "a person")


def _check_one(body: frames.Watch) -> None:
    if (body.channel is not None) is body.presence:
        raise BadCommand('name what is meant, either {"channel":"chn_…"} or {"presence":true}')
