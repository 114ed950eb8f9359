"""Deliver scheduled messages when they are due, and remove old ended ones, on whichever servers run.

Every server knows the minutes in which tenants have scheduled messages (`fabric.wake_ups`). For each tenant one of the servers
looks into the log in these minutes; another one takes its place when it does not answer. That two servers look at once costs work
only: each message moves to its channel once (`fabric.scheduled_messages`, decision record 50).
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Final

from artcafe.errors import OurFault, QuotaFull, ScheduledLimit, TenantNotFound
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.log_state import LogState
from artcafe.fabric.tenant_fabric import TenantFabric
from artcafe.fabric.wake_ups import MINUTE_S, minute_of
from artcafe.model import Seq, TenantId
from artcafe.observe.clock import Clock
from artcafe.observe.logs import log
from artcafe.services.meter import Meter
from artcafe.services.record_cache import RecordCache
from artcafe.supervision import Supervisor

MOST: Final = 10_000
"""Scheduled messages of a tenant, of which each server that delivers them keeps some 300 bytes in memory."""
LEAD: Final = timedelta(seconds=2)
"""How long before a minute a tenant is opened."""
AFTER: Final = timedelta(seconds=60)
"""How long after a minute it is kept: the clocks of servers may differ by as much."""
TAKE_OVER: Final = timedelta(seconds=10)
"""How long after that a server looks itself, although another one should have: that one may have lost its connection only."""
RETRY_MIN_S: Final = 0.05
"""Seconds from a failed look into a tenant's log to the next one; each further failure doubles them, to at most `LOOK_S`."""
LOOK_S: Final = 1.0
"""Seconds between two looks at the minutes of all tenants."""
STEP_S: Final = 0.5
"""Most seconds between two looks into a tenant's log in a minute with scheduled messages: another server may have added some."""
QUOTA_S: Final = 10.0
"""Seconds between two attempts while the tenant's storage is full."""
SWEEP: Final = timedelta(seconds=60)


