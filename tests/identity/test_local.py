from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.errors import CredentialsExpired, Invalid, Unauthenticated
from artcafe.identity.local import LocalIdentity
from artcafe.model import AgentId, AgentPrincipal, TenantId
from artcafe.rules.tokens import Tokens
from tests.services.world import START

KEY = b"k" * 32
IDENTITY = LocalIdentity(KEY)


@pytest.mark.parametrize("user", ["alice@example.com", "a", "ü" * 128, "Alice Example"])
def test_a_token_names_the_user_it_was_issued_for(user: str) -> None:
    assert IDENTITY.verify(IDENTITY.issue(user, START), START) == user


def test_a_token_lives_12_hours() -> None:
    token = IDENTITY.issue("alice", START)
    end = START.replace(microsecond=0) + timedelta(hours=12)
    assert IDENTITY.expiry_of(token, START) == end
    assert IDENTITY.verify(token, end - timedelta(seconds=1)) == "alice"
    with pytest.raises(CredentialsExpired):
        IDENTITY.verify(token, end)


@pytest.mark.parametrize("user", ["", "a" * 129, "a\nb", "\x00"])
def test_a_user_nobody_could_name_gets_no_token(user: str) -> None:
    with pytest.raises(Invalid, match=r"^user: "):
        IDENTITY.issue(user, START)


def test_another_installations_token_is_not_believed() -> None:
    with pytest.raises(Unauthenticated):
        IDENTITY.verify(LocalIdentity(b"l" * 32).issue("alice", START), START)


def test_an_agents_token_is_no_persons_even_under_the_same_key() -> None:
    agents = Tokens(KEY, "artcafe-local")
    token = agents.mint(AgentPrincipal(agent_id=AgentId("agt_a"), tenant_id=TenantId("ten_a"), epoch=0), START)
    with pytest.raises(Unauthenticated):
        IDENTITY.verify(token, START)
    with pytest.raises(Unauthenticated):
        agents.read(IDENTITY.issue("alice", START), START)


@given(st.text())
def test_no_other_text_is_a_token(text: str) -> None:
    with pytest.raises(Unauthenticated):
        IDENTITY.verify(text, START)
