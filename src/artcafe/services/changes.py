"""Transactions on access data: rows, version and counts of a tenant are written together, then announced."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from artcafe.errors import TenantNotFound, TenantSuspended
from artcafe.model import AgentId, ChannelId, TenantChange, TenantId, UserId
from artcafe.services.invalidation import Invalidation
from artcafe.tables.agent_rows import CLAIM_PREFIX
from artcafe.tables.catalog import AGENTS, CHANNEL_SUBSCRIPTIONS, CHANNELS, USER_TENANTS
from artcafe.tables.engine.port import ConditionFailed
from artcafe.tables.engine.writes import Check, Update, Write
from artcafe.tables.tenant_store import TenantStore

Adopt = Callable[[TenantStore], Awaitable[None]]
"""Give a tenant of an older system its counts and key claims. May be repeated."""


class Changes:
    """Commits changes of access data: agents, keys, channels, subscriptions and members."""

    def __init__(self, invalidation: Invalidation, adopt: Adopt) -> None:
        self.invalidation, self._adopt = invalidation, adopt

    async def commit(self, tenant: TenantStore, touch: Update, *writes: Write) -> None:
        """Write `touch` (the tenant's own row: `TenantStore.touch` or `count`) and `writes` in one transaction, and publish it.

        Raises TenantNotFound, TenantSuspended, and ConditionFailed with `touch` as write 0; then nothing was changed. A tenant of
        an older system has no counts and no key claims: it is adopted first.
        """
        change = change_of(tenant.id, writes)
        try:
            await self._commit(tenant, [touch, *writes])
            change = msgspec.structs.replace(change, raised=1)
        finally:
            # Also after an error: the transaction may have been committed, and its response lost.
            self.invalidation.publish(change)

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
    """Return the changes of a transaction's writes, by their tables and keys."""
    keys = [(write.table, write.key.partition, write.key.sort or "") for write in writes if not isinstance(write, Check)]
    pairs = [sort.split("#") for table, _, sort in keys if table is CHANNEL_SUBSCRIPTIONS]
    if any(len(pair) != 2 for pair in pairs):  # an id of an older system contains '#', so the parts are ambiguous
        return TenantChange(tenant_id=tenant_id, is_whole=True)
    subscribers = {agent for _, agent in pairs}  # only the channel map changes in their own rows
    agents = [sort for table, _, sort in keys if table is AGENTS and not sort.startswith(CLAIM_PREFIX)]
    return TenantChange(
        tenant_id=tenant_id,
        agents=tuple(AgentId(agent) for agent in agents if agent not in subscribers),
        channels=tuple(ChannelId(channel) for table, _, channel in keys if table is CHANNELS),
        subscriptions=tuple((ChannelId(channel), AgentId(agent)) for channel, agent in pairs),
        users=tuple(UserId(user) for table, user, _ in keys if table is USER_TENANTS),
    )
