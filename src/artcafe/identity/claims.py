"""Check the claims of a person's token with a valid signature: OpenID Connect's rules, and Cognito's differences as data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from artcafe.errors import CredentialsExpired, Unauthenticated
from artcafe.identity.port import EmailClaim, Person
from artcafe.model import UserId

LEEWAY_S: Final = 60
"""The tolerated difference between the issuer's clock and the server's."""
MAX_LIFETIME_S: Final = 48 * 3600
"""The maximum lifetime of a token. Cognito's maximum is 24 hours; a token valid for years is a mistake or an attack."""
SUBJECT_CHARS: Final = 255
"""OpenID Connect Core 1.0, section 2."""
_EMAIL_CHARS: Final = 254


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The differences in the tokens of one kind of issuer.

    `use` is the claim with a token's purpose, and its values in access tokens and in ID tokens; None if the issuer has no such
    claim. `audience` is the claim of an access token required to contain a configured client, and `whose` describes its values.
    """

    whose: str
    use: tuple[str, str, str] | None
    audience: str


COGNITO: Final = Rules(whose="app clients of the user pool", use=("token_use", "access", "id"), audience="client_id")
"""docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-tokens-verifying-a-jwt.html"""
OIDC: Final = Rules(whose="audiences of the access tokens", use=None, audience="aud")

_COGNITO_ISSUER: Final = re.compile(r"https://cognito-idp\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/[a-z0-9-]+_[A-Za-z0-9]+")

_ID_TYPES: Final = frozenset({"jwt"})
_ACCESS_TYPE: Final = "at+jwt"
"""RFC 9068, section 2.1."""


_CLIENT_CLAIMS: Final = ("client_id", "azp", "cid", "appid", "clientId")
"""The client of a token: RFC 8693, OpenID Connect, Okta, Entra ID, older Keycloak."""
_GRANT_CLAIMS: Final = ("gty", "grant_type")
"""The grant of a token: Auth0 and FusionAuth; ForgeRock."""
_CLIENT_CREDENTIALS: Final = "client_credentials"
_AUTH0_CLIENT: Final = "@clients"
_KEYCLOAK_SERVICE: Final = "service-account-"


def rules_of(issuer: str) -> Rules:
    """Return the rules for this issuer's tokens, by its URL."""
    return COGNITO if _COGNITO_ISSUER.fullmatch(issuer) else OIDC


class TokenChecks(msgspec.Struct, frozen=True, kw_only=True):
    """The checks of a token: exactly this issuer, and one of these clients."""

    issuer: str
    clients: frozenset[str]
    rules: Rules

    def person(self, header: Mapping[str, Any], claims: Mapping[str, Any], now: datetime) -> Person:
        """Return the person in an access token.

        Raises CredentialsExpired if only its time is wrong, otherwise Unauthenticated.
        """
        subject = self._subject(claims)
        _require(self._is_access(header, claims))
        _require(not self.clients.isdisjoint(_texts(claims.get(self.rules.audience))))
        return Person(user_id=subject, expires_at=_check_times(claims, now))

    def address(self, header: Mapping[str, Any], claims: Mapping[str, Any], now: datetime) -> EmailClaim:
        """Return the address in an ID token. Raises the errors of `person`."""
        subject = self._subject(claims)
        _require(self._is_id(header, claims))
        _require(not self.clients.isdisjoint(_texts(claims.get("aud"))))
        _check_times(claims, now)
        email = claims.get("email")
        is_email = isinstance(email, str) and 0 < len(email) <= _EMAIL_CHARS and email.isprintable()
        said = claims.get("email_verified")
        is_verified = is_email and (said is True or said == "true")  # Some issuers send the text; any other value means no.
        return EmailClaim(user_id=subject, email=email if is_email else None, is_verified=is_verified)

    def _subject(self, claims: Mapping[str, Any]) -> UserId:
        _require(claims.get("iss") == self.issuer)
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_CHARS or not subject.isprintable():
            raise Unauthenticated
        _require(not _is_machine(subject, claims))
        return UserId(subject)

    def _is_access(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> bool:
        """Return whether the token is an access token.

        Without a claim for the purpose, an access token is recognised by its type or by a scope, which ID tokens never have:
        otherwise the operator of any site the person logs in to could use the ID token here.
        """
        if self.rules.use is not None:
            claim, access, _ = self.rules.use
            return claims.get(claim) == access
        if "at_hash" in claims or "c_hash" in claims or claims.get("typ", "Bearer") != "Bearer":  # "ID", "Refresh": Keycloak's
            return False
        return _type(header) == _ACCESS_TYPE or "scope" in claims or "scp" in claims

    def _is_id(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> bool:
        if _type(header) not in _ID_TYPES:
            return False
        if self.rules.use is not None:
            claim, _, id_token = self.rules.use
            return claims.get(claim) == id_token
        return claims.get("typ", "ID") == "ID" and "scope" not in claims and "scp" not in claims


class StrictDecoder(json.JSONDecoder):
    """Decode JSON without duplicate names: two claims of one name would be ambiguous."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=_unique_names, parse_constant=_refuse_constant)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate name")
    return found


def _type(header: Mapping[str, Any]) -> str:
    """Return the token's media type without `application/` (RFC 7515, section 4.1.9); `jwt` if the header has none."""
    named = header.get("typ", "JWT")
    return named.lower().removeprefix("application/") if isinstance(named, str) else ""


def _is_machine(subject: str, claims: Mapping[str, Any]) -> bool:
    """Return whether the token belongs to a program authenticated by its own secret, not to a person.

    The subject is then the client itself (RFC 9068, section 2.2), or a claim indicates it; `docs/people.md` lists these by
    issuer.
    """
    clients = _texts([claims[name] for name in _CLIENT_CLAIMS if isinstance(claims.get(name), str)])
    grants = {_grant(text) for name in _GRANT_CLAIMS for text in _texts(claims.get(name))}
    user_name = claims.get("preferred_username")
    return (
        subject.endswith(_AUTH0_CLIENT)
        or subject in clients
        or _CLIENT_CREDENTIALS in grants
        or claims.get("idtyp") == "app"
        or (isinstance(user_name, str) and user_name.startswith(_KEYCLOAK_SERVICE))
    )


def _grant(text: str) -> str:
    """Return the name of a grant in the spelling of RFC 6749: Auth0 uses hyphens."""
    return text.replace("-", "_")


def _check_times(claims: Mapping[str, Any], now: datetime) -> datetime:
    """Return the expiry of the token. Raises CredentialsExpired, or Unauthenticated for implausible times."""
    at = now.timestamp()
    end = _numeric_date(claims.get("exp"))
    for begin in ("nbf", "iat"):
        _require(begin not in claims or _numeric_date(claims[begin]) <= at + LEEWAY_S)
    _require(end <= at + MAX_LIFETIME_S)
    if at >= end + LEEWAY_S:
        raise CredentialsExpired
    return datetime.fromtimestamp(end, UTC)


def _numeric_date(value: object) -> float:
    """Return a NumericDate (RFC 7519, section 2); JSON's `true` and NaN are refused."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 40:
        raise Unauthenticated
    return value


def _texts(value: object) -> frozenset[str]:
    """Return an audience: a text or a list of texts (RFC 7519, section 4.1.3)."""
    if isinstance(value, str):
        return frozenset({value})
    return frozenset(value) if isinstance(value, list) and all(isinstance(each, str) for each in value) else frozenset()


def _require(holds: bool) -> None:
    if not holds:
        raise Unauthenticated
