"""Authenticate people by any OpenID Connect issuer, primarily Amazon Cognito's user pools, with the issuer's own keys."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple, Self

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from artcafe.errors import StartRefused, Unauthenticated
from artcafe.identity.claims import StrictDecoder, TokenChecks, rules_of
from artcafe.identity.issuer_keys import ALGORITHM, IssuerKeys, is_safe_url
from artcafe.identity.port import EmailClaim, Person

MAX_CHARS: Final = 16 * 1024
"""Groups make a token long; uvicorn refuses a request head of more than 64 KiB anyway."""

_HEADER_CHARS: Final = 1024

_REFUSED: Final = frozenset({"jwk", "jku", "x5c", "x5u", "crit", "b64", "zip"})
"""Header parameters to bring a key along or to change the parsing of the token (RFC 7515, section 4.1)."""

# Ignore other parameters (RFC 7515): issuers add their own.
_REGISTRY: Final = JWSRegistry(algorithms=[ALGORITHM], strict_check_header=False)


class _Token(NamedTuple):
    header: dict[str, Any]
    claims: dict[str, Any]


class OidcIdentity:
    """Accepts access tokens of exactly this `issuer` for one of `clients`."""

    def __init__(self, issuer: str, clients: Iterable[str], keys: IssuerKeys) -> None:
        self._expected = TokenChecks(issuer=issuer, clients=frozenset(clients), rules=rules_of(issuer))
        self._keys = keys

    @classmethod
    async def open(cls, issuer: str, clients: Iterable[str], jwks_url: str | None = None) -> Self:
        """Open the issuer, and fetch its keys if it is reachable. Raises StartRefused for a wrong setting."""
        for name, url in (("ISSUER", issuer), ("JWKS_URL", jwks_url)):
            if url is not None and not is_safe_url(url):
                raise StartRefused(
                    f"{name} is {url!r}, and anyone on the network path could replace its keys",
                    "use the https:// address; http:// is only for an issuer on this machine",
                )
        clients = frozenset(clients)
        if not clients:
            raise StartRefused(
                "ISSUER is set without CLIENT_IDS: tokens issued for any other program would be accepted",
                f"name the {rules_of(issuer).whose} that people log in through, such as: ARTCAFE_CLIENT_IDS=4k2j…",
            )
        keys = IssuerKeys(issuer, jwks_url)
        await keys.begin()
        return cls(issuer, clients, keys)

    async def verify(self, token: str, now: datetime) -> Person:
        """Verify an access token as `Identity.verify` does."""
        opened = await self._verified(token)
        return self._expected.person(opened.header, opened.claims, now)

    async def verify_id_token(self, id_token: str, now: datetime) -> EmailClaim:
        """Verify an ID token as `Identity.verify_id_token` does."""
        opened = await self._verified(id_token)
        return self._expected.address(opened.header, opened.claims, now)

    async def run(self) -> None:
        """Refresh the keys as `Identity.run` does."""
        await self._keys.run()

    async def _verified(self, token: str) -> _Token:
        """Return header and claims of a token signed by RS256 with a key of the issuer. Raises Unauthenticated or Unavailable."""
        if len(token) > MAX_CHARS or not token.isascii():
            raise Unauthenticated
        try:
            key = await self._keys.find(_kid(token))
            opened = jwt.decode(token, key, algorithms=[ALGORITHM], registry=_REGISTRY, decoder_cls=StrictDecoder)
        except (JoseError, ValueError, RecursionError) as exc:
            raise Unauthenticated from exc
        return _Token(opened.header, opened.claims)


def _kid(token: str) -> str:
    """Return the key id in the token's header. Raises ValueError for a header with another algorithm or a refused parameter."""
    segment = token.partition(".")[0]
    if len(segment) > _HEADER_CHARS:
        raise ValueError("header too long")
    # `validate` alone would accept padding and stray bits; joserfc refuses those, below.
    header = json.loads(base64.b64decode(segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True), cls=StrictDecoder)
    if not isinstance(header, dict) or header.get("alg") != ALGORITHM or not _REFUSED.isdisjoint(header):
        raise ValueError("another algorithm or a refused header parameter")
    kid = header.get("kid")
    if not isinstance(kid, str):
        raise ValueError("no key id")  # noqa: TRY004 (sent by a peer)
    return kid
