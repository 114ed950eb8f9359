"""Take queue messages from agents that may not hold them any more: the subscription was paused or deleted, the agent disabled or
deleted, or the channel or tenant deleted. A suspended tenant's agents hold theirs until the deadline: nobody else may have them.

A socket gives its messages back when it ends, or when its delivery does. A pull has ended long before its messages, so the rows
are read after each change that names them.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Final, Protocol

from artcafe.delivery.pull_holds import HolderKey, PullHolds
from artcafe.errors import ChannelNotFound, OurFault, TenantNotFound
from artcafe.model import AgentId, AgentStatus, ChannelId, Permission, TenantChange, TenantId
from artcafe.observe.logs import log
from artcafe.services.record_cache import RecordCache
from artcafe.services.subscriptions import Subscriptions
from artcafe.supervision import Supervisor

AGAIN_S: Final = 1.0
"""Pause before another read: after a failure, and while a pull that began before the change may still take messages."""


class AccessServices(Protocol):
    """The services that know who may receive a channel."""

    @property
    def subscriptions(self) -> Subscriptions: ...

    @property
    def record_cache(self) -> RecordCache: ...


class PullRevocation:
    """Gives back what agents hold by pulls once they lose their access."""

    def __init__(self, services: AccessServices, holds: PullHolds) -> None:
        self._services, self._holds = services, holds
        self._due: set[HolderKey] = set()
        self._wake = asyncio.Event()
        self.supervisor = Supervisor("pull_revocation")

    def on_change(self, change: TenantChange) -> None:
        """Read the rows of the affected holders again."""
        for key in self._holds.keys_of(change.tenant_id):
            _, agent_id, channel_id = key
            is_named = (
                agent_id in change.agents or channel_id in change.channels or (channel_id, agent_id) in change.subscriptions
            )
            if change.is_whole or is_named:
                self._read_again([key])

    def _read_again(self, keys: Sequence[HolderKey]) -> None:
        self._due.update(keys)
        self._wake.set()

    async def run(self) -> None:
        """Give back messages after changes, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            due, self._due = self._due, set()
            by_tenant: defaultdict[TenantId, list[HolderKey]] = defaultdict(list)
            for key in due:
                by_tenant[key[0]].append(key)
            for tenant_id, keys in by_tenant.items():
                with self.supervisor.contain(tenant=tenant_id):
                    await self._revoke(tenant_id, keys)

    async def _revoke(self, tenant_id: TenantId, keys: Sequence[HolderKey]) -> None:
        """Give back the messages of holders without access."""
        try:
            lost = await self._without_access(tenant_id, keys)
        except OurFault as exc:
            log.warning("pull_revocation.waits", tenant=tenant_id, holders=len(keys), error=str(exc))
            lost, later = [], list(keys)
        else:
            later = [key for key in lost if self._holds.give_back(key)]
        if later:
            asyncio.get_running_loop().call_later(AGAIN_S, self._read_again, later)

    async def _without_access(self, tenant_id: TenantId, keys: Sequence[HolderKey]) -> list[HolderKey]:
        """Return the holders whose agents may not receive their queues now. Raises `Unavailable`."""
        if not await self._has_tenant(tenant_id):
            return list(keys)
        rows = await self._services.subscriptions.now(tenant_id, [(channel_id, agent_id) for _, agent_id, channel_id in keys])
        return [
            key
            for key, row in zip(keys, rows, strict=True)
            if row is None
            or not row.allows(Permission.RECEIVE)
            or not await self._is_active(tenant_id, key[1])
            or not await self._has_channel(tenant_id, key[2])
        ]

    async def _has_tenant(self, tenant_id: TenantId) -> bool:
        try:
            return not (await self._services.record_cache.tenant(tenant_id)).is_deleting
        except TenantNotFound:
            return False

    async def _is_active(self, tenant_id: TenantId, agent_id: AgentId) -> bool:
        agent = await self._services.record_cache.find_agent(tenant_id, agent_id)
        return agent is not None and agent.status is AgentStatus.ACTIVE

    async def _has_channel(self, tenant_id: TenantId, channel_id: ChannelId) -> bool:
        try:
            await self._services.record_cache.subscribed(tenant_id, channel_id)
        except ChannelNotFound:
            return False
        return True
