"""What ArtCafe asks of whoever vouches for people: who holds an access token, and which address an ID token proves."""

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
    """What an ID token says of a person's e-mail address. `email` is None where it names none.

    Whoever asks compares `user_id` with the caller's, and believes an address only where `is_verified`.
    """

    user_id: UserId
    email: str | None
    is_verified: bool


class Identity(Protocol):
    """Whoever vouches for people: an OIDC issuer, or the installation itself on a machine of its own."""

    async def verify(self, token: str, now: datetime) -> Person:
        """The person whose access token this is. Fails closed.

        Raises CredentialsExpired for a token that was good once, Unauthenticated for any other text, and Unavailable where that
        cannot be known because the issuer's keys cannot be had.
        """
        ...

    async def verify_id_token(self, id_token: str, now: datetime) -> EmailClaim:
        """The address that an ID token proves (OpenID Connect Core 1.0, section 2). Raises as `verify` does; fails closed.

        An ID token opens nothing: it is believed here alone. Access tokens often name no address (Cognito's never do).
        """
        ...

    async def run(self) -> None:
        """Keeps fresh what it needs for that, until cancelled; returns where that is nothing."""
        ...
