from __future__ import annotations

import asyncio
import re
import subprocess
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.errors import AgentNotFound, BadCredentials, CredentialsExpired, Revoked, TenantSuspended, Unauthenticated
from artcafe.model import Agent, AgentStatus, KeyStatus, LoginChallenge, TenantStatus, UserPrincipal
from artcafe.rules.keys import key_id
from artcafe.rules.tokens import Tokens
from artcafe.services.login import Login
from artcafe.tables.catalog import AGENTS, CHALLENGES
from tests import ssh_keygen
from tests.conftest import Require
from tests.services.service_env import START, TOKENS, Clock, Logs, Server, new_key, proven

LINE = re.compile(
    r"artcafe login 1 service=artcafe\.test tenant=(\S*) agent=(\S*) challenge=(chl_\w{26}) nonce=[0-9a-f]{64}"
    r" expires=2026-11-22T16:55:57\.000Z"
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory, require: Require) -> Path:
    """A folder with a key of each kind, generated once because RSA is slow."""
    require("ssh-keygen", ssh_keygen.PRESENT)
    folder = tmp_path_factory.mktemp("keys")
    for kind in ("ed25519", "ecdsa-256", "rsa-2048"):
        ssh_keygen.make_key(folder / kind, kind)
    ssh_keygen.make_key(folder / "other")
    return folder


@pytest.fixture
async def owner(server: Server) -> UserPrincipal:
    return await server.tenant()


@pytest.fixture
async def agent(server: Server, owner: UserPrincipal, keys: Path) -> Agent:
    return await server.agent(owner, public_key=ssh_keygen.public_line(keys / "ed25519"))


def signed(challenge: LoginChallenge, key: Path) -> str:
    return ssh_keygen.sign(key, challenge.text.encode())


# --- the challenge ---------------------------------------------------------------------------------------------------


async def test_challenge_text_contains_service_tenant_agent_challenge_and_expiry(server: Server, agent: Agent) -> None:
    challenge = await server.login.begin(agent.tenant_id, agent.id)
    match = LINE.fullmatch(challenge.text)
    assert match is not None, challenge.text
    assert match.groups() == (agent.tenant_id, agent.id, challenge.id)
    assert challenge.expires_at == START.replace(microsecond=0) + timedelta(seconds=300)


async def test_challenges_are_unique(server: Server, agent: Agent) -> None:
    texts = {(await server.login.begin(agent.tenant_id, agent.id)).text for _ in range(10)}
    assert len({text.split("nonce=")[1] for text in texts}) == 10


async def test_unknown_agent_gets_an_equal_response_and_row(server: Server, agent: Agent) -> None:
    for tenant_id, agent_id in (
        (agent.tenant_id, "agt_00000000000000000000000000"),
        ("ten_00000000000000000000000000", agent.id),
        ("", ""),
        ("a b", "ünknown"),
        ("x" * 5000, "\n\x00\ud800"),
    ):
        challenge = await server.login.begin(tenant_id, agent_id)
        assert LINE.fullmatch(challenge.text), challenge.text
        row = await server.item(CHALLENGES, challenge.id)
        assert row is not None
        assert set(row) == {"challenge_id", "challenge", "tenant_id", "agent_id", "expires_at", "ttl"}


async def test_challenge_row_has_the_existing_attributes_and_a_ttl_in_seconds(server: Server, agent: Agent) -> None:
    challenge = await server.login.begin(agent.tenant_id, agent.id)
    assert await server.item(CHALLENGES, challenge.id) == {
        "challenge_id": challenge.id,
        "challenge": challenge.text,
        "tenant_id": agent.tenant_id,
        "agent_id": agent.id,
        "expires_at": "2026-11-22T16:55:57.000Z",
        "ttl": int(challenge.expires_at.timestamp()),
    }


@given(tenant_id=st.text(), agent_id=st.text())
def test_challenge_text_for_any_claimed_ids_is_one_printable_ascii_line_with_the_same_fields(
    tenant_id: str, agent_id: str
) -> None:
    text = posed_nowhere().pose(tenant_id, agent_id).text
    assert text.isascii()
    assert text.isprintable()
    fields = text.split(" ")
    assert [field.partition("=")[0] for field in fields] == [
        "artcafe", "login", "1", "service", "tenant", "agent", "challenge", "nonce", "expires"
    ]  # fmt: skip


def test_printf_prints_a_challenge_text_unchanged() -> None:
    text = posed_nowhere().pose("%s%n\\n$HOME`id`'\"", "100%").text
    printed = subprocess.run(["sh", "-c", 'printf %s "$0"', text], capture_output=True, check=True, timeout=5).stdout
    assert printed.decode() == text


def posed_nowhere() -> Login:
    """Return a login service without tables."""
    return Server(None, Clock(), Logs()).login  # type: ignore[arg-type]  # proves that posing reads no table


