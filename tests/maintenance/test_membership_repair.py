from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from artcafe.errors import Conflict, InvitationRefused, LastOwner, MemberNotFound, TenantNotFound
from artcafe.maintenance.integrity import Finding
from artcafe.maintenance.membership_repair import MembershipRepair
from artcafe.maintenance.repair import Repair
from artcafe.model import Role, TenantId, UserId
from artcafe.tables.catalog import TENANTS, USER_TENANT_INDEX, USER_TENANTS
from artcafe.tables.engine.values import Value
from artcafe.tables.engine.writes import Delete, ItemKey
from tests.services.service_env import Server

ACME = TenantId("acme")


async def memberships(server: Server, only: TenantId | None = None) -> list[Finding]:
    """Fix every membership, and return what was found."""
    repair = MembershipRepair(server.tables)
    fixes = [fix async for fix in repair.inspect(only)]
    for fix in fixes:
        assert not fix.writes or await repair.fix(fix)
    return [fix.finding for fix in fixes]


async def put_both(server: Server, user_id: str, **attributes: Value) -> None:
    """Write a membership in both directions."""
    for table in (USER_TENANTS, USER_TENANT_INDEX):
        await server.put(table, user_id=user_id, tenant_id=ACME, **attributes)


# --- both directions --------------------------------------------------------------------------------------------------


async def test_fix_admits_nobody_and_keeps_the_effective_role(server: Server) -> None:
    owner = await server.tenant()
    tenant_id = owner.tenant_id
    for user, there, listed in (("bob", None, "admin"), ("carol", "viewer", "admin"), ("dave", "member", None)):
        if there:
            await server.put(USER_TENANTS, user_id=user, tenant_id=tenant_id, role=there)
        if listed:
            await server.put(USER_TENANT_INDEX, user_id=user, tenant_id=tenant_id, role=listed, note="kept")
    assert len(await memberships(server, TenantId("another"))) == 0
    assert len(await memberships(server, tenant_id)) == 3
    listed_now = {item["user_id"]: item["role"] for item in await server.items(USER_TENANT_INDEX, tenant_id)}
    assert listed_now == {"alice": "owner", "carol": "viewer", "dave": "member"}
    assert (await server.item(USER_TENANT_INDEX, tenant_id, "carol") or {})["note"] == "kept"
    assert await server.item(USER_TENANTS, "bob", tenant_id) is None
    assert await memberships(server) == []


async def test_only_row_of_an_owner_is_left_for_a_person(server: Server) -> None:
    await server.put(TENANTS, id=ACME)
    await server.put(USER_TENANT_INDEX, user_id="alice", tenant_id=ACME, role="owner")
    (found,) = await memberships(server)
    assert not found.is_fixable
    assert "alice" in found.message
    assert await server.item(USER_TENANT_INDEX, ACME, "alice") is not None


async def test_membership_changed_since_it_was_read_is_not_fixed(server: Server) -> None:
    await server.put(USER_TENANTS, user_id="bob", tenant_id=ACME, role="member")
    repair = MembershipRepair(server.tables)
    (fix,) = [fix async for fix in repair.inspect()]
    await server.tables.delete(Delete(USER_TENANTS, ItemKey("bob", ACME)))
    assert not await repair.fix(fix)
    assert await server.item(USER_TENANT_INDEX, ACME, "bob") is None


@pytest.mark.parametrize(
    "extra",
    [
        {"joined_at": "2025-05-18T12:00:00Z"},
        {"created_at": "2025-05-18T12:00:00Z"},
        {"address": "bob@example.com"},
        {"user_email": "bob@example.com"},
        {"invitation_id": "inv_1"},
        {"active": 0},
    ],
)
async def test_one_fix_removes_attributes_that_only_the_index_has(server: Server, extra: dict[str, Value]) -> None:
    await server.put(TENANTS, id=ACME)
    await server.put(USER_TENANTS, user_id="bob", tenant_id=ACME, role="member")
    await server.put(USER_TENANT_INDEX, user_id="bob", tenant_id=ACME, role="member", note="kept", **extra)
    (found,) = await memberships(server)
    assert (found.is_fixable, "bob" in found.message) == (True, True)
    assert await memberships(server) == []
    right = {"user_id": "bob", "tenant_id": ACME, "role": "member", "note": "kept"}
    assert await server.item(USER_TENANT_INDEX, ACME, "bob") == right


async def test_role_change_makes_both_rows_of_an_older_membership_equal(server: Server) -> None:
    await server.put(TENANTS, id=ACME)
    owner = {"role": "owner", "joined_at": "2025-05-18T12:00:00Z"}
    await put_both(server, "alice", **owner)
    await put_both(server, "bob", role="member")
    await put_both(server, "carol", role="member", created_at="2025-05-18T12:01:02.123456", user_email="Carol@example.com")
    await Repair(server.tables).fix(ACME)
    alice = await server.tenants.enter(UserId("alice"), ACME)
    bob = await server.members.set_role(alice, "bob", Role.VIEWER)
    carol = await server.members.set_role(alice, "carol", Role.ADMIN)
    assert await memberships(server) == []
    assert (bob.joined_at, bob.address) == (None, None)
    assert (carol.joined_at, carol.address) == (datetime(2025, 5, 18, 12, 1, 2, 123_000, tzinfo=UTC), "Carol@example.com")
    listed = {each.user_id: each for each in (await server.members.list(alice)).items}
    assert (listed[UserId("bob")], listed[UserId("carol")]) == (bob, carol)


