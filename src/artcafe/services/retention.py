"""Retention: how long messages are kept, and how much of them. What is removed is told to agents by the gateway, as a gap.

It is a loop of ours and not NATS's: behind what NATS removes by itself, the next message names no other before it, so that a gap
would look like a quiet channel (design, decision 2).
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from artcafe.errors import OurFault
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.tenant_fabric import TenantFabric
from artcafe.fabric.tenant_log import DEDUPE_WINDOW_S
from artcafe.model import ChannelId, Cursor, TenantChange, TenantId
from artcafe.observe.clock import Clock
from artcafe.observe.logs import log
from artcafe.rules import plans, subjects
from artcafe.rules.plans import Limit
from artcafe.supervision import Supervisor
from artcafe.tables.store import Store
from artcafe.tables.tenant_store import TenantStore

PERIOD_S: Final = 60.0
PLAN_S: Final = 3600.0
"""How long a tenant's plan and channels are believed; a change of either, wherever it was made, is heard before."""
CHANNELS_AT_ONCE: Final = 500
"""NATS answers for 1,024 at most."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a tenant's log is held to: its size, and its channels by how many seconds they keep their messages."""

    storage_bytes: int
    channels: Mapping[int, list[ChannelId]]


async def read_plan(store: TenantStore) -> Plan | None:
    """What every sweep reads of the tables; None where there is no such tenant any more. Raises `Unavailable`."""
    tenant = await store.tenant()
    if tenant is None:
        return None
    channels: dict[int, list[ChannelId]] = defaultdict(list)
    for channel in await store.all_channels():
        channels[plans.retention_of(channel, tenant)].append(channel.id)
    return Plan(plans.limit_of(tenant, Limit.STORAGE_BYTES), channels)


class Retention:
    """Removes what is older than its channel keeps it, oldest first.

    Every server of a fleet may do it for the same tenant, and any may end anywhere in it. How far messages go is written to the
    channel's row first, and then they are removed: whoever finds one gone reads there how far that goes.
    """

    def __init__(self, store: Store, fabric: Fabric, clock: Clock, *, period_s: float = PERIOD_S) -> None:
        self._store, self._fabric, self._clock, self._period_s = store, fabric, clock, period_s
        self._plans: dict[TenantId, tuple[float, Plan | None]] = {}
        """What was read of each tenant that is open here, and when, by the monotonic clock."""
        self._changes = 0
        self.supervisor = Supervisor("retention")

    def changed(self, change: TenantChange) -> None:
        """Read the tenant's plan and channels again at its next sweep."""
        self._changes += 1
        self._plans.pop(change.tenant_id, None)

    async def run(self) -> None:
        """Sweep the tenants that are open on this server every `period_s`, until cancelled."""
        while True:
            await asyncio.sleep(self._period_s)
            tenant_fabrics = self._fabric.open_tenants()
            self._plans = {
                each.tenant_id: self._plans[each.tenant_id] for each in tenant_fabrics if each.tenant_id in self._plans
            }
            for tenant_fabric in tenant_fabrics:
                with self.supervisor.contain(tenant=tenant_fabric.tenant_id):
                    await self._try_sweep(tenant_fabric)

    async def _try_sweep(self, tenant_fabric: TenantFabric) -> None:
        try:
            await self.sweep(tenant_fabric)
        except OurFault as exc:
            log.debug("retention.waits", tenant=tenant_fabric.tenant_id, error=str(exc))

    async def sweep(self, tenant_fabric: TenantFabric) -> None:
        """Removes what is due in one tenant, and bounds its log as its plan now has it. May be repeated. Raises `Unavailable`."""
        state = await tenant_fabric.log.state()
        plan = None if state is None else await self._plan(tenant_fabric.tenant_id)
        if state is None or plan is None:
            return
        await tenant_fabric.log.limit(plan.storage_bytes)
        for seconds, channels in plan.channels.items():
            for start in range(0, len(channels), CHANNELS_AT_ONCE):
                some = channels[start : start + CHANNELS_AT_ONCE]
                # The keys of messages are known from the messages where NATS starts anew (contract, sentence 3).
                before = self._clock() - timedelta(seconds=max(seconds, DEDUPE_WINDOW_S))
                due = await tenant_fabric.log.last_seqs(some, until=before)
                for channel_id in some:
                    if seq := due.get(subjects.stored(channel_id)):
                        await self._remove(tenant_fabric, channel_id, Cursor(epoch=state.epoch, seq=seq), before)

    async def _plan(self, tenant_id: TenantId) -> Plan | None:
        now = time.monotonic()
        read_at, plan = self._plans.get(tenant_id, (float("-inf"), None))
        if now - read_at > PLAN_S:
            changes = self._changes
            plan = await read_plan(self._store.tenant(tenant_id))
            if changes == self._changes:  # else this tenant may have been changed while it was read
                self._plans[tenant_id] = (now, plan)
        return plan

    async def _remove(self, tenant_fabric: TenantFabric, channel_id: ChannelId, to: Cursor, before: datetime) -> None:
        if await self._store.tenant(tenant_fabric.tenant_id).note_removed(channel_id, to, before):
            await tenant_fabric.log.purge(channel_id, up_to=to.seq)
            log.debug("retention.removed", tenant=tenant_fabric.tenant_id, channel=channel_id, to=to.seq)

    # --- what others ask ---

    async def removed_to(self, tenant_id: TenantId, channel_id: ChannelId) -> Cursor:
        """How far the channel's messages are gone, or about to be; read anew. Raises `Unavailable`."""
        return await self._store.tenant(tenant_id).removed_to(channel_id)

    async def removal(self, tenant_id: TenantId, channel_id: ChannelId) -> tuple[Cursor, datetime | None]:
        """As `removed_to`, and the time before which all of that was stored, where it was noted. Raises `Unavailable`."""
        return await self._store.tenant(tenant_id).removal(channel_id)

    async def storage_bytes(self, tenant_id: TenantId) -> int:
        """How much the tenant's messages may take on disk. Raises `Unavailable`."""
        tenant = await self._store.tenant(tenant_id).tenant()
        if tenant is None:  # It is being deleted; whoever published a moment ago still has to be answered.
            return plans.PLANS[plans.DEFAULT_PLAN][Limit.STORAGE_BYTES]
        return plans.limit_of(tenant, Limit.STORAGE_BYTES)
