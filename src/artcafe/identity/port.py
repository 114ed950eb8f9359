"""The identity provider port: verify access tokens, and the e-mail addresses in ID tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import msgspec

from artcafe.model import UserId


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """A person, proven by an access token until `expires_at`."""

    user_id: UserId
    expires_at: datetime


class EmailClaim(msgspec.Struct, frozen=True, kw_only=True):
    """The e-mail address in an ID token. `email` is None if the token has none.

    The caller must compare `user_id` with its own user, and accept the address only if `is_verified`.
    """

    user_id: UserId
    email: str | None
    is_verified: bool


class Identity(Protocol):
    """An identity provider: an OIDC issuer, or the installation itself on its own machine."""

    async def verify(self, token: str, now: datetime) -> Person:
        """Return the person of an access token. Fails closed.

        Raises CredentialsExpired for an expired token, Unauthenticated for any other text, and Unavailable if the issuer's keys
        cannot be fetched.
        """
        ...

    async def verify_id_token(self, id_token: str, now: datetime) -> EmailClaim:
        """Return the address in an ID token (OpenID Connect Core 1.0, section 2). Raises the errors of `verify`; fails closed.

        An ID token grants no access and is accepted only here. Access tokens often have no address (Cognito's never do).
        """
        ...

    async def run(self) -> None:
        """Refresh the provider's keys until cancelled; return at once if there is nothing to refresh."""
        ...
