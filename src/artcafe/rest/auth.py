"""Routes for the login of agents: a challenge to sign, and a token for its signature. `services.login` verifies it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Header
from pydantic import Field

from artcafe.errors import BadCredentials
from artcafe.rest import problems
from artcafe.rest.bodies import SMALL_BODY_BYTES, json_body, request_schema
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.direct import DirectRoute
from artcafe.rest.paging import Time
from artcafe.rest.schemas import RequestModel, ResponseModel

router = APIRouter(prefix="/v1/auth", tags=["auth"])


class NewChallenge(RequestModel):
    """The agent that requests a challenge."""

    tenant_id: str = Field(examples=["ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    agent_id: str = Field(examples=["agt_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])


class ChallengeResponse(ResponseModel):
    """A challenge to sign. It is valid for one attempt, until `expires_at`."""

    challenge_id: str = Field(examples=["chl_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    challenge: str = Field(
        description='The text to sign, without changes: printf %s "$challenge" | ssh-keygen -Y sign -n artcafe -f KEY',
        examples=["artcafe login 1 service=… tenant=ten_… agent=agt_… challenge=chl_… nonce=… expires=2026-11-22T16:55:57.123Z"],
    )
    expires_at: Time


class NewToken(RequestModel):
    """A signed challenge."""

    challenge_id: str = Field(examples=["chl_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    signature: str = Field(
        description="The armored SSHSIG printed by ssh-keygen.",
        examples=["-----BEGIN SSH SIGNATURE-----\n…\n-----END SSH SIGNATURE-----\n"],
    )


class TokenResponse(ResponseModel):
    """An access token. It ends early if its agent is deleted or disabled, or gets another key."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 (the name of a scheme)
    expires_in: int = Field(description="Lifetime in seconds.", examples=[900])


LoginKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description=(
            "Accepted as on every POST, but without effect here: the caller is not known yet, and a repeated login creates"
            " nothing twice. If a response is lost, start again with a new challenge."
        ),
    ),
]


@router.post(
    "/challenges",
    status_code=201,
    summary="Begin an agent's login",
    responses=problems.responses(*problems.BODY),
    openapi_extra=request_schema(NewChallenge),
)
async def create_challenge(
    services: ServicesDep,
    body: Annotated[NewChallenge, Depends(json_body(NewChallenge, SMALL_BODY_BYTES))],
    _key: LoginKey = None,
) -> ChallengeResponse:
    """Return a challenge. The response for an unknown agent has the same form."""
    posed = await services.login.begin(body.tenant_id, body.agent_id)
    return ChallengeResponse(challenge_id=posed.id, challenge=posed.text, expires_at=posed.expires_at)


@router.post(
    "/tokens",
    status_code=200,
    summary="Finish an agent's login",
    responses=problems.responses(BadCredentials, *problems.BODY),
    openapi_extra=request_schema(NewToken),
)
async def create_token(
    services: ServicesDep, body: Annotated[NewToken, Depends(json_body(NewToken, SMALL_BODY_BYTES))], _key: LoginKey = None
) -> TokenResponse:
    """Exchange a signed challenge for an access token. An attempt uses up the challenge, and all failures are answered alike."""
    token, expires_in_s = await services.login.redeem(body.challenge_id, body.signature)
    return TokenResponse(access_token=token, expires_in=expires_in_s)


DIRECT: Final[tuple[DirectRoute[Any], ...]] = (
    DirectRoute("POST", f"{router.prefix}/challenges", 201, NewChallenge, SMALL_BODY_BYTES, create_challenge),
    DirectRoute("POST", f"{router.prefix}/tokens", 200, NewToken, SMALL_BODY_BYTES, create_token),
)
