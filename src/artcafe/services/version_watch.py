"""Detection of changes with a lost announcement, by the versions in the tenants' rows.

While every announcement arrives, only a few rows are read in rotation, independent of the number of tenants: an operator may have
changed a row by hand, or a server may have died between a change and its announcement. As soon as an announcement may have been
lost, the rows of all served tenants are read (decision record 30).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from artcafe.errors import Unavailable
from artcafe.model import Tenant, TenantChange, TenantId, TenantStatus
from artcafe.observe.logs import log
from artcafe.services.invalidation import Invalidation
from artcafe.supervision import Supervisor
from artcafe.tables.store import Store

READ_EVERY_S: Final = 4.0
"""Minimum interval between reads of a row. Together with the read itself it keeps the contract's limit of 5 s until a revocation
is effective on every server (sentence 12)."""
READ_AT_ONCE: Final = 10
"""Rows read every `READ_EVERY_S` while no announcement is lost."""
LOOK_EVERY_S: Final = 1.0

Settings = tuple[str, Mapping[str, int], TenantStatus]
"""Plan, limits and status: an operator may change these in a tenant's row without raising its version."""


class AnnouncementStatus(Protocol):
    """Completeness of the announcements from the other servers."""

    @property
    def is_complete(self) -> bool:
        """Whether announcements of every server arrive at present."""

    @property
    def losses(self) -> int:
        """Number of events so far with possibly lost announcements."""


@dataclass(slots=True)
class Known:
    """A tenant's row at its last read.

    `unheard` is by how much its version was above the changes heard; a rise is a change that was not announced, or not yet.
    `suspected` is a rise found by the last read.
    """

    settings: Settings | None
    unheard: int
    suspected: int | None = None


class VersionWatch:
    """Reads the versions of the served tenants, and publishes every unannounced change."""

    def __init__(self, store: Store, invalidation: Invalidation, announced: AnnouncementStatus) -> None:
        self._store, self._invalidation, self._announced = store, invalidation, announced
        self._served: list[Callable[[], Iterable[TenantId]]] = []
        self._known: dict[TenantId, Known] = {}
        """In the order of their last read, oldest first."""
        self._heard: Counter[TenantId] = Counter()
        """For each of these tenants: by how much announced changes raised its version since the read."""
        self.supervisor = Supervisor("changes")
        self._losses = announced.losses
        self._read_at = float("-inf")
        self._is_blind = False
        invalidation.subscribe(self._hear)

    def add_served(self, served: Callable[[], Iterable[TenantId]]) -> None:
        """Watch the tenants that `served` returns at each read: those of which the caller keeps something in memory."""
        self._served.append(served)

    async def run(self) -> None:
        """Check every `LOOK_EVERY_S`, until cancelled. While the tables cannot be read, it only retries."""
        while True:
            try:
                await self.look(time.monotonic())
                self._is_blind = False
            except Unavailable as exc:
                if not self._is_blind:
                    log.warning("changes.not_read", error=str(exc))
                self._is_blind = True
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self, now: float) -> None:
        """Read the rows due at a monotonic time. Raises `Unavailable`."""
        losses = self._announced.losses
        is_due = now - self._read_at >= READ_EVERY_S
        if losses != self._losses or (is_due and not self._announced.is_complete):
            await self.read(self._ordered())
            self._losses = losses
        elif is_due:
            await self.read(self._ordered()[:READ_AT_ONCE])
        else:
            return
        self._read_at = now

    async def read(self, tenant_ids: Sequence[TenantId]) -> None:
        """Read these tenants' rows, and publish each unannounced change. Raises `Unavailable`.

        A tenant's first read is published too: the tenant may have changed after its data was cached.
        """
        heard = {tenant_id: self._heard[tenant_id] for tenant_id in tenant_ids}
        tenants = await self._tenants(tenant_ids)
        for tenant_id in [each for each in tenant_ids if each not in tenants]:
            # This row cannot be read; move it to the end, so that the others get their turn.
            self._known[tenant_id] = self._known.pop(tenant_id, Known(None, 0))
        for tenant_id, tenant in tenants.items():
            known = self._known.pop(tenant_id, None)
            # A change announced during the read may be in the row or not. Leaving it out can only cause a needless notification.
            found = Known(_settings(tenant), (0 if tenant is None else tenant.version) - heard[tenant_id])
            if known is None or self._is_changed(known, found):
                self._invalidation.on_remote_change(TenantChange(tenant_id=tenant_id, is_whole=True))
            self._known[tenant_id] = found

    async def _tenants(self, tenant_ids: Sequence[TenantId]) -> Mapping[TenantId, Tenant | None]:
        """Read the tenants, also if one row is malformed. Raises `Unavailable`."""
        with self.supervisor.contain(Unavailable):
            return await self._store.tenants(tenant_ids)
        tenants: dict[TenantId, Tenant | None] = {}
        for tenant_id in tenant_ids:
            with self.supervisor.contain(Unavailable, tenant=tenant_id):
                tenants[tenant_id] = await self._store.tenant(tenant_id).tenant()
        return tenants

    @staticmethod
    def _is_changed(known: Known, found: Known) -> bool:
        """Return whether the row has an unannounced change. Updates `found` to the new known state."""
        if found.settings != known.settings:
            return True
        if found.unheard <= known.unheard:
            return False
        # The announcement may still arrive. It is lost if the next read finds the same version.
        if found.unheard != known.suspected:
            found.suspected, found.unheard = found.unheard, known.unheard
        return True

    def _ordered(self) -> list[TenantId]:
        """Return the served tenants, never-read ones first, then by their last read; forget all others."""
        served = dict.fromkeys(tenant_id for served in self._served for tenant_id in served())
        for tenant_id in [each for each in self._known if each not in served]:
            del self._known[tenant_id], self._heard[tenant_id]
        return [each for each in served if each not in self._known] + list(self._known)

    def _hear(self, change: TenantChange) -> None:
        if change.tenant_id in self._known:
            self._heard[change.tenant_id] += change.raised


def _settings(tenant: Tenant | None) -> Settings | None:
    return None if tenant is None else (tenant.plan, tenant.limits, tenant.status)
