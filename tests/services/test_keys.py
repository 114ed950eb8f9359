from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from artcafe.errors import (
    AgentNotFound,
    ArtcafeError,
    BadCredentials,
    BadKey,
    Conflict,
    Forbidden,
    IdempotencyMismatch,
    Invalid,
    KeyLimit,
    KeyNotFound,
    KeyTaken,
    Revoked,
)
from artcafe.model import Agent, AgentKey, AgentStatus, KeyStatus, Role, UserPrincipal
from artcafe.rules import keys as rules
from artcafe.rules import times
from artcafe.rules.pages import PageRequest
from artcafe.tables.agent_rows import is_key_claim
from artcafe.tables.catalog import AGENTS
from artcafe.tables.engine.values import Value
from artcafe.wire.sshkeys import parse_public_key
from tests import ssh_keygen
from tests.conftest import Require
from tests.services.service_env import Server, new_key, proven, with_role


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, require: Require) -> list[Path]:
    """Generate three key pairs."""
    require("ssh-keygen", ssh_keygen.PRESENT)
    folder = tmp_path_factory.mktemp("keys")
    return [ssh_keygen.make_key(folder / f"key{n}") for n in range(3)]


@pytest.fixture
async def owner(server: Server) -> UserPrincipal:
    return await server.tenant()


@pytest.fixture
async def agent(server: Server, owner: UserPrincipal, pairs: list[Path]) -> Agent:
    return await server.agent(owner, public_key=ssh_keygen.public_line(pairs[0]))


async def added(server: Server, owner: UserPrincipal, agent: Agent, pair: Path) -> str:
    """Add a key to the agent, and return its id."""
    _, key = await server.keys.add(owner, agent.id, public_key=ssh_keygen.public_line(pair))
    return rules.key_id(key.line)


async def token(server: Server, agent: Agent, pair: Path) -> str:
    """Log in with this key, and return the token."""
    challenge = await server.login.begin(agent.tenant_id, agent.id)
    opened, _ = await server.login.redeem(challenge.id, ssh_keygen.sign(pair, challenge.text.encode()))
    return opened


async def listed(server: Server, owner: UserPrincipal, agent: Agent) -> list[AgentKey]:
    return [key for _, key in (await server.keys.list(owner, agent.id)).items]


async def owner_of(server: Server, owner: UserPrincipal, line: str) -> str | None:
    return await server.store.tenant(owner.tenant_id).key_owner(parse_public_key(line).fingerprint)


# --- adding ----------------------------------------------------------------------------------------------------------


async def test_agent_logs_in_with_any_of_its_keys(server: Server, owner: UserPrincipal, agent: Agent, pairs: list[Path]) -> None:
    with pytest.raises(BadCredentials):
        await token(server, agent, pairs[1])
    await added(server, owner, agent, pairs[1])
    for pair in pairs[:2]:
        assert (await server.login.verify_token(await token(server, agent, pair))).principal.agent_id == agent.id
    with pytest.raises(BadCredentials):
        await token(server, agent, pairs[2])


async def test_adding_a_key_ends_no_token(server: Server, owner: UserPrincipal, agent: Agent, pairs: list[Path]) -> None:
    before = await token(server, agent, pairs[0])
    await added(server, owner, agent, pairs[1])
    assert (await server.login.verify_token(before)).principal == proven(agent)
    assert (await server.agents.get(owner, agent.id)).public_key == agent.public_key


async def test_of_twenty_concurrent_additions_exactly_five_succeed(server: Server, owner: UserPrincipal, agent: Agent) -> None:
    outcomes: Counter[str] = Counter()

    async def add() -> None:
        try:
            await server.another().keys.add(owner, agent.id, public_key=new_key())
            outcomes["added"] += 1
        except ArtcafeError as exc:
            outcomes[exc.code] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(add())
    assert outcomes == {"added": 5, "key_limit": 15}
    found = await listed(server, owner, agent)
    assert len(found) == 6
    assert len({key.serial for key in found}) == 6
    for key in found:
        assert await owner_of(server, owner, key.line) == agent.id
    claims = [item for item in await server.items(AGENTS, owner.tenant_id) if is_key_claim(item)]
    assert len(claims) == 6


