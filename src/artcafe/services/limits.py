"""The limits of a tenant, and the use of each.

Each `UsageSource` knows the use of some limits. Without a source or its answer the use of a limit is unknown.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import NamedTuple

from artcafe.errors import AgentNotFound, OurFault, TenantNotFound
from artcafe.model import AgentPrincipal, Principal, Tenant, TenantId
from artcafe.observe.logs import log
from artcafe.rules import access, times
from artcafe.rules.access import Action
from artcafe.rules.plans import UNLIMITED, Limit, Plans
from artcafe.services.record_cache import RecordCache
from artcafe.tables.store import Store
from artcafe.wire.replies import LimitState


class Use(NamedTuple):
    """What is used of a limit, and when it begins again if it is one of a period. None is unknown."""

    used: int | None
    resets_at: datetime | None = None


UsageSource = Callable[[Principal, Tenant], Awaitable[Mapping[Limit, Use]]]
"""Returns what is used of some limits, as the principal may see it. May raise `OurFault`: then it is unknown."""


class PlanLimits(NamedTuple):
    """A tenant's plan, and the state of every limit in the order of `Limit`."""

    plan: str
    items: list[LimitState]


class Limits:
    """Reads the limits of a tenant."""

    def __init__(self, store: Store, plans: Plans, record_cache: RecordCache) -> None:
        self._store, self._plans, self._record_cache = store, plans, record_cache
        self._sources: list[UsageSource] = [self._counts]

    def add_source(self, source: UsageSource) -> None:
        """Ask `source` too. Of two sources of a limit, the one added last counts."""
        self._sources.append(source)

    async def get(self, principal: Principal) -> PlanLimits:
        """Return the plan, and every limit of the principal's tenant. Raises Forbidden and TenantNotFound."""
        access.check(principal, Action.READ_LIMITS)
        tenant = await self._store.tenant(principal.tenant_id).tenant()
        if tenant is None:
            raise TenantNotFound(principal.tenant_id)
        uses: dict[Limit, Use] = {}
        for source in self._sources:
            try:
                uses.update(await source(principal, tenant))
            except OurFault as exc:
                log.debug("limits.unknown", tenant=tenant.id, error=str(exc))
        return PlanLimits(self._plans.plan_of(tenant).name, [self._state(tenant, limit, uses.get(limit)) for limit in Limit])

    def _state(self, tenant: Tenant, limit: Limit, use: Use | None) -> LimitState:
        most = self._plans.limit_of(tenant, limit)
        used, resets_at = use or Use(None)
        text = None if resets_at is None else times.to_text(resets_at)
        return LimitState.of(limit.value, None if most >= UNLIMITED else most, used, text)

    async def _counts(self, principal: Principal, tenant: Tenant) -> Mapping[Limit, Use]:
        """Return the counts in the tenant's row, and for an agent the number of its own subscriptions."""
        uses: dict[Limit, Use] = {}
        if tenant.is_counted:
            uses = {
                Limit.AGENTS: Use(tenant.agent_count),
                Limit.CHANNELS: Use(tenant.channel_count),
                Limit.MEMBERS: Use(tenant.member_count),
            }
        if isinstance(principal, AgentPrincipal):
            try:
                agent = await self._record_cache.agent(tenant.id, principal.agent_id)
            except AgentNotFound:  # Just deleted.
                return uses
            uses[Limit.AGENT_SUBSCRIPTIONS] = Use(len(agent.channels))
        return uses


def storage(used: Callable[[TenantId], Awaitable[int]]) -> UsageSource:
    """Return the source of the bytes of a tenant's messages."""

    async def source(_principal: Principal, tenant: Tenant) -> Mapping[Limit, Use]:
        return {Limit.STORAGE_BYTES: Use(await used(tenant.id))}

    return source
