from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.errors import Invalid, LimitExceeded
from artcafe.model import Channel, ChannelId, Tenant, TenantId
from artcafe.plan_catalogue import shipped
from artcafe.rules.plans import UNLIMITED, Limit, Plan, Plans
from tests.services.service_env import START

PLANS = shipped()


def tenant(plan: str = "free", **own: int) -> Tenant:
    return Tenant(id=TenantId("ten_a"), name="A", plan=plan, limits=own, created_at=START, updated_at=START)


def plan(name: str, number: int) -> Plan:
    return Plan(name, name, "", self_serve=True, limits=dict.fromkeys(Limit, number))


def test_shipped_free_plan_has_these_limits() -> None:
    assert {limit: PLANS.limit_of(tenant(), limit) for limit in Limit} == {
        Limit.AGENTS: 100,
        Limit.CHANNELS: 100,
        Limit.MEMBERS: 100,
        Limit.CONNECTIONS: 2_000,
        Limit.AGENT_CONNECTIONS: 1_000,
        Limit.AGENT_SUBSCRIPTIONS: 100,
        Limit.MESSAGES_A_MINUTE: 3_000_000,
        Limit.MESSAGES_A_MONTH: 10**9,
        Limit.MESSAGE_BYTES: 65_536,
        Limit.STORAGE_BYTES: 10 * 2**30,
        Limit.RETENTION_S: 30 * 86_400,
        Limit.API_CALLS_A_MINUTE: 600_000,
        Limit.HOPS: 100,
        Limit.CHAIN_MESSAGES: 10_000,
    }


def test_tenants_own_limit_overrides_its_plan() -> None:
    assert PLANS.limit_of(tenant(agents=3), Limit.AGENTS) == 3
    assert PLANS.limit_of(tenant(agents=3), Limit.CHANNELS) == 100
    assert PLANS.limit_of(tenant(agents=0), Limit.AGENTS) == 0
    assert PLANS.limit_of(tenant("business", agents=3), Limit.AGENTS) == 3
    assert PLANS.limit_of(tenant("business"), Limit.AGENTS) == UNLIMITED


def test_plan_outside_the_catalogue_counts_as_the_default_one() -> None:
    plans = Plans.of(plan("small", 1), plan("large", 2), default="large")
    assert [plans.limit_of(tenant(name), Limit.AGENTS) for name in ("small", "large", "platinum")] == [1, 2, 2]
    assert plans.plan_of(tenant("platinum")).name == "large"
    assert "platinum" not in plans


def test_deleted_tenant_has_the_limits_of_the_default_plan() -> None:
    assert Plans.of(plan("small", 1), plan("large", 2)).limit_of(None, Limit.AGENTS) == 1


@given(st.integers(-5, 2**40), st.integers(0, 2**40))
def test_channel_retention_is_at_most_the_plans(seconds: int, most: int) -> None:
    if 1 <= seconds <= most:
        assert PLANS.check_retention(seconds, tenant(retention_s=most)) == seconds
        return
    with pytest.raises(Invalid if seconds < 1 else LimitExceeded, match=r"^retention_s"):
        PLANS.check_retention(seconds, tenant(retention_s=most))


@given(st.none() | st.integers(1, 2**40), st.integers(0, 2**40))
def test_reduced_plan_retention_applies_to_every_channel(seconds: int | None, most: int) -> None:
    channel = Channel(
        tenant_id=TenantId("ten_a"), id=ChannelId("chn_a"), name="A", retention_s=seconds, created_at=START, updated_at=START
    )
    assert PLANS.retention_of(channel, tenant(retention_s=most)) == (most if seconds is None else min(seconds, most))