async def test_revoked_key_frees_its_place_and_can_be_used_by_another_agent(
    server: Server, owner: UserPrincipal, agent: Agent
) -> None:
    lines = [new_key() for _ in range(5)]
    for line in lines:
        await server.keys.add(owner, agent.id, public_key=line)
    with pytest.raises(KeyLimit):
        await server.keys.add(owner, agent.id, public_key=new_key())
    await server.keys.revoke(owner, agent.id, rules.key_id(lines[2]))
    await server.keys.add(owner, agent.id, public_key=new_key())
    assert (await server.agent(owner, public_key=lines[2])).public_key == lines[2]


async def test_key_is_unique_among_the_first_and_additional_keys_of_a_tenant(
    server: Server, owner: UserPrincipal, agent: Agent
) -> None:
    line, other = new_key(), await server.agent(owner)
    await server.keys.add(owner, other.id, public_key=line)
    for take in (
        server.keys.add(owner, agent.id, public_key=line),
        server.agents.update(owner, agent.id, public_key=line),
        server.agent(owner, public_key=line),
        server.keys.add(owner, agent.id, public_key=other.public_key),
        server.keys.add(owner, other.id, public_key=line + " again"),
        server.keys.add(owner, agent.id, public_key=agent.public_key),
    ):
        with pytest.raises(KeyTaken):
            await take
    await server.keys.set_status(owner, other.id, rules.key_id(line), KeyStatus.DISABLED)
    with pytest.raises(KeyTaken):
        await server.keys.add(owner, agent.id, public_key=line)


async def test_one_of_many_agents_that_add_the_same_key_concurrently_gets_it(server: Server, owner: UserPrincipal) -> None:
    agents, line, outcomes = [await server.agent(owner, f"A{n}") for n in range(6)], new_key(), Counter[str]()

    async def add(agent: Agent) -> None:
        try:
            await server.another().keys.add(owner, agent.id, public_key=line)
            outcomes["added"] += 1
        except KeyTaken:
            outcomes["taken"] += 1

    async with asyncio.TaskGroup() as group:
        for agent in agents:
            group.create_task(add(agent))
    assert outcomes == {"added": 1, "taken": 5}


async def test_repeated_addition_returns_the_same_key_and_a_different_request_is_refused(
    server: Server, owner: UserPrincipal, agent: Agent
) -> None:
    line = new_key()
    first = await server.keys.add(owner, agent.id, public_key=line, idempotency_key="k")
    again = await server.keys.add(owner, agent.id, public_key=line, idempotency_key="k")
    assert again[1] == first[1]
    with pytest.raises(IdempotencyMismatch):
        await server.keys.add(owner, agent.id, public_key=new_key(), idempotency_key="k")
    assert len(await listed(server, owner, agent)) == 2


async def test_invalid_field_is_named_and_changes_nothing(server: Server, owner: UserPrincipal, agent: Agent) -> None:
    viewer = with_role(owner, Role.VIEWER)
    stranger = await server.tenant("bob")
    for attempt, error in (
        (server.keys.add(viewer, agent.id, public_key=new_key()), Forbidden),
        (server.keys.add(proven(agent), agent.id, public_key=new_key()), Forbidden),
        (server.keys.list(proven(agent), agent.id), Forbidden),
        (server.keys.add(stranger, agent.id, public_key=new_key()), AgentNotFound),
        (server.keys.add(owner, agent.id, public_key="ssh-dss AAAA"), BadKey),
        (server.keys.add(owner, agent.id, public_key=new_key(), not_after=server.clock()), Invalid),
        (server.keys.revoke(owner, agent.id, "key_00000000000000000000000000"), KeyNotFound),
        (server.keys.revoke(owner, agent.id, "\0"), KeyNotFound),
        (server.keys.revoke(stranger, agent.id, rules.key_id(agent.public_key)), AgentNotFound),
    ):
        with pytest.raises(error):
            await attempt
    assert [key.line for key in await listed(server, with_role(owner, Role.VIEWER), agent)] == [agent.public_key]


async def test_every_page_size_lists_each_key_once(server: Server, owner: UserPrincipal, agent: Agent) -> None:
    for _ in range(5):
        await server.keys.add(owner, agent.id, public_key=new_key())
    whole = [key.line for key in await listed(server, owner, agent)]
    for limit in range(1, 8):
        found: list[str] = []
        after: str | None = None
        while True:
            page = await server.keys.list(owner, agent.id, PageRequest(limit, after))
            found += [key.line for _, key in page.items]
            after = page.next
            if after is None:
                break
        assert found == whole


