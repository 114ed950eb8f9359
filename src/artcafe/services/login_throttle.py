"""Rate limit on login attempts, for each agent and address: a flood from one address does not lock out other addresses."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from artcafe.errors import RateLimited
from artcafe.model import AgentId, TenantId
from artcafe.observe.context import origin
from artcafe.rules.clients import UNKNOWN, rate_limit_key
from artcafe.rules.shared_limits import MakeBuckets
from artcafe.rules.throttle import Buckets

FAILURE_COSTS: Final = 9
"""Extra cost of a failed login, which so counts as ten challenges."""

Key = tuple[TenantId, AgentId, str]


class LoginThrottle:
    """Counts challenges by agent and address (`context.origin`). Unknown agents are counted alike.

    `challenges_per_min` is both the burst and the rate per minute; 0 is unlimited. Each server counts separately.
    """

    def __init__(
        self,
        challenges_per_min: float,
        monotonic: Callable[[], float] = time.monotonic,
        make_buckets: MakeBuckets = Buckets,
    ) -> None:
        self._buckets = make_buckets(challenges_per_min / 60, challenges_per_min)
        self._monotonic = monotonic

    def begin(self, tenant_id: TenantId, agent_id: AgentId) -> None:
        """Count a request for a challenge. Raises RateLimited."""
        wait_s = self._buckets.take(_key(tenant_id, agent_id), self._monotonic())
        if wait_s:
            raise RateLimited("logins of this agent", wait_s)

    def failed(self, tenant_id: TenantId, agent_id: AgentId) -> None:
        """Count a failed login."""
        self._buckets.charge(_key(tenant_id, agent_id), FAILURE_COSTS, self._monotonic())


def _key(tenant_id: TenantId, agent_id: AgentId) -> Key:
    return tenant_id, agent_id, rate_limit_key(origin().address or UNKNOWN)
