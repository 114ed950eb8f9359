"""What an agent says on one socket and what it is answered: commands in their order, and the deliveries they begin and end.

The socket itself (bytes, bounds, closing) is `gateway.connection`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime
from typing import Final, assert_never

from artcafe import model
from artcafe.errors import (
    AckBeyondSent,
    ArtcafeError,
    BadCredentials,
    ChannelNotFound,
    Conflict,
    Forbidden,
    NotSubscribed,
    OurFault,
    Revoked,
    SubscriptionLimit,
    TenantSuspended,
)
from artcafe.gateway.backlog import Backlog, Spawn
from artcafe.gateway.desk import LIMITS, MAX_SUBSCRIPTIONS, PING_S, Desk, Peer
from artcafe.gateway.hub import Delivery
from artcafe.gateway.proofs import Proofs
from artcafe.gateway.publishes import Publishes
from artcafe.gateway.visitor import Visitor, refusal
from artcafe.model import (
    AgentPrincipal,
    ChannelId,
    ChannelType,
    Cursor,
    Epoch,
    Permission,
    Principal,
    Subscription,
    SubscriptionStatus,
    UserPrincipal,
)
from artcafe.observe import log
from artcafe.rules import ids, starts
from artcafe.services.history import place
from artcafe.wire import envelopes, frames, replies

RETRY_S: Final = 0.5
"""Between tries to begin the agent's subscriptions while the tables or NATS are away."""

LIVE_S: Final = 5.0
"""How long the answer to `subscribe` waits until a `live` channel is followed."""

_NOT_PERMITTED: Final = "receive this channel: its subscription lacks the permission 'receive', which a member can give it"

Command = tuple[int | None, str, frames.Body]

_NONE: Final[frozenset[ChannelId]] = frozenset()
"""Of every conversation that mutes none: each empty set takes 0.2 KB."""


