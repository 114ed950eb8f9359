from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from artcafe.errors import (
    AddressUnproven,
    ArtcafeError,
    Conflict,
    Forbidden,
    IdempotencyMismatch,
    Invalid,
    InvitationLimit,
    InvitationNotFound,
    InvitationRefused,
    LastOwner,
    LimitReached,
    MemberNotFound,
    TenantNotFound,
    TenantSuspended,
)
from artcafe.model import Member, Role, TenantId, TenantStatus, UserId, UserPrincipal
from artcafe.rules.pages import PageRequest
from artcafe.tables.catalog import TENANTS, USER_TENANT_INDEX, USER_TENANTS
from artcafe.tables.engine.port import ConditionFailed
from tests.services.service_env import Server, as_member, proven, with_role

ALICE, BOB, CAROL = "alice@example.com", "bob@example.com", "carol@example.com"


async def join(server: Server, owner: UserPrincipal, user: str, role: Role = Role.MEMBER) -> UserPrincipal:
    """Invite a new member, and return them."""
    _, token = await server.invitations.create(owner, address=user, role=role)
    await server.invitations.accept(UserId(user), user, token)
    return await server.tenants.enter(UserId(user), owner.tenant_id)


async def all_members(server: Server, principal: UserPrincipal, limit: int = 2) -> list[Member]:
    found: list[Member] = []
    after = None
    while True:
        page = await server.members.list(principal, PageRequest(limit, after))
        found += page.items
        if (after := page.next) is None:
            return found


async def roles(server: Server, principal: UserPrincipal) -> dict[str, str]:
    return {each.user_id: each.role.value for each in await all_members(server, principal)}


async def member_count(server: Server, tenant_id: TenantId) -> int:
    row = await server.store.tenant(tenant_id).tenant()
    assert row is not None
    return row.member_count


async def all_at_once(*calls: Awaitable[object]) -> list[object]:
    """Run the calls concurrently, and return the result or error of each."""
    outcomes: list[object] = [None] * len(calls)

    async def note(number: int, call: Awaitable[object]) -> None:
        try:
            outcomes[number] = await call
        except ArtcafeError as exc:
            outcomes[number] = exc

    async with asyncio.TaskGroup() as group:
        for number, call in enumerate(calls):
            group.create_task(note(number, call))
    return outcomes


def succeeded(outcomes: list[object]) -> int:
    return sum(not isinstance(each, ArtcafeError) for each in outcomes)


# --- coming in -----------------------------------------------------------------------------------------------------------


async def test_accepting_an_invitation_writes_a_member_with_its_role_to_both_tables(server: Server) -> None:
    owner = await server.tenant(ALICE)
    bob = await join(server, owner, BOB, Role.ADMIN)
    assert (bob.role, bob.tenant_id) == (Role.ADMIN, owner.tenant_id)
    forward = await server.item(USER_TENANTS, BOB, owner.tenant_id)
    assert forward is not None
    assert forward == await server.item(USER_TENANT_INDEX, owner.tenant_id, BOB)
    assert (forward["role"], forward["address"]) == ("admin", BOB)
    assert await member_count(server, owner.tenant_id) == 2


async def test_invitation_is_valid_once_for_one_person(server: Server) -> None:
    owner = await server.tenant(ALICE)
    invitation, token = await server.invitations.create(owner, address=BOB, role=Role.MEMBER)
    _, first = await server.invitations.accept(UserId("b-1"), BOB, token)
    assert await server.invitations.accept(UserId("b-1"), BOB, token) == (await server.tenants.get(owner), first), "a repeat"
    with pytest.raises(InvitationRefused):
        await server.invitations.accept(UserId("b-2"), BOB, token)
    await server.members.remove(owner, "b-1")
    with pytest.raises(InvitationRefused):
        await server.invitations.accept(UserId("b-1"), BOB, token)
    with pytest.raises(InvitationNotFound):
        await server.invitations.revoke(owner, invitation.id)


async def test_one_of_many_concurrent_acceptances_on_two_servers_succeeds(server: Server) -> None:
    owner = await server.tenant(ALICE)
    _, token = await server.invitations.create(owner, address=BOB, role=Role.MEMBER)
    servers = (server, server.another())
    calls = [servers[number % 2].invitations.accept(UserId(f"b-{number}"), BOB, token) for number in range(20)]
    outcomes = await all_at_once(*calls)
    assert succeeded(outcomes) == 1
    assert {type(each) for each in outcomes if isinstance(each, ArtcafeError)} == {InvitationRefused}
    assert len(await all_members(server, owner)) == await member_count(server, owner.tenant_id) == 2


