"""How many connections an agent, a person and a tenant have on this server, under the limits of the tenant's plan."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

from artcafe.errors import ConnectionLimit
from artcafe.model import AgentPrincipal, Principal, TenantId
from artcafe.rules import limits
from artcafe.rules.limits import Limit
from artcafe.tables.store import Store

K = TypeVar("K")


class Connections:
    """Each server counts its own: what a limit guards is a server's memory, and counting over a fleet would need a row a
    connection."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._of_tenant: Counter[TenantId] = Counter()
        self._of_one: Counter[tuple[TenantId, str]] = Counter()

    async def enter(self, who: Principal) -> None:
        """One more connection, of an agent or a person. Raises `ConnectionLimit` or `Unavailable`, and counts nothing then."""
        tenant = await self._store.tenant(who.tenant_id).tenant()
        counts = (
            (
                "agent" if isinstance(who, AgentPrincipal) else "person",
                Limit.AGENT_CONNECTIONS,
                self._of_one[who.tenant_id, who.sender],
            ),
            ("tenant", Limit.CONNECTIONS, self._of_tenant[who.tenant_id]),
        )
        for whose, limit, count in counts:
            most = limits.PLANS[limits.DEFAULT_PLAN][limit] if tenant is None else limits.of(tenant, limit)
            if count >= most:
                raise ConnectionLimit(whose, most)
        self._of_one[who.tenant_id, who.sender] += 1
        self._of_tenant[who.tenant_id] += 1

    def leave(self, who: Principal) -> None:
        """One connection less, of those that entered."""
        _less(self._of_one, (who.tenant_id, who.sender))
        _less(self._of_tenant, who.tenant_id)

    def __len__(self) -> int:
        return self._of_tenant.total()


def _less(counter: Counter[K], key: K) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
