"""How many of one thing may be open at once on this server: waiting pulls, or streams."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from artcafe.errors import Overloaded, RateLimited
from artcafe.model import AgentPrincipal, Principal, TenantId

_RETRY_S: Final = 1.0


@dataclass(slots=True)
class OpenLimits:
    """Counts open things, by principal and by tenant. `what` names them in refusals."""

    what: str
    most_per_principal: int
    most_per_tenant: int
    most: int
    by_tenant: Counter[TenantId] = field(default_factory=Counter)
    """The number by tenant with any: the live count, not to be changed."""
    _of_one: Counter[tuple[TenantId, str]] = field(default_factory=Counter)

    @contextlib.contextmanager
    def entered(self, principal: Principal) -> Iterator[None]:
        """Count one more during the block. Raises `RateLimited` above the limits of the agent or person and of the tenant, and
        `Overloaded` above the server's."""
        tenant_id, who = principal.tenant_id, (principal.tenant_id, principal.sender)
        if self._of_one[who] >= self.most_per_principal:
            whose = "agent" if isinstance(principal, AgentPrincipal) else "person"
            raise RateLimited(self.what, _RETRY_S, f"by this {whose} (at most {self.most_per_principal} at once)")
        if self.by_tenant[tenant_id] >= self.most_per_tenant:
            raise RateLimited(self.what, _RETRY_S, f"in this tenant (at most {self.most_per_tenant} at once)")
        if len(self) >= self.most:
            raise Overloaded(self.what)
        self._of_one[who] += 1
        self.by_tenant[tenant_id] += 1
        try:
            yield
        finally:
            self._of_one[who] -= 1
            self.by_tenant[tenant_id] -= 1
            if not self._of_one[who]:
                del self._of_one[who]
            if not self.by_tenant[tenant_id]:
                del self.by_tenant[tenant_id]

    def __len__(self) -> int:
        return self.by_tenant.total()
