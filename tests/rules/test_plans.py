from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.errors import Invalid
from artcafe.model import Channel, ChannelId, Tenant, TenantId
from artcafe.rules import plans
from artcafe.rules.plans import Limit
from tests.services.service_env import START


def tenant(plan: str = "free", **own: int) -> Tenant:
    return Tenant(id=TenantId("ten_a"), name="A", plan=plan, limits=own, created_at=START, updated_at=START)


def test_free_plan_has_100_agents_channels_and_members_30_days_10_gib_and_2000_connections_1000_of_one_agent() -> None:
    assert {limit: plans.limit_of(tenant(), limit) for limit in Limit} == {
        Limit.AGENTS: 100,
        Limit.CHANNELS: 100,
        Limit.MEMBERS: 100,
        Limit.RETENTION_S: 30 * 86_400,
        Limit.STORAGE_BYTES: 10 * 2**30,
        Limit.CONNECTIONS: 2_000,
        Limit.AGENT_CONNECTIONS: 1_000,
    }


def test_tenants_own_limit_overrides_its_plan() -> None:
    assert plans.limit_of(tenant(agents=3), Limit.AGENTS) == 3
    assert plans.limit_of(tenant(agents=3), Limit.CHANNELS) == 100
    assert plans.limit_of(tenant(agents=0), Limit.AGENTS) == 0


def test_unknown_plan_counts_as_the_free_one() -> None:
    assert plans.limit_of(tenant("platinum"), Limit.AGENTS) == 100


@given(st.integers(-5, 2**40), st.integers(0, 2**40))
def test_channel_retention_is_at_most_the_plans(seconds: int, most: int) -> None:
    if 1 <= seconds <= most:
        assert plans.check_retention(seconds, tenant(retention_s=most)) == seconds
        return
    with pytest.raises(Invalid, match=r"^retention_s: "):
        plans.check_retention(seconds, tenant(retention_s=most))


@given(st.none() | st.integers(1, 2**40), st.integers(0, 2**40))
def test_reduced_plan_retention_applies_to_every_channel(seconds: int | None, most: int) -> None:
    channel = Channel(
        tenant_id=TenantId("ten_a"), id=ChannelId("chn_a"), name="A", retention_s=seconds, created_at=START, updated_at=START
    )
    assert plans.retention_of(channel, tenant(retention_s=most)) == (most if seconds is None else min(seconds, most))