async def test_concurrent_acceptances_by_one_person_return_the_same_member(server: Server) -> None:
    owner = await server.tenant(ALICE)
    _, token = await server.invitations.create(owner, address=BOB, role=Role.MEMBER)
    first, second = await all_at_once(*[server.invitations.accept(UserId(BOB), BOB, token) for _ in range(2)])
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    assert first[1] == second[1]
    assert await member_count(server, owner.tenant_id) == 2


async def test_invitation_expires_after_72_hours(server: Server) -> None:
    owner = await server.tenant(ALICE)
    invitation, token = await server.invitations.create(owner, address=BOB, role=Role.MEMBER)
    _, other = await server.invitations.create(owner, address=CAROL, role=Role.MEMBER)
    server.clock.pass_s(72 * 3600 - 0.001)
    assert invitation in (await server.invitations.list(owner)).items
    await server.invitations.accept(UserId(CAROL), CAROL, other)
    server.clock.pass_s(0.001)
    assert (await server.invitations.list(owner)).items == ()
    with pytest.raises(InvitationRefused):
        await server.invitations.accept(UserId(BOB), BOB, token)


async def test_invitation_accepts_equivalent_spellings_of_its_address_only(server: Server) -> None:
    owner = await server.tenant(ALICE)
    invitation, token = await server.invitations.create(owner, address="Bob@Example.com", role=Role.MEMBER)
    assert invitation.address == BOB
    for address in (CAROL, "", "bob@example.com.evil.example", "x" * 300):
        with pytest.raises(AddressUnproven):
            await server.invitations.accept(UserId("b"), address, token)
    await server.invitations.accept(UserId("b"), "BOB@example.COM", token)


async def test_revoked_invitation_is_refused(server: Server) -> None:
    owner = await server.tenant(ALICE)
    invitation, token = await server.invitations.create(owner, address=BOB, role=Role.MEMBER)
    await server.invitations.revoke(owner, invitation.id)
    with pytest.raises(InvitationRefused):
        await server.invitations.accept(UserId(BOB), BOB, token)
    for id in (invitation.id, "inv_none", "", "x\n", "\ud800"):
        with pytest.raises(InvitationNotFound):
            await server.invitations.revoke(owner, id)


async def test_invitation_of_an_admin_who_may_no_longer_invite_is_refused(server: Server) -> None:
    owner = await server.tenant(ALICE)
    admin = await join(server, owner, BOB, Role.ADMIN)
    _, token = await server.invitations.create(admin, address=CAROL, role=Role.ADMIN)
    await server.members.set_role(owner, BOB, Role.MEMBER)
    with pytest.raises(InvitationRefused):
        await server.invitations.accept(UserId(CAROL), CAROL, token)
    await server.members.remove(owner, BOB)
    with pytest.raises(InvitationRefused):
        await server.invitations.accept(UserId(CAROL), CAROL, token)


async def test_changed_token_or_token_of_another_installation_is_refused(server: Server) -> None:
    owner = await server.tenant(ALICE)
    _, token = await server.invitations.create(owner, address=BOB, role=Role.MEMBER)
    forged = [token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :] for at in range(len(token))]
    for text in (*forged, "", "x", ".", "...", token + ".", token * 20, "artcafe-invitation.é.inv.x", "\ud800"):
        with pytest.raises(InvitationRefused):
            await server.invitations.accept(UserId(BOB), BOB, text)
    assert await roles(server, owner) == {ALICE: "owner"}


async def test_member_who_accepts_another_invitation_keeps_their_role(server: Server) -> None:
    owner = await server.tenant(ALICE)
    await join(server, owner, BOB, Role.VIEWER)
    _, token = await server.invitations.create(owner, address=BOB, role=Role.ADMIN)
    with pytest.raises(Conflict):
        await server.invitations.accept(UserId(BOB), BOB, token)
    assert await roles(server, owner) == {ALICE: "owner", BOB: "viewer"}
    assert len((await server.invitations.list(owner)).items) == 1


