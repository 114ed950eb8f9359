from __future__ import annotations

import base64
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.errors import CredentialsExpired, Invalid, Unauthenticated
from artcafe.identity.local import LocalIdentity
from artcafe.identity.port import EmailClaim, Person
from artcafe.model import AgentId, AgentPrincipal, TenantId, UserId
from artcafe.rules.tokens import Tokens
from tests.services.service_env import START

KEY = b"k" * 32
IDENTITY = LocalIdentity(KEY)


@pytest.mark.parametrize("user", ["alice@example.com", "a", "ü" * 128, "Alice Example"])
async def test_token_names_its_user(user: str) -> None:
    assert (await IDENTITY.verify(IDENTITY.issue(user, START), START)).user_id == user


async def test_token_expires_after_12_hours() -> None:
    token = IDENTITY.issue("alice", START)
    end = START.replace(microsecond=0) + timedelta(hours=12)
    assert await IDENTITY.verify(token, end - timedelta(seconds=1)) == Person(user_id=UserId("alice"), expires_at=end)
    with pytest.raises(CredentialsExpired):
        await IDENTITY.verify(token, end)


async def test_user_name_is_its_verified_address() -> None:
    address = await IDENTITY.verify_id_token(IDENTITY.issue("alice@example.com", START), START)
    assert address == EmailClaim(user_id=UserId("alice@example.com"), email="alice@example.com", is_verified=True)
    with pytest.raises(Unauthenticated):
        await IDENTITY.verify_id_token("alice@example.com", START)


@pytest.mark.parametrize("user", ["", "a" * 129, "a\nb", "\x00"])
def test_invalid_user_name_gets_no_token(user: str) -> None:
    with pytest.raises(Invalid, match=r"^user: "):
        IDENTITY.issue(user, START)


async def test_token_of_another_installation_is_refused() -> None:
    with pytest.raises(Unauthenticated):
        await IDENTITY.verify(LocalIdentity(b"l" * 32).issue("alice", START), START)


async def test_agent_token_is_refused_as_a_persons_even_with_the_same_key() -> None:
    agents = Tokens(KEY, "artcafe-local")
    token = agents.mint(AgentPrincipal(agent_id=AgentId("agt_a"), tenant_id=TenantId("ten_a"), epoch=0), START)
    with pytest.raises(Unauthenticated):
        await IDENTITY.verify(token, START)
    with pytest.raises(Unauthenticated):
        agents.read(IDENTITY.issue("alice", START), START)


@given(st.text())
async def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(Unauthenticated):
        await IDENTITY.verify(text, START)


async def test_header_nested_too_deeply_is_refused() -> None:
    header = base64.urlsafe_b64encode(b"[" * 2400).rstrip(b"=").decode()
    with pytest.raises(Unauthenticated):
        await IDENTITY.verify(f"{header}.e30.e30", START)
