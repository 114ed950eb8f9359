"""What an agent says on one socket and what it is answered: commands in their order, and the deliveries they begin and end.

The socket itself (bytes, bounds, closing) is `gateway.connection`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Final, assert_never

from artcafe.delivery.backlog import Spawn
from artcafe.delivery.hub import Delivery
from artcafe.errors import (
    ArtcafeError,
    BadCredentials,
    OurFault,
    Revoked,
    TenantSuspended,
)
from artcafe.gateway.desk import LIMITS, PING_S, Desk, Peer
from artcafe.gateway.login_handshake import LoginHandshake
from artcafe.gateway.publishes import Publishes
from artcafe.gateway.subscriber import Subscriber
from artcafe.gateway.visitor import Visitor, refusal
from artcafe.model import (
    AgentPrincipal,
    ChannelId,
    Principal,
    Subscription,
    UserPrincipal,
)
from artcafe.observe.logs import log
from artcafe.rules import ids
from artcafe.services.history import place
from artcafe.services.shares import QUANTUM, Share
from artcafe.wire import envelopes, frames, replies

RETRY_S: Final = 0.5
"""Between tries to begin the agent's subscriptions while the tables or NATS are away."""

Command = tuple[int | None, str, frames.Body, int]
"""Id, kind, body, and the size of the frame."""


