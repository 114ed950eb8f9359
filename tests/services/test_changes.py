from __future__ import annotations

from functools import partial

import msgspec
import pytest

from artcafe.errors import TenantNotFound, Unavailable
from artcafe.maintenance.adoption import adopt
from artcafe.model import AgentId, ChannelId, Role, SubscriptionStatus, TenantChange, TenantId, UserId
from artcafe.services.changes import Changes, change_of
from artcafe.services.invalidation import Invalidation
from artcafe.tables.engine.port import ConditionFailed
from artcafe.tables.tenant_store import RecordCount
from tests.services.service_env import Server


async def test_subscribers_are_called_in_the_order_of_subscription(server: Server) -> None:
    called: list[tuple[int, TenantChange]] = []

    def note(number: int, change: TenantChange) -> None:
        called.append((number, change))

    for number in range(3):
        server.invalidation.subscribe(partial(note, number))
    server.invalidation.notify(TenantId("ten_a"))
    change = TenantChange(tenant_id=TenantId("ten_a"), is_whole=True)
    assert called == [(0, change), (1, change), (2, change)]


async def test_local_changes_are_announced_and_remote_changes_are_not(server: Server) -> None:
    announced: list[TenantChange] = []
    invalidation, published = Invalidation(announced.append), list[TenantChange]()
    changes = Changes(invalidation, adopt)
    invalidation.subscribe(published.append)
    tenant = server.store.tenant((await server.tenant()).tenant_id)
    await changes.commit(tenant, tenant.touch())
    made = TenantChange(tenant_id=tenant.id, raised=1)
    assert (announced, published) == ([made], [made])
    invalidation.on_remote_change(TenantChange(tenant_id=TenantId("ten_b")))
    assert announced == [made]
    assert [change.tenant_id for change in published] == [tenant.id, "ten_b"]


async def test_change_names_exactly_the_written_rows(server: Server) -> None:
    owner = await server.tenant()
    changes: list[TenantChange] = []
    server.invalidation.subscribe(changes.append)

    def made() -> TenantChange:
        assert {change.tenant_id for change in changes} == {owner.tenant_id}
        change, changes[:] = changes[-1], []
        return msgspec.structs.replace(change, tenant_id=TenantId(""), raised=0)

    def naming(**rows: tuple[object, ...]) -> TenantChange:
        return TenantChange(tenant_id=TenantId(""), **rows)  # type: ignore[arg-type]  # ids of the kinds that the names say

    agent = await server.agent(owner)
    assert made() == naming(agents=(agent.id,))
    channel = await server.channels.create(owner, name="News")
    assert made() == naming(channels=(channel.id,))
    await server.subscriptions.put(owner, channel.id, agent.id)
    assert made() == naming(subscriptions=((channel.id, agent.id),))
    await server.subscriptions.set_status(owner, channel.id, agent.id, SubscriptionStatus.PAUSED)
    assert made() == naming(subscriptions=((channel.id, agent.id),))
    await server.subscriptions.delete(owner, channel.id, agent.id)
    assert made() == naming(subscriptions=((channel.id, agent.id),))
    await server.agents.update(owner, agent.id, name="Other")
    assert made() == naming(agents=(agent.id,))
    await server.channels.update(owner, channel.id, name="Other")
    assert made() == naming(channels=(channel.id,))
    await server.tenants.update(owner, name="Other")
    assert made() == naming()
    _, token = await server.invitations.create(owner, address="bob@example.com", role=Role.MEMBER)
    assert made() == naming()
    await server.invitations.accept(UserId("bob"), "bob@example.com", token)
    assert made() == naming(users=("bob",))
    await server.members.set_role(owner, UserId("bob"), Role.ADMIN)
    assert made() == naming(users=("bob",))
    await server.members.remove(owner, UserId("bob"))
    assert made() == naming(users=("bob",))


async def test_ambiguous_subscription_id_invalidates_the_whole_tenant(server: Server) -> None:
    tenant = server.store.tenant(TenantId("acme"))
    write = tenant.subscriptions.delete(ChannelId("a#b"), AgentId("c"))
    assert change_of(tenant.id, [write]) == TenantChange(tenant_id=tenant.id, is_whole=True)


async def test_commit_raises_the_version_and_publishes_the_change(server: Server) -> None:
    tenant = server.store.tenant((await server.tenant()).tenant_id)
    before = await server.store.versions([tenant.id])
    await server.changes.commit(tenant, tenant.touch())
    assert (await server.store.versions([tenant.id]))[tenant.id] == (before[tenant.id] or 0) + 1
    assert server.changed == [tenant.id]


async def test_commit_with_a_failed_condition_changes_nothing_and_names_the_write(server: Server) -> None:
    tenant = server.store.tenant((await server.tenant()).tenant_id)
    before = await server.store.versions([tenant.id])
    with pytest.raises(ConditionFailed) as raised:
        await server.changes.commit(tenant, tenant.touch(), tenant.delete_agent(AgentId("agt_none")))
    assert set(raised.value.failed) == {1}
    with pytest.raises(ConditionFailed) as raised:
        await server.changes.commit(tenant, tenant.count(RecordCount.AGENTS, 1, limit=0))
    assert set(raised.value.failed) == {0}
    assert await server.store.versions([tenant.id]) == before


async def test_commit_in_an_unknown_tenant_raises_tenant_not_found(server: Server) -> None:
    tenant = server.store.tenant(TenantId("ten_none"))
    with pytest.raises(TenantNotFound):
        await server.changes.commit(tenant, tenant.touch())


async def test_commit_with_an_unknown_outcome_is_published(server: Server) -> None:
    tenant = server.store.tenant((await server.tenant()).tenant_id)
    await server.tables.close()
    with pytest.raises(Unavailable):
        await server.changes.commit(tenant, tenant.touch())
    assert server.changed == [tenant.id]
