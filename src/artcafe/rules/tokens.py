"""Agents' access tokens: create and verify them. `services.login` checks whether the agent may still act."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from datetime import UTC, datetime
from typing import Final, TypeVar

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from artcafe.errors import CredentialsExpired, Unauthenticated
from artcafe.model import AgentId, AgentPrincipal, TenantId
from artcafe.rules import ids

LIFETIME_S: Final = 900
TYPE: Final = "at+jwt"
"""The media type of an access token (RFC 9068, section 2.1). A person's token has another type, so neither passes for the
other."""

MAX_CHARS: Final = 4096
_ALGORITHMS: Final = ["HS256"]

ClaimsT = TypeVar("ClaimsT", bound="Claims")


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """The claims of every ArtCafe token (RFC 7519, section 4.1); times are seconds since 1970."""

    iss: str
    sub: str
    iat: int
    exp: int


class _Header(msgspec.Struct, frozen=True):
    alg: str = ""
    typ: str = ""


class _AgentToken(Claims, frozen=True, kw_only=True):
    aud: str
    jti: str
    tenant: str
    epoch: int
    key: int = 0


class AgentClaims(msgspec.Struct, frozen=True, kw_only=True):
    """The claims of a verified token: the proven agent, and the expiry."""

    principal: AgentPrincipal
    expires_at: datetime
    id: str


class Tokens:
    """Creates and verifies an installation's tokens: JWTs (RFC 7519) with HMAC-SHA256 and its `key` of 32 bytes.

    `service_name` is issuer and audience: another installation refuses the token, even with the same key.
    """

    def __init__(self, key: bytes, service_name: str) -> None:
        self._key = OctKey.import_key(key)
        self._service = service_name

    def mint(self, principal: AgentPrincipal, now: datetime) -> str:
        """Return a token for an agent that has just proven itself, valid for 900 s or until its proof expires."""
        issued = int(now.timestamp())
        claims = _AgentToken(
            iss=self._service,
            aud=self._service,
            sub=principal.agent_id,
            tenant=principal.tenant_id,
            epoch=principal.epoch,
            key=principal.key,
            iat=issued,
            exp=issued + lifetime_s(principal, now),
            jti=ids.new_id("tok"),
        )
        return sign(claims, TYPE, self._key)

    def read(self, token: str, now: datetime) -> AgentClaims:
        """Return the claims of a token of this installation.

        Raises CredentialsExpired for an expired token, and Unauthenticated for any other text. Fails closed.
        """
        claims = verify(token, TYPE, self._key, _AgentToken, self._service, now)
        if claims.aud != self._service:
            raise Unauthenticated
        return AgentClaims(
            principal=AgentPrincipal(
                agent_id=AgentId(claims.sub), tenant_id=TenantId(claims.tenant), epoch=claims.epoch, key=claims.key
            ),
            expires_at=datetime.fromtimestamp(claims.exp, UTC),
            id=claims.jti,
        )


def is_agent_token(token: str) -> bool:
    """Return whether a token's header has the algorithm and type of agents' tokens. Verifies nothing.

    No valid token of a person has both: issuers sign with RS256, and the installation itself issues another type.
    """
    if len(token) > MAX_CHARS:
        return False
    try:
        header = msgspec.json.decode(urlsafe_b64decode(token.partition(".")[0] + "=="), type=_Header)
    except ValueError:  # of base64 and msgspec alike
        return False
    return header.alg in _ALGORITHMS and header.typ == TYPE


def lifetime_s(principal: AgentPrincipal, now: datetime) -> int:
    """Return the lifetime in seconds of a token created for the principal now."""
    left = LIFETIME_S if principal.until is None else int(principal.until.timestamp()) - int(now.timestamp())
    return max(0, min(LIFETIME_S, left))


def sign(claims: Claims, token_type: str, key: OctKey) -> str:
    """Return the claims as a compact JWT of this type."""
    return jwt.encode({"alg": "HS256", "typ": token_type}, msgspec.to_builtins(claims), key, algorithms=_ALGORITHMS)


def verify(token: str, token_type: str, key: OctKey, into: type[ClaimsT], issuer: str, now: datetime) -> ClaimsT:
    """Verify a token with this key, of exactly this type and issuer, and return its claims, all present and correctly typed.

    Raises CredentialsExpired if only its time is wrong, otherwise Unauthenticated. Accepts only HS256, regardless of the header;
    verifies the signature before parsing a claim.
    """
    if len(token) > MAX_CHARS or not token.isascii():
        raise Unauthenticated
    try:
        opened = jwt.decode(token, key, algorithms=_ALGORITHMS)
        claims = msgspec.convert(opened.claims, into)
    except (JoseError, msgspec.ValidationError, ValueError) as exc:
        raise Unauthenticated from exc
    if opened.header.get("typ") != token_type or claims.iss != issuer:
        raise Unauthenticated
    if now.timestamp() >= claims.exp:
        raise CredentialsExpired
    return claims