# --- what ends with what ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["revoke", "disable"])
@pytest.mark.parametrize("which", [0, 1])
async def test_removed_key_ends_only_its_own_tokens_on_every_server(
    server: Server, owner: UserPrincipal, agent: Agent, pairs: list[Path], how: str, which: int
) -> None:
    await added(server, owner, agent, pairs[1])
    tokens = [await token(server, agent, pair) for pair in pairs[:2]]
    id = rules.key_id(ssh_keygen.public_line(pairs[which]))
    if how == "revoke":
        await server.keys.revoke(owner, agent.id, id)
    else:
        await server.keys.set_status(owner, agent.id, id, KeyStatus.DISABLED)
    for each in (server, server.another()):
        with pytest.raises(Revoked):
            await each.login.verify_token(tokens[which])
        assert (await each.login.verify_token(tokens[1 - which])).principal.agent_id == agent.id
    with pytest.raises(BadCredentials):
        await token(server, agent, pairs[which])
    await token(server, agent, pairs[1 - which])


@pytest.mark.parametrize("again", ["enabled", "added"])
async def test_enabling_a_key_does_not_restore_its_old_tokens(
    server: Server, owner: UserPrincipal, agent: Agent, pairs: list[Path], again: str
) -> None:
    id = await added(server, owner, agent, pairs[1])
    before = await token(server, agent, pairs[1])
    if again == "enabled":
        await server.keys.set_status(owner, agent.id, id, KeyStatus.DISABLED)
        await server.keys.set_status(owner, agent.id, id, KeyStatus.ACTIVE)
    else:
        await server.keys.revoke(owner, agent.id, id)
        assert await added(server, owner, agent, pairs[1]) == id
    with pytest.raises(Revoked):
        await server.login.verify_token(before)
    await server.login.verify_token(await token(server, agent, pairs[1]))


async def test_disabling_or_rekeying_the_agent_ends_the_tokens_of_every_key(
    server: Server, owner: UserPrincipal, agent: Agent, pairs: list[Path]
) -> None:
    await added(server, owner, agent, pairs[1])
    tokens = [await token(server, agent, pair) for pair in pairs[:2]]
    await server.agents.update(owner, agent.id, public_key=ssh_keygen.public_line(pairs[2]))
    for each in tokens:
        with pytest.raises(Revoked):
            await server.login.verify_token(each)
    await server.login.verify_token(await token(server, agent, pairs[1]))
    await server.agents.update(owner, agent.id, status=AgentStatus.DISABLED)
    for pair in pairs[1:]:
        with pytest.raises(BadCredentials):
            await token(server, agent, pair)


async def test_removed_first_key_is_succeeded_by_the_oldest_key_without_an_end(
    server: Server, owner: UserPrincipal, agent: Agent, pairs: list[Path]
) -> None:
    ending, heir, younger = new_key(), new_key(), new_key()
    await server.keys.add(owner, agent.id, public_key=ending, not_after=server.clock() + timedelta(days=1))
    first = rules.key_id(agent.public_key)
    for attempt in (
        server.keys.revoke(owner, agent.id, first),
        server.keys.set_status(owner, agent.id, first, KeyStatus.DISABLED),
    ):
        with pytest.raises(Conflict):
            await attempt
    for line in (heir, younger):
        await server.keys.add(owner, agent.id, public_key=line)
    await server.keys.set_status(owner, agent.id, first, KeyStatus.DISABLED)
    changed = await server.agents.get(owner, agent.id)
    assert changed.public_key == heir
    assert changed.epoch == agent.epoch
    assert {(key.line, key.status) for key in await listed(server, owner, agent)} == {
        (heir, KeyStatus.ACTIVE),
        (ending, KeyStatus.ACTIVE),
        (younger, KeyStatus.ACTIVE),
        (agent.public_key, KeyStatus.DISABLED),
    }
    with pytest.raises(KeyTaken):
        await server.agent(owner, public_key=agent.public_key)
    await server.keys.revoke(owner, agent.id, first)
    assert await owner_of(server, owner, agent.public_key) is None


