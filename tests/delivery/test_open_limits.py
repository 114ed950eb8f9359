"""The numbers of streams and waiting pulls that may be open at once on a server."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from artcafe.delivery.open_limits import OpenLimits
from artcafe.delivery.streams import MAX_STREAMS, MAX_STREAMS_PER_PRINCIPAL, MAX_STREAMS_PER_TENANT
from artcafe.errors import Overloaded, RateLimited
from artcafe.model import AgentId, AgentPrincipal, TenantId


def agent(tenant: int, number: int) -> AgentPrincipal:
    return AgentPrincipal(tenant_id=TenantId(f"ten_{tenant}"), agent_id=AgentId(f"agt_{number}"), epoch=0)


@pytest.mark.promise("t13")
def test_limits_of_streams_are_exact_for_an_agent_a_tenant_and_the_server() -> None:
    limits = OpenLimits("streams", MAX_STREAMS_PER_PRINCIPAL, MAX_STREAMS_PER_TENANT, MAX_STREAMS)
    with ExitStack() as stack:

        def open_one(tenant: int, number: int) -> None:
            stack.enter_context(limits.entered(agent(tenant, number)))

        for number in range(MAX_STREAMS_PER_TENANT):
            open_one(0, number // MAX_STREAMS_PER_PRINCIPAL)
        with pytest.raises(RateLimited, match="in this tenant \\(at most 500 at once\\)"):
            open_one(0, MAX_STREAMS_PER_TENANT)
        for number in range(MAX_STREAMS - MAX_STREAMS_PER_TENANT):
            open_one(1 + number // 100, number // MAX_STREAMS_PER_PRINCIPAL)
        with pytest.raises(RateLimited, match="by this agent \\(at most 10 at once\\)"):
            open_one(1, 0)
        with pytest.raises(Overloaded):
            open_one(99, 0)
    assert len(limits) == 0