# --- members whom an older system removed -----------------------------------------------------------------------------


@pytest.mark.parametrize("active", [0, False, Decimal("0.0"), None, "no"])
@pytest.mark.parametrize("listed", [True, False])
async def test_removed_member_stays_removed_for_every_reader_after_a_repair(server: Server, active: Value, listed: bool) -> None:
    await server.put(TENANTS, id=ACME)
    await put_both(server, "alice", role="owner")
    await server.put(USER_TENANTS, user_id="eve", tenant_id=ACME, role="owner", active=active)
    if listed:
        await server.put(USER_TENANT_INDEX, user_id="eve", tenant_id=ACME, role="owner", active=active)
    await Repair(server.tables).fix(ACME)

    async def is_outside() -> None:
        with pytest.raises(TenantNotFound):
            await server.tenants.enter(UserId("eve"), ACME)
        assert (await server.tenants.list(UserId("eve"))).items == ()
        alice = await server.tenants.enter(UserId("alice"), ACME)
        assert [each.user_id for each in (await server.members.list(alice)).items] == ["alice"]
        assert (await server.item(TENANTS, ACME) or {})["member_count"] == 1
        for change in (server.members.set_role(alice, "eve", Role.ADMIN), server.members.remove(alice, "eve")):
            with pytest.raises(MemberNotFound):
                await change
        with pytest.raises(LastOwner):
            await server.members.remove(alice, "alice")

    await is_outside()
    found = await memberships(server)
    assert [(each.table, each.is_fixable) for each in found] == [
        (USER_TENANTS.name, False),
        *([(USER_TENANT_INDEX.name, True)] if listed else []),
    ]
    assert all("eve" in each.message and "removed" in each.message for each in found)
    assert [each.is_fixable for each in await memberships(server)] == [False]
    await Repair(server.tables).fix(ACME)
    assert await server.item(USER_TENANT_INDEX, ACME, "eve") is None
    await is_outside()


@pytest.mark.parametrize("active", [1, True, Decimal("1.5")])
async def test_member_with_an_active_row_is_admitted(server: Server, active: Value) -> None:
    await server.put(TENANTS, id=ACME)
    await put_both(server, "alice", role="owner", active=active)
    await Repair(server.tables).fix(ACME)
    assert await memberships(server) == []
    alice = await server.tenants.enter(UserId("alice"), ACME)
    assert [each.tenant.id for each in (await server.tenants.list(alice.user_id)).items] == [ACME]


async def test_invitation_readmits_a_removed_member_with_its_role(server: Server) -> None:
    await server.put(TENANTS, id=ACME)
    await put_both(server, "alice", role="owner")
    await server.put(USER_TENANTS, user_id="eve", tenant_id=ACME, role="admin", active=0)
    await Repair(server.tables).fix(ACME)
    alice = await server.tenants.enter(UserId("alice"), ACME)
    _, token = await server.invitations.create(alice, address="eve@example.com", role=Role.VIEWER)
    await server.invitations.accept(UserId("eve"), "eve@example.com", token)
    assert (await server.tenants.enter(UserId("eve"), ACME)).role is Role.VIEWER
    assert (await server.item(TENANTS, ACME) or {})["member_count"] == 2
    assert await memberships(server) == []
    _, second = await server.invitations.create(alice, address="eve@example.com", role=Role.OWNER)
    with pytest.raises(Conflict):
        await server.invitations.accept(UserId("eve"), "eve@example.com", second)


async def test_invitation_of_an_admin_removed_since_is_refused(server: Server) -> None:
    await server.put(TENANTS, id=ACME)
    await put_both(server, "alice", role="owner")
    await Repair(server.tables).fix(ACME)
    alice = await server.tenants.enter(UserId("alice"), ACME)
    _, token = await server.invitations.create(alice, address="bob@example.com", role=Role.MEMBER)
    await server.put(USER_TENANTS, user_id="alice", tenant_id=ACME, role="owner", active=0)
    with pytest.raises(InvitationRefused):
        await server.invitations.accept(UserId("bob"), "bob@example.com", token)


async def test_membership_of_a_deleted_tenant_is_not_listed(server: Server) -> None:
    gone = await server.tenant()
    await server.put(USER_TENANTS, user_id="bob", tenant_id=gone.tenant_id, role="member")
    await server.tenants.delete(gone)
    assert (await server.tenants.list(UserId("bob"))).items == ()
