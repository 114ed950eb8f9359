"""Cache of tenants, their limits, channels, agents and permissions, for publishes without table reads.

A channel or agent is found by its id or by its handle; an id wins. Callers read the store directly when a stale value is not
acceptable.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Iterable
from typing import Final, Generic, TypeVar, cast

from artcafe.errors import AgentNotFound, ChannelNotFound, TenantNotFound
from artcafe.model import (
    Access,
    Agent,
    AgentId,
    AgentPrincipal,
    Channel,
    ChannelId,
    HandleKind,
    Permission,
    Principal,
    Subscription,
    Tenant,
    TenantChange,
    TenantId,
    subscription_id,
)
from artcafe.rules import access, handles, inboxes
from artcafe.rules.access import Action
from artcafe.rules.plans import Plans, TenantLimits
from artcafe.services.invalidation import Invalidation
from artcafe.tables.store import Store

SIZE: Final = 100_000
"""Maximum records of each kind; an agent with its key takes about 1 kB."""
IDLE_S: Final = 60.0
"""Seconds that an unused tenant stays cached: the versions of cached tenants are read regularly."""

RecordT = TypeVar("RecordT", Tenant, Channel, Agent, Subscription)
NamedT = TypeVar("NamedT", Channel, Agent)


class RecordCache:
    """Drops a record as soon as a change names it."""

    def __init__(self, store: Store, invalidation: Invalidation, plans: Plans, size: int = SIZE) -> None:
        self._store, self._plans = store, plans
        self._limits: dict[TenantId, TenantLimits] = {}
        """The limits of cached tenants."""
        self.peek_limits: Final = self._limits.get
        """Return the tenant's limits if they are cached. None says nothing about the tenant."""
        self._size = size
        self._agents_only: dict[TenantId, set[str]] = {}
        """Names of agents, used by publishes, that no channel of the tenant has."""
        self._tenants = _Known[Tenant](size)
        self._channels = _Known[Channel](size)
        self._agents = _Known[Agent](size)
        self.peek_agent: Final = self._agents.get
        """Return the agent with this id or handle if it is cached. None says nothing about its existence."""
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

    async def channel(self, tenant_id: TenantId, channel: str) -> Channel:
        """Return the channel with this id or handle. Raises ChannelNotFound with the given text.

        Use the `id` of the answer from then on.
        """
        found = await self.find_channel(tenant_id, channel)
        if found is None:
            raise ChannelNotFound(channel)
        return found

    async def find_channel(self, tenant_id: TenantId, channel: str) -> Channel | None:
        """Return the channel with this id or handle, or None."""
        known = self._channels.get(tenant_id, channel)
        return known or await self._find(self._channels, tenant_id, HandleKind.CHANNEL, channel)

    async def agent(self, tenant_id: TenantId, agent: str) -> Agent:
        """Return the agent with this id or handle. Raises AgentNotFound with the given text.

        Use the `id` of the answer from then on.
        """
        found = await self.find_agent(tenant_id, agent)
        if found is None:
            raise AgentNotFound(agent)
        return found

    async def find_agent(self, tenant_id: TenantId, agent: str) -> Agent | None:
        """Return the agent with this id or handle, or None."""
        known = self._agents.get(tenant_id, agent)
        return known or await self._find(self._agents, tenant_id, HandleKind.AGENT, agent)

    async def handles_of(self, tenant_id: TenantId, kind: HandleKind, ids: Iterable[str]) -> dict[str, str]:
        """Return the handles of agents or channels by id, without those that have none. One read for all uncached ones."""
        known: _Known[Agent] | _Known[Channel] = self._agents if kind is HandleKind.AGENT else self._channels
        found: dict[str, str] = {}
        unknown: list[str] = []
        for id in sorted(set(ids)):
            record = known.get(tenant_id, id)
            if record is None or record.id != id:
                unknown.append(id)
            elif record.handle is not None:
                found[id] = record.handle
        return found | (await self._store.tenant(tenant_id).handles_of(kind, unknown) if unknown else {})

    async def destination(self, principal: Principal, name: str) -> Channel:
        """Return the channel with this id, or the inbox of the agent with this id. A channel comes first, unless the name begins
        with `@`. Raises ChannelNotFound, and AgentNotFound for a name with `@`.

        A managed channel without a subscription of the asking agent is answered like a missing one.
        """
        tenant_id = principal.tenant_id
        owner = inboxes.owner_of(name)
        if owner is not None:
            return inboxes.channel_of(tenant_id, (await self.agent(tenant_id, owner)).id)
        agents_only = self._agents_only.setdefault(tenant_id, set())
        channel = await self.find_channel(tenant_id, name)
        hidden: ChannelNotFound | None = None
        if channel is not None:
            try:
                await self.check_visible(principal, channel, name)
            except ChannelNotFound as exc:
                hidden = exc
            else:
                return channel
        agent = await self.find_agent(tenant_id, name)
        if agent is None:
            raise hidden or ChannelNotFound(name)
        if hidden is None and self._agents_only.get(tenant_id) is agents_only and len(agents_only) < self._size:
            agents_only.add(name)  # else a channel may have got the name meanwhile
        return inboxes.channel_of(tenant_id, agent.id)

    async def check_visible(self, principal: Principal, channel: Channel, name: str) -> None:
        """Raise ChannelNotFound for an agent without a subscription, of any status, to this managed channel."""
        if channel.access is Access.OPEN or not isinstance(principal, AgentPrincipal):
            return
        if await self._subscription(principal.tenant_id, channel, principal.agent_id) is None:
            access.check_may_find(principal, name)

    def peek_destination(self, tenant_id: TenantId, name: str) -> Channel | None:
        """Return the channel or inbox if it is cached. None says nothing about its existence."""
        channel = self._channels.get(tenant_id, name)
        if channel is not None:
            return channel
        owner = inboxes.owner_of(name)
        if owner is None and name not in self._agents_only.get(tenant_id, ()):
            return None
        agent = self._agents.get(tenant_id, owner or name)
        return None if agent is None else inboxes.channel_of(tenant_id, agent.id)

    async def subscribed(self, tenant_id: TenantId, channel_id: ChannelId) -> Channel:
        """Return the channel of a subscription, which may be an agent's to its inbox. Raises ChannelNotFound."""
        owner = inboxes.owner_of(channel_id)
        return await self.channel(tenant_id, channel_id) if owner is None else inboxes.channel_of(tenant_id, owner)

    async def channel_id(self, tenant_id: TenantId, name: str) -> ChannelId:
        """Return the id of the channel, or after `@` of the inbox, with this id or handle; the text itself if there is none."""
        owner = inboxes.owner_of(name)
        if owner is not None:
            agent = await self.find_agent(tenant_id, owner)
            return ChannelId(name) if agent is None else inboxes.inbox_of(agent.id)
        channel = await self.find_channel(tenant_id, name) if handles.is_handle(name) else None
        return ChannelId(name) if channel is None else channel.id

    async def check_receives(self, principal: Principal, channel: Channel) -> None:
        """Raise Forbidden unless the principal may receive a channel: an inbox is its agent's alone, whoever else asks."""
        owner = inboxes.owner_of(channel.id)
        if owner is None:
            await self.check_managed(principal, channel, Permission.RECEIVE, Action.READ_MANAGED)
        else:
            access.check(principal, Action.READ_INBOX, owner)

    async def allows(self, tenant_id: TenantId, channel: Channel, agent_id: AgentId, permission: Permission) -> bool:
        """Return whether the agent's subscription to the channel is active and has the permission."""
        known = await self._subscription(tenant_id, channel, agent_id)
        return known is not None and known.allows(permission)

    async def _subscription(self, tenant_id: TenantId, channel: Channel, agent_id: AgentId) -> Subscription | None:
        key = subscription_id(channel.id, agent_id)
        known = self._subscriptions.get(tenant_id, key)
        if known is not None:
            return known
        reading = self._store.tenant(tenant_id).subscriptions.get(channel.id, agent_id)
        return await self._subscriptions.load(tenant_id, key, reading)

    async def check_managed(self, principal: Principal, channel: Channel, permission: Permission, action: Action) -> None:
        """Raise Forbidden for an agent without this permission in a managed channel. `action` names the refused action."""
        if channel.access is Access.OPEN or not isinstance(principal, AgentPrincipal):
            return
        if not await self.allows(principal.tenant_id, channel, principal.agent_id, permission):
            access.check(principal, action)

    async def _find(self, known: _Known[NamedT], tenant_id: TenantId, kind: HandleKind, text: str) -> NamedT | None:
        """Read the record with this id, or else with this handle, and cache it under both.

        The claim of the handle names the id. The row must have the handle too: a cached one may be older than the claim, and is
        read again.
        """
        row = await self._load(known, tenant_id, kind, text)
        if row is not None or not handles.is_handle(text):
            return row
        id = await self._store.tenant(tenant_id).handles.owner(kind, text)
        row = None if id is None else known.get(tenant_id, id)
        if id is not None and (row is None or row.handle != text):
            known.forget_one(tenant_id, id)
            row = await self._load(known, tenant_id, kind, id)
        if row is None or row.handle != text:
            return None
        known.add_handle(tenant_id, text, row)
        return row

    async def _load(self, known: _Known[NamedT], tenant_id: TenantId, kind: HandleKind, id: str) -> NamedT | None:
        tenant = self._store.tenant(tenant_id)
        reading = tenant.agent(id) if kind is HandleKind.AGENT else tenant.channel(id)
        # `known` and `kind` belong together; the types do not say so.
        return await known.load(tenant_id, id, cast(Awaitable[NamedT | None], reading))

    def forget(self, change: TenantChange) -> None:
        """Drop the records named by a change. The next request reads them again."""
        tenant_id = change.tenant_id
        if change.is_whole:
            self._forget_tenant(tenant_id)
            return
        self._tenants.forget(tenant_id)
        if change.may_change_limits:
            self._limits.pop(tenant_id, None)
        if change.channels:
            self._agents_only.pop(tenant_id, None)
        for channel_id in change.channels:
            self._channels.forget_one(tenant_id, channel_id)
        for channel_id, agent_id in change.subscriptions:
            self._subscriptions.forget_one(tenant_id, subscription_id(channel_id, agent_id))
        for agent_id in (*change.agents, *(agent_id for _, agent_id in change.subscriptions)):
            self._agents.forget_one(tenant_id, agent_id)

    def tenants(self) -> set[TenantId]:
        """Return the tenants with cached records: their versions must be watched."""
        return {tenant_id for known in self._kinds for tenant_id in known.tenants()}.union(self._limits, self._agents_only)

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
        self._agents_only.pop(tenant_id, None)
        for known in self._kinds:
            known.forget(tenant_id)


