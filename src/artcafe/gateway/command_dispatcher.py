"""One connection's commands in order: `challenge` and `connect` are done here, all others by the session opened by `connect`.

The socket itself (bytes, bounds, closing) belongs to `gateway.connection`.
"""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import takewhile
from typing import Final

from artcafe.assembly import Services
from artcafe.delivery.backlog import Spawn
from artcafe.delivery.delivery import Delivery
from artcafe.errors import ArtcafeError, BadCredentials, NotFound, NotSubscribed
from artcafe.gateway.agent_session import AgentSession
from artcafe.gateway.client_socket import ClientSocket
from artcafe.gateway.login_handshake import LoginHandshake
from artcafe.gateway.user_session import UserSession
from artcafe.model import AgentPrincipal, ChannelId, Principal, TenantId
from artcafe.observe import metrics
from artcafe.rules.plans import Limit
from artcafe.services.shares import QUANTUM, Share
from artcafe.services.tenant_rate import NOTICE_PERCENTS
from artcafe.wire import frames, replies

Command = tuple[int | None, str, frames.Body, int]
"""Id, kind, body, and the size of the frame in bytes."""

_WITHOUT_REPLY: Final = (frames.Ack, frames.Cancel)

REFUSED_PACE_S: Final = 0.05
"""Between two waiting publishes of a connection that is above a rate limit: each would be refused, and delay others."""
MISSES: Final = 50
"""Commands of a connection that may name a missing record at once; further ones pause it, for `MISS_PACE_S` each."""
MISS_PACE_S: Final = 0.05


