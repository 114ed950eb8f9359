"""What is used of the rate limits: read from the meter for `services.rate_limits`, and shown by `services.limits`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from artcafe.model import Principal, Tenant, TenantId
from artcafe.rules.plans import Limit
from artcafe.rules.usage import Metric, PeriodKind, period_of
from artcafe.services.connections import Connections
from artcafe.services.limits import UsageSource, Use
from artcafe.services.rate_limits import RateLimits
from artcafe.services.tenant_rate import Metered, ReadMetered
from artcafe.tables.store import Store
from artcafe.tables.usage_rows import UsageKey


def metered_by(store: Store) -> ReadMetered:
    """Return a reader of the meter's rows in the tables."""

    async def read(tenant_id: TenantId, time: datetime) -> Metered | None:
        usage = store.usage(tenant_id)
        state = await usage.meter()
        if state is None or state.as_of is None:
            return None
        # After the state: messages counted meanwhile are counted twice until the next look, and never missed.
        (row,) = await usage.get([UsageKey(period_of(time, PeriodKind.MONTH), Metric.MESSAGES_STORED)], time)
        return Metered(0 if row is None else row.value, state.as_of)

    return read


def rates(limits: RateLimits) -> UsageSource:
    """Return the source of the use of the rate limits, for `services.limits`."""

    async def read(_principal: Principal, tenant: Tenant) -> Mapping[Limit, Use]:
        found = {}
        for kind in (Limit.MESSAGES_A_MINUTE, Limit.API_CALLS_A_MINUTE, Limit.MESSAGES_A_MONTH):
            usage = await limits.usage(tenant.id, kind)
            if usage is not None:
                found[kind] = Use(usage.used, datetime.fromtimestamp(usage.resets_at, UTC))
        return found

    return read


def connections(open_ones: Connections) -> UsageSource:
    """Return the source of the open connections to all servers: of the tenant, and of the asking principal."""

    async def read(principal: Principal, tenant: Tenant) -> Mapping[Limit, Use]:
        of_tenant, of_one = await open_ones.usage(tenant.id, principal.sender)
        return {Limit.CONNECTIONS: Use(of_tenant), Limit.AGENT_CONNECTIONS: Use(of_one)}

    return read