async def test_concurrent_acceptances_respect_the_plans_limit_of_members(server: Server) -> None:
    owner = await server.tenant(ALICE)
    await server.put(TENANTS, **{**(await server.item(TENANTS, owner.tenant_id) or {}), "limits": {"members": 5}})
    tokens = [
        (await server.invitations.create(owner, address=f"m{number}@example.com", role=Role.MEMBER))[1] for number in range(12)
    ]
    servers = (server, server.another())
    calls = [
        servers[number % 2].invitations.accept(UserId(f"m{number}"), f"m{number}@example.com", token)
        for number, token in enumerate(tokens)
    ]
    outcomes = await all_at_once(*calls)
    assert succeeded(outcomes) == 4
    assert {type(each) for each in outcomes if isinstance(each, ArtcafeError)} == {LimitReached}
    members = await all_members(server, owner)
    assert len(members) == await member_count(server, owner.tenant_id) == 5
    left = next(number for number, each in enumerate(outcomes) if isinstance(each, LimitReached))
    await server.members.remove(owner, next(each.user_id for each in members if each.role is Role.MEMBER))
    await server.invitations.accept(UserId(f"m{left}"), f"m{left}@example.com", tokens[left])


async def test_tenant_has_at_most_100_open_invitations_and_expired_ones_do_not_count(server: Server) -> None:
    owner = await server.tenant(ALICE)
    for number in range(100):
        await server.invitations.create(owner, address=f"m{number}@example.com", role=Role.MEMBER)
    with pytest.raises(InvitationLimit):
        await server.invitations.create(owner, address=BOB, role=Role.MEMBER)
    server.clock.pass_s(72 * 3600)
    await server.invitations.create(owner, address=BOB, role=Role.MEMBER)
    assert len(await server.items(USER_TENANT_INDEX, owner.tenant_id)) == 2, "the owner and the new one"


async def test_repeated_create_returns_the_same_invitation_and_token(server: Server) -> None:
    owner = await server.tenant(ALICE)
    first = await server.invitations.create(owner, address=BOB, role=Role.MEMBER, idempotency_key="k")
    server.clock.pass_s(60)
    assert await server.another().invitations.create(owner, address=BOB, role=Role.MEMBER, idempotency_key="k") == first
    with pytest.raises(IdempotencyMismatch):
        await server.invitations.create(owner, address=BOB, role=Role.ADMIN, idempotency_key="k")
    assert (await server.invitations.list(owner)).items == (first[0],)


@pytest.mark.parametrize(
    "address", ["", "bob", "@example.com", "bob@", "bob @example.com", "b\n@example.com", "x" * 255 + "@e.com"]
)
async def test_invalid_address_is_refused(server: Server, address: str) -> None:
    with pytest.raises(Invalid):
        await server.invitations.create(await server.tenant(ALICE), address=address, role=Role.MEMBER)


@pytest.mark.parametrize("user", ["", "~invitation#inv_1", "~", "x" * 256, "two\nlines"])
async def test_person_with_an_invalid_id_cannot_join(server: Server, user: str) -> None:
    owner = await server.tenant(ALICE)
    _, token = await server.invitations.create(owner, address=BOB, role=Role.MEMBER)
    with pytest.raises(Invalid):
        await server.invitations.accept(UserId(user), BOB, token)
    with pytest.raises(Invalid):
        await server.tenants.create(UserId(user), "Theirs")


# --- who may -------------------------------------------------------------------------------------------------------------


async def test_only_admins_read_and_change_members_and_invitations(server: Server) -> None:
    owner = await server.tenant(ALICE)
    await join(server, owner, BOB)
    agent = proven(await server.agent(owner))
    for principal in (with_role(owner, Role.MEMBER), with_role(owner, Role.VIEWER), agent):
        for refused in (
            server.members.list(principal),
            server.members.set_role(principal, BOB, Role.VIEWER),
            server.members.remove(principal, BOB),
            server.invitations.create(principal, address=CAROL, role=Role.VIEWER),
            server.invitations.list(principal),
            server.invitations.revoke(principal, "inv_none"),
        ):
            with pytest.raises(Forbidden):
                await refused
    assert await roles(server, owner) == {ALICE: "owner", BOB: "member"}


async def test_only_owners_promote_to_and_demote_from_owner(server: Server) -> None:
    owner = await server.tenant(ALICE)
    admin = await join(server, owner, BOB, Role.ADMIN)
    await join(server, owner, CAROL)
    for refused in (
        server.members.set_role(admin, CAROL, Role.OWNER),
        server.members.set_role(admin, BOB, Role.OWNER),
        server.members.set_role(admin, ALICE, Role.VIEWER),
        server.members.remove(admin, ALICE),
        server.invitations.create(admin, address="d@example.com", role=Role.OWNER),
    ):
        with pytest.raises(Forbidden):
            await refused
    assert (await server.members.set_role(owner, CAROL, Role.OWNER)).role is Role.OWNER
    assert (await server.members.set_role(owner, CAROL, Role.ADMIN)).role is Role.ADMIN
    assert (await server.members.set_role(admin, CAROL, Role.VIEWER)).role is Role.VIEWER


