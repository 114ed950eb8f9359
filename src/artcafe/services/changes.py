"""Changes of who may do what: written together with the tenant's version, and announced in this process and to the other servers.

A change names the rows that it wrote, so that each watcher reads again only what depends on them. Announcements make it fast;
`version_watch` finds changes whose announcement was lost.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import msgspec

from artcafe.errors import TenantNotFound, TenantSuspended
from artcafe.model import AgentId, ChannelId, Principal, TenantChange, TenantId, UserId
from artcafe.services.audit import Audit, AuditedAction
from artcafe.supervision import Supervisor
from artcafe.tables.agent_rows import CLAIM_PREFIX
from artcafe.tables.catalog import AGENTS, CHANNEL_SUBSCRIPTIONS, CHANNELS, USER_TENANTS
from artcafe.tables.engine.port import ConditionFailed
from artcafe.tables.engine.writes import Check, Update, Write
from artcafe.tables.tenant_store import TenantStore

Adopt = Callable[[TenantStore], Awaitable[None]]
"""Give a tenant of an older system its counts and key claims. May be repeated."""


class Changes:
    """Notifies everyone in this process that caches something of a tenant."""

    def __init__(self, audit: Audit, adopt: Adopt, announce: Callable[[TenantChange], None] | None = None) -> None:
        """`announce` sends a change to the other servers, which pass it to `on_remote_change`. It must not raise."""
        self.audit = audit
        self._subscribers: list[Callable[[TenantChange], None]] = []
        self._adopt, self._announce = adopt, announce
        self.supervisor = Supervisor("changes")

    def subscribe(self, callback: Callable[[TenantChange], None]) -> None:
        """Have `callback` called with every change, in the order of the calls to `subscribe`."""
        self._subscribers.append(callback)

    def notify(self, tenant_id: TenantId) -> None:
        """Notify that anything in the tenant may have been changed here. May be repeated."""
        self._publish(TenantChange(tenant_id=tenant_id, is_whole=True))

    def on_remote_change(self, change: TenantChange) -> None:
        """Notify this process of a change that another server announced, or that was found in the tables."""
        for callback in self._subscribers:
            with self.supervisor.contain(tenant=change.tenant_id):
                callback(change)

    def _publish(self, change: TenantChange) -> None:
        self.on_remote_change(change)
        if self._announce is not None:
            self._announce(change)

    def audited(
        self, principal: Principal, action: str, target: str | None = None, **facts: str
    ) -> AbstractAsyncContextManager[AuditedAction]:
        """Around a change of who may do what, once it is known to be the principal's to make: `Audit.change` in their tenant."""
        return self.audit.change(principal.tenant_id, principal.sender, action, target, **facts)

    async def commit(self, tenant: TenantStore, touch: Update, *writes: Write) -> None:
        """Make the writes and `touch`, the tenant's own row (`TenantStore.touch` or `count`), in one transaction, and notify.

        Raises TenantNotFound, TenantSuspended, and ConditionFailed with `touch` as write 0; then nothing was changed. A tenant of
        an older system gets its counts and claims first.
        """
        change = change_of(tenant.id, writes)
        try:
            await self._commit(tenant, [touch, *writes])
            change = msgspec.structs.replace(change, raised=1)
        finally:
            # Also after an error: a write whose answer was lost may have been made.
            self._publish(change)

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
            await self._adopt(tenant)
            await tenant.transact(writes)


def change_of(tenant_id: TenantId, writes: Sequence[Write]) -> TenantChange:
    """Return what the writes of a transaction change, by their tables and keys."""
    keys = [(write.table, write.key.partition, write.key.sort or "") for write in writes if not isinstance(write, Check)]
    pairs = [sort.split("#") for table, _, sort in keys if table is CHANNEL_SUBSCRIPTIONS]
    if any(len(pair) != 2 for pair in pairs):  # an id of an older system has a '#' in it, and could be either of the two
        return TenantChange(tenant_id=tenant_id, is_whole=True)
    subscribers = {agent for _, agent in pairs}  # in their own rows only the list of channels is changed
    agents = [sort for table, _, sort in keys if table is AGENTS and not sort.startswith(CLAIM_PREFIX)]
    return TenantChange(
        tenant_id=tenant_id,
        agents=tuple(AgentId(agent) for agent in agents if agent not in subscribers),
        channels=tuple(ChannelId(channel) for table, _, channel in keys if table is CHANNELS),
        subscriptions=tuple((ChannelId(channel), AgentId(agent)) for channel, agent in pairs),
        users=tuple(UserId(user) for table, user, _ in keys if table is USER_TENANTS),
    )
