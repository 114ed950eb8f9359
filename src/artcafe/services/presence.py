"""Presence: the connected agents, and their status texts. Servers exchange it with `fabric.presence_registry`."""

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
    """An agent's presence: whether and since when it is connected, and the status it has set."""

    connected: bool
    status: str | None = None
    since: datetime | None = None


class View:
    """Reads the current presence of one tenant's agents."""

    def __init__(self, registry: PresenceRegistry) -> None:
        self._registry = registry

    def last_seen(self, agent_id: AgentId, now: datetime, acked_at: datetime | None) -> datetime | None:
        """Return when the agent was last known to be connected: now, when it left, or when its last ack was written if that is
        later. None: unknown."""
        if self._registry.find(agent_id) is not None:
            return now
        known = [time for time in (self._registry.left_at(agent_id), acked_at) if time is not None]
        return max(known, default=None)

    def of(self, agent_id: AgentId) -> Seen:
        """Return the agent's presence. An unknown agent is not connected."""
        presence = self._registry.find(agent_id)
        return Seen(connected=False) if presence is None else Seen(connected=True, status=presence.status, since=presence.since)


AWAY: Final = Seen(connected=False)


class PresenceWatch:
    """Notifies one observer of each agent whose presence differs from the last notification."""

    def __init__(
        self, registry: PresenceRegistry, notify: Callable[[AgentId, Seen], None], is_paused: Callable[[], bool]
    ) -> None:
        """While `is_paused` returns True, nothing is notified: call `notify_of_all` afterwards."""
        self._registry, self._view, self._notify, self._is_paused = registry, View(registry), notify, is_paused
        self._notified: dict[AgentId, Seen] = {}
        registry.watch(self._notify_of)

    def notify_of_all(self) -> None:
        """Notify of every agent whose presence differs from the last notification; the first time, of all connected ones."""
        for agent_id in sorted({*self._notified, *self._registry.agents()}):
            self._notify_of(agent_id)

    def stop(self) -> None:
        self._registry.unwatch(self._notify_of)

    def _notify_of(self, agent_id: AgentId) -> None:
        if self._is_paused():
            return
        seen = self._view.of(agent_id)
        if seen == self._notified.get(agent_id, AWAY):
            return
        if seen.connected:
            self._notified[agent_id] = seen
        else:
            del self._notified[agent_id]
        self._notify(agent_id, seen)


class Presence:
    """Counts the sockets of this server's agents, and reads the presence of agents on all servers.

    Changes on this server are visible at once, changes on another one when its announcement arrives. If a server dies, its agents
    are shown as disconnected when its lease expires.
    """

    def __init__(self, fabric: Fabric, clock: Clock) -> None:
        self._fabric, self._clock = fabric, clock
        self._sockets: dict[tuple[TenantId, AgentId], int] = {}

    def add_socket(self, agent: AgentPrincipal) -> None:
        """Count one more socket of the agent. Raises `Unavailable`, without counting, while the server stops."""
        tenant_fabric = self._fabric.tenant(agent.tenant_id)
        registry = tenant_fabric.presence
        tenant_fabric.positions.answer_others()
        key = (agent.tenant_id, agent.agent_id)
        self._sockets[key] = self._sockets.get(key, 0) + 1
        if registry.own(agent.agent_id) is None:
            registry.put(AgentPresence(agent.agent_id, self._clock()))

    def remove_socket(self, agent: AgentPrincipal) -> None:
        """Count one socket of the agent less. Its status ends with its last socket on any server."""
        key = (agent.tenant_id, agent.agent_id)
        self._sockets[key] -= 1
        if self._sockets[key] > 0:
            return
        del self._sockets[key]
        tenant_fabric = self._fabric.peek(agent.tenant_id)
        if tenant_fabric is not None:
            tenant_fabric.presence.remove(agent.agent_id)

    def set_status(self, agent: AgentPrincipal, status: str | None) -> str | None:
        """Set the status of a connected agent, or remove it with None, and return it as others see it. Raises `Invalid`."""
        status = None if status is None else fields.name(status, "status")
        registry = self._fabric.tenant(agent.tenant_id).presence
        now = self._clock()
        since = own.since if (own := registry.own(agent.agent_id)) else now
        registry.put(AgentPresence(agent.agent_id, since, status, now))
        return status

    async def watch(
        self, principal: Principal, notify: Callable[[AgentId, Seen], None], is_paused: Callable[[], bool] = lambda: False
    ) -> PresenceWatch:
        """Call `notify` once for each change of presence in the principal's tenant, until the watch is stopped.

        Raises Forbidden, and Unavailable if presence is unknown because NATS cannot be reached.
        """
        access.check(principal, Action.READ_AGENTS)
        registry = self._fabric.tenant(principal.tenant_id).presence
        if not await registry.is_known():
            raise Unavailable("who is connected is unknown: the message log (NATS)")
        return PresenceWatch(registry, notify, is_paused)

    async def view(self, tenant_id: TenantId) -> View | None:
        """Return the presence of a tenant's agents. Reads no table.

        None if it is unknown: NATS cannot be reached, or too many tenants are queried at once.
        """
        try:
            registry = self._fabric.tenant(tenant_id, is_needed=False).presence
        except Unavailable:
            return None
        return View(registry) if await registry.is_known() else None
