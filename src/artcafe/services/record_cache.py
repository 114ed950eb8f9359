"""Cache of tenants, their limits, channels, agents and permissions, for publishes without table reads.

Callers read the store directly when a stale value is not acceptable.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable
from typing import Final, Generic, TypeVar

from artcafe.errors import AgentNotFound, ChannelNotFound, TenantNotFound
from artcafe.model import (
    Access,
    Agent,
    AgentId,
    AgentPrincipal,
    Channel,
    Permission,
    Principal,
    Subscription,
    Tenant,
    TenantChange,
    TenantId,
    subscription_id,
)
from artcafe.rules import access
from artcafe.rules.access import Action
from artcafe.rules.plans import Plans, TenantLimits
from artcafe.services.invalidation import Invalidation
from artcafe.tables.store import Store

SIZE: Final = 100_000
"""Maximum records of each kind; an agent with its key takes about 1 kB."""
IDLE_S: Final = 60.0
"""Seconds that an unused tenant stays cached: the versions of cached tenants are read regularly."""

RecordT = TypeVar("RecordT")


class RecordCache:
    """Drops a record as soon as a change names it."""

    def __init__(self, store: Store, invalidation: Invalidation, plans: Plans, size: int = SIZE) -> None:
        self._store, self._plans = store, plans
        self._limits: dict[TenantId, TenantLimits] = {}
        """The limits of cached tenants."""
        self.peek_limits: Final = self._limits.get
        """Return the tenant's limits if they are cached. None says nothing about the tenant."""
        self._tenants = _Known[Tenant](size)
        self._channels = _Known[Channel](size)
        self._agents = _Known[Agent](size)
        self._subscriptions = _Known[Subscription](size)
        self._kinds = (self._tenants, self._channels, self._agents, self._subscriptions)
        invalidation.subscribe(self.forget)

    async def tenant(self, tenant_id: TenantId) -> Tenant:
        """Return the tenant, also while it is suspended or being deleted. Raises TenantNotFound."""
        known = self._tenants.get(tenant_id, "")
        known = known or await self._tenants.load(tenant_id, "", self._store.tenant(tenant_id).tenant())
        if known is None:
            raise TenantNotFound(tenant_id)
        return known

    async def limits(self, tenant_id: TenantId) -> TenantLimits:
        """Return the tenant's limits, at most 5 s old. Raises TenantNotFound."""
        known = self._limits.get(tenant_id)
        if known is None:
            tenant = await self.tenant(tenant_id)
            known = self._plans.limits_of(tenant)
            if self._tenants.get(tenant_id, "") is tenant:  # else it changed during the read
                self._limits[tenant_id] = known
        return known

    async def channel(self, tenant_id: TenantId, channel_id: str) -> Channel:
        """Return a channel. Raises ChannelNotFound."""
        known = self._channels.get(tenant_id, channel_id)
        known = known or await self._channels.load(tenant_id, channel_id, self._store.tenant(tenant_id).channel(channel_id))
        if known is None:
            raise ChannelNotFound(channel_id)
        return known

    def peek_channel(self, tenant_id: TenantId, channel_id: str) -> Channel | None:
        """Return the channel if it is cached. None says nothing about its existence."""
        return self._channels.get(tenant_id, channel_id)

    async def agent(self, tenant_id: TenantId, agent_id: str) -> Agent:
        """Return an agent. Raises AgentNotFound."""
        known = self._agents.get(tenant_id, agent_id)
        known = known or await self._agents.load(tenant_id, agent_id, self._store.tenant(tenant_id).agent(agent_id))
        if known is None:
            raise AgentNotFound(agent_id)
        return known

    async def allows(self, tenant_id: TenantId, channel: Channel, agent_id: AgentId, permission: Permission) -> bool:
        """Return whether the agent's subscription to the channel is active and has the permission."""
        key = subscription_id(channel.id, agent_id)
        known = self._subscriptions.get(tenant_id, key)
        if known is None:
            reading = self._store.tenant(tenant_id).subscriptions.get(channel.id, agent_id)
            known = await self._subscriptions.load(tenant_id, key, reading)
        return known is not None and known.allows(permission)

    async def check_managed(self, principal: Principal, channel: Channel, permission: Permission, action: Action) -> None:
        """Raise Forbidden for an agent without this permission in a managed channel. `action` names the refused action."""
        if channel.access is Access.OPEN or not isinstance(principal, AgentPrincipal):
            return
        if not await self.allows(principal.tenant_id, channel, principal.agent_id, permission):
            access.check(principal, action)

    def forget(self, change: TenantChange) -> None:
        """Drop the records named by a change. The next request reads them again."""
        tenant_id = change.tenant_id
        if change.is_whole:
            self._forget_tenant(tenant_id)
            return
        self._tenants.forget(tenant_id)
        if change.may_change_limits:
            self._limits.pop(tenant_id, None)
        for channel_id in change.channels:
            self._channels.forget_one(tenant_id, channel_id)
        for channel_id, agent_id in change.subscriptions:
            self._subscriptions.forget_one(tenant_id, subscription_id(channel_id, agent_id))
        for agent_id in (*change.agents, *(agent_id for _, agent_id in change.subscriptions)):
            self._agents.forget_one(tenant_id, agent_id)

    def tenants(self) -> set[TenantId]:
        """Return the tenants with cached records: their versions must be watched."""
        return {tenant_id for known in self._kinds for tenant_id in known.tenants()}.union(self._limits)

    async def run(self) -> None:
        """Drop tenants unused for `IDLE_S`, to save reads of their versions, until cancelled."""
        while True:
            await asyncio.sleep(IDLE_S)
            self.drop_idle()

    def drop_idle(self) -> None:
        """Drop the tenants unused since the last call."""
        used = {tenant_id for known in self._kinds for tenant_id in known.take_used()}
        for tenant_id in self.tenants() - used:
            self._forget_tenant(tenant_id)

    def _forget_tenant(self, tenant_id: TenantId) -> None:
        self._limits.pop(tenant_id, None)
        for known in self._kinds:
            known.forget(tenant_id)


