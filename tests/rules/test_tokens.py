from __future__ import annotations

import base64
import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey

from artcafe.errors import CredentialsExpired, Unauthenticated
from artcafe.model import AgentId, AgentPrincipal, TenantId
from artcafe.rules.tokens import Tokens
from tests.services.service_env import START

KEY = b"k" * 32
TOKENS = Tokens(KEY, "artcafe.test")
AGENT = AgentPrincipal(agent_id=AgentId("agt_a"), tenant_id=TenantId("ten_a"), epoch=3)
GOOD = {
    "iss": "artcafe.test",
    "aud": "artcafe.test",
    "sub": "agt_a",
    "tenant": "ten_a",
    "epoch": 3,
    "iat": int(START.timestamp()),
    "exp": int(START.timestamp()) + 900,
    "jti": "tok_1",
}
HEADER = {"alg": "HS256", "typ": "at+jwt"}


def forged(claims: object, header: object = HEADER, key: bytes = KEY) -> str:
    """Sign any claims with any header."""
    assert isinstance(header, dict)
    assert isinstance(claims, dict)
    return jwt.encode(header, claims, OctKey.import_key(key), algorithms=["HS256", "HS384", "HS512"])


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def test_token_contains_the_agent_and_its_expiry() -> None:
    claims = TOKENS.read(TOKENS.mint(AGENT, START), START)
    assert claims.principal == AGENT
    assert claims.expires_at == START.replace(microsecond=0) + timedelta(seconds=900)


def test_tokens_are_unique() -> None:
    assert TOKENS.mint(AGENT, START) != TOKENS.mint(AGENT, START)


def test_token_expires_after_900_seconds() -> None:
    token = TOKENS.mint(AGENT, START)
    assert TOKENS.read(token, START + timedelta(seconds=899)).principal == AGENT
    with pytest.raises(CredentialsExpired):
        TOKENS.read(token, START + timedelta(seconds=900))


def test_token_of_another_key_or_service_is_refused() -> None:
    for other in (Tokens(b"l" * 32, "artcafe.test"), Tokens(KEY, "artcafe.other")):
        with pytest.raises(Unauthenticated):
            TOKENS.read(other.mint(AGENT, START), START)


def test_forgery_without_a_flaw_is_accepted() -> None:
    # Control: each forgery below differs from this token in one respect.
    assert TOKENS.read(forged(GOOD), START).principal == AGENT


@pytest.mark.parametrize("missing", sorted(GOOD))
def test_token_without_a_claim_is_refused(missing: str) -> None:
    with pytest.raises(Unauthenticated):
        TOKENS.read(forged({name: value for name, value in GOOD.items() if name != missing}), START)


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "artcafe.other"},
        {"aud": "artcafe.other"},
        {"aud": ["artcafe.test"]},
        {"sub": 7},
        {"epoch": "3"},
        {"epoch": 3.5},
        {"exp": "never"},
        {"exp": True},
        {"exp": None},
    ],
)
def test_claim_with_another_value_or_type_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(Unauthenticated):
        TOKENS.read(forged(GOOD | changed), START)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "HS256"},
        {"alg": "HS256", "typ": "JWT"},
        {"alg": "HS384", "typ": "at+jwt"},
        {"alg": "HS512", "typ": "at+jwt"},
    ],
)
def test_token_of_another_type_or_algorithm_is_refused(header: dict[str, str]) -> None:
    with pytest.raises(Unauthenticated):
        TOKENS.read(forged(GOOD, header), START)


@pytest.mark.parametrize("alg", ["none", "None", "RS256", "HS256"])
def test_unsigned_token_is_refused(alg: str) -> None:
    with pytest.raises(Unauthenticated):
        TOKENS.read(f"{part({'alg': alg, 'typ': 'at+jwt'})}.{part(GOOD)}.", START)


def test_changed_token_is_refused() -> None:
    head, _, signature = TOKENS.mint(AGENT, START).split(".")
    with pytest.raises(Unauthenticated):
        TOKENS.read(f"{head}.{part(GOOD | {'sub': 'agt_b'})}.{signature}", START)


def test_expired_forgery_is_answered_like_any_other() -> None:
    with pytest.raises(Unauthenticated):
        TOKENS.read(forged(GOOD, key=b"l" * 32), START + timedelta(days=1))


@given(st.text())
def test_any_text_is_refused_without_another_error(text: str) -> None:
    with pytest.raises(Unauthenticated):
        TOKENS.read(text, START)


@given(st.text("ey.AJhb_-0", max_size=60))
def test_text_resembling_a_token_is_refused(text: str) -> None:
    with pytest.raises(Unauthenticated):
        TOKENS.read(text, START)


def test_oversized_token_is_refused() -> None:
    with pytest.raises(Unauthenticated):
        TOKENS.read(forged(GOOD | {"more": "x" * 5000}), START)
