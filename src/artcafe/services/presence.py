"""Presence: which agents are connected, and the status that each has set. Servers share it by `fabric.presence_registry`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from artcafe.errors import Unavailable
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.presence_registry import AgentPresence, PresenceRegistry
from artcafe.model import AgentId, AgentPrincipal, Principal, TenantId
from artcafe.observe.clock import Clock
from artcafe.rules import access, fields
from artcafe.rules.access import Action


class Seen(msgspec.Struct, frozen=True):
    """An agent's presence: since when it has been connected without a break, and the status that it set since."""

    connected: bool
    status: str | None = None
    since: datetime | None = None


class View:
    """The presence of one tenant's agents at the moment of each question."""

    def __init__(self, registry: PresenceRegistry) -> None:
        self._roster = registry

    def of(self, agent_id: AgentId) -> Seen:
        """The agent's presence; one that does not exist is not connected."""
        seat = self._roster.find(agent_id)
        return Seen(connected=False) if seat is None else Seen(connected=True, status=seat.status, since=seat.since)


AWAY: Final = Seen(connected=False)


class Watch:
    """Tells one onlooker of each agent whose presence is another than it was told last."""

    def __init__(self, registry: PresenceRegistry, tell: Callable[[AgentId, Seen], None], is_held: Callable[[], bool]) -> None:
        """While `is_held` nothing is told: `look_at_all` afterwards tells how things are then."""
        self._roster, self._view, self._tell, self._is_held = registry, View(registry), tell, is_held
        self._told: dict[AgentId, Seen] = {}
        registry.watch(self._look)

    def look_at_all(self) -> None:
        """Tells of every agent that is not as it was told, at first of all that are connected."""
        for agent_id in sorted({*self._told, *self._roster.agents()}):
            self._look(agent_id)

    def stop(self) -> None:
        self._roster.unwatch(self._look)

    def _look(self, agent_id: AgentId) -> None:
        if self._is_held():
            return
        seen = self._view.of(agent_id)
        if seen == self._told.get(agent_id, AWAY):
            return
        if seen.connected:
            self._told[agent_id] = seen
        else:
            del self._told[agent_id]
        self._tell(agent_id, seen)


class Presence:
    """The sockets of this server's agents are told here, and who is connected on any server is asked here.

    What this server holds counts at once; what another holds, as soon as it has told. When a server dies, its agents are shown
    as disconnected when its lease ends.
    """

    def __init__(self, fabric: Fabric, clock: Clock) -> None:
        self._fabric, self._clock = fabric, clock
        self._sockets: dict[tuple[TenantId, AgentId], int] = {}

    def came(self, agent: AgentPrincipal) -> None:
        """One more socket of the agent. Raises `Unavailable` while the server ends, and counts nothing then."""
        registry = self._fabric.tenant(agent.tenant_id).presence
        who = (agent.tenant_id, agent.agent_id)
        self._sockets[who] = self._sockets.get(who, 0) + 1
        if registry.own(agent.agent_id) is None:
            registry.put(AgentPresence(agent.agent_id, self._clock()))

    def gone(self, agent: AgentPrincipal) -> None:
        """One socket of the agent less; its status ends with the last, on whichever server."""
        who = (agent.tenant_id, agent.agent_id)
        self._sockets[who] -= 1
        if self._sockets[who] > 0:
            return
        del self._sockets[who]
        tenant_fabric = self._fabric.peek(agent.tenant_id)
        if tenant_fabric is not None:
            tenant_fabric.presence.remove(agent.agent_id)

    def set_status(self, agent: AgentPrincipal, status: str | None) -> str | None:
        """Sets the status of a connected agent, or takes it away, and returns it as it is shown. Raises `Invalid`."""
        status = None if status is None else fields.name(status, "status")
        registry = self._fabric.tenant(agent.tenant_id).presence
        now = self._clock()
        since = seat.since if (seat := registry.own(agent.agent_id)) else now
        registry.put(AgentPresence(agent.agent_id, since, status, now))
        return status

    async def watch(
        self, principal: Principal, tell: Callable[[AgentId, Seen], None], is_held: Callable[[], bool] = lambda: False
    ) -> Watch:
        """Has `tell` called with what changes in the principal's tenant, at most once each, until the watch is stopped.

        Raises Forbidden, and Unavailable where nobody can tell because NATS cannot be reached.
        """
        access.check(principal, Action.READ_AGENTS)
        registry = self._fabric.tenant(principal.tenant_id).presence
        if not await registry.is_known():
            raise Unavailable("who is connected is unknown: the message log (NATS)")
        return Watch(registry, tell, is_held)

    async def view(self, tenant_id: TenantId) -> View | None:
        """Who is connected; None where nobody can tell: NATS cannot be reached, or many tenants are asked about at once.

        No table is read.
        """
        try:
            registry = self._fabric.tenant(tenant_id, is_needed=False).presence
        except Unavailable:
            return None
        return View(registry) if await registry.is_known() else None
