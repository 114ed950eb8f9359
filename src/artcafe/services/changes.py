"""Changes of who may do what: made together with the tenant's version, told at once in this process and to the other servers.

The version in the tenant's row is the truth, read again every few seconds; telling only makes it fast. An operator who gives the
row another plan, limits or status by hand raises no version, so these are compared too. What a change makes invalid, each
watcher knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from artcafe.errors import BadKey, TenantNotFound, TenantSuspended, Unavailable
from artcafe.model import Principal, Tenant, TenantId, TenantStatus
from artcafe.observe import log
from artcafe.rules import keys
from artcafe.services.audit import Audit, Deed
from artcafe.supervision import Supervisor
from artcafe.tables.port import ConditionFailed, Update, Write
from artcafe.tables.store import Store
from artcafe.tables.tenant_store import Count, TenantStore
from artcafe.wire.sshkeys import parse_public_key

READ_EVERY_S: Final = 4.0
"""With the read itself this keeps the contract's 5 s until something withdrawn has ended on every server (section 2)."""

Mark = tuple[int, str, Mapping[str, int], TenantStatus]
"""What of a tenant's row is kept in memory somewhere: its version, plan, limits and status."""

Seen = Mapping[TenantId, Mark | None]


class Changes:
    """Whoever keeps something of a tenant watches here, and forgets it when the tenant is told."""

    def __init__(self, audit: Audit, announce: Callable[[TenantId], None] | None = None) -> None:
        """`announce` tells the other servers, which `hear` it; it must not raise, and may get lost."""
        self.audit = audit
        self._watchers: list[Callable[[TenantId], None]] = []
        self._announce = announce
        self.supervisor = Supervisor("changes")

    def watch(self, callback: Callable[[TenantId], None]) -> None:
        """Have `callback` called with every tenant that is told, in the order of the calls to `watch`."""
        self._watchers.append(callback)

    def tell(self, tenant_id: TenantId) -> None:
        """Something in the tenant was changed here; may be said too often."""
        self.hear(tenant_id)
        if self._announce is not None:
            self._announce(tenant_id)

    def hear(self, tenant_id: TenantId) -> None:
        """Something in the tenant was changed, here or by another server, which has told the others itself."""
        for callback in self._watchers:
            with self.supervisor.contain(tenant=tenant_id):
                callback(tenant_id)

    def audited(
        self, principal: Principal, action: str, target: str | None = None, **facts: str
    ) -> AbstractAsyncContextManager[Deed]:
        """Around a change of who may do what, once it is known to be the principal's to make: `Audit.change` in their tenant."""
        return self.audit.change(principal.tenant_id, principal.sender, action, target, **facts)

    async def commit(self, tenant: TenantStore, touch: Update, *writes: Write) -> None:
        """Makes the writes and `touch`, the tenant's own row (`TenantStore.touch` or `count`), in one transaction, and tells.

        Raises TenantNotFound, TenantSuspended, and ConditionFailed with `touch` as write 0; then nothing was changed. A tenant of
        an older system gets its counts and claims first.
        """
        try:
            await self._commit(tenant, [touch, *writes])
        finally:
            # Also after an error: a write whose answer was lost may have been made.
            self.tell(tenant.id)

    async def _commit(self, tenant: TenantStore, writes: Sequence[Write]) -> None:
        try:
            await tenant.transact(writes)
        except ConditionFailed as failed:
            if 0 not in failed.failed:
                raise
            row = failed.failed[0]
            if row is None or tenant.is_gone(row):
                raise TenantNotFound(tenant.id) from failed
            if tenant.is_suspended(row):
                raise TenantSuspended from failed
            if tenant.is_counted(row):
                raise
            await _adopt(tenant)
            await tenant.transact(writes)

    async def run(self, store: Store, served: Callable[[], Iterable[TenantId]], period_s: float = READ_EVERY_S) -> None:
        """Reads the rows of the served tenants every `period_s` seconds, for ever, and tells those that have moved.

        While the tables can't be reached nothing is told, and it goes on.
        """
        seen: Seen = {}
        is_blind = False
        while True:
            try:
                seen = await self.look(store, served(), seen)
            except Unavailable as exc:
                if not is_blind:
                    log.warning("changes.not_read", error=str(exc))
                is_blind = True
            else:
                is_blind = False
            await asyncio.sleep(period_s)

    async def look(self, store: Store, served: Iterable[TenantId], seen: Seen) -> Seen:
        """One reading: tells every tenant whose mark is another than in `seen`, and returns the marks.

        A tenant that isn't in `seen` is told too: it may have changed between what was kept of it and this reading.
        """
        marks = await self._marks(store, list(dict.fromkeys(served)))
        for tenant_id, mark in marks.items():
            if tenant_id not in seen or seen[tenant_id] != mark:
                self.hear(tenant_id)
        return marks

    async def _marks(self, store: Store, tenant_ids: Sequence[TenantId]) -> Seen:
        """Read the marks of the tenants. Where one row cannot be read, the others still are. Raises `Unavailable`."""
        with self.supervisor.contain(Unavailable):
            tenants = await store.tenants(tenant_ids)
            return {tenant_id: None if tenant is None else _mark(tenant) for tenant_id, tenant in tenants.items()}
        marks: dict[TenantId, Mark | None] = {}
        for tenant_id in tenant_ids:
            with self.supervisor.contain(Unavailable, tenant=tenant_id):
                tenant = await store.tenant(tenant_id).tenant()
                marks[tenant_id] = None if tenant is None else _mark(tenant)
        return marks


def _mark(tenant: Tenant) -> Mark:
    return tenant.version, tenant.plan, tenant.limits, tenant.status


async def _adopt(tenant: TenantStore) -> None:
    """Counts what a tenant of an older system has, and claims its agents' keys for them. May be repeated.

    Until the counts stand, none of our transactions adds anything, so they are right when they do. Of two agents with one key
    the first claims it; both go on.
    """
    agents = await tenant.all_agents()
    for agent in agents:
        for each in keys.all_of(agent):
            try:
                fingerprint = parse_public_key(each.line).fingerprint
                await tenant.transact([tenant.claim_key(fingerprint, agent.id)])
            except (BadKey, ConditionFailed):
                continue
    channels, members = len(await tenant.all_channels()), await tenant.member_count()
    await tenant.set_counts({Count.AGENTS: len(agents), Count.CHANNELS: channels, Count.MEMBERS: members})