# --- roles, and out again ------------------------------------------------------------------------------------------------


async def test_role_change_is_written_to_both_tables_and_published(server: Server) -> None:
    owner = await server.tenant(ALICE)
    await join(server, owner, BOB)
    before = (await server.store.versions([owner.tenant_id]))[owner.tenant_id]
    server.changed.clear()
    changed = await server.members.set_role(owner, BOB, Role.ADMIN)
    assert (changed.role, changed.address) == (Role.ADMIN, BOB)
    for table, key in ((USER_TENANTS, (BOB, owner.tenant_id)), (USER_TENANT_INDEX, (owner.tenant_id, BOB))):
        assert ((await server.item(table, *key)) or {})["role"] == "admin"
    assert (await server.store.versions([owner.tenant_id]))[owner.tenant_id] == (before or 0) + 1
    assert server.changed == [owner.tenant_id]
    assert (await server.tenants.enter(UserId(BOB), owner.tenant_id)).role is Role.ADMIN


async def test_removed_member_is_refused_at_once_on_every_server(server: Server) -> None:
    owner = await server.tenant(ALICE)
    bob = await join(server, owner, BOB)
    other = server.another()
    assert await other.tenants.enter(UserId(BOB), owner.tenant_id) == bob
    server.changed.clear()
    await server.members.remove(owner, BOB)
    with pytest.raises(TenantNotFound):
        await other.tenants.enter(UserId(BOB), owner.tenant_id)
    assert server.changed == [owner.tenant_id], "which takes them off their sockets"
    assert await server.item(USER_TENANT_INDEX, owner.tenant_id, BOB) is None
    assert await member_count(server, owner.tenant_id) == 1
    for again in (server.members.remove(owner, BOB), server.members.set_role(owner, BOB, Role.VIEWER)):
        with pytest.raises(MemberNotFound):
            await again


@pytest.mark.parametrize("role", [Role.ADMIN, Role.MEMBER, Role.VIEWER])
async def test_every_member_may_leave(server: Server, role: Role) -> None:
    owner = await server.tenant(ALICE)
    bob = await join(server, owner, BOB, role)
    await server.members.remove(bob, BOB)
    assert await roles(server, owner) == {ALICE: "owner"}


async def test_last_owner_cannot_leave_or_be_demoted(server: Server) -> None:
    owner = await server.tenant(ALICE)
    await join(server, owner, BOB, Role.ADMIN)
    for refused in (server.members.remove(owner, ALICE), server.members.set_role(owner, ALICE, Role.ADMIN)):
        with pytest.raises(LastOwner):
            await refused
    assert (await server.members.set_role(owner, ALICE, Role.OWNER)).role is Role.OWNER, "which changes nothing"
    await server.members.set_role(owner, BOB, Role.OWNER)
    await server.members.remove(owner, ALICE)
    assert await roles(server, as_member(await server.tenants.get(with_role(owner, Role.VIEWER)), BOB)) == {BOB: "owner"}


async def test_one_of_several_owners_who_leave_concurrently_stays(server: Server) -> None:
    for _ in range(10):
        owner = await server.tenant(ALICE)
        owners = [owner, *[await join(server, owner, f"o{number}@example.com", Role.OWNER) for number in range(5)]]
        servers = (server, server.another())
        calls = [
            servers[number % 2].members.remove(each, each.user_id)
            if number % 3
            else servers[number % 2].members.set_role(each, each.user_id, Role.VIEWER)
            for number, each in enumerate(owners)
        ]
        outcomes = await all_at_once(*calls)
        left = await server.store.people(owner.tenant_id).all_members()
        assert sum(each.role is Role.OWNER for each in left) >= 1
        assert len(left) == await member_count(server, owner.tenant_id)
        assert {type(each) for each in outcomes if isinstance(each, ArtcafeError)} <= {LastOwner, Conflict}


