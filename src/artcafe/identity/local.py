"""Local identity: tokens for people, signed with the installation's own key. For a server reachable only from this machine."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, Literal

from joserfc.jwk import OctKey

from artcafe.errors import Invalid, Unauthenticated
from artcafe.identity.port import EmailClaim, Person
from artcafe.model import UserId
from artcafe.rules import tokens

LIFETIME_S: Final = 12 * 3600
USER_CHARS: Final = 128
ISSUER: Final = "artcafe-local"
TYPE: Final = "JWT"


class _UserToken(tokens.Claims, frozen=True, kw_only=True):
    token_use: Literal["access"]


class LocalIdentity:
    """Trusts every user's own statement: any holder of `key` (32 bytes) can issue a token for anyone."""

    def __init__(self, key: bytes) -> None:
        self._key = OctKey.import_key(key)

    @property
    def lifetime_s(self) -> int:
        return LIFETIME_S

    def issue(self, user: str, now: datetime, not_after: datetime | None = None) -> str:
        """Return an access token for `user`, 1 to 128 printable characters such as an e-mail address, for 12 hours or until
        `not_after`, whichever is earlier.

        Raises Invalid.
        """
        if not _is_user(user):
            raise Invalid("user", f"must be 1 to {USER_CHARS} printable characters")
        issued = int(now.timestamp())
        ends = issued + LIFETIME_S
        if not_after is not None:
            ends = min(ends, int(not_after.timestamp()))
        claims = _UserToken(iss=ISSUER, sub=user, iat=issued, exp=ends, token_use="access")  # noqa: S106 (a claim)
        return tokens.sign(claims, TYPE, self._key)

    async def verify(self, token: str, now: datetime) -> Person:
        """Verify an access token as `Identity.verify` does, without waiting."""
        claims = self._read(token, now)
        return Person(user_id=UserId(claims.sub), expires_at=datetime.fromtimestamp(claims.exp, UTC))

    async def verify_id_token(self, id_token: str, now: datetime) -> EmailClaim:
        """Verify a token as `Identity.verify_id_token` does: the access token serves as ID token, and the user as its address."""
        user = UserId(self._read(id_token, now).sub)
        return EmailClaim(user_id=user, email=user, is_verified=True)

    async def run(self) -> None:
        """Return at once: the key does not change."""

    def _read(self, token: str, now: datetime) -> _UserToken:
        claims = tokens.verify(token, TYPE, self._key, _UserToken, ISSUER, now)
        if not _is_user(claims.sub):
            raise Unauthenticated
        return claims


def _is_user(text: str) -> bool:
    return 0 < len(text) <= USER_CHARS and text.isprintable()