class Conversation:
    """The state of one agent's connection above its bytes."""

    __slots__ = (
        "_commands",
        "_desk",
        "_is_look_due",
        "_is_over",
        "_is_waiting",
        "_is_winding_down",
        "_login_handshake",
        "_peer",
        "_publishes",
        "_share",
        "_spawn",
        "_visitor",
        "_worker",
        "deliveries",
        "principal",
        "subscriber",
        "token_until",
    )

    def __init__(self, desk: Desk, peer: Peer, spawn: Spawn) -> None:
        """`spawn` starts work under the connection's supervisor."""
        self._desk, self._peer, self._spawn = desk, peer, spawn
        self._login_handshake = LoginHandshake(desk.login, desk.member_login, desk.clock)
        self._publishes = Publishes(desk.messaging, peer)
        self._visitor: Visitor | None = None
        """Of a person's connection, for whom it does whatever is said behind `connect`."""
        self._commands: list[Command] = []
        """At most as many as a connection lets be under way. A list, since an empty deque takes 0.7 KB of an idle agent's 10."""
        self._worker: asyncio.Task[None] | None = None
        self._is_look_due = self._is_waiting = False
        """Whether the agent's subscriptions are to be read, and whether that waits for the tables or NATS."""
        self._is_over = self._is_winding_down = False
        self._share: Share | None = None
        self.principal: Principal | None = None
        self.token_until: datetime | None = None
        """When the token, or the key, that it connected with expires; None for a signature by a key without an end, which proves
        the connection for its life."""
        self.deliveries: dict[ChannelId, Delivery] = {}
        self.subscriber = Subscriber(desk, peer, self.deliveries, spawn)

    def hear(self, id: int | None, kind: str, body: frames.Body, size: int) -> None:
        """A command has come, in a frame of this size. What can be done at once is done at once; the rest waits, in order."""
        if isinstance(body, frames.Ack):
            if self._visitor is None:
                self.subscriber.acknowledge(body)
            else:
                self._peer.send(replies.error(refusal("ack")))
            self.spend()
        elif self._is_winding_down:
            return  # it is not done, and has no reply: the peer sends it again on its next connection
        elif self._worker is not None or self._commands or not self._is_done_now(id, kind, body, size):
            self._commands.append((id, kind, body, size))
            self._peer.count(+1, +size)
            self._work_soon()

    def wind_down(self) -> None:
        """Take in acks and nothing else, since the server ends: what has begun is answered before the connection closes."""
        self._is_winding_down = True

    @property
    def is_busy(self) -> bool:
        """Whether a command waits, or was not answered yet."""
        return self._worker is not None or bool(self._commands) or self._publishes.in_flight > 0

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
        self.subscriber.end()
        if self._worker is not None:
            self._worker.cancel()

    @property
    def has_unwritten(self) -> bool:
        """Whether the agent has acknowledged something that is not in the tables yet."""
        principal = self.principal
        return isinstance(principal, AgentPrincipal) and self._desk.cursors.has_unwritten(principal.tenant_id, principal.agent_id)

    async def write_cursors(self) -> None:
        """Write what the agent has acknowledged."""
        await self._desk.cursors.write_agent(self._proven().tenant_id, self._proven().agent_id)

    async def check_channels(self) -> None:
        """Show a person no channel that is gone. Raises `Unavailable`."""
        if self._visitor is not None:
            await self._visitor.check_channels()

    # --- commands ----------------------------------------------------------------------------------------------------

    def _work_soon(self) -> None:
        if self._worker is None:
            self._worker = self._spawn(self._work)

    async def _work(self) -> None:
        """Does the waiting commands in their order. Deliveries begin here alone, so that no channel is ever begun twice."""
        try:
            while not self._is_over:
                if (self._is_look_due or self.subscriber.is_due) and not self._is_waiting:
                    await self._look()
                elif self._commands and not self._is_held():
                    await self._do_next()
                else:
                    return
        finally:
            self._worker = None

    async def _do_next(self) -> None:
        """Do the next command in a turn that has room for the principal's, and the publishes behind it as far as there is."""
        share = self._shared()
        if share is None:
            await self._do(*self._next())
        elif isinstance(self._commands[0][2], frames.Publish):
            await self._take_turn(share)
            await self._do(*self._next())
            for _ in range(QUANTUM - 1):
                if not (self._commands and share.is_open and self._publish_now(*self._commands[0])):
                    break
                share.begin()
                self._next()
        else:
            async with share.place():
                await self._take_turn(share)
                await self._do(*self._next())

    def _next(self) -> Command:
        command = self._commands.pop(0)
        self._peer.count(-1, -command[3])
        return command

    async def _take_turn(self, share: Share) -> None:
        """As `Share.turn`; the socket is not read while this waits, or what comes would only wait here."""
        holds = 0 if share.has_room else 1
        self._peer.hold(+holds)
        try:
            await share.turn()
        finally:
            self._peer.hold(-holds)

    def spend(self) -> None:
        """Count what was done at once. Where the share is used up by that, the socket is not read until there is room."""
        share = self._shared()
        if share is None:
            return
        share.begin()
        if not share.is_open:
            self._peer.hold(+1)
            share.wait(partial(self._peer.hold, -1))

    def _shared(self) -> Share | None:
        """Return the principal's share; None before the peer has proven itself. Idle peers need none."""
        if self._share is None and self.principal is not None:
            self._share = self._desk.shares.of(self.principal)
        return self._share

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
            self.subscriber.backlog.soon()
        else:
            asyncio.get_running_loop().call_soon(self._visitor.resume)

    async def _do(self, id: int | None, kind: str, body: frames.Body, size: int) -> None:
        try:
            assert id is not None, "the session lets no other command through without an id"
            if self._visitor is None or isinstance(body, frames.Challenge | frames.Connect):
                await self._answer(id, kind, body, size)
            else:
                await self._visitor.do(id, kind, body)
        except ArtcafeError as exc:
            if self.principal is not None:
                self._desk.counters.count_refusal(self.principal, exc, request=kind)
            self._peer.send(replies.error(exc, id))
            if isinstance(body, frames.Connect):
                self._peer.close(exc)

    async def _answer(self, id: int, kind: str, body: frames.Body, size: int) -> None:
        assert not isinstance(body, frames.Ack), "an ack is done when it is heard"
        match body:
            case frames.Publish():
                await self._publishes.begin(self._proven(), id, body, size)
            case frames.Challenge():
                self._peer.send(replies.reply(id, kind, self._login_handshake.pose(body)))
            case frames.Connect():
                self._peer.send(replies.reply(id, kind, await self._connect(body)))
                self._look_soon()
            case frames.Subscribe():
                self._peer.send(replies.reply(id, kind, await self.subscriber.subscribe(body)))
                self.subscriber.backlog.soon()
            case frames.Unsubscribe():
                self._peer.send(replies.reply(id, kind, self.subscriber.unsubscribe(body)))
            case frames.Status():
                status = self._desk.presence.set_status(self._proven(), body.status)
                self._peer.send(replies.reply(id, kind, replies.StatusReply(status)))
            case frames.History():
                self._peer.send(await self._recall(id, body))
            case frames.Watch() | frames.Unwatch():
                raise refusal(kind)
            case _:
                assert_never(body)

    async def is_current(self) -> bool:
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

    def _is_done_now(self, id: int | None, kind: str, body: frames.Body, size: int) -> bool:
        share = self._share or self._shared()
        return share is not None and share.enter() and self._publish_now(id, kind, body, size)

    def _publish_now(self, id: int | None, _kind: str, body: frames.Body, size: int) -> bool:
        if not isinstance(body, frames.Publish) or not isinstance(self.principal, AgentPrincipal) or id is None:
            return False
        return self._publishes.now(self.principal, id, body, size)

    # --- who is there ------------------------------------------------------------------------------------------------

    async def _connect(self, proof: frames.Connect) -> replies.ConnectReply:
        """The first time, and whenever the peer proves itself again: a token is renewed so, by a fresh one or by a signature."""
        principal, until = await self._login_handshake.prove(proof)
        known = self.principal
        if known is None:
            await self._come(principal)
        elif (known.tenant_id, known.sender) != (principal.tenant_id, principal.sender):
            raise BadCredentials()  # a connection stays one agent's or person's for its life
        if known is None or proof.max_unacked is not None:
            self.subscriber.max_unacked = proof.max_unacked
        if isinstance(principal, AgentPrincipal):
            self.subscriber.of(principal)
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

    def apply(self, channel_id: ChannelId, row: Subscription | None) -> None:
        """Deliver a channel to the agent, or end its delivery, as its subscription's row is now."""
        self.subscriber.apply(channel_id, row)
        self._begin_soon()

    def apply_all(self, rows: Sequence[Subscription]) -> None:
        """Deliver what these subscriptions say, which are all that let the agent receive now, and nothing else."""
        self.subscriber.apply_all(rows)
        self._begin_soon()

    def _begin_soon(self) -> None:
        if self.subscriber.has_room:
            self._look_soon()
        elif self.subscriber.is_due and not self._is_over:
            self._work_soon()

    def _look_soon(self) -> None:
        """Read the agent's subscriptions, and begin what is due, before the next command."""
        if not self._is_over and self._visitor is None:
            self._is_look_due, self._is_waiting = True, False
            self._work_soon()

    async def _look(self) -> None:
        """Read the agent's subscriptions, or begin one of them; try again later where the tables or NATS are away."""
        is_reading, self._is_look_due = self._is_look_due, False
        try:
            if not is_reading:
                await self.subscriber.begin_next()
            elif await self.is_current():
                await self.subscriber.look()
        except OurFault as exc:
            log.debug("conversation.look_failed", error=str(exc))
            self._is_look_due, self._is_waiting = self._is_look_due or is_reading, True
            asyncio.get_running_loop().call_later(RETRY_S, self._try_again)
        self.subscriber.backlog.soon()

    def _try_again(self) -> None:
        self._is_waiting = False
        if not self._is_over:
            self._work_soon()

    async def _recall(self, id: int, wanted: frames.History) -> bytes:
        after = None if wanted.after is None else place(str(wanted.after), "after")
        before = None if wanted.before is None else place(str(wanted.before), "before")
        past = await self._desk.history.page(self._proven(), wanted.channel, after, before, wanted.limit)
        shown = (envelopes.message_text(wanted.channel, one.seq, one.envelope) for one in past.messages)
        return replies.history_reply(id, shown, past.gap, past.has_more, past.epoch)