# --- redeeming -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-256", "rsa-2048"])
async def test_signature_by_the_agents_key_is_exchanged_for_a_token(
    server: Server, owner: UserPrincipal, keys: Path, kind: str
) -> None:
    agent = await server.agent(owner, public_key=ssh_keygen.public_line(keys / kind))
    challenge = await server.login.begin(agent.tenant_id, agent.id)
    token, expires_in_s = await server.another().login.redeem(challenge.id, signed(challenge, keys / kind))
    assert expires_in_s == 900
    assert (await server.login.verify_token(token)).principal == proven(agent)
    assert server.tokens.read(token, server.clock()).expires_at == START.replace(microsecond=0) + timedelta(seconds=900)


async def test_one_of_two_concurrent_redeems_succeeds(server: Server, agent: Agent, keys: Path) -> None:
    challenge = await server.login.begin(agent.tenant_id, agent.id)
    signature = signed(challenge, keys / "ed25519")
    outcomes: list[bool] = []

    async def redeem(each: Server) -> None:
        try:
            await each.login.redeem(challenge.id, signature)
        except BadCredentials:
            outcomes.append(False)
        else:
            outcomes.append(True)

    async with asyncio.TaskGroup() as group:
        group.create_task(redeem(server))
        group.create_task(redeem(server.another()))
    assert sorted(outcomes) == [False, True]


async def test_wrong_signature_uses_up_the_challenge(server: Server, agent: Agent, keys: Path) -> None:
    challenge = await server.login.begin(agent.tenant_id, agent.id)
    for key in ("other", "ed25519"):
        with pytest.raises(BadCredentials):
            await server.login.redeem(challenge.id, signed(challenge, keys / key))


async def test_challenge_expires_after_5_minutes(server: Server, agent: Agent, keys: Path) -> None:
    fresh, stale = [await server.login.begin(agent.tenant_id, agent.id) for _ in range(2)]
    server.clock.now = fresh.expires_at - timedelta(milliseconds=1)
    await server.login.redeem(fresh.id, signed(fresh, keys / "ed25519"))
    server.clock.now = stale.expires_at
    with pytest.raises(BadCredentials):
        await server.login.redeem(stale.id, signed(stale, keys / "ed25519"))


async def test_same_attempt_gets_the_challenge_again_after_a_lost_response(server: Server, agent: Agent) -> None:
    challenge = await server.login.begin(agent.tenant_id, agent.id)
    assert await server.store.take_challenge(challenge.id, "attempt-1", server.clock()) == challenge
    assert await server.another().store.take_challenge(challenge.id, "attempt-1", server.clock()) == challenge
    assert await server.store.take_challenge(challenge.id, "attempt-2", server.clock()) is None


async def test_every_login_failure_raises_the_same_error(server: Server, owner: UserPrincipal, agent: Agent, keys: Path) -> None:
    disabled = await server.agent(owner, public_key=ssh_keygen.public_line(keys / "ecdsa-256"))
    await server.agents.update(owner, disabled.id, status=AgentStatus.DISABLED)
    mine = await server.login.begin(agent.tenant_id, agent.id)
    theirs = await server.login.begin(disabled.tenant_id, disabled.id)
    unknown = await server.login.begin(agent.tenant_id, "agt_00000000000000000000000000")
    elsewhere = await server.login.begin((await server.tenant("bob")).tenant_id, agent.id)
    other = await server.login.begin(agent.tenant_id, agent.id)
    key = keys / "ed25519"
    texts: set[str] = set()
    for challenge_id, signature in (
        (mine.id, ""),
        (theirs.id, signed(theirs, keys / "ecdsa-256")),
        (unknown.id, signed(unknown, key)),
        (elsewhere.id, signed(elsewhere, key)),
        (other.id, ssh_keygen.sign(key, other.text.encode(), namespace="git")),
        (mine.id, signed(mine, key)),
        ("chl_00000000000000000000000000", signed(mine, key)),
        ("", ""),
        ("\ud800", "x" * 100_000),
    ):
        with pytest.raises(BadCredentials) as raised:
            await server.login.redeem(challenge_id, signature)
        texts.add(str(raised.value))
    assert len(texts) == 1


