"""Plans and limits of a tenant on real tables. tests/flows/test_limits.py has the races on two servers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from artcafe.errors import Forbidden, Invalid, LimitReached, TenantSuspended, Unavailable
from artcafe.model import AgentId, AgentPrincipal, Principal, Role, Tenant, TenantId, TenantStatus, UserPrincipal
from artcafe.rules.plans import Limit
from artcafe.services.limits import Use
from artcafe.tables.catalog import TENANTS
from artcafe.wire.replies import LimitState
from tests.services.service_env import START, Server, as_member, with_role


async def states(server: Server, principal: Principal) -> dict[str, LimitState]:
    return {each.name: each for each in (await server.limits.get(principal)).items}


async def limit_to(server: Server, owner: UserPrincipal, **own: int) -> None:
    await server.put(TENANTS, **{**(await server.item(TENANTS, owner.tenant_id) or {}), "limits": own})
    server.invalidation.notify(owner.tenant_id)


def agent_principal(owner: UserPrincipal, agent_id: str) -> AgentPrincipal:
    return AgentPrincipal(agent_id=AgentId(agent_id), tenant_id=owner.tenant_id, epoch=0)


# --- reading -------------------------------------------------------------------------------------------------------------


async def test_every_limit_is_listed_with_its_use_or_null(server: Server) -> None:
    owner = await server.tenant()
    await server.agent(owner)
    await server.channels.create(owner, name="news")
    found = await states(server, owner)
    assert list(found) == list(Limit)
    assert [found[name].used for name in ("agents", "channels", "members")] == [1, 1, 1]
    assert (found["agents"].limit, found["agents"].left) == (100, 99)
    assert {found[name].used for name in set(Limit) - {"agents", "channels", "members"}} == {None}
    assert (await server.limits.get(owner)).plan == "free"


async def test_agent_sees_the_number_of_its_own_subscriptions(server: Server) -> None:
    owner = await server.tenant()
    agent = await server.agent(owner)
    for name in ("news", "work"):
        await server.subscriptions.put(owner, (await server.channels.create(owner, name=name)).id, agent.id)
    itself = await states(server, agent_principal(owner, agent.id))
    assert (itself["agent_subscriptions"].used, itself["agent_subscriptions"].left) == (2, 98)


async def test_counts_of_an_older_systems_row_are_unknown_and_not_zero(server: Server) -> None:
    await server.put(TENANTS, id="acme", name="Acme", limits={"max_agents": 5}, subscription_plan="pro")
    owner = as_member(Tenant(id=TenantId("acme"), name="Acme", created_at=START, updated_at=START), "alice")
    found = await states(server, owner)
    assert (found["agents"].limit, found["agents"].used, found["agents"].left) == (5, None, None)
    assert (await server.limits.get(owner)).plan == "free", "its own plan is not in the catalogue"


async def test_source_that_cannot_answer_leaves_its_limits_unknown(server: Server) -> None:
    owner = await server.tenant()

    async def storage(_principal: Principal, _tenant: Tenant) -> Mapping[Limit, Use]:
        raise Unavailable("the message log")

    async def rate(_principal: Principal, _tenant: Tenant) -> Mapping[Limit, Use]:
        return {Limit.MESSAGES_A_MINUTE: Use(7, START)}

    server.limits.add_source(storage)
    server.limits.add_source(rate)
    found = await states(server, owner)
    assert found["storage_bytes"].used is None
    assert (found["messages_a_minute"].used, found["messages_a_minute"].resets_at) == (7, "2026-11-22T16:50:57.123Z")


async def test_unlimited_limit_is_null(server: Server) -> None:
    owner = await server.tenant()
    await limit_to(server, owner, agents=2**53)
    found = await states(server, owner)
    assert (found["agents"].limit, found["agents"].used, found["agents"].left) == (None, 0, None)


# --- the choice of a plan ------------------------------------------------------------------------------------------------


async def test_new_tenant_has_the_default_plan(server: Server) -> None:
    owner = await server.tenant()
    assert (await server.tenants.get(owner)).plan == server.plans.default


async def test_owner_chooses_a_plan_on_offer_and_no_other(server: Server) -> None:
    owner = await server.tenant()
    assert (await server.tenants.update(owner, plan="free")).plan == "free"
    assert server.logs.limited == [(owner.tenant_id, 10 * 2**30)]
    with pytest.raises(Forbidden, match="business"):
        await server.tenants.update(owner, plan="business")
    with pytest.raises(Invalid, match=r"^plan: must be one of the plans on offer: free"):
        await server.tenants.update(owner, plan="gold")
    for role in (Role.ADMIN, Role.MEMBER, Role.VIEWER):
        with pytest.raises(Forbidden):
            await server.tenants.update(with_role(owner, role), plan="free")
    assert len(server.logs.limited) == 1


async def test_name_and_plan_change_together_or_not_at_all(server: Server) -> None:
    owner = await server.tenant()
    with pytest.raises(Invalid):
        await server.tenants.update(owner, name="Renamed", plan="gold")
    assert (await server.tenants.get(owner)).name == "Alice's"
    changed = await server.tenants.update(owner, name="Renamed", plan="free")
    assert (changed.name, changed.plan) == ("Renamed", "free")


async def test_suspended_tenant_reads_its_limits_and_keeps_its_plan(server: Server) -> None:
    owner = await server.tenant()
    rows = server.store.tenant(owner.tenant_id)
    await rows.transact([rows.set_status(TenantStatus.SUSPENDED, server.clock())])
    server.invalidation.notify(owner.tenant_id)
    suspended = await server.tenants.enter(owner.user_id, owner.tenant_id)
    assert (await states(server, suspended))["agents"].limit == 100
    with pytest.raises(TenantSuspended):
        await server.tenants.update(suspended, plan="free")


# --- subscriptions of an agent -------------------------------------------------------------------------------------------


async def test_subscription_above_the_limit_is_refused_until_another_is_deleted(server: Server) -> None:
    owner = await server.tenant()
    await limit_to(server, owner, agent_subscriptions=2)
    agent, other = await server.agent(owner), await server.agent(owner)
    channels = [(await server.channels.create(owner, name=f"c{number}")).id for number in range(3)]
    for channel_id in channels[:2]:
        await server.subscriptions.put(owner, channel_id, agent.id)
    for principal in (owner, agent_principal(owner, agent.id)):
        with pytest.raises(LimitReached) as refused:
            await server.subscriptions.put(principal, channels[2], agent.id)
        assert (refused.value.limit, refused.value.most, refused.value.used) == ("agent_subscriptions", 2, 2)
    await server.subscriptions.put(owner, channels[0], agent.id)  # a repeat is not a new one
    await server.subscriptions.put(owner, channels[2], other.id)
    await server.subscriptions.delete(owner, channels[0], agent.id)
    _, is_new = await server.subscriptions.put(owner, channels[2], agent.id)
    assert is_new


async def test_lower_limit_of_subscriptions_removes_none(server: Server) -> None:
    owner = await server.tenant()
    agent = await server.agent(owner)
    channels = [(await server.channels.create(owner, name=f"c{number}")).id for number in range(4)]
    for channel_id in channels[:3]:
        await server.subscriptions.put(owner, channel_id, agent.id)
    await limit_to(server, owner, agent_subscriptions=1)
    with pytest.raises(LimitReached):
        await server.subscriptions.put(owner, channels[3], agent.id)
    assert len((await server.subscriptions.list_of_agent(owner, agent.id)).items) == 3
