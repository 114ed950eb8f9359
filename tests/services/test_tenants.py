from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime

import pytest

from artcafe.errors import (
    Conflict,
    Forbidden,
    IdempotencyMismatch,
    Invalid,
    LimitReached,
    NotStored,
    TenantLimit,
    TenantNotFound,
    TenantSuspended,
)
from artcafe.model import Role, Tenant, TenantId, TenantStatus, UserId
from artcafe.rules.pages import PageRequest
from artcafe.services.tenants import PerPerson, Tenants
from artcafe.tables.catalog import AGENTS, CHANNEL_SUBSCRIPTIONS, CHANNELS, TENANTS, USER_TENANT_INDEX, USER_TENANTS
from artcafe.tables.engine.values import Value
from tests.services.service_env import START, Server, as_member, proven, with_role

ALICE, BOB = UserId("alice"), UserId("bob")


async def test_creator_of_a_tenant_is_its_owner(server: Server) -> None:
    tenant = await server.tenants.create(ALICE, "Alice's")
    principal = await server.tenants.enter(ALICE, tenant.id)
    assert (principal.role, principal.tenant_id) == (Role.OWNER, tenant.id)
    assert await server.tenants.get(principal) == tenant
    assert (tenant.name, tenant.plan, tenant.created_at) == ("Alice's", "free", START)


async def test_membership_is_written_to_both_tables(server: Server) -> None:
    tenant = await server.tenants.create(ALICE, "Alice's")
    assert await server.item(USER_TENANTS, ALICE, tenant.id) == await server.item(USER_TENANT_INDEX, tenant.id, ALICE)
    assert await server.item(USER_TENANTS, ALICE, tenant.id) is not None


async def test_foreign_tenant_is_not_found_like_an_unknown_one(server: Server) -> None:
    tenant = await server.tenants.create(ALICE, "Alice's")
    for id in (tenant.id, "ten_00000000000000000000000000", "", "x\n", "x" * 5000, "\ud800"):
        with pytest.raises(TenantNotFound) as raised:
            await server.tenants.enter(BOB, id)
        assert raised.value.id == id


async def test_pages_list_exactly_the_users_own_tenants(server: Server) -> None:
    mine = sorted([(await server.tenants.create(ALICE, f"T{n}")).id for n in range(5)])
    await server.tenants.create(BOB, "Bob's")
    seen: list[str] = []
    after = None
    while True:
        page = await server.tenants.list(ALICE, PageRequest(2, after))
        seen += [each.tenant.id for each in page.items]
        assert all(each.role is Role.OWNER and each.joined_at == each.tenant.created_at for each in page.items)
        after = page.next
        if after is None:
            break
    assert seen == mine


async def test_repeated_create_returns_the_same_tenant(server: Server) -> None:
    first = await server.tenants.create(ALICE, "Alice's", "key-1")
    again = await server.another().tenants.create(ALICE, "Alice's", "key-1")
    assert again == first
    assert len((await server.tenants.list(ALICE)).items) == 1


async def test_idempotency_key_belongs_to_one_request_of_one_user(server: Server) -> None:
    first = await server.tenants.create(ALICE, "Alice's", "key-1")
    with pytest.raises(IdempotencyMismatch):
        await server.tenants.create(ALICE, "Another", "key-1")
    assert (await server.tenants.create(BOB, "Alice's", "key-1")).id != first.id


async def test_tenant_is_renamed(server: Server) -> None:
    owner = await server.tenant()
    server.clock.pass_s(60)
    renamed = await server.tenants.update(owner, name="Cafe\u0301")
    assert (renamed.name, renamed.created_at, renamed.updated_at) == ("Café", START, server.clock())
    assert await server.tenants.get(owner) == renamed
    with pytest.raises(Invalid):
        await server.tenants.update(owner, name="")


