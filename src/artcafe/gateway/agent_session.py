"""An authenticated agent on one socket: its commands but `connect`, its publishes, and the deliveries of its subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol, assert_never

import msgspec

from artcafe.assembly import Services
from artcafe.delivery.backlog import Spawn
from artcafe.delivery.delivery import Delivery
from artcafe.delivery.peer import PING_S
from artcafe.delivery.subscriber import Subscriber
from artcafe.errors import (
    AckBeyondSent,
    ArtcafeError,
    Forbidden,
    NotHeld,
    NotSubscribed,
    OurFault,
    RateExceeded,
    Revoked,
    TenantSuspended,
)
from artcafe.gateway.agent_requests import AgentRequests
from artcafe.gateway.client_socket import LIMITS, ClientSocket
from artcafe.gateway.encoding import limits_push
from artcafe.gateway.publish_replies import PublishReplies
from artcafe.model import AgentPrincipal, ChannelId, Principal, Subscription
from artcafe.observe import metrics
from artcafe.observe.logs import log
from artcafe.rules import ids
from artcafe.services.history import parse_position
from artcafe.services.loop_guard import Admission
from artcafe.services.tenant_rate import Notice
from artcafe.wire import envelopes, frames, replies
from artcafe.wire.envelopes import ChainLink

REFUSED_PAUSE_S: Final = 0.25
"""After a publish above a rate limit the socket is not read for this long."""
REFUSED_COST: Final = 7
"""A publish above a rate limit counts as this many more in its tenant's share of a turn of the event loop."""
RETRY_S: Final = 0.5
"""Between two attempts to begin the agent's subscriptions while the tables or NATS are away."""
_FOR_PEOPLE: Final = ", which is for people: it subscribes to channels, and reads presence over REST"


class CommandWorker(Protocol):
    """The task for a connection's commands, done in order."""

    def wake(self) -> None:
        """Look for work, if the task is not running."""


