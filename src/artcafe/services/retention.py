"""Retention: a loop to remove expired messages and limit the size of tenants' logs. Agents get a gap for removed messages.

NATS's own expiry is not used: after it, the next message does not name its predecessor, and a gap would look like a quiet channel
(design, decision 2).
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from artcafe.errors import OurFault
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.log_state import LogState
from artcafe.fabric.tenant_fabric import TenantFabric
from artcafe.fabric.tenant_log import DEDUPE_WINDOW_S
from artcafe.model import ChannelId, Cursor, Seq, TenantChange, TenantId
from artcafe.observe.clock import Clock
from artcafe.observe.logs import log
from artcafe.rules import inboxes, subjects
from artcafe.rules.plans import Limit, Plans
from artcafe.rules.subjects import Subject
from artcafe.supervision import Supervisor
from artcafe.tables.store import Store
from artcafe.tables.tenant_store import TenantStore

PERIOD_S: Final = 60.0
LIMITS_S: Final = 1.0
"""The pause after a round of changed limits: a tenant that changes all the time is read once in it."""
READ_S: Final = 3600.0
"""How long a tenant's plan and channels stay cached. A change of either, on any server, invalidates them earlier."""
FOREVER_S: Final = 100 * 365 * 24 * 3600
"""A longer retention removes nothing: no message is as old, and the time would be before the calendar's first day."""
INBOX_READS: Final = 40
"""Reads of old messages of inboxes in one sweep, each of up to 256 messages."""
CHANNELS_AT_ONCE: Final = 500
"""Channels in one request for last sequences; NATS allows 1,024."""


@dataclass(frozen=True, slots=True)
class LogRetention:
    """The limits of a tenant's log: its size, the seconds for messages of inboxes, and its channels by theirs."""

    storage_bytes: int
    inboxes_s: int
    channels: Mapping[int, list[ChannelId]]


async def read_retention(store: TenantStore, plans: Plans) -> LogRetention | None:
    """Read a tenant's plan and channels from the tables; None if the tenant does not exist. Raises `Unavailable`."""
    tenant = await store.tenant()
    if tenant is None:
        return None
    channels: dict[int, list[ChannelId]] = defaultdict(list)
    for channel in await store.all_channels():
        channels[plans.retention_of(channel, tenant)].append(channel.id)
    return LogRetention(plans.limit_of(tenant, Limit.STORAGE_BYTES), plans.limit_of(tenant, Limit.RETENTION_S), channels)