async def test_only_admins_rename_and_only_owners_delete(server: Server) -> None:
    owner = await server.tenant()
    await server.tenants.update(with_role(owner, Role.ADMIN), name="Renamed")
    for role in (Role.MEMBER, Role.VIEWER):
        with pytest.raises(Forbidden):
            await server.tenants.update(with_role(owner, role), name="Mine")
    for role in (Role.ADMIN, Role.MEMBER, Role.VIEWER):
        with pytest.raises(Forbidden):
            await server.tenants.delete(with_role(owner, role))
    assert (await server.tenants.get(with_role(owner, Role.VIEWER))).name == "Renamed"


async def test_agent_cannot_read_its_tenant(server: Server) -> None:
    agent = proven(await server.agent(await server.tenant()))
    for refused in (server.tenants.get(agent), server.tenants.update(agent, name="Mine"), server.tenants.delete(agent)):
        with pytest.raises(Forbidden):
            await refused


async def furnish(server: Server) -> TenantId:
    """Create Alice's tenant with rows of every kind, and Bob as a member."""
    tenant = await server.tenants.create(ALICE, "Alice's")
    owner = as_member(tenant, ALICE)
    for _ in range(3):
        agent = await server.agent(owner)
        channel = await server.channels.create(owner, name="News")
        await server.subscriptions.put(owner, channel.id, agent.id)
    for table in (USER_TENANTS, USER_TENANT_INDEX):
        await server.put(table, user_id=BOB, tenant_id=tenant.id, role="member", joined_at="2026-01-01T00:00:00Z")
    return tenant.id


async def left(server: Server, tenant_id: TenantId) -> int:
    """Count the tenant's items in all tables."""
    tables = (AGENTS, CHANNELS, CHANNEL_SUBSCRIPTIONS, USER_TENANT_INDEX)
    there = sum([len(await server.items(table, tenant_id)) for table in tables])
    there += (await server.store.tenant(tenant_id).tenant()) is not None
    return there + len(await server.items(USER_TENANTS, ALICE)) + len(await server.items(USER_TENANTS, BOB))


async def test_deleted_tenant_leaves_no_rows_and_deletes_none_of_others(server: Server) -> None:
    tenant_id = await furnish(server)
    others = await server.tenant("carol")
    other = await server.agent(others)
    await server.tenants.delete(await server.tenants.enter(ALICE, tenant_id))
    assert await left(server, tenant_id) == 0
    assert server.logs.dropped == [tenant_id]
    assert await server.agents.get(others, other.id) == other
    for user in (ALICE, BOB):
        with pytest.raises(TenantNotFound):
            await server.tenants.enter(user, tenant_id)


async def test_deleted_tenant_keeps_a_tombstone_and_its_id_is_never_reused(server: Server) -> None:
    tenant = await server.tenants.create(ALICE, "Alice's", "key-1")
    owner = as_member(tenant, ALICE)
    await server.agent(owner)
    server.clock.pass_s(60)
    await server.tenants.delete(owner)
    item = await server.item(TENANTS, tenant.id)
    assert item is not None
    assert {name: item[name] for name in ("name", "created_at", "deleted_at", "deleted_by", "deleting")} == {
        "name": "Alice's",
        "created_at": "2026-11-22T16:50:57.123Z",
        "deleted_at": "2026-11-22T16:51:57.123Z",
        "deleted_by": ALICE,
        "deleting": True,
    }
    assert await server.store.versions([tenant.id]) == {tenant.id: None}
    with pytest.raises(Conflict):
        await server.tenants.create(ALICE, "Alice's", "key-1")
    for refused in (server.agent(owner), server.tenants.get(owner), server.tenants.delete(owner)):
        with pytest.raises(TenantNotFound):
            await refused
    assert (await server.item(TENANTS, tenant.id) or {})["deleted_at"] == item["deleted_at"]


async def test_deletion_refuses_agents_and_admits_only_owners_from_its_first_write(server: Server) -> None:
    owner = await server.tenant(ALICE)
    agent = proven(await server.agent(owner))
    _, token = await server.invitations.create(owner, address="bob@example.com", role=Role.ADMIN)
    await server.invitations.accept(BOB, "bob@example.com", token)
    assert await server.login.is_current(agent)
    server.logs.failure = NotStored()
    other = server.another()
    with pytest.raises(NotStored):
        await server.tenants.delete(owner)
    assert not await other.login.is_current(agent)
    with pytest.raises(TenantNotFound):
        await other.tenants.enter(BOB, owner.tenant_id)
    await other.tenants.delete(await other.tenants.enter(ALICE, owner.tenant_id))