async def test_audit_has_the_reason_of_each_refused_login(server: Server, owner: UserPrincipal, agent: Agent, keys: Path) -> None:
    ended = await server.agent(owner, "Ended")
    _, key = await server.keys.add(owner, ended.id, public_key=ssh_keygen.public_line(keys / "ecdsa-256"))
    await server.keys.set_status(owner, ended.id, key_id(key.line), KeyStatus.DISABLED)
    disabled = await server.agent(owner, "Disabled", ssh_keygen.public_line(keys / "rsa-2048"))
    await server.agents.update(owner, disabled.id, status=AgentStatus.DISABLED)

    async def refused(agent_id: str, key: str | None, wait_s: float = 0) -> None:
        challenge = server.login.pose(agent.tenant_id, agent_id)
        signature = "no signature" if key is None else signed(challenge, keys / key)
        server.clock.pass_s(wait_s)
        with pytest.raises(BadCredentials):
            await server.login.prove(challenge, signature)

    await refused("agt_none", "other")
    await refused(agent.id, None)
    await refused(agent.id, "other")
    await refused(ended.id, "ecdsa-256")
    await refused(disabled.id, "rsa-2048")
    await refused(agent.id, "ed25519", 301)
    tenant = server.store.tenant(owner.tenant_id)
    await tenant.transact([tenant.set_status(TenantStatus.SUSPENDED, server.clock())])
    server.invalidation.notify(owner.tenant_id)
    challenge = server.login.pose(agent.tenant_id, agent.id)
    with pytest.raises(TenantSuspended):
        await server.login.prove(challenge, signed(challenge, keys / "ed25519"))

    await server.audit.counters.flush()
    entries = [line.entry for line in (await server.audit.list(owner)).items if line.entry.action == "agent.login"]
    assert {(entry.actor, entry.facts["reason"], "key" in entry.facts) for entry in entries} == {
        ("agt_none", "unknown_agent", True),
        (agent.id, "bad_signature", False),
        (agent.id, "unknown_key", True),
        (ended.id, "key_ended", True),
        (disabled.id, "agent_disabled", True),
        (agent.id, "challenge_expired", True),
        (agent.id, "tenant_suspended", True),
    }


async def test_key_at_the_time_of_the_signature_check_decides(
    server: Server, owner: UserPrincipal, agent: Agent, keys: Path
) -> None:
    challenges = [await server.login.begin(agent.tenant_id, agent.id) for _ in range(2)]
    await server.another().agents.update(owner, agent.id, public_key=ssh_keygen.public_line(keys / "other"))
    with pytest.raises(BadCredentials):
        await server.login.redeem(challenges[0].id, signed(challenges[0], keys / "ed25519"))
    token, _ = await server.login.redeem(challenges[1].id, signed(challenges[1], keys / "other"))
    assert (await server.login.verify_token(token)).principal.epoch == agent.epoch + 1


@pytest.mark.parametrize("status", ["online", "offline", "busy", "error", "", None])
async def test_older_agent_logs_in_with_its_id_and_key_line(
    server: Server, owner: UserPrincipal, keys: Path, status: str | None
) -> None:
    line = ssh_keygen.public_line(keys / "ed25519")
    await server.put(AGENTS, tenant_id=owner.tenant_id, id="agent #1 (ü)", public_key=line, status=status)
    challenge = await server.login.begin(owner.tenant_id, "agent #1 (ü)")
    token, _ = await server.login.redeem(challenge.id, signed(challenge, keys / "ed25519"))
    assert (await server.login.verify_token(token)).principal.agent_id == "agent #1 (ü)"


async def test_older_agent_without_a_usable_key_or_with_an_unknown_status_cannot_log_in(
    server: Server, owner: UserPrincipal, keys: Path
) -> None:
    line = ssh_keygen.public_line(keys / "ed25519")
    await server.put(AGENTS, tenant_id=owner.tenant_id, id="keyless")
    await server.put(AGENTS, tenant_id=owner.tenant_id, id="odd", public_key="not a key")
    await server.put(AGENTS, tenant_id=owner.tenant_id, id="suspended", public_key=line, status="suspended")
    await server.put(AGENTS, tenant_id=owner.tenant_id, id="two", public_key=f"{line} one\n{new_key()} two\n")
    await server.put(AGENTS, tenant_id=owner.tenant_id, id="usr:alice", public_key=line)
    for id in ("keyless", "odd", "suspended", "two", "usr:alice"):
        challenge = await server.login.begin(owner.tenant_id, id)
        with pytest.raises(BadCredentials):
            await server.login.redeem(challenge.id, signed(challenge, keys / "ed25519"))


async def test_unusable_key_of_an_older_agent_can_be_used_by_another_agent(
    server: Server, owner: UserPrincipal, keys: Path
) -> None:
    line = ssh_keygen.public_line(keys / "ed25519")
    await server.put(AGENTS, tenant_id=owner.tenant_id, id="two", public_key=f"{line}\n{new_key()}\n")
    other = await server.agent(owner, public_key=line)
    for id, may in (("two", False), (other.id, True)):
        challenge = await server.login.begin(owner.tenant_id, id)
        with nullcontext() if may else pytest.raises(BadCredentials):
            await server.login.redeem(challenge.id, signed(challenge, keys / "ed25519"))