class Scheduler:
    """The scheduled messages of all tenants, as far as this server delivers them."""

    def __init__(self, record_cache: RecordCache, fabric: Fabric, meter: Meter | None, clock: Clock, *, most: int = MOST) -> None:
        """`meter` counts the delivered messages. `most`: scheduled messages of a tenant."""
        self._record_cache, self._fabric, self._meter, self._clock, self._most = record_cache, fabric, meter, clock, most
        self._wake_ups = fabric.wake_ups
        self._active: set[TenantId] = set()
        self._is_due = asyncio.Event()
        self._sweep_at = clock()
        self.supervisor = Supervisor("scheduler")

    async def prepare(self, tenant_id: TenantId, due: datetime) -> None:
        """Ensure the delivery of a message stored now in the tenant's log when it is due. May be repeated.

        Raises `ScheduledLimit` and `Unavailable`.
        """
        tenant_fabric = self._fabric.tenant(tenant_id)
        tenant_log = await tenant_fabric.connected_log()
        await tenant_fabric.scheduled.refresh()
        if not tenant_log.has_scheduled:
            await tenant_log.accept_scheduled()
        if len(tenant_fabric.scheduled) >= self._most:
            raise ScheduledLimit(self._most)
        await self._wake_ups.put(tenant_id, minute_of(due))
        self._is_due.set()

    async def run(self) -> None:
        """Deliver scheduled messages until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                with self.supervisor.contain():
                    await self._look(group)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._is_due.wait()
                self._is_due.clear()

    async def _look(self, group: asyncio.TaskGroup) -> None:
        """Begin to serve tenants at their minutes, each in a task, and sweep the open ones now and then."""
        with contextlib.suppress(OurFault):
            await self._wake_ups.refresh()
        for tenant_id in [each for each in self._wake_ups.minutes() if each not in self._active and self._minutes_now(each)]:
            self._active.add(tenant_id)
            group.create_task(self._serve(tenant_id))
        if self._clock() >= self._sweep_at:
            self._sweep_at = self._clock() + SWEEP
            for tenant_fabric in self._fabric.open_tenants():
                with self.supervisor.contain(tenant=tenant_fabric.tenant_id), contextlib.suppress(OurFault):
                    await self.sweep(tenant_fabric)

    def _minutes_now(self, tenant_id: TenantId) -> list[int]:
        """Return the tenant's past minutes, if this server is to look: all, or those missed by another one."""
        wait = -LEAD if self._fabric.is_first_for(tenant_id) else timedelta(seconds=MINUTE_S) + AFTER + TAKE_OVER
        now = self._clock()
        return sorted(each for each in self._wake_ups.minutes().get(tenant_id, ()) if _start(each) + wait <= now)

    async def _serve(self, tenant_id: TenantId) -> None:
        """Deliver a tenant's messages as long as its minutes last."""
        retry_s = RETRY_MIN_S
        try:
            while minutes := self._minutes_now(tenant_id):
                wait_s = QUOTA_S
                with self.supervisor.contain(tenant=tenant_id):
                    try:
                        wait_s = await self._step(tenant_id, minutes)
                        retry_s = RETRY_MIN_S
                    except OurFault as exc:
                        log.debug("scheduler.waits", tenant=tenant_id, error=str(exc))
                        wait_s, retry_s = retry_s, min(2 * retry_s, LOOK_S)
                    except QuotaFull as exc:
                        log.warning("scheduler.storage_full", tenant=tenant_id, error=str(exc))
                await asyncio.sleep(wait_s)
        finally:
            self._active.discard(tenant_id)

    async def _step(self, tenant_id: TenantId, minutes: list[int]) -> float:
        """Deliver due messages, and return the seconds until the next step. Raises `Unavailable` and `QuotaFull`."""
        minutes = [each for each in minutes if await self._is_there(tenant_id, each)]
        if not minutes:
            return 0.0
        if not await self._exists(tenant_id):
            for minute in minutes:
                await self._wake_ups.remove(tenant_id, minute)
            return 0.0
        tenant_fabric = self._fabric.tenant(tenant_id)
        await tenant_fabric.connected_log()
        scheduled = tenant_fabric.scheduled
        await scheduled.refresh()
        if await scheduled.deliver(scheduled.due(self._clock())) and self._meter is not None:
            self._meter.look_again(tenant_id)
        now, next_due = self._clock(), scheduled.next_due()
        for minute in minutes:
            end = _start(minute) + timedelta(seconds=MINUTE_S)
            if end + AFTER <= now and (next_due is None or next_due >= end):
                await self._wake_ups.remove(tenant_id, minute)
        wait_s = STEP_S if next_due is None else (next_due - self._clock()).total_seconds()
        return min(max(wait_s, 0.001), STEP_S)

    async def _is_there(self, tenant_id: TenantId, minute: int) -> bool:
        """Return whether another server has left a minute to this one. Raises `Unavailable`."""
        return self._fabric.is_first_for(tenant_id) or await self._wake_ups.is_there(tenant_id, minute)

    async def _exists(self, tenant_id: TenantId) -> bool:
        try:
            await self._record_cache.tenant(tenant_id)
        except TenantNotFound:
            return False
        return True

    async def sweep(self, tenant_fabric: TenantFabric) -> None:
        """Remove a tenant's old ended messages, and store the minutes of its scheduled ones: a log that was copied from another
        installation has none there. May be repeated. Raises `Unavailable`."""
        if not tenant_fabric.log.has_scheduled or (state := await tenant_fabric.log.state()) is None:
            return
        scheduled = tenant_fabric.scheduled
        await scheduled.refresh()
        for minute in {minute_of(each) for each in scheduled.times()}:
            await self._wake_ups.put(tenant_fabric.tenant_id, minute)
        await scheduled.sweep(await self._counted_to(tenant_fabric.tenant_id, state))

    async def _counted_to(self, tenant_id: TenantId, state: LogState) -> Seq:
        return state.last_seq if self._meter is None else await self._meter.counted_to(tenant_id, state)


def _start(minute: int) -> datetime:
    return datetime.fromtimestamp(minute * MINUTE_S, UTC)