class Retention:
    """Removes messages older than their channel's retention, oldest first.

    Several servers of a fleet may sweep the same tenant, and each may stop at any point. The position up to which messages are
    removed is written to the channel's row first, so a reader of a missing message finds the extent of the gap there.
    """

    def __init__(
        self,
        store: Store,
        fabric: Fabric,
        clock: Clock,
        plans: Plans,
        *,
        period_s: float = PERIOD_S,
        counted_to: Callable[[TenantId, LogState], Awaitable[Seq]] | None = None,
    ) -> None:
        """`counted_to` returns the sequence up to which the meter has counted a log; no later message is removed."""
        self._store, self._fabric, self._clock, self._plans, self._period_s = store, fabric, clock, plans, period_s
        self._counted_to = counted_to
        self._known: dict[TenantId, tuple[float, LogRetention | None]] = {}
        """The cached retention of each tenant that is open here, with the monotonic time of its read."""
        self._quiet_until: dict[TenantId, datetime] = {}
        """Until when no message of a tenant expires, as its last sweep found."""
        self._changes = 0
        self._due: set[TenantId] = set()
        """Tenants whose limit of storage may have changed, and the event that there is one."""
        self._is_due = asyncio.Event()
        self.supervisor = Supervisor("retention")

    def on_change(self, change: TenantChange) -> None:
        """Read the tenant's plan and channels again at its next sweep."""
        self._changes += 1
        self._known.pop(change.tenant_id, None)
        self._quiet_until.pop(change.tenant_id, None)
        if change.may_change_limits:
            self._due.add(change.tenant_id)
            self._is_due.set()

    async def run(self) -> None:
        """Sweep the tenants open on this server every `period_s`, except while nothing of them expires, until cancelled."""
        while True:
            await asyncio.sleep(self._period_s)
            opened = {each.tenant_id: each for each in self._fabric.open_tenants()}
            self._known = {tenant_id: known for tenant_id, known in self._known.items() if tenant_id in opened}
            self._quiet_until = {each: until for each, until in self._quiet_until.items() if each in opened}
            for tenant_fabric in [each for each in opened.values() if not self.is_quiet(each.tenant_id)]:
                with self.supervisor.contain(tenant=tenant_fabric.tenant_id):
                    await self._try_sweep(tenant_fabric)

    def is_quiet(self, tenant_id: TenantId) -> bool:
        """Return whether no message of a tenant can have expired since its last sweep."""
        until = self._quiet_until.get(tenant_id)
        return until is not None and self._clock() < until

    async def follow_limits(self) -> None:
        """Set the size limits of open logs after changes of their tenants' plans or limits, until cancelled.

        A sweep sets them too: this loop only keeps the five seconds until a change takes effect.
        """
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            due, self._due = self._due, set()
            for tenant_fabric in [each for each in self._fabric.open_tenants() if each.tenant_id in due]:
                with self.supervisor.contain(tenant=tenant_fabric.tenant_id):
                    await self._try_limit(tenant_fabric)
            await asyncio.sleep(LIMITS_S)

    async def _try_limit(self, tenant_fabric: TenantFabric) -> None:
        try:
            await tenant_fabric.log.limit(await self.storage_bytes(tenant_fabric.tenant_id))
        except OurFault as exc:
            log.debug("retention.limit_waits", tenant=tenant_fabric.tenant_id, error=str(exc))

    async def _try_sweep(self, tenant_fabric: TenantFabric) -> None:
        try:
            await self.sweep(tenant_fabric)
        except OurFault as exc:
            log.debug("retention.waits", tenant=tenant_fabric.tenant_id, error=str(exc))

    async def sweep(self, tenant_fabric: TenantFabric) -> None:
        """Remove expired messages of one tenant, and set its log's size limit. May be repeated. Raises `Unavailable`."""
        changes, now = self._changes, self._clock()
        state = await tenant_fabric.log.state()
        kept = None if state is None else await self._retention(tenant_fabric.tenant_id)
        if state is None or kept is None:
            return
        await tenant_fabric.log.limit(kept.storage_bytes)
        if kept.inboxes_s <= FOREVER_S:
            await self._sweep_inboxes(tenant_fabric, state, self._clock() - _age(kept.inboxes_s))
        for seconds, channels in kept.channels.items():
            if seconds > FOREVER_S:
                continue
            for start in range(0, len(channels), CHANNELS_AT_ONCE):
                some = channels[start : start + CHANNELS_AT_ONCE]
                before = self._clock() - _age(seconds)
                due = await tenant_fabric.log.last_seqs(some, until=before)
                for channel_id, seq in (await self._counted(tenant_fabric, state, some, due)).items():
                    await self._remove(tenant_fabric, channel_id, Cursor(epoch=state.epoch, seq=seq), before)
        if changes == self._changes:  # else the tenant may have changed during the sweep
            expires_at = (state.first_at or now) + _age(min([kept.inboxes_s, *kept.channels, FOREVER_S]))
            self._quiet_until[tenant_fabric.tenant_id] = min(expires_at, now + timedelta(seconds=READ_S))

    async def _sweep_inboxes(self, tenant_fabric: TenantFabric, state: LogState, before: datetime) -> None:
        """Remove messages of inboxes stored before a time, oldest first. They are found in the log: most agents have none, and
        reading every agent would cost more. The inbox of a deleted agent is removed too, if a publish came after its deletion."""
        first = await tenant_fabric.log.since(None, before)
        end = state.last_seq + 1 if first is None else first
        is_counted = self._counted_to is None
        for _ in range(INBOX_READS):
            due = await tenant_fabric.log.oldest_in_inboxes(end)
            if due and not is_counted and self._counted_to is not None:
                end, is_counted = min(end, 1 + await self._counted_to(tenant_fabric.tenant_id, state)), True
                continue
            for channel_id, seq in due.items():
                await self._remove_from_inbox(tenant_fabric, channel_id, Cursor(epoch=state.epoch, seq=seq), before)
            if not due:
                return

    async def _remove_from_inbox(self, tenant_fabric: TenantFabric, inbox: ChannelId, to: Cursor, before: datetime) -> None:
        tenant = self._store.tenant(tenant_fabric.tenant_id)
        if not await tenant.note_removed(inbox, to, before):
            owners = {subjects.token(agent.id): agent.id for agent in await tenant.all_agents()}
            owner = owners.get(inbox.removeprefix(inboxes.PREFIX))
            if owner is not None:  # an agent of an older system, whose id is hashed in the subject
                await tenant.note_removed(inboxes.inbox_of(owner), to, before)
        await tenant_fabric.log.purge(inbox, up_to=to.seq)

    async def _counted(
        self, tenant_fabric: TenantFabric, state: LogState, channels: list[ChannelId], due: Mapping[Subject, Seq]
    ) -> dict[ChannelId, Seq]:
        """Return the newest due message of each channel that the meter has counted."""
        found = {channel_id: seq for channel_id in channels if (seq := due.get(subjects.stored(channel_id)))}
        if not found or self._counted_to is None:
            return found
        counted_to = await self._counted_to(tenant_fabric.tenant_id, state)
        for channel_id in [channel_id for channel_id, seq in found.items() if seq > counted_to]:
            found[channel_id] = await tenant_fabric.log.last_seq_of(channel_id, up_to=counted_to)
        return {channel_id: seq for channel_id, seq in found.items() if seq}

    async def _retention(self, tenant_id: TenantId) -> LogRetention | None:
        now = time.monotonic()
        read_at, kept = self._known.get(tenant_id, (float("-inf"), None))
        if now - read_at > READ_S:
            changes = self._changes
            kept = await read_retention(self._store.tenant(tenant_id), self._plans)
            if changes == self._changes:  # else the tenant may have changed during the read
                self._known[tenant_id] = (now, kept)
        return kept

    async def _remove(self, tenant_fabric: TenantFabric, channel_id: ChannelId, to: Cursor, before: datetime) -> None:
        if await self._store.tenant(tenant_fabric.tenant_id).note_removed(channel_id, to, before):
            await tenant_fabric.log.purge(channel_id, up_to=to.seq)
            log.debug("retention.removed", tenant=tenant_fabric.tenant_id, channel=channel_id, to=to.seq)

    # --- queries ---

    async def removed_to(self, tenant_id: TenantId, channel_id: ChannelId) -> Cursor:
        """Read the position up to which the channel's messages are, or are being, removed. Raises `Unavailable`."""
        return await self._store.tenant(tenant_id).removed_to(channel_id)

    async def removed_to_each(self, tenant_id: TenantId, channel_ids: Sequence[ChannelId]) -> list[Cursor]:
        """Read `removed_to` of several channels. Raises `Unavailable`."""
        return await self._store.tenant(tenant_id).removed_to_each(channel_ids)

    async def removal(self, tenant_id: TenantId, channel_id: ChannelId) -> tuple[Cursor, datetime | None]:
        """Return `removed_to`, and the time before which all removed messages were stored, if recorded. Raises `Unavailable`."""
        return await self._store.tenant(tenant_id).removal(channel_id)

    async def storage_bytes(self, tenant_id: TenantId) -> int:
        """Return the disk space for the tenant's messages. Raises `Unavailable`."""
        tenant = await self._store.tenant(tenant_id).tenant()
        return self._plans.limit_of(tenant, Limit.STORAGE_BYTES)


def _age(seconds: int) -> timedelta:
    """Return the age at which messages are removed. After a restart NATS rebuilds its idempotency keys from stored messages, so
    none is removed earlier than a key expires (contract, sentence 3)."""
    return timedelta(seconds=max(seconds, DEDUPE_WINDOW_S))