async def test_additional_key_can_be_made_the_first_by_an_update_of_the_agent(
    server: Server, owner: UserPrincipal, agent: Agent
) -> None:
    line = new_key()
    await server.keys.add(owner, agent.id, public_key=line)
    changed = await server.agents.update(owner, agent.id, public_key=line)
    assert (changed.public_key, changed.keys, changed.epoch) == (line, (), agent.epoch + 1)
    assert await owner_of(server, owner, line) == agent.id
    assert await owner_of(server, owner, agent.public_key) is None


async def test_key_with_an_end_expires_with_its_tokens(
    server: Server, owner: UserPrincipal, agent: Agent, pairs: list[Path]
) -> None:
    end = server.clock().replace(microsecond=0) + timedelta(seconds=120)
    await server.keys.add(owner, agent.id, public_key=ssh_keygen.public_line(pairs[1]), not_after=end)
    challenge = await server.login.begin(agent.tenant_id, agent.id)
    opened, lives_s = await server.login.redeem(challenge.id, ssh_keygen.sign(pairs[1], challenge.text.encode()))
    assert lives_s == 120
    assert server.tokens.read(opened, server.clock()).expires_at == end
    posed = server.login.pose(agent.tenant_id, agent.id)
    principal = await server.login.prove(posed, ssh_keygen.sign(pairs[1], posed.text.encode()))
    assert principal.until == end
    assert await server.login.is_current(principal)
    server.clock.pass_s(120)
    assert not await server.login.is_current(principal)
    with pytest.raises(BadCredentials):
        await token(server, agent, pairs[1])
    await token(server, agent, pairs[0])


async def test_token_of_a_newer_key_is_accepted_at_once_on_another_server(
    server: Server, owner: UserPrincipal, agent: Agent, pairs: list[Path]
) -> None:
    other = server.another()
    await other.login.verify_token(await token(server, agent, pairs[0]))
    await added(server, owner, agent, pairs[1])
    assert (await other.login.verify_token(await token(server, agent, pairs[1]))).principal.agent_id == agent.id


# --- the rows --------------------------------------------------------------------------------------------------------


async def test_first_key_stays_in_the_existing_attribute_and_the_others_in_a_new_one(
    server: Server, owner: UserPrincipal, agent: Agent
) -> None:
    line, end = new_key(), server.clock() + timedelta(days=1)
    _, key = await server.keys.add(owner, agent.id, public_key=line, not_after=end)
    row = await server.item(AGENTS, owner.tenant_id, agent.id)
    assert row is not None
    assert row["public_key"] == agent.public_key
    assert row["keys"] == {
        rules.key_id(line): {
            "public_key": line,
            "added_at": times.to_text(server.clock()),
            "status": "active",
            "serial": 1,
            "not_after": times.to_text(end),
        }
    }
    assert key.serial == 1


async def test_older_agent_accepts_additional_keys_and_can_lose_its_first(server: Server, owner: UserPrincipal) -> None:
    older, line = new_key() + " planner@old", new_key()
    await server.put(AGENTS, tenant_id=owner.tenant_id, id="planner", public_key=older, keys="none", keys_version="x")
    await server.keys.add(owner, "planner", public_key=line)
    await server.keys.set_status(owner, "planner", rules.key_id(older), KeyStatus.DISABLED)
    agent = await server.agents.get(owner, "planner")
    assert agent.public_key == line
    assert [(key.line, key.status) for key in agent.keys] == [(rules.canonical(older), KeyStatus.DISABLED)]


async def test_key_with_an_unknown_status_cannot_log_in(server: Server, owner: UserPrincipal) -> None:
    entry: dict[str, Value] = {"public_key": new_key(), "added_at": "2026-11-22T00:00:00Z", "status": "blessed", "serial": 1}
    await server.put(AGENTS, tenant_id=owner.tenant_id, id="planner", public_key=new_key(), keys={"key_x": entry, "key_y": 7})
    agent = await server.agents.get(owner, "planner")
    assert [key.status for key in agent.keys] == [KeyStatus.DISABLED]


async def test_deleted_agent_leaves_no_key_claims(server: Server, owner: UserPrincipal, agent: Agent) -> None:
    lines = [new_key() for _ in range(3)]
    for line in lines:
        await server.keys.add(owner, agent.id, public_key=line)
    await server.agents.delete(owner, agent.id)
    assert await server.items(AGENTS, owner.tenant_id) == []
