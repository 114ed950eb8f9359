"""Applies changes in the tables to the open connections, so that a revocation takes effect within 5 s (contract, sentence 12).

What a change names is read once an agent, however many sockets it has. Each tenant has a task of its own, so that none waits for
another, and its revocations are applied before anything else.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from artcafe.errors import ArtcafeError, Internal, OurFault
from artcafe.gateway.connection import Connection
from artcafe.gateway.desk import Desk
from artcafe.model import AgentId, AgentPrincipal, ChannelId, TenantChange, TenantId, UserId, UserPrincipal
from artcafe.observe.logs import log
from artcafe.supervision import Supervisor

RECHECK_S: Final = 1.0
"""Changes of a tenant that come closer together than this are applied together; a revocation has 5 s (sentence 12)."""
AT_ONCE: Final = 8
"""Agents or people of a tenant that are read at the same time: few, since the embedded tables are read one after the other, and
other tenants read them too."""

IdT = TypeVar("IdT", AgentId, UserId)


@dataclass(slots=True)
class PendingChanges:
    """What has changed in a tenant and was not applied yet."""

    is_whole: bool = False
    agents: set[AgentId] = field(default_factory=set)
    channels: set[ChannelId] = field(default_factory=set)
    subscriptions: set[tuple[ChannelId, AgentId]] = field(default_factory=set)
    users: set[UserId] = field(default_factory=set)

    def add(self, change: TenantChange | PendingChanges) -> None:
        """Add what a change names."""
        self.is_whole = self.is_whole or change.is_whole
        self.agents.update(change.agents)
        self.channels.update(change.channels)
        self.subscriptions.update(change.subscriptions)
        self.users.update(change.users)

    def __bool__(self) -> bool:
        return self.is_whole or bool(self.agents or self.channels or self.subscriptions or self.users)


class TenantConnections:
    """The connections of one tenant, by who is on them, and what is to be applied to them."""

    def __init__(self, tenant_id: TenantId) -> None:
        self.tenant_id = tenant_id
        self.agents: dict[AgentId, list[Connection]] = defaultdict(list)
        """Most agents have one connection, and a set would cost each of them 0.2 KB."""
        self.users: dict[UserId, list[Connection]] = defaultdict(list)
        self.pending = PendingChanges()
        self.failure: OurFault | None = None
        """Why some of what is being applied could not be read."""
        self.is_worked_on = False

    def take_pending(self) -> PendingChanges:
        """Return what is pending, and begin anew."""
        pending, self.pending, self.failure = self.pending, PendingChanges(), None
        return pending

    def all(self) -> list[Connection]:
        """Return every connection of the tenant."""
        return [each for by_id in (self.agents, self.users) for sockets in by_id.values() for each in sockets]


class AccessUpdates:
    """The connections whose peers have proven themselves, and the loop that applies changes to them."""

    def __init__(self, desk: Desk, recheck_s: float = RECHECK_S) -> None:
        self._desk, self._recheck_s = desk, recheck_s
        self._tenants: dict[TenantId, TenantConnections] = {}
        self._due: list[TenantConnections] = []
        self._change = asyncio.Event()
        self.supervisor = Supervisor("rechecks")

    def enter(self, connection: Connection) -> None:
        """The peer has proven who it is: from here on changes apply to its connection."""
        principal = connection.conversation.principal
        assert principal is not None
        sockets = self._tenants.setdefault(principal.tenant_id, TenantConnections(principal.tenant_id))
        if isinstance(principal, AgentPrincipal):
            sockets.agents[principal.agent_id].append(connection)
        else:
            sockets.users[principal.user_id].append(connection)

    def leave(self, connection: Connection) -> None:
        """The connection is gone. May be repeated."""
        principal = connection.conversation.principal
        sockets = None if principal is None else self._tenants.get(principal.tenant_id)
        if principal is None or sockets is None:
            return
        if isinstance(principal, AgentPrincipal):
            _discard(sockets.agents, principal.agent_id, connection)
        else:
            _discard(sockets.users, principal.user_id, connection)
        if not sockets.agents and not sockets.users:
            del self._tenants[principal.tenant_id]

    def tenants(self) -> set[TenantId]:
        """Return the tenants with a connection here."""
        return set(self._tenants)

    def of_tenant(self, tenant_id: TenantId) -> list[Connection]:
        """Return the tenant's connections."""
        sockets = self._tenants.get(tenant_id)
        return [] if sockets is None else sockets.all()

    def changed(self, change: TenantChange) -> None:
        """Have a change applied to the tenant's connections."""
        sockets = self._tenants.get(change.tenant_id)
        if sockets is not None:
            sockets.pending.add(change)
            self._wake(sockets)

    async def run(self) -> None:
        """Apply what changes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._change.wait()
                self._change.clear()
                due, self._due = self._due, []
                for sockets in due:
                    group.create_task(self._work(sockets))

    def _wake(self, sockets: TenantConnections) -> None:
        if sockets.pending and not sockets.is_worked_on:
            sockets.is_worked_on = True
            self._due.append(sockets)
            self._change.set()

    async def _work(self, sockets: TenantConnections) -> None:
        """Apply what is pending in one tenant, until nothing is. Without the tables delivery goes on, and it is tried again."""
        try:
            while sockets.pending:
                pending = sockets.take_pending()
                with self.supervisor.contain(tenant=sockets.tenant_id):
                    await self._apply(sockets, pending)
                if sockets.failure is not None:
                    log.warning("gateway.recheck_failed", tenant=sockets.tenant_id, error=str(sockets.failure))
                    sockets.pending.add(pending)
                await asyncio.sleep(self._recheck_s)
        finally:
            sockets.is_worked_on = False

    async def _apply(self, sockets: TenantConnections, pending: PendingChanges) -> None:
        agents, users = sockets.agents, sockets.users
        is_whole = pending.is_whole
        await self._each(sockets, agents, list(agents if is_whole else pending.agents), self._check_agent)
        await self._each(sockets, users, list(users if is_whole else pending.users), self._check_user)
        if is_whole:
            await self._each(sockets, agents, list(agents), self._apply_all)
        else:
            await self._apply_some(sockets, [pair for pair in pending.subscriptions if pair[1] in agents])
        if is_whole or pending.channels:
            await self._each(sockets, users, list(users), self._check_channels)

    async def _each(
        self,
        sockets: TenantConnections,
        by_id: Mapping[IdT, list[Connection]],
        ids: Sequence[IdT],
        do: Callable[[TenantConnections, IdT, list[Connection]], Awaitable[None]],
    ) -> None:
        """Do it for each of these agents, or people, that are connected."""
        for start in range(0, len(ids), AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for id in ids[start : start + AT_ONCE]:
                    if id in by_id:
                        group.create_task(self._one(sockets, list(by_id[id]), partial(do, sockets, id)))
            await asyncio.sleep(0)  # reading a file may have waited for nothing: now others have the loop

    async def _one(
        self, sockets: TenantConnections, connections: list[Connection], do: Callable[[list[Connection]], Awaitable[None]]
    ) -> None:
        with self.supervisor.contain(tenant=sockets.tenant_id):
            try:
                await do(connections)
            except OurFault as exc:
                sockets.failure = exc
            return
        for connection in connections:  # an unforeseen error leaves open whether they may stay: fail closed
            self._close(connection, Internal())

    async def _check_agent(self, _: TenantConnections, __: AgentId, connections: list[Connection]) -> None:
        """Close the connections whose proof has ended. The first one reads the agent's row, and the others find it in memory."""
        for connection in connections:
            await connection.conversation.is_current()

    async def _check_user(self, _: TenantConnections, __: UserId, connections: list[Connection]) -> None:
        """Close the connections of a person whose membership has ended or has another role."""
        refusals: dict[UserPrincipal, ArtcafeError | None] = {}
        for connection in connections:
            principal = connection.conversation.principal
            assert isinstance(principal, UserPrincipal)
            if principal not in refusals:
                refusals[principal] = await self._refusal(principal)
            if (refusal := refusals[principal]) is not None:
                self._close(connection, refusal)

    async def _refusal(self, principal: UserPrincipal) -> ArtcafeError | None:
        try:
            await self._desk.member_login.check(principal)
        except OurFault:
            raise
        except ArtcafeError as exc:
            return exc
        return None

    async def _check_channels(self, _: TenantConnections, __: UserId, connections: list[Connection]) -> None:
        for connection in connections:
            await connection.conversation.check_channels()

    async def _apply_all(self, sockets: TenantConnections, agent_id: AgentId, connections: list[Connection]) -> None:
        """Read an agent's subscriptions, and have its connections deliver these and no others."""
        rows = await self._desk.subscriptions.for_connect(sockets.tenant_id, agent_id)
        for connection in connections:
            connection.conversation.apply_all(rows)

    async def _apply_some(self, sockets: TenantConnections, pairs: Sequence[tuple[ChannelId, AgentId]]) -> None:
        """Read the subscriptions that have changed, and have the connections of their agents deliver what they say now."""
        try:
            rows = await self._desk.subscriptions.now(sockets.tenant_id, pairs)
        except OurFault as exc:
            sockets.failure = exc
            return
        for (channel_id, agent_id), row in zip(pairs, rows, strict=True):
            for connection in list(sockets.agents.get(agent_id, ())):
                connection.conversation.apply(channel_id, row)

    def _close(self, connection: Connection, reason: ArtcafeError) -> None:
        with self.supervisor.contain(reason=reason.code):
            connection.close(reason)


def _discard(by_id: dict[IdT, list[Connection]], id: IdT, connection: Connection) -> None:
    if connection in by_id.get(id, ()):
        by_id[id].remove(connection)
        if not by_id[id]:
            del by_id[id]