# --- on the socket ---------------------------------------------------------------------------------------------------


async def test_posed_challenge_is_not_stored_and_authenticates_the_agent(server: Server, agent: Agent, keys: Path) -> None:
    challenge = server.login.pose(agent.tenant_id, agent.id)
    assert await server.item(CHALLENGES, challenge.id) is None
    assert await server.login.prove(challenge, signed(challenge, keys / "ed25519")) == proven(agent)
    with pytest.raises(BadCredentials):
        await server.login.redeem(challenge.id, signed(challenge, keys / "ed25519"))


async def test_posed_challenge_is_refused_after_its_expiry_or_with_another_key(server: Server, agent: Agent, keys: Path) -> None:
    challenge = server.login.pose(agent.tenant_id, agent.id)
    with pytest.raises(BadCredentials):
        await server.login.prove(challenge, signed(challenge, keys / "other"))
    server.clock.now = challenge.expires_at
    with pytest.raises(BadCredentials):
        await server.login.prove(challenge, signed(challenge, keys / "ed25519"))


async def test_signature_of_another_connections_challenge_is_refused(server: Server, agent: Agent, keys: Path) -> None:
    mine, theirs = server.login.pose(agent.tenant_id, agent.id), server.login.pose(agent.tenant_id, agent.id)
    with pytest.raises(BadCredentials):
        await server.login.prove(mine, signed(theirs, keys / "ed25519"))


# --- with a token ----------------------------------------------------------------------------------------------------


async def test_token_is_revoked_with_the_agents_status_key_or_row(server: Server, owner: UserPrincipal) -> None:
    disabled, rekeyed, deleted = [await server.agent(owner, f"A{n}") for n in range(3)]
    tokens = {agent.id: TOKENS.mint(proven(agent), server.clock()) for agent in (disabled, rekeyed, deleted)}
    for token in tokens.values():
        await server.login.verify_token(token)
    await server.agents.update(owner, disabled.id, status=AgentStatus.DISABLED)
    await server.agents.update(owner, rekeyed.id, public_key=new_key())
    await server.agents.delete(owner, deleted.id)
    for token in tokens.values():
        with pytest.raises(Revoked):
            await server.login.verify_token(token)
    await server.agents.update(owner, disabled.id, status=AgentStatus.ACTIVE)
    with pytest.raises(Revoked):
        await server.login.verify_token(tokens[disabled.id])


async def test_renaming_an_agent_ends_no_token(server: Server, owner: UserPrincipal) -> None:
    agent = await server.agent(owner)
    token = TOKENS.mint(proven(agent), server.clock())
    await server.agents.update(owner, agent.id, name="Another")
    assert (await server.login.verify_token(token)).principal == proven(agent)


async def test_token_newer_than_the_cached_agent_is_accepted_at_once(server: Server, owner: UserPrincipal) -> None:
    agent, other = await server.agent(owner), server.another()
    await other.login.verify_token(TOKENS.mint(proven(agent), server.clock()))
    rekeyed = await server.agents.update(owner, agent.id, public_key=new_key())
    token = TOKENS.mint(proven(rekeyed), server.clock())
    assert (await other.login.verify_token(token)).principal == proven(rekeyed)


async def test_token_of_an_unknown_epoch_is_revoked(server: Server, owner: UserPrincipal) -> None:
    agent = await server.agent(owner)
    principal = proven(agent)
    forward = type(principal)(agent_id=agent.id, tenant_id=agent.tenant_id, epoch=7)
    with pytest.raises(Revoked):
        await server.login.verify_token(TOKENS.mint(forward, server.clock()))


async def test_expired_and_invalid_tokens_raise_different_errors(server: Server, owner: UserPrincipal) -> None:
    token = TOKENS.mint(proven(await server.agent(owner)), server.clock())
    server.clock.pass_s(900)
    with pytest.raises(CredentialsExpired):
        await server.login.verify_token(token)
    with pytest.raises(CredentialsExpired):
        server.tokens.read(token, server.clock())
    other = Tokens(b"o" * 32, "artcafe.test").mint(proven(await server.agent(owner)), server.clock())
    for text in ("", "x", "a.b.c", other):
        with pytest.raises(Unauthenticated):
            await server.login.verify_token(text)


async def test_key_claim_is_not_an_agent_that_can_log_in(server: Server, agent: Agent, keys: Path) -> None:
    claim = next(item["id"] for item in await server.items(AGENTS, agent.tenant_id) if item["id"] != agent.id)
    assert isinstance(claim, str)
    challenge = await server.login.begin(agent.tenant_id, claim)
    with pytest.raises(BadCredentials):
        await server.login.redeem(challenge.id, signed(challenge, keys / "ed25519"))
    with pytest.raises(AgentNotFound):
        await server.record_cache.agent(agent.tenant_id, claim)