class AgentSession:
    """The state of an agent's connection above its socket."""

    __slots__ = (
        "_admitted",
        "_is_over",
        "_is_read_due",
        "_is_retry_pending",
        "_max_requests",
        "_noticed",
        "_replies",
        "_requests",
        "_services",
        "_socket",
        "_worker",
        "is_slowed",
        "principal",
        "subscriber",
        "token_until",
    )

    def __init__(
        self,
        services: Services,
        socket: ClientSocket,
        worker: CommandWorker,
        spawn: Spawn,
        principal: AgentPrincipal,
        deliveries: dict[ChannelId, Delivery],
        connect: frames.Connect,
    ) -> None:
        """`deliveries`: the connection's. `connect` has the windows of its subscriptions and requests, and whether it is sent
        messages of queues."""
        self._services, self._socket, self._worker = services, socket, worker
        self.principal = principal
        self.token_until: datetime | None = None
        """The expiry of the token or key of the last `connect`. None: a signature by a key without expiry, valid as long as the
        connection is open."""
        self._is_read_due = False
        """Whether the subscriptions must be read."""
        self._is_retry_pending = False
        """Whether `work` has failed because the tables or NATS are away, and is called again after `RETRY_S`."""
        self._is_over = False
        self.is_slowed = False
        """Whether the socket is not read for `REFUSED_PAUSE_S`, because a rate limit has refused a message."""
        self._noticed: tuple[Notice, ...] = ()
        """The last notices of limits that were pushed."""
        self._admitted: list[tuple[frames.Publish, Admission]] | None = None
        """The next publishes, if they answer other messages, in order; None for an agent that never answered."""
        self._replies = PublishReplies(services, socket)
        self._max_requests = frames.MAX_REQUESTS if connect.max_requests is None else connect.max_requests
        self._requests: AgentRequests | None = None
        self.subscriber = Subscriber(services, socket, principal, deliveries, spawn, connect.max_unacked, self, connect.queues)

    # --- the connection's life ---------------------------------------------------------------------------------------

    def open(self) -> None:
        """Show the agent as connected. Raises `Unavailable` while the server shuts down."""
        self._services.presence.add_socket(self.principal)

    def renew(self, principal: Principal, max_unacked: int | None) -> None:
        """Take the principal and window of a further `connect` by the same agent."""
        assert isinstance(principal, AgentPrincipal), "a connection belongs to one principal"
        self.principal = principal
        self.subscriber.renew(principal, max_unacked)

    def greeting(self) -> replies.ConnectReply:
        """Return the reply to `connect`."""
        agent = self.principal
        session_id = ids.new_id("ses")
        log.info("agent.connected", tenant=agent.tenant_id, agent=agent.agent_id, session=session_id)
        return replies.ConnectReply(
            session_id=session_id, agent_id=agent.agent_id, tenant_id=agent.tenant_id, ping_s=PING_S, limits=LIMITS
        )

    def close(self, reason: ArtcafeError) -> None:
        """Close the socket for this reason."""
        self._socket.close(reason)

    def end(self) -> None:
        """End every delivery, because the socket is closed. May be repeated."""
        if not self._is_over:
            self._is_over = True
            self._services.presence.remove_socket(self.principal)
        if self._requests is not None:
            self._requests.end()
        for _, admission in self._admitted or ():
            self._services.messaging.refund(self.principal, admission)
        self._admitted = None
        self._replies.end()
        self.subscriber.end()

    @property
    def has_unwritten(self) -> bool:
        """Whether the agent has acknowledged positions waiting to be written to the tables."""
        return self._services.cursors.has_unwritten(self.principal.tenant_id, self.principal.agent_id)

    async def write_cursors(self) -> None:
        """Write the agent's acknowledged positions to the tables."""
        await self._services.cursors.write_agent(self.principal.tenant_id, self.principal.agent_id)

    async def check_login(self) -> bool:
        """Close the connection unless the agent is still authenticated. Return whether it is. Raises `Unavailable`."""
        try:
            is_current = await self._services.login.is_current(self.principal)
        except TenantSuspended as exc:
            self._socket.close(exc)
            return False
        if not is_current:
            self._socket.close(Revoked())
        return is_current

    # --- commands ----------------------------------------------------------------------------------------------------

    async def handle(self, id: int, kind: str, body: frames.Body, size: int) -> None:
        """Do a command and send its reply. `size`: bytes of its frame. Raises its error reply."""
        match body:
            case frames.Publish():
                await self._publish(id, body, size)
            case frames.Subscribe():
                opened = await self.subscriber.subscribe(body.channel, body.start, body.max_unacked)
                reply = replies.SubscribeReply(opened.epoch, opened.seq, opened.last, opened.gap, opened.channel)
                self._socket.send(replies.reply(id, kind, reply))
                self.subscriber.backlog.resume()
            case frames.Unsubscribe() | frames.Nak() | frames.Extend():
                self._socket.send(replies.reply(id, kind, await self._change_delivery(body)))
            case frames.Status():
                status = self._services.presence.set_status(self.principal, body.status)
                self._socket.send(replies.reply(id, kind, replies.StatusReply(status)))
            case frames.History():
                self._socket.send(await self._history(id, body))
            case frames.Request() | frames.Reply() | frames.Accept():
                await self.requests.handle(self.principal, id, body)
            case frames.Watch() | frames.Unwatch():
                raise Forbidden(f"{kind}{_FOR_PEOPLE}", "an agent")
            case frames.Ack() | frames.Cancel() | frames.Challenge() | frames.Connect():
                raise AssertionError("the dispatcher does these")
            case _:
                assert_never(body)

    def acknowledge(self, ack: frames.Ack) -> None:
        """Move a cursor, or push an error: an ack has no reply."""
        try:
            self.subscriber.acknowledge(ack.channel, ack.seq)
        except (NotSubscribed, AckBeyondSent, NotHeld) as exc:
            self._socket.send_error(exc)

    async def _change_delivery(self, body: frames.Unsubscribe | frames.Nak | frames.Extend) -> msgspec.Struct:
        if isinstance(body, frames.Unsubscribe):
            return replies.UnsubscribeReply(await self.subscriber.unsubscribe(body.channel))
        if isinstance(body, frames.Nak):
            self.subscriber.queues.nak(body.channel, body.seq, body.delay_s, is_dead=body.dead)
            return replies.NakReply(body.channel, body.seq)
        ack_wait_s = await self.subscriber.queues.extend(body.channel, body.seq)
        return replies.ExtendReply(body.channel, body.seq, ack_wait_s)

    @property
    def requests(self) -> AgentRequests:
        """The requests of this connection, in both directions."""
        if self._requests is None:
            self._requests = AgentRequests(self._services.requests, self._socket, self._max_requests, self._apply_limits)
        return self._requests

    @property
    def is_busy(self) -> bool:
        """Whether a publish or a request has no reply yet."""
        return self._replies.in_flight > 0 or (self._requests is not None and self._requests.is_busy)

    def cancel(self, id: int) -> None:
        """Cancel a request that this connection sent."""
        if self._requests is not None:
            self._requests.cancel(id)

    async def _history(self, id: int, wanted: frames.History) -> bytes:
        after = None if wanted.after is None else parse_position(str(wanted.after), "after")
        before = None if wanted.before is None else parse_position(str(wanted.before), "before")
        past = await self._services.history.list(self.principal, wanted.channel, after, before, wanted.limit)
        channel = envelopes.channel_text(past.channel.id, past.channel.handle)
        messages = (envelopes.message_text(channel, one.seq, one.envelope) for one in past.messages)
        return replies.history_reply(id, messages, past.gap, past.has_more, past.epoch)

    # --- publishes ---------------------------------------------------------------------------------------------------

    async def _publish(self, id: int, body: frames.Publish, size: int) -> None:
        admission = self._admission_of(body)
        self._forget_admission(admission)
        try:
            channel, stored = await self._services.messaging.submit(self.principal, body.channel, body, admission)
        except ArtcafeError as exc:
            self._apply_limits(exc)
            raise
        self._apply_limits()
        self._replies.send_when_stored(self.principal.tenant_id, id, channel, body, stored, size)

    def do_nowait(self, id: int | None, body: frames.Body, size: int) -> bool:
        """Publish, send a request or answer one without a task. `size`: bytes of the frame.

        Return False, with nothing done, for another command and for one that needs a lookup first.
        """
        if id is None:
            return False
        if not isinstance(body, frames.Publish):
            return isinstance(body, frames.Request | frames.Reply) and self.requests.do_nowait(self.principal, id, body)
        link: ChainLink | None = None
        if body.caused_by is not None:
            admission = self._admission_of(body)
            if not isinstance(admission, ChainLink):
                return False
            link = admission
        messaging = self._services.messaging
        try:
            stored = messaging.submit_nowait(self.principal, body.channel, body, link)
        except ArtcafeError as exc:
            self._forget_admission(link)
            messaging.refund(self.principal, link)
            self._apply_limits(exc)
            metrics.count_refused_publish(exc, self.principal.tenant_id)
            self._socket.send_error(exc, id=id)
            return True
        if stored is None:
            return False
        self._forget_admission(link)
        if self._services.rate_limits.notices:
            self._push_limits()
        self._replies.send_when_stored(self.principal.tenant_id, id, body.channel, body, stored, size)
        return True

    def _apply_limits(self, refusal: ArtcafeError | None = None) -> None:
        """Push the notices of limits after a message or its refusal. Slow down after a refusal by a rate limit."""
        if isinstance(refusal, RateExceeded):
            self._slow_down()
        if self._services.rate_limits.notices:
            self._push_limits()

    def _slow_down(self) -> None:
        """Stop reading the socket for a moment, and begin fewer of the commands that wait: a client that ignores refusals must
        not delay others by them."""
        self._services.shares.of(self.principal).charge(REFUSED_COST)
        if not self.is_slowed:
            self.is_slowed = True
            self._socket.adjust_read_blocks(+1)
            asyncio.get_running_loop().call_later(REFUSED_PAUSE_S, self._end_slowdown)

    def _end_slowdown(self) -> None:
        self.is_slowed = False
        self._socket.adjust_read_blocks(-1)

    def _push_limits(self) -> None:
        """Push the notices of the tenant's limits that this connection was not sent: it has just used them."""
        notices = self._services.rate_limits.notices.get(self.principal.tenant_id, ())
        if notices is self._noticed:
            return
        for notice in notices:
            if notice not in self._noticed:
                self._socket.send(replies.limits(limits_push(notice)))
        self._noticed = notices

    async def admit(self, answers: Sequence[frames.Publish]) -> None:
        """Look up and count the next publishes, which answer other messages, all at once. Does nothing if the first one is
        admitted already."""
        if self._admission_of(answers[0]) is None:
            admissions = await self._services.messaging.admit(self.principal, answers)
            self._admitted = list(zip(answers, admissions, strict=True))

    def _admission_of(self, publish: frames.Publish) -> Admission | None:
        """Return the admission of the next publish, if it has one."""
        return self._admitted[0][1] if self._admitted and self._admitted[0][0] is publish else None

    def _forget_admission(self, admission: Admission | None) -> None:
        if admission is not None and self._admitted:
            del self._admitted[0]

    # --- deliveries --------------------------------------------------------------------------------------------------

    def feed_soon(self) -> None:
        """Feed every delivery that waits."""
        self.subscriber.resume()

    def apply(self, channel_id: ChannelId, row: Subscription | None) -> None:
        """Deliver a channel or end its delivery, according to its subscription."""
        self.subscriber.apply(channel_id, row)
        self._begin_soon()

    def apply_all(self, rows: Sequence[Subscription]) -> None:
        """Deliver these subscriptions and no others: the agent has no further permission to receive."""
        self.subscriber.apply_all(rows)
        self._begin_soon()

    def wake_inbox(self) -> None:
        """Begin the delivery of the agent's inbox."""
        self.subscriber.wake_inbox()
        self._begin_soon()

    def _begin_soon(self) -> None:
        if self.subscriber.can_add_left_out:
            self.begin_subscriptions()
        elif self.subscriber.is_due and not self._is_over:
            self._worker.wake()

    def begin_subscriptions(self) -> None:
        """Read the agent's subscriptions and begin their deliveries, before the next command."""
        if not self._is_over:
            self._is_read_due, self._is_retry_pending = True, False
            self._worker.wake()

    @property
    def has_work(self) -> bool:
        """Whether `work` has something to do now."""
        return (self._is_read_due or self.subscriber.is_due) and not self._is_retry_pending

    async def work(self) -> None:
        """Read the agent's subscriptions or begin one of them. Retry later while the tables or NATS are away."""
        is_reading, self._is_read_due = self._is_read_due, False
        try:
            if not is_reading:
                await self.subscriber.begin_next()
            elif await self.check_login():
                await self.subscriber.read_subscriptions()
        except OurFault as exc:
            log.debug("session.subscriptions_wait", error=str(exc))
            self._is_read_due, self._is_retry_pending = self._is_read_due or is_reading, True
            asyncio.get_running_loop().call_later(RETRY_S, self._retry)
        self.subscriber.backlog.resume()

    def _retry(self) -> None:
        self._is_retry_pending = False
        if not self._is_over:
            self._worker.wake()
