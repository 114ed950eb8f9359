"""The meter: count the stored messages of every tenant, each once, into its usage rows.

One server at a time is the meter of a tenant, by a lease in the tenant's row. A server looks after the tenants that are open on
it and have something to count: an idle tenant costs neither a write nor a read.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from datetime import datetime, timedelta
from typing import Final

from artcafe.errors import OurFault
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.log_state import LogState
from artcafe.fabric.tenant_fabric import TenantFabric
from artcafe.model import ChannelId, Cursor, Seq, TenantId
from artcafe.observe.clock import Clock
from artcafe.observe.logs import log
from artcafe.services.tenant_meter import TenantMeter
from artcafe.supervision import Supervisor
from artcafe.tables.store import Store
from artcafe.tables.usage_rows import MeterState

INTERVAL_S: Final = 25.0
"""Default of the seconds between two counts of a busy tenant."""
LEASE_MORE_S: Final = 15.0
"""How much longer than an interval the lease of a tenant's meter lasts: a dead server's tenants are counted by others after that,
and the totals trail by less than 60 s."""
LOOK_S: Final = 2.0
"""Seconds between two looks at which tenants have something to count, which asks nobody."""
TENANTS_AT_ONCE: Final = 8
SEARCH_S: Final = 600.0
"""Seconds between two searches for uncounted messages in tenants that are not open, while no server seems to die."""
SEARCH_AGAIN_S: Final = 10.0
"""Seconds until the next search after one that could not finish, and while the leases of a server that may have died end."""
OPENED_AT_ONCE: Final = 32
ROWS_AT_ONCE: Final = 100
RELEASE_S: Final = 1.0
"""How long a stopping server counts what it stored. What is left, another server or the next start counts."""


class Meter:
    """Counts the messages stored in the tenants' logs."""

    def __init__(
        self, store: Store, fabric: Fabric, clock: Clock, *, interval_s: float = INTERVAL_S, look_s: float = LOOK_S
    ) -> None:
        """`interval_s` is the time between two counts of a busy tenant, at most 40 s if totals shall trail by less than 60 s."""
        self._store, self._fabric, self._clock = store, fabric, clock
        self._interval_s, self._look_s = interval_s, look_s
        self._lease_s = interval_s + LEASE_MORE_S
        self._name = secrets.token_hex(8)
        self._tenants: dict[TenantId, TenantMeter] = {}
        self._ends: dict[TenantId, Seq] = {}
        """The ends of logs found to be counted, of tenants that are not open."""
        self._working: set[TenantMeter] = set()
        self._at_once = asyncio.Semaphore(TENANTS_AT_ONCE)
        self._search_at: datetime | None = None
        self._losses, self._often_until = fabric.announcements.losses, clock()
        self.supervisor = Supervisor("meter")
        fabric.enable_metering()

    async def run(self) -> None:
        """Count the open tenants, each every `interval_s` while it has something to count, until cancelled.

        At the start, and when another server may have died, closed tenants are looked for too.
        """
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(self._look_s)
                with self.supervisor.contain():
                    await self._try_search()
                for tenant in self._due():  # A tenant with much to read does not delay the others.
                    group.create_task(self._work(tenant))

    async def _try_search(self) -> None:
        losses, now = self._fabric.announcements.losses, self._clock()
        if losses != self._losses or self._search_at is None:
            self._losses, self._search_at = losses, now
            self._often_until = now + timedelta(seconds=self._lease_s + SEARCH_AGAIN_S)
        if now < self._search_at:
            return
        try:
            is_all = await self.search()
        except OurFault as exc:
            log.debug("meter.not_searched", error=str(exc))
            is_all = False
        self._search_at = now + timedelta(seconds=SEARCH_S if is_all and now >= self._often_until else SEARCH_AGAIN_S)

    async def search(self) -> bool:
        """Open the tenants whose logs have uncounted messages: a server may have died before it counted them.

        One request asks NATS for the ends of all logs, and only the rows of tenants whose log has grown are read. A tenant whose
        meter has a lease is left to it. Return False if more tenants were found than may be opened at once. Raise `Unavailable`.
        """
        now, ends = self._clock(), await self._fabric.log_ends()
        grown = [each for each, end in ends.items() if self._ends.get(each) != end and each not in self._tenants]
        behind: list[TenantId] = []
        for start in range(0, len(grown), ROWS_AT_ONCE):
            for tenant_id, state in (await self._store.meters(grown[start : start + ROWS_AT_ONCE])).items():
                if state is not None and state.attributed >= ends[tenant_id]:
                    self._ends[tenant_id] = ends[tenant_id]
                elif state is None or state.lease is None or state.lease.until <= now:
                    behind.append(tenant_id)
        for tenant_id in behind[:OPENED_AT_ONCE]:
            self._fabric.tenant(tenant_id, is_needed=False)
        return len(behind) <= OPENED_AT_ONCE

    async def look(self) -> None:
        """Count the due open tenants, once."""
        async with asyncio.TaskGroup() as group:
            for tenant in self._due():
                group.create_task(self._work(tenant))

    def _due(self) -> list[TenantMeter]:
        now = self._clock()
        return [
            each
            for each in self._open()
            if each not in self._working and each.has_work and (each.due_at is None or each.due_at <= now)
        ]

    async def _work(self, tenant: TenantMeter) -> None:
        self._working.add(tenant)
        try:
            async with self._at_once:
                with self.supervisor.contain(tenant=tenant.tenant_fabric.tenant_id):
                    await self._try_work(tenant)
        finally:
            self._working.discard(tenant)

    async def _try_work(self, tenant: TenantMeter) -> None:
        try:
            await tenant.work(self._interval_s)
        except OurFault as exc:
            log.debug("meter.waits", tenant=tenant.tenant_fabric.tenant_id, error=str(exc))
        tenant.tenant_fabric.is_uncounted = tenant.is_needed

    def _open(self) -> list[TenantMeter]:
        """Return the meters of the open tenants, and forget those of closed ones."""
        self._tenants = {each.tenant_id: self._of(each) for each in self._fabric.open_tenants()}
        return list(self._tenants.values())

    def _of(self, tenant_fabric: TenantFabric) -> TenantMeter:
        known = self._tenants.get(tenant_fabric.tenant_id)
        if known is not None and known.tenant_fabric is tenant_fabric:
            return known
        made = TenantMeter(self._store, tenant_fabric, self._clock, self._name, self._lease_s)
        self._tenants[tenant_fabric.tenant_id] = made
        return made

    # --- for other services ---

    def of(self, tenant_id: TenantId) -> TenantMeter | None:
        """Return the meter of an open tenant; None if it was not looked at yet."""
        return self._tenants.get(tenant_id)

    def look_again(self, tenant_id: TenantId) -> None:
        """Count the tenant's log soon: messages were stored there by other ways than its writer."""
        if (meter := self._tenants.get(tenant_id)) is not None:
            meter.look_again()

    async def catch_up(self, tenant_id: TenantId) -> MeterState | None:
        """Count every message stored before the call. Return the meter's row, None without one. Raise `Unavailable`."""
        return await self._of(self._fabric.tenant(tenant_id)).catch_up()

    async def counted_to(self, tenant_id: TenantId, end: LogState) -> Seq:
        """Return the sequence up to which the log `end` is counted, parts included: no later message may be removed.

        Raise `Unavailable`.
        """
        state = await self._store.usage(tenant_id).meter()
        if state is None:
            return 0
        cursor = Cursor(epoch=state.cursor.epoch, seq=min(state.attributed, state.cursor.seq))
        return end.lineage.to_seq(cursor)

    async def as_of(self, tenant_id: TenantId) -> datetime | None:
        """Return the time up to which every stored message is in the totals; None if nothing was counted yet.

        Raise `Unavailable`.
        """
        began, state = self._clock(), await self._store.usage(tenant_id).meter()
        end = await self._fabric.position(tenant_id)
        if end == (Cursor() if state is None else state.cursor):
            return began
        return None if state is None else state.as_of

    async def purge(self, tenant_id: TenantId, channel_id: ChannelId) -> None:
        """Count a channel's messages, and then remove them, with those accepted here before. May be repeated. Raise
        `Unavailable`."""
        await self._fabric.tenant(tenant_id).writer.settle()
        counted = await self.catch_up(tenant_id)
        if await self._fabric.purge_scheduled(tenant_id, channel_id, up_to=None if counted is None else counted.cursor.seq):
            counted = await self.catch_up(tenant_id)  # some may have been delivered meanwhile; no more are
        await self._fabric.purge(tenant_id, channel_id, up_to=None if counted is None else counted.cursor.seq)

    async def release(self) -> None:
        """Count this server's messages, and end its leases, within `RELEASE_S`: the server is about to stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_S), asyncio.TaskGroup() as group:
                for tenant in self._open():
                    if tenant.is_needed:
                        group.create_task(self._try_release(tenant))

    async def _try_release(self, tenant: TenantMeter) -> None:
        with self.supervisor.contain(tenant=tenant.tenant_fabric.tenant_id), contextlib.suppress(OurFault):
            await tenant.release()


class MeteredLogs:
    """The tenants' logs: a channel's messages are counted before their removal."""

    def __init__(self, fabric: Fabric, meter: Meter) -> None:
        self._fabric, self._meter = fabric, meter

    async def purge(self, tenant_id: TenantId, channel_id: ChannelId) -> None:
        """Count a channel's messages, and then remove them, and its consumer, if it is a queue. May be repeated. Raise
        `Unavailable`."""
        await self._meter.purge(tenant_id, channel_id)
        await self._fabric.delete_queue(tenant_id, channel_id)

    async def is_queue_done(self, tenant_id: TenantId, channel_id: ChannelId) -> bool:
        """Return whether every message of a queue channel has ended. Raise `Unavailable`."""
        return await self._fabric.is_queue_done(tenant_id, channel_id)

    async def drop(self, tenant_id: TenantId) -> None:
        """Delete a tenant's log as `Fabric.drop` does; its usage is deleted too."""
        await self._fabric.drop(tenant_id)

    async def position(self, tenant_id: TenantId) -> Cursor:
        """Return the end of a tenant's log. Raise `Unavailable`."""
        return await self._fabric.position(tenant_id)

    async def limit_log(self, tenant_id: TenantId, max_bytes: int) -> None:
        """Set the size limit of a tenant's log as `Fabric.limit_log` does."""
        await self._fabric.limit_log(tenant_id, max_bytes)
