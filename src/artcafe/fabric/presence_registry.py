"""The connected agents of one tenant, on all servers. Each server publishes its agents, and an update is valid for a lease.

Nothing is stored, and updates are sent at most once (contract, sentence 12; decision record 10). `services.presence` counts an
agent's sockets and defines its presence.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
from nats.aio.msg import Msg

from artcafe.errors import NoResponder, OurFault
from artcafe.fabric.nats.client import IncomingMessage, OutgoingMessage
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.nats.subscription import SubjectSubscription
from artcafe.model import AgentId
from artcafe.observe.clock import now
from artcafe.observe.logs import log
from artcafe.rules.subjects import PRESENCE, PRESENCE_ASK, Subject
from artcafe.supervision import Supervisor

LEASE_S: Final = 50.0
"""How long a server's update of an agent is valid: two renewals may be lost."""
RENEW_S: Final = 20.0
ASK_S: Final = 1.0
"""How long to wait for the other servers. A server without an answer by then publishes with its next renewal, or is gone."""
RETRY_S: Final = 0.2
MAX_LEFT: Final = 10_000
"""Agents of a tenant whose last connection a server remembers, some 0.2 KB each."""
PORTION: Final = 500
"""Agents in one message: at most 170 KB with the longest statuses. NATS accepts 1 MiB."""


class AgentPresence(msgspec.Struct, frozen=True, array_like=True):
    """An agent on one server: when it connected, by that server's clock (None: it has left), its status there and when that was
    set."""

    agent: AgentId
    since: datetime | None
    status: str | None = None
    status_at: datetime | None = None

    def is_newer(self, other: AgentPresence) -> bool:
        """Return whether its status was set later than the other's."""
        return self.status_at is not None and (other.status_at is None or self.status_at > other.status_at)


class PresenceUpdate(msgspec.Struct, frozen=True, array_like=True):
    """A server's message about its agents. `is_end`: the server has now published all its agents."""

    server: str
    agents: list[AgentPresence]
    is_end: bool


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(PresenceUpdate)
_names_decoder = msgspec.json.Decoder(list[str])


