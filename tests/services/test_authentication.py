from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from artcafe.errors import BadCredentials, CredentialsExpired, NotAMember, TenantNotFound, Unauthenticated
from artcafe.identity.local import LocalIdentity
from artcafe.identity.port import Person
from artcafe.model import AgentId, AgentPrincipal, TenantId, UserId, UserPrincipal
from artcafe.rules.tokens import is_agent_token
from artcafe.services.authentication import Authentication
from tests.services.service_env import START, Server, proven


class CountingIdentity(LocalIdentity):
    """Local identity that counts how often it verifies a token."""

    def __init__(self) -> None:
        super().__init__(b"i" * 32)
        self.verified = 0

    async def verify(self, token: str, now: datetime) -> Person:
        self.verified += 1
        return await super().verify(token, now)


@pytest.fixture
def identity() -> CountingIdentity:
    return CountingIdentity()


@pytest.fixture
def authentication(server: Server, identity: CountingIdentity) -> Authentication:
    return Authentication(
        server.login, server.member_login, identity, server.tenants, server.terms, server.counters, server.clock
    )


@pytest.fixture
async def owner(server: Server) -> UserPrincipal:
    return await server.tenant()


async def agent_of(server: Server, owner: UserPrincipal) -> AgentPrincipal:
    return proven(await server.agent(owner))


async def test_caller_is_the_agent_or_the_person_that_holds_the_token(
    server: Server, owner: UserPrincipal, identity: CountingIdentity, authentication: Authentication
) -> None:
    agent = await agent_of(server, owner)
    assert await authentication.caller(server.tokens.mint(agent, START)) == agent
    assert identity.verified == 0
    assert await authentication.caller(identity.issue("alice", START)) == "alice"
    assert identity.verified == 1


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "\u00e9.b.c", "eyJhbGciOiJIUzI1NiJ9.e30.x", "W10.e30.x", "x" * 5000])
async def test_text_that_is_no_token_is_refused(authentication: Authentication, text: str) -> None:
    assert not is_agent_token(text)
    with pytest.raises(Unauthenticated):
        await authentication.caller(text)


async def test_forged_agent_token_is_refused_without_asking_the_identity_provider(
    server: Server, owner: UserPrincipal, identity: CountingIdentity, authentication: Authentication
) -> None:
    minted = server.tokens.mint(await agent_of(server, owner), START)
    with pytest.raises(Unauthenticated):
        await authentication.caller(minted[:-4] + "AAAA")
    assert identity.verified == 0


def test_access_token_of_an_issuer_with_the_type_of_rfc_9068_is_not_an_agents() -> None:
    key = RSAKey.generate_key(2048)
    assert not is_agent_token(jwt.encode({"alg": "RS256", "typ": "at+jwt"}, {"sub": "alice"}, key, algorithms=["RS256"]))


async def test_token_of_a_person_with_an_agents_header_is_refused(
    server: Server, identity: CountingIdentity, authentication: Authentication
) -> None:
    agent = AgentPrincipal(agent_id=AgentId("agt_a"), tenant_id=TenantId("ten_a"), epoch=0)
    header = server.tokens.mint(agent, START).partition(".")[0]
    _, claims, signature = identity.issue("alice", START).split(".")
    with pytest.raises(Unauthenticated):
        await authentication.caller(f"{header}.{claims}.{signature}")


async def test_principal_of_a_foreign_tenant_is_not_found_for_agents_and_people_alike(
    server: Server, owner: UserPrincipal, authentication: Authentication
) -> None:
    foreign = (await server.tenant("bob")).tenant_id
    agent = await agent_of(server, owner)
    assert await authentication.principal(agent, owner.tenant_id) == agent
    assert (await authentication.principal(UserId("alice"), owner.tenant_id)).tenant_id == owner.tenant_id
    for caller in (agent, UserId("alice")):
        for tenant_id in (foreign, "ten_nowhere"):
            with pytest.raises(TenantNotFound):
                await authentication.principal(caller, tenant_id)


async def test_session_ends_with_its_token(
    server: Server, owner: UserPrincipal, identity: CountingIdentity, authentication: Authentication
) -> None:
    agent, start = await agent_of(server, owner), START.replace(microsecond=0)
    token, persons = server.tokens.mint(agent, START), identity.issue("alice", START)
    assert await authentication.open_session(token, None) == (agent, start + timedelta(seconds=900))
    principal, expires_at = await authentication.open_session(persons, owner.tenant_id)
    assert (principal, expires_at) == (owner, start + timedelta(hours=12))
    server.clock.pass_s(13 * 3600)
    for each in (token, persons):
        with pytest.raises(CredentialsExpired):
            await authentication.open_session(each, owner.tenant_id)


async def test_session_in_another_tenant_is_refused(
    server: Server, owner: UserPrincipal, identity: CountingIdentity, authentication: Authentication
) -> None:
    token = server.tokens.mint(await agent_of(server, owner), START)
    foreign = (await server.tenant("bob")).tenant_id
    with pytest.raises(BadCredentials):
        await authentication.open_session(token, foreign)
    for tenant_id in (foreign, "ten_nowhere", None):
        with pytest.raises(NotAMember):
            await authentication.open_session(identity.issue("alice", START), tenant_id)