async def test_suspension_refuses_agents_and_lets_people_read(server: Server) -> None:
    owner = await server.tenant(ALICE)
    agent = await server.agent(owner)
    assert await server.login.is_current(proven(agent))
    tenant = server.store.tenant(owner.tenant_id)
    await tenant.transact([tenant.set_status(TenantStatus.SUSPENDED, server.clock())])
    assert await server.login.is_current(proven(agent)), "until it is told, or read again within 4 s"
    server.invalidation.notify(owner.tenant_id)
    with pytest.raises(TenantSuspended):
        await server.login.is_current(proven(agent))
    alice = await server.tenants.enter(ALICE, owner.tenant_id)
    assert alice.is_suspended
    assert await server.agents.get(alice, agent.id) == agent
    for refused in (server.agent(alice), server.tenants.update(alice, name="Mine"), server.tenants.delete(alice)):
        with pytest.raises(TenantSuspended):
            await refused
    await tenant.transact([tenant.set_status(TenantStatus.ACTIVE, server.clock())])
    server.invalidation.notify(owner.tenant_id)
    assert await server.login.is_current(proven(agent))
    await server.tenants.update(await server.tenants.enter(ALICE, owner.tenant_id), name="Mine")


async def test_repeat_completes_an_interrupted_deletion(server: Server) -> None:
    tenant_id = await furnish(server)
    server.logs.failure = NotStored()
    with pytest.raises(NotStored):
        await server.tenants.delete(await server.tenants.enter(ALICE, tenant_id))
    assert await left(server, tenant_id) > 0
    await server.tenants.delete(await server.tenants.enter(ALICE, tenant_id))
    assert await left(server, tenant_id) == 0


async def test_nothing_can_be_added_to_a_tenant_that_is_being_deleted(server: Server) -> None:
    tenant_id = await furnish(server)
    owner = await server.tenants.enter(ALICE, tenant_id)
    server.logs.failure = NotStored()
    with pytest.raises(NotStored):
        await server.tenants.delete(owner)
    for refused in (
        server.agent(owner),
        server.channels.create(owner, name="News"),
        server.tenants.update(owner, name="Still here"),
    ):
        with pytest.raises(TenantNotFound):
            await refused
    assert await server.items(AGENTS, tenant_id) == []


async def test_tenant_with_more_rows_than_a_transaction_is_deleted_completely(server: Server) -> None:
    owner = await server.tenant()
    for number in range(130):
        await server.put(CHANNELS, tenant_id=owner.tenant_id, id=f"older-{number}", name="Older")
    await server.tenants.delete(owner)
    assert await server.items(CHANNELS, owner.tenant_id) == []


async def test_older_tenant_is_read_and_renamed_and_keeps_unknown_attributes(server: Server) -> None:
    await server.put(TENANTS, id="acme", name="Acme", plan="gold", limits={"max_agents": "10"}, created_at="2025-05-24 10:00:00")
    await server.put(TENANTS, id="bare")
    for tenant_id, role in (("acme", "admin"), ("bare", "superuser")):
        await server.put(USER_TENANTS, user_id=ALICE, tenant_id=tenant_id, role=role)
    acme = await server.tenants.enter(ALICE, "acme")
    assert acme.role is Role.ADMIN
    assert (await server.tenants.get(acme)).created_at == datetime(2025, 5, 24, 10, tzinfo=UTC)
    assert (await server.tenants.update(acme, name="Acme Ltd")).name == "Acme Ltd"
    item = await server.item(TENANTS, "acme")
    assert item is not None
    assert (item["limits"], item["plan"], item["created_at"]) == ({"max_agents": "10"}, "gold", "2025-05-24 10:00:00")
    bare = await server.tenants.enter(ALICE, "bare")
    assert bare.role is Role.VIEWER
    assert (await server.tenants.get(bare)).name == "bare"


