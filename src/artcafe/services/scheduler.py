"""Deliver scheduled messages when they are due, and remove old ended ones.

Every server knows the minutes in which tenants have scheduled messages (`fabric.scheduled_minutes`). In these minutes one server
reads the tenant's log; another one takes over when the first does not answer. Two servers that read at once only cost work: each
message moves to its channel once (`fabric.scheduled_messages`, decision record 50).
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Final

from artcafe.errors import OurFault, QuotaFull, ScheduledLimit, TenantNotFound
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.log_state import LogState
from artcafe.fabric.scheduled_minutes import MINUTE_S, minute_of
from artcafe.fabric.tenant_fabric import TenantFabric
from artcafe.model import Seq, TenantId
from artcafe.observe.clock import Clock
from artcafe.observe.logs import log
from artcafe.services.meter import Meter
from artcafe.services.record_cache import RecordCache
from artcafe.supervision import Supervisor

MAX_SCHEDULED: Final = 10_000
"""Scheduled messages of a tenant. Each server that delivers them keeps some 300 bytes of each in memory."""
OPEN_BEFORE: Final = timedelta(seconds=2)
"""How long before a minute the tenant is opened."""
KEEP_AFTER: Final = timedelta(seconds=60)
"""How long after a minute it is kept: the clocks of servers may differ by as much."""
TAKE_OVER_AFTER: Final = timedelta(seconds=10)
"""How long after `KEEP_AFTER` another server takes over: the first may have lost only its connection to the others."""
RETRY_MIN_S: Final = 0.05
"""Pause after a failed read of a tenant's log; each further failure doubles it, to at most `POLL_S`."""
POLL_S: Final = 1.0
"""Between two reads of the minutes of all tenants."""
STEP_S: Final = 0.5
"""Longest pause between two reads of a tenant's log in a minute with scheduled messages: another server may have added some."""
QUOTA_RETRY_S: Final = 10.0
"""Between two attempts while the tenant's storage is full."""
SWEEP_EVERY: Final = timedelta(seconds=60)
"""Between two sweeps of the open tenants."""


class Scheduler:
    """The scheduled messages of all tenants, as far as this server delivers them."""

    def __init__(
        self, record_cache: RecordCache, fabric: Fabric, meter: Meter | None, clock: Clock, *, most: int = MAX_SCHEDULED
    ) -> None:
        """`meter` counts the delivered messages. `most`: scheduled messages of a tenant."""
        self._record_cache, self._fabric, self._meter, self._clock, self._most = record_cache, fabric, meter, clock, most
        self._minutes = fabric.scheduled_minutes
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
            await tenant_fabric.scheduled.read_again()
        if len(tenant_fabric.scheduled) >= self._most:
            raise ScheduledLimit(self._most)
        await self._minutes.put(tenant_id, minute_of(due))
        self._is_due.set()

    async def run(self) -> None:
        """Deliver scheduled messages until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                with self.supervisor.contain():
                    await self._poll(group)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._is_due.wait()
                self._is_due.clear()

    async def _poll(self, group: asyncio.TaskGroup) -> None:
        """Start a task for each tenant with a due minute, and sweep the open tenants every `SWEEP_EVERY`."""
        with contextlib.suppress(OurFault):
            await self._minutes.refresh()
        for tenant_id in [each for each in self._minutes.by_tenant() if each not in self._active and self._due_minutes(each)]:
            self._active.add(tenant_id)
            group.create_task(self._serve(tenant_id))
        if self._clock() >= self._sweep_at:
            self._sweep_at = self._clock() + SWEEP_EVERY
            for tenant_fabric in self._fabric.open_tenants():
                with self.supervisor.contain(tenant=tenant_fabric.tenant_id), contextlib.suppress(OurFault):
                    await self.sweep(tenant_fabric)

    def _due_minutes(self, tenant_id: TenantId) -> list[int]:
        """Return the tenant's minutes to serve here now: all that have begun, or only those that another server has missed."""
        missed_after = timedelta(seconds=MINUTE_S) + KEEP_AFTER + TAKE_OVER_AFTER
        wait, now = -OPEN_BEFORE if self._fabric.is_first_for(tenant_id) else missed_after, self._clock()
        return sorted(each for each in self._minutes.by_tenant().get(tenant_id, ()) if _start(each) + wait <= now)

    async def _serve(self, tenant_id: TenantId) -> None:
        """Deliver a tenant's messages until it has no due minute."""
        retry_s = RETRY_MIN_S
        try:
            while minutes := self._due_minutes(tenant_id):
                wait_s = QUOTA_RETRY_S
                with self.supervisor.contain(tenant=tenant_id):
                    try:
                        wait_s = await self._step(tenant_id, minutes)
                        retry_s = RETRY_MIN_S
                    except OurFault as exc:
                        log.debug("scheduler.waits", tenant=tenant_id, error=str(exc))
                        wait_s, retry_s = retry_s, min(2 * retry_s, POLL_S)
                    except QuotaFull as exc:
                        log.warning("scheduler.storage_full", tenant=tenant_id, error=str(exc))
                await asyncio.sleep(wait_s)
        finally:
            self._active.discard(tenant_id)

    async def _step(self, tenant_id: TenantId, minutes: list[int]) -> float:
        """Deliver due messages, and return the seconds until the next step. Raises `Unavailable` and `QuotaFull`."""
        minutes = [each for each in minutes if await self._is_left_here(tenant_id, each)]
        if not minutes:
            return 0.0
        if not await self._exists(tenant_id):
            await self._remove(tenant_id, minutes)
            return 0.0
        tenant_fabric = self._fabric.tenant(tenant_id)
        await tenant_fabric.connected_log()
        scheduled = tenant_fabric.scheduled
        await scheduled.refresh()
        if await scheduled.deliver(scheduled.due(self._clock())) and self._meter is not None:
            self._meter.look_again(tenant_id)
        next_due = scheduled.next_due()
        await self._remove(tenant_id, self._past_minutes(minutes, next_due))
        wait_s = STEP_S if next_due is None else (next_due - self._clock()).total_seconds()
        return min(max(wait_s, 0.001), STEP_S)

    def _past_minutes(self, minutes: list[int], next_due: datetime | None) -> list[int]:
        """Return the minutes that ended `KEEP_AFTER` ago or earlier, and have no message left."""
        now, ends = self._clock(), {minute: _start(minute + 1) for minute in minutes}
        return [each for each, end in ends.items() if end + KEEP_AFTER <= now and (next_due is None or next_due >= end)]

    async def _remove(self, tenant_id: TenantId, minutes: list[int]) -> None:
        for minute in minutes:
            await self._minutes.remove(tenant_id, minute)

    async def _is_left_here(self, tenant_id: TenantId, minute: int) -> bool:
        """Return whether no other server has served and removed a minute. Raises `Unavailable`."""
        return self._fabric.is_first_for(tenant_id) or await self._minutes.is_stored(tenant_id, minute)

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
            await self._minutes.put(tenant_fabric.tenant_id, minute)
        await scheduled.sweep(await self._counted_to(tenant_fabric.tenant_id, state))

    async def _counted_to(self, tenant_id: TenantId, state: LogState) -> Seq:
        return state.last_seq if self._meter is None else await self._meter.counted_to(tenant_id, state)


def _start(minute: int) -> datetime:
    return datetime.fromtimestamp(minute * MINUTE_S, UTC)
