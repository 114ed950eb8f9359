"""Limits of the plan on the connections of an agent, a person and a tenant to this server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

from artcafe.errors import ConnectionLimit, TenantNotFound
from artcafe.model import AgentPrincipal, Principal, TenantId
from artcafe.rules.plans import Limit, Plans
from artcafe.services.record_cache import RecordCache

K = TypeVar("K")


class Connections:
    """Counts open connections.

    Each server counts separately: the limits protect a server's memory, and a count for the fleet would need a row for each
    connection.
    """

    def __init__(self, record_cache: RecordCache, plans: Plans) -> None:
        self._record_cache, self._plans = record_cache, plans
        self._of_tenant: Counter[TenantId] = Counter()
        self._of_one: Counter[tuple[TenantId, str]] = Counter()

    async def enter(self, who: Principal) -> None:
        """Count a connection of an agent or a person. Raises `ConnectionLimit` or `Unavailable`, without counting it."""
        plan = await self._plan(who.tenant_id)
        counts = (
            (
                "agent" if isinstance(who, AgentPrincipal) else "person",
                Limit.AGENT_CONNECTIONS,
                self._of_one[who.tenant_id, who.sender],
            ),
            ("tenant", Limit.CONNECTIONS, self._of_tenant[who.tenant_id]),
        )
        for whose, limit, count in counts:
            if count >= plan[limit]:
                raise ConnectionLimit(whose, plan[limit])
        self._of_one[who.tenant_id, who.sender] += 1
        self._of_tenant[who.tenant_id] += 1

    async def _plan(self, tenant_id: TenantId) -> Mapping[Limit, int]:
        """Return the limits from the cache, which is at most seconds old: a login reads no table but the agents'."""
        try:
            tenant = await self._record_cache.tenant(tenant_id)
        except TenantNotFound:  # Just deleted; its sockets are about to be closed.
            tenant = None
        return {limit: self._plans.limit_of(tenant, limit) for limit in (Limit.CONNECTIONS, Limit.AGENT_CONNECTIONS)}

    def leave(self, who: Principal) -> None:
        """Remove a connection that `enter` counted."""
        _decrement(self._of_one, (who.tenant_id, who.sender))
        _decrement(self._of_tenant, who.tenant_id)

    def __len__(self) -> int:
        return self._of_tenant.total()


def _decrement(counter: Counter[K], key: K) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