async def test_limits_of_an_older_tenant_are_enforced(server: Server) -> None:
    limits: Value = {"max_agents": 3, "max_channels": 2, "max_ssh_keys": 5}
    await server.put(TENANTS, id="acme", subscription_plan="starter", limits=limits)
    await server.put(USER_TENANTS, user_id=ALICE, tenant_id="acme", role="owner")
    acme = await server.tenants.enter(ALICE, "acme")
    for number in range(3):
        await server.agent(acme, f"{number}")
    for number in range(2):
        await server.channels.create(acme, name=f"{number}")
    with pytest.raises(LimitReached, match="3"):
        await server.agent(acme)
    with pytest.raises(LimitReached, match="2"):
        await server.channels.create(acme, name="one more")
    tenant = await server.tenants.get(acme)
    assert (tenant.plan, tenant.limits) == ("starter", {"agents": 3, "channels": 2})


async def test_older_tenant_keeps_limits_above_the_free_plan(server: Server) -> None:
    await server.put(TENANTS, id="acme", subscription_tier="enterprise", max_agents=999_999)
    await server.put(USER_TENANTS, user_id=ALICE, tenant_id="acme", role="owner")
    for number in range(101):
        await server.put(AGENTS, tenant_id="acme", id=f"a{number}")
    acme = await server.tenants.enter(ALICE, "acme")
    assert (await server.agent(acme)).name == "Planner"


# --- how many one person may have ----------------------------------------------------------------------------------------


def bounded(server: Server, owned: int = 0, made_a_day: int = 0) -> Tenants:
    per_person, plans = PerPerson(owned, made_a_day), server.plans
    return Tenants(server.store, server.changes, server.audit, server.clock, server.logs, server.record_cache, plans, per_person)


async def test_limit_of_owned_tenants_is_enforced_and_deletion_frees_a_place(server: Server) -> None:
    tenants = bounded(server, owned=3)
    alice = UserId("alice")
    first, *_ = [await tenants.create(alice, f"T{number}", f"k{number}") for number in range(3)]
    with pytest.raises(TenantLimit, match="3 tenants owned by one person"):
        await tenants.create(alice, "One too many")
    assert await tenants.create(alice, "T0", "k0") == first, "a repeat makes nothing"
    await tenants.create(UserId("bob"), "Bob's")
    await tenants.delete(as_member(first, "alice"))
    with pytest.raises(Conflict):
        await tenants.create(alice, "T0", "k0")
    await tenants.create(alice, "Again")


async def test_only_tenants_that_a_person_owns_count(server: Server) -> None:
    tenants = bounded(server, owned=1)
    for owner in ("bob", "carol"):
        theirs = await server.tenant(owner)
        _, token = await server.invitations.create(theirs, address="alice@example.com", role=Role.ADMIN)
        await server.invitations.accept(UserId("alice"), "alice@example.com", token)
    await tenants.create(UserId("alice"), "Alice's")


async def test_daily_limit_of_created_tenants_includes_deleted_ones(server: Server) -> None:
    tenants, alice = bounded(server, made_a_day=2), UserId("alice")
    for number in range(2):
        await tenants.delete(as_member(await tenants.create(alice, "T", f"k{number}"), "alice"))
    before = {chain: len(entries) for chain, entries in server.logs.chains.items()}
    for key in (None, "k9"):
        with pytest.raises(TenantLimit, match="2 tenants made by one person in a day"):
            await tenants.create(alice, "T", key)
    assert {chain: len(entries) for chain, entries in server.logs.chains.items()} == before, (
        "a refusal leaves nothing in the audit"
    )
    await tenants.create(UserId("bob"), "Bob's")
    server.clock.pass_s(24 * 3600)
    await tenants.create(alice, "T")


async def test_concurrent_creates_reach_exactly_the_daily_limit(server: Server) -> None:
    servers = [bounded(server.another(), made_a_day=5) for _ in range(2)]
    made: list[Tenant] = []

    async def create(number: int) -> None:
        with contextlib.suppress(TenantLimit):
            made.append(await servers[number % 2].create(UserId("alice"), "T"))

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(create(number))
    assert len(made) == 5
    assert len((await server.tenants.list(UserId("alice"))).items) == 5
