"""The challenges of one connection, and the authentication of its `connect` commands."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from artcafe.errors import BadCommand, BadCredentials
from artcafe.model import LoginChallenge, Principal
from artcafe.observe.clock import Clock
from artcafe.rules import times
from artcafe.services.authentication import Authentication
from artcafe.services.login import Login
from artcafe.wire import frames, replies

MAX_CHALLENGES: Final = 4
"""Open challenges of a connection. A login needs one; the others let an agent with several keys try them."""


class LoginHandshake:
    """The open challenges of one connection, before its first `connect` and between two."""

    __slots__ = ("_authentication", "_challenges", "_clock", "_login")

    def __init__(self, login: Login, authentication: Authentication, clock: Clock) -> None:
        self._login, self._authentication, self._clock = login, authentication, clock
        self._challenges: dict[str, LoginChallenge] = {}

    def issue_challenge(self, claim: frames.Challenge) -> replies.ChallengeReply:
        """Return a challenge for the claimed agent. Raises `BadCommand` for more than `MAX_CHALLENGES`, and `RateLimited`."""
        now = self._clock()
        self._challenges = {id: each for id, each in self._challenges.items() if now < each.expires_at}
        if len(self._challenges) >= MAX_CHALLENGES:
            raise BadCommand(f"at most {MAX_CHALLENGES} challenges a connection; connect again for more")
        challenge = self._login.pose(claim.tenant_id, claim.agent_id)
        self._challenges[challenge.id] = challenge
        return replies.ChallengeReply(challenge.id, challenge.text, times.to_text(challenge.expires_at))

    async def authenticate(self, connect: frames.Connect) -> tuple[Principal, datetime | None]:
        """Return the agent or person of a token or signature, and the expiry of the token or signing key, if any.

        Fails closed. A challenge is used up by its first answer. Raises `BadCredentials`, `Unauthenticated`, `NotAMember`,
        `CredentialsExpired`, `Revoked`, `TenantSuspended`, `TermsRequired` or `Unavailable`.
        """
        if connect.access_token is not None and connect.challenge_id is None and connect.signature is None:
            return await self._authentication.open_session(connect.access_token, connect.tenant_id)
        if connect.challenge_id is None or connect.signature is None or connect.access_token is not None:
            raise BadCredentials()
        challenge = self._challenges.pop(connect.challenge_id, None)
        if challenge is None:
            raise BadCredentials()
        principal = await self._login.prove(challenge, connect.signature)
        return principal, principal.until