class _Known(Generic[RecordT]):
    """LRU cache of at most `size` records of one kind, by tenant and id. Missing records are not cached."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._records: OrderedDict[tuple[TenantId, str], RecordT] = OrderedDict()
        self._ids: dict[TenantId, set[str]] = {}
        self._loads: dict[tuple[TenantId, str], object] = {}
        """The newest load of each record that is being read; `forget_one` removes it."""
        self._used: set[TenantId] = set()

    def get(self, tenant_id: TenantId, id: str) -> RecordT | None:
        key = (tenant_id, id)
        self._used.add(tenant_id)
        record = self._records.get(key)
        if record is not None:
            self._records.move_to_end(key)
        return record

    async def load(self, tenant_id: TenantId, id: str, reading: Awaitable[RecordT | None]) -> RecordT | None:
        """Read a record, and cache it unless it was forgotten during the read: then the read may precede the change."""
        key = (tenant_id, id)
        ids = self._ids.setdefault(tenant_id, set())
        load = self._loads[key] = object()
        try:
            record = await reading
        finally:
            is_newest = self._loads.get(key) is load
            if is_newest:
                del self._loads[key]
        # The set's identity is the generation: `forget` removes the set, and a later load creates another.
        if record is not None and is_newest and self._ids.get(tenant_id) is ids:
            self._records[key] = record
            ids.add(id)
            self._make_room()
        return record

    def forget(self, tenant_id: TenantId) -> None:
        for id in self._ids.pop(tenant_id, ()):
            del self._records[tenant_id, id]

    def forget_one(self, tenant_id: TenantId, id: str) -> None:
        self._loads.pop((tenant_id, id), None)
        if self._records.pop((tenant_id, id), None) is not None:
            self._drop_id(tenant_id, id)

    def take_used(self) -> set[TenantId]:
        """Return the tenants used since the last call."""
        used, self._used = self._used, set()
        return used

    def tenants(self) -> set[TenantId]:
        return set(self._ids)

    def _make_room(self) -> None:
        while len(self._records) > self._size:
            (tenant_id, id), _ = self._records.popitem(last=False)
            self._drop_id(tenant_id, id)

    def _drop_id(self, tenant_id: TenantId, id: str) -> None:
        ids = self._ids[tenant_id]
        ids.remove(id)
        if not ids:
            del self._ids[tenant_id]
