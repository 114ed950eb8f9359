"""The console's sign-in with the local identity: a code for one use within 60 s, which `artcafe console` puts into the address of
the page. The page exchanges it for a token, so no token is ever part of an address.
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
from artcafe.tables.console_code_store import ConsoleCodeStore

CODE_S: Final = 60
_CODE_BYTES: Final = 32

_COUNTED: Final = TenantId("~console"), AgentId("~console")
"""In the login throttle, the exchange of codes is one agent: attempts are limited by address."""


class TokenIssuer(Protocol):
    """Issues tokens for people: the local identity."""

    def issue(self, user: str, now: datetime) -> str:
        """Return an access token for a user."""
        ...

    @property
    def lifetime_s(self) -> int:
        """Lifetime of its tokens."""
        ...


class ConsoleCode(msgspec.Struct, frozen=True):
    """A code to sign its creator in once, until `expires_at`."""

    code: str
    expires_at: datetime


class ConsoleCodes:
    """Creates and redeems codes. Without `issuer`, people sign in at an identity provider, and there are no codes."""

    def __init__(self, codes: ConsoleCodeStore, issuer: TokenIssuer | None, throttle: LoginThrottle, clock: Clock) -> None:
        self._codes, self._issuer, self._throttle, self._clock = codes, issuer, throttle, clock

    async def create(self, user_id: UserId) -> ConsoleCode:
        """Return a new code for this user. Raises Conflict where people sign in at an identity provider."""
        if self._issuer is None:
            raise Conflict("the console has no codes here: it signs people in at the issuer that GET /v1 names")
        # Whole seconds, like the table's TTL.
        expires_at = self._clock().replace(microsecond=0) + timedelta(seconds=CODE_S)
        code = ConsoleCode(secrets.token_urlsafe(_CODE_BYTES), expires_at)
        await self._codes.put(code.code, user_id, expires_at)
        return code

    async def redeem(self, code: str) -> tuple[str, int]:
        """Return a token of the code's user, and its lifetime in seconds. Raises BadCode and RateLimited."""
        self._throttle.begin(*_COUNTED)
        user_id = None if self._issuer is None else await self._codes.take(code, ids.new_id("att"), self._clock())
        if self._issuer is None or user_id is None:
            self._throttle.failed(*_COUNTED)
            raise BadCode
        return self._issuer.issue(user_id, self._clock()), self._issuer.lifetime_s
