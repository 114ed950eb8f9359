"""The console's sign-in with the local identity: a code for one use within 60 s, which `artcafe console` puts into the address of
the page. The page exchanges it for a token, so no token is ever part of an address. The new token expires no later than the token
that created the code: otherwise the holder of any token could renew it for ever.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Final, Protocol

import msgspec

from artcafe.errors import BadCode, Conflict
from artcafe.model import AgentId, TenantId, UserId
from artcafe.observe.clock import Clock
from artcafe.rules import ids
from artcafe.services.login_throttle import LoginThrottle
from artcafe.tables.console_code_store import CodeCreator, ConsoleCodeStore

CODE_S: Final = 60
_CODE_BYTES: Final = 32

_COUNTED: Final = TenantId("~console"), AgentId("~console")
"""In the login throttle, the exchange of codes is one agent: attempts are limited by address."""


class TokenIssuer(Protocol):
    """Issues tokens for people: the local identity."""

    def issue(self, user: str, now: datetime, not_after: datetime | None = None) -> str:
        """Return an access token for a user, which expires at `not_after` or earlier."""
        ...

    @property
    def lifetime_s(self) -> int:
        """Longest lifetime of its tokens."""
        ...


class ConsoleCode(msgspec.Struct, frozen=True):
    """A code to sign its creator in once, until `expires_at`."""

    code: str
    expires_at: datetime


class ConsoleCodes:
    """Creates and redeems codes. Without `issuer`, people sign in at an identity provider, and there are no codes."""

    def __init__(self, codes: ConsoleCodeStore, issuer: TokenIssuer | None, throttle: LoginThrottle, clock: Clock) -> None:
        self._codes, self._issuer, self._throttle, self._clock = codes, issuer, throttle, clock

    async def create(self, user_id: UserId, token_expires_at: datetime) -> ConsoleCode:
        """Return a new code for this user, whose own token expires at `token_expires_at`.

        Raises Conflict where people sign in at an identity provider.
        """
        if self._issuer is None:
            raise Conflict("the console has no codes here: it signs people in at the issuer that GET /v1 names")
        # Whole seconds, like the table's TTL.
        expires_at = min(self._clock().replace(microsecond=0) + timedelta(seconds=CODE_S), token_expires_at)
        code = ConsoleCode(secrets.token_urlsafe(_CODE_BYTES), expires_at)
        await self._codes.put(code.code, CodeCreator(user_id, token_expires_at), expires_at)
        return code

    async def redeem(self, code: str) -> tuple[str, int]:
        """Return a token of the code's user, and its lifetime in seconds. Raises BadCode and RateLimited."""
        self._throttle.begin(*_COUNTED)
        now = self._clock()
        creator = None if self._issuer is None else await self._codes.take(code, ids.new_id("att"), now)
        remaining_s = 0 if creator is None else int((creator.token_expires_at - now).total_seconds())
        if self._issuer is None or creator is None or remaining_s <= 0:
            self._throttle.failed(*_COUNTED)
            raise BadCode
        token = self._issuer.issue(creator.user_id, now, creator.token_expires_at)
        return token, min(self._issuer.lifetime_s, remaining_s)