class CommandDispatcher:
    """The commands of one connection, done at once or by one worker task, within the fair share of its principal."""

    __slots__ = (
        "_commands",
        "_deliveries",
        "_is_over",
        "_is_winding_down",
        "_login",
        "_missed_until",
        "_services",
        "_share",
        "_socket",
        "_spawn",
        "_worker",
        "session",
    )

    def __init__(self, services: Services, socket: ClientSocket, deliveries: dict[ChannelId, Delivery], spawn: Spawn) -> None:
        """`deliveries`: the connection's own dict, changed by its session."""
        self._services, self._socket, self._deliveries, self._spawn = services, socket, deliveries, spawn
        self._login = LoginHandshake(services.login, services.authentication, services.clock)
        self._commands: list[Command] = []
        """Waiting commands, bounded by the socket's limit in flight. An empty deque would take 0.7 KB of an idle agent's 10."""
        self._worker: asyncio.Task[None] | None = None
        self._is_over = self._is_winding_down = False
        self._missed_until = 0.0
        """The time at which all commands that named a missing record have had `MISS_PACE_S` each."""
        self._share: Share | None = None
        self.session: AgentSession | UserSession | None = None
        """The session opened by `connect`; None before."""

    def handle(self, id: int | None, kind: str, body: frames.Body, size: int) -> None:
        """Do a command at once if it needs no waiting; else queue it. `size`: bytes of its frame."""
        if isinstance(body, _WITHOUT_REPLY):
            self._do_without_reply(body)
            self.spend_share()
        elif self._is_winding_down and not isinstance(body, frames.Reply):
            return  # without a reply: the client sends it again on its next connection
        else:
            share = self._share or self._principals_share()
            if share is not None:
                if share.requests:
                    share.requests += 1
                else:
                    share.count_request()
            may_begin = share is not None and self._worker is None and not self._commands and share.enter()
            if not (may_begin and self.session is not None and self.session.do_nowait(id, body, size)):
                self._commands.append((id, kind, body, size))
                self._socket.adjust_in_flight(+1, +size)
                self.wake()

    def _do_without_reply(self, body: frames.Ack | frames.Cancel) -> None:
        match body:
            case frames.Cancel() if self.session is not None:
                self.session.cancel(body.id)
            case frames.Ack() if self.session is not None:
                self.session.acknowledge(body)
            case frames.Ack():  # `connect` is in progress
                self._socket.send_error(NotSubscribed(body.channel))

    def wind_down(self) -> None:
        """Take no more commands but acks and the answers to requests, because the server shuts down. Commands in progress are
        answered."""
        self._is_winding_down = True

    @property
    def is_busy(self) -> bool:
        """Whether a command waits or has no reply yet."""
        return self._worker is not None or bool(self._commands) or (self.session is not None and self.session.is_busy)

    def end(self) -> None:
        """Do and deliver nothing more. Acknowledged cursors stay in `Cursors`, to be written. May be repeated."""
        is_first, self._is_over = not self._is_over, True
        self._commands.clear()  # the client takes a missing reply for an unknown outcome
        if self._worker is not None:
            self._worker.cancel()
        if self.session is not None:
            self.session.end()
            if is_first:
                self._services.connections.leave(self.session.principal)
                self._services.usage_counters.disconnected(self.session.principal)

    def on_writable(self) -> None:
        """Resume deliveries, and a waiting `history` command, after the peer has read everything."""
        if self.session is not None:
            self.session.feed_soon()
        if self._commands:
            self.wake()

    # --- the worker --------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Start the worker task if it is not running."""
        if self._worker is None:
            self._worker = self._spawn(self._work)

    async def _work(self) -> None:
        """Do the waiting commands in order. Deliveries begin in this task only, so no channel begins twice."""
        try:
            while not self._is_over:
                if isinstance(self.session, AgentSession) and self.session.has_work:
                    await self.session.work()
                elif self._commands and not self._must_wait():
                    await self._do_next()
                    await self._pause_after_misses()
                else:
                    return
        finally:
            self._worker = None

    async def _do_next(self) -> None:
        """Do the next command, within the principal's share."""
        share = self._principals_share()
        if share is None:
            await self._do(*self._pop())
        elif isinstance(self._commands[0][2], frames.Publish):
            await self._do_publishes(share)
        else:
            async with share.slot():
                await self._take_turn(share)
                await self._do(*self._pop())

    async def _do_publishes(self, share: Share) -> None:
        """Do the next publish within the share, and further ones while it has room. Pause if a rate limit has refused one."""
        await self._take_turn(share)
        await self._admit_answers()
        await self._do(*self._pop())
        assert self.session is not None
        for _ in range(QUANTUM - 1):
            if self.session.is_slowed or not (self._commands and share.is_open and self._do_next_nowait(self.session)):
                break
            share.begin()
            self._pop()
        if self.session.is_slowed and self._commands:
            await asyncio.sleep(REFUSED_PACE_S)

    async def _pause_after_misses(self) -> None:
        """Wait if too many commands named a missing record: looking for one reads the tables."""
        wait_s = self._missed_until - MISSES * MISS_PACE_S - asyncio.get_running_loop().time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    async def _admit_answers(self) -> None:
        """Admit the waiting publishes that answer other messages together: each alone would wait for NATS twice."""
        answers = [body for *_, body, _ in takewhile(_is_answer, self._commands[:QUANTUM]) if isinstance(body, frames.Publish)]
        if answers and isinstance(self.session, AgentSession):
            await self.session.admit(answers)

    def _do_next_nowait(self, session: AgentSession | UserSession) -> bool:
        """Do the next command without waiting, and leave it in the queue. Return False if that was not possible."""
        id, _, body, size = self._commands[0]
        return session.do_nowait(id, body, size)

    def _pop(self) -> Command:
        """Remove the next command from the queue."""
        command = self._commands.pop(0)
        self._socket.adjust_in_flight(-1, -command[3])
        return command

    async def _take_turn(self, share: Share) -> None:
        """Wait for `Share.turn`. The socket is not read meanwhile: further commands would only wait here."""
        blocks = 0 if share.can_begin else 1
        self._socket.adjust_read_blocks(+blocks)
        try:
            await share.turn()
        finally:
            self._socket.adjust_read_blocks(-blocks)

    def spend_share(self) -> None:
        """Count a command done at once. If the share is used up, stop reading the socket until it has room."""
        share = self._principals_share()
        if share is None:
            return
        share.begin()
        if not share.is_open:
            self._socket.adjust_read_blocks(+1)
            share.wait(partial(self._socket.adjust_read_blocks, -1))

    def _principals_share(self) -> Share | None:
        """Return the principal's share, or None before `connect`. It is made at the first command: idle connections have none."""
        if self._share is None and self.session is not None:
            self._share = self._services.shares.of(self.session.principal)
        return self._share

    def _must_wait(self) -> bool:
        """Whether the next command waits until the peer has read everything: a short `history` has a long reply."""
        return self._socket.is_paused and isinstance(self._commands[0][2], frames.History)

    # --- commands ----------------------------------------------------------------------------------------------------

    async def _do(self, id: int | None, kind: str, body: frames.Body, size: int) -> None:
        """Do a command and send its reply or error."""
        try:
            assert id is not None, "the wire session lets no command but `ack` through without an id"
            match body:
                case frames.Challenge():
                    self._socket.send(replies.reply(id, kind, self._login.issue_challenge(body)))
                case frames.Connect():
                    await self._connect(id, kind, body)
                case _:
                    assert self.session is not None, "`connect` comes first, and its failure closes the connection"
                    await self.session.handle(id, kind, body, size)
        except ArtcafeError as exc:
            if isinstance(exc, NotFound):
                self._missed_until = max(self._missed_until, asyncio.get_running_loop().time()) + MISS_PACE_S
            if self.session is not None:
                self._services.counters.count_refusal(self.session.principal, exc, request=kind)
            if isinstance(body, frames.Publish) and self.session is not None:
                metrics.count_refused_publish(exc, self.session.principal.tenant_id)
            if isinstance(body, frames.Connect):
                self._socket.send(replies.error(exc, id))
                self._socket.close(exc)  # this counts the error
            else:
                self._socket.send_error(exc, id=id)

    async def _connect(self, id: int, kind: str, connect: frames.Connect) -> None:
        """Authenticate the peer, for the first time or again: with a fresh token or a signature, to renew the first one."""
        principal, until = await self._login.authenticate(connect)
        session, total = self.session, 0
        if session is None:
            session, total = await self._open(principal, connect)
            self.session = session
        elif (session.principal.tenant_id, session.principal.sender) != (principal.tenant_id, principal.sender):
            raise BadCredentials()  # a connection belongs to one agent or person as long as it is open
        else:
            session.renew(principal, connect.max_unacked)
        session.token_until = until
        self._socket.on_authenticated()
        self._socket.send(replies.reply(id, kind, session.greeting()))
        if total:
            await self._push_connections(principal.tenant_id, total)
        if isinstance(session, AgentSession):
            session.begin_subscriptions()

    async def _push_connections(self, tenant_id: TenantId, total: int) -> None:
        """Notify the new connection if the tenant has nearly as many as its limit."""
        most = await self._services.connections.limit(tenant_id)
        if total * 100 >= most * NOTICE_PERCENTS[0]:
            percent = 100 if total >= most else NOTICE_PERCENTS[0]
            push = replies.LimitsPush(Limit.CONNECTIONS.value, most, total, max(0, most - total), None, percent)
            self._socket.send(replies.limits(push))

    async def _open(self, principal: Principal, connect: frames.Connect) -> tuple[AgentSession | UserSession, int]:
        """Count the connection. Return its session, and the connections of its tenant to all servers.

        Raises `ConnectionLimit` or `Unavailable`, and counts nothing then.
        """
        total = await self._services.connections.enter(principal)
        if not isinstance(principal, AgentPrincipal):
            self._services.usage_counters.connected(principal, total)
            return UserSession(self._services, self._socket, principal, self._deliveries), total
        session = AgentSession(self._services, self._socket, self, self._spawn, principal, self._deliveries, connect)
        try:
            session.open()
        except ArtcafeError:
            self._services.connections.leave(principal)
            raise
        self._services.usage_counters.connected(principal, total)
        return session, total


def _is_answer(command: Command) -> bool:
    body = command[2]
    return isinstance(body, frames.Publish) and body.caused_by is not None
