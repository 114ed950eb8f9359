"""Login of an agent over REST, by its SSH key."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from artcafe.sdk import addresses
from artcafe.sdk.http import TIMEOUT_S, HttpClient
from artcafe.sdk.keys import Signer
from artcafe.sdk.records import Token
from artcafe.sdk.session import check_challenge
from artcafe.wire import replies


async def log_in(http: HttpClient, tenant: str, agent: str, signer: Signer, service: str | None = None) -> tuple[Token, str]:
    """Log in once, use the token from now on, and return it with its service. Raises `ChallengeRefused` for another service than
    `service`, if given."""
    asked = {"tenant_id": tenant, "agent_id": agent}
    posed = await http.send(replies.ChallengeReply, "POST", "/v1/auth/challenges", asked, is_login=True)
    named = check_challenge(posed.challenge, posed.challenge_id, tenant, agent, service)
    signature = await signer.sign(posed.challenge)
    proof = {"challenge_id": posed.challenge_id, "signature": signature}
    token = await http.send(Token, "POST", "/v1/auth/tokens", proof, is_login=True)
    http.token = token.access_token
    return token, named


async def open_logged_in(
    url: str | Sequence[str], signer: Signer, max_rate_wait_s: float, tenant: str, agent: str, service: str | None
) -> HttpClient:
    """Return an HTTP client with a token of the agent, which is renewed as needed. Raises as `log_in` does."""
    http = HttpClient([addresses.rest(each) for each in addresses.several(url)], None, TIMEOUT_S, max_rate_wait_s)
    is_open = False
    try:
        _, named = await log_in(http, tenant, agent, signer, service)
        http.renew = partial(log_in, http, tenant, agent, signer, named)
        is_open = True
    finally:
        if not is_open:
            await http.__aexit__(None, None, None)
    return http
