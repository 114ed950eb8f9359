"""What one connection is proven by: challenges that live in it, and tokens. What makes a proof good is `services.login`'s."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from artcafe.errors import BadCommand, BadCredentials, Unauthenticated
from artcafe.model import Challenge, Principal
from artcafe.observe.clock import Clock
from artcafe.rules import times
from artcafe.services.login import Login
from artcafe.services.member_login import MemberLogin
from artcafe.wire import frames, replies

MAX_CHALLENGES: Final = 4
"""A login needs one; a few more let an agent with several keys try."""


class LoginHandshake:
    """What was posed on this connection and not answered yet, before `connect` and between two."""

    __slots__ = ("_clock", "_login", "_member_login", "_posed")

    def __init__(self, login: Login, member_login: MemberLogin, clock: Clock) -> None:
        self._login, self._member_login, self._clock = login, member_login, clock
        self._posed: dict[str, Challenge] = {}

    def pose(self, claim: frames.Challenge) -> replies.ChallengeReply:
        """A challenge for whoever the peer says it is. Raises `BadCommand` for one too many."""
        now = self._clock()
        self._posed = {id: each for id, each in self._posed.items() if now < each.expires_at}
        if len(self._posed) >= MAX_CHALLENGES:
            raise BadCommand(f"at most {MAX_CHALLENGES} challenges a connection; connect again for more")
        posed = self._login.pose(claim.tenant_id, claim.agent_id)
        self._posed[posed.id] = posed
        return replies.ChallengeReply(posed.id, posed.text, times.to_text(posed.expires_at))

    async def prove(self, proof: frames.Connect) -> tuple[Principal, datetime | None]:
        """The agent or person that the proof bears out, and until when: a signature as long as the connection (None) or its key.

        Raises `BadCredentials`, `Unauthenticated`, `NotAMember`, `CredentialsExpired`, `Revoked` or `Unavailable`.
        """
        if proof.access_token is not None and proof.challenge_id is None and proof.signature is None:
            try:
                principal = await self._login.agent_of(proof.access_token)
            except Unauthenticated:
                return await self._member_login.enter(proof.access_token, proof.tenant_id)
            if proof.tenant_id is not None and proof.tenant_id != principal.tenant_id:
                raise BadCredentials()
            return principal, self._login.expiry_of(proof.access_token)
        if proof.challenge_id is None or proof.signature is None or proof.access_token is not None:
            raise BadCredentials()
        challenge = self._posed.pop(proof.challenge_id, None)
        if challenge is None:
            raise BadCredentials()
        principal = await self._login.prove(challenge, proof.signature)
        return principal, principal.until