class Conversation:
    """The state of one agent's connection above its bytes."""

    def __init__(self, desk: Desk, peer: Peer, spawn: Spawn) -> None:
        """`spawn` starts work under the connection's supervisor."""
        self._desk, self._peer, self._spawn = desk, peer, spawn
        self._proofs = Proofs(desk.login, desk.entrance, desk.clock)
        self._publishes = Publishes(desk.messaging, peer)
        self._visitor: Visitor | None = None
        """Of a person's connection, for whom it does whatever is said behind `connect`."""
        self._commands: list[Command] = []
        """At most as many as a connection lets be under way. A list, since an empty deque takes 0.7 KB of an idle agent's 10."""
        self._worker: asyncio.Task[None] | None = None
        self._is_look_due = False
        self._is_over = False
        self.principal: Principal | None = None
        self.token_until: datetime | None = None
        """When the token, or the key, that it connected with expires; None for a signature by a key without an end, which proves
        the connection for its life."""
        self._max_unacked: int | None = None
        self._muted = _NONE
        """Channels that this socket unsubscribed from: their rows stand, and start nothing here."""
        self.deliveries: dict[ChannelId, Delivery] = {}
        self.backlog = Backlog(peer, self.deliveries, spawn)

    def hear(self, id: int | None, kind: str, body: frames.Body) -> None:
        """A command has come. What can be done at once is done at once; the rest waits its turn, in order."""
        if isinstance(body, frames.Ack):
            self._acknowledge(body)
        elif self._worker is not None or self._commands or not self._publish_now(id, body):
            self._commands.append((id, kind, body))
            self._peer.count(+1)
            self._work_soon()

    def end(self) -> None:
        """Nothing more is done or delivered. What was acknowledged is the cursors' to write. May be repeated."""
        if self.principal is not None and not self._is_over:
            self._desk.connections.leave(self.principal)
            if isinstance(self.principal, AgentPrincipal):
                self._desk.presence.gone(self.principal)
        if self._visitor is not None:
            self._visitor.end()
        self._is_over = True
        self._commands.clear()  # what was not done has no reply, which the peer reads as unknown
        self.backlog.stop()
        if self._worker is not None:
            self._worker.cancel()
        for channel_id in list(self.deliveries):
            self._end_delivery(channel_id)

    async def recheck(self) -> None:
        """Ends at once what has been withdrawn from the peer; what is new begins soon. Raises `Unavailable`."""
        if self._visitor is not None:
            await self._visitor.recheck()
            return
        if not await self._is_current():
            return
        is_new = bool(await self._missing()) and len(self.deliveries) < MAX_SUBSCRIPTIONS
        # What the worker begins just now, it may begin because of a row that it read before the change.
        if is_new or self._worker is not None:
            self._look_soon()

    # --- commands ----------------------------------------------------------------------------------------------------

    def _work_soon(self) -> None:
        if self._worker is None:
            self._worker = self._spawn(self._work)

    async def _work(self) -> None:
        """Does the waiting commands in their order. Deliveries begin here alone, so that no channel is ever begun twice."""
        try:
            while not self._is_over:
                if self._is_look_due:
                    self._is_look_due = False
                    await self._look()
                elif self._commands and not self._is_held():
                    command = self._commands.pop(0)
                    self._peer.count(-1)
                    await self._do(*command)
                else:
                    return
        finally:
            self._worker = None

    def _is_held(self) -> bool:
        """Whether the next command waits until the peer takes what it was sent: it is short, and a page of history is long."""
        return self._peer.is_paused and isinstance(self._commands[0][2], frames.History)

    def resumed(self) -> None:
        """The peer has taken what was waiting for it: what was held goes on."""
        self.feed_soon()
        if self._commands:
            self._work_soon()

    def feed_soon(self) -> None:
        """A delivery is not level: an agent's goes on from the log, and a person's from here on."""
        if self._visitor is None:
            self.backlog.soon()
        else:
            asyncio.get_running_loop().call_soon(self._visitor.resume)

    async def _do(self, id: int | None, kind: str, body: frames.Body) -> None:
        try:
            assert id is not None, "the session lets no other command through without an id"
            if self._visitor is None or isinstance(body, frames.Challenge | frames.Connect):
                await self._answer(id, kind, body)
            else:
                await self._visitor.do(id, kind, body)
        except ArtcafeError as exc:
            if self.principal is not None:
                self._desk.tally.refusal(self.principal, exc, request=kind)
            self._peer.send(replies.error(exc, id))
            if isinstance(body, frames.Connect):
                self._peer.close(exc)

    async def _answer(self, id: int, kind: str, body: frames.Body) -> None:
        assert not isinstance(body, frames.Ack), "an ack is done when it is heard"
        match body:
            case frames.Publish():
                await self._publishes.begin(self._proven(), id, body)
            case frames.Challenge():
                self._peer.send(replies.reply(id, kind, self._proofs.pose(body)))
            case frames.Connect():
                self._peer.send(replies.reply(id, kind, await self._connect(body)))
                self._look_soon()
            case frames.Subscribe():
                self._peer.send(replies.reply(id, kind, await self._subscribe(body)))
                self.backlog.soon()
            case frames.Unsubscribe():
                self._peer.send(replies.reply(id, kind, self._unsubscribe(body)))
            case frames.Status():
                status = self._desk.presence.set_status(self._proven(), body.status)
                self._peer.send(replies.reply(id, kind, replies.StatusReply(status)))
            case frames.History():
                self._peer.send(await self._recall(id, body))
            case frames.Watch() | frames.Unwatch():
                raise refusal(kind)
            case _:
                assert_never(body)

    async def _is_current(self) -> bool:
        """Whether the agent's proof still holds; the connection ends where it doesn't. Raises `Unavailable`."""
        try:
            is_current = await self._desk.login.is_current(self._proven())
        except TenantSuspended as exc:
            self._peer.close(exc)
            return False
        if not is_current:
            self._peer.close(Revoked())
        return is_current

    def _proven(self) -> AgentPrincipal:
        assert isinstance(self.principal, AgentPrincipal), "the session lets connect come first, and its failure closes"
        return self.principal

    def _publish_now(self, id: int | None, body: frames.Body) -> bool:
        if not isinstance(body, frames.Publish) or not isinstance(self.principal, AgentPrincipal) or id is None:
            return False
        return self._publishes.now(self.principal, id, body)

    # --- who is there ------------------------------------------------------------------------------------------------

    async def _connect(self, proof: frames.Connect) -> replies.ConnectReply:
        """The first time, and whenever the peer proves itself again: a token is renewed so, by a fresh one or by a signature."""
        principal, until = await self._proofs.prove(proof)
        known = self.principal
        if known is None:
            await self._come(principal)
        elif (known.tenant_id, known.sender) != (principal.tenant_id, principal.sender):
            raise BadCredentials()  # a connection stays one agent's or person's for its life
        if known is None or proof.max_unacked is not None:
            self._max_unacked = proof.max_unacked
        self.principal, self.token_until = principal, until
        self._peer.proven()
        if isinstance(principal, UserPrincipal):
            return self._greeted(principal)
        session_id = ids.new_id("ses")
        log.info("agent.connected", tenant=principal.tenant_id, agent=principal.agent_id, session=session_id)
        return replies.ConnectReply(
            session_id=session_id, agent_id=principal.agent_id, tenant_id=principal.tenant_id, ping_s=PING_S, limits=LIMITS
        )

    def _greeted(self, person: UserPrincipal) -> replies.ConnectReply:
        if self._visitor is None:
            self._visitor = Visitor(self._desk, self._peer, person, self.deliveries)
        self._visitor.principal = person
        session_id = ids.new_id("ses")
        log.info("person.connected", tenant=person.tenant_id, user=person.user_id, session=session_id)
        return replies.ConnectReply(
            session_id=session_id,
            user_id=person.user_id,
            role=person.role.value,
            tenant_id=person.tenant_id,
            ping_s=PING_S,
            limits=LIMITS,
        )

    async def _come(self, principal: Principal) -> None:
        await self._desk.connections.enter(principal)
        if isinstance(principal, UserPrincipal):
            return
        try:
            self._desk.presence.came(principal)
        except ArtcafeError:
            self._desk.connections.leave(principal)
            raise

    # --- what it receives --------------------------------------------------------------------------------------------

    def _look_soon(self) -> None:
        """The agent's subscriptions are looked at before the next command."""
        if not self._is_over and self._visitor is None:
            self._is_look_due = True
            self._work_soon()

    async def _look(self) -> None:
        """Begins the agent's active subscriptions that are not delivered here, each from its cursor; tries until it succeeds."""
        try:
            if not await self._is_current():
                return
            for row in await self._missing():
                if len(self.deliveries) >= MAX_SUBSCRIPTIONS:
                    self._peer.send(replies.error(SubscriptionLimit(MAX_SUBSCRIPTIONS)))
                    break
                with contextlib.suppress(ChannelNotFound):  # it is being deleted, and its subscriptions with it
                    await self._begin(row.channel_id, "cursor", self._desk.cursors.newest(row), self._max_unacked)
        except OurFault as exc:
            log.debug("conversation.look_failed", error=str(exc))
            asyncio.get_running_loop().call_later(RETRY_S, self._look_soon)
        self.backlog.soon()

    async def _missing(self) -> list[Subscription]:
        """The agent's active subscriptions that are not delivered here. Deliveries of what is active no more are ended."""
        known = dict(self.deliveries)
        rows = await self._desk.subscriptions.for_connect(self._proven())
        active = {row.channel_id for row in rows}
        for channel_id, delivery in known.items():
            if channel_id not in active and self.deliveries.get(channel_id) is delivery:
                self._end_delivery(channel_id)
        return [row for row in rows if row.channel_id not in self.deliveries and row.channel_id not in self._muted]

    async def _subscribe(self, wanted: frames.Subscribe) -> replies.SubscribeReply:
        principal = self._proven()
        if len(self.deliveries) >= MAX_SUBSCRIPTIONS and wanted.channel not in self.deliveries:
            raise SubscriptionLimit(MAX_SUBSCRIPTIONS)
        row, _ = await self._desk.subscriptions.put(principal, wanted.channel, principal.agent_id)
        if row.status is not SubscriptionStatus.ACTIVE:
            raise Conflict("this subscription is paused; resume it first, by PATCH of its status to active")
        if not row.lets(Permission.RECEIVE):
            raise Forbidden(_NOT_PERMITTED, "an agent")
        self._muted -= {row.channel_id}
        self._end_delivery(row.channel_id)
        return await self._begin(row.channel_id, wanted.start, self._desk.cursors.newest(row), wanted.max_unacked)

    async def _begin(
        self, channel_id: ChannelId, start: frames.Start, cursor: Cursor, max_unacked: int | None
    ) -> replies.SubscribeReply:
        """Makes the delivery, to be fed from the log until it is level. Raises `ChannelNotFound` and `Unavailable`."""
        tenant_id = self._proven().tenant_id
        if (await self._desk.directory.channel(tenant_id, channel_id)).type is ChannelType.LIVE:
            return await self._begin_live(channel_id)
        feed = self._desk.hub.feed(tenant_id, channel_id)
        room_log = feed.room.log
        delivery: Delivery | None = None
        try:
            await feed.room.link.wait_up()
            state = await room_log.state()
            if state is not None and cursor.epoch == state.epoch and cursor.seq > state.last_seq:
                state = await room_log.begin_epoch()  # the log has lost its end: its sequences will come again
            life, newest = (state.life, state.last_seq) if state else (starts.Life(None), 0)
            last = await room_log.last_of(channel_id) if state else 0
            removed_to = await self._desk.hub.removed_to(tenant_id, channel_id)
            behind, gap = starts.behind(start, cursor, life, newest, removed_to)
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
        feed = self._desk.hub.feed(self._proven().tenant_id, channel_id, is_live=True)
        delivery = self.deliveries[channel_id] = Delivery(self._peer, feed, 0, None, None)
        with contextlib.suppress(TimeoutError):  # without NATS it begins by itself, later
            async with asyncio.timeout(LIVE_S):
                await feed.opened.wait()
        if self.deliveries.get(channel_id) is delivery and not delivery.member:
            feed.join(delivery)
        return replies.SubscribeReply(None, None, None)

    async def _recall(self, id: int, wanted: frames.History) -> bytes:
        after = None if wanted.after is None else place(str(wanted.after), "after")
        before = None if wanted.before is None else place(str(wanted.before), "before")
        past = await self._desk.history.page(self._proven(), wanted.channel, after, before, wanted.limit)
        shown = (envelopes.message_text(wanted.channel, one.seq, one.envelope) for one in past.messages)
        return replies.history_reply(id, shown, past.gap, past.has_more, past.epoch)

    def _unsubscribe(self, wanted: frames.Unsubscribe) -> replies.UnsubscribeReply:
        channel_id = ChannelId(wanted.channel)
        if channel_id not in self.deliveries:
            raise NotSubscribed(wanted.channel)
        self._muted |= {channel_id}
        self._end_delivery(channel_id)
        return replies.UnsubscribeReply(channel_id)

    def _end_delivery(self, channel_id: ChannelId) -> None:
        delivery = self.deliveries.pop(channel_id, None)
        if delivery is not None:
            delivery.feed.leave(delivery)
            self._desk.hub.let_go(delivery.feed)

    def _acknowledge(self, ack: frames.Ack) -> None:
        if self._visitor is not None:
            self._peer.send(replies.error(refusal("ack")))
            return
        delivery = self.deliveries.get(ChannelId(ack.channel))
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
            self._move_cursor(delivery.feed.channel, delivery.epoch, ack.seq)

    def _move_cursor(self, channel_id: ChannelId, epoch: Epoch, seq: model.Seq) -> None:
        principal = self._proven()
        self._desk.cursors.acknowledge(principal.tenant_id, channel_id, principal.agent_id, Cursor(epoch=epoch, seq=seq))