class _Known(Generic[RecordT]):
    """LRU cache of at most `size` records of one kind, by tenant and id, and some also by handle. Missing records are not
    cached."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._records: OrderedDict[tuple[TenantId, str], RecordT] = OrderedDict()
        self._ids: dict[TenantId, set[str]] = {}
        self._by_handle: dict[tuple[TenantId, str], RecordT] = {}
        """Records that are cached by id, and were found by this handle."""
        self._handles: dict[tuple[TenantId, str], str] = {}
        """The handles of `_by_handle`, by tenant and id."""
        self._loads: dict[tuple[TenantId, str], object] = {}
        """The newest load of each record that is being read; `forget_one` removes it."""
        self._used: set[TenantId] = set()

    def get(self, tenant_id: TenantId, id: str) -> RecordT | None:
        key = (tenant_id, id)
        self._used.add(tenant_id)
        record = self._records.get(key)
        if record is None:
            record = self._by_handle.get(key)
            if record is None:
                return None
            key = (tenant_id, record.id)
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

    def add_handle(self, tenant_id: TenantId, handle: str, record: RecordT) -> None:
        """Cache the record by its handle too, if it is cached by its id."""
        if self._records.get((tenant_id, record.id)) is record:
            self._by_handle[tenant_id, handle] = record
            self._handles[tenant_id, record.id] = handle

    def forget(self, tenant_id: TenantId) -> None:
        for id in self._ids.pop(tenant_id, ()):
            del self._records[tenant_id, id]
            self._drop_handle(tenant_id, id)

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

    def _drop_handle(self, tenant_id: TenantId, id: str) -> None:
        handle = self._handles.pop((tenant_id, id), None)
        if handle is not None:
            del self._by_handle[tenant_id, handle]

    def _drop_id(self, tenant_id: TenantId, id: str) -> None:
        self._drop_handle(tenant_id, id)
        ids = self._ids[tenant_id]
        ids.remove(id)
        if not ids:
            del self._ids[tenant_id]
