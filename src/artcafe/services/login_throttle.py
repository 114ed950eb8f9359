"""How often an agent's login may be tried from one address. A flood from one address locks nobody out who comes from another."""

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
"""A failed login counts as ten challenges: one for its own, and these."""

Key = tuple[TenantId, AgentId, str]


class LoginThrottle:
    """Counts by agent and address, which the door has bound to the task (`context.origin`). Agents that do not exist count alike.

    `challenges_per_min` may come at once and are regained in a minute; 0 bounds nothing. Each server counts for itself.
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
        """A challenge is asked for. Raises RateLimited."""
        wait_s = self._buckets.take(_key(tenant_id, agent_id), self._monotonic())
        if wait_s:
            raise RateLimited("logins of this agent", wait_s)

    def failed(self, tenant_id: TenantId, agent_id: AgentId) -> None:
        """A proof was refused."""
        self._buckets.charge(_key(tenant_id, agent_id), FAILURE_COSTS, self._monotonic())


def _key(tenant_id: TenantId, agent_id: AgentId) -> Key:
    return tenant_id, agent_id, rate_limit_key(origin().address or UNKNOWN)
