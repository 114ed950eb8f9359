"""Login of an agent over REST, by its SSH key."""

from __future__ import annotations

from artcafe.sdk.http import HttpClient
from artcafe.sdk.keys import Signer
from artcafe.sdk.session import check_challenge
from artcafe.sdk.token_records import Token
from artcafe.wire import replies


async def log_in(http: HttpClient, tenant: str, agent: str, signer: Signer, service: str | None = None) -> tuple[Token, str]:
    """Log in once, use the token from now on, and return it with its service. Raises `ChallengeRefused` for another service than
    `service`, if given."""
    asked = {"tenant_id": tenant, "agent_id": agent}
    posed = await http.send_login(replies.ChallengeReply, "/v1/auth/challenges", asked)
    named = check_challenge(posed.challenge, posed.challenge_id, tenant, agent, service)
    signature = await signer.sign(posed.challenge)
    proof = {"challenge_id": posed.challenge_id, "signature": signature}
    token = await http.send_login(Token, "/v1/auth/tokens", proof)
    http.token = token.access_token
    return token, named
