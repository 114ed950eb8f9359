"""A repeated request with an `Idempotency-Key` creates nothing after its result was deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from artcafe.errors import BadCredentials, Conflict, InvitationRefused, KeyTaken, Revoked
from artcafe.model import Agent, Role, UserId, UserPrincipal
from artcafe.rules.keys import key_id
from artcafe.tables.catalog import CHALLENGES
from tests.services.service_env import TOKENS, Server, new_key, proven

HOURS_72 = 72 * 3600


@pytest.fixture
async def owner(server: Server) -> UserPrincipal:
    return await server.tenant("alice@example.com")


async def counts(server: Server, owner: UserPrincipal) -> tuple[int, int, int]:
    row = await server.tenants.get(owner)
    return row.agent_count, row.channel_count, row.member_count


async def refused(call: Callable[[], Awaitable[object]]) -> None:
    """Check that every call raises a 409 with a remedy."""
    for _ in range(2):
        with pytest.raises(Conflict, match="take a new Idempotency-Key"):
            await call()


async def test_repeated_creation_of_a_deleted_agent_is_refused_and_its_old_token_stays_dead(
    server: Server, owner: UserPrincipal
) -> None:
    line = new_key()

    async def create() -> Agent:
        return await server.another().agents.create(owner, name="Planner", public_key=line, idempotency_key="k")

    agent = await create()
    token = TOKENS.mint(proven(agent), server.clock())
    await server.agents.delete(owner, agent.id)
    await refused(create)
    with pytest.raises(Revoked):
        await server.login.verify_token(token)
    assert await counts(server, owner) == (0, 0, 1)
    await server.agents.create(owner, name="Planner", public_key=line, idempotency_key="another")


async def test_repeated_creation_of_a_deleted_channel_is_refused(server: Server, owner: UserPrincipal) -> None:
    channel = await server.channels.create(owner, name="News", idempotency_key="k")
    await server.channels.delete(owner, channel.id)
    await refused(lambda: server.channels.create(owner, name="News", idempotency_key="k"))
    assert await counts(server, owner) == (0, 0, 1)


async def test_repeated_creation_that_overtakes_the_end_of_a_deletion_is_refused(server: Server, owner: UserPrincipal) -> None:
    channel = await server.channels.create(owner, name="News", idempotency_key="k")
    server.logs.failure = OSError("the log is away")
    with pytest.raises(OSError, match="away"):
        await server.channels.delete(owner, channel.id)
    with pytest.raises(Conflict):
        await server.channels.create(owner, name="News", idempotency_key="k")
    await server.channels.delete(owner, channel.id)
    await refused(lambda: server.channels.create(owner, name="News", idempotency_key="k"))


async def test_repeated_addition_of_a_revoked_key_is_refused(server: Server, owner: UserPrincipal) -> None:
    agent, line = await server.agent(owner), new_key()
    await server.keys.add(owner, agent.id, public_key=line, idempotency_key="k")
    await server.keys.revoke(owner, agent.id, key_id(line))
    await refused(lambda: server.keys.add(owner, agent.id, public_key=line, idempotency_key="k"))
    assert [key.line for _, key in (await server.keys.list(owner, agent.id)).items] == [agent.public_key]


@pytest.mark.parametrize("promoted_by", ["revoking the first key", "naming it the first"])
async def test_repeated_addition_of_a_key_that_became_the_first_and_went_is_refused(
    server: Server, owner: UserPrincipal, promoted_by: str
) -> None:
    agent, line = await server.agent(owner), new_key()

    async def add() -> object:
        return await server.keys.add(owner, agent.id, public_key=line, idempotency_key="k")

    await add()
    if promoted_by == "revoking the first key":
        await server.keys.revoke(owner, agent.id, key_id(agent.public_key))
    else:
        await server.agents.update(owner, agent.id, public_key=line)
    with pytest.raises(KeyTaken):
        await add()
    await server.agents.update(owner, agent.id, public_key=new_key())
    await refused(add)


@pytest.mark.parametrize("how", ["used", "revoked"])
async def test_repeated_invitation_that_was_used_or_revoked_is_refused_and_its_token_stays_spent(
    server: Server, owner: UserPrincipal, how: str
) -> None:
    async def invite() -> tuple[object, str]:
        return await server.invitations.create(owner, address="bob@example.com", role=Role.ADMIN, idempotency_key="k")

    invitation, token = await server.invitations.create(owner, address="bob@example.com", role=Role.ADMIN, idempotency_key="k")
    if how == "used":
        await server.invitations.accept(UserId("bob"), "bob@example.com", token)
        await server.members.remove(owner, "bob")
    else:
        await server.invitations.revoke(owner, invitation.id)
    await refused(invite)
    server.clock.pass_s(HOURS_72 - 1)
    await refused(invite)
    with pytest.raises(InvitationRefused):
        await server.invitations.accept(UserId("bob"), "bob@example.com", token)


async def test_repeated_creation_of_a_deleted_tenant_is_refused(server: Server) -> None:
    async def create() -> object:
        return await server.tenants.create(UserId("bob"), "Bob's", "k")

    tenant = await server.tenants.create(UserId("bob"), "Bob's", "k")
    await server.tenants.delete(await server.tenants.enter(UserId("bob"), tenant.id))
    await refused(create)


async def test_tombstone_expires_after_72_hours_and_only_requests_with_a_key_leave_one(
    server: Server, owner: UserPrincipal
) -> None:
    await server.tables.sweep(server.clock().replace(year=2100))
    plain = await server.channels.create(owner, name="News")
    await server.channels.delete(owner, plain.id)
    assert await server.tables.sweep(server.clock().replace(year=2100)) == 0
    keyed = await server.channels.create(owner, name="News", idempotency_key="k")
    await server.channels.delete(owner, keyed.id)
    server.clock.pass_s(HOURS_72 + 1)
    assert (await server.channels.create(owner, name="News", idempotency_key="k")).id == keyed.id
    assert await server.tables.sweep(server.clock()) == 1


async def test_tombstone_is_not_a_challenge(server: Server, owner: UserPrincipal) -> None:
    agent = await server.agents.create(owner, name="A", public_key=new_key(), idempotency_key="k")
    await server.agents.delete(owner, agent.id)
    (row,) = [item async for item in server.tables.scan(CHALLENGES) if str(item["challenge_id"]).startswith("tombstone#")]
    with pytest.raises(BadCredentials):
        await server.login.redeem(str(row["challenge_id"]), "")
    with pytest.raises(Conflict):
        await server.agents.create(owner, name="A", public_key=new_key(), idempotency_key="k")
