"""Applying changes in the tables to open connections: a revocation takes effect within 5 s (contract, sentence 12).

The rows of a change are read once per agent, for all of its connections. Each tenant has its own task and waits for no other, and
revocations are applied before anything else.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from artcafe.assembly import Services
from artcafe.errors import ArtcafeError, Internal, OurFault
from artcafe.fabric.position_exchange import MAX_SOCKETS, AgentPosition, Wanted
from artcafe.gateway.agent_requests import AgentRequests
from artcafe.gateway.agent_session import AgentSession
from artcafe.gateway.user_session import UserSession
from artcafe.model import AgentId, ChannelId, TenantChange, TenantId, UserId, UserPrincipal
from artcafe.observe.logs import log
from artcafe.supervision import Supervisor

APPLY_INTERVAL_S: Final = 1.0
"""Shortest time between two applications of a tenant's changes; a revocation has 5 s (sentence 12)."""
AT_ONCE: Final = 8
"""Concurrent reads of agents or people per tenant: few, since the embedded tables do one read at a time for all tenants."""

IdT = TypeVar("IdT", AgentId, UserId)
SessionT = TypeVar("SessionT", AgentSession, UserSession)


@dataclass(slots=True)
class PendingChanges:
    """Changes in a tenant waiting to be applied."""

    is_whole: bool = False
    """Whether anything may have changed."""
    agents: set[AgentId] = field(default_factory=set)
    channels: set[ChannelId] = field(default_factory=set)
    subscriptions: set[tuple[ChannelId, AgentId]] = field(default_factory=set)
    users: set[UserId] = field(default_factory=set)

    def add(self, change: TenantChange | PendingChanges) -> None:
        """Add the rows of a change."""
        self.is_whole = self.is_whole or change.is_whole
        self.agents.update(change.agents)
        self.channels.update(change.channels)
        self.subscriptions.update(change.subscriptions)
        self.users.update(change.users)

    def __bool__(self) -> bool:
        return self.is_whole or bool(self.agents or self.channels or self.subscriptions or self.users)


class TenantSessions:
    """The sessions of one tenant by agent and person, and the changes to apply to them."""

    def __init__(self, tenant_id: TenantId) -> None:
        self.tenant_id = tenant_id
        self.agents: dict[AgentId, list[AgentSession]] = defaultdict(list)
        """A list each: most agents have one connection, and a set costs 0.2 KB per agent."""
        self.users: dict[UserId, list[UserSession]] = defaultdict(list)
        self.pending = PendingChanges()
        self.failure: OurFault | None = None
        """The error of a read during the current application."""
        self.is_worked_on = False

    def take_pending(self) -> PendingChanges:
        """Return and clear the pending changes."""
        pending, self.pending, self.failure = self.pending, PendingChanges(), None
        return pending

    def all(self) -> list[AgentSession | UserSession]:
        """Return every session of the tenant."""
        agents = (each for sessions in self.agents.values() for each in sessions)
        users = (each for sessions in self.users.values() for each in sessions)
        return [*agents, *users]