async def test_member_promoted_to_owner_during_a_removal_is_not_removed_by_an_admin(server: Server) -> None:
    owner = await server.tenant(ALICE)
    await join(server, owner, BOB, Role.VIEWER)
    tenant, people = server.store.tenant(owner.tenant_id), server.store.people(owner.tenant_id)
    as_read = await people.member(UserId(BOB))
    assert as_read is not None
    await server.members.set_role(owner, BOB, Role.OWNER)
    for late in (people.delete_member(as_read), people.set_role(as_read, Role.MEMBER)):
        with pytest.raises(ConditionFailed):
            await tenant.transact(late)
    with pytest.raises(Forbidden):
        await server.members.remove(with_role(owner, Role.ADMIN), BOB)
    assert await roles(server, owner) == {ALICE: "owner", BOB: "owner"}


async def test_unknown_and_malformed_member_ids_are_not_found(server: Server) -> None:
    owner = await server.tenant(ALICE)
    other = await server.tenant(BOB)
    invitation, _ = await server.invitations.create(owner, address=CAROL, role=Role.MEMBER)
    for id in (BOB, "", "x\n", "\ud800", "x" * 300, f"~invitation#{invitation.id}"):
        for refused in (server.members.remove(owner, id), server.members.set_role(owner, id, Role.VIEWER)):
            with pytest.raises(MemberNotFound):
                await refused
    assert await roles(server, other) == {BOB: "owner"}
    assert len((await server.invitations.list(owner)).items) == 1


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
async def test_pages_list_each_member_once_without_invitations(server: Server, limit: int) -> None:
    owner = await server.tenant(ALICE)
    users = ["bob@example.com", "zoë@example.com", "é", "日本@example.com", "|", "}"]
    for number, user in enumerate(users):
        _, token = await server.invitations.create(owner, address=f"m{number}@example.com", role=Role.MEMBER)
        await server.invitations.accept(UserId(user), f"m{number}@example.com", token)
        await server.invitations.create(owner, address=f"open{number}@example.com", role=Role.MEMBER)
    found = [each.user_id for each in await all_members(server, owner, limit)]
    assert found == sorted([ALICE, *users], key=str.encode)
    open_ones: list[str] = []
    after = None
    while True:
        page = await server.invitations.list(owner, PageRequest(limit, after))
        open_ones += [each.address for each in page.items]
        if (after := page.next) is None:
            break
    assert sorted(open_ones) == [f"open{number}@example.com" for number in range(len(users))]


# --- other tenants, older ones, suspended ones, gone ones --------------------------------------------------------------------


async def test_first_change_counts_the_members_of_an_older_tenant(server: Server) -> None:
    acme = TenantId("acme")
    await server.put(TENANTS, id="acme", agent_count=0, channel_count=0)
    for user, role in (("ann", "owner"), ("ben", "superuser")):
        for table in (USER_TENANTS, USER_TENANT_INDEX):
            await server.put(table, user_id=user, tenant_id="acme", role=role, team="blue")
    ann = await server.tenants.enter(UserId("ann"), "acme")
    assert await roles(server, ann) == {"ann": "owner", "ben": "viewer"}
    await server.members.set_role(ann, "ben", Role.MEMBER)
    assert ((await server.item(USER_TENANT_INDEX, "acme", "ben")) or {})["team"] == "blue"
    assert await member_count(server, acme) == 2
    await server.members.remove(ann, "ben")
    assert await member_count(server, acme) == 1


async def test_members_of_a_suspended_tenant_cannot_be_changed(server: Server) -> None:
    owner = await server.tenant(ALICE)
    await join(server, owner, BOB)
    _, token = await server.invitations.create(owner, address=CAROL, role=Role.MEMBER)
    tenant = server.store.tenant(owner.tenant_id)
    await tenant.transact([tenant.set_status(TenantStatus.SUSPENDED, server.clock())])
    # The principal predates the change: its role is not trusted.
    for refused in (
        server.members.remove(owner, BOB),
        server.members.set_role(owner, BOB, Role.VIEWER),
        server.invitations.create(owner, address="d@example.com", role=Role.MEMBER),
        server.invitations.accept(UserId(CAROL), CAROL, token),
    ):
        with pytest.raises(TenantSuspended):
            await refused
    assert await roles(server, owner) == {ALICE: "owner", BOB: "member"}


async def test_invitation_to_a_deleted_tenant_is_refused(server: Server) -> None:
    owner = await server.tenant(ALICE)
    _, token = await server.invitations.create(owner, address=BOB, role=Role.MEMBER)
    await server.tenants.delete(owner)
    with pytest.raises(InvitationRefused):
        await server.invitations.accept(UserId(BOB), BOB, token)
    assert await server.items(USER_TENANT_INDEX, owner.tenant_id) == []