class PresenceRegistry:
    """One tenant's agents: exactly those of this server, and those of the other servers from their updates.

    It joins the others (subscribes, requests their agents, publishes its own) when a watcher or an agent needs it, and again
    after each new connection, since updates may have been missed.
    """

    def __init__(
        self,
        connection: NatsConnection,
        server: str,
        *,
        lease_s: float = LEASE_S,
        prepare: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`server` is this server's unique name. `prepare` is awaited before this server's agents are published: from then on the
        other servers send requests to them."""
        self._connection, self._server, self._prepare = connection, server, prepare
        self._lease_s = lease_s
        self._own: dict[AgentId, AgentPresence] = {}
        self._others: dict[str, dict[AgentId, tuple[AgentPresence, float]]] = {}
        """By server: its update of each agent, with its monotonic expiry."""
        self._left: OrderedDict[AgentId, datetime] = OrderedDict()
        """When agents left a server, the newest at the end."""
        self._unpublished: set[AgentId] = set()
        self._is_renewal_due = False
        self._due = asyncio.Event()
        self._wanted = asyncio.Event()
        self._is_stale = True
        """Whether the connection is newer than the last join."""
        self._is_known = False
        self._settled = asyncio.Event()
        """Set when waiting longer would not give more information now."""
        self._received: set[str] = set()
        self._news = asyncio.Event()
        self._subscriptions: list[SubjectSubscription] = []
        self._watchers: list[Callable[[AgentId], None]] = []
        self.supervisor = Supervisor("presence_registry")
        connection.on_up(self._mark_stale)

    def __len__(self) -> int:
        """Return the number of this server's agents."""
        return len(self._own)

    # --- watchers -----------------------------------------------------------------------------------------------------

    def watch(self, callback: Callable[[AgentId], None]) -> None:
        """Call `callback` with every agent whose presence may have changed."""
        self._watchers.append(callback)

    def unwatch(self, callback: Callable[[AgentId], None]) -> None:
        self._watchers.remove(callback)

    @property
    def is_watched(self) -> bool:
        return bool(self._watchers)

    def _notify(self, agents: Iterable[AgentId]) -> None:
        for agent in agents if self._watchers else ():
            for callback in list(self._watchers):
                with self.supervisor.contain(agent=agent):
                    callback(agent)

    # --- this server's agents -----------------------------------------------------------------------------------------

    def own(self, agent: AgentId) -> AgentPresence | None:
        """Return the agent's presence on this server."""
        return self._own.get(agent)

    def put(self, presence: AgentPresence) -> None:
        """Set an agent's presence on this server, and publish it soon."""
        self._own[presence.agent] = presence
        self._publish_soon(presence.agent)
        self._notify([presence.agent])

    def remove(self, agent: AgentId) -> None:
        """Remove an agent from this server. May be repeated."""
        if self._own.pop(agent, None) is not None:
            self._note_left(agent, now())
            self._publish_soon(agent)
            self._notify([agent])

    def _publish_soon(self, agent: AgentId) -> None:
        self._unpublished.add(agent)
        self._wanted.set()
        self._due.set()

    def _note_left(self, agent: AgentId, at: datetime) -> None:
        self._left[agent] = at
        self._left.move_to_end(agent)
        if len(self._left) > MAX_LEFT:
            self._left.popitem(last=False)

    # --- all servers' agents ------------------------------------------------------------------------------------------

    async def is_known(self) -> bool:
        """Return whether `find` covers all servers, after waiting a moment for the first answers. False without NATS."""
        self._wanted.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * ASK_S):
                await self._settled.wait()
        return self.is_known_now

    @property
    def is_known_now(self) -> bool:
        """Whether `find` covers all servers now, as far as is known."""
        return self._is_known and self._connection.is_up

    def left_at(self, agent: AgentId) -> datetime | None:
        """Return when an agent was last noticed to leave a server; None if that is unknown."""
        return self._left.get(agent)

    def servers_of(self, agent: AgentId) -> list[str]:
        """Return the names of the other servers that an agent is connected to."""
        at = time.monotonic()
        return [server for server, held in self._others.items() if held.get(agent, _ABSENT)[1] > at]

    def agents(self) -> set[AgentId]:
        """Return every agent that may be connected to any server."""
        return {*self._own, *(agent for held in self._others.values() for agent in held)}

    def find(self, agent: AgentId) -> AgentPresence | None:
        """Return the agent's presence over all servers: connected since the earliest, with the newest status. None: not
        connected."""
        at = time.monotonic()
        presences = [presence for held in self._others.values() for presence, until in [held.get(agent, _ABSENT)] if until > at]
        if agent in self._own:
            presences.append(self._own[agent])
        found: AgentPresence | None = None
        for presence in presences:
            found = presence if found is None else _merged(found, presence)
        return found

    # --- the loop -----------------------------------------------------------------------------------------------------

    @property
    def knows_others(self) -> bool:
        """Whether another server has agents of the tenant, as far as is known."""
        return bool(self._others)

    def renew(self) -> None:
        """Publish this server's agents again soon, and forget those of servers that did not. Call it every `RENEW_S`."""
        self._is_renewal_due = True
        self._due.set()

    async def run(self) -> None:
        """Exchange updates with the other servers, from the first need until cancelled."""
        await self._wanted.wait()
        while True:
            try:
                await self._connection.wait_up(ASK_S)
                await self._join()
                await self._keep_published()
            except OurFault as exc:
                log.debug("presence_registry.disconnected", error=repr(exc))
                self._settled.set()
                await asyncio.sleep(RETRY_S)

    def _mark_stale(self) -> None:
        self._is_stale, self._is_known = True, False
        self._settled.clear()
        self._due.set()

    async def _join(self) -> None:
        """Join the other servers. Of two servers that join at the same time, at least one hears the other: each subscribes before
        it asks, and publishes after it can be asked. It must not answer requests while it asks, or NATS could not report that no
        other server exists."""
        self._is_stale = False
        if self._prepare is not None:
            await self._prepare()
        while self._subscriptions:
            await self._connection.unsubscribe(self._subscriptions.pop())
        self._received.clear()
        self._subscriptions.append(await self._connection.subscribe(PRESENCE, self._on_update, self._take))
        await self._ask()
        self._subscriptions.append(await self._connection.subscribe(PRESENCE_ASK, self._on_request))
        await self._publish(list(self._own), is_end=True)
        self._is_known = not self._is_stale
        self._settled.set()

    async def _ask(self) -> None:
        """Wait until every server with agents of the tenant has published them: each does, and names the others it knows."""
        with contextlib.suppress(NoResponder, TimeoutError, msgspec.DecodeError):
            async with asyncio.timeout(ASK_S):
                answer = await self._connection.request(PRESENCE_ASK, b"", timeout_s=ASK_S)
                named = set(_names_decoder.decode(answer.data)) - {self._server}
                while not named <= self._received:
                    self._news.clear()
                    await self._news.wait()

    async def _keep_published(self) -> None:
        """Publish changes at once, and everything at each renewal. Return after a new connection."""
        while not self._is_stale:
            await self._publish_changes()
            if self._is_renewal_due:
                self._is_renewal_due = False
                self._forget_expired()
                await self._publish(list(self._own), is_end=True)
            await self._due.wait()
            self._due.clear()

    # --- publishing and receiving -------------------------------------------------------------------------------------

    async def _publish_changes(self) -> None:
        changed, self._unpublished = self._unpublished, set()
        try:
            await self._publish(list(changed), is_end=False)
        except OurFault:
            self._unpublished |= changed
            raise

    async def _publish(self, agents: list[AgentId], *, is_end: bool) -> None:
        """Publish agents. Each is read as its portion is sent, so that no older update follows a newer one. Raise
        `Unavailable`."""
        for start in range(0, len(agents), PORTION):
            portion = [self._own.get(agent) or AgentPresence(agent, None) for agent in agents[start : start + PORTION]]
            update = PresenceUpdate(self._server, portion, is_end and start + PORTION >= len(agents))
            await self._connection.send(OutgoingMessage(PRESENCE, "", _encode(update)))

    async def _on_request(self, msg: Msg) -> None:
        try:
            await self._publish(list(self._own), is_end=True)
            at = time.monotonic()
            others = [name for name, held in self._others.items() if any(until > at for _, until in held.values())]
            names = [*others, *([self._server] if self._own else [])]
            await self._connection.send(OutgoingMessage(Subject(msg.reply), "", _encode(names)))
        except OurFault as exc:  # the asking server continues after a timeout, and receives the next renewal
            log.debug("presence_registry.not_answered", error=repr(exc))

    async def _on_update(self, msg: Msg) -> None:
        self._take(IncomingMessage(msg.data, None))

    def _take(self, incoming: IncomingMessage) -> bool:
        try:
            update = _decoder.decode(incoming.data)
        except msgspec.DecodeError as exc:
            log.warning("presence_registry.unreadable", error=str(exc))
            return True
        if update.server != self._server:
            self._apply(update.server, update.agents)
            if update.is_end:
                self._received.add(update.server)
                self._news.set()
        return True

    def _apply(self, server: str, agents: Sequence[AgentPresence]) -> None:
        held = self._others.setdefault(server, {})
        until = time.monotonic() + self._lease_s
        for presence in agents:
            if presence.since is not None:
                held[presence.agent] = (presence, until)
            elif (left := held.pop(presence.agent, None)) is not None:
                self._note_left(presence.agent, now())
                self._inherit(left[0])
        if not held:
            del self._others[server]
        self._notify([presence.agent for presence in agents])

    def _inherit(self, left: AgentPresence) -> None:
        """Keep a status on this server: it ends with the agent's last socket, and another of its sockets is here."""
        own = self._own.get(left.agent)
        if own is not None and left.is_newer(own):
            self.put(msgspec.structs.replace(own, status=left.status, status_at=left.status_at))

    def _forget_expired(self) -> None:
        at = time.monotonic()
        for server, held in list(self._others.items()):
            gone = [agent for agent, (_, until) in held.items() if until <= at]
            for agent in gone:
                _, until = held.pop(agent)
                self._note_left(agent, now() - timedelta(seconds=at - until + self._lease_s))  # its last update
            if not held:
                del self._others[server]
            self._notify(gone)


_ABSENT: Final = (AgentPresence(AgentId(""), None), 0.0)


def _merged(one: AgentPresence, other: AgentPresence) -> AgentPresence:
    assert one.since is not None
    assert other.since is not None
    newest = other if other.is_newer(one) else one
    return msgspec.structs.replace(newest, since=min(one.since, other.since))