class AccessUpdates:
    """The authenticated sessions of this server, and the loop for applying changes to them."""

    def __init__(self, services: Services, apply_interval_s: float = APPLY_INTERVAL_S) -> None:
        self._services, self._apply_interval_s = services, apply_interval_s
        self._tenants: dict[TenantId, TenantSessions] = {}
        self._due: list[TenantSessions] = []
        self._change = asyncio.Event()
        self.supervisor = Supervisor("access_updates")

    def enter(self, session: AgentSession | UserSession) -> None:
        """Apply changes to this session from here on."""
        tenant_id = session.principal.tenant_id
        tenant = self._tenants.setdefault(tenant_id, TenantSessions(tenant_id))
        if isinstance(session, AgentSession):
            tenant.agents[session.principal.agent_id].append(session)
        else:
            tenant.users[session.principal.user_id].append(session)

    def leave(self, session: AgentSession | UserSession) -> None:
        """Remove a session, because its socket is closed. May be repeated."""
        tenant_id = session.principal.tenant_id
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            return
        if isinstance(session, AgentSession):
            _discard(tenant.agents, session.principal.agent_id, session)
        else:
            _discard(tenant.users, session.principal.user_id, session)
        if not tenant.agents and not tenant.users:
            del self._tenants[tenant_id]

    def tenants(self) -> set[TenantId]:
        """Return the tenants with a session here."""
        return set(self._tenants)

    def of_tenant(self, tenant_id: TenantId) -> list[AgentSession | UserSession]:
        """Return the tenant's sessions."""
        tenant = self._tenants.get(tenant_id)
        return [] if tenant is None else tenant.all()

    def receivers(self, tenant_id: TenantId, agent_id: AgentId) -> list[AgentRequests]:
        """Return the connections of an agent to this server, as those that take its requests."""
        tenant = self._tenants.get(tenant_id)
        return [] if tenant is None else [session.requests for session in tenant.agents.get(agent_id, ())]

    def positions(self, tenant_id: TenantId, wanted: Wanted) -> list[AgentPosition]:
        """Return how far each of these agents' sockets here has been sent these channels, and its last ack."""
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            return []
        found: list[AgentPosition] = []
        for channel_id, agents in wanted.items():
            for agent_id in agents:
                for session in list(tenant.agents.get(agent_id, ()))[:MAX_SOCKETS]:
                    position = session.subscriber.position(channel_id)
                    if position is not None:
                        found.append(position)
        return found

    def on_change(self, change: TenantChange) -> None:
        """Schedule a change to be applied to the tenant's sessions."""
        tenant = self._tenants.get(change.tenant_id)
        if tenant is not None:
            tenant.pending.add(change)
            self._wake(tenant)

    async def run(self) -> None:
        """Apply changes until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._change.wait()
                self._change.clear()
                due, self._due = self._due, []
                for tenant in due:
                    group.create_task(self._work(tenant))

    def _wake(self, tenant: TenantSessions) -> None:
        if tenant.pending and not tenant.is_worked_on:
            tenant.is_worked_on = True
            self._due.append(tenant)
            self._change.set()

    async def _work(self, tenant: TenantSessions) -> None:
        """Apply pending changes of one tenant until there are none. Retry while the tables are away: delivery continues."""
        try:
            while tenant.pending:
                pending = tenant.take_pending()
                with self.supervisor.contain(tenant=tenant.tenant_id):
                    await self._apply(tenant, pending)
                if tenant.failure is not None:
                    log.warning("gateway.access_update_failed", tenant=tenant.tenant_id, error=str(tenant.failure))
                    tenant.pending.add(pending)
                await asyncio.sleep(self._apply_interval_s)
        finally:
            tenant.is_worked_on = False

    async def _apply(self, tenant: TenantSessions, pending: PendingChanges) -> None:
        agents, users = tenant.agents, tenant.users
        is_whole = pending.is_whole
        await self._each(tenant, agents, list(agents if is_whole else pending.agents), self._check_agent)
        await self._each(tenant, users, list(users if is_whole else pending.users), self._check_user)
        if is_whole:
            await self._each(tenant, agents, list(agents), self._apply_all)
        else:
            await self._apply_some(tenant, [pair for pair in pending.subscriptions if pair[1] in agents])
        if is_whole or pending.channels:
            await self._each(tenant, users, list(users), self._check_channels)

    async def _each(
        self,
        tenant: TenantSessions,
        by_id: Mapping[IdT, list[SessionT]],
        ids: Sequence[IdT],
        do: Callable[[TenantSessions, IdT, list[SessionT]], Awaitable[None]],
    ) -> None:
        """Call `do` for each connected one of these agents or people."""
        for start in range(0, len(ids), AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for id in ids[start : start + AT_ONCE]:
                    if id in by_id:
                        group.create_task(self._one(tenant, list(by_id[id]), partial(do, tenant, id)))
            await asyncio.sleep(0)  # a read of the embedded tables may not have yielded: let others have the loop

    async def _one(
        self, tenant: TenantSessions, sessions: list[SessionT], do: Callable[[list[SessionT]], Awaitable[None]]
    ) -> None:
        with self.supervisor.contain(tenant=tenant.tenant_id):
            try:
                await do(sessions)
            except OurFault as exc:
                tenant.failure = exc
            return
        for session in sessions:  # after an unexpected error it is unknown whether they may stay: fail closed
            self._close(session, Internal())

    async def _check_agent(self, _: TenantSessions, __: AgentId, sessions: list[AgentSession]) -> None:
        """Close sessions without a valid authentication. The first one reads the agent's row; the others find it in memory."""
        for session in sessions:
            await session.check_login()

    async def _check_user(self, _: TenantSessions, __: UserId, sessions: list[UserSession]) -> None:
        """Close a person's sessions after the end of the membership or a change of its role."""
        refusals: dict[UserPrincipal, ArtcafeError | None] = {}
        for session in sessions:
            principal = session.principal
            if principal not in refusals:
                refusals[principal] = await self._refusal(principal)
            if (refusal := refusals[principal]) is not None:
                self._close(session, refusal)

    async def _refusal(self, principal: UserPrincipal) -> ArtcafeError | None:
        try:
            await self._services.member_login.check(principal)
        except OurFault:
            raise
        except ArtcafeError as exc:
            return exc
        return None

    async def _check_channels(self, _: TenantSessions, __: UserId, sessions: list[UserSession]) -> None:
        for session in sessions:
            await session.check_channels()

    async def _apply_all(self, tenant: TenantSessions, agent_id: AgentId, sessions: list[AgentSession]) -> None:
        """Read an agent's subscriptions, and have its sessions deliver these and no others."""
        rows = await self._services.subscriptions.for_connect(tenant.tenant_id, agent_id)
        for session in sessions:
            session.apply_all(rows)

    async def _apply_some(self, tenant: TenantSessions, pairs: Sequence[tuple[ChannelId, AgentId]]) -> None:
        """Read the changed subscriptions, and apply them to the sessions of their agents."""
        try:
            rows = await self._services.subscriptions.now(tenant.tenant_id, pairs)
        except OurFault as exc:
            tenant.failure = exc
            return
        for (channel_id, agent_id), row in zip(pairs, rows, strict=True):
            for session in list(tenant.agents.get(agent_id, ())):
                session.apply(channel_id, row)

    def _close(self, session: AgentSession | UserSession, reason: ArtcafeError) -> None:
        with self.supervisor.contain(reason=reason.code):
            session.close(reason)


def _discard(by_id: dict[IdT, list[SessionT]], id: IdT, session: SessionT) -> None:
    if session in by_id.get(id, ()):
        by_id[id].remove(session)
        if not by_id[id]:
            del by_id[id]
